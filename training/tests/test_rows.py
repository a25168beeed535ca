"""Labels as of a moment, one row per transaction, and the fingerprint of what is learnt from."""

import archives
import numpy as np
import pandas as pd
import pytest

from fraud_training import FEATURES
from fraud_training.rows import (
    BROKEN,
    NEVER,
    UNKNOWN,
    as_known,
    days_of,
    fingerprint,
    labelled_until,
    mature_until,
    normalise,
)

HOUR = 3_600_000
NOW = archives.START + 10 * archives.DAY


def table(rows: list[tuple[str, int, float, int]]) -> pd.DataFrame:
    """Rows of (id, event time, label or NaN, known at)."""
    frame = pd.DataFrame(rows, columns=["transaction_id", "event_time", "label", "known_at"])
    for name in FEATURES:
        frame[name] = 1.0
    return normalise(frame, None)


def test_a_label_counts_from_the_moment_it_became_known() -> None:
    frame = table([("a", NOW - HOUR, 1, NOW - 1), ("b", NOW - HOUR, 1, NOW + 1)])
    known = as_known(frame, NOW, archives.DAY)
    assert known.frame["label"].tolist() == [1, UNKNOWN]
    assert known.labels_not_yet_known == 1
    assert as_known(frame, NOW + 1, archives.DAY).frame["label"].tolist() == [1, 1]


def test_the_latest_label_known_by_then_holds() -> None:
    at = NOW - 5 * HOUR
    frame = table([("a", at, 1, at + HOUR), ("a", at, 0, at + 3 * HOUR), ("a", at, 1, NOW + HOUR)])
    for as_of, label in ((at + HOUR, 1), (at + 3 * HOUR, 0), (NOW, 0), (NOW + HOUR, 1)):
        known = as_known(frame, as_of, archives.DAY)
        assert known.frame["label"].tolist() == [label]
        assert known.duplicates == 2


def test_only_the_window_is_kept() -> None:
    frame = table([(f"t{n}", NOW - n * HOUR, 0, NOW - n * HOUR) for n in range(-2, 10)])
    known = as_known(frame, NOW, 4 * HOUR)
    assert known.frame["transaction_id"].tolist() == ["t3", "t2", "t1", "t0"]
    assert known.later_than_as_of == 2


def test_a_broken_time_stays_for_validation_to_see() -> None:
    frame = table([("a", NOW - HOUR, 0, NOW), ("b", -1, 0, NOW)])
    frame["day"] = days_of(np.array([NOW - HOUR]))[0]
    assert len(as_known(frame, NOW, archives.DAY).frame) == 2


def test_hours_where_labels_still_come_in_are_left_out() -> None:
    """Frauds are reported at once, genuine rows confirmed two days later."""
    frame = archives.draw(genuine=8_000, frauds=200, days=10)
    delay = np.where(frame["label"] == 1, 0, 2 * archives.DAY)
    frame["known_at"] = frame["event_time"] + delay
    known = as_known(normalise(frame, None), NOW, 20 * archives.DAY).frame
    until = mature_until(known)
    assert abs(until - (NOW - 2 * archives.DAY)) <= HOUR
    naive = known[known["label"] != UNKNOWN]
    kept = labelled_until(known, until)
    newest = kept["event_time"] > until - archives.DAY
    assert 0.0 < kept.loc[newest, "label"].mean() < 0.1
    assert (naive.loc[naive["event_time"] > until + HOUR, "label"] == 1).all()


def test_a_share_of_labels_is_enough_where_it_is_even() -> None:
    frame = archives.draw(genuine=8_000, frauds=200, days=4)
    labelled = np.random.default_rng(1).random(len(frame)) < 0.3
    known = normalise(frame, None).assign(label=lambda t: t["label"].where(labelled, UNKNOWN))
    last = int(known["event_time"].max())
    assert mature_until(known) > last - 12 * HOUR


def test_without_labels_nothing_is_mature() -> None:
    frame = table([("a", NOW, float("nan"), NOW)])
    assert mature_until(frame) == 0
    assert mature_until(frame.iloc[:0]) == 0


def test_the_fingerprint_is_of_labelled_rows_and_settings() -> None:
    rows = [("a", NOW - HOUR, 1.0, NOW), ("b", NOW, 0.0, NOW)]
    frame = table(rows)
    base = fingerprint(frame, "x")
    unlabelled = table([*rows, ("c", NOW, float("nan"), NOW)])
    assert fingerprint(unlabelled, "x") == base
    assert fingerprint(frame, "y") != base
    for column, value in (("label", 0), ("V3", 1.5), ("event_time", NOW), ("weight", 2.0)):
        changed = frame.copy()
        changed.loc[0, column] = value
        assert fingerprint(changed, "x") != base, column
    renamed = frame.assign(transaction_id=["ab", ""])
    assert fingerprint(renamed, "x") != fingerprint(frame.assign(transaction_id=["a", "b"]), "x")


def test_odd_cells_are_kept_countable() -> None:
    frame = archives.draw(genuine=5, frauds=1)
    raw = frame.astype({"V1": object, "label": object, "known_at": object, "event_time": object})
    raw.loc[0, "V1"], raw.loc[1, "label"] = "oops", "maybe"
    raw.loc[2, "label"], raw.loc[2, "known_at"] = None, None
    raw.loc[3, "event_time"] = "yesterday"
    table_ = normalise(raw, "2026-01-01")
    assert np.isnan(table_.loc[0, "V1"])
    assert table_.loc[1, "label"] == BROKEN
    assert (table_.loc[2, "label"], table_.loc[2, "known_at"]) == (UNKNOWN, NEVER)
    assert table_.loc[3, "event_time"] == -1
    assert table_.loc[4, "event_time"] == frame.loc[4, "event_time"]


@pytest.mark.parametrize("at", [0, archives.START, archives.START + archives.DAY - 1])
def test_days_are_utc(at: int) -> None:
    assert days_of(np.array([at]))[0] == str(pd.Timestamp(at, unit="ms").date())
