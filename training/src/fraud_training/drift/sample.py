"""A bounded choice of rows that comes out the same however the rows arrive.

Of all rows in the window, those with the smallest hashes of their transaction id are kept: a
uniform sample without replacement that does not depend on the order of files or partitions, and
that a second run over the same rows repeats. Pure.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fraud_training.drift.window import Window

KEY = ["transaction_id", "event_time"]
"""What tells rows apart: a verdict that was written twice (at-least-once) counts once."""


@dataclass(frozen=True)
class Chosen:
    """The kept rows, and of how many."""

    frame: pd.DataFrame
    seen: int
    """Rows of the window, repetitions included."""


class Sample:
    """Takes frames with the columns of `KEY` and any others; holds at most twice `most` rows."""

    def __init__(self, window: Window, most: int) -> None:
        self._window, self._most = window, most
        self._frames: list[pd.DataFrame] = []
        self._hashes: list[NDArray[np.uint64]] = []
        self._held = 0
        self._seen = 0
        self._bound = np.uint64(np.iinfo(np.uint64).max)

    def add(self, frame: pd.DataFrame) -> None:
        time = frame["event_time"].to_numpy(dtype=np.int64)
        inside = (time > self._window.start) & (time <= self._window.end)
        self._seen += int(inside.sum())
        if not inside.any():
            return
        frame = frame[inside]
        hashes = pd.util.hash_array(frame["transaction_id"].astype(str).to_numpy(dtype=object))
        # Above the bound are rows that a full sample has no place for.
        kept = hashes <= self._bound
        if not kept.any():
            return
        self._frames.append(frame[kept])
        self._hashes.append(hashes[kept])
        self._held += int(kept.sum())
        if self._held > 2 * self._most:
            self._prune()

    def finish(self) -> Chosen:
        """The rows in the order of their event times."""
        if not self._frames:
            return Chosen(pd.DataFrame(columns=KEY), 0)
        self._prune()
        frame = self._frames[0].sort_values(KEY[::-1], kind="stable", ignore_index=True)
        return Chosen(frame, self._seen)

    def _prune(self) -> None:
        frame = pd.concat(self._frames, ignore_index=True)
        hashes = np.concatenate(self._hashes)
        order = np.argsort(hashes, kind="stable")
        frame, hashes = frame.iloc[order], hashes[order]
        first = ~frame.duplicated(KEY).to_numpy()
        frame, hashes = frame[first].head(self._most), hashes[first][: self._most]
        if len(hashes) == self._most:
            self._bound = hashes[-1]
        self._frames, self._hashes, self._held = [frame], [hashes], len(frame)


def unweighted(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Rows that stand for equally many transactions.

    An archive may hold thinned rows whose column `weight` says how many each stands for. They are
    drawn again in proportion to it, with replacement, as many as the weights are worth.
    """
    if "weight" not in frame.columns:
        return frame
    weight = frame["weight"].fillna(1.0).to_numpy(dtype=np.float64).clip(min=0.0)
    rest = frame.drop(columns="weight")
    if len(weight) == 0 or weight.sum() == 0.0 or np.all(weight == weight[0]):
        return rest
    worth = round(weight.sum() ** 2 / (weight**2).sum())  # Kish's effective sample size
    drawn = np.random.default_rng(seed).choice(len(rest), worth, p=weight / weight.sum())
    return rest.iloc[np.sort(drawn)].reset_index(drop=True)
