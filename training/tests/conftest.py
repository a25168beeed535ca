"""Shared fixtures: small made-up data shaped like the real file, and the committed bundles."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import servers

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


@pytest.fixture(scope="session")
def mlflow_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server for the whole run of tests; each test has models of its own name."""
    with servers.mlflow_server(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture
def tracking_server(mlflow_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's client and the package use that server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_address)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(mlflow_address)
    yield mlflow_address
    mlflow.set_tracking_uri(before)
