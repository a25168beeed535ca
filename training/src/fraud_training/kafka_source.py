"""Reads labelled transactions straight from their Kafka topics.

    transactions: from the beginning to where its partitions end now ─► rows by transaction id
    labels:       likewise, only those of rows that were kept        ─► joined

Event time is not Kafka's time (demo clocks run fast), so the window cannot be sought; rows that
fall out of it are dropped while reading, and what is kept at once is bounded by `archive.MAX_ROWS`.
Only committed records are read. Nothing is written: no group, no offsets.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from fraud_training import FEATURES
from fraud_training.archive import MAX_ROWS, Collected
from fraud_training.errors import UsageError, UserError
from fraud_training.rows import COLUMNS, NEVER, UNKNOWN, days_of

VARIABLE = "FRAUD_TRAINING_PROPERTY"
"""Properties of the Kafka client, as the worker's FRAUD_SCORER_PROPERTY."""

CHUNK_ROWS = 50_000
SILENCE_SECONDS = 60.0
CONNECT_SECONDS = 30.0


@dataclass(frozen=True)
class Topics:
    """What to read, and how to reach it."""

    brokers: str
    transactions: str
    labels: str
    property_file: Path | None = None


def properties(topics: Topics) -> dict[str, str]:
    """The consumer's settings.

    Credentials come from the variable `VARIABLE` or a file, one `key=value` a line; the file wins.
    """
    return client_properties(topics.brokers, topics.property_file, "fraud-training-retrain")


def client_properties(brokers: str, property_file: Path | None, group: str) -> dict[str, str]:
    """The same for any reader; the library demands a group, but nothing is committed."""
    found = parse_properties(os.environ.get(VARIABLE, ""), VARIABLE)
    if property_file is not None:
        try:
            text = property_file.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--property-file {property_file}: {error.strerror}") from error
        found |= parse_properties(text, f"--property-file {property_file}")
    return {
        **found,
        "bootstrap.servers": brokers,
        "group.id": group,
        "enable.auto.commit": "false",
        "isolation.level": "read_committed",
        # Where retention has taken the offset that was asked for.
        "auto.offset.reset": "earliest",
        "enable.partition.eof": "true",
    }


