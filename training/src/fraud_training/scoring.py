"""Scores a file with a finished bundle, by ONNX Runtime from Python.

The counterpart of `fraud-scorer score`: same input, same order, so the two can be compared row by
row. Reads object-form JSON lines or a Kaggle CSV; looks only at the fields the bundle names.
"""

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fraud_training.dataset import read_frame
from fraud_training.errors import UserError
from fraud_training.export import run_onnx, shortest

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Feature:
    name: str
    default: float | None = None


def bundle_features(bundle: Path) -> list[Feature]:
    """The inputs a bundle names, in column order."""
    path = bundle / "manifest.toml"
    if not path.is_file():
        raise UserError(f"no bundle at {bundle}: manifest.toml is missing")
    with path.open("rb") as file:
        content = tomllib.load(file)
    return [Feature(f["name"], f.get("default")) for f in content["input"]["features"]]


def read_jsonl(path: Path, features: list[Feature]) -> tuple[list[Any], NDArray[np.float32]]:
    """Transaction ids and feature rows of a file of JSON objects, one per line."""
    ids: list[Any] = []
    rows: list[list[float]] = []
    for place, line in _lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{place} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise UserError(f"{place} is not a JSON object")
        row = []
        for feature in features:
            value = record.get(feature.name, feature.default)
            if value is None:
                raise UserError(f"{place} lacks the field {feature.name!r}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(f"{place}: the field {feature.name!r} is not a number")
            if not abs(value) <= LARGEST:  # NaN fails this too
                raise UserError(f"{place}: the field {feature.name!r} is not a finite number")
            row.append(float(value))
        ids.append(record.get("transaction_id"))
        rows.append(row)
    return ids, np.array(rows, dtype=np.float32).reshape(len(rows), len(features))


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        raise UserError(f"no such input file: {path}")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"line {number} of {path.name}", line


def read_csv(path: Path, features: list[Feature]) -> tuple[list[Any], NDArray[np.float32]]:
    """The same of a CSV with one column per feature."""
    if not path.is_file():
        raise UserError(f"no such input file: {path}")
    frame = read_frame(path)
    for feature in features:
        if feature.name not in frame.columns:
            if feature.default is None:
                raise UserError(f"column {feature.name!r} is missing from {path.name}")
            frame[feature.name] = feature.default
    try:
        values = frame[[f.name for f in features]].to_numpy(dtype=np.float32)
    except ValueError as error:
        raise UserError(f"{path.name} holds a value that is not a number: {error}") from error
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise UserError(
            f"column {features[column].name!r} of {path.name} is not a finite number "
            f"in data row {row + 1}"
        )
    ids: list[Any] = (
        frame["transaction_id"].tolist()
        if "transaction_id" in frame.columns
        else [None] * len(frame)
    )
    return ids, values


def score_file(bundle: Path, output: Path, *, jsonl: Path | None, csv: Path | None) -> int:
    """Writes one line per input row, in order; returns how many."""
    features = bundle_features(bundle)
    if csv is not None:
        ids, rows = read_csv(csv, features)
    elif jsonl is not None:
        ids, rows = read_jsonl(jsonl, features)
    else:
        raise UserError("name the input: --input FILE (JSON lines) or --csv FILE")
    scores = run_onnx(bundle / "model.onnx", rows) if len(rows) else np.empty(0, np.float32)
    with output.open("w", encoding="utf-8") as file:
        for transaction_id, score in zip(ids, scores, strict=True):
            record = {"transaction_id": transaction_id, "score": shortest(score)}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return len(rows)
