"""Is the data fit to learn from? Checks each day, quarantines the bad ones, says why.

    rows as known ─► broken rows dropped and counted ─► days judged ─► accepted rows + Report

A day is quarantined where

- one of its files could not be read or lacks a column;
- too many of its rows are broken: a feature that is no finite number or out of range, a negative
  amount, a time that is not of that day, a label that is neither 0 nor 1, a label known before its
  transaction happened, a weight that is not positive;
- its fraud share is far from that of the other days, by more than chance explains.

A shift of the features is no reason: fraud moves, and learning from the newest rows is the point.
Everything here is pure; `report.py` makes a page of a `Report`.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binom

from fraud_training import FEATURES
from fraud_training.rows import BROKEN, NEVER, UNKNOWN, days_of


@dataclass(frozen=True)
class Limits:
    """When a row is broken and a day is bad."""

    feature_limit: float = 1e5
    """Largest |V1…V28|; the original's are below 150: beyond this a unit or a column is wrong."""
    amount_limit: float = 1e7
    broken_share: float = 0.01
    fraud_share_factor: float = 4.0
    """A day's share may be so many times the other days', or that part of it…"""
    fraud_share_chance: float = 1e-6
    """…or differ by what comes about by chance at least this often."""
    minimum_frauds: int = 50
    """Labelled frauds in the window; fewer cannot fill five validation windows and a test."""
    minimum_test_frauds: int = 10
    minimum_first_frauds: int = 5
    """Frauds before the first validation window, for its model to learn from."""
    minimum_window_frauds: int = 10
    """Frauds in the validation windows together, to choose settings and thresholds by."""
    minimum_learnt_frauds: int = 30
    """Frauds before the test window; the bundle's profile needs 25 for one component."""


@dataclass
class Day:
    """One day's counts and the reasons against it."""

    day: str
    rows: int = 0
    labelled: int = 0
    frauds: int = 0
    broken: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    @property
    def fraud_share(self) -> float:
        return self.frauds / self.labelled if self.labelled else 0.0


@dataclass
class Report:
    """What validation found, day by day."""

    days: list[Day]
    dropped_rows: int

    @property
    def quarantined(self) -> list[str]:
        return [day.day for day in self.days if day.reasons]

    def to_json(self) -> dict[str, Any]:
        return {
            "days": [asdict(day) for day in self.days],
            "quarantined": self.quarantined,
            "dropped_rows": self.dropped_rows,
        }


@dataclass(frozen=True)
class Checked:
    accepted: pd.DataFrame
    report: Report


def check(frame: pd.DataFrame, problems: dict[str, list[str]], limits: Limits) -> Checked:
    """Rows of good days without their broken rows, and the report."""
    faults = row_faults(frame, limits)
    broken = np.zeros(len(frame), dtype=bool)
    for mask in faults.values():
        broken |= mask
    day_of_row = frame["day"].to_numpy(dtype=str)
    days: dict[str, Day] = {}
    for name in sorted(set(day_of_row.tolist()) | set(problems)):
        rows = day_of_row == name
        sound = frame[rows & ~broken]
        days[name] = Day(
            day=name,
            rows=int(rows.sum()),
            labelled=int((sound["label"] != UNKNOWN).sum()),
            frauds=int((sound["label"] == 1).sum()),
            broken={k: int((m & rows).sum()) for k, m in faults.items() if (m & rows).any()},
            reasons=list(problems.get(name, [])),
        )
        count = int((broken & rows).sum())
        if count > limits.broken_share * rows.sum():
            days[name].reasons.append(
                f"{count} of {int(rows.sum())} rows are broken ({_listing(days[name].broken)}); "
                f"at most {limits.broken_share:.1%} may be"
            )
    judge_shares([day for day in days.values() if not day.reasons], limits)
    report = Report(list(days.values()), dropped_rows=int(broken.sum()))
    good = ~np.isin(day_of_row, report.quarantined)
    return Checked(frame[good & ~broken].reset_index(drop=True), report)


def row_faults(frame: pd.DataFrame, limits: Limits) -> dict[str, NDArray[np.bool_]]:
    """Per kind of fault, which rows have it."""
    values = frame[list(FEATURES)].to_numpy(dtype=np.float64)
    finite = np.isfinite(values)
    components, amount = values[:, :-1], values[:, -1]
    time, known = frame["event_time"].to_numpy(), frame["known_at"].to_numpy()
    label, weight = frame["label"].to_numpy(), frame["weight"].to_numpy(dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return {
            "feature is not a finite number": ~finite.all(axis=1),
            "feature out of range": (np.abs(components) > limits.feature_limit).any(axis=1),
            "amount out of range": (amount < 0.0) | (amount > limits.amount_limit),
            "time is not of the day": days_of(time) != frame["day"].to_numpy(dtype=str),
            "label is neither 0 nor 1": label == BROKEN,
            "label known before the transaction": (label != UNKNOWN)
            & (known != NEVER)
            & (known < time),
            "weight is not positive": ~(np.isfinite(weight) & (weight > 0.0)),
            "no transaction id": frame["transaction_id"].isin(["", "nan", "None"]).to_numpy(),
        }


def judge_shares(days: list[Day], limits: Limits) -> None:
    """Adds a reason to days whose fraud share does not go with the others'.

    The yardstick is the median day, which one bad day cannot move; with fewer than three labelled
    days there is none, and nothing is said.
    """
    labelled = [day for day in days if day.labelled]
    if len(labelled) < 3:
        return
    usual = float(np.median([day.fraud_share for day in labelled]))
    if usual == 0.0:
        return
    for day in labelled:
        few = day.fraud_share < usual / limits.fraud_share_factor
        many = day.fraud_share > usual * limits.fraud_share_factor
        if not (few or many):
            continue
        below = binom.cdf(day.frauds, day.labelled, usual)
        above = binom.sf(day.frauds - 1, day.labelled, usual)
        if float(below if few else above) < limits.fraud_share_chance:
            day.reasons.append(
                f"{day.fraud_share:.3%} of its labelled rows are frauds, {usual:.3%} on the "
                f"median day: more than a factor of {limits.fraud_share_factor:g}, not by chance"
            )


def _listing(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())
