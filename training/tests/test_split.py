"""Nothing is ever judged by a model that saw its future."""

import numpy as np
import pytest

from fraud_training.dataset import Dataset
from fraud_training.split import temporal_split


def made(seed: int, seconds: int) -> Dataset:
    """Rows with many equal times (few distinct seconds) and very unequal weights."""
    random = np.random.default_rng(seed)
    rows = 5_000
    return Dataset(
        features=np.zeros((rows, 29), np.float32),
        time=np.sort(random.integers(0, seconds, rows)).astype(np.float64),
        label=(random.random(rows) < 0.1).astype(np.int8),
        weight=random.choice([1.0, 13.8, 27.08], rows),
        source="made",
        fingerprint="",
    )


@pytest.mark.parametrize("seconds", [200, 3_000, 1_000_000])
@pytest.mark.parametrize("seed", range(5))
def test_no_scored_row_is_older_than_a_training_row(seed: int, seconds: int) -> None:
    data = made(seed, seconds)
    split = temporal_split(data)
    for window in (*split.validation, split.test):
        training, scored = window.training(data.time), window.scored(data.time)
        assert training.any()
        assert scored.any()
        assert data.time[training].max() < data.time[scored].min()


@pytest.mark.parametrize("seconds", [200, 1_000_000])
def test_windows_follow_each_other_without_gap_or_overlap(seconds: int) -> None:
    data = made(1, seconds)
    split = temporal_split(data)
    windows = (*split.validation, split.test)
    covered = sum(window.scored(data.time).astype(int) for window in windows)
    first = windows[0].start
    assert np.array_equal(covered, (data.time >= first).astype(int))


def test_test_window_is_the_last_fifth_by_weight() -> None:
    data = made(2, 1_000_000)
    inside = temporal_split(data).test.scored(data.time)
    assert data.weight[inside].sum() / data.weight.sum() == pytest.approx(0.2, abs=0.002)
    assert inside.mean() != 0.2  # by weight, not by rows
