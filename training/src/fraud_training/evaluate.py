"""Judges scores: weighted metrics, bootstrap intervals, thresholds and plots.

Every figure is weighted: a genuine row of a thinned file counts as many times as transactions it
stands for, so precision and average precision are those of the unthinned stream. Average precision
comes first; accuracy says nothing at two frauds in a thousand and is not computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
)

REVIEW_FALSE_POSITIVE_RATE = 0.005
"""Budget of the review band: at most one genuine transaction in 200 is looked at."""

DECLINE_PRECISION = 0.9
"""A decline hurts a genuine customer at once: at least nine in ten must be frauds."""

DECLINE_FLOOR = 0.5
"""Nor may a decline rest on a score that calls the transaction more likely genuine: where genuine
rows are thinned, a lower threshold can look precise because the rows that disprove it were not
sampled."""

RESAMPLES = 500


@dataclass(frozen=True)
class Scored:
    """Scores of rows the model had not seen, with what is needed to judge them."""

    score: NDArray[np.float64]
    label: NDArray[np.int8]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: NDArray[np.int64]) -> "Scored":
        return Scored(self.score[rows], self.label[rows], self.weight[rows])

    def share_at(self, threshold: float, label: int) -> float:
        """Weighted share of the rows of one label that score at or above `threshold`."""
        of_label = self.label == label
        hit = self.weight[of_label & (self.score >= threshold)].sum()
        return float(hit / self.weight[of_label].sum())


@dataclass(frozen=True)
class Thresholds:
    review: float
    decline: float


@dataclass(frozen=True)
class Estimate:
    """A metric's value with the 2.5 % and 97.5 % points of its bootstrap distribution."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


def metrics(scored: Scored, thresholds: Thresholds | None = None) -> dict[str, float]:
    """All metrics of one set of scores; those at a threshold only when thresholds are given."""
    label, score, weight = scored.label, scored.score, scored.weight
    false_positive_rate, recall, _ = roc_curve(label, score, sample_weight=weight)
    clipped = np.clip(score, 1e-7, 1 - 1e-7)
    values = {
        "average_precision": float(average_precision_score(label, score, sample_weight=weight)),
        "roc_auc": float(roc_auc_score(label, score, sample_weight=weight)),
        "recall_at_1pct_fpr": float(np.interp(0.01, false_positive_rate, recall)),
        "brier": float(brier_score_loss(label, clipped, sample_weight=weight)),
        "log_loss": float(log_loss(label, clipped, sample_weight=weight)),
    }
    if thresholds is not None:
        for name, threshold in (
            ("review", thresholds.review),
            ("decline", thresholds.decline),
        ):
            flagged = score >= threshold
            fraud = label == 1
            caught = float(weight[flagged & fraud].sum())
            alerts = float(weight[flagged].sum())
            precision = caught / alerts if alerts else 0.0
            recall_here = caught / float(weight[fraud].sum())
            both = precision + recall_here
            values[f"precision_at_{name}"] = precision
            values[f"recall_at_{name}"] = recall_here
            values[f"f1_at_{name}"] = 2 * precision * recall_here / both if both else 0.0
            values[f"fpr_at_{name}"] = scored.share_at(threshold, label=0)
    return values


def bootstrap(
    scored: Scored,
    statistic: Callable[[Scored], dict[str, float]],
    seed: int,
    resamples: int = RESAMPLES,
) -> dict[str, Estimate]:
    """Intervals by resampling rows within each class (so the fraud share stays what it is)."""
    random = np.random.default_rng(seed)
    classes = [np.flatnonzero(scored.label == value) for value in (0, 1)]
    draws: list[dict[str, float]] = []
    for _ in range(resamples):
        rows = np.concatenate([random.choice(c, size=len(c)) for c in classes])
        draws.append(statistic(scored.take(rows)))
    estimates = {}
    for name, value in statistic(scored).items():
        low, high = np.percentile([draw[name] for draw in draws], [2.5, 97.5])
        estimates[name] = Estimate(value, float(low), float(high))
    return estimates


