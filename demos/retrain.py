"""`make retrain-demo`: a model rots, is trained anew, and replaced in a worker that goes on.

    history ─► first champion ─► worker scores ─► fraud changes ─► the champion misses it
            ─► retrain: the candidate wins ─► the worker swaps, live ─► fraud is caught again
            ─► retrain on too little: the candidate is worse, and refused

Everything is real: a Kafka broker, an MLflow server, the worker and the producer as processes.
Event time runs faster than the clock, so that weeks pass in minutes. The subscriber that counts
verdicts knows nothing but what it reads, and the labels.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from sklearn.metrics import average_precision_score

from demos.parts import (
    PYTHON,
    RELEASE,
    ROOT,
    DemoError,
    Kafka,
    Stage,
    Timeline,
    free_port,
    get,
    until,
)

TRANSACTIONS, VERDICTS, LABELS = "transactions", "verdicts", "labels"
PARTITIONS = 4
EVENT_START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DAY = 86_400_000
SEED = "7"
"""Everything that is drawn is drawn from it: the story is the same each time."""


@dataclass(frozen=True)
class Pace:
    """How much happens, and how fast."""

    rate: int = 1_500
    """Transactions per second."""
    speed: int = 21_600
    """Event time over clock time: a day in four seconds."""
    history_days: int = 10
    drift_days: int = 6
    """From the first change to its full strength."""
    fraud_share: float = 0.01
    """More than real life has, so that minutes hold enough frauds to measure by."""

    @property
    def records_per_day(self) -> int:
        return self.rate * DAY // (1_000 * self.speed)


@dataclass
class Tally:
    """Verdicts of one version in one period, against the labels."""

    scores: list[float]
    labels: list[int]
    flagged: list[bool]

    def line(self, name: str) -> str:
        frauds = sum(self.labels)
        hits = sum(
            1 for label, flag in zip(self.labels, self.flagged, strict=True) if label and flag
        )
        flags = sum(self.flagged)
        precision = hits / flags if flags else float("nan")
        return (
            f"{name:<44}{len(self.labels):>9,}{frauds:>8,}{precision:>11.3f}"
            f"{hits / max(frauds, 1):>9.3f}{self.average_precision():>9.3f}"
        )

    def average_precision(self) -> float:
        return float(average_precision_score(self.labels, self.scores))

    def hits(self) -> int:
        return sum(label and flag for label, flag in zip(self.labels, self.flagged, strict=True))


def read(kafka: Kafka, topic: str, seconds: float = 120.0) -> list[Message]:
    """Everything in a topic up to its present end, `read_committed`."""
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.address,
            "group.id": f"retrain-demo-{topic}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    messages: list[Message] = []
    unfinished = set(range(PARTITIONS))
    try:
        consumer.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
        deadline = time.monotonic() + seconds
        while unfinished:
            if time.monotonic() > deadline:
                raise DemoError(f"topic {topic} was not read to its end within {seconds:g} s")
            for message in consumer.consume(10_000, 0.2):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    unfinished.discard(message.partition())
                else:
                    raise DemoError(f"reading {topic}: {error}")
    finally:
        consumer.close()
    return messages


def count(kafka: Kafka, topic: str) -> int:
    """Records in a topic, by its watermarks; transaction markers count as well."""
    consumer = Consumer({"bootstrap.servers": kafka.address, "group.id": "retrain-demo-count"})
    try:
        marks = (
            consumer.get_watermark_offsets(TopicPartition(topic, n), timeout=20)
            for n in range(PARTITIONS)
        )
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


class Story:
    """The demonstration, one method per act."""

    def __init__(self, stage: Stage, pace: Pace) -> None:
        self.stage, self.pace, self.timeline = stage, pace, Timeline()
        self.kafka = stage.kafka()
        self.registry = stage.mlflow()
        stage.environment(MLFLOW_TRACKING_URI=self.registry, MLFLOW_DISABLE_TELEMETRY="true")
        self.kafka.create({TRANSACTIONS: PARTITIONS, VERDICTS: PARTITIONS, LABELS: PARTITIONS})
        self.runs = 0
        self.http = f"http://127.0.0.1:{free_port()}"
        self.timeline.tell(f"Kafka at {self.kafka.address}, MLflow at {self.registry}")

    def producer(self, name: str, event_start: int, *more: str) -> list[str]:
        return [
            str(RELEASE / "fraud-producer"),
            *("--brokers", self.kafka.address, "--topic", TRANSACTIONS, "--label-topic", LABELS),
            *("--label-delay", "12h", "--fraud-share", str(self.pace.fraud_share), "--quiet"),
            *("--rate", str(self.pace.rate), "--event-time", f"{self.pace.speed}x"),
            *("--event-start", str(event_start), *more),
        ]

    def history(self) -> None:
        """Days of transactions as they were before anything changed."""
        days = self.pace.history_days
        records = days * self.pace.records_per_day
        # As fast as the clock allows: nobody watches these days pass.
        faster = 10
        command = self.producer("history", EVENT_START, "--count", str(records), "--seed", SEED)
        command[command.index("--rate") + 1] = str(self.pace.rate * faster)
        command[command.index("--event-time") + 1] = f"{self.pace.speed * faster}x"
        self.stage.run("producer-history", *command)
        self.timeline.tell(f"{days} days of history: {records:,} transactions, labels 12 h later")

    def retrain(self, what: str, *more: str) -> dict[str, object]:
        """One run of the retraining pipeline over the topics; its decision."""
        self.runs += 1
        work = self.stage.directory / f"retrain-{self.runs}"
        began = time.monotonic()
        self.stage.run(
            f"retrain-{self.runs}",
            *(PYTHON.with_name("fraud-training"), "retrain", "--work", work),
            *("--source", f"kafka://{self.kafka.address}", "--seed", SEED, *more),
        )
        decision: dict[str, object] = json.loads((work / "decision.json").read_text())
        took = time.monotonic() - began
        self.timeline.tell(f"{what}: {decision['decision']} ({took:.0f} s)")
        for reason in decision.get("reasons", []):  # type: ignore[attr-defined]
            self.timeline.tell(f"    {reason}")
        return decision

    def start_worker(self) -> None:
        self.worker = self.stage.start(
            "worker",
            *(RELEASE / "fraud-scorer", "run", "--brokers", self.kafka.address, "--create-topics"),
            *("--model", "mlflow:fraud@champion", "--model-poll", "1s"),
            *("--model-cache", self.stage.directory / "models"),
            *("--http", self.http.removeprefix("http://")),
        )

        def ready() -> bool:
            self.worker.must_run()
            return get(f"{self.http}/readyz")[0] == 200

        until("the worker to be ready", ready, 60)
        self.timeline.tell(f"the worker scores with fraud@{self.version()}")

    def version(self) -> str:
        status, text = get(f"{self.http}/model")
        if status != 200:
            raise DemoError(f"{self.http}/model answered {status}: {text}")
        return str(json.loads(text)["serving"]["version"])

    def start_drift(self) -> None:
        start = EVENT_START + self.pace.history_days * DAY
        self.traffic = self.stage.start(
            "producer-drift",
            *self.producer("drift", start, "--seed", "8", "--drift", "1"),
            *("--drift-over", f"{self.pace.drift_days}d"),
        )
        self.drift_start = start
        self.timeline.tell("traffic goes on, and fraud begins to change")

    def wait_for_day(self, days: float) -> None:
        """Until event time is so many days after the beginning of the change."""
        wanted = count_after(self.pace, days)

        def reached() -> bool:
            self.traffic.must_run()
            self.worker.must_run()
            return count(self.kafka, TRANSACTIONS) >= wanted

        until(f"day {days:g} of the change", reached, 600)

    def wait_for_swap(self, old: str) -> str:
        def swapped() -> str | None:
            self.worker.must_run()
            version = self.version()
            return version if version != old else None

        version = until("the worker to take the new champion", swapped, 60)
        self.timeline.tell(f"the worker swapped, live: fraud@{old} → fraud@{version}")
        return version

    def finish(self) -> tuple[list[str], bool]:
        """Ends the traffic, waits for the last verdict, and counts."""
        self.traffic.stop()
        sent = read(self.kafka, TRANSACTIONS)

        def all_there() -> bool:
            self.worker.must_run()
            return len(read(self.kafka, VERDICTS)) >= len(sent)

        until("the last verdicts", all_there, 120)
        self.worker.stop()
        # Once more: what the last commit of a worker leaves is counted too.
        return self.account(sent, read(self.kafka, VERDICTS), read(self.kafka, LABELS))

    def account(
        self, sent: list[Message], verdicts: list[Message], labels: list[Message]
    ) -> tuple[list[str], bool]:
        known = {}
        for message in labels:
            label = json.loads(message.value())
            known[label["transaction_id"]] = label["label"]
        seen: dict[tuple[int, int, int], int] = {}
        groups: dict[str, Tally] = {}
        for message in verdicts:
            verdict = json.loads(message.value())
            source = verdict["source"]
            place = (source["partition"], source["offset"], source["row"])
            seen[place] = seen.get(place, 0) + 1
            label = known.get(verdict["transaction_id"])
            group = self.group(verdict["event_time"], verdict["model"]["version"])
            if label is None or group is None:
                continue
            tally = groups.setdefault(group, Tally([], [], []))
            tally.scores.append(verdict["score"])
            tally.labels.append(label)
            tally.flagged.append(verdict["decision"] != "approve")
        lost = sum(1 for message in sent if (message.partition(), message.offset(), 0) not in seen)
        doubled = sum(times - 1 for times in seen.values())
        head = f"{'':<44}{'verdicts':>9}{'frauds':>8}{'precision':>11}{'recall':>9}{'PR-AUC':>9}"
        lines = [head, *(groups[name].line(name) for name in sorted(groups))]
        lines += [
            "",
            f"transactions {len(sent):,}   verdicts {len(verdicts):,}   "
            f"lost {lost}   doubled {doubled}",
        ]
        names = sorted(groups)
        good = lost == 0 and doubled == 0 and len(names) == 3
        good = good and groups[names[2]].average_precision() > groups[names[1]].average_precision()
        return lines, good

    def group(self, event_time: int, version: str) -> str | None:
        """Its line of the closing table; none while the change is under way."""
        if event_time < self.drift_start:
            return f"1 before the change, fraud@{version}"
        if event_time < self.drift_start + self.pace.drift_days * DAY:
            return None
        return f"{'2 after the change' if version == '1' else '3 after the swap'}, fraud@{version}"


def count_after(pace: Pace, days: float) -> int:
    return int((pace.history_days + days) * pace.records_per_day)


def play(stage: Stage, pace: Pace) -> bool:
    story = Story(stage, pace)
    story.history()
    first = story.retrain("retrain: the first champion", "--window", f"{pace.history_days}d")
    if first["decision"] != "promoted":
        raise DemoError("the first model was not promoted: there is nothing to serve")
    story.start_worker()
    champion = story.version()
    story.start_drift()
    story.wait_for_day(pace.drift_days + 10)
    story.timeline.tell("the change is complete, and labels of ten days of it are known")
    second = story.retrain("retrain: on the newest ten days", "--window", "10d")
    if second["decision"] != "promoted":
        raise DemoError(f"the candidate should have won: {second}")
    champion = story.wait_for_swap(champion)
    story.wait_for_day(pace.drift_days + 10 + 12)
    third = story.retrain("retrain: on a day and a half, too little", "--window", "36h")
    if third["decision"] != "rejected":
        raise DemoError(f"the candidate should have been refused: {third}")
    if story.version() != champion:
        raise DemoError("the worker serves another model than the champion")
    story.timeline.tell(f"the worker goes on with fraud@{champion}")
    lines, good = story.finish()
    print()
    print("\n".join(lines))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="make retrain-demo", description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=Pace.rate, help="transactions per second")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / ".runtime" / "retrain-demo", help="logs and data"
    )
    options = parser.parse_args()
    with Stage(options.directory) as stage:
        try:
            good = play(stage, Pace(rate=options.rate))
        except DemoError as error:
            print(f"error: {error}\nlogs: {options.directory}", file=sys.stderr)
            return 1
    if not good:
        print(
            f"error: the table above is not as it should be; logs: {options.directory}",
            file=sys.stderr,
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
