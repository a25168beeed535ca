"""Lets MLflow load a bundle: `mlflow.pyfunc.load_model("models:/fraud@champion")`.

A copy of this file travels in every registered version, so a notebook needs MLflow, ONNX Runtime
and pandas, and not this package. It reads what the worker reads, manifest and model, and answers
one row per row: `score` and `decision`. (MLflow's own ONNX flavour would run the two columns of the
output together into one.)
"""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd


class BundleModel:
    """A bundle's model behind MLflow's `predict`."""

    def __init__(self, directory: Path) -> None:
        manifest = tomllib.loads((directory / "manifest.toml").read_text(encoding="utf-8"))
        self._features = [feature["name"] for feature in manifest["input"]["features"]]
        self._input = manifest["input"]["tensor"]
        self._output = manifest["output"]["tensor"]
        self._column = manifest["output"].get("column")
        self._thresholds = [manifest["thresholds"][name] for name in ("review", "decline")]
        self._session = onnxruntime.InferenceSession(
            str(directory / manifest["model"]), providers=["CPUExecutionProvider"]
        )

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Score and decision per row; columns may come in any order, others are ignored."""
        rows = np.ascontiguousarray(data[self._features].to_numpy(dtype=np.float32))
        (values,) = self._session.run([self._output], {self._input: rows})
        table = np.asarray(values, dtype=np.float32)
        score = table.reshape(-1) if self._column is None else table[:, self._column]
        names = np.array(["approve", "review", "decline"])
        # As the worker: at a threshold is above it.
        band = np.digitize(score, np.array(self._thresholds, dtype=np.float32))
        return pd.DataFrame({"score": score, "decision": names[band]}, index=data.index)


def _load_pyfunc(path: str) -> BundleModel:
    """What MLflow calls, with the directory of the model."""
    place = Path(path)
    return BundleModel(place if place.is_dir() else place.parent)
