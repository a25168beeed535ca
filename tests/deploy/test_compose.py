"""The compose file says what is true: of itself, of the image and of the binaries."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, binary, help_text, need, run, succeed

Services = dict[str, dict[str, Any]]

# The keys in use: a misspelt one would be an error only at the next `up`.
KEYS = {
    "build", "cap_drop", "command", "depends_on", "deploy", "entrypoint", "environment",
    "healthcheck", "image", "init", "ports", "profiles", "read_only", "restart", "security_opt",
    "stop_grace_period", "tmpfs", "volumes",
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


# A version or a date for those who read, and the digest that counts.
PINNED = re.compile(r"[^:@]+:v?(\d+\.\d+(\.\d+)?(-\w+)*|\w+-\d{8}-slim)@sha256:[0-9a-f]{64}")


def test_images_are_pinned(services: Services) -> None:
    for name, service in services.items():
        image = service["image"]
        own = service.get("build") is not None
        assert image.endswith(":local") if own else PINNED.fullmatch(image), (name, image)


def build_file(service: dict[str, Any]) -> Path:
    """The Dockerfile that a service's image is built from."""
    build = service["build"]
    if isinstance(build, str):
        build = {"context": build}
    return (ROOT / build["context"] / build.get("dockerfile", "Dockerfile")).resolve()


def test_own_images_can_be_built_and_do_not_run_as_root(services: Services) -> None:
    files = {build_file(service) for service in services.values() if "build" in service}
    assert files == {ROOT / "Dockerfile", *ROOT.glob("deploy/*/Dockerfile")}
    for file in files:
        text = file.read_text()
        for image in re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE):
            assert PINNED.fullmatch(image), (file, image)
        assert int(re.findall(r"^USER (\d+)$", text, flags=re.MULTILINE)[-1]) > 0, file


def test_copied_files_are_in_the_context(services: Services) -> None:
    for name, service in services.items():
        if service.get("build", ".") == ".":
            continue  # the image of the binaries has a test of its own
        build = service["build"]
        context = ROOT / (build if isinstance(build, str) else build["context"])
        for rest in re.findall(r"^COPY (?!--from)(.*)$", build_file(service).read_text(), re.M):
            *sources, _ = rest.split()
            for source in sources:
                assert (context / source).exists(), (name, source)


def test_dependencies_can_be_met(services: Services) -> None:
    for name, service in services.items():
        for target, wish in service.get("depends_on", {}).items():
            other = services[target]
            check = other.get("healthcheck", {})
            if wish["condition"] == "service_healthy":
                own = "build" in other and "HEALTHCHECK" in build_file(other).read_text()
                has_check = "test" in check or own
                assert has_check, (name, target)
                assert not check.get("disable"), (name, target)
            elif wish["condition"] == "service_completed_successfully":
                assert other["restart"] in ("no", "on-failure"), (name, target)
            else:
                pytest.fail(f"{name} starts before {target} is of use: {wish}")
            # Started with whatever starts the one that waits for it.
            assert set(service.get("profiles", [])) <= set(other.get("profiles", [])), target


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


def test_the_first_steps_need_neither_profile_nor_secret(services: Services) -> None:
    plain = {name for name, service in services.items() if "profiles" not in service}
    assert plain == {"kafka", "topics", "worker", "producer"}
    assert not [name for name in plain if "${" in str(services[name])]


def test_variables_of_the_file_are_in_the_template(services: Services) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    used = re.findall(r"(?<!\$)\$\{(\w+)([^}]*)\}", text)
    template = (ROOT / "deploy/env/template").read_text()
    offered = dict(re.findall(r"^(\w+)=(.*)$", template, flags=re.MULTILINE))
    for name, rest in used:
        assert name in offered, name
        # No password has a default: without .env the service refuses to start.
        assert rest == "-" or "@random" not in offered[name], name


def test_every_secret_goes_where_it_is_needed_and_no_further(services: Services) -> None:
    template = (ROOT / "deploy/env/template").read_text()
    secrets = re.findall(r"^(\w+)=.*@random", template, flags=re.MULTILINE)
    holders = {
        secret: {name for name, service in services.items() if "${" + secret in str(service)}
        for secret in secrets
    }
    assert holders == {
        "POSTGRES_PASSWORD": {"postgres"},
        "MLFLOW_DATABASE_PASSWORD": {"postgres", "mlflow"},
        "STORAGE_ROOT_ACCESS_KEY": {"storage", "buckets"},
        "STORAGE_ROOT_SECRET_KEY": {"storage", "buckets"},
        "MLFLOW_S3_ACCESS_KEY_ID": {"buckets", "mlflow"},
        "MLFLOW_S3_SECRET_ACCESS_KEY": {"buckets", "mlflow"},
        "AWS_ACCESS_KEY_ID": {"buckets", "retrain"},
        "AWS_SECRET_ACCESS_KEY": {"buckets", "retrain"},
        "MLFLOW_ADMIN_PASSWORD": {"mlflow", "accounts"},
        "MLFLOW_TRACKING_PASSWORD": {"accounts", "retrain"},
        "MLFLOW_READER_PASSWORD": {"accounts"},
        "MLFLOW_FLASK_SERVER_SECRET_KEY": {"mlflow"},
        "GRAFANA_ADMIN_PASSWORD": {"grafana"},
    }
    # Nor on a command line, where every process of the machine sees it.
    for name, service in services.items():
        for key in ("command", "entrypoint"):
            assert not [x for x in secrets if x in str(service.get(key))], name


