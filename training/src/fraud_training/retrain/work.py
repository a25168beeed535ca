"""The work directory: what stages leave for each other, written whole or not at all.

    ingest    rows.parquet, ingest.json              fingerprint, as-of time, counts
    validate  accepted.parquet, validation.json/.html
    train     bundle/, train.json
    compare   comparison.json, report.html
    any       decision.json                          the run is over

Each stage writes its `.json` last. Every one of them carries the fingerprint, so what an earlier
run left in the same directory is never mistaken for this run's.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from fraud_training.errors import UsageError, UserError

DECISIONS = ("promoted", "rejected", "nothing-new", "quarantined")


class Work:
    """Files of one run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"--work {directory}: {error.strerror}") from error

    @property
    def bundle(self) -> Path:
        return self.directory / "bundle"

    def path(self, name: str) -> Path:
        return self.directory / name

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Two processes in one work directory would overwrite each other's files."""
        with self.path(".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"--work {self.directory} is in use by another run: give each its own"
                ) from error
            yield

    def begin(self, fingerprint: str) -> None:
        """Clears what a run with another fingerprint left, and any decision: a run begins anew."""
        self.path("decision.json").unlink(missing_ok=True)
        for stage in ("validation", "train", "comparison"):
            content = self._load(f"{stage}.json")
            if content is not None and content.get("fingerprint") != fingerprint:
                self.path(f"{stage}.json").unlink()
        if not self.path("train.json").exists():
            shutil.rmtree(self.bundle, ignore_errors=True)

    def read(self, stage: str, made_by: str, fingerprint: str | None = None) -> dict[str, Any]:
        """A stage's facts; says which stage to run first where they are missing."""
        content = self._load(f"{stage}.json")
        if content is None or (fingerprint and content.get("fingerprint") != fingerprint):
            raise UsageError(
                f"--work {self.directory} holds no {stage}.json of this run: "
                f"run --stage {made_by} first"
            )
        return content

    def write(self, stage: str, content: dict[str, Any]) -> None:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        self.write_text(f"{stage}.json", text)

    def write_text(self, name: str, text: str) -> None:
        temporary = self.path(f".{name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path(name))

    def write_frame(self, name: str, frame: pd.DataFrame) -> None:
        temporary = self.path(f".{name}.{os.getpid()}")
        frame.to_parquet(temporary, index=False)
        temporary.replace(self.path(name))

    def read_frame(self, name: str, made_by: str) -> pd.DataFrame:
        if not self.path(name).is_file():
            raise UsageError(
                f"--work {self.directory} holds no {name}: run --stage {made_by} first"
            )
        return pd.read_parquet(self.path(name))

    def decided(self, fingerprint: str) -> dict[str, Any] | None:
        """What was decided for these rows, if anything."""
        content = self._load("decision.json")
        return content if content and content.get("fingerprint") == fingerprint else None

    def _load(self, name: str) -> dict[str, Any] | None:
        try:
            content = json.loads(self.path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self.path(name)} is damaged ({error}): remove it") from error
        return content if isinstance(content, dict) else None
