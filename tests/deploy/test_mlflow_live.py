"""The registry as the compose file starts it, but without Docker.

MLflow comes from the lock of its image, PostgreSQL is a real one, object storage is behind the S3
interface.

Settings come from a .env that scripts/environment.sh makes, through the compose file's own words;
only names and ports of services are replaced.
"""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, free_port, need, run, succeed

SERVER = ROOT / ".runtime/mlflow-server/bin/mlflow"
CLIENT = ROOT / ".runtime/mlflow-server/bin/python"
MOTO = ROOT / ".runtime/venv/bin/moto_server"

Services = dict[str, dict[str, Any]]


def program(name: str) -> str:
    """A program of PostgreSQL. Debian keeps them out of PATH, by major version."""
    found = shutil.which(name) or next(
        (str(x) for x in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None
    )
    need(found, f"{name} is missing: apt-get install postgresql")
    return str(found)


def substitute(text: str, settings: dict[str, str]) -> str:
    """${NAME-default}, as Compose reads it."""
    return re.sub(r"\$\{(\w+)-([^}]*)\}", lambda x: settings.get(x[1], x[2]), text)


@dataclass
class Registry:
    """A running server and how to reach it."""

    address: str
    settings: dict[str, str]
    storage: str
    query: list[str]
    process: subprocess.Popen[bytes]
    log: Path

    def client(self, **changes: str) -> dict[str, str]:
        """The environment of a program on the host that read .env."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_", "PG"))}
        own = {"MLFLOW_TRACKING_URI": self.address, "AWS_ENDPOINT_URL": self.storage}
        return clean | self.settings | own | {"NO_PROXY": "127.0.0.1"} | changes


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with all its children."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, start_new_session=True, **options
        )
    try:
        yield process
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, number)
                process.wait(timeout=30)


def wait_for_http(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, f"{address} not there:\n{log.read_text()}"
            time.sleep(0.3)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("settings") / ".env"
    succeed("scripts/environment.sh", file)
    lines = (line for line in file.read_text().splitlines() if line and line[0] != "#")
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture(scope="module")
def postgres(settings: dict[str, str], services: Services) -> Iterator[tuple[str, list[str]]]:
    """A server with the compose file's accounts, database and kind of password check.

    Returns its port and the start of a query as the superuser.
    """
    initdb, server, psql = map(program, ("initdb", "postgres", "psql"))
    own = {
        name: substitute(value, settings)
        for name, value in services["postgres"]["environment"].items()
    }
    user, database = own["POSTGRES_USER"], own["POSTGRES_DB"]
    # PostgreSQL refuses to run as root, and the folders of pytest are closed to others.
    folder = Path(tempfile.mkdtemp(prefix="fraud-postgres-"))
    options: dict[str, Any] = {"cwd": folder}
    if os.geteuid() == 0:
        names = [entry.pw_name for entry in pwd.getpwall()]
        runs_as = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, runs_as)
        options |= {"user": runs_as, "group": pwd.getpwnam(runs_as).pw_gid, "extra_groups": []}
    port = str(free_port())
    password = folder / "password"
    password.write_text(settings["POSTGRES_PASSWORD"])
    password.chmod(0o644)
    try:
        succeed(
            initdb, "--pgdata", folder / "data", "--username", user,
            "--pwfile", password, "--auth=scram-sha-256", "--no-sync", "--encoding=UTF8",
            **options,
        )  # fmt: skip
        password.unlink()
        command = [
            server, "-D", str(folder / "data"), "-p", port, "-k", str(folder),
            "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off",
        ]  # fmt: skip
        log = folder.with_suffix(".log")
        secret = os.environ | {"PGPASSWORD": settings["POSTGRES_PASSWORD"]}
        query = [psql, "--host", "127.0.0.1", "--port", port, "--username", user]
        with running(command, log, **options) as process:
            deadline = time.monotonic() + 60
            while run(*query, "--dbname", database, "-c", "SELECT 1", env=secret).returncode:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.3)
            # What the image runs when the folder of the data is made.
            (mount,) = (x for x in services["postgres"]["volumes"] if "initdb.d" in x)
            found = os.environ["PATH"] + os.pathsep + str(Path(psql).parent)
            place = {"PGHOST": "127.0.0.1", "PGPORT": port, "PATH": found}
            for script in sorted((ROOT / mount.split(":")[0]).iterdir()):
                succeed(script, env=secret | own | place)
            yield port, [*query, "--dbname", "mlflow", "-tAc"]
        log.unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def storage(
    settings: dict[str, str], services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The storage service itself where its program is on PATH, else moto; returns the address.

    Only the former knows accounts.
    """
    folder = tmp_path_factory.mktemp("storage")
    port = str(free_port())
    environment = dict(os.environ)
    if gateway := shutil.which("versitygw"):
        text = (ROOT / "deploy/storage/Dockerfile").read_text()
        words = json.loads(re.findall(r"^CMD (\[.*\])", text, flags=re.MULTILINE)[-1])
        places = {":7070": f"127.0.0.1:{port}"}
        for name in ("data", "metadata", "accounts"):
            (folder / name).mkdir()
            places[f"/{name}"] = str(folder / name)
        command = [gateway, *(places.get(word, word) for word in words)]
        given = services["storage"]["environment"]
        environment |= {name: substitute(value, settings) for name, value in given.items()}
    else:
        need(MOTO.is_file(), f"{MOTO} is missing: scripts/python-env.sh")
        command = [str(MOTO), "--host", "127.0.0.1", "--port", port]
    log = folder / "storage.log"
    with running(command, log, env=environment) as process:
        address = f"http://127.0.0.1:{port}"
        wait_for_http(f"{address}/health", process, log)
        yield address


@pytest.fixture(scope="module")
def registry(
    postgres: tuple[str, list[str]],
    storage: str,
    settings: dict[str, str],
    services: Services,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Registry]:
    need(SERVER.is_file(), f"{SERVER} is missing: scripts/mlflow-env.sh")
    folder = tmp_path_factory.mktemp("mlflow")
    port = str(free_port())
    database_port, query = postgres

    def environment(service: str) -> dict[str, str]:
        given = services[service]["environment"].items()
        values = {name: substitute(value, settings) for name, value in given}
        return {
            name: value.replace("http://storage:7070", storage).replace(":5000", f":{port}")
            for name, value in values.items()
        }

    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "AWS_", "PG"))}
    clean |= {"NO_PROXY": "127.0.0.1"}

    def make(service: str, **places: str) -> str:
        """Runs one of the services that end; twice, as after a restart."""
        words = services[service]
        script = ROOT / "deploy/mlflow" / words["entrypoint"][1]
        own = clean | environment(service) | places
        outputs = [succeed(CLIENT, script, *words["command"], env=own) for _ in range(2)]
        assert outputs[0] == outputs[1]
        return outputs[0]

    if knows_accounts():
        assert make("buckets").count("belongs to") == 2
    else:
        script = "import boto3, sys; boto3.client('s3').create_bucket(Bucket=sys.argv[1])"
        own = clean | environment("buckets") | {"AWS_DEFAULT_REGION": "us-east-1"}
        for name in services["buckets"]["command"]:
            succeed(CLIENT, "-c", script, name, env=own)

    text = (ROOT / "deploy/mlflow/Dockerfile").read_text()
    words = json.loads(re.findall(r"^CMD (\[.*\])", text, flags=re.MULTILINE)[-1])
    places = {"0.0.0.0": "127.0.0.1", "5000": port}
    command = [str(SERVER), *(places.get(word, word) for word in words)]
    own = environment("mlflow") | {
        "PGHOST": "127.0.0.1",
        "PGPORT": database_port,
        "MLFLOW_AUTH_CONFIG_PATH": str(ROOT / "deploy/mlflow/basic_auth.ini"),
        "HOME": str(folder),
    }
    log = folder / "server.log"
    work = folder / "work"
    work.mkdir()
    # What the container's read-only file system would refuse shows as a file here.
    with running(command, log, env=clean | own, cwd=work) as process:
        address = f"http://127.0.0.1:{port}"
        wait_for_http(f"{address}/health", process, log)
        made = make("accounts", MLFLOW_TRACKING_URI=address)
        assert made.count("is there") == 2
        yield Registry(address, settings, storage, query, process, log)
    assert list(work.iterdir()) == []


