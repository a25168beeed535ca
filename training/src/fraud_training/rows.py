"""The table that retraining works on: labelled transactions as they were known at one moment.

    archive or Kafka ─► frame as read ─► as_known (labels as of a moment, one row a transaction)
                     ─► mature (rows so new that labels still come in are left out) ─► Dataset

A frame has the columns of `COLUMNS`: `event_time` and `known_at` in epoch milliseconds, `label` 0,
1 or `UNKNOWN`, `weight` the number of transactions a row stands for (1 unless the source thins its
rows), `day` the UTC day it was filed under. Everything here is pure: no files, no clock.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fraud_training import FEATURES
from fraud_training.dataset import Dataset

UNKNOWN = -1
"""A label nobody has told us yet, or only after the moment we look from."""

BROKEN = 9
"""A label that is neither 0 nor 1; validation counts these."""

NEVER = np.iinfo(np.int64).max
"""`known_at` of a row without a label."""

COLUMNS: tuple[str, ...] = (
    "transaction_id", "event_time", *FEATURES, "label", "known_at", "weight", "day",
)  # fmt: skip

REQUIRED: tuple[str, ...] = ("transaction_id", "event_time", *FEATURES, "label", "known_at")
"""What an archive file must have; `weight` may be absent, `day` comes from its folder."""

DAY_MILLISECONDS = 86_400_000
BUCKET_MILLISECONDS = 3_600_000
MATURE_SHARE = 0.9


@dataclass(frozen=True)
class Known:
    """What `as_known` did: the rows, and how many it left out or blanked."""

    frame: pd.DataFrame
    duplicates: int
    later_than_as_of: int
    labels_not_yet_known: int


def normalise(frame: pd.DataFrame, day: str | None) -> pd.DataFrame:
    """Any source's columns in the types above.

    What is not a number becomes NaN in a feature, `BROKEN` as a label and -1 as a time, so that
    validation can count it: one bad cell must not stop a run.
    """
    table = pd.DataFrame({"transaction_id": frame["transaction_id"].astype(str)})
    table["event_time"] = _integers(frame["event_time"], missing=-1)
    for name in FEATURES:
        table[name] = pd.to_numeric(frame[name], errors="coerce").astype(np.float64)
    label = pd.to_numeric(frame["label"], errors="coerce")
    table["label"] = np.where(
        frame["label"].isna(), UNKNOWN, np.where(label.isin([0, 1]), label, BROKEN)
    ).astype(np.int8)
    table["known_at"] = _integers(frame["known_at"], missing=NEVER)
    table["weight"] = (
        pd.to_numeric(frame["weight"], errors="coerce").astype(np.float64)
        if "weight" in frame.columns
        else 1.0
    )
    table["day"] = days_of(table["event_time"].to_numpy()) if day is None else day
    return table[list(COLUMNS)]


def _integers(column: pd.Series, missing: int) -> NDArray[np.int64]:
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return column.to_numpy(dtype=np.int64)
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    usable = np.isfinite(values) & (np.abs(values) < 2.0**62)
    whole: NDArray[np.int64] = np.where(usable, values, 0.0).astype(np.int64)
    return np.where(usable, whole, missing)


def days_of(event_time: NDArray[np.int64]) -> NDArray[np.str_]:
    """UTC day of each time, as YYYY-MM-DD."""
    found: NDArray[np.str_] = (
        event_time.astype("datetime64[ms]").astype("datetime64[D]").astype(str)
    )
    return found


def as_known(frame: pd.DataFrame, as_of: int, window: int) -> Known:
    """Rows of [as_of - window, as_of], one per transaction, with the labels known by `as_of`.

    Where a transaction was labelled more than once (a chargeback taken back, say), the latest label
    known by then holds. Rows with a broken time are kept under their day: validation must see them.
    """
    time, day = frame["event_time"].to_numpy(), frame["day"].to_numpy(dtype=str)
    misplaced = days_of(time) != day
    first_day, last_day = days_of(np.array([as_of - window, as_of]))
    inside = (time > as_of - window) & (time <= as_of)
    inside |= misplaced & (day >= first_day) & (day <= last_day)
    later = int(((time > as_of) & ~inside).sum())
    kept = frame[inside].copy()
    future = (kept["known_at"] > as_of) | (kept["known_at"] == NEVER)
    blanked = future & (kept["label"] != UNKNOWN)
    kept.loc[future, "label"] = UNKNOWN
    # Unlabelled first, then by the time the label became known: the last one per id holds.
    order = np.where(kept["label"] == UNKNOWN, -1, kept["known_at"])
    kept = (
        kept.assign(_order=order)
        .sort_values(["transaction_id", "_order", "event_time"], kind="stable")
        .drop_duplicates("transaction_id", keep="last")
        .drop(columns="_order")
        .sort_values(["event_time", "transaction_id"], kind="stable", ignore_index=True)
    )
    return Known(kept, int(inside.sum()) - len(kept), later, int(blanked.sum()))


def mature_until(frame: pd.DataFrame) -> int:
    """The time up to which labels are as complete as they get; rows after it would mislead.

    Where frauds are reported sooner than genuine rows are confirmed, the newest labelled rows are
    nearly all frauds. So hours are walked from the newest back until one has at least
    `MATURE_SHARE` of the coverage that is usual in the window.
    """
    if frame.empty:
        return 0
    hour = frame["event_time"].to_numpy() // BUCKET_MILLISECONDS
    labelled = (frame["label"] != UNKNOWN).to_numpy()
    coverage = pd.Series(labelled).groupby(hour).mean().sort_index()
    covered = coverage[coverage > 0]
    if covered.empty:
        return 0
    # The upper quartile, not the mean: a long label delay leaves much of a window unlabelled.
    usual = float(covered.quantile(0.75))
    mature = coverage[coverage >= MATURE_SHARE * usual]
    return int((mature.index[-1] + 1) * BUCKET_MILLISECONDS)


def labelled_until(frame: pd.DataFrame, until: int) -> pd.DataFrame:
    """The rows with a usable label that happened before `until`."""
    return frame[(frame["label"] != UNKNOWN) & (frame["event_time"] < until)].reset_index(drop=True)


def fingerprint(frame: pd.DataFrame, settings: str) -> str:
    """SHA-256 of all that decides what a run makes: labelled rows, and its settings as text.

    Unlabelled rows are left out: they teach nothing, so their arrival makes no new run.
    """
    rows = frame[frame["label"] != UNKNOWN]
    digest = hashlib.sha256(settings.encode())
    for identity in rows["transaction_id"]:
        text = str(identity).encode()
        digest.update(len(text).to_bytes(4, "little"))
        digest.update(text)
    for column in ("event_time", "label", "weight", *FEATURES):
        digest.update(np.ascontiguousarray(rows[column].to_numpy()).tobytes())
    return digest.hexdigest()


def to_dataset(frame: pd.DataFrame, source: str, identity: str) -> Dataset:
    """Labelled rows as the trainer takes them: time in seconds, features as float32."""
    return Dataset(
        features=frame[list(FEATURES)].to_numpy(dtype=np.float32),
        time=frame["event_time"].to_numpy(dtype=np.float64) / 1_000.0,
        label=frame["label"].to_numpy(dtype=np.int8),
        weight=frame["weight"].to_numpy(dtype=np.float64),
        source=source,
        fingerprint=identity,
    )


def as_text(milliseconds: int) -> str:
    """RFC 3339, for people."""
    moment = datetime.fromtimestamp(milliseconds / 1_000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
