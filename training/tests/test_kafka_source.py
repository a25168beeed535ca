"""Rows straight from the topics: joined with labels, in bounded memory, committed ones only."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import numpy as np
import pandas as pd
import pytest
import servers
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from fraud_training import FEATURES, kafka_source
from fraud_training.cli import main
from fraud_training.errors import UsageError, UserError
from fraud_training.kafka_source import Labels, Topics, event_time, properties, read_topics
from fraud_training.rows import UNKNOWN, as_known

WEEKS = 14 * archives.DAY


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with servers.kafka_broker(tmp_path_factory.mktemp("broker")) as address:
        yield address


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return archives.draw(genuine=1_500, frauds=90, delay=archives.DAY)


def transaction(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("transaction_id", "event_time", *FEATURES)}


def label(row: dict[str, Any]) -> bytes:
    wanted = {name: row[name] for name in ("transaction_id", "label", "known_at")}
    return json.dumps(wanted).encode()


@pytest.fixture(scope="module")
def filled(broker: str, rows: pd.DataFrame) -> Topics:
    """Topics with all that can stand in them: both forms, rubbish, an aborted transaction."""
    admin = AdminClient({"bootstrap.servers": broker})
    names = ("transactions", "labels", "empty")
    for future in admin.create_topics([NewTopic(name, 3, 1) for name in names]).values():
        future.result(60)
    records = rows.to_dict("records")
    producer = Producer({"bootstrap.servers": broker})
    for record in records[:800]:
        value = json.dumps(transaction(record)).encode()
        producer.produce("transactions", value, key=record["transaction_id"])
    for start in range(800, len(records), 50):
        part = [transaction(record) for record in records[start : start + 50]]
        split = {"columns": list(part[0]), "data": [list(row.values()) for row in part]}
        content = split if start % 100 else {"dataframe_split": split}
        producer.produce("transactions", json.dumps(content).encode())
    for rubbish in (b"", b"{", b"[1]", b"\xff", b'{"columns": ["V1"], "data": [[1, 2]]}'):
        producer.produce("transactions", rubbish)
    producer.produce("transactions", json.dumps({"V1": 1.0}).encode())
    for record in records:
        producer.produce("labels", label(record), key=record["transaction_id"])
    first = records[0]
    corrected = {**first, "label": 1 - first["label"], "known_at": first["known_at"] + 5}
    for value in (
        label({**first, "transaction_id": "stranger"}),
        label({**first, "label": 2}),
        label({**first, "known_at": "soon"}),
        b"no label",
        label(corrected),
    ):
        producer.produce("labels", value)
    assert producer.flush(60) == 0

    transactional = Producer({"bootstrap.servers": broker, "transactional.id": "aborted"})
    transactional.init_transactions(60)
    transactional.begin_transaction()
    ghost = {**transaction(first), "transaction_id": "ghost"}
    transactional.produce("transactions", json.dumps(ghost).encode(), partition=0)
    transactional.flush(60)
    transactional.abort_transaction(60)
    return Topics(broker, "transactions", "labels")


def test_rows_are_joined_with_their_labels(filled: Topics, rows: pd.DataFrame) -> None:
    collected = read_topics(filled, None, WEEKS)
    assert collected.as_of == rows["event_time"].max()
    assert collected.skipped == {
        "undecodable transactions": 5,
        "transactions without an id": 1,
        "undecodable labels": 3,
        "labels of other transactions": 1,
    }
    known = as_known(collected.frame, collected.as_of, WEEKS).frame
    assert "ghost" not in set(known["transaction_id"])
    wanted = rows.sort_values(["event_time", "transaction_id"], ignore_index=True)
    assert known["transaction_id"].tolist() == wanted["transaction_id"].tolist()
    assert np.array_equal(known[list(FEATURES)], wanted[list(FEATURES)])
    # A label counts from a day after its transaction on; the first one was corrected.
    labels = np.where(wanted["known_at"] <= collected.as_of, wanted["label"], UNKNOWN)
    labels[0] = 1 - labels[0]
    assert known["label"].tolist() == labels.tolist()
    assert 0 < (known["label"] == UNKNOWN).sum() < len(known)


@pytest.mark.usefixtures("tracking_server")
def test_a_run_may_read_the_topics(filled: Topics, rows: pd.DataFrame, tmp_path: Path) -> None:
    source = f"kafka://{filled.brokers}"
    arguments = ["retrain", "--source", source, "--work", str(tmp_path), "--stage", "ingest"]
    assert main([*arguments, "--model-name", "from-topics"]) == 0
    facts = json.loads((tmp_path / "ingest.json").read_text("utf-8"))
    assert (facts["rows"], facts["source"]) == (len(rows), source)
    assert facts["skipped"]["undecodable transactions"] == 5
    assert 0 < facts["labelled"] < len(rows)


def test_only_the_window_is_held(
    filled: Topics, rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_source, "CHUNK_ROWS", 100)
    as_of = archives.START + 5 * archives.DAY
    monkeypatch.setattr(kafka_source, "MAX_ROWS", 400)
    frame = read_topics(filled, as_of, archives.DAY).frame
    wanted = rows[rows["event_time"].between(as_of - archives.DAY + 1, as_of)]
    assert set(frame["transaction_id"]) == set(wanted["transaction_id"])
    with pytest.raises(UserError, match="more than 400 transactions in the window: shorten"):
        read_topics(filled, as_of, WEEKS)


def test_empty_topics_give_no_rows(filled: Topics) -> None:
    assert len(read_topics(Topics(filled.brokers, "empty", "empty"), None, WEEKS).frame) == 0
    labelless = read_topics(Topics(filled.brokers, "transactions", "empty"), None, WEEKS).frame
    assert set(labelless["label"]) == {UNKNOWN}


def test_a_missing_topic_is_named(filled: Topics) -> None:
    with pytest.raises(UserError, match="topic 'absent' cannot be read"):
        read_topics(Topics(filled.brokers, "absent", "labels"), None, WEEKS)


def test_a_broker_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_source, "CONNECT_SECONDS", 1.0)
    with pytest.raises(UserError, match=r"--source kafka://127\.0\.0\.1:9"):
        read_topics(Topics("127.0.0.1:9", "transactions", "labels"), None, WEEKS)


def test_credentials_come_from_file_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "client.properties"
    path.write_text("# comment\n\nsasl.username = me\nsasl.password=a=b\n", "utf-8")
    lines = "security.protocol=SASL_SSL\nsasl.username=you\nbootstrap.servers=elsewhere:1"
    monkeypatch.setenv("FRAUD_TRAINING_PROPERTY", lines)
    found = properties(Topics("here:1", "t", "l", path))
    assert found["sasl.username"] == "me"
    assert found["sasl.password"] == "a=b"
    assert found["security.protocol"] == "SASL_SSL"
    assert found["bootstrap.servers"] == "here:1"
    assert found["isolation.level"] == "read_committed"
    path.write_text("sasl.password hunter2\n", "utf-8")
    with pytest.raises(UsageError, match="line 1 is not key=value") as refused:
        properties(Topics("here:1", "t", "l", path))
    assert "hunter2" not in str(refused.value)


def test_times_as_the_worker_understands_them() -> None:
    assert event_time(5, 9) == 5
    assert event_time("2026-01-01T00:00:00Z", 9) == archives.START
    assert event_time("2026-01-01T01:00:00+01:00", 9) == archives.START
    for odd in (None, True, "soon", 2**80, 1.5):
        assert event_time(odd, 9) == 9


def test_labels_of_nobody_leave_all_unknown() -> None:
    frame = archives.draw(genuine=20, frauds=2).drop(columns=["label", "known_at"])
    joined = Labels(set(frame["transaction_id"])).join(frame)
    assert set(joined["label"]) == {UNKNOWN}
