"""The schedule really runs: `airflow dags test` on a database of its own, in a temporary folder.

Most runs call a stand-in for `fraud-training` that behaves as the test says; one the real one.
"""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, need, run, succeed

AIRFLOW = ROOT / ".runtime/airflow/bin/airflow"
DAGS = ROOT / "deploy/airflow/dags"
STAGES = ["ingest", "validate", "train", "compare", "promote"]

STAND_IN = """\
#!{python}
import json, os, pathlib, subprocess, sys, time

arguments = sys.argv[1:]
stage = arguments[arguments.index("--stage") + 1]
work = pathlib.Path(arguments[arguments.index("--work") + 1])
work.mkdir(parents=True, exist_ok=True)
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
tries = sum(stage in json.loads(line) for line in open({log!r}))
plan = json.loads({plan!r}).get(stage, {{}})
if plan.get("hang"):
    # One that does not listen, and outlives its parent.
    child = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    print("child", child.pid, flush=True)
    child.wait()
if tries <= plan.get("failures", 0):
    print("error: as planned", file=sys.stderr)
    sys.exit(plan.get("code", 1))
made = plan.get("decision") or ("promoted" if stage == "promote" else None)
if made:
    (work / "decision.json").write_text(json.dumps({{"decision": made, "reasons": ["planned"]}}))
print(f"decision: {{made}}" if made else f"stage: {{stage}} done")
"""


@dataclass
class Ran:
    """What became of one run."""

    code: int
    output: str
    states: dict[str, str]
    calls: list[list[str]]
    folders: list[Path]

    def stages(self) -> list[str]:
        return [call[call.index("--stage") + 1] for call in self.calls]


@dataclass
class Airflow:
    """An Airflow with a migrated database, and a stand-in for the training."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        plan: dict[str, Any] | None = None,
        conf: dict[str, Any] | None = None,
        timeout: float = 180,
        **changes: str,
    ) -> Ran:
        calls = self.home / "calls.jsonl"
        script = self.home / "fraud-training"
        script.write_text(
            STAND_IN.format(python=sys.executable, log=str(calls), plan=json.dumps(plan or {}))
        )
        script.chmod(0o755)
        environment = self.environment | {"FRAUD_TRAINING_BIN": str(script)} | changes
        done = run(
            AIRFLOW, "dags", "test", "fraud_retrain",
            "--conf", json.dumps({"source": "/data"} | (conf or {})),
            # MLflow without a server puts its artefacts where it is called.
            cwd=self.home, env=environment, timeout=timeout,
        )  # fmt: skip
        with sqlite3.connect(self.home / "airflow.db") as database:
            states = dict(database.execute("SELECT task_id, state FROM task_instance").fetchall())
        lines = calls.read_text().splitlines() if calls.exists() else []
        return Ran(
            code=done.returncode,
            output=done.stdout + done.stderr,
            states=states,
            calls=[json.loads(line) for line in lines],
            folders=list((self.home / "fraud-retrain").glob("*")),
        )


def settings(home: Path) -> dict[str, str]:
    """The environment of this process without what a user may have set for Airflow."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRFLOW", "FRAUD_", "MLFLOW_", "AWS_"))
    }
    return own | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "FRAUD_RETRAIN_RETRIES": "2",
        "FRAUD_RETRAIN_RETRY_DELAY_S": "1",
        "NO_PROXY": "127.0.0.1",
    }


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AIRFLOW_HOME with an empty database; each test takes a copy."""
    need(AIRFLOW.is_file(), f"{AIRFLOW} is missing: scripts/airflow-env.sh")
    home = tmp_path_factory.mktemp("airflow")
    succeed(AIRFLOW, "db", "migrate", env=settings(home), timeout=300)
    return home


@pytest.fixture
def airflow(migrated: Path, tmp_path: Path) -> Airflow:
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(migrated / "airflow.db", home)
    return Airflow(home, settings(home))


class Hook(BaseHTTPRequestHandler):
    """Keeps what is posted to it."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Hook)
    server.posted = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_dag_loads_and_says_what_the_documentation_says(migrated: Path) -> None:
    script = (
        "import json, fraud_retrain as f; d = f.fraud_retrain();"
        "print(json.dumps([d.timetable.expression if hasattr(d.timetable, 'expression') else"
        " str(d.schedule), d.max_active_runs, d.catchup,"
        " {t.task_id: [t.retries, t.execution_timeout is not None, t.retry_exponential_backoff,"
        " bool(t.on_failure_callback)] for t in d.tasks}]))"
    )
    environment = settings(migrated) | {"PYTHONPATH": str(DAGS)}
    for name in ("FRAUD_RETRAIN_RETRIES", "FRAUD_RETRAIN_RETRY_DELAY_S"):
        del environment[name]
    output = succeed(AIRFLOW.parent / "python", "-c", script, env=environment)
    schedule, active, catchup, tasks = json.loads(output.splitlines()[-1])
    assert schedule == "*/30 * * * *"
    assert (active, catchup) == (1, False)
    assert set(STAGES) < set(tasks)
    for name, (retries, limited, backoff, told) in tasks.items():
        assert (retries, limited, bool(backoff), told) == (3, True, True, True), name