def test_no_program_is_an_administrator(services: Services) -> None:
    """What makes accounts ends before the programs start."""
    makers = {"buckets", "accounts"}
    for name, service in services.items():
        environment = str(service.get("environment", {}))
        for word in ("STORAGE_ROOT_", "MLFLOW_ADMIN_", "POSTGRES_PASSWORD"):
            assert word not in environment or name in {*makers, "storage", "mlflow", "postgres"}
    assert all(services[name]["restart"] == "on-failure" for name in makers)
    # MLflow's server has its administrator's first password, since it makes that account itself.
    client = services["mlflow"]["environment"]
    assert client["AWS_ACCESS_KEY_ID"] == "${MLFLOW_S3_ACCESS_KEY_ID-}"
    assert client["PGUSER"] != services["postgres"]["environment"]["POSTGRES_USER"]


def test_services_call_each_other_by_their_ports(services: Services) -> None:
    mlflow, storage = services["mlflow"], services["storage"]
    ((_, host, inside),) = published(storage)
    address = f"http://storage:{inside}"
    for name in ("buckets", "mlflow", "retrain"):
        assert services[name]["environment"]["AWS_ENDPOINT_URL"] == address
    template = (ROOT / "deploy/env/template").read_text()
    assert f"AWS_ENDPOINT_URL=http://127.0.0.1:{host[0]}\n" in template
    assert f'"--port", ":{inside}"' in build_file(storage).read_text()

    ((_, host, inside),) = published(mlflow)
    assert services["retrain"]["environment"]["MLFLOW_TRACKING_URI"] == f"http://mlflow:{inside}"
    assert f"MLFLOW_TRACKING_URI=http://127.0.0.1:{host[0]}\n" in template
    allowed = mlflow["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {f"mlflow:{inside}", f"127.0.0.1:{host[0]}"} <= set(allowed)
    bucket = mlflow["environment"]["MLFLOW_ARTIFACTS_DESTINATION"].removeprefix("s3://")
    assert bucket in services["buckets"]["command"]
    source = re.findall(r"^FRAUD_RETRAIN_SOURCE=s3://([^/]+)", template, flags=re.MULTILINE)
    assert source[0] in services["buckets"]["command"]


def test_what_watches_finds_what_it_watches(services: Services) -> None:
    def port(name: str) -> int:
        ((_, host, inside),) = published(services[name])
        # Links in mails and on pages lead to the host's port.
        assert host[0] == inside or name == "worker"
        return inside

    read = yaml.safe_load((ROOT / "deploy/prometheus/compose.yml").read_text())
    (alertmanagers,) = read["alerting"]["alertmanagers"]
    assert alertmanagers["static_configs"][0]["targets"] == [f"alertmanager:{port('alertmanager')}"]
    workers, gateway = read["scrape_configs"]
    (found,) = workers["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["worker"], port("worker"))
    assert gateway["static_configs"][0]["targets"] == [f"pushgateway:{port('pushgateway')}"]

    grafana = services["grafana"]["environment"]
    assert grafana["PROMETHEUS_URL"] == f"http://prometheus:{port('prometheus')}"
    assert grafana["ALERTMANAGER_URL"] == f"http://alertmanager:{port('alertmanager')}"
    used = set()
    for path in (ROOT / "deploy/grafana/provisioning").rglob("*.yml"):
        used |= set(re.findall(r"\$\{(\w+)\}", path.read_text()))
    assert used
    assert used <= set(grafana)
    (provider,) = yaml.safe_load(
        (ROOT / "deploy/grafana/provisioning/dashboards/dashboards.yml").read_text()
    )["providers"]
    mounts = {entry.split(":")[1] for entry in services["grafana"]["volumes"]}
    assert provider["options"]["path"] in mounts


def test_both_configurations_of_prometheus_differ_in_addresses_only() -> None:
    own, compose = (
        yaml.safe_load((ROOT / "deploy/prometheus" / name).read_text())
        for name in ("prometheus.yml", "compose.yml")
    )
    for read in (own, compose):
        for entry in (*read["scrape_configs"], *read["alerting"]["alertmanagers"]):
            entry.pop("static_configs", None)
            entry.pop("dns_sd_configs", None)
    assert own == compose


def test_mounted_files_exist(services: Services) -> None:
    mounted = [entry for service in services.values() for entry in service.get("volumes", [])]
    places = [entry.split(":")[0] for entry in mounted if entry.startswith("./")]
    assert places
    assert all((ROOT / place).is_dir() for place in places), places


MAIL = {
    "FRAUD_MAIL_SMARTHOST": "smtp.example.org:587",
    "FRAUD_MAIL_TLS": "true",
    "FRAUD_MAIL_FROM": "fraud-scorer@example.org",
    "FRAUD_MAIL_TO": "fraud-team@example.org",
    "FRAUD_DOCUMENTS_URL": "https://example.org/fraud-scorer/blob/main/",
}


def start_alertmanager(folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Runs the service's script, with `echo` for Alertmanager."""
    return run(
        *("sh", ROOT / "deploy/alertmanager/start.sh", "--storage.path=/alertmanager"),
        env=os.environ
        | MAIL
        | {"ALERTMANAGER_SHIPPED": str(ROOT / "deploy/alertmanager")}
        | {"ALERTMANAGER_MADE": str(folder), "ALERTMANAGER": "/bin/echo"}
        | changes,
    )


def test_alertmanager_gets_its_addresses_from_the_environment(tmp_path: Path) -> None:
    done = start_alertmanager(tmp_path, FRAUD_MAIL_USER="fraud", FRAUD_MAIL_PASSWORD="se'c\"ret")
    assert done.returncode == 0, done.stderr
    made = tmp_path / "alertmanager.yml"
    assert done.stdout == f"--config.file={made} --storage.path=/alertmanager\n"
    content = yaml.safe_load(made.read_text())
    assert content["global"] == {
        "smtp_smarthost": "smtp.example.org:587",
        "smtp_auth_username": "fraud",
        "smtp_auth_password_file": str(tmp_path / "mail-password"),
        "smtp_from": "fraud-scorer@example.org",
        "smtp_require_tls": True,
        "resolve_timeout": "1m",
    }
    (mail,) = content["receivers"][0]["email_configs"]
    assert mail["to"] == "fraud-team@example.org"
    password = tmp_path / "mail-password"
    assert password.read_text() == "se'c\"ret"
    assert password.stat().st_mode & 0o077 == 0
    template = (tmp_path / "mail.tmpl").read_text()
    assert '{{ define "fraud.documents" }}https://example.org/fraud-scorer/blob/main/{{' in template
    amtool = shutil.which("amtool")
    need(amtool, "amtool is missing: apt-get install prometheus-alertmanager")
    succeed(str(amtool), "check-config", made)


def test_shellcheck_finds_nothing_in_alertmanagers_start() -> None:
    need(shutil.which("shellcheck"), "shellcheck is missing: apt-get install shellcheck")
    succeed("shellcheck", ROOT / "deploy/alertmanager/start.sh")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FRAUD_MAIL_SMARTHOST", ""),
        ("FRAUD_MAIL_TO", 'a"b'),
        ("FRAUD_MAIL_FROM", "a|b"),
        ("FRAUD_MAIL_TLS", "maybe"),
        ("FRAUD_DOCUMENTS_URL", "https://x y/"),
    ],
)
def test_alertmanager_says_which_setting_is_wrong(tmp_path: Path, name: str, value: str) -> None:
    done = start_alertmanager(tmp_path, **{name: value})
    assert done.returncode == 64
    assert name in done.stderr
    assert not (tmp_path / "alertmanager.yml").exists()


def test_the_settings_for_mails_fit_the_mailbox(services: Services) -> None:
    template = (ROOT / "deploy/env/template").read_text()
    offered = dict(re.findall(r"^(\w+)=(.*)$", template, flags=re.MULTILINE))
    assert offered["FRAUD_MAIL_SMARTHOST"] == "mail:1025"
    assert "mail" in services
    handed = {name for name in offered if name.startswith("FRAUD_MAIL_")}
    assert handed <= set(services["alertmanager"]["environment"])


def test_one_version_of_mlflow() -> None:
    pin = re.compile(r"^mlflow==([\d.]+)", flags=re.MULTILINE)
    locks = [ROOT / "training/requirements.lock", ROOT / "deploy/mlflow/requirements.lock"]
    assert len({pin.findall(lock.read_text())[0] for lock in locks}) == 1


def test_docker_compose_reads_the_file() -> None:
    docker = shutil.which("docker")
    if not docker or run(docker, "compose", "version").returncode:
        # Not to be had from every distribution, so not even CI insists on it.
        pytest.skip("no docker compose plugin on this machine")
    succeed("docker", "compose", "--file", "docker-compose.yml", "config", "--quiet")
