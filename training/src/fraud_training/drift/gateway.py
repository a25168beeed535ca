"""The result of a run as metrics, pushed to a Prometheus Pushgateway."""

import os
import re
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway
from prometheus_client.exposition import basic_auth_handler, default_handler

from fraud_training.drift.result import Summary
from fraud_training.errors import UsageError, UserError

JOB = "fraud-training-drift"

USERNAME = "PUSHGATEWAY_USERNAME"
PASSWORD = "PUSHGATEWAY_PASSWORD"  # the name of a variable, no secret
TIMEOUT_SECONDS = 30.0


def metrics(summary: Summary) -> CollectorRegistry:
    """The result as metrics. Their names are a contract: alerts and dashboards use them."""
    registry = CollectorRegistry()
    found = summary.comparison

    def gauge(name: str, help_text: str, value: float) -> None:
        Gauge(name, help_text, registry=registry).set(value)

    gauge(
        "drift_share_of_drifted_columns",
        "Share of the compared columns, features and score, that drifted from the training data.",
        found.share_of_drifted_columns,
    )
    gauge("drift_drifted_columns", "Columns that drifted.", found.drifted_columns)
    gauge("drift_compared_columns", "Columns that were compared.", len(found.columns))
    score = Gauge(
        "drift_column_score",
        "Population stability index of a column against the training data.",
        ["column"],
        registry=registry,
    )
    threshold = Gauge(
        "drift_column_threshold",
        "From which index on the column counts as drifted.",
        ["column"],
        registry=registry,
    )
    for column in found.columns:
        score.labels(column.name).set(column.index)
        threshold.labels(column.name).set(column.threshold)
    gauge("drift_rows_in_window", "Rows that the window held.", summary.rows_seen)
    gauge("drift_rows_compared", "Rows of the window that were compared.", summary.rows)
    gauge(
        "drift_window_end_timestamp_seconds",
        "Event time at which the compared window ends.",
        summary.window.end / 1_000,
    )
    gauge(
        "drift_window_start_timestamp_seconds",
        "Event time at which the compared window begins.",
        summary.window.start / 1_000,
    )
    gauge(
        "drift_report_timestamp_seconds",
        "When the report was made.",
        summary.made_at / 1_000,
    )
    info = Gauge(
        "drift_report_info", "The version that the report is about.", ["version"], registry=registry
    )
    info.labels(summary.version).set(1)
    return registry


def check_address(address: str) -> str:
    """The address of a Pushgateway, without a trailing slash."""
    url = urlparse(address)
    if url.scheme not in ("http", "https") or not url.netloc:
        raise UsageError(f"--pushgateway must be an http:// or https:// address, not {address!r}")
    if "@" in url.netloc:
        # Not shown: what stands before the @ is a secret.
        raise UsageError(
            f"--pushgateway: no password in the address, set {USERNAME} and {PASSWORD} instead"
        )
    return address.rstrip("/")


def push(address: str, summary: Summary) -> None:
    """Replaces what an earlier report of the same model left at the gateway."""
    user, password = os.environ.get(USERNAME), os.environ.get(PASSWORD)

    def handler(**request: Any) -> Any:
        if user:
            return basic_auth_handler(**request, username=user, password=password or "")
        return default_handler(**request)

    try:
        push_to_gateway(
            check_address(address),
            job=JOB,
            registry=metrics(summary),
            grouping_key={"model": summary.model},
            timeout=TIMEOUT_SECONDS,
            handler=handler,
        )
    except (HTTPError, URLError, OSError, ValueError) as error:
        text = re.sub(r"//[^/@\s]+@", "//", str(error)).strip() or type(error).__name__
        raise UserError(
            f"--pushgateway {address}: the result could not be pushed: {text}"
        ) from error
