"""A worker that scores: `fraud-scorer demo`, the whole product in one process, for all tests."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ADMIN_TOKEN = "a-token-for-tests-alone"
ROOT = Path(__file__).resolve().parents[2]


def need(present: Any, what: str) -> None:
    """Skips the test where something is missing on this machine; under CI=true it fails instead."""
    if not present:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a demo that keeps running, `http://127.0.0.1:PORT`."""
    # Little, for machines that do other things too; the demo's own rate for pictures.
    rate = "2000" if os.environ.get("SCREENSHOTS") else "300"
    with running_demo(tmp_path_factory.mktemp("demo"), "--rate", rate) as address:
        yield address


@contextlib.contextmanager
def running_demo(folder: Path, *arguments: str) -> Iterator[str]:
    """A demo with these arguments, its log in `folder`; its address."""
    program = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "fraud-scorer"
    need(program.is_file(), f"{program} is not built: cargo build")
    log = folder / "log"
    command = [str(program), "demo", "--keep-running", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "FRAUD_SCORER_ADMIN_TOKEN": ADMIN_TOKEN},
        )
        try:
            yield wait_for_address(process, log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
    # It ends with a failure when a verdict was lost or doubled: being watched must not change that.
    assert process.returncode == 0, log.read_text()


def wait_for_address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        found = re.search(r"console (http://[\d.:]+)/", log.read_text(errors="replace"))
        if found and ready(found[1]):
            return found[1]
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"the demo did not get ready:\n{log.read_text()}")


def ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def golden() -> list[dict[str, Any]]:
    """Transactions with the scores that training gave them, lowest first."""
    lines = (ROOT / "models/fraud/golden.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda record: record["expected_score"])
