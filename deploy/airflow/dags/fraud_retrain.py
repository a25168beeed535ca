"""The schedule of retraining: one run of `fraud-training retrain`, stage by stage.

    ingest ─► validate ─► anything_to_train ─┬─► train ─► compare ─► promote ─┬─► finish
                                             └─► nothing_to_train ────────────┘

Each stage is one call of the `fraud-training` executable, so Airflow needs none of the training
package's libraries, and a stage can be repeated by hand with the command its log shows. Stages hand
over by files in a folder of the run's own. A stage may end the run early by a `decision.json`
(nothing new since the last run; all days quarantined): the rest is then skipped, and the run is a
success, for nothing went wrong.

What is worth another try is tried again, later each time; wrong usage (exit code 2) is not. When a
task has failed for good, one structured line is logged and, where a webhook is named, posted.

Settings are environment variables of the scheduler and its workers; see SETTINGS below and
deploy/env/template. Source, window, as-of time and engine can be changed per run (trigger form, or
`airflow dags test fraud_retrain --conf '{"window": "7d"}'`).
"""

import json
import logging
import os
import shlex
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import programs
from airflow.sdk import Param, TriggerRule, dag, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException

log = logging.getLogger("fraud_retrain")

DEMO_SOURCE = "demo"
"""A source that stands for rows drawn anew by `fraud-producer`: to try the schedule out."""

DEMO_DAYS = 14
DEMO_OPTIONS = "--count 200000 --rate 1000 --event-time 6048x"
"""200,000 rows over two weeks (200 s of the schedule, 6,048 times as fast): some 350 frauds."""

WEBHOOK_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Settings:
    """What the environment says, with the defaults."""

    schedule: str
    executable: str
    producer: str
    source: str
    window: str
    engine: str
    options: tuple[str, ...]
    """Further arguments of every stage, such as `--trials 8`."""
    work: Path
    keep_days: float
    """Folders of failed runs are kept for a look inside, but no longer than this."""
    retries: int
    retry_delay: timedelta
    stage_timeout: timedelta

    @staticmethod
    def of(environment: Mapping[str, str]) -> "Settings":
        text = partial(programs.text, environment)
        number = partial(programs.number, environment)
        home = text("AIRFLOW_HOME", str(Path.home() / "airflow"))
        return Settings(
            schedule=text("FRAUD_RETRAIN_SCHEDULE", "*/30 * * * *"),
            executable=text("FRAUD_TRAINING_BIN", "fraud-training"),
            producer=text("FRAUD_PRODUCER_BIN", "fraud-producer"),
            source=text("FRAUD_RETRAIN_SOURCE", DEMO_SOURCE),
            window=text("FRAUD_RETRAIN_WINDOW", "14d"),
            engine=text("FRAUD_RETRAIN_ENGINE", "xgboost"),
            options=tuple(shlex.split(text("FRAUD_RETRAIN_OPTIONS", ""))),
            work=Path(text("FRAUD_RETRAIN_WORK", f"{home}/fraud-retrain")),
            keep_days=number("FRAUD_RETRAIN_KEEP_DAYS", 7, least=0),
            retries=int(number("FRAUD_RETRAIN_RETRIES", 3, least=0)),
            retry_delay=timedelta(seconds=number("FRAUD_RETRAIN_RETRY_DELAY_S", 60, least=0)),
            stage_timeout=timedelta(minutes=number("FRAUD_RETRAIN_TIMEOUT_MIN", 60, least=0.01)),
        )


SETTINGS = Settings.of(os.environ)


def work_folder(run_id: str) -> Path:
    return programs.run_folder(SETTINGS.work, run_id)


def arguments(stage: str, params: Mapping[str, Any], folder: Path) -> list[str]:
    """The call of one stage. Every stage gets the same flags: the program's contract."""
    source = str(folder / "demo") if params["source"] == DEMO_SOURCE else params["source"]
    return [
        SETTINGS.executable, "retrain", "--stage", stage, "--work", str(folder / "work"),
        "--source", source, "--window", params["window"], "--as-of", params["as_of"],
        "--engine", params["engine"], *SETTINGS.options,
    ]  # fmt: skip


def demo_arguments(params: Mapping[str, Any], folder: Path, moment: datetime) -> list[str]:
    """Rows drawn up to `moment`, others in every run; a retry writes the same files again."""
    start = moment - timedelta(days=DEMO_DAYS)
    return [
        SETTINGS.producer, "--archive", str(folder / "demo"), "--archive-only",
        "--event-start", str(int(start.timestamp() * 1_000)),
        "--seed", str(int(moment.timestamp())),
        *shlex.split(params["demo_options"]),
    ]  # fmt: skip


def stage(name: str) -> None:
    """Runs one stage of the current run."""
    context = get_current_context()
    folder = work_folder(context["run_id"])
    folder.mkdir(parents=True, exist_ok=True)
    programs.call(arguments(name, context["params"], folder))


