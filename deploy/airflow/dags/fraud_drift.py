"""The schedule of drift reports: one call of `fraud-training drift` over the newest window.

    verdicts (archive, topics) ─► fraud-training drift ─► FOLDER/RUN/report.html, summary.json
                                                     └─► Pushgateway ─► Prometheus ─► alerts

That rows drifted is no failure of the task: the pushed metrics carry it, and Prometheus alerts. The
task fails where no report could be made; that the newest one is old is another alert.

Settings are environment variables of the scheduler and its workers, see SETTINGS below and
deploy/env/template. Without FRAUD_DRIFT_SOURCE nothing is scheduled, and a run by hand names its
source: `airflow dags test fraud_drift --conf '{"source": "s3://bucket/verdicts"}'`. The address of
the Pushgateway, PUSHGATEWAY_URL, and its password go to the program by the environment.
"""

import json
import logging
import os
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import programs
from airflow.sdk import Param, dag, get_current_context, task

log = logging.getLogger("fraud_drift")


@dataclass(frozen=True)
class Settings:
    """What the environment says, with the defaults."""

    schedule: str | None
    executable: str
    source: str
    model: str
    window: str
    options: tuple[str, ...]
    """Further arguments, such as `--max-rows 100000`."""
    reports: Path
    keep_days: float

    @staticmethod
    def of(environment: Mapping[str, str]) -> "Settings":
        text = partial(programs.text, environment)
        home = text("AIRFLOW_HOME", str(Path.home() / "airflow"))
        source = text("FRAUD_DRIFT_SOURCE", "")
        return Settings(
            schedule=text("FRAUD_DRIFT_SCHEDULE", "15 * * * *") if source else None,
            executable=text("FRAUD_DRIFT_BIN", "fraud-training"),
            source=source,
            model=text("FRAUD_DRIFT_MODEL", "mlflow:fraud@champion"),
            window=text("FRAUD_DRIFT_WINDOW", "24h"),
            options=tuple(shlex.split(text("FRAUD_DRIFT_OPTIONS", ""))),
            reports=Path(text("FRAUD_DRIFT_REPORTS", f"{home}/fraud-drift")),
            keep_days=programs.number(environment, "FRAUD_DRIFT_KEEP_DAYS", 30, least=0),
        )


SETTINGS = Settings.of(os.environ)


def arguments(params: Mapping[str, Any], folder: Path) -> list[str]:
    """The call of one run."""
    return [
        SETTINGS.executable, "drift", "--source", params["source"], "--model", params["model"],
        "--last", params["window"], "--until", params["until"], "--output", str(folder),
        *SETTINGS.options,
    ]  # fmt: skip


@dag(
    dag_id="fraud_drift",
    description="Compares the newest verdicts with the training data, pushes what it finds",
    schedule=SETTINGS.schedule,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # A missed run has nothing to catch up with: the next one looks at the newest window anyway.
    catchup=False,
    # The pushed numbers of two at once would replace each other.
    max_active_runs=1,
    tags=["fraud-scorer"],
    default_args={
        "retries": 2,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "execution_timeout": timedelta(minutes=30),
    },
    params={
        # No value begins with a dash: it could pass for a flag.
        "source": Param(
            SETTINGS.source,
            type="string",
            pattern=r"^[^-\s]\S*$",
            description="archive of verdicts or rows (folder, s3://bucket/prefix), or kafka://HOST:PORT",
        ),
        "model": Param(
            SETTINGS.model,
            type="string",
            pattern=r"^[^-\s]\S*$",
            description="mlflow:NAME@ALIAS, or the folder of a bundle",
        ),
        "window": Param(
            SETTINGS.window,
            type="string",
            pattern=r"^\d+[smhd]$",
            description="how much of the newest data to look at, in event time",
        ),
        "until": Param(
            "latest",
            type="string",
            pattern=r"^(latest|now|\d{4}-\d\d-\d\dT\S+)$",
            description="the window's end: latest (newest event time), now, or RFC 3339",
        ),
    },
)
def fraud_drift() -> None:
    @task
    def report() -> dict[str, Any]:
        programs.remove_old_folders(SETTINGS.reports, SETTINGS.keep_days, time.time())
        context = get_current_context()
        folder = programs.run_folder(SETTINGS.reports, context["run_id"])
        programs.call(arguments(context["params"], folder))
        found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        log.info("report: %s", folder / "report.html")
        return {name: found[name] for name in ("drift", "share_of_drifted_columns")}

    report()


fraud_drift()
