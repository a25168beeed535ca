"""What happened, to MLflow: parameters, metrics, plots and bundles, one run per model.

`MLFLOW_TRACKING_URI` names the server. Without it the store is an SQLite file under
`.runtime/mlflow/`, with the artifacts beside it (MLflow's plain file store is deprecated).
"""

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Before the import: a training run on someone's machine reports to nobody but its own store.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow

from fraud_training import paths, registry

EXPERIMENT = "fraud-scorer"


def connect(experiment: str) -> str:
    """Points MLflow at its store, makes sure the experiment exists, returns the store's URI."""
    if not use_store():
        # The first to come makes the tables: not two at once.
        store = paths.TRACKING_STORE
        with (store / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if mlflow.get_experiment_by_name(experiment) is None:
                place = (store / "artifacts").as_uri()
                mlflow.create_experiment(experiment, artifact_location=place)
    mlflow.set_experiment(experiment)
    return str(mlflow.get_tracking_uri())


def use_store() -> bool:
    """Points MLflow at its store, without a write to it; says whether it is a server's."""
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    if configured:
        mlflow.set_tracking_uri(configured)
        return True
    paths.TRACKING_STORE.mkdir(parents=True, exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{paths.TRACKING_STORE / 'mlflow.db'}")
    return False


def git_revision() -> str | None:
    """The commit the code was at, if this is a git checkout with git at hand."""
    try:
        done = subprocess.run(
            ["git", "-C", str(paths.REPOSITORY), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@contextmanager
def run(name: str, tags: Mapping[str, str]) -> Iterator[str]:
    """One MLflow run; yields its id."""
    with mlflow.start_run(run_name=name, tags=dict(tags)) as active:
        yield str(active.info.run_id)


def record(
    parameters: Mapping[str, object],
    metrics: Mapping[str, float],
    plots: list[Path],
    bundle: Path,
) -> None:
    """Logs to the active run."""
    mlflow.log_params(dict(parameters))
    mlflow.log_metrics(dict(metrics))
    for plot in plots:
        mlflow.log_artifact(str(plot), "plots")
    with registry.staged(bundle) as copy:
        mlflow.log_artifacts(str(copy), registry.ARTEFACT)
