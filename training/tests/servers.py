"""Real servers for the tests: an MLflow server, and an Apache Kafka broker."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fraud_training import paths

PATIENCE = 300.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """An MLflow server with its own database and artefacts; yields its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"),
        *("--artifacts-destination", str(folder / "artifacts")),
    ]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # A dozen processes for jobs that nobody here starts.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not _healthy(f"{address}/health"):
            text = (folder / "server.log").read_text("utf-8", "replace")
            assert server.poll() is None, f"MLflow ended: {text}"
            assert time.monotonic() < deadline, f"MLflow does not serve: {text}"
            time.sleep(0.2)
        yield address
    finally:
        # Its workers are processes of their own, in a session of its own; there is nothing to save.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(20)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@contextmanager
def kafka_broker(folder: Path) -> Iterator[str]:
    """A broker of its own; yields its address."""
    port = free_port()
    script = str(paths.REPOSITORY / "scripts" / "kafka.sh")
    place = ["--port", str(port), "--directory", str(folder / "kafka")]
    environment = {**os.environ, "KAFKA_HEAP_OPTS": "-Xmx512m"}
    subprocess.run(
        [script, "start", *place],
        check=True,
        env=environment,
        timeout=PATIENCE,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        subprocess.run([script, "stop", *place], check=False, timeout=60)
