"""A Kafka scorer on Bytewax, with ONNX Runtime.

Guarantee: at least once, by a recovery store in a temporary folder, with a snapshot every five
seconds. Bytewax keeps its offsets there; Kafka's consumer group shows nothing of them.

Tuning: batches of BATCH from the source, scored by one ONNX call each; orjson; linger LINGER ms,
and librdkafka's fetch.queue.backoff.ms 5 (see confluent_worker.py). THREADS workers, under one
interpreter's lock.
"""

import os
import shutil
import signal
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
import orjson
import scoring
from bytewax._bytewax import cli_main  # what `python -m bytewax.run` calls
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir

SNAPSHOT_INTERVAL = timedelta(seconds=5)


def dataflow() -> Dataflow:
    brokers = scoring.setting("BROKERS").split(",")
    model = scoring.Model(scoring.setting("MODEL"))

    def score(messages: list[KafkaSourceMessage]) -> list[KafkaSinkMessage]:
        keys, rows, verdicts = [], [], []
        for message in messages:
            try:
                row = scoring.row_of(orjson.loads(message.value))
            except orjson.JSONDecodeError:
                row = None
            if row is None:
                verdicts.append((message.key, scoring.rejection(message.key.decode())))
            else:
                keys.append(message.key)
                rows.append(row)
        if rows:
            scores = model.scores(scoring.array_of(rows))
            for key, value in zip(keys, scores, strict=True):
                verdicts.append((key, scoring.verdict(key.decode(), value)))
        return [KafkaSinkMessage(key, orjson.dumps(verdict)) for key, verdict in verdicts]

    flow = Dataflow("scorer")
    source = KafkaSource(
        brokers,
        [scoring.setting("IN")],
        batch_size=int(scoring.setting("BATCH", "1000")),
        add_config={"fetch.queue.backoff.ms": "5"},
    )
    sink = KafkaSink(
        brokers, scoring.setting("OUT"), add_config={"linger.ms": scoring.setting("LINGER", "5")}
    )
    op.output(
        "verdicts", op.flat_map_batch("score", op.input("records", flow, source), score), sink
    )
    return flow


def main() -> None:
    # By the group, as Kafka would keep it: after a crash it is found again.
    store = Path(tempfile.gettempdir()) / f"bytewax-{scoring.setting('GROUP')}"
    if not store.exists():
        store.mkdir()
        init_db_dir(store, 1)

    def stop(*_: Any) -> None:
        # A flow without an end is not drained. A real one would keep its store, and read again what
        # came after the last snapshot.
        shutil.rmtree(store, ignore_errors=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    cli_main(
        dataflow(),
        workers_per_process=int(scoring.setting("THREADS", "1")),
        epoch_interval=SNAPSHOT_INTERVAL,
        recovery_config=RecoveryConfig(store, timedelta(0)),
    )


if __name__ == "__main__":
    main()