def knows_accounts() -> bool:
    return shutil.which("versitygw") is not None


REGISTER = """\
import json, os, sys
from pathlib import Path
import boto3, mlflow
from mlflow import MlflowClient

folder = Path(sys.argv[1])
bundle = folder / "bundle"
bundle.mkdir()
(bundle / "manifest.toml").write_text('name = "fraud"\\n')
(bundle / "model.onnx").write_bytes(bytes(range(256)) * 4096)

client = MlflowClient()
mlflow.set_experiment("fraud-retrain")
with mlflow.start_run() as run:
    mlflow.log_artifacts(str(bundle), "bundle")
client.create_registered_model("fraud")
source = f"runs:/{run.info.run_id}/bundle"
versions = [client.create_model_version("fraud", source, run_id=run.info.run_id) for _ in range(2)]
for version in versions:
    client.set_registered_model_alias("fraud", "champion", version.version)
champion = client.get_model_version_by_alias("fraud", "champion")
here = Path(mlflow.artifacts.download_artifacts("models:/fraud@champion", dst_path=folder / "got"))

def names(account, bucket):
    client = boto3.client(
        "s3", region_name=os.environ["AWS_REGION"],
        aws_access_key_id=os.environ[f"{account}_ACCESS_KEY_ID"],
        aws_secret_access_key=os.environ[f"{account}_SECRET_ACCESS_KEY"],
    )
    try:
        return [x["Key"] for x in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    except client.exceptions.ClientError as error:
        return error.response["Error"]["Code"]

keys = names("MLFLOW_S3", "mlflow")
foreign = [names("AWS", "mlflow"), names("MLFLOW_S3", "fraud-archive")]
assert names("AWS", "fraud-archive") == []
print(json.dumps({
    "version": champion.version,
    "same": [(here / x.name).read_bytes() == x.read_bytes() for x in sorted(bundle.iterdir())],
    "keys": keys,
    "foreign": foreign,
}))
"""


