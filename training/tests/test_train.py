"""A whole run, on drawn rows, with a real MLflow store; and what such a run must never touch."""

import hashlib
import tomllib
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from fraud_training import FEATURES, dataset, paths
from fraud_training.cli import main

FILES = {"MODEL_CARD.md", "golden.jsonl", "manifest.toml", "model.onnx", "reference.json"}


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset.draw_synthetic, "__defaults__", (3_000, 150))


@pytest.mark.usefixtures("few_rows")
def test_without_data_a_run_makes_bundles_elsewhere(
    no_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committed = digests(paths.MODELS)
    arguments = ["train", "--trials", "1", "--resamples", "20", "--experiment", "whole-run"]
    arguments.append("--register")
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "NOTICE: no card data found" in said.err
    assert "kaggle.com" in said.err
    assert digests(paths.MODELS) == committed

    assert (no_sample / "mlflow" / "mlflow.db").is_file()
    runs = mlflow.search_runs(experiment_names=["whole-run"], output_format="list")
    assert {run.info.run_name for run in runs} == {"fraud", "fraud-lr"}
    client = mlflow.MlflowClient()
    for run in runs:
        name = run.info.run_name
        bundle = no_sample / "models-synthetic" / name
        assert {path.name for path in bundle.iterdir()} >= FILES
        assert "Trained on synthetic rows" in (bundle / "MODEL_CARD.md").read_text("utf-8")
        manifest = tomllib.loads((bundle / "manifest.toml").read_text("utf-8"))
        assert manifest["training"]["run_id"] == run.info.run_id
        assert run.data.params["synthetic"] == "True"
        assert run.data.tags["data.sha256"] == manifest["training"]["data_sha256"]
        values = run.data.metrics
        assert 0.3 < values["test_average_precision"] <= 1.0
        assert values["test_average_precision_low"] <= values["test_average_precision_high"]
        assert values["threshold_review"] == manifest["thresholds"]["review"]
        logged = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
        assert digests(logged / "bundle").items() >= digests(bundle).items()
        # Registered is the whole bundle, and a notebook can load it.
        (version,) = client.search_model_versions(f"name='{name}'")
        assert version.run_id == run.info.run_id
        model = mlflow.pyfunc.load_model(f"models:/{name}/{version.version}")
        rows = pd.read_json(bundle / "golden.jsonl", lines=True)
        answer = model.predict(rows[list(FEATURES)].astype(float))
        assert np.abs(answer["score"] - rows["expected_score"]).max() <= 1e-5
        plots = {path.name for path in (logged / "plots").iterdir()}
        assert plots == {"calibration.png", "precision_recall.png", "scores.png"}

    # And what was made can be used.
    output = no_sample / "scores.jsonl"
    bundle = no_sample / "models-synthetic" / "fraud"
    golden = bundle / "golden.jsonl"
    assert (
        main(["score", "--model", str(bundle), "--input", str(golden), "--output", str(output)])
        == 0
    )
    assert len(output.read_text("utf-8").splitlines()) >= 200


@pytest.mark.usefixtures("no_sample")
def test_synthetic_models_are_refused_as_the_committed_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    committed = digests(paths.MODELS)
    assert main(["train", "--output", str(paths.MODELS)]) == 1
    assert "refusing to overwrite" in capsys.readouterr().err
    assert digests(paths.MODELS) == committed


def test_a_data_file_that_is_not_there_is_an_error_not_a_fallback(
    no_sample: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(no_sample / "gone.csv")]) == 1
    assert "no such data file" in capsys.readouterr().err
    assert not (no_sample / "models-synthetic").exists()


def test_without_data_and_profile_the_fix_is_named(
    no_sample: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(paths, "PROFILE", no_sample / "fraud" / "reference.json")
    assert main(["train"]) == 1
    assert "Get creditcard.csv from https://www.kaggle.com" in capsys.readouterr().err
