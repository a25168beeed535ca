"""A Kafka scorer on Faust (faust-streaming), with ONNX Runtime.

Guarantee: at least once; an event's offset is committed after the agent is done with it, every
COMMIT_MS.

MODE=take scores up to 500 events, or those of 50 ms, by one ONNX call; MODE=event scores each one
by itself.

Tuning: uvloop (-L on the command line), a stream buffer of 4,096, linger LINGER ms, no leader
topic; verdicts of a batch are handed to the producer without awaiting each; aiokafka's loggers set
to WARNING, because Faust leaves them at DEBUG and the discarded records cost a tenth of the CPU.
"""

from typing import Any

import faust
import faust_app
import scoring

TAKE = 500
WITHIN = 0.05

app, source, target = faust_app.create()
model = scoring.Model(scoring.setting("MODEL"))


def verdicts_of(events: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    keys, rows, verdicts = [], [], []
    for event in events:
        key = faust_app.key_of(event)
        row = scoring.row_of(event.value)
        if row is None:
            verdicts.append((key, scoring.rejection(key)))
        else:
            keys.append(key)
            rows.append(row)
    if rows:
        scores = model.scores(scoring.array_of(rows))
        for key, score in zip(keys, scores, strict=True):
            verdicts.append((key, scoring.verdict(key, score)))
    return verdicts


async def score_batches(stream: faust.StreamT) -> None:
    async for events in stream.take_events(TAKE, within=WITHIN):
        for key, verdict in verdicts_of(events):
            target.send_soon(key=key.encode(), value=verdict)


async def score_events(stream: faust.StreamT) -> None:
    async for event in stream.events():
        for key, verdict in verdicts_of([event]):
            await target.send(key=key.encode(), value=verdict)


app.agent(source)(score_batches if scoring.setting("MODE", "take") == "take" else score_events)

if __name__ == "__main__":
    app.main()
