"""A bad day is kept away from training, with the reason; a good one never is."""

import archives
import numpy as np
import pandas as pd
import pytest

from fraud_training.report import validation_page
from fraud_training.retrain.check import shortage
from fraud_training.rows import BROKEN, normalise
from fraud_training.validation import Limits, check

LIMITS = Limits()
BAD = "2026-01-04"


@pytest.fixture
def table() -> pd.DataFrame:
    return normalise(archives.draw(genuine=6_000, frauds=60), None)


def break_day(table: pd.DataFrame, share: float, **values: object) -> pd.DataFrame:
    """Sets columns of some of one day's rows."""
    day = np.flatnonzero(table["day"] == BAD)
    chosen = day[: max(1, int(len(day) * share))]
    changed = table.copy()
    for column, value in values.items():
        changed.loc[chosen, column] = value
    return changed


def test_good_days_pass_untouched(table: pd.DataFrame) -> None:
    checked = check(table, {}, LIMITS)
    assert checked.report.quarantined == []
    assert checked.report.dropped_rows == 0
    pd.testing.assert_frame_equal(checked.accepted, table)


FAULTS = [
    ({"V3": np.nan}, "not a finite number"),
    ({"V3": np.inf}, "not a finite number"),
    ({"V28": -1e6}, "feature out of range"),
    ({"Amount": -0.01}, "amount out of range"),
    ({"Amount": 1e9}, "amount out of range"),
    ({"label": BROKEN}, "neither 0 nor 1"),
    ({"known_at": 5}, "known before the transaction"),
    ({"weight": 0.0}, "weight is not positive"),
    ({"event_time": archives.START}, "time is not of the day"),
    ({"transaction_id": ""}, "no transaction id"),
]


@pytest.mark.parametrize(("values", "said"), FAULTS)
def test_a_day_of_broken_rows_is_quarantined(
    values: dict[str, object], said: str, table: pd.DataFrame
) -> None:
    checked = check(break_day(table, 0.05, **values), {}, LIMITS)
    assert checked.report.quarantined == [BAD]
    (reason,) = next(day for day in checked.report.days if day.day == BAD).reasons
    assert said in reason
    assert BAD not in set(checked.accepted["day"])
    others = table[table["day"] != BAD].reset_index(drop=True)
    pd.testing.assert_frame_equal(checked.accepted, others)


@pytest.mark.parametrize(("values", "said"), FAULTS)
def test_single_broken_rows_are_dropped_and_counted(
    values: dict[str, object], said: str, table: pd.DataFrame
) -> None:
    checked = check(break_day(table, 0.0, **values), {}, LIMITS)
    assert checked.report.quarantined == []
    assert checked.report.dropped_rows == 1
    assert len(checked.accepted) == len(table) - 1
    day = next(day for day in checked.report.days if day.day == BAD)
    assert any(said in fault for fault in day.broken)


def test_a_file_that_could_not_be_read_condemns_its_day(table: pd.DataFrame) -> None:
    unread = "2026-02-01"
    checked = check(table, {BAD: ["part-1.parquet: torn"], unread: ["gone"]}, LIMITS)
    assert checked.report.quarantined == [BAD, unread]
    assert BAD not in set(checked.accepted["day"])


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_day_whose_labels_went_wrong_is_quarantined(share: float, table: pd.DataFrame) -> None:
    checked = check(break_day(table, share, label=1), {}, LIMITS)
    assert checked.report.quarantined == [BAD]
    assert "median day" in checked.report.days[3].reasons[0]


def test_a_day_without_frauds_is_quarantined_where_chance_cannot_explain_it() -> None:
    many = normalise(archives.draw(genuine=6_000, frauds=600), None)
    assert check(break_day(many, 1.0, label=0), {}, LIMITS).report.quarantined == [BAD]
    few = normalise(archives.draw(genuine=6_000, frauds=30), None)
    assert check(break_day(few, 1.0, label=0), {}, LIMITS).report.quarantined == []


def test_moving_fraud_is_no_reason(table: pd.DataFrame) -> None:
    moved = archives.draw(genuine=6_000, frauds=120, moved=3.0, start=archives.START)
    assert check(normalise(moved, None), {}, LIMITS).report.quarantined == []


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        (0.0, 1.0, None),
        (0.9, 1.0, "0 frauds before the first validation window"),
        (0.0, 0.25, "0 frauds in the validation windows"),
        (0.0, 0.7, "0 frauds in the out-of-time window"),
    ],
)
def test_frauds_must_lie_where_they_are_needed(first: float, last: float, said: str | None) -> None:
    """All frauds are put between two points of the window."""
    many = normalise(archives.draw(genuine=6_000, frauds=120), None)
    fraud = np.flatnonzero(many["label"] == 1)
    span = 10 * archives.DAY
    low = archives.START + first * span
    times = np.linspace(low, archives.START + last * span - 1, len(fraud))
    many.loc[fraud, "event_time"] = times.astype(np.int64)
    found = shortage(many.sort_values("event_time", ignore_index=True), LIMITS)
    assert (found is None) if said is None else (found is not None and said in found)


def test_too_few_frauds_or_genuine_rows_are_told(table: pd.DataFrame) -> None:
    for rows in (table[table["label"] == 0], table[table["label"] == 1], table.iloc[:0]):
        assert "are labelled and accepted" in str(shortage(rows, LIMITS))


def test_the_report_tells_each_day_and_escapes_what_it_quotes(table: pd.DataFrame) -> None:
    checked = check(table, {BAD: ["<script>alert(1)</script>"]}, LIMITS)
    page = validation_page(checked.report, None)
    assert page.count("<tr>") == 11
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
