"""The worker of faust_mlflow.py: a Faust agent that asks MLflow's scoring server for every record.

CONCURRENCY=1 is the design of the tutorials: requests.post for one record after the other, which
blocks. More is the design made as good as it gets: that many calls at a time, by aiohttp, over
connections that stay open.
"""

from typing import Any

import aiohttp
import faust
import faust_app
import requests
import scoring

URL = f"http://127.0.0.1:{scoring.setting('PORT')}/invocations"
CONCURRENCY = int(scoring.setting("CONCURRENCY", "1"))

app, source, target = faust_app.create()
sessions: list[aiohttp.ClientSession] = []


async def send_verdict(event: Any, answer: Any) -> None:
    """XGBoost's flavour answers with the probability, scikit-learn's with those of both labels."""
    key = faust_app.key_of(event)
    (prediction,) = answer["predictions"]
    score = prediction[-1] if isinstance(prediction, list) else prediction
    await target.send(key=key.encode(), value=scoring.verdict(key, float(score)))


async def one_after_the_other(stream: faust.StreamT) -> None:
    async for event in stream.events():
        answer = requests.post(URL, json={"dataframe_split": event.value}, timeout=30)
        answer.raise_for_status()
        await send_verdict(event, answer.json())


async def several_at_a_time(stream: faust.StreamT) -> None:
    if not sessions:
        sessions.append(aiohttp.ClientSession())
    async for event in stream.events():
        body = {"dataframe_split": event.value}
        async with sessions[0].post(URL, json=body, raise_for_status=True) as answer:
            await send_verdict(event, await answer.json())


if CONCURRENCY == 1:
    app.agent(source)(one_after_the_other)
else:
    app.agent(source, concurrency=CONCURRENCY)(several_at_a_time)

if __name__ == "__main__":
    app.main()