def choose_thresholds(
    scored: Scored, review_budget: float = REVIEW_FALSE_POSITIVE_RATE
) -> Thresholds:
    """The two thresholds by rule, from scores of validation rows.

    review: the lowest score at which the weighted false-positive rate is within its budget.
    decline: the lowest score, not below its floor, at which the weighted precision reaches its
    target; the most precise one where none does. Always at least a tenth of the way from review
    to 1, so that the review band never vanishes.
    """
    order = np.argsort(-scored.score, kind="stable")
    score, weight = scored.score[order], scored.weight[order]
    fraud = scored.label[order] == 1
    caught = np.cumsum(np.where(fraud, weight, 0.0))
    wrong = np.cumsum(np.where(fraud, 0.0, weight))
    # Equal scores are flagged together: only the last row of a run of ties is a real threshold.
    last = np.append(score[1:] != score[:-1], True)
    score, caught, wrong = score[last], caught[last], wrong[last]

    within = np.flatnonzero(wrong / wrong[-1] <= review_budget)
    review = _between(score[within[-1]] if len(within) else score[0], 1e-4, 0.9)

    # A threshold may lie above every score (nothing declined), so there is always one at the floor.
    sure = np.flatnonzero(score >= DECLINE_FLOOR)
    decline = DECLINE_FLOOR
    if len(sure):
        precision = (caught / (caught + wrong))[sure]
        precise = np.flatnonzero(precision >= DECLINE_PRECISION)
        decline = score[precise[-1] if len(precise) else int(np.argmax(precision))]
    return Thresholds(review, _between(decline, review + 0.1 * (1.0 - review), 0.999))


def _between(value: float, low: float, high: float) -> float:
    """`value` within bounds, to three significant digits: a threshold is read by people."""
    return float(f"{min(max(float(value), low), high):.3g}")


def calibration_bins(
    scored: Scored, cuts: tuple[float, ...] = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95)
) -> list[dict[str, float]]:
    """Mean score against observed fraud share, per score bin."""
    bins = np.searchsorted(np.array(cuts), scored.score, side="right")
    rows = []
    for index in range(len(cuts) + 1):
        inside = bins == index
        if not inside.any():
            continue
        weight = scored.weight[inside]
        rows.append(
            {
                "from": ((0.0, *cuts)[index]),
                "to": ((*cuts, 1.0)[index]),
                "weighted_rows": float(weight.sum()),
                "frauds": float(weight[scored.label[inside] == 1].sum()),
                "mean_score": float(np.average(scored.score[inside], weights=weight)),
                "fraud_share": float(np.average(scored.label[inside], weights=weight)),
            }
        )
    return rows


def plot_all(scored: Scored, thresholds: Thresholds, title: str, directory: Path) -> list[Path]:
    """The three plots of a model's out-of-time scores, as PNG files."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []

    figure, axes = pyplot.subplots(figsize=(6, 5))
    precision, recall, cuts = precision_recall_curve(
        scored.label, scored.score, sample_weight=scored.weight
    )
    axes.step(recall, precision, where="post")
    for name, threshold in (("review", thresholds.review), ("decline", thresholds.decline)):
        index = min(int(np.searchsorted(cuts, threshold)), len(precision) - 1)
        axes.plot(recall[index], precision[index], "o", label=f"{name} ≥ {threshold:g}")
    axes.set(xlabel="recall", ylabel="precision (weighted)", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.set_title(f"{title}: precision and recall, out of time")
    axes.legend(loc="lower left")
    paths.append(_save(figure, directory / "precision_recall.png"))

    figure, axes = pyplot.subplots(figsize=(6, 5))
    edges = np.linspace(-7, 7, 57).tolist()
    clipped = np.clip(scored.score, 1e-3, 1 - 1e-3)
    logit = np.log(clipped / (1 - clipped))
    for value, name in ((0, "genuine"), (1, "fraud")):
        of_label = scored.label == value
        axes.hist(logit[of_label], edges, weights=scored.weight[of_label], alpha=0.6, label=name)
    for name, threshold in (("review", thresholds.review), ("decline", thresholds.decline)):
        at = np.log(threshold / (1 - threshold))
        axes.axvline(at, linestyle="--", color="grey")
        axes.text(
            at, 0.98, f" {name}", transform=axes.get_xaxis_transform(), va="top", color="grey"
        )
    axes.set(xlabel="log-odds of the score (clipped at ±6.9)", ylabel="weighted rows")
    axes.set_yscale("log")
    axes.set_title(f"{title}: scores, out of time")
    axes.legend()
    paths.append(_save(figure, directory / "scores.png"))

    figure, axes = pyplot.subplots(figsize=(6, 5))
    bins = calibration_bins(scored)
    axes.plot([1e-5, 1], [1e-5, 1], color="grey", linestyle="--", label="perfect")
    axes.plot(
        [max(b["mean_score"], 1e-5) for b in bins],
        [max(b["fraud_share"], 1e-5) for b in bins],
        "o-",
        label=title,
    )
    axes.set(xlabel="mean score", ylabel="observed fraud share (weighted)")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(f"{title}: calibration, out of time")
    axes.legend()
    paths.append(_save(figure, directory / "calibration.png"))
    return paths


def _save(figure: Figure, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
