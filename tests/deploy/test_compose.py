"""The compose file says what is true: of itself, of the image and of the binaries."""

import re
import shutil
from typing import Any

import pytest
from conftest import ROOT, binary, help_text, run, succeed

Services = dict[str, dict[str, Any]]

# The keys in use: a misspelt one would be an error only at the next `up`.
KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment",
    "healthcheck", "image", "init", "ports", "read_only", "restart", "security_opt",
    "stop_grace_period", "volumes",
}  # fmt: skip


def listeners(value: str) -> dict[str, tuple[str, int]]:
    """`NAME://host:port,…` by name."""
    found = re.findall(r"(\w+)://([^:,]*):(\d+)", value)
    return {name: (host, int(port)) for name, host, port in found}


def published(service: dict[str, Any]) -> list[tuple[str, range, int]]:
    """Host address, host ports and container port of every published port."""
    ports = []
    for entry in service.get("ports", []):
        address, host, container = entry.rsplit(":", 2)
        first, _, last = host.partition("-")
        ports.append((address, range(int(first), int(last or first) + 1), int(container)))
    return ports


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found, f"{duration} is not in seconds"
    return int(found[1])


def test_keys_are_known(services: Services) -> None:
    unknown = {name: set(service) - KEYS for name, service in services.items()}
    assert not any(unknown.values()), unknown


def test_images_are_pinned(services: Services) -> None:
    for name, service in services.items():
        tag = service["image"].partition(":")[2]
        own = service.get("build") is not None
        assert tag == "local" if own else re.fullmatch(r"\d+\.\d+\.\d+", tag), (name, tag)


def test_dependencies_can_be_met(services: Services) -> None:
    image_has_check = "HEALTHCHECK" in (ROOT / "Dockerfile").read_text()
    for name, service in services.items():
        for target, wish in service.get("depends_on", {}).items():
            other = services[target]
            check = other.get("healthcheck", {})
            if wish["condition"] == "service_healthy":
                has_check = "test" in check or ("build" in other and image_has_check)
                assert has_check, (name, target)
                assert not check.get("disable"), (name, target)
            elif wish["condition"] == "service_completed_successfully":
                assert other["restart"] in ("no", "on-failure"), (name, target)
            else:
                pytest.fail(f"{name} starts before {target} is of use: {wish}")


def test_every_service_restarts_after_a_crash(services: Services) -> None:
    for name, service in services.items():
        assert service.get("restart") in ("unless-stopped", "on-failure"), name


def test_only_loopback_is_bound(services: Services) -> None:
    bound = {name: published(service) for name, service in services.items()}
    assert any(bound.values())
    assert all(port[0] == "127.0.0.1" for ports in bound.values() for port in ports), bound


def test_broker_listeners_fit_together(services: Services) -> None:
    kafka = services["kafka"]
    environment = kafka["environment"]
    opened = listeners(environment["KAFKA_LISTENERS"])
    advertised = listeners(environment["KAFKA_ADVERTISED_LISTENERS"])
    protocols = environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"]

    assert set(opened) == {pair.split(":")[0] for pair in protocols.split(",")}
    assert set(advertised) == set(opened) - {environment["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    assert {name: port for name, (_, port) in advertised.items()}.items() <= {
        name: port for name, (_, port) in opened.items()
    }.items()
    # A program on the host comes in by the published port and is sent on to where it came from.
    ((_, host_ports, container_port),) = published(kafka)
    assert advertised["OUTSIDE"] == ("localhost", host_ports[0])
    assert opened["OUTSIDE"][1] == container_port
    # A container comes in by the service's name.
    assert advertised[environment["KAFKA_INTER_BROKER_LISTENER_NAME"]][0] == "kafka"
    voter = environment["KAFKA_CONTROLLER_QUORUM_VOTERS"]
    assert voter == f"{environment['KAFKA_NODE_ID']}@kafka:{opened['CONTROLLER'][1]}"


def test_containers_use_the_inside_listener(services: Services) -> None:
    environment = services["kafka"]["environment"]
    host, port = listeners(environment["KAFKA_ADVERTISED_LISTENERS"])["INSIDE"]
    inside = f"{host}:{port}"
    assert services["worker"]["environment"]["FRAUD_SCORER_BROKERS"] == inside
    assert services["producer"]["environment"]["FRAUD_PRODUCER_BROKERS"] == inside
    for text in (services["topics"]["command"][0], services["kafka"]["healthcheck"]["test"][1]):
        assert re.findall(r"--bootstrap-server (\S+)", text) == [inside]


def test_there_is_a_partition_for_every_scoring_thread(services: Services) -> None:
    worker = services["worker"]
    threads = worker["deploy"]["replicas"] * worker["environment"]["FRAUD_SCORER_THREADS"]
    (partitions,) = re.findall(r"--partitions (\d+)", services["topics"]["command"][0])
    assert int(partitions) >= threads


def test_every_worker_gets_a_host_port_for_its_http_address(services: Services) -> None:
    worker = services["worker"]
    ((_, host_ports, container_port),) = published(worker)
    address = worker["environment"]["FRAUD_SCORER_HTTP"]
    assert address == f"0.0.0.0:{container_port}"
    assert len(host_ports) >= worker["deploy"]["replicas"]


def test_a_worker_may_finish_draining(services: Services) -> None:
    text = help_text(binary("fraud-scorer"), "run")
    drain = re.search(r"--drain-timeout <DURATION>.*?\[default: (\w+)\]", text)
    assert drain, "run --help names no default of --drain-timeout"
    assert seconds(services["worker"]["stop_grace_period"]) > seconds(drain[1]) + 5


def test_variables_are_those_of_the_binaries(services: Services) -> None:
    helps = {
        "worker": ("FRAUD_SCORER_", help_text(binary("fraud-scorer"), "run")),
        "producer": ("FRAUD_PRODUCER_", help_text(binary("fraud-producer"))),
    }
    for name, (prefix, text) in helps.items():
        for variable in services[name]["environment"]:
            assert variable.startswith(prefix), variable
            assert f"[env: {variable}]" in text, variable


def test_docker_compose_reads_the_file() -> None:
    docker = shutil.which("docker")
    if not docker or run(docker, "compose", "version").returncode:
        # Not to be had from every distribution, so not even CI insists on it.
        pytest.skip("no docker compose plugin on this machine")
    succeed("docker", "compose", "--file", "docker-compose.yml", "config", "--quiet")
