"""A Kafka scorer on Quix Streams, with ONNX Runtime.

Guarantee: at least once, Quix' default (its exactly_once is not measured). The commit interval is
COMMIT_MS.

Tuning: orjson in place of the json module, linger LINGER ms, and librdkafka's
fetch.queue.backoff.ms 5 (see confluent_worker.py). Its pipelines work on one record at a time, so
there is one ONNX call per record.
"""

import tempfile
from typing import Any

import orjson
import scoring
from quixstreams import Application
from quixstreams.models import JSONDeserializer, JSONSerializer


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="quix-") as state:
        run(state)


def run(state: str) -> None:
    model = scoring.Model(scoring.setting("MODEL"))
    application = Application(
        broker_address=scoring.setting("BROKERS"),
        consumer_group=scoring.setting("GROUP"),
        auto_offset_reset="earliest",
        commit_interval=scoring.milliseconds("COMMIT_MS", "1000"),
        auto_create_topics=False,
        loglevel="WARNING",
        state_dir=state,
        consumer_extra_config={"fetch.queue.backoff.ms": 5},
        producer_extra_config={"linger.ms": int(scoring.setting("LINGER", "5"))},
    )
    source = application.topic(
        scoring.setting("IN"),
        key_deserializer="str",
        value_deserializer=JSONDeserializer(loads=orjson.loads),
    )
    target = application.topic(
        scoring.setting("OUT"),
        key_serializer="str",
        value_serializer=JSONSerializer(dumps=orjson.dumps),
    )

    def score(transaction: Any, key: str, _timestamp: int, _headers: Any) -> dict[str, Any]:
        row = scoring.row_of(transaction)
        if row is None:
            return scoring.rejection(key)
        return scoring.verdict(key, model.scores(scoring.array_of([row]))[0])

    application.dataframe(source).apply(score, metadata=True).to_topic(target)
    application.run()


if __name__ == "__main__":
    main()
