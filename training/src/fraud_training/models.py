"""Estimators: the baseline, the champion's candidates, and how each is fitted.

Every candidate is a scikit-learn style classifier on float32 rows, fitted with the rows' sampling
weights, so that its probabilities are those of the unthinned stream. Single-threaded fits and a
fixed seed make a rebuild on the same machine give the same model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from fraud_training.dataset import Dataset


@dataclass(frozen=True)
class Candidate:
    """A kind of model with its parameters, not fitted yet."""

    family: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def deterministic(self) -> bool:
        """Whether the seed makes no difference to the fit."""
        return self.family == "logistic-regression"

    def describe(self) -> str:
        settings = ", ".join(f"{key} {value}" for key, value in sorted(self.parameters.items()))
        return f"{self.family}: {settings}"


@dataclass(frozen=True)
class Fitted:
    """A candidate after fitting."""

    candidate: Candidate
    estimator: Any

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of fraud per row."""
        scores: NDArray[np.float64] = self.estimator.predict_proba(features)[:, 1].astype(
            np.float64
        )
        return scores


Fitter = Callable[[Candidate, Dataset, int], Fitted]
"""What fits a candidate with a seed: `fit` below, or another engine's function of that kind."""

BASELINES: tuple[Candidate, ...] = tuple(
    Candidate("logistic-regression", {"C": c, "fraud_weight": weight})
    for c, weight in ((0.0003, 10.0), (0.001, 10.0), (0.001, 30.0), (0.003, 30.0))
)
"""Strong regularisation, and frauds weighted up while fitting: with 1 fraud to 550 genuine rows the
loss is otherwise dominated by rows that no threshold ever comes near."""

RIVALS: tuple[Candidate, ...] = (
    Candidate("random-forest", {"n_estimators": 200, "max_depth": 6}),
    Candidate("extra-trees", {"n_estimators": 200, "max_depth": None}),
)
"""Yardsticks for the champion on the same windows; see `RIVAL_MARGIN`."""

RIVAL_MARGIN = 0.02
"""About one standard error of the validation average precision. A rival ahead by more than this
deserves to be the champion, and the run says so; by less, XGBoost stays: trees of bounded depth
with few distinct cuts are what a fast tree kernel wants."""

XGBOOST_DEFAULT: dict[str, Any] = {
    "n_estimators": 200,
    "max_depth": 4,
    "learning_rate": 0.05,
    "subsample": 0.6,
    "colsample_bynode": 0.4,
    "min_child_weight": 1.0,
    "reg_lambda": 10.0,
    "monotone_above": 0.3,
}

SEARCH_SPACE: dict[str, tuple[Any, ...]] = {
    "max_depth": (3, 4, 5, 6),
    "learning_rate": (0.03, 0.05, 0.08),
    "subsample": (0.5, 0.6, 0.7),
    "colsample_bynode": (0.25, 0.4, 0.5),
    "reg_lambda": (5.0, 10.0, 20.0),
    "monotone_above": (0.25, 0.3, 0.35, 0.4),
}


def xgboost_candidates(trials: int, seed: int) -> list[Candidate]:
    """The default and `trials - 1` random points of the search space."""
    random = np.random.default_rng(seed)
    candidates = [Candidate("xgboost", XGBOOST_DEFAULT)]
    while len(candidates) < trials:
        point = {key: values[random.integers(len(values))] for key, values in SEARCH_SPACE.items()}
        candidates.append(Candidate("xgboost", {**XGBOOST_DEFAULT, **point}))
    return candidates


def fit(candidate: Candidate, data: Dataset, seed: int) -> Fitted:
    """Fits `candidate` on all rows of `data`."""
    parameters = dict(candidate.parameters)
    match candidate.family:
        case "logistic-regression":
            estimator: Any = _fit_logistic(data, **parameters)
        case "xgboost":
            estimator = _fit_xgboost(data, seed, **parameters)
        case "random-forest":
            estimator = RandomForestClassifier(n_jobs=1, random_state=seed, **parameters)
            estimator.fit(data.features, data.label, sample_weight=data.weight)
        case "extra-trees":
            estimator = ExtraTreesClassifier(n_jobs=1, random_state=seed, **parameters)
            estimator.fit(data.features, data.label, sample_weight=data.weight)
        case family:
            raise ValueError(f"unknown model family {family!r}")
    return Fitted(candidate, estimator)


def _fit_logistic(data: Dataset, fraud_weight: float, **parameters: Any) -> Pipeline:
    model = LogisticRegression(max_iter=2_000, **parameters)
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", model)])
    # The scaler is weighted too: means and deviations are those of the unthinned stream.
    pipeline.fit(
        data.features.astype(np.float64),
        data.label,
        scale__sample_weight=data.weight,
        classify__sample_weight=data.weight * np.where(data.label == 1, fraud_weight, 1.0),
    )
    # Weighting frauds up multiplies the odds by as much; taking it back keeps the probabilities.
    model.intercept_ -= np.log(fraud_weight)
    return pipeline


def _fit_xgboost(
    data: Dataset, seed: int, monotone_above: float, **parameters: Any
) -> xgboost.XGBClassifier:
    estimator = xgboost.XGBClassifier(
        objective="binary:logistic",
        base_score=data.fraud_share,
        tree_method="hist",
        n_jobs=1,
        random_state=seed,
        monotone_constraints=monotone_directions(data, monotone_above),
        **parameters,
    )
    estimator.fit(data.features, data.label, sample_weight=data.weight)
    return estimator


def monotone_directions(data: Dataset, above: float) -> tuple[int, ...]:
    """Features that must push the score one way only: +1, -1, or 0 for free.

    A feature that tells fraud apart by itself (its own ROC-AUC further than `above` from one half)
    owes a reversed split far out in its range to a handful of rows. Forbidding those costs nothing
    in fit and gains out of time.
    """
    directions = []
    for column in data.features.T:
        strength = roc_auc_score(data.label, column, sample_weight=data.weight) - 0.5
        directions.append(int(np.sign(strength)) if abs(strength) > above else 0)
    return tuple(directions)
