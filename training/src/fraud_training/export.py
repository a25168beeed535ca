"""Turns a fitted estimator into a bundle: the directory that the Rust side loads.

    Fitted ─► ONNX graph (float32 [rows, 29] in, probabilities [rows, 2] out, scaling inside)
           ─► manifest.toml · model.onnx · golden.jsonl · reference.json · MODEL_CARD.md
              and a native copy of the model, which the parity tests compare against

A bundle is written beside its destination, checked there against the native model, and moved into
place, so a reader finds either the old bundle or the new one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import xgboost
from numpy.typing import NDArray
from onnxmltools.convert.xgboost.operator_converters.XGBoost import (
    convert_xgboost,
)
from scipy.special import expit
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes

from fraud_training import FEATURES
from fraud_training.evaluate import Thresholds
from fraud_training.models import Fitted
from fraud_training.profile import DECIMALS, Profile

OPSET = {"": 17, "ai.onnx.ml": 3}
GOLDEN_TOLERANCE = 1e-5
GOLDEN_START = 1_700_000_000_000  # 2023-11-14: any fixed time does, the model does not see it
GOLDEN_PER_BAND = 60
GOLDEN_ROWS = 240


class ExportError(Exception):
    """The exported model does not say what the trained one says."""


update_registered_converter(
    xgboost.XGBClassifier,
    "XGBoostXGBClassifier",
    calculate_linear_classifier_output_shapes,
    convert_xgboost,
    options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
)


def to_graph(fitted: Fitted, name: str) -> onnx.ModelProto:
    """The ONNX form of a fitted model, the same bytes for the same model."""
    graph: onnx.ModelProto = to_onnx(
        fitted.estimator,
        initial_types=[("input", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
        target_opset=OPSET,
    )
    # The converter names the graph by a random uuid; and the label is the decision's business.
    graph.graph.name = name
    graph.doc_string = graph.graph.doc_string = ""
    kept = [output for output in graph.graph.output if output.name == "probabilities"]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)
    # The converter may import one domain twice; a strict reader would refuse that.
    versions = {entry.domain: entry.version for entry in graph.opset_import}
    del graph.opset_import[:]
    graph.opset_import.extend(onnx.helper.make_opsetid(*item) for item in sorted(versions.items()))
    onnx.checker.check_model(graph)
    return graph


def run_onnx(model: Path | bytes, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of fraud per row, by ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model,
        options,
        providers=["CPUExecutionProvider"],
    )
    (probabilities,) = session.run(["probabilities"], {"input": features})
    column: NDArray[np.float32] = np.asarray(probabilities, dtype=np.float32)[:, 1]
    return column


def save_native(fitted: Fitted, directory: Path) -> Path:
    """The model in a format of its own library that holds data only, no code."""
    if fitted.candidate.family == "xgboost":
        path = directory / "native.ubj"
        fitted.estimator.save_model(path)
        return path
    scaler, model = fitted.estimator["scale"], fitted.estimator["classify"]
    path = directory / "native.json"
    content = {
        "features": list(FEATURES),
        "mean": scaler.mean_.tolist(),
        "scale": scaler.scale_.tolist(),
        "coef": model.coef_[0].tolist(),
        "intercept": float(model.intercept_[0]),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def run_native(bundle: Path, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scores by the bundle's native copy, without ONNX."""
    tree = bundle / "native.ubj"
    if tree.is_file():
        model = xgboost.XGBClassifier(n_jobs=1)
        model.load_model(tree)
        scores: NDArray[np.float64] = model.predict_proba(features)[:, 1].astype(np.float64)
        return scores
    linear = json.loads((bundle / "native.json").read_text(encoding="utf-8"))
    scaled = (features.astype(np.float64) - np.array(linear["mean"])) / np.array(linear["scale"])
    logistic: NDArray[np.float64] = expit(scaled @ np.array(linear["coef"]) + linear["intercept"])
    return logistic


def golden_features(
    fitted: Fitted, profile: Profile, thresholds: Thresholds, seed: int
) -> NDArray[np.float32]:
    """Synthetic records to check an engine by: every decision band, then edge rows."""
    random = np.random.default_rng(seed)
    pool = np.vstack([profile.draw(random, 6_000, label=0), profile.draw(random, 3_000, label=1)])
    score = fitted.predict(pool)
    band = np.digitize(score, [thresholds.review, thresholds.decline])
    chosen: list[int] = []
    for value in (0, 1, 2):
        rows = np.flatnonzero(band == value)
        chosen.extend(random.permutation(rows)[:GOLDEN_PER_BAND].tolist())
    rest = np.setdiff1d(np.arange(len(pool)), chosen)
    edges = edge_features(pool)
    chosen.extend(random.permutation(rest)[: GOLDEN_ROWS - len(edges) - len(chosen)].tolist())
    return np.vstack([pool[random.permutation(chosen)], edges])


