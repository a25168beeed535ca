"""What the DAGs share: settings, folders of runs, programs run for a task. Holds no DAG."""

import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from airflow.sdk.exceptions import AirflowException, AirflowFailException

log = logging.getLogger("programs")

USAGE_ERROR = 2
"""Exit code of `fraud-training` for a call that cannot succeed however often it is repeated."""

TERMINATION_GRACE_S = 20.0


def text(environment: Mapping[str, str], name: str, default: str) -> str:
    """A setting. Compose files hand down unset variables as empty ones."""
    return environment.get(name) or default


def number(environment: Mapping[str, str], name: str, default: float, least: float) -> float:
    """A setting that is a number."""
    try:
        value = float(text(environment, name, str(default)))
    except ValueError:
        value = float("nan")
    if not value >= least:
        raise ValueError(f"{name} must be a number of at least {least:g}")
    return value


def run_folder(base: Path, run_id: str) -> Path:
    """The folder of one run. A run id holds characters that not every file system takes."""
    return base / re.sub(r"[^A-Za-z0-9_.-]", "_", run_id)


def remove_old_folders(base: Path, keep_days: float, now: float) -> None:
    """Removes the runs' folders that nothing was added to for `keep_days`; `now` in seconds."""
    for folder in base.glob("*"):
        try:
            if folder.is_dir() and now - folder.stat().st_mtime > keep_days * 86_400:
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed the old folder %s", folder)
        except FileNotFoundError:
            continue


def call(command: list[str]) -> None:
    """Runs a program to its end, its output in the task's log; failure is an exception.

    The program gets a process group of its own: where the task is ended (timeout, a stop from the
    user interface), nothing of it is left computing.
    """
    log.info("running: %s", shlex.join(command))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise AirflowFailException(
            f"{command[0]} cannot be started ({error}): "
            "name it with FRAUD_TRAINING_BIN, FRAUD_DRIFT_BIN or FRAUD_PRODUCER_BIN"
        ) from error
    assert process.stdout is not None
    try:
        for line in process.stdout:
            log.info("%s", line.rstrip())
        code = process.wait()
    except BaseException:
        end(process)
        raise
    if code == USAGE_ERROR:
        raise AirflowFailException(f"{shlex.join(command)} was refused (exit code 2)")
    if code:
        raise AirflowException(f"{shlex.join(command)} failed with exit code {code}")


def end(process: "subprocess.Popen[str]") -> None:
    """Asks the process group to end, and ends what is left of it."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=TERMINATION_GRACE_S)
    # The program may be gone and something that it started not.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