def test_a_run_goes_through_all_stages_and_repeats_one_that_failed(
    airflow: Airflow, webhook: HTTPServer
) -> None:
    kept, old = (airflow.home / "fraud-retrain" / name for name in ("kept", "old"))
    for folder in (kept, old):
        folder.mkdir(parents=True)
    long_ago = time.time() - 3 * 86_400
    os.utime(old, (long_ago, long_ago))

    done = airflow.run(
        {"train": {"failures": 1}},
        conf={"window": "7d", "engine": "spark"},
        FRAUD_RETRAIN_OPTIONS="--trials 2 --seed 9",
        FRAUD_RETRAIN_KEEP_DAYS="2",
        FRAUD_RETRAIN_WEBHOOK=f"http://127.0.0.1:{webhook.server_port}/hook",
    )
    assert done.code == 0, done.output
    assert done.stages() == ["ingest", "validate", "train", "train", "compare", "promote"]
    # Every stage gets the same flags.
    (flags,) = {
        tuple(word for at, word in enumerate(call) if "--stage" not in (word, call[at - 1]))
        for call in done.calls
    }
    text = " ".join(flags)
    for expected in ("--source /data", "--window 7d", "--engine spark", "--trials 2", "--seed 9"):
        assert expected in text
    assert done.states["finish"] == "success"
    assert done.states["nothing_to_train"] == "skipped"
    # What another try has healed is no failure to tell of.
    assert webhook.posted == []  # type: ignore[attr-defined]
    # Its own folder is gone, and one that a failed run left long ago.
    assert done.folders == [kept]


def test_a_decision_before_training_skips_the_rest(airflow: Airflow) -> None:
    done = airflow.run({"validate": {"decision": "quarantined"}})
    assert done.code == 0, done.output
    assert done.stages() == ["ingest", "validate"]
    assert [done.states[name] for name in ("train", "compare", "promote")] == ["skipped"] * 3
    assert done.states["nothing_to_train"] == done.states["finish"] == "success"
    assert done.folders == []


def test_a_stage_that_keeps_failing_ends_the_run_and_is_told(
    airflow: Airflow, webhook: HTTPServer
) -> None:
    hook = f"http://127.0.0.1:{webhook.server_port}/hook?key=s3cret"
    done = airflow.run(
        {"train": {"failures": 99}}, FRAUD_RETRAIN_WEBHOOK=hook, FRAUD_RETRAIN_RETRIES="1"
    )
    assert done.code != 0
    assert done.stages() == ["ingest", "validate", "train", "train"]
    assert done.states["train"] == "failed"
    assert {done.states[name] for name in ("compare", "promote", "finish")} == {"upstream_failed"}
    (event,) = webhook.posted  # type: ignore[attr-defined]
    assert event["event"] == "retraining-failed"
    assert (event["dag"], event["task"], event["tries"]) == ("fraud_retrain", "train", 2)
    assert "exit code 1" in event["error"]
    # The same line is in the log, and the folder is there to look into.
    assert "retraining-failed" in done.output
    assert [str(folder) for folder in done.folders] == [event["folder"]]
    assert "s3cret" not in done.output


def test_wrong_usage_is_not_tried_again(airflow: Airflow) -> None:
    # A webhook that nobody answers changes nothing.
    done = airflow.run(
        {"compare": {"failures": 99, "code": 2}}, FRAUD_RETRAIN_WEBHOOK="http://127.0.0.1:9/s3cret"
    )
    assert done.code != 0
    assert done.stages() == ["ingest", "validate", "train", "compare"]
    assert done.states["compare"] == "failed"
    assert "the webhook could not be told" in done.output
    assert "s3cret" not in done.output


def test_a_stage_that_hangs_is_ended_with_all_it_started(airflow: Airflow) -> None:
    done = airflow.run(
        {"validate": {"hang": True}}, FRAUD_RETRAIN_TIMEOUT_MIN="0.1", FRAUD_RETRAIN_RETRIES="0"
    )
    assert done.code != 0
    assert done.states["validate"] == "failed"
    assert "child " in done.output
    pid = int(done.output.split("child ")[1].split()[0])
    deadline = time.monotonic() + 30
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} was left running"
        time.sleep(0.2)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_a_flag_cannot_be_smuggled_in_as_the_source(airflow: Airflow) -> None:
    done = airflow.run(conf={"source": "--experiment=other"})
    assert done.code != 0
    assert done.calls == []


def test_a_setting_that_is_no_number_is_named(migrated: Path) -> None:
    environment = settings(migrated) | {"PYTHONPATH": str(DAGS), "FRAUD_RETRAIN_RETRIES": "many"}
    done = run(AIRFLOW.parent / "python", "-c", "import fraud_retrain", env=environment)
    assert done.returncode != 0
    assert "FRAUD_RETRAIN_RETRIES must be a number" in done.stderr


