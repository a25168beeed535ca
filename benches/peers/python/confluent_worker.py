"""A Kafka scorer in Python: confluent-kafka (librdkafka), orjson, ONNX Runtime.

Guarantee: at least once. Every COMMIT_MS the producer is flushed and then offsets are committed; if
a verdict could not be delivered the program ends before its commit.

Tuning: consume(BATCH) records, one ONNX call, one produce_batch call; fetch.queue.backoff.ms 5, as
its default of 1,000 leaves a reader this fast without work for most of the time; delivery reports
only for failures. One thread, by the interpreter's lock: it grows by processes.
"""

import signal
import sys
import time
from typing import Any

import orjson
import scoring
from confluent_kafka import Consumer, KafkaException, Producer

LINGER = int(scoring.setting("LINGER", "5"))


class Worker:
    def __init__(self) -> None:
        self.stopping = False
        self._undelivered: list[Any] = []
        self._dirty = False
        self._topic = scoring.setting("OUT")
        self._batch = int(scoring.setting("BATCH", "1000"))
        self._commit_every = scoring.milliseconds("COMMIT_MS", "1000")
        self._model = scoring.Model(scoring.setting("MODEL"))
        self._consumer = Consumer(
            {
                "bootstrap.servers": scoring.setting("BROKERS"),
                "group.id": scoring.setting("GROUP"),
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._producer = Producer(
            {
                "bootstrap.servers": scoring.setting("BROKERS"),
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": LINGER,
                "delivery.report.only.error": True,
                "on_delivery": lambda error, _: self._undelivered.append(error),
            }
        )

    def run(self) -> None:
        self._consumer.subscribe(
            [scoring.setting("IN")], on_revoke=lambda _consumer, _partitions: self._commit()
        )
        committed = time.monotonic()
        while not self.stopping:
            self._score(self._read(min(self._commit_every, 0.1)))
            if time.monotonic() - committed >= self._commit_every:
                self._commit()
                committed = time.monotonic()
        self._commit()
        self._consumer.close()

    def _read(self, wait: float) -> list[Any]:
        """What is there; a full batch is not waited for, as consume by itself would."""
        messages = self._consumer.consume(1, wait)
        return messages + self._consumer.consume(self._batch - 1, 0) if messages else []

    def _score(self, messages: list[Any]) -> None:
        keys, rows, verdicts = [], [], []
        for message in messages:
            if message.error():
                raise KafkaException(message.error())
            key = (message.key() or b"").decode()
            try:
                row = scoring.row_of(orjson.loads(message.value()))
            except orjson.JSONDecodeError:
                row = None
            if row is None:
                verdicts.append((key, scoring.rejection(key)))
            else:
                keys.append(key)
                rows.append(row)
        if rows:
            scores = self._model.scores(scoring.array_of(rows))
            verdicts += [
                (key, scoring.verdict(key, score)) for key, score in zip(keys, scores, strict=True)
            ]
        self._send([{"key": key, "value": orjson.dumps(verdict)} for key, verdict in verdicts])

    def _send(self, messages: list[dict[str, Any]]) -> None:
        while messages:
            self._dirty = True
            self._producer.produce_batch(self._topic, messages)
            # A full queue refuses the rest: it is sent again, when there is room.
            messages = [message for message in messages if message.pop("_error", None)]
            self._producer.poll(0.01 if messages else 0)

    def _commit(self) -> None:
        if not self._dirty:
            return
        if self._producer.flush(30) or self._undelivered:
            sys.exit(f"verdicts could not be delivered: {self._undelivered[:1]}")
        self._consumer.commit(asynchronous=False)
        self._dirty = False


def main() -> None:
    worker = Worker()

    def stop(*_: Any) -> None:
        worker.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    worker.run()


if __name__ == "__main__":
    main()
