"""`fraud-training drift` as a whole: Evidently's page, a real Pushgateway, a worker's verdicts.

Runs in the environment of scripts/drift-env.sh (`make test-drift`); elsewhere it is skipped.
"""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import archives
import numpy as np
import pandas as pd
import pytest
import servers
from confluent_kafka import Consumer, TopicPartition

from fraud_training import FEATURES, paths
from fraud_training.cli import main
from fraud_training.drift.result import Column, Comparison, Summary
from fraud_training.drift.window import Window
from fraud_training.errors import UserError

pytest.importorskip("evidently", reason="no evidently here: scripts/drift-env.sh")

from fraud_training.drift.gateway import push

BUNDLE = paths.MODELS / "fraud"
COLUMNS = [*FEATURES, "score"]


def need(present: Any, what: str) -> None:
    """Skips the test where something is missing on this machine; under CI=true it fails instead."""
    if not present:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@pytest.fixture(scope="module")
def drawn() -> pd.DataFrame:
    """Three days of rows as the training data are, fraud as rare as there."""
    return archives.draw(genuine=12_000, frauds=22, days=3)


@pytest.fixture(scope="module")
def usual(drawn: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of their verdicts."""
    folder = tmp_path_factory.mktemp("usual")
    archives.write_verdicts(folder, archives.score(drawn, BUNDLE))
    return folder


@pytest.fixture(scope="module")
def moved(drawn: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with twenty features a standard deviation higher."""
    table = drawn.copy()
    names = list(FEATURES[:20])
    table[names] += table[names].std()
    folder = tmp_path_factory.mktemp("moved")
    archives.write_verdicts(folder, archives.score(table, BUNDLE))
    return folder


def drift(source: Path | str, output: Path, *arguments: str) -> int:
    return main(["drift", "--source", str(source), "--output", str(output), *arguments])


def summary(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "summary.json").read_text("utf-8"))
    return found


