"""What every Python contender does alike: settings, ONNX Runtime, the form of a verdict."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

FEATURES = 29

Rows = npt.NDArray[np.float32]


def setting(name: str, otherwise: str | None = None) -> str:
    value = os.environ.get(name) or otherwise
    if value is None:
        raise SystemExit(f"{name} is not set")
    return value


def milliseconds(name: str, otherwise: str) -> float:
    """A duration, in seconds."""
    return int(setting(name, otherwise)) / 1000


class Model:
    """One session without threads of its own, at the caller's disposal."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)

    def scores(self, rows: Rows) -> list[float]:
        """The probabilities of label 1."""
        (probabilities,) = self._session.run(["probabilities"], {"input": rows})
        return probabilities[:, 1].tolist()


def row_of(transaction: Any) -> list[float] | None:
    """The numbers of a parsed record; None if they are not one row of 29.

    The order of "columns" is taken for granted, which favours these contenders: fraud-scorer looks
    at the names.
    """
    try:
        (row,) = transaction["data"]
        return row if len(row) == FEATURES else None
    except (KeyError, TypeError, ValueError):
        return None


def array_of(rows: list[list[float]]) -> Rows:
    return np.array(rows, dtype=np.float32)


def verdict(key: str, score: float) -> dict[str, Any]:
    return {"key": key, "score": score, "label": int(score > 0.5)}


def rejection(key: str) -> dict[str, Any]:
    return {"key": key, "error": "no row of 29 numbers"}
