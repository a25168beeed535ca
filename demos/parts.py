"""The parts of a demonstration: real programs on free loopback ports, and their end.

    with Stage(directory) as stage:
        kafka = stage.kafka()
        worker = stage.worker(kafka, "--model", "mlflow:fraud@champion")

Every program writes its output to a file of its own under the stage's directory; whatever fails
names that file. Nothing waits for a fixed time: `until` polls with a deadline.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from confluent_kafka.admin import AdminClient, NewTopic

ROOT = Path(__file__).resolve().parents[1]
RELEASE = Path(os.environ.get("FRAUD_SCORER_BINARIES", ROOT / "target" / "release"))
PYTHON = Path(sys.executable)

Found = TypeVar("Found")


class DemoError(Exception):
    """The story did not go as it should; the message says where and what to look at."""


def until(what: str, look: Callable[[], Found | None], seconds: float = 60.0) -> Found:
    """What `look` finds, as soon as it finds something."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > deadline:
            raise DemoError(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def get(url: str) -> tuple[int, str]:
    """Status and text of a page; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def get_json(url: str) -> Any:
    """What a page that answers JSON says; nothing where it does not answer."""
    status, text = get(url)
    return json.loads(text) if status == 200 else None


def text_of(path: Path) -> str:
    """The end of a file, for a message."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(f"    {line}" for line in lines[-15:])


@dataclass
class Program:
    """A process that runs, with its output in a file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def running(self) -> bool:
        return self.process.poll() is None

    def failed(self) -> DemoError:
        code, end = self.process.returncode, text_of(self.log)
        return DemoError(f"{self.name} ended with {code}; {self.log}:\n{end}")

    def must_run(self) -> None:
        if not self.running():
            raise self.failed()

    def finish(self, seconds: float) -> None:
        """Waits for its own end, which must be a good one."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise DemoError(
                f"{self.name} still runs after {seconds:g} s; see {self.log}"
            ) from error
        if code != 0:
            raise self.failed()

    def stop(self, seconds: float = 20.0) -> int:
        """Asks it to end, and makes it end."""
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return int(self.process.returncode)


@dataclass(frozen=True)
class Kafka:
    """A broker that serves."""

    address: str

    def create(self, topics: dict[str, int]) -> None:
        """Topics with their numbers of partitions."""
        admin = AdminClient({"bootstrap.servers": self.address})
        wanted = [NewTopic(name, count, 1) for name, count in topics.items()]
        for made in admin.create_topics(wanted).values():
            made.result(30)


@dataclass
class Timeline:
    """What happened when, told as it happens."""

    began: float = field(default_factory=time.monotonic)

    def tell(self, text: str, at: float | None = None) -> None:
        """Now, or at an earlier moment of the monotonic clock."""
        print(f"{(at or time.monotonic()) - self.began:7.1f} s  {text}", flush=True)


class Stage:
    """Starts programs, and ends them all, the last one first."""

    def __init__(self, directory: Path) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self._ends = ExitStack()
        self._environment: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ends.close()

    def environment(self, **variables: str) -> None:
        """Sets variables for every program started from now on."""
        self._environment |= variables

    def callback(self, end: Callable[[], object]) -> None:
        """Something else to end."""
        self._ends.callback(end)

    def start(self, name: str, *command: str | Path, **variables: str) -> Program:
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=ROOT,
                env=os.environ | self._environment | variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        program = Program(name, process, log)
        self._ends.callback(program.stop)
        return program

    def run(self, name: str, *command: str | Path, seconds: float = 600.0) -> str:
        """Runs a program to its good end; gives what it wrote."""
        program = self.start(name, *command)
        program.finish(seconds)
        return program.log.read_text(encoding="utf-8", errors="replace")

    def kafka(self) -> Kafka:
        """A real broker."""
        port, data = free_port(), self.directory / "kafka"
        place = ["--port", str(port), "--directory", str(data)]
        self._ends.callback(
            subprocess.run,
            [ROOT / "scripts" / "kafka.sh", "stop", *place],
            check=False,
            capture_output=True,
        )
        self.run("kafka", ROOT / "scripts" / "kafka.sh", "start", *place)
        return Kafka(f"127.0.0.1:{port}")

    def mlflow(self) -> str:
        """A real MLflow server with a registry; its address."""
        port, data = free_port(), self.directory / "mlflow"
        data.mkdir()
        address = f"http://127.0.0.1:{port}"
        server = self.start(
            "mlflow",
            PYTHON.with_name("mlflow"),
            *("server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{data / 'mlflow.db'}"),
            *("--artifacts-destination", data / "artifacts"),
            MLFLOW_DISABLE_TELEMETRY="true",
        )

        def answers() -> bool:
            server.must_run()
            return get(f"{address}/health")[0] == 200

        until("the MLflow server", answers, 120)
        return address