def decision(folder: Path) -> dict[str, Any] | None:
    """What the run decided, if it did yet."""
    try:
        found = json.loads((folder / "work" / "decision.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(found, dict) or "decision" not in found:
        raise AirflowFailException(f"decision.json in {folder} names no decision")
    return found


def report_failure(context: Mapping[str, Any]) -> None:
    """Says that a task failed for good: one line of JSON, and the same to the webhook."""
    instance = context["task_instance"]
    event = {
        "event": "retraining-failed",
        "dag": instance.dag_id,
        "run": instance.run_id,
        "task": instance.task_id,
        "tries": instance.try_number,
        "error": str(context.get("exception") or "")[:2_000],
        "folder": str(work_folder(instance.run_id)),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    log.error("%s", json.dumps(event))
    # Read here and not kept in SETTINGS: such an address often carries a secret.
    address = os.environ.get("FRAUD_RETRAIN_WEBHOOK")
    if not address:
        return
    if not address.startswith(("http://", "https://")):
        log.error("FRAUD_RETRAIN_WEBHOOK is no http or https address: nothing was posted")
        return
    request = urllib.request.Request(
        address, json.dumps(event).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S) as answer:
            log.info("the webhook answered %s", answer.status)
    except (OSError, ValueError) as error:
        # The reason only: the text of some errors repeats the address.
        reason = getattr(error, "code", None) or type(error).__name__
        log.error("the webhook could not be told: %s", reason)


@dag(
    dag_id="fraud_retrain",
    description="Trains on the newest window, compares with the champion, promotes by rule",
    schedule=SETTINGS.schedule,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # A missed run has nothing to catch up with: the next one takes the newest window anyway.
    catchup=False,
    # Two runs at once would train on the same rows; the registry's lock guards other schedulers.
    max_active_runs=1,
    tags=["fraud-scorer"],
    default_args={
        "retries": SETTINGS.retries,
        "retry_delay": SETTINGS.retry_delay,
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
        "execution_timeout": SETTINGS.stage_timeout,
        "on_failure_callback": report_failure,
    },
    params={
        # No value begins with a dash: it could pass for a flag.
        "source": Param(
            SETTINGS.source,
            type="string",
            pattern=r"^[^-\s]\S*$",
            description="folder, s3://bucket/prefix, kafka://HOST:PORT, or demo",
        ),
        "window": Param(
            SETTINGS.window,
            type="string",
            pattern=r"^\d+[smhd]$",
            description="how much of the newest data to learn from, in event time",
        ),
        "as_of": Param(
            "latest",
            type="string",
            pattern=r"^(latest|now|\d{4}-\d\d-\d\dT\S+)$",
            description="labels known later than this do not count: latest, now, or RFC 3339",
        ),
        "engine": Param(SETTINGS.engine, enum=["xgboost", "spark"]),
        "demo_options": Param(
            DEMO_OPTIONS,
            type="string",
            description="how fraud-producer draws the rows of the source demo",
        ),
    },
)
def fraud_retrain() -> None:
    @task
    def ingest() -> None:
        # Of runs that ended without cleaning up.
        programs.remove_old_folders(SETTINGS.work, SETTINGS.keep_days, time.time())
        context = get_current_context()
        folder = work_folder(context["run_id"])
        folder.mkdir(parents=True, exist_ok=True)
        if context["params"]["source"] == DEMO_SOURCE:
            moment = context["dag_run"].logical_date or context["dag_run"].run_after
            programs.call(demo_arguments(context["params"], folder, moment))
        stage("ingest")

    @task
    def validate() -> None:
        stage("validate")

    @task.branch
    def anything_to_train() -> str:
        early = decision(work_folder(get_current_context()["run_id"]))
        return "nothing_to_train" if early else "train"

    @task
    def nothing_to_train() -> None:
        early = decision(work_folder(get_current_context()["run_id"])) or {}
        log.info("nothing to train: %s", "; ".join(map(str, early.get("reasons", []))) or "-")

    @task
    def train() -> None:
        stage("train")

    @task
    def compare() -> None:
        stage("compare")

    @task
    def promote() -> None:
        stage("promote")

    # Runs after either branch, but not after a failure: the folder then stays for a look inside.
    @task(trigger_rule=TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS)
    def finish() -> str:
        folder = work_folder(get_current_context()["run_id"])
        made = decision(folder)
        if made is None:
            raise AirflowFailException(f"the stages ended without a decision.json in {folder}")
        log.info("decision: %s", json.dumps(made))
        # Report, validation and model are in the registry's run by now.
        shutil.rmtree(folder, ignore_errors=True)
        return str(made["decision"])

    choice = anything_to_train()
    last = finish()
    ingest() >> validate() >> choice
    choice >> train() >> compare() >> promote() >> last
    choice >> nothing_to_train() >> last


fraud_retrain()
