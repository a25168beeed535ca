"""Aggregate statistics of the training rows, and synthetic rows drawn from them.

Two uses, one file (`reference.json` of a bundle):

- histograms per feature and of the score: the baseline that drift is measured against;
- a profile: a mixture of Gaussian copulas from which look-alike transactions are drawn, here for
  golden records and for training without the original data, in Rust for load generation.

Drawing one row: pick a component by `share`; z = L·g with g standard normal and L the component's
`correlation_cholesky`; u = Φ(z); feature j = its `quantiles` interpolated linearly over `levels`
at u_j, rounded to `decimals` where given.

Nothing of a single row is published: every stored quantile is the weighted mean of at least
`SMOOTHING_ROWS` neighbouring values, the outermost ones included, so a minimum or maximum is
never shown, and a component has at least `MINIMUM_COMPONENT_ROWS` rows.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from fraud_training import FEATURES
from fraud_training.errors import UserError

LEVELS: tuple[float, ...] = (
    0.0, 0.0005, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35,
    0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.965, 0.98, 0.99,
    0.995, 0.998, 0.9995, 1.0,
)  # fmt: skip
"""Dense in the tails, where the model decides."""

SMOOTHING_ROWS = 5
MINIMUM_COMPONENT_ROWS = 25
CORRELATION_SHRINKAGE = 0.02
"""Share of the identity mixed into each correlation: keeps it positive definite with few rows."""

HISTOGRAM_BINS = 16
SCORE_CUTS: tuple[float, ...] = (
    0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99,
)  # fmt: skip
DECIMALS = {"Amount": 2}


@dataclass(frozen=True)
class Component:
    """One Gaussian copula: rows of one label that resemble each other."""

    label: int
    share: float
    mean: NDArray[np.float64]
    standard_deviation: NDArray[np.float64]
    quantiles: NDArray[np.float64]  # [feature, level]
    covariance: NDArray[np.float64]
    cholesky: NDArray[np.float64]

    def draw(
        self, random: np.random.Generator, rows: int, levels: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        uniform = ndtr(random.standard_normal((rows, len(self.mean))) @ self.cholesky.T)
        return np.column_stack(
            [np.interp(uniform[:, j], levels, self.quantiles[j]) for j in range(len(self.mean))]
        )


@dataclass(frozen=True)
class Profile:
    levels: NDArray[np.float64]
    components: tuple[Component, ...]
    features: tuple[str, ...] = FEATURES

    def share_of(self, label: int) -> float:
        return float(sum(c.share for c in self.components if c.label == label))

    def draw(
        self, random: np.random.Generator, rows: int, label: int | None = None
    ) -> NDArray[np.float32]:
        """Rows of one label, or of both in their natural proportion."""
        return self.draw_labelled(random, rows, label)[0]

    def draw_labelled(
        self, random: np.random.Generator, rows: int, label: int | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
        """Rows and the label of the component each was drawn from."""
        pool = [c for c in self.components if label is None or c.label == label]
        if not pool:
            raise UserError(f"the profile has no component with label {label}")
        shares = np.array([c.share for c in pool])
        picked = random.choice(len(pool), size=rows, p=shares / shares.sum())
        values = np.empty((rows, len(self.features)))
        for index, component in enumerate(pool):
            chosen = picked == index
            values[chosen] = component.draw(random, int(chosen.sum()), self.levels)
        for name, decimals in DECIMALS.items():
            if name in self.features:
                column = self.features.index(name)
                values[:, column] = values[:, column].round(decimals)
        labels = np.array([c.label for c in pool], dtype=np.int8)[picked]
        return values.astype(np.float32), labels

    def to_json(self) -> dict[str, Any]:
        return {
            "levels": list(self.levels),
            "components": [
                {
                    "label": c.label,
                    "share": compact(c.share),
                    "features": [
                        {
                            "name": name,
                            "mean": compact(c.mean[j]),
                            "standard_deviation": compact(c.standard_deviation[j]),
                            "quantiles": [compact(q) for q in c.quantiles[j]],
                            **({"decimals": DECIMALS[name]} if name in DECIMALS else {}),
                        }
                        for j, name in enumerate(self.features)
                    ],
                    "covariance": [[compact(v) for v in row] for row in c.covariance],
                    "correlation_cholesky": [
                        [compact(v) for v in row[: j + 1]] for j, row in enumerate(c.cholesky)
                    ],
                }
                for c in self.components
            ],
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Profile":
        components = []
        names: tuple[str, ...] = FEATURES
        for entry in value["components"]:
            features = entry["features"]
            names = tuple(f["name"] for f in features)
            cholesky = np.zeros((len(features), len(features)))
            for j, row in enumerate(entry["correlation_cholesky"]):
                cholesky[j, : len(row)] = row
            components.append(
                Component(
                    label=int(entry["label"]),
                    share=float(entry["share"]),
                    mean=np.array([f["mean"] for f in features]),
                    standard_deviation=np.array([f["standard_deviation"] for f in features]),
                    quantiles=np.array([f["quantiles"] for f in features]),
                    covariance=np.array(entry["covariance"]),
                    cholesky=cholesky,
                )
            )
        return Profile(np.array(value["levels"]), tuple(components), names)


def compact(value: float) -> float:
    """Seven significant digits: more than a float32 tells apart, and a readable file."""
    return float(f"{float(value):.7g}")


def fit_profile(
    features: NDArray[np.float32],
    label: NDArray[np.int8],
    weight: NDArray[np.float64],
    groups: NDArray[np.int64],
) -> Profile:
    """One component per distinct value of `groups`; a group must hold rows of one label only."""
    values = features.astype(np.float64)
    total = weight.sum()
    components = []
    for group in np.unique(groups):
        rows = groups == group
        labels = np.unique(label[rows])
        if len(labels) != 1:
            raise ValueError(f"group {group} mixes labels")
        if rows.sum() < MINIMUM_COMPONENT_ROWS:
            raise ValueError(f"group {group} has {rows.sum()} rows: too few to publish")
        components.append(
            _component(values[rows], weight[rows], int(labels[0]), weight[rows].sum() / total)
        )
    return Profile(np.array(LEVELS), tuple(components))


def _component(
    values: NDArray[np.float64], weight: NDArray[np.float64], label: int, share: float
) -> Component:
    mean = np.average(values, axis=0, weights=weight)
    covariance = np.cov(values, rowvar=False, aweights=weight, ddof=0)
    scores = np.column_stack([_normal_scores(column, weight) for column in values.T])
    correlation = np.cov(scores, rowvar=False, aweights=weight, ddof=0)
    spread = np.sqrt(np.diag(correlation))
    spread[spread == 0.0] = 1.0  # a constant feature correlates with nothing
    correlation = correlation / np.outer(spread, spread)
    size = len(correlation)
    correlation = (1.0 - CORRELATION_SHRINKAGE) * correlation
    correlation[np.diag_indices(size)] = 1.0
    return Component(
        label=label,
        share=float(share),
        mean=mean,
        standard_deviation=np.sqrt(np.diag(covariance)),
        quantiles=np.array([smooth_quantiles(column, weight, LEVELS) for column in values.T]),
        covariance=covariance,
        cholesky=np.linalg.cholesky(correlation),
    )


def _normal_scores(column: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's normal quantile of its weighted rank; equal values share their mean rank."""
    distinct, inverse = np.unique(column, return_inverse=True)
    mass = np.bincount(inverse, weights=weight, minlength=len(distinct))
    middle = (np.cumsum(mass) - mass / 2.0) / mass.sum()
    scores: NDArray[np.float64] = ndtri(middle)[inverse]
    return scores


