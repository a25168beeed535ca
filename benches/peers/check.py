"""Are a contender's verdicts right?

Starts each contender of contenders.toml the way the harness does, on a small topic of random
records, and compares its verdicts with ONNX Runtime's scores in Python. A contender passes when
every record has exactly one verdict under its own key, no score differs by more than 1e-5, no label
by anything, and SIGTERM ends it with exit code 0. With --crash it is killed on its way and started
again: then none may be missing still, and none repeated where it promises exactly once.

    .runtime/peers/confluent/bin/python benches/peers/check.py --brokers HOST:PORT [CONTENDER…]
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

REPOSITORY = Path(__file__).resolve().parents[2]
CONTENDERS = Path(__file__).with_name("contenders.toml")
COLUMNS = [f"V{number}" for number in range(1, 29)] + ["Amount"]
PARTITIONS = 4
TOLERANCE = 1e-5
# MLflow's server takes long to start, and a killed member's partitions are given away after 45 s.
PATIENCE = 120.0
QUIET = 3.0
SHUTDOWN = 5.0
GUARANTEES = {"at-least-once": "alo", "exactly-once": "eos"}


@dataclass
class Outcome:
    verdicts: int = 0
    missing: int = 0
    repeated: int = 0
    worst: float = 0.0
    labels: int = 0
    failure: str = ""
    repeats_allowed: bool = False

    @property
    def passed(self) -> bool:
        counts = self.missing + self.labels + (0 if self.repeats_allowed else self.repeated)
        return not self.failure and counts == 0 and self.worst <= TOLERANCE

    def __str__(self) -> str:
        text = (
            f"{self.verdicts} verdicts, {self.missing} missing, {self.repeated} repeated, "
            f"{self.labels} labels differ, largest difference of scores {self.worst:.1e}"
        )
        return f"{text}, {self.failure}" if self.failure else text


def records(count: int, seed: int) -> tuple[list[bytes], list[bytes], np.ndarray]:
    """Keys, values and rows; the numbers take every form JSON has for them."""
    chance = random.Random(seed)
    keys, values, rows = [], [], []
    for _ in range(count):
        row: list[float] = [round(chance.gauss(0, 1), 6) for _ in range(28)]
        row.append(round(math.exp(chance.gauss(3, 1.5)), 2))
        row[chance.randrange(29)] = chance.choice(
            [0, -1, 17, 1.5e-7, -2.25e3, 1e-05, 123456.789012]
        )
        keys.append(str(uuid.UUID(int=chance.getrandbits(128))).encode())
        values.append(json.dumps({"columns": COLUMNS, "data": [row]}).encode())
        rows.append(row)
    return keys, values, np.array(rows, dtype=np.float32)


def expected(model: Path, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["probabilities"], {"input": rows})[0])[:, 1]


def make_topic(admin: AdminClient, name: str) -> None:
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        future.result()


def fill(brokers: str, topic: str, keys: list[bytes], values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5, "log_level": 4})
    for key, value in zip(keys, values, strict=True):
        producer.produce(topic, value, key)
        producer.poll(0)
    if producer.flush(30):
        raise SystemExit(f"{topic} could not be filled")


def reader(brokers: str, topic: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": f"{topic}-check",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer


def read_some(consumer: Consumer, process: subprocess.Popen[bytes], wanted: int) -> list[Any]:
    """The next committed messages, about `wanted`."""
    messages: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while len(messages) < wanted and time.monotonic() < deadline and process.poll() is None:
        messages += [message for message in consumer.consume(1000, 0.05) if not message.error()]
    return messages


def read_rest(
    consumer: Consumer, process: subprocess.Popen[bytes], missing: set[bytes]
) -> list[Any]:
    """Every further committed message, until no key is `missing` and no more come."""
    messages: list[Any] = []
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        fresh = [message for message in consumer.consume(1000, 0.5) if not message.error()]
        messages += fresh
        missing.difference_update(message.key() for message in fresh)
        if fresh:
            deadline = time.monotonic() + (PATIENCE if missing else QUIET)
    return messages


def living(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if its_group == str(group) and state not in "ZX":
                pids.append(int(stat.parent.name))
    return pids


def end(process: subprocess.Popen[bytes]) -> str:
    """Ends a contender as the harness does; what was wrong with its end."""
    if process.poll() is not None:
        failure = f"ended by itself with {process.returncode}"
    else:
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(SHUTDOWN)
            failure = f"SIGTERM gave exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            failure = f"did not end within {SHUTDOWN:.0f} s of SIGTERM"
    if left := living(process.pid):
        failure = failure or f"left processes behind: {left}"
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return failure


def compare(messages: list[Any], keys: list[bytes], scores: np.ndarray) -> Outcome:
    index = {key: at for at, key in enumerate(keys)}
    seen = [0] * len(keys)
    outcome = Outcome(verdicts=len(messages))
    for message in messages:
        verdict = json.loads(message.value())
        at = index.get(message.key())
        if at is None or verdict.get("key") != keys[at].decode():
            outcome.failure = f"a verdict with a strange key: {message.key()!r} {verdict}"
            return outcome
        seen[at] += 1
        outcome.worst = max(outcome.worst, abs(verdict["score"] - float(scores[at])))
        # At the boundary itself both are right.
        if abs(scores[at] - 0.5) > TOLERANCE:
            outcome.labels += verdict["label"] != int(scores[at] > 0.5)
    outcome.missing = seen.count(0)
    outcome.repeated = sum(times - 1 for times in seen if times > 1)
    return outcome


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment_of(
    contender: dict[str, Any], guarantee: str, bundle: Path, threads: int
) -> dict[str, str]:
    """What the harness sets, but for broker, topics and group."""
    return {
        "MODEL": str(bundle / "model.onnx"),
        "MODEL_NAME": bundle.name,
        "BUNDLE": str(bundle),
        "THREADS": str(threads),
        "GUARANTEE": GUARANTEES[guarantee],
        "COMMIT_MS": "100",
        "LINGER": "5",
        "PORT": str(free_port()),
        "ORT_DYLIB_PATH": str(REPOSITORY / ".runtime/onnxruntime/libonnxruntime.so"),
    } | contender.get("environment", {})


def check(
    contender: dict[str, Any], environment: dict[str, str], count: int, brokers: str, crash: bool
) -> Outcome:
    run = f"check-{uuid.uuid4().hex[:12]}"
    admin = AdminClient({"bootstrap.servers": brokers, "log_level": 4})
    source, target = f"{run}-in", f"{run}-out"
    make_topic(admin, source)
    make_topic(admin, target)
    keys, values, rows = records(count, seed=count)
    fill(brokers, source, keys, values)
    directory = CONTENDERS.parent / contender.get("directory", ".")
    if "setup" in contender:
        subprocess.run(contender["setup"], cwd=directory, check=True)
    consumer = reader(brokers, target)
    with tempfile.TemporaryFile() as log:
        start = partial(
            subprocess.Popen,
            contender["command"],
            cwd=directory,
            env=os.environ
            | {"BROKERS": brokers, "IN": source, "OUT": target, "GROUP": run}
            | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        process = start()
        try:
            messages: list[Any] = []
            if crash:
                messages = read_some(consumer, process, count // 5)
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                process = start()
            missing = set(keys).difference(message.key() for message in messages)
            messages += read_rest(consumer, process, missing)
        finally:
            failure = end(process)
        outcome = compare(messages, keys, expected(Path(environment["MODEL"]), rows))
        outcome.failure = outcome.failure or failure
        outcome.repeats_allowed = crash and environment["GUARANTEE"] == "alo"
        if not outcome.passed:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
    consumer.close()
    for future in admin.delete_topics([source, target]).values():
        future.result()
    return outcome


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("contenders", nargs="*", metavar="CONTENDER", help="all if none is named")
    parser.add_argument("--brokers", default="127.0.0.1:9092")
    parser.add_argument(
        "--workload",
        type=Path,
        default=REPOSITORY / ".runtime/bench",
        help="the folder that benches/workload/make.py made",
    )
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument(
        "--threads", action="store_true", help="every number of threads listed, not one alone"
    )
    parser.add_argument(
        "--crash",
        action="store_true",
        help="kill each contender when a fifth of its verdicts is there, and start it again",
    )
    parser.add_argument("--models", default="lr,xgb", help="which of them, with commas")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    contenders = tomllib.loads(CONTENDERS.read_text())["contender"]
    unknown = set(options.contenders) - {contender["name"] for contender in contenders}
    if unknown:
        raise SystemExit(f"not in contenders.toml: {', '.join(sorted(unknown))}")
    chosen = [c for c in contenders if not options.contenders or c["name"] in options.contenders]
    failed = 0
    for contender in chosen:
        count = min(options.records, contender.get("records", options.records))
        variants = itertools.product(
            contender["guarantees"],
            options.models.split(","),
            contender.get("threads", [1]) if options.threads else [1],
        )
        for guarantee, model, threads in variants:
            bundle = options.workload.resolve() / model
            environment = environment_of(contender, guarantee, bundle, threads)
            outcome = check(contender, environment, count, options.brokers, options.crash)
            failed += not outcome.passed
            word = "ok    " if outcome.passed else "FAILED"
            variant = f"{contender['name']}, {model}, {guarantee}"
            variant += f", {threads} threads" if threads > 1 else ""
            print(f"{word} {variant}: {outcome}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
