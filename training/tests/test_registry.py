"""What is registered is the whole bundle: worker and notebook use one thing."""

import hashlib
import json
import shutil
import uuid
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from fraud_training import FEATURES, paths, registry
from fraud_training.cli import main
from fraud_training.compare import open_bundle
from fraud_training.errors import UserError


@pytest.fixture
def client(tracking_server: str) -> MlflowClient:
    return MlflowClient(tracking_uri=tracking_server)


@pytest.fixture
def own_bundle(tmp_path: Path) -> Path:
    """The committed bundle under a name that no other test uses."""
    name = f"fraud-{uuid.uuid4().hex[:8]}"
    copy = tmp_path / name
    shutil.copytree(paths.MODELS / "fraud", copy)
    manifest = (copy / "manifest.toml").read_text("utf-8")
    (copy / "manifest.toml").write_text(
        manifest.replace('name = "fraud"', f'name = "{name}"'), "utf-8"
    )
    return copy


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_a_notebook_loads_what_the_worker_downloads(
    own_bundle: Path, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["register", "--bundle", str(own_bundle), "--alias", "champion"]) == 0
    name = own_bundle.name
    assert f"{name} version 1, champion" in capsys.readouterr().out

    # The worker: every file of the bundle, unchanged.
    version = registry.champion_of(client, name)
    assert version is not None
    fetched = registry.download(version, client, tmp_path / "worker")
    assert digests(fetched).items() >= digests(own_bundle).items()
    assert open_bundle(fetched).golden_difference <= 1e-5

    # The notebook: by alias, columns in any order, others ignored.
    model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
    golden = [json.loads(line) for line in (own_bundle / "golden.jsonl").open(encoding="utf-8")]
    rows = pd.DataFrame(golden)[["event_time", *reversed(FEATURES)]].astype(np.float64)
    rows.index = rows.index + 100
    answer = model.predict(rows)
    expected = np.array([record["expected_score"] for record in golden])
    assert np.abs(answer["score"].to_numpy() - expected).max() <= 1e-5
    assert answer.index.equals(rows.index)
    bands = np.digitize(answer["score"], [0.0166, 0.531])
    assert answer["decision"].tolist() == [("approve", "review", "decline")[b] for b in bands]
    assert set(bands) == {0, 1, 2}
    with pytest.raises(Exception, match="V7"):
        model.predict(rows.drop(columns="V7"))

    # Or file by file.
    place = Path(mlflow.artifacts.download_artifacts(f"models:/{name}@champion"))
    assert (place / "MODEL_CARD.md").read_bytes() == (own_bundle / "MODEL_CARD.md").read_bytes()


def test_nothing_of_the_machine_is_in_a_version(own_bundle: Path) -> None:
    with registry.staged(own_bundle) as copy:
        text = (copy / "MLmodel").read_text("utf-8")
        assert str(paths.REPOSITORY) not in text
        assert str(copy) not in text
        assert set(digests(copy)) - set(digests(own_bundle)) == {
            "MLmodel",
            "fraud_bundle_pyfunc.py",
        }


def test_promotion_remembers_who_served(own_bundle: Path, client: MlflowClient) -> None:
    first, second, third = (registry.register_bundle(own_bundle, None, {}) for _ in range(3))
    name = own_bundle.name
    assert registry.champion_of(client, name) is None

    def aliases() -> dict[str, str]:
        found = client.get_registered_model(name).aliases
        return {alias: str(version) for alias, version in found.items()}

    assert registry.promote(client, first) is None
    assert aliases() == {"champion": "1"}
    registry.set_alias(client, third, "challenger")
    registry.promote(client, second)
    assert aliases() == {"champion": "2", "previous": "1", "challenger": "3"}
    # Repeated after a failure, it changes nothing more.
    registry.promote(client, second)
    assert aliases() == {"champion": "2", "previous": "1", "challenger": "3"}
    registry.promote(client, third)
    assert aliases() == {"champion": "3", "previous": "2"}


@pytest.mark.parametrize("file", ["manifest.toml", "reference.json", "model.onnx", "golden.jsonl"])
@pytest.mark.usefixtures("tracking_server")
def test_an_incomplete_bundle_is_not_registered(
    file: str, own_bundle: Path, client: MlflowClient, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_bundle / file).unlink()
    assert main(["register", "--bundle", str(own_bundle)]) == 1
    assert f"{file} is missing" in capsys.readouterr().err
    assert not client.search_registered_models(f"name='{own_bundle.name}'")


@pytest.mark.usefixtures("tracking_server")
def test_an_altered_model_is_not_registered(own_bundle: Path) -> None:
    with (own_bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match="not the file its manifest names"):
        registry.register_bundle(own_bundle, None, {})


def test_a_registry_that_is_down_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_sample: Path
) -> None:
    assert no_sample
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:hunter2@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        assert main(["register", "--bundle", str(paths.MODELS / "fraud")]) == 1
    finally:
        mlflow.set_tracking_uri(before)
    said = capsys.readouterr().err
    assert "registry at http://127.0.0.1:9" in said
    assert "MLFLOW_TRACKING_URI" in said
    assert "hunter2" not in said
