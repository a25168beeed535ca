"""The Faust application that both Faust contenders are built on."""

import logging
import tempfile
from typing import Any

import faust
import scoring

# aiokafka's and its neighbours', which Faust leaves at DEBUG.
NOISY = ("aiokafka", "asyncio", "urllib3")
DATA = tempfile.TemporaryDirectory(prefix="faust-")


def create() -> tuple[faust.App, faust.TopicT, faust.TopicT]:
    """The application, the topic it reads and the one it writes."""
    app = faust.App(
        scoring.setting("GROUP"),
        broker="kafka://" + scoring.setting("BROKERS"),
        broker_commit_interval=scoring.milliseconds("COMMIT_MS", "1000"),
        consumer_auto_offset_reset="earliest",
        producer_linger=scoring.milliseconds("LINGER", "5"),
        stream_buffer_maxsize=4096,
        topic_disable_leader=True,
        store="memory://",
        datadir=DATA.name,
    )

    @app.task
    async def be_quiet() -> None:
        for name in [*NOISY, *logging.root.manager.loggerDict]:
            if name.startswith(NOISY):
                logging.getLogger(name).setLevel(logging.WARNING)

    source = app.topic(scoring.setting("IN"), key_serializer="raw", value_serializer="json")
    target = app.topic(scoring.setting("OUT"), key_serializer="raw", value_serializer="json")
    return app, source, target


def key_of(event: Any) -> str:
    key = event.key or b""
    return key if isinstance(key, str) else key.decode()