def test_the_two_locks_go_together() -> None:
    """The environment is that of the training plus a lock made to fit: nothing is missing."""
    # The environment itself has no pip; another interpreter's runs in it.
    pip = [str(Path(sys.base_prefix) / "bin/python3"), "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "--python", sys.executable, "check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


# ---- the comparison


def test_rows_like_the_training_data_have_not_drifted(
    usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift(usual, tmp_path, "--fail-on-drift", "--last", "3d") == 0
    found = summary(tmp_path)
    assert (found["drift"], found["drifted_columns"]) == (False, 0)
    assert found["share_of_drifted_columns"] == 0.0
    assert [column["name"] for column in found["columns"]] == COLUMNS
    assert max(column["index"] for column in found["columns"]) < 0.05
    assert found["rows_compared"] == found["rows_in_window"] > 12_000
    assert found["model"] == {"name": "fraud", "version": "1"}
    assert "21,018 training rows" in found["reference"]["from"]
    assert capsys.readouterr().out.splitlines()[-1].startswith("no drift: 0 of 30 columns drifted")


def test_rows_that_moved_have_drifted(
    moved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift(moved, tmp_path) == 0
    found = summary(tmp_path)
    assert found["drift"] is True
    columns = {column["name"]: column["drifted"] for column in found["columns"]}
    assert all(columns[name] for name in FEATURES[:20])
    assert not any(columns[name] for name in FEATURES[20:])
    assert found["drifted_columns"] == sum(columns.values())
    assert found["share_of_drifted_columns"] == pytest.approx(sum(columns.values()) / 30)
    assert capsys.readouterr().out.splitlines()[-1].startswith("drift: 2")
    assert "Dataset Drift is detected" in (tmp_path / "report.html").read_text("utf-8")
    assert drift(moved, tmp_path, "--fail-on-drift") == 3
    # At exactly the share it is none, for the headline of the page either.
    share = found["drifted_columns"] / 30
    assert drift(moved, tmp_path, "--fail-on-drift", "--drift-share", str(share)) == 0
    assert "Dataset Drift is NOT detected" in (tmp_path / "report.html").read_text("utf-8")


def test_a_run_repeated_says_the_same(usual: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert drift(usual, tmp_path / name, "--last", "3d", "--max-rows", "3000") == 0
    one, two = summary(tmp_path / "one"), summary(tmp_path / "two")
    assert one["rows_compared"] == 3_000 < one["rows_in_window"]
    assert one["columns"] == two["columns"]
    assert one["drift"] is False


def test_rows_without_scores_are_compared_by_their_features(
    drawn: pd.DataFrame, tmp_path: Path
) -> None:
    archives.write(tmp_path / "rows", drawn)
    assert drift(tmp_path / "rows", tmp_path / "out") == 0
    found = summary(tmp_path / "out")
    assert [column["name"] for column in found["columns"]] == list(FEATURES)
    assert found["remarks"] == ["scores are not compared: the source has none"]
    assert found["drift"] is False


def test_scores_of_another_model_are_not_compared(drawn: pd.DataFrame, tmp_path: Path) -> None:
    table = archives.score(drawn, BUNDLE)
    table.loc[table.index[: len(table) // 2], "model_version"] = "2"
    archives.write_verdicts(tmp_path / "mixed", table)
    assert drift(tmp_path / "mixed", tmp_path / "out", "--last", "3d") == 0
    found = summary(tmp_path / "out")
    rows = {column["name"]: column["rows"] for column in found["columns"]}
    assert rows["V1"] == len(table)
    assert rows["score"] == len(table) - len(table) // 2
    assert "were scored by fraud@1" in found["remarks"][0]
    archives.write_verdicts(tmp_path / "other", archives.score(drawn, BUNDLE, version="2"))
    assert drift(tmp_path / "other", tmp_path / "out") == 0
    found = summary(tmp_path / "out")
    assert [column["name"] for column in found["columns"]] == list(FEATURES)
    assert "scores are not compared: too few" in found["remarks"]


def test_training_rows_may_stand_in_for_the_histograms(
    usual: Path, moved: Path, tmp_path: Path
) -> None:
    archives.write(tmp_path / "training", archives.draw(genuine=8_000, frauds=15, seed=8))
    reference = ("--reference", str(tmp_path / "training"))
    assert drift(usual, tmp_path / "out", *reference) == 0
    found = summary(tmp_path / "out")
    assert (found["drift"], found["drifted_columns"]) == (False, 0)
    assert "rows up to 2026-01-1" in found["reference"]["from"]
    assert drift(moved, tmp_path / "out", *reference, "--fail-on-drift") == 3


def test_too_few_rows_leave_no_report(
    usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nobody listens there: a push would be a failure of another name.
    gateway = ("--pushgateway", "http://127.0.0.1:9")
    assert drift(usual, tmp_path / "out", "--last", "10m", *gateway) == 1
    said = capsys.readouterr().err
    assert re.search(r"error: \d+ usable rows in the window 2026-01-0\dT.* at least 1000", said)
    assert "nothing was pushed" in said
    assert not (tmp_path / "out").exists()


def test_the_model_may_be_a_version_of_the_registry(
    drawn: pd.DataFrame, tmp_path: Path, tracking_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tracking_server
    assert main(["register", "--bundle", str(BUNDLE), "--alias", "champion"]) == 0
    version = re.search(r"fraud version (\d+)", capsys.readouterr().out)
    assert version is not None
    # Verdicts of a registered model say the registry's number, not the manifest's.
    archives.write_verdicts(tmp_path / "v", archives.score(drawn, BUNDLE, version="70"))
    number = version.group(1)
    for model in ("mlflow:fraud@champion", f"mlflow:fraud/{number}"):
        assert drift(tmp_path / "v", tmp_path / "out", "--model", model) == 0
        assert summary(tmp_path / "out")["model"] == {"name": "fraud", "version": number}
        assert "scores are not compared: too few" in summary(tmp_path / "out")["remarks"]
    assert drift(tmp_path / "v", tmp_path / "out", "--model", "mlflow:fraud@absent") == 1
    assert "the registry has no fraud@absent" in capsys.readouterr().err
    assert drift(tmp_path / "v", tmp_path / "out", "--model", "mlflow:fraud") == 2


# ---- the page


@pytest.fixture(scope="module")
def page(moved: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    assert drift(moved, folder) == 0
    return folder / "report.html"


def test_the_page_is_self_contained(page: Path) -> None:
    text = page.read_text("utf-8")
    loaded = re.findall(
        r"<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*[\"']?(https?:[^\"'> ]+)", text
    )
    assert loaded == []


def test_the_page_opens_and_shows_every_column(page: Path, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    need(chromium, "chromium is missing: apt-get install chromium")
    command = [
        *(str(chromium), "--headless=new", "--no-sandbox", "--disable-gpu"),
        *("--disable-dev-shm-usage", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--window-size=1400,3000", "--virtual-time-budget=60000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    shown = re.sub(r"<(script|style)\b.*?</\1>", "", done.stdout, flags=re.DOTALL)
    shown = re.sub(r"<[^>]+>", " ", shown)
    assert "Dataset Drift" in shown, done.stderr[-2_000:]
    assert "PSI in the bins of the training data" in shown
    for name in ("V1", "V2"):
        assert re.search(rf"\b{name}\b", shown), name


# ---- Pushgateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Pushgateway; yields its address."""
    program = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    need(program, "prometheus-pushgateway is missing: apt-get install prometheus-pushgateway")
    address = f"127.0.0.1:{servers.free_port()}"
    log = tmp_path_factory.mktemp("gateway") / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(program), f"--web.listen-address={address}"], stdout=file, stderr=file
        )
    try:
        deadline = time.monotonic() + servers.PATIENCE
        while True:
            try:
                get(f"http://{address}/-/ready")
                break
            except OSError:
                assert process.poll() is None, log.read_text("utf-8", "replace")
                assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
                time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def pushed(text: str) -> dict[tuple[str, str], float]:
    """Values by metric and column of what the job pushed."""
    found = {}
    for name, labels, value in re.findall(r"^(drift_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        pairs = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        assert (pairs.pop("job"), pairs.pop("model")) == ("fraud-training-drift", "fraud")
        assert pairs.pop("instance") == ""
        found[name, pairs.get("column", "")] = float(value)
    return found


def test_the_result_can_be_read_from_the_gateway(
    moved: Path, usual: Path, gateway: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.time()
    assert drift(moved, tmp_path, "--pushgateway", f"{gateway}/") == 0
    told, found = summary(tmp_path), pushed(get(f"{gateway}/metrics"))
    assert found["drift_share_of_drifted_columns", ""] == told["share_of_drifted_columns"] > 0.5
    assert found["drift_drifted_columns", ""] == told["drifted_columns"]
    assert found["drift_compared_columns", ""] == 30
    assert found["drift_rows_compared", ""] == told["rows_compared"]
    assert found["drift_rows_in_window", ""] == told["rows_in_window"]
    assert begun - 1 <= found["drift_report_timestamp_seconds", ""] <= time.time()
    start, end = (found[f"drift_window_{one}_timestamp_seconds", ""] for one in ("start", "end"))
    assert end - start == pytest.approx(archives.DAY / 1_000, abs=1e-3)
    for column in told["columns"]:
        assert found["drift_column_score", column["name"]] == pytest.approx(column["index"])
        assert found["drift_column_threshold", column["name"]] == column["threshold"]

    # The next report, of rows without scores, leaves nothing of this one; the address may be set.
    monkeypatch.setenv("PUSHGATEWAY_URL", gateway)
    archives.write(tmp_path / "rows", archives.draw(genuine=3_000, frauds=5))
    assert drift(tmp_path / "rows", tmp_path, "--last", "10d") == 0
    found = pushed(get(f"{gateway}/metrics"))
    assert found["drift_share_of_drifted_columns", ""] == 0.0
    assert ("drift_column_score", "score") not in found
    assert ("drift_column_score", "V1") in found


def test_the_metrics_are_named_as_prometheus_wants_them(gateway: str) -> None:
    promtool = shutil.which("promtool")
    need(promtool, "promtool is missing: apt-get install prometheus")
    own = [line for line in get(f"{gateway}/metrics").splitlines() if re.search(r"\bdrift_", line)]
    assert own
    done = subprocess.run(
        [str(promtool), "check", "metrics"],
        input="\n".join(own) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_gateway_that_is_down_fails_the_run_and_keeps_the_report(
    usual: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert drift(usual, tmp_path, "--pushgateway", "http://127.0.0.1:9") == 1
    assert "--pushgateway http://127.0.0.1:9" in capsys.readouterr().err
    assert summary(tmp_path)["drift"] is False
    assert drift(usual, tmp_path, "--pushgateway", "http://me:hunter2@localhost:9091") == 2
    said = capsys.readouterr().err
    assert "PUSHGATEWAY_PASSWORD" in said
    assert "hunter2" not in said


def test_the_gateway_may_want_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (Column("V1", 0.2, 0.1, drifted=True, rows=1_000),)
    result = Summary(
        model="fraud",
        version="1",
        source="somewhere",
        window=Window(1, 2),
        rows_seen=1_000,
        rows=1_000,
        reference="elsewhere",
        reference_rows=1_000,
        comparison=Comparison(columns, 1, 1.0, "<p>page</p>"),
        alarm_share=0.5,
        remarks=(),
        made_at=3,
    )
    wanted = "Basic " + base64.b64encode(b"me:hunter2").decode()
    paths_seen = []

    class Guarded(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            paths_seen.append(self.path)
            self.send_response(200 if self.headers["Authorization"] == wanted else 401)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Guarded)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(UserError, match="401"):
            push(address, result)
        monkeypatch.setenv("PUSHGATEWAY_USERNAME", "me")
        monkeypatch.setenv("PUSHGATEWAY_PASSWORD", "hunter2")
        push(address, result)
    finally:
        server.shutdown()
        server.server_close()
    assert set(paths_seen) == {"/metrics/job/fraud-training-drift/model/fraud"}


# ---- topics


def binary(name: str) -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR", paths.REPOSITORY / "target"))
    need((target / "debug" / name).is_file(), f"{name} is not built: cargo build --workspace")
    return target / "debug" / name


def produce(broker: str, count: int, *arguments: str) -> None:
    subprocess.run(
        [
            *(str(binary("fraud-producer")), "--brokers", broker, "--topic", "transactions"),
            *("--count", str(count), "--rate", "2000", *arguments),
        ],
        check=True,
        cwd=paths.REPOSITORY,
        timeout=servers.PATIENCE,
        capture_output=True,
    )


def committed(broker: str, topic: str) -> int:
    """Offsets of a topic that readers of committed records see."""
    settings = {"bootstrap.servers": broker, "group.id": "look"}
    consumer = Consumer(settings | {"isolation.level": "read_committed"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        marks = [
            consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=30)
            for one in partitions
        ]
        return sum(end - first for first, end in marks)
    finally:
        consumer.close()


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """A broker with a worker's verdicts: usual rows up to a moment, shifted ones from then on."""
    need(shutil.which("java"), "a broker needs Java: apt-get install openjdk-17-jdk-headless")
    worker_log = tmp_path_factory.mktemp("worker") / "log"
    with servers.kafka_broker(tmp_path_factory.mktemp("broker")) as broker:
        with worker_log.open("wb") as log:
            worker = subprocess.Popen(
                [
                    *(str(binary("fraud-scorer")), "run", "--brokers", broker),
                    *("--create-topics", "--model", str(BUNDLE), "--http"),
                    f"127.0.0.1:{servers.free_port()}",
                    *("--group", "drift-test", "--threads", "1"),
                ],
                cwd=paths.REPOSITORY,
                stdout=log,
                stderr=log,
            )
        try:
            topics = time.monotonic() + servers.PATIENCE
            while not exists(broker, "transactions"):
                assert worker.poll() is None, worker_log.read_text("utf-8", "replace")
                assert time.monotonic() < topics
                time.sleep(0.2)
            produce(broker, 4_000, "--format", "split")
            turn = int(time.time() * 1_000)
            produce(broker, 4_000, "--scenario", "distribution-shift")
            deadline = time.monotonic() + servers.PATIENCE
            while committed(broker, "verdicts") < 8_000:
                assert worker.poll() is None, worker_log.read_text("utf-8", "replace")
                assert time.monotonic() < deadline
                time.sleep(0.5)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(servers.PATIENCE) == 0
        finally:
            worker.kill()
        yield broker, turn


def exists(broker: str, topic: str) -> bool:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "look"})
    try:
        return topic in consumer.list_topics(timeout=30).topics
    finally:
        consumer.close()


def test_verdicts_of_a_worker_are_joined_with_their_rows(
    scored: tuple[str, int], tmp_path: Path
) -> None:
    broker, turn = scored
    source = f"kafka://{broker}"
    assert drift(source, tmp_path / "before", "--until", str(turn), "--fail-on-drift") == 0
    before = summary(tmp_path / "before")
    assert (before["rows_compared"], before["rows_in_window"]) == (4_000, 4_000)
    assert [column["name"] for column in before["columns"]] == COLUMNS
    assert before["drifted_columns"] == 0
    assert before["remarks"] == []

    assert drift(source, tmp_path / "after", "--from", str(turn), "--fail-on-drift") == 3
    after = summary(tmp_path / "after")
    assert after["rows_in_window"] >= 3_990  # the newest may be counted as absurd
    assert all(column["drifted"] for column in after["columns"] if column["name"] != "score")

    # A sample only, and records by their true times: the window is event time.
    arguments = ("--until", str(turn), "--max-rows", "1500")
    assert drift(source, tmp_path / "sample", *arguments) == 0
    sample = summary(tmp_path / "sample")
    assert (sample["rows_compared"], sample["rows_in_window"]) == (1_500, 4_000)


def test_a_topic_without_verdicts_is_told(
    scored: tuple[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"kafka://{scored[0]}"
    assert drift(source, tmp_path, "--verdicts-topic", "absent") == 1
    assert "topic 'absent' cannot be read" in capsys.readouterr().err
    assert drift(source, tmp_path, "--verdicts-topic", "transactions.dlq") == 1
    assert "topic 'transactions.dlq' holds no verdicts" in capsys.readouterr().err
    assert drift("kafka://", tmp_path) == 2


def test_numpy_values_reach_no_file(usual: Path, tmp_path: Path) -> None:
    """Every number of the summary is one that JSON knows."""
    assert drift(usual, tmp_path) == 0
    text = (tmp_path / "summary.json").read_text("utf-8")
    assert not re.search(r"NaN|Infinity", text)
    assert all(np.isfinite(column["index"]) for column in json.loads(text)["columns"])
