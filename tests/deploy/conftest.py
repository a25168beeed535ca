"""What the checks of the build and run files share."""

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def need(present: Any, what: str) -> None:
    """Skips the test where something is missing on this machine; under CI=true it fails instead."""
    if not present:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run([str(part) for part in command], check=False, **options)


def succeed(*command: str | Path, **options: Any) -> str:
    done = run(*command, **options)
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def binary(name: str) -> Path:
    path = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / name
    need(path.is_file(), f"{path} is not built: cargo test --workspace --no-run")
    return path


def help_text(*command: str | Path) -> str:
    """The help with its line breaks and indents taken out."""
    return re.sub(r"\s+", " ", succeed(*command, "--help"))


def kafka_java() -> tuple[str, str]:
    """Java and the classpath of a broker."""
    java = shutil.which("java")
    need(java and shutil.which("mvn"), "a broker needs Java 17 or later and Maven")
    return str(java), succeed("scripts/kafka.sh", "classpath", timeout=600).strip()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="session")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]
