"""Figures are those of the unthinned stream, and thresholds follow their written rule."""

import numpy as np
import pytest

from fraud_training.evaluate import (
    DECLINE_FLOOR,
    DECLINE_PRECISION,
    REVIEW_FALSE_POSITIVE_RATE,
    Scored,
    Thresholds,
    bootstrap,
    calibration_bins,
    choose_thresholds,
    metrics,
)


def made(seed: int, rows: int = 4_000, ties: bool = False) -> Scored:
    random = np.random.default_rng(seed)
    label = (random.random(rows) < 0.03).astype(np.int8)
    odds = random.normal(-6.0, 1.5, rows) + label * random.normal(7.0, 3.0, rows)
    score = 1 / (1 + np.exp(-odds))
    if ties:
        score = score.round(2)
    weight = np.where(label == 1, 1.0, random.integers(1, 6, rows).astype(float))
    return Scored(score, label, weight)


def test_weights_mean_repeated_rows() -> None:
    scored = made(1)
    times = scored.weight.astype(int)
    repeated = Scored(
        np.repeat(scored.score, times),
        np.repeat(scored.label, times),
        np.ones(times.sum()),
    )
    thresholds = Thresholds(0.05, 0.5)
    one, two = metrics(scored, thresholds), metrics(repeated, thresholds)
    assert one == pytest.approx(two, abs=1e-9)
    unweighted = metrics(Scored(scored.score, scored.label, np.ones(len(scored))), thresholds)
    assert one["average_precision"] != pytest.approx(unweighted["average_precision"], abs=1e-3)


def test_metrics_at_thresholds_are_counted_by_hand() -> None:
    scored = Scored(
        np.array([0.9, 0.8, 0.6, 0.3, 0.2, 0.1]),
        np.array([1, 0, 1, 1, 0, 0], np.int8),
        np.array([1.0, 2.0, 1.0, 1.0, 10.0, 10.0]),
    )
    values = metrics(scored, Thresholds(review=0.2, decline=0.6))
    assert values["precision_at_decline"] == pytest.approx(2 / 4)
    assert values["recall_at_decline"] == pytest.approx(2 / 3)
    assert values["fpr_at_decline"] == pytest.approx(2 / 22)
    assert values["recall_at_review"] == 1.0
    assert values["fpr_at_review"] == pytest.approx(12 / 22)  # at or above counts


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_thresholds_follow_the_rule(seed: int, ties: bool) -> None:
    scored = made(seed, ties=ties)
    chosen = choose_thresholds(scored)
    assert 0 < chosen.review < chosen.decline < 1

    def rate(threshold: float) -> float:
        return scored.share_at(threshold, 0)

    distinct = np.unique(scored.score)
    allowed = [s for s in distinct if rate(s) <= REVIEW_FALSE_POSITIVE_RATE]
    assert chosen.review == pytest.approx(min(allowed), rel=0.006)

    def precision(threshold: float) -> float:
        flagged = scored.score >= threshold
        return float(np.average(scored.label[flagged], weights=scored.weight[flagged]))

    precise = [s for s in distinct if s >= DECLINE_FLOOR and precision(s) >= DECLINE_PRECISION]
    lowest = max(min(precise), chosen.review + 0.1 * (1 - chosen.review))
    assert chosen.decline == pytest.approx(lowest, rel=0.006)


def test_thresholds_stay_apart_when_scores_never_get_high() -> None:
    scored = made(3)
    low = Scored(scored.score * 0.01, scored.label, scored.weight)
    chosen = choose_thresholds(low)
    assert chosen.decline == DECLINE_FLOOR
    assert chosen.review < 0.01


def test_bootstrap_brackets_the_value_and_repeats() -> None:
    scored = made(4)
    once = bootstrap(scored, metrics, seed=5, resamples=60)
    assert once == bootstrap(scored, metrics, seed=5, resamples=60)
    for name in ("average_precision", "roc_auc", "recall_at_1pct_fpr"):
        assert once[name].low <= once[name].value <= once[name].high
        assert once[name].low < once[name].high


def test_calibration_bins_cover_every_row() -> None:
    scored = made(6)
    bins = calibration_bins(scored)
    assert sum(b["weighted_rows"] for b in bins) == pytest.approx(scored.weight.sum())
    assert sum(b["frauds"] for b in bins) == (scored.label == 1).sum()
    for b in bins:
        assert b["from"] <= b["mean_score"] <= b["to"]
