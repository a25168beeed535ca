"""Cuts rows by time, never at random: a model is always judged on what came after its training.

    share of weighted rows   0        0.3   0.4   0.5   0.6   0.7   0.8              1
                             ├─ train ─┼─ v ─┼─ v ─┼─ v ─┼─ v ─┼─ v ─┼──── test ──────┤

Each validation window `v` is scored by a model fitted on everything before it, and the five are
pooled: choices (parameters, thresholds) rest on all of them, none on the test window.
Cuts fall between seconds, so that rows of the same second stay together.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fraud_training.dataset import Dataset

TEST_SHARE = 0.2
VALIDATION_STARTS = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Window:
    """A stretch to score, [start, end), and implicitly its training rows: those before start."""

    start: float
    end: float

    def training(self, time: NDArray[np.float64]) -> NDArray[np.bool_]:
        return time < self.start

    def scored(self, time: NDArray[np.float64]) -> NDArray[np.bool_]:
        return (time >= self.start) & (time < self.end)


@dataclass(frozen=True)
class Split:
    validation: tuple[Window, ...]
    test: Window


def temporal_split(data: Dataset) -> Split:
    """The validation windows and the test window of `data`."""
    ends = (*VALIDATION_STARTS[1:], 1.0 - TEST_SHARE)
    return Split(
        validation=tuple(
            Window(time_at_share(data, start), time_at_share(data, end))
            for start, end in zip(VALIDATION_STARTS, ends, strict=True)
        ),
        test=Window(time_at_share(data, 1.0 - TEST_SHARE), np.inf),
    )


def time_at_share(data: Dataset, share: float) -> float:
    """The first second by which more than `share` of the weighted rows have passed."""
    passed = np.cumsum(data.weight) / data.weight.sum()
    return float(data.time[np.searchsorted(passed, share, side="right")])
