"""Verdicts of Kafka, joined with the records they were made from.

    verdicts: to where its partitions end now ─► sample of the window (bounded)
    the sample's `source`: topic, partition, offset, row ─► those stretches of the input topics
                                                         ─► features of the sampled rows

First the verdicts are chosen, then only their records are kept: memory follows the sample, not the
traffic. Event time is not Kafka's time (demo clocks run fast), so the window cannot be sought, and
the topic of verdicts is read whole; for long topics the archive of verdicts is the better source.
Only committed records are read. Nothing is written: no group, no offsets.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from confluent_kafka import Consumer, KafkaException, Message

from fraud_training.drift.archives import Found
from fraud_training.drift.sample import Chosen, Sample
from fraud_training.drift.window import Wanted
from fraud_training.errors import UsageError, UserError
from fraud_training.kafka_source import (
    CHUNK_ROWS,
    client_properties,
    number_of,
    read_all,
    read_between,
    records_of,
    watermarks,
)

TAIL_RECORDS = 1_000
"""How far back each partition is looked at for the newest event time."""

SOURCE = ["source_topic", "source_partition", "source_offset", "source_row"]
COLUMNS = ["transaction_id", "event_time", "score", "model_name", "model_version", *SOURCE]


@dataclass(frozen=True)
class Topics:
    """What to read, and how to reach it."""

    brokers: str
    verdicts: str
    property_file: Path | None = None


def read_topics(topics: Topics, wanted: Wanted, features: Sequence[str], most: int) -> Found:
    """A sample of at most `most` verdicts of the window, with their features."""
    settings = client_properties(topics.brokers, topics.property_file, "fraud-training-drift")
    try:
        consumer = Consumer(settings)
    except KafkaException as error:
        raise UsageError(f"Kafka settings: {error.args[0].str()}") from error
    try:
        end = wanted.end if wanted.end is not None else newest_time(consumer, topics.verdicts)
        verdicts = Verdicts(Sample(wanted.window(end), most))
        for message in read_all(consumer, topics.verdicts):
            verdicts.add(message)
        chosen = verdicts.finish()
        inputs = Inputs(chosen.frame, features)
        for topic, stretches in inputs.stretches.items():
            for message in read_between(consumer, topic, stretches):
                inputs.add(topic, message)
    except KafkaException as error:
        raise UserError(f"--source kafka://{topics.brokers}: {error.args[0].str()}") from error
    finally:
        consumer.close()
    joined, gone = inputs.join()
    left_out = {"undecodable verdicts": verdicts.undecodable, "rows whose record is gone": gone}
    return Found(
        wanted.window(end),
        Chosen(joined, chosen.seen),
        {name: count for name, count in left_out.items() if count},
    )


def newest_time(consumer: Consumer, topic: str) -> int:
    """The newest event time among the last verdicts of each partition.

    One in a thousand of them may be later: one absurd time must not move the window.
    """
    stretches = {
        partition: (max(first, end - TAIL_RECORDS), end)
        for partition, (first, end) in watermarks(consumer, topic).items()
    }
    times: list[int] = []
    for message in read_between(consumer, topic, stretches):
        try:
            times.append(int(json.loads(message.value() or b"")["event_time"]))
        except (ValueError, TypeError, KeyError):
            continue
    if not times:
        raise UserError(f"topic {topic!r} holds no verdicts")
    return int(np.quantile(np.array(times, dtype=np.int64), 0.999, method="lower"))


class Verdicts:
    """Takes the topic's messages, in frames of `CHUNK_ROWS`, into a sample."""

    def __init__(self, sample: Sample) -> None:
        self.undecodable = 0
        self._sample = sample
        self._rows: list[tuple[Any, ...]] = []

    def add(self, message: Message) -> None:
        try:
            self._rows.append(verdict_row(json.loads(message.value() or b"")))
        except (ValueError, TypeError, KeyError, OverflowError):
            self.undecodable += 1
        if len(self._rows) >= CHUNK_ROWS:
            self._flush()

    def finish(self) -> Chosen:
        self._flush()
        return self._sample.finish()

    def _flush(self) -> None:
        if self._rows:
            self._sample.add(pd.DataFrame(self._rows, columns=COLUMNS))
        self._rows = []


def verdict_row(content: dict[str, Any]) -> tuple[Any, ...]:
    """The fields of docs/schemas/verdict.json that count here, in the order of `COLUMNS`."""
    time, model, source = content["event_time"], content["model"], content["source"]
    if isinstance(time, bool) or not isinstance(time, int) or abs(time) >= 2**62:
        raise ValueError("event_time is not a time")
    return (
        str(content["transaction_id"]),
        time,
        float(content["score"]),
        str(model["name"]),
        str(model["version"]),
        str(source["topic"]),
        int(source["partition"]),
        int(source["offset"]),
        int(source["row"]),
    )


class Inputs:
    """The features of sampled verdicts, found in the records they name."""

    def __init__(self, verdicts: pd.DataFrame, features: Sequence[str]) -> None:
        self._verdicts, self._features = verdicts, features
        self._values = np.full((len(verdicts), len(features)), np.nan)
        self._found = np.zeros(len(verdicts), dtype=bool)
        # Which rows of the sample each record is wanted for.
        self._wanted: dict[tuple[str, int, int], list[tuple[int, int]]] = defaultdict(list)
        self.stretches: dict[str, dict[int, tuple[int, int]]] = {}
        if verdicts.empty:
            return
        self._ids: list[str] = verdicts["transaction_id"].tolist()
        columns = [verdicts[name].tolist() for name in SOURCE]
        for at, (topic, partition, offset, row) in enumerate(zip(*columns, strict=True)):
            self._wanted[topic, partition, offset].append((at, row))
            of_topic = self.stretches.setdefault(topic, {})
            first, end = of_topic.get(partition, (offset, offset + 1))
            of_topic[partition] = (min(first, offset), max(end, offset + 1))

    def add(self, topic: str, message: Message) -> None:
        partition, offset = message.partition(), message.offset()
        wanted = self._wanted.get((topic, partition or 0, offset or 0))
        if wanted is None:
            return
        try:
            records = list(records_of(json.loads(message.value() or b"")))
        except (ValueError, TypeError, KeyError):
            return  # not the record that was scored: the topic was made anew
        for at, row in wanted:
            if row < len(records) and same(records[row], self._ids[at]):
                self._values[at] = [number_of(records[row].get(name)) for name in self._features]
                self._found[at] = True

    def join(self) -> tuple[pd.DataFrame, int]:
        """The sample with its features, and how many rows have none."""
        if self._verdicts.empty:
            return self._verdicts, 0
        values = pd.DataFrame(self._values, columns=list(self._features))
        joined = pd.concat([self._verdicts.drop(columns=SOURCE), values], axis=1)
        gone = int((~self._found).sum())
        return joined[self._found].reset_index(drop=True), gone


def same(record: dict[str, Any], identity: str) -> bool:
    """Whether a verdict of `identity` may be of this record; only a text can say that it is not."""
    own = record.get("transaction_id")
    return not isinstance(own, str) or own == identity