def edge_features(pool: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows at the edge of what may come in: zeros, huge and tiny amounts, far outliers."""
    zeros = np.zeros((1, len(FEATURES)), dtype=np.float32)
    amounts = np.repeat(np.median(pool, axis=0, keepdims=True).astype(np.float32), 6, axis=0)
    amounts[:, -1] = [0.0, 0.01, 1.0, 25_691.16, 1_000_000.0, 1e9]
    outliers = np.vstack([np.full((1, len(FEATURES)), v, np.float32) for v in (-100, -1, 1, 100)])
    tiny = np.full((1, len(FEATURES)), 1e-7, np.float32)
    return np.vstack([zeros, amounts, outliers, tiny]).astype(np.float32)


def golden_lines(features: NDArray[np.float32], scores: NDArray[np.float64]) -> list[str]:
    """Object-form records with the native model's score."""
    lines = []
    for index, (row, score) in enumerate(zip(features, scores, strict=True)):
        record: dict[str, Any] = {
            "transaction_id": f"golden-{index + 1:04}",
            "event_time": GOLDEN_START + 1_000 * index,
        }
        for name, value in zip(FEATURES, row, strict=True):
            record[name] = shortest(value, DECIMALS.get(name))
        record["expected_score"] = shortest(np.float32(score))
        lines.append(json.dumps(record, separators=(",", ":")))
    return lines


def shortest(value: np.float32, decimals: int | None = None) -> float:
    """The shortest decimal number that rounds to the same float32."""
    if decimals is not None:
        rounded = round(float(value), decimals)
        if np.float32(rounded) == value:
            return rounded
    return float(str(np.float32(value)))


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle."""

    fitted: Fitted
    name: str
    version: str
    thresholds: Thresholds
    profile: Profile
    reference: Mapping[str, Any]
    training: Mapping[str, str | float | int]
    card: str
    seed: int


def write_bundle(destination: Path, contents: Contents) -> Path:
    """Writes the whole bundle and moves it to `destination`, replacing what was there."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    building = destination.parent / f".{destination.name}.building-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        graph = to_graph(contents.fitted, contents.name).SerializeToString(deterministic=True)
        (building / "model.onnx").write_bytes(graph)
        save_native(contents.fitted, building)
        features = golden_features(
            contents.fitted, contents.profile, contents.thresholds, contents.seed
        )
        scores = run_native(building, features)
        difference = np.abs(run_onnx(building / "model.onnx", features) - scores).max()
        if not difference <= GOLDEN_TOLERANCE:
            raise ExportError(f"ONNX Runtime differs from the trained model by {difference}")
        texts = {
            "golden.jsonl": "\n".join(golden_lines(features, scores)) + "\n",
            "reference.json": json.dumps(contents.reference, separators=(",", ":")) + "\n",
            "MODEL_CARD.md": contents.card,
        }
        for file, text in texts.items():
            (building / file).write_text(text, encoding="utf-8")
        hashes = {file: sha256(building / file) for file in ("model.onnx", *sorted(texts))}
        text = manifest(contents, hashes)
        (building / "manifest.toml").write_text(text, encoding="utf-8")
        replace_directory(building, destination)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return destination


def replace_directory(new: Path, destination: Path) -> None:
    """Moves `new` to `destination`; two renames, so the gap without a bundle is microseconds."""
    old = destination.parent / f".{destination.name}.old-{os.getpid()}"
    if destination.exists():
        destination.rename(old)
    new.rename(destination)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def manifest(contents: Contents, hashes: dict[str, str]) -> str:
    """`manifest.toml`: all that an engine must know to serve the model. `hashes` are SHA-256."""
    files = "".join(f'"{file}" = "{hashes[file]}"\n' for file in hashes if file != "model.onnx")
    features = "".join(f'    {{ name = "{feature}" }},\n' for feature in FEATURES)
    facts = "".join(f"{key} = {json.dumps(value)}\n" for key, value in contents.training.items())
    return f"""\
name = "{contents.name}"
version = "{contents.version}"
kind = "classifier"
model = "model.onnx"
sha256 = "{hashes["model.onnx"]}"

[input]
tensor = "input"
features = [
{features}]

[output]
tensor = "probabilities"
column = 1

[thresholds]
review = {contents.thresholds.review!r}
decline = {contents.thresholds.decline!r}

[files]
{files}
[training]
{facts}"""
