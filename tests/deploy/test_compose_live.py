"""What the compose file starts, started from its own words, but without Docker.

Only addresses, ports and folders are replaced, so a wrong property, listener, topic or variable
shows here.
"""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, binary, free_port, kafka_java, run, succeed

PARTITIONS = 4
SENT = 500


@dataclass
class Broker:
    """A broker configured by the compose file, and the addresses that stand for the file's own."""

    inside: str
    outside: str

    def here(self, text: str) -> str:
        return text.replace("kafka:29092", self.inside)


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        output = log.read_text()
        assert process.poll() is None, f"ended with {process.returncode}:\n{output}"
        assert time.monotonic() < deadline, f"not there within 60 s:\n{output}"
        time.sleep(0.2)


def end(process: subprocess.Popen[bytes]) -> int:
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@pytest.fixture(scope="module")
def broker(
    services: dict[str, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Broker]:
    java, classpath = kafka_java()
    folder = tmp_path_factory.mktemp("kafka")
    environment = dict(services["kafka"]["environment"])
    cluster = environment.pop("CLUSTER_ID")
    environment.pop("KAFKA_HEAP_OPTS")
    environment["KAFKA_LOG_DIRS"] = folder / "data"
    ports = {port: str(free_port()) for port in ("29092", "29093", "9092")}

    lines = []
    for variable, value in environment.items():
        key = variable.removeprefix("KAFKA_").replace("_", ".").lower()
        text = re.sub(r"\b(kafka|localhost|0\.0\.0\.0):", "127.0.0.1:", str(value))
        text = re.sub(r":(\d+)\b", lambda found: ":" + ports.get(found[1], found[1]), text)
        lines.append(f"{key}={text}")
    properties = folder / "server.properties"
    properties.write_text("\n".join(lines))

    log4j = f"-Dlog4j2.configurationFile={ROOT}/scripts/kafka/log4j2.properties"
    command = [java, "-Xmx512m", log4j, "-cp", classpath]
    tool = [*command, "kafka.tools.StorageTool"]
    succeed(*tool, "format", "--cluster-id", cluster, "--config", properties)
    log = folder / "kafka.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "kafka.Kafka", str(properties)], stdout=output, stderr=output
        )
    try:
        wait_for(lambda: "Kafka Server started" in log.read_text(), process, log)
        yield Broker(inside=f"127.0.0.1:{ports['29092']}", outside=f"127.0.0.1:{ports['9092']}")
    finally:
        end(process)


@pytest.fixture(scope="module")
def topics(broker: Broker, services: dict[str, dict[str, Any]]) -> str:
    """Runs the one-shot service twice, as a second `up` does, and describes what it made."""
    service = services["topics"]
    (script,) = service["command"]
    script = broker.here(script).replace("$$", "$")
    script = script.replace("/opt/kafka/bin/kafka-topics.sh", "scripts/kafka.sh topics")
    succeed(*service["entrypoint"], script)
    succeed(*service["entrypoint"], script)
    return succeed("scripts/kafka.sh", "topics", "--bootstrap-server", broker.inside, "--describe")


def test_each_listener_sends_its_clients_back_to_itself(broker: Broker) -> None:
    for address in (broker.inside, broker.outside):
        tool = "org.apache.kafka.tools.BrokerApiVersionsCommand"
        answer = succeed("scripts/kafka.sh", "tool", tool, "--bootstrap-server", address)
        assert re.match(re.escape(address), answer), answer[:200]


def test_topics_have_equal_partitions(topics: str) -> None:
    made = dict(re.findall(r"Topic: (\S+)\s.*PartitionCount: (\d+)", topics))
    count = str(PARTITIONS)
    assert made == {"transactions": count, "verdicts": count, "transactions.dlq": count}


def test_worker_and_producer_run_from_their_variables(
    broker: Broker, topics: str, services: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    port = free_port()

    def environment(service: str, **changes: str) -> dict[str, str]:
        given = services[service]["environment"].items()
        return os.environ | {key: broker.here(str(value)) for key, value in given} | changes

    # Both run where the image runs them: in the folder that holds models/.
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = subprocess.Popen(
            [binary("fraud-scorer"), *services["worker"]["command"]],
            cwd=ROOT,
            env=environment("worker", FRAUD_SCORER_HTTP=f"127.0.0.1:{port}"),
            stdout=output,
            stderr=output,
        )
    try:
        ready = ["scripts/readyz.sh", str(port)]
        wait_for(lambda: run(*ready).returncode == 0, worker, log)
        succeed(
            binary("fraud-producer"), env=environment("producer", FRAUD_PRODUCER_COUNT=str(SENT))
        )
        verdicts = read(broker, "verdicts", SENT)
        code = end(worker)
        assert code == 0, log.read_text()
    finally:
        if worker.poll() is None:
            end(worker)
    # One for each transaction, and of the topic that the compose file names.
    sources = {tuple(verdict["source"].items()) for verdict in verdicts}
    assert len(sources) == SENT
    assert {dict(source)["topic"] for source in sources} == {"transactions"}


def read(broker: Broker, topic: str, count: int) -> list[dict[str, Any]]:
    """Waits for so many committed records."""
    output = succeed(
        "scripts/kafka.sh", "tool", "org.apache.kafka.tools.consumer.ConsoleConsumer",
        "--bootstrap-server", broker.outside, "--topic", topic, "--from-beginning",
        "--isolation-level", "read_committed", "--max-messages", str(count),
        "--timeout-ms", "60000",
    )  # fmt: skip
    return [json.loads(line) for line in output.splitlines()]
