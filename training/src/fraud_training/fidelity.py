"""Does the profile behave like the data? Scores drawn rows and compares with real ones.

The real figures come from rows the scoring model had not been trained on (cross-fitted: each block
of time is scored by a model fitted on the other blocks). They are stored beside the drawn ones in
`reference.json` under `profile_check`, so the comparison can be repeated without the data.
"""

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud_training.dataset import Dataset
from fraud_training.errors import UserError
from fraud_training.evaluate import Scored, Thresholds
from fraud_training.export import run_onnx
from fraud_training.models import Candidate, Fitter, fit
from fraud_training.profile import Profile

BLOCKS = 5
DRAWS = 40_000

GENUINE_FACTOR = 2.0
"""Drawn genuine rows may reach the review threshold at most so many times as often, or rarer."""

RECALL_POINTS = 0.10
"""Recall at review on drawn frauds may differ by this much from the real one."""


@dataclass(frozen=True)
class Figures:
    """How scores of one source spread over the decision bands."""

    genuine_at_review: float
    genuine_at_decline: float
    recall_at_review: float
    recall_at_decline: float

    @staticmethod
    def of(scored: Scored, thresholds: Thresholds) -> "Figures":
        return Figures(
            genuine_at_review=scored.share_at(thresholds.review, 0),
            genuine_at_decline=scored.share_at(thresholds.decline, 0),
            recall_at_review=scored.share_at(thresholds.review, 1),
            recall_at_decline=scored.share_at(thresholds.decline, 1),
        )


@dataclass(frozen=True)
class ProfileCheck:
    real: Figures
    drawn: Figures
    draws: int
    seed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ProfileCheck":
        return ProfileCheck(
            Figures(**value["real"]), Figures(**value["drawn"]), value["draws"], value["seed"]
        )

    def complaints(self) -> list[str]:
        """Where the profile is too far from the data; empty when it is faithful."""
        found = []
        ratio = self.drawn.genuine_at_review / max(self.real.genuine_at_review, 1e-9)
        if not 1 / GENUINE_FACTOR <= ratio <= GENUINE_FACTOR:
            found.append(
                f"drawn genuine rows reach review {ratio:.2f} times as often as real ones "
                f"(allowed: {1 / GENUINE_FACTOR} to {GENUINE_FACTOR})"
            )
        gap = self.drawn.recall_at_review - self.real.recall_at_review
        if abs(gap) > RECALL_POINTS:
            found.append(
                f"recall at review is {gap:+.3f} off on drawn frauds (allowed: ±{RECALL_POINTS})"
            )
        return found


def cross_fitted_scores(
    candidate: Candidate, data: Dataset, seed: int, fitter: Fitter = fit
) -> NDArray[np.float64]:
    """A score for every row by a model that was not trained on its block of time.

    For statistics only: some of these models look into the future, which no metric may.
    """
    passed = np.cumsum(data.weight) / data.weight.sum()
    block = np.minimum((passed * BLOCKS).astype(int), BLOCKS - 1)
    scores = np.empty(len(data))
    for index in range(BLOCKS):
        inside = block == index
        fitted = fitter(candidate, data.where(~inside), seed)
        scores[inside] = fitted.predict(data.features[inside])
    return scores


def scored_draws(
    profile: Profile,
    predict: Callable[[NDArray[np.float32]], NDArray[np.floating]],
    seed: int,
    draws: int = DRAWS,
) -> Scored:
    """`draws` rows of each label, scored."""
    random = np.random.default_rng(seed)
    rows = np.vstack([profile.draw(random, draws, label) for label in (0, 1)])
    return Scored(
        score=predict(rows).astype(np.float64),
        label=np.repeat(np.array([0, 1], dtype=np.int8), draws),
        weight=np.ones(2 * draws),
    )


def check_bundle(bundle: Path) -> ProfileCheck:
    """Draws again from a bundle's profile, scores with its model, and compares with what is stored.

    The real figures are the stored ones; drawing with a seed of its own makes it a second opinion
    on the drawn ones.
    """
    path = bundle / "reference.json"
    if not path.is_file():
        raise UserError(f"no profile at {bundle}: reference.json is missing")
    content = json.loads(path.read_text(encoding="utf-8"))
    with (bundle / "manifest.toml").open("rb") as file:
        thresholds = Thresholds(**tomllib.load(file)["thresholds"])
    stored = ProfileCheck.from_json(content["profile_check"])
    seed = stored.seed + 1
    drawn = scored_draws(
        Profile.from_json(content["profile"]),
        lambda rows: run_onnx(bundle / "model.onnx", rows),
        seed,
    )
    return ProfileCheck(stored.real, Figures.of(drawn, thresholds), DRAWS, seed)
