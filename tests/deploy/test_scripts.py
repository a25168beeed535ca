"""The scripts are sound, agree on versions, and the broker they start is one."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, free_port, kafka_java, need, run, succeed

SCRIPTS = sorted([*(ROOT / "scripts").glob("*.sh"), ROOT / ".ci" / "run"])
KAFKA = "scripts/kafka.sh"


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_script_parses_and_can_be_executed(script: Path) -> None:
    first = script.read_text().splitlines()[0]
    succeed("bash" if "bash" in first else "sh", "-n", script)
    assert os.access(script, os.X_OK)
    assert re.search(r"^set -eu", script.read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    need(shutil.which("shellcheck"), "shellcheck is missing: apt-get install shellcheck")
    succeed("shellcheck", script)


def test_one_version_of_kafka(services: dict[str, dict[str, Any]]) -> None:
    pom = (ROOT / "scripts/kafka/pom.xml").read_text()
    groups = re.findall(
        r"<groupId>org.apache.kafka</groupId>.*?<version>(.*?)</version>", pom, re.DOTALL
    )
    images = {x["image"] for x in services.values() if x["image"].startswith("apache/kafka:")}
    assert images == {f"apache/kafka:{version}" for version in groups}


def test_one_version_of_onnx_runtime() -> None:
    pins = (ROOT / "scripts/onnxruntime.txt").read_text()
    training = (ROOT / "training/pyproject.toml").read_text()
    pattern = r"onnxruntime==([\d.]+)"
    assert re.findall(pattern, pins) == re.findall(pattern, training)


def test_kafka_says_how_it_is_used() -> None:
    commands = re.findall(r"^  (\w+) ", succeed(KAFKA, "help"), flags=re.MULTILINE)
    assert {"get", "start", "run", "stop", "status", "topics", "tool", "classpath"} <= set(commands)
    unknown = run(KAFKA, "launch")
    assert unknown.returncode == 1
    assert "unknown command launch" in unknown.stderr


def test_kafka_names_what_it_misses(tmp_path: Path) -> None:
    # A checkout with no jars, on a machine with neither Java nor Maven.
    checkout, tools = tmp_path / "checkout", tmp_path / "bin"
    shutil.copytree(ROOT / "scripts", checkout / "scripts")
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "env", "mkdir", "sed", "sha256sum"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    environment = {"PATH": str(tools)}
    without_java = run(checkout / KAFKA, "get", env=environment)
    assert without_java.returncode == 1
    assert "needs Java 17 or later: apt-get install" in without_java.stderr

    (tools / "java").write_text("#!/bin/bash\necho 'openjdk version \"11.0.2\"' >&2\n")
    (tools / "java").chmod(0o755)
    with_old_java = run(checkout / KAFKA, "get", env=environment)
    assert "is 11" in with_old_java.stderr

    (tools / "java").write_text("#!/bin/bash\necho 'openjdk version \"21.0.2\"' >&2\n")
    without_maven = run(checkout / KAFKA, "get", env=environment)
    assert without_maven.returncode == 1
    assert "needs Maven: apt-get install" in without_maven.stderr


def test_broker_starts_once_and_stops(tmp_path: Path) -> None:
    kafka_java()
    port = free_port()
    options = ["--port", str(port), "--directory", str(tmp_path / "kafka")]
    address = f"127.0.0.1:{port}"
    assert run(KAFKA, "status", *options).returncode == 1
    try:
        assert succeed(KAFKA, "start", *options).strip() == address
        again = run(KAFKA, "start", *options)
        assert (again.returncode, again.stdout.strip()) == (0, address)
        assert "already running" in again.stderr
        assert address in succeed(KAFKA, "status", *options)

        # Another broker for the same port is refused with the way out.
        other = run(KAFKA, "start", "--port", str(port), "--directory", str(tmp_path / "other"))
        assert other.returncode == 1
        assert f"127.0.0.1:{port} already" in other.stderr

        # Topics are made by intent only.
        topics = [KAFKA, "topics", "--bootstrap-server", address]
        succeed(*topics, "--create", "--topic", "transactions", "--partitions", "3")
        assert succeed(*topics, "--list").split() == ["transactions"]
    finally:
        succeed(KAFKA, "stop", *options)
    assert run(KAFKA, "status", *options).returncode == 1
    succeed(KAFKA, "stop", *options)


def test_a_broker_that_cannot_start_is_reported(tmp_path: Path) -> None:
    kafka_java()
    options = ["--port", str(free_port()), "--directory", str(tmp_path)]
    done = run(KAFKA, "start", *options, env=os.environ | {"KAFKA_HEAP_OPTS": "-Xmx4m"})
    assert done.returncode == 1
    assert "the broker ended at its start" in done.stderr
    assert not (tmp_path / "kafka.pid").exists()
