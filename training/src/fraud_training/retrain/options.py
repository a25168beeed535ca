"""What a retraining run is told, checked once; and the part of it that decides what comes out."""

import hashlib
import importlib.metadata
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import fraud_training
from fraud_training import FEATURES
from fraud_training.errors import UsageError
from fraud_training.promotion import Rule
from fraud_training.validation import Limits

STAGES = ("ingest", "validate", "train", "compare", "promote")
ENGINES = ("xgboost", "spark")

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


@dataclass(frozen=True)
class Options:
    source: str
    work: Path
    model_name: str
    window: int
    """Milliseconds of event time."""
    as_of: int | None
    """Epoch milliseconds; None: the newest event time of the data."""
    engine: str
    seed: int
    trials: int
    resamples: int
    experiment: str
    review_budget: float
    lock_wait: float
    """Seconds."""
    rule: Rule
    limits: Limits
    transactions_topic: str = "transactions"
    labels_topic: str = "labels"
    property_file: Path | None = None

    def settings(self) -> str:
        """All that changes what the same rows lead to, as text: part of the fingerprint."""
        return json.dumps(
            {
                "code": code_digest(),
                "engine": self.engine,
                "features": FEATURES,
                "libraries": library_versions(),
                "limits": asdict(self.limits),
                "model_name": self.model_name,
                "resamples": self.resamples,
                "review_budget": self.review_budget,
                "rule": asdict(self.rule),
                "seed": self.seed,
                "trials": self.trials,
                "window": self.window,
            },
            sort_keys=True,
        )


def code_digest() -> str:
    """SHA-256 of this package's modules: other code may make another model of the same rows."""
    root = Path(fraud_training.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of what fits and exports; XGBoost's package has two names."""
    found = {}
    for name in ("numpy", "onnxmltools", "pyspark", "scikit-learn", "xgboost", "xgboost-cpu"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def parse_duration(text: str, flag: str) -> int:
    """Milliseconds of `14d`, `36h`, `90m`, `30s`, `2w`."""
    match = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d|w)", text.strip())
    if match is None:
        raise UsageError(f"{flag} {text}: expected a number with a unit, such as 14d, 36h or 90m")
    return int(match.group(1)) * _UNITS[match.group(2)]


def parse_as_of(text: str, now: int) -> int | None:
    """Epoch milliseconds of `latest` (None), `now`, RFC 3339 or epoch milliseconds."""
    if text == "latest":
        return None
    if text == "now":
        return now
    if re.fullmatch(r"\d{1,15}", text):
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--as-of {text}: expected latest, now, or a time such as 2026-03-01T00:00:00Z"
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000)