def parse_properties(text: str, place: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            # The line itself may hold a secret: only its number is shown.
            raise UsageError(f"{place}: line {number} is not key=value")
        found[key.strip()] = value.strip()
    return found


def read_topics(topics: Topics, as_of: int | None, window: int) -> Collected:
    """Rows with labels; `as_of` None means the newest event time."""
    try:
        consumer = Consumer(properties(topics))
    except KafkaException as error:
        raise UsageError(f"Kafka settings: {error.args[0].str()}") from error
    try:
        rows = Rows(as_of, window)
        for message in read_all(consumer, topics.transactions):
            rows.add(message)
        frame = rows.finish()
        labels = Labels(set(frame["transaction_id"]))
        if len(frame):
            for message in read_all(consumer, topics.labels):
                labels.add(message)
    except KafkaException as error:
        raise UserError(f"--source kafka://{topics.brokers}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    return Collected(
        frame=labels.join(frame),
        as_of=rows.newest if as_of is None else as_of,
        skipped={name: count for name, count in (rows.skipped | labels.skipped).items() if count},
    )


def read_all(consumer: Consumer, topic: str) -> Iterator[Message]:
    """Every committed message of a topic up to where its partitions end at the call."""
    return read_between(consumer, topic, watermarks(consumer, topic))


def watermarks(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    """First offset and end of each partition that is not empty."""
    metadata = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
    if metadata.error is not None or not metadata.partitions:
        raise UserError(f"topic {topic!r} cannot be read: {metadata.error or 'it does not exist'}")
    found: dict[int, tuple[int, int]] = {}
    for partition in metadata.partitions:
        first, end = consumer.get_watermark_offsets(
            TopicPartition(topic, partition), timeout=CONNECT_SECONDS
        )
        if end > first:
            found[partition] = (first, end)
    return found


def read_between(
    consumer: Consumer, topic: str, stretches: Mapping[int, tuple[int, int]]
) -> Iterator[Message]:
    """The committed messages of each partition's stretch [first, end), as far as they are there."""
    ends = {partition: end for partition, (first, end) in stretches.items() if end > first}
    consumer.assign([TopicPartition(topic, number, stretches[number][0]) for number in ends])
    heard = time.monotonic()
    while ends:
        for message in consumer.consume(num_messages=1_000, timeout=1.0):
            heard = time.monotonic()
            partition, offset, error = message.partition(), message.offset(), message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                ends.pop(partition or 0, None)
                continue
            if partition is None or offset is None or partition not in ends:
                continue
            # What arrived after the call is left for the next run.
            if offset >= ends[partition] - 1:
                end = ends.pop(partition)
                if offset >= end:
                    continue
            yield message
        if time.monotonic() - heard > SILENCE_SECONDS:
            raise UserError(
                f"topic {topic!r}: nothing received for {SILENCE_SECONDS:.0f} s with partitions "
                f"{sorted(ends)} unfinished: check the broker, and transactions left open in it"
            )
    consumer.unassign()


class Rows:
    """Transactions of the window so far, in frames of `CHUNK_ROWS`."""

    def __init__(self, as_of: int | None, window: int) -> None:
        self.as_of, self.window = as_of, window
        self.newest = 0
        self.skipped = {"undecodable transactions": 0, "transactions without an id": 0}
        self._ids: list[str] = []
        self._times: list[int] = []
        self._values: list[list[float]] = []
        self._chunks: list[pd.DataFrame] = []

    def add(self, message: Message) -> None:
        try:
            content = json.loads(message.value() or b"")
            records = list(records_of(content))
        except (ValueError, TypeError, KeyError):
            self.skipped["undecodable transactions"] += 1
            return
        for record in records:
            identity = record.get("transaction_id")
            if identity is None:
                self.skipped["transactions without an id"] += 1
                continue
            moment = event_time(record.get("event_time"), message.timestamp()[1])
            self._ids.append(str(identity))
            self._times.append(moment)
            self._values.append([number_of(record.get(name)) for name in FEATURES])
            self.newest = max(self.newest, moment)
        if len(self._ids) >= CHUNK_ROWS:
            self._flush()

    def finish(self) -> pd.DataFrame:
        self._flush()
        self._prune()
        return pd.concat(self._chunks, ignore_index=True)

    def _flush(self) -> None:
        values = np.array(self._values, dtype=np.float64).reshape(-1, len(FEATURES))
        chunk = pd.DataFrame(values, columns=list(FEATURES))
        chunk.insert(0, "transaction_id", pd.Series(self._ids, dtype=object))
        chunk.insert(1, "event_time", np.array(self._times, dtype=np.int64))
        self._chunks.append(chunk)
        self._ids, self._times, self._values = [], [], []
        if sum(map(len, self._chunks)) > MAX_ROWS:
            self._prune()
            if sum(map(len, self._chunks)) > MAX_ROWS:
                raise UserError(
                    f"more than {MAX_ROWS:,} transactions in the window: shorten --window, "
                    f"or train from an archive (fraud-producer --archive)"
                )

    def _prune(self) -> None:
        end = self.newest if self.as_of is None else self.as_of
        kept = []
        for chunk in self._chunks:
            time_ = chunk["event_time"]
            inside = time_ > end - self.window
            if self.as_of is not None:
                inside &= time_ <= end
            kept.append(chunk[inside])
        self._chunks = kept


class Labels:
    """Labels of the transactions that were kept."""

    def __init__(self, wanted: set[str]) -> None:
        self._wanted = wanted
        self.skipped = {"undecodable labels": 0, "labels of other transactions": 0}
        self._found: list[tuple[str, int, int]] = []

    def add(self, message: Message) -> None:
        try:
            content = json.loads(message.value() or b"")
            identity, label = str(content["transaction_id"]), content["label"]
            known_at = content["known_at"]
            if label not in (0, 1) or isinstance(known_at, bool) or not isinstance(known_at, int):
                raise ValueError("not a label")
            if abs(known_at) >= 2**62:
                raise ValueError("not a time")
        except (ValueError, TypeError, KeyError):
            self.skipped["undecodable labels"] += 1
            return
        if identity not in self._wanted:
            self.skipped["labels of other transactions"] += 1
            return
        if len(self._found) >= 2 * MAX_ROWS:
            raise UserError(f"more than {2 * MAX_ROWS:,} labels in the window: shorten --window")
        self._found.append((identity, int(label), known_at))

    def join(self, frame: pd.DataFrame) -> pd.DataFrame:
        """One row per transaction and label; `rows.as_known` picks the label that holds."""
        labels = pd.DataFrame(self._found, columns=["transaction_id", "label", "known_at"])
        # Nullable integers: a float would hold epoch milliseconds, but not NEVER.
        labels = labels.astype({"transaction_id": object, "label": "Int8", "known_at": "Int64"})
        joined = frame.merge(labels, on="transaction_id", how="left")
        joined["label"] = joined["label"].fillna(UNKNOWN).astype(np.int8)
        joined["known_at"] = joined["known_at"].fillna(NEVER).astype(np.int64)
        joined["weight"] = 1.0
        joined["day"] = days_of(joined["event_time"].to_numpy(dtype=np.int64))
        return joined[list(COLUMNS)]


def records_of(content: Any) -> Iterator[dict[str, Any]]:
    """The transactions of one message, in either form of docs/schemas/transaction.json."""
    if not isinstance(content, dict):
        raise ValueError("not an object")
    split = content.get("dataframe_split", content)
    if isinstance(split, dict) and "columns" in split and "data" in split:
        for row in split["data"]:
            yield dict(zip(split["columns"], row, strict=True))
    else:
        yield content


def event_time(value: Any, otherwise: int) -> int:
    """Epoch milliseconds of a record's own time, or of its message."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**62:
        return value
    if isinstance(value, str):
        try:
            return int(datetime.fromisoformat(value).timestamp() * 1_000)
        except (ValueError, OverflowError):
            return otherwise
    return otherwise


def number_of(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return float("nan")
    try:
        return float(value)
    except OverflowError:
        return float("nan")
