"""MLflow's scoring server on PORT, with the model of BUNDLE in the flavour of its own library.

Saves the model to the folder SAVED_MODEL, or else to SCRATCH/model, then becomes `mlflow models
serve`. uvloop and httptools are installed beside it, which MLflow does not ask for: uvicorn takes
them, and without them a call over a connection that stays open takes 48 ms with two workers.
"""

import os
import sys
from pathlib import Path

import joblib
import mlflow.sklearn
import mlflow.xgboost
import xgboost

COLUMNS = [f"V{number}" for number in range(1, 29)] + ["Amount"]


def save(bundle: Path, destination: str) -> None:
    # Named, so that MLflow does not spend a minute on finding them out.
    requirements = ["mlflow", "scikit-learn", "xgboost-cpu"]
    if (bundle / "native.ubj").is_file():
        booster = xgboost.Booster()
        booster.load_model(bundle / "native.ubj")
        booster.feature_names = COLUMNS
        mlflow.xgboost.save_model(booster, destination, pip_requirements=requirements)
    else:
        mlflow.sklearn.save_model(
            joblib.load(bundle / "native.joblib"),
            destination,
            pyfunc_predict_fn="predict_proba",
            serialization_format="cloudpickle",
            pip_requirements=requirements,
        )


def main() -> None:
    model = os.environ.get("SAVED_MODEL") or f"{os.environ['SCRATCH']}/model"
    save(Path(os.environ["BUNDLE"]), model)
    workers = os.environ.get("WORKERS", "1")
    binaries = Path(sys.executable).parent
    os.environ["PATH"] = f"{binaries}:{os.environ['PATH']}"
    os.environ["OMP_NUM_THREADS"] = "1"
    # Neither a line per call nor a warning per call.
    os.environ["UVICORN_LOG_LEVEL"] = "warning"
    os.environ["PYTHONWARNINGS"] = "ignore"
    command = ["mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", os.environ["PORT"], "--workers", workers]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