REPORTER = """\
#!{python}
import json, pathlib, sys
arguments = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(json.dumps(arguments) + "\\n")
if {code}:
    print("error: as planned", file=sys.stderr)
    sys.exit({code})
folder = pathlib.Path(arguments[arguments.index("--output") + 1])
folder.mkdir(parents=True)
(folder / "report.html").write_text("<p>report</p>")
(folder / "summary.json").write_text(json.dumps({{"drift": True, "share_of_drifted_columns": 0.7}}))
print("drift: 21 of 30 columns drifted")
"""


def report(airflow: Airflow, code: int = 0, **conf: str) -> tuple[int, str, list[list[str]]]:
    """One run of the DAG of drift reports: exit code, output, and calls of the stand-in."""
    calls, script = airflow.home / "reports.jsonl", airflow.home / "drift"
    script.write_text(REPORTER.format(python=sys.executable, log=str(calls), code=code))
    script.chmod(0o755)
    environment = airflow.environment | {
        "FRAUD_DRIFT_BIN": str(script),
        "FRAUD_DRIFT_OPTIONS": "--max-rows 9000",
    }
    done = run(
        AIRFLOW, "dags", "test", "fraud_drift", "--conf", json.dumps(conf),
        cwd=airflow.home, env=environment, timeout=180,
    )  # fmt: skip
    lines = calls.read_text().splitlines() if calls.exists() else []
    return done.returncode, done.stdout + done.stderr, [json.loads(line) for line in lines]


def test_a_drift_report_is_one_call_and_drift_no_failure(airflow: Airflow) -> None:
    old = airflow.home / "fraud-drift" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    code, output, calls = report(airflow, source="s3://bucket/verdicts", window="6h")
    assert code == 0, output
    (call,) = calls
    folder = Path(call[call.index("--output") + 1])
    assert call == [
        "drift", "--source", "s3://bucket/verdicts", "--model", "mlflow:fraud@champion",
        "--last", "6h", "--until", "latest", "--output", str(folder), "--max-rows", "9000",
    ]  # fmt: skip
    assert folder.parent == airflow.home / "fraud-drift"
    assert (folder / "report.html").is_file()
    assert not old.exists()
    assert "drift: 21 of 30 columns drifted" in output


def test_a_drift_report_that_cannot_be_made_fails(airflow: Airflow) -> None:
    code, output, calls = report(airflow, code=2, source="s3://bucket/verdicts")
    assert code != 0, output
    assert len(calls) == 1, "wrong usage is not tried again"


def test_a_drift_report_needs_a_source(airflow: Airflow) -> None:
    for conf in ({}, {"source": "--fail-on-drift"}):
        code, output, calls = report(airflow, **conf)
        assert code != 0, output
        assert calls == []


ARCHIVE = """\
import sys
from pathlib import Path
import numpy as np
from fraud_training import FEATURES, paths
from fraud_training.dataset import draw_synthetic
import pandas as pd

data = draw_synthetic(paths.PROFILE, seed=5, genuine=6_000, frauds=240)
start = 1_767_225_600_000
frame = pd.DataFrame(data.features.astype(np.float64), columns=list(FEATURES))
frame.insert(0, "transaction_id", [f"t{n}" for n in range(len(frame))])
# Twice as slow as drawn: four days.
frame.insert(1, "event_time", start + (data.time * 2_000).astype("int64"))
frame["label"] = data.label
frame["known_at"] = frame["event_time"]
for day, rows in frame.groupby(pd.to_datetime(frame["event_time"], unit="ms").dt.date):
    folder = Path(sys.argv[1]) / f"day={day}"
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "part-0.parquet", index=False)
"""


def test_the_real_training_promotes_a_first_model_and_then_finds_nothing_new(
    airflow: Airflow, tmp_path: Path
) -> None:
    training = Path(os.environ.get("FRAUD_TRAINING_BIN", ROOT / ".runtime/venv/bin/fraud-training"))
    known = training.is_file() and "retrain" in run(training, "--help").stdout
    need(known, f"{training} has no command retrain: scripts/python-env.sh")
    archive = tmp_path / "archive"
    succeed(training.parent / "python", "-c", ARCHIVE, archive)
    options = {
        "FRAUD_TRAINING_BIN": str(training),
        "FRAUD_RETRAIN_OPTIONS": "--trials 1 --resamples 20",
        "FRAUD_RETRAIN_RETRIES": "0",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    first = airflow.run(conf={"source": str(archive)}, timeout=580, **options)
    assert first.code == 0, first.output
    assert "decision: promoted" in first.output
    assert first.states["promote"] == "success"
    assert first.folders == []

    shutil.copy(airflow.home / "airflow.db", tmp_path / "first.db")
    again = airflow.run(conf={"source": str(archive)}, timeout=580, **options)
    assert again.code == 0, again.output
    assert "decision: nothing-new" in again.output
    assert again.folders == []


def test_the_environment_is_made_once() -> None:
    need(AIRFLOW.is_file(), f"{AIRFLOW} is missing: scripts/airflow-env.sh")
    done = subprocess.run(
        [ROOT / "scripts/airflow-env.sh"], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
