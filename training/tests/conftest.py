"""Shared fixtures: small made-up data shaped like the real file, and the committed bundles."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fraud_training import FEATURES, paths
from fraud_training.dataset import Dataset, draw_synthetic


@pytest.fixture(params=["fraud", "fraud-lr"])
def bundle(request: pytest.FixtureRequest) -> Path:
    """Each committed bundle in turn."""
    return paths.MODELS / str(request.param)


@pytest.fixture(scope="session")
def drawn() -> Dataset:
    """Rows drawn from the committed profile, few enough for quick fits."""
    return draw_synthetic(paths.PROFILE, seed=3, genuine=3_000, frauds=150)


@pytest.fixture
def frame() -> pd.DataFrame:
    """A valid Kaggle-shaped table of 400 rows with 60 frauds."""
    random = np.random.default_rng(11)
    table = pd.DataFrame(random.normal(size=(400, len(FEATURES))), columns=list(FEATURES))
    table.insert(0, "Time", np.arange(400.0) * 10)
    table["Amount"] = random.lognormal(3, 1, 400).round(2)
    table["Class"] = [1 if row % 20 < 3 else 0 for row in range(400)]
    return table


@pytest.fixture
def no_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without the original data, and a tracking store of its own; returns its folder."""
    monkeypatch.setattr(paths, "SAMPLE", tmp_path / "absent.csv.gz")
    monkeypatch.setattr(paths, "TRACKING_STORE", tmp_path / "mlflow")
    monkeypatch.setattr(paths, "SYNTHETIC_MODELS", tmp_path / "models-synthetic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path