def smooth_quantiles(
    column: NDArray[np.float64], weight: NDArray[np.float64], levels: tuple[float, ...]
) -> NDArray[np.float64]:
    """Weighted quantiles, each the mean of the `SMOOTHING_ROWS` values around it."""
    order = np.argsort(column, kind="stable")
    values, mass = column[order], weight[order]
    rows = min(SMOOTHING_ROWS, len(values))
    kernel = np.ones(rows)
    smoothed = np.convolve(values * mass, kernel, "valid") / np.convolve(mass, kernel, "valid")
    position = (np.cumsum(mass) - mass / 2.0) / mass.sum()
    centre = np.convolve(position, kernel / rows, "valid")
    return np.interp(levels, centre, smoothed)


def histogram(
    column: NDArray[np.float64], weight: NDArray[np.float64], cuts: NDArray[np.float64]
) -> list[float]:
    """Weighted share of each bin (-inf, c0], (c0, c1], …, (c_last, inf)."""
    bins = np.searchsorted(cuts, column, side="left")
    mass = np.bincount(bins, weights=weight, minlength=len(cuts) + 1)
    return [float(share) for share in mass / mass.sum()]


def quantile_cuts(
    column: NDArray[np.float64], weight: NDArray[np.float64], bins: int = HISTOGRAM_BINS
) -> NDArray[np.float64]:
    """Cuts at equal weighted shares, rounded to what is stored; ties give fewer bins."""
    levels = tuple(float(level) for level in np.linspace(0.0, 1.0, bins + 1)[1:-1])
    cuts = [compact(cut) for cut in smooth_quantiles(column, weight, levels)]
    return np.unique(np.array(cuts))


def reference(
    features: NDArray[np.float32],
    label: NDArray[np.int8],
    weight: NDArray[np.float64],
    score: NDArray[np.float64],
    profile: Profile,
) -> dict[str, Any]:
    """The content of `reference.json`, without the profile check."""
    entries = []
    for j, name in enumerate(FEATURES):
        column = features[:, j].astype(np.float64)
        cuts = quantile_cuts(column, weight)
        entries.append(
            {
                "name": name,
                "cuts": [float(cut) for cut in cuts],
                "shares": histogram(column, weight, cuts),
                "missing": 0.0,
            }
        )
    score_cuts = np.array(SCORE_CUTS)
    return {
        "schema": 1,
        "rows": len(label),
        "weighted_rows": compact(float(weight.sum())),
        "fraud_share": compact(float(weight[label == 1].sum() / weight.sum())),
        "features": entries,
        "score": {"cuts": list(SCORE_CUTS), "shares": histogram(score, weight, score_cuts)},
        "profile": profile.to_json(),
    }


def group_rows(
    label: NDArray[np.int8], score: NDArray[np.float64], bands: tuple[float, ...]
) -> NDArray[np.int64]:
    """Component of each row: rows of one label whose scores fall into one band.

    A single copula per label blurs the rare rows that the model finds suspicious; grouping by score
    keeps them apart. Bands with too few rows join the next lower one.
    """
    groups = np.zeros(len(label), dtype=np.int64)
    for value in (0, 1):
        of_label = label == value
        kept: list[float] = []
        upper = np.inf
        for cut in sorted(bands, reverse=True):
            if (of_label & (score >= cut) & (score < upper)).sum() >= MINIMUM_COMPONENT_ROWS:
                kept.append(cut)
                upper = cut
        while kept and (of_label & (score < kept[-1])).sum() < MINIMUM_COMPONENT_ROWS:
            kept.pop()
        groups[of_label] = np.digitize(score[of_label], sorted(kept)) + value * (len(bands) + 1)
    return groups
