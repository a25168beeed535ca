"""The worker's bins, index and threshold, so that report and dashboard speak of one number.

The counterpart of `src/drift/baseline.rs` and `src/drift/psi.rs`; a test holds them together. A
column's population stability index is `Σ (p - q) ln(p / q)` over the shares of its bins, `p` those
of the rows, `q` those of the training data; a bin holds about as many training rows as the next.
Evidently's own PSI cuts the range of values into equally wide bins instead: with the long tails of
these columns nearly all rows then fall into one or two of them, and a shift passes unseen. Its
default, the Wasserstein distance over the standard deviation, is governed by the same tails.

Pure: no files, no Evidently.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRIFTED = 0.1
"""From this index on a column counts as drifted, as in the worker."""

LEAST_ROWS = 1_000
"""Fewer rows give no report: chance alone would move the index."""

LEAST_FEATURE_SHARE = 0.05
LEAST_SCORE_SHARE = 0.005
"""Bins with a smaller share of the training data are merged with their neighbours."""

MOST_BINS = 20
SHARE_FLOOR = 1e-4

NORMAL_QUANTILE = 3.719_016_485
"""Of the probability 1e-4: how often chance alone lets a column count as drifted, where its rows
or those of the reference are so few that this matters at all."""


@dataclass(frozen=True)
class Bins:
    """The bins of one column: (-inf, c0], (c0, c1], …, (c_last, inf)."""

    cuts: NDArray[np.float64]
    shares: NDArray[np.float64]
    """Share of the training data in each; positive, adding up to 1."""
    degrees_of_freedom: int
    reference_rows: int

    @staticmethod
    def of_histogram(
        cuts: NDArray[np.float64],
        shares: NDArray[np.float64],
        least_share: float,
        reference_rows: int,
        filled: tuple[float, float] | None = None,
    ) -> "Bins":
        """Bins of a histogram in `reference.json`.

        `filled` is the feature's default and the share of rows that lacked the feature: they are
        scored with the default, so that is the bin they belong to.
        """
        cuts, merged = _merge(cuts, shares, least_share)
        if filled is not None:
            default, missing = filled
            merged = merged * (1.0 - missing) / max(merged.sum(), np.finfo(float).tiny)
            merged[np.searchsorted(cuts, np.float32(default), side="left")] += missing
        populated = int((merged >= SHARE_FLOOR).sum())
        floored = np.maximum(merged, SHARE_FLOOR)
        return Bins(cuts, floored / floored.sum(), max(populated - 1, 0), reference_rows)

    def index(self, values: NDArray[np.floating]) -> float:
        """The population stability index of the values; they must be finite."""
        # As 32-bit floats: what the model was given.
        bins = np.searchsorted(self.cuts, values.astype(np.float32), side="left")
        return self.index_of(np.bincount(bins, minlength=len(self.shares)))

    def index_of(self, counts: NDArray[np.integer]) -> float:
        """The same of the number of rows in each bin."""
        # One row spread as the reference keeps an empty bin from counting infinitely much.
        seen = (counts + self.shares) / (counts.sum() + 1)
        return float(((seen - self.shares) * np.log(seen / self.shares)).sum())

    def threshold(self, rows: int) -> float:
        """From which index on the column counts as drifted.

        `DRIFTED`, or where that is more: what chance exceeds once in 10,000 looks. Without drift,
        the index is (1/rows + 1/reference_rows) times a χ² variable, whose quantile is taken by
        Wilson and Hilferty's approximation.
        """
        degrees = max(self.degrees_of_freedom, 1)
        part = 2.0 / (9.0 * degrees)
        quantile = degrees * (1.0 - part + NORMAL_QUANTILE * part**0.5) ** 3
        by_chance = quantile * (1.0 / max(rows, 1) + 1.0 / max(self.reference_rows, 1))
        return max(DRIFTED, float(by_chance))


def _merge(
    cuts: NDArray[np.float64], shares: NDArray[np.float64], least_share: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Merges neighbours until every bin has the least share, and there are at most `MOST_BINS`."""
    least = least_share
    while True:
        kept_cuts: list[float] = []
        kept_shares: list[float] = []
        gathered = 0.0
        for index, share in enumerate(shares):
            gathered += float(share)
            last = index == len(cuts)
            if not last and gathered >= least:
                kept_cuts.append(float(cuts[index]))
                kept_shares.append(gathered)
                gathered = 0.0
            elif last and gathered < least and kept_shares:
                kept_cuts.pop()
                kept_shares[-1] += gathered
            elif last:
                kept_shares.append(gathered)
        if len(kept_shares) <= MOST_BINS:
            return np.array(kept_cuts), np.array(kept_shares)
        least *= 2.0
