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
    tags = {image.partition("@")[0] for image in images}
    assert tags == {f"apache/kafka:{version}" for version in groups}


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


ENVIRONMENT = "scripts/environment.sh"


def test_environment_fills_in_secrets_for_the_owner_only(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.env", "two.env")]
    texts = []
    for file in files:
        done = run("bash", "-x", ENVIRONMENT, file)
        assert done.returncode == 0, done.stderr
        assert file.stat().st_mode & 0o777 == 0o600
        text = file.read_text()
        assert "@random" not in text.partition("\n\n")[2]
        texts.append((text, done.stdout + done.stderr))
    template = (ROOT / "deploy/env/template").read_text()
    secrets = re.findall(r"^(\w+)=.*@random", template, flags=re.MULTILINE)
    assert len(secrets) == 13
    values = [dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)) for text, _ in texts]
    for name in secrets:
        one, two = (found[name] for found in values)
        assert one != two
        assert re.fullmatch(r"[A-Za-z0-9-]{16,}", one), name
        # Not even where the caller traces.
        assert all(one not in output and two not in output for _, output in texts), name
    # What is no secret is taken over as it is.
    plain = [line for line in template.splitlines() if "@random" not in line]
    assert [line for line in texts[0][0].splitlines() if line in plain] == plain
    # Nor is a draft left.
    assert set(tmp_path.iterdir()) == set(files)


def test_environment_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("KEEP=me\n")
    done = run(ENVIRONMENT, file)
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert file.read_text() == "KEEP=me\n"
    assert list(tmp_path.iterdir()) == [file]


def test_environment_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert "unknown option" in run(ENVIRONMENT, "--force").stderr
    assert run(ENVIRONMENT, tmp_path / "a", tmp_path / "b").returncode == 1
    assert run(ENVIRONMENT, tmp_path / "absent" / ".env").returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_settings_are_not_committed() -> None:
    assert ".env" in (ROOT / ".gitignore").read_text().split()
    assert ".env" in (ROOT / ".dockerignore").read_text().split()


def test_every_setting_of_the_schedule_is_in_the_template() -> None:
    dag = "".join(path.read_text() for path in (ROOT / "deploy/airflow/dags").glob("*.py"))
    template = (ROOT / "deploy/env/template").read_text()
    used = set(re.findall(r"\b(FRAUD_(?:RETRAIN|DRIFT|TRAINING|PRODUCER)_\w+)\b", dag))
    offered = re.findall(r"^(\w+)=", template, flags=re.MULTILINE)
    assert used <= set(offered)
    assert len(offered) == len(set(offered))
    # Each, or the group it stands in, is explained.
    for block in template.split("\n\n"):
        assert block.startswith("#"), block


def test_locks_name_hashes_and_no_index() -> None:
    locks = [*ROOT.glob("deploy/*/*.lock"), ROOT / "training/requirements.lock"]
    assert len(locks) == 6
    for lock in locks:
        text = lock.read_text()
        assert "://" not in text, lock
        pins = re.findall(r"^[A-Za-z0-9._-]+==.*?(?=^[A-Za-z]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert pins
        assert all("--hash=sha256:" in pin for pin in pins), lock


def test_a_lock_that_is_missing_is_named(tmp_path: Path) -> None:
    done = run("scripts/locked-env.sh", "absent", tmp_path / "absent.lock")
    assert done.returncode == 1
    assert "absent.lock cannot be read" in done.stderr
    assert not (ROOT / ".runtime/absent").exists()