def test_a_version_goes_in_gets_the_alias_and_comes_out_whole(
    registry: Registry, tmp_path: Path
) -> None:
    output = succeed(CLIENT, "-c", REGISTER, tmp_path, env=registry.client(), timeout=300)
    found = json.loads(output.splitlines()[-1])
    assert found["version"] == "2"
    assert found["same"] == [True, True]
    # The parts hold what the parts are for: bundles in the bucket, the rest in PostgreSQL.
    assert {Path(key).name for key in found["keys"]} >= {"manifest.toml", "model.onnx"}
    # Neither account of the storage sees the other's bucket.
    if knows_accounts():
        assert found["foreign"] == ["AccessDenied"] * 2
    secret = os.environ | {"PGPASSWORD": registry.settings["POSTGRES_PASSWORD"]}
    aliases = "SELECT alias, version FROM registered_model_aliases"
    assert succeed(*registry.query, aliases, env=secret).strip() == "champion|2"
    accounts = succeed(*registry.query, "SELECT username, is_admin FROM users", env=secret)
    assert set(accounts.split()) == {"admin|t", "fraud-training|f", "fraud-worker|f"}
    roles = "SELECT rolname FROM pg_roles WHERE rolsuper OR rolcreaterole OR rolcreatedb"
    assert "mlflow" not in succeed(*registry.query, roles, env=secret).split()


def test_an_account_that_reads_changes_nothing(registry: Registry) -> None:
    reader = {
        "MLFLOW_TRACKING_USERNAME": registry.settings["MLFLOW_READER_USERNAME"],
        "MLFLOW_TRACKING_PASSWORD": registry.settings["MLFLOW_READER_PASSWORD"],
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    read = (
        "from mlflow.artifacts import download_artifacts; "
        "download_artifacts('models:/fraud@champion/manifest.toml'); "
        "print(client.get_model_version_by_alias('fraud', 'champion').version)"
    )
    changes = (
        "client.set_registered_model_alias('fraud', 'champion', '1')",
        "client.create_model_version('fraud', 'mlflow-artifacts:/1/x')",
        "client.delete_registered_model('fraud')",
    )
    start = "from mlflow import MlflowClient; client = MlflowClient(); "
    output = succeed(CLIENT, "-c", start + read, env=registry.client(**reader))
    assert output.splitlines()[-1] == "2"
    for change in changes:
        done = run(CLIENT, "-c", start + change, env=registry.client(**reader))
        assert done.returncode != 0, change
        assert "403" in done.stderr or "PERMISSION_DENIED" in done.stderr, done.stderr


def test_nothing_is_answered_without_the_password(registry: Registry) -> None:
    script = "from mlflow import MlflowClient; print(MlflowClient().search_registered_models())"
    wrong = registry.client(MLFLOW_TRACKING_PASSWORD="guessed", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    done = run(CLIENT, "-c", script, env=wrong)
    assert done.returncode != 0
    assert "401" in done.stderr


def test_a_foreign_host_name_is_refused(registry: Registry) -> None:
    request = urllib.request.Request(
        f"{registry.address}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"}
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 403


def test_no_secret_is_in_the_log_or_on_a_command_line(registry: Registry) -> None:
    secrets = [
        value
        for name, value in registry.settings.items()
        if name.endswith(("_PASSWORD", "_KEY")) and value
    ]
    assert len(secrets) == 11
    lines = registry.log.read_text()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == registry.process.pid:
                lines += (path / "cmdline").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    assert str(SERVER) in lines
    assert not [secret for secret in secrets if secret in lines]
