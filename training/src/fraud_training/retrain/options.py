"""What a retraining run is told, checked once; and the part of it that decides what comes out."""

import hashlib
import importlib.metadata
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import fraud_training
from fraud_training import FEATURES
from fraud_training.promotion import Rule
from fraud_training.validation import Limits

STAGES = ("ingest", "validate", "train", "compare", "promote")
ENGINES = ("xgboost", "spark")


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
