"""The comparison by Evidently: the worker's index as its drift method, its page as the report.

This is the only module that imports Evidently, which lives in an environment of its own
(scripts/drift-env.sh).
"""

import math
import os
from collections.abc import Mapping
from typing import Any

# Before the import: a report must not tell a third party that it was made.
os.environ.setdefault("DO_NOT_TRACK", "1")

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.legacy.calculations.stattests import StatTest
from evidently.legacy.calculations.stattests.registry import register_stattest
from evidently.legacy.core import ColumnType
from evidently.presets import DataDriftPreset

from fraud_training.drift.bins import Bins
from fraud_training.drift.result import METHOD, METHOD_TITLE, Column, Comparison


def compare(
    current: pd.DataFrame, reference: pd.DataFrame, bins: Mapping[str, Bins], alarm_share: float
) -> Comparison:
    """Every column of `bins`; both frames must have it, with a finite value at least once."""
    names = list(bins)
    rows = {name: int(current[name].notna().sum()) for name in names}
    # As Python's floats: NumPy's own do not pass Evidently's validation everywhere.
    thresholds = {name: float(bins[name].threshold(rows[name])) for name in names}
    register_method(bins)
    report = Report(
        [
            DataDriftPreset(
                columns=names,
                drift_share=page_share(alarm_share, len(names)),
                num_method=METHOD,
                per_column_threshold=thresholds,
            )
        ]
    )
    definition = DataDefinition(numerical_columns=names)
    snapshot = report.run(
        Dataset.from_pandas(current[names], definition),
        Dataset.from_pandas(reference[names], definition),
    )
    values, count, share = read(snapshot.dict()["metrics"])
    columns = tuple(
        Column(name, values[name], thresholds[name], values[name] > thresholds[name], rows[name])
        for name in names
    )
    if sum(column.drifted for column in columns) != count:
        raise RuntimeError(f"Evidently counts {count} drifted columns, their values say otherwise")
    return Comparison(columns, count, share, snapshot.get_html_str(as_iframe=False))


def page_share(alarm_share: float, columns: int) -> float:
    """The share that Evidently's headline compares with.

    It says drift from its share on, we say so above ours: half-way to the next possible share.
    """
    return round((math.floor(alarm_share * columns + 1e-9) + 0.5) / columns, 3)


def register_method(bins: Mapping[str, Bins]) -> None:
    """Makes the index a method of Evidently; a later call replaces the bins."""

    def index(
        _reference: pd.Series, current: pd.Series, _type: ColumnType, threshold: float
    ) -> tuple[float, bool]:
        value = bins[str(current.name)].index(current.to_numpy())
        return value, value > threshold

    register_stattest(
        StatTest(
            name=METHOD,
            display_name=METHOD_TITLE,
            allowed_feature_types=[ColumnType.Numerical],
            default_threshold=0.1,
        ),
        index,
    )


def read(metrics: list[dict[str, Any]]) -> tuple[dict[str, float], int, float]:
    """Index per column, and number and share of drifted columns, of a snapshot."""
    values: dict[str, float] = {}
    count, share = 0, 0.0
    for metric in metrics:
        value = metric["value"]
        if isinstance(value, dict):
            count, share = int(value["count"]), float(value["share"])
        else:
            values[str(metric["config"]["column"])] = float(value)
    return values, count, share
