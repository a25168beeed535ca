"""Makes what the benchmark scores: two model bundles and the records, the same for the same seed.

    drawn rows ─► records.jsonl     200,000 split-form transactions of about 525 bytes,
               │                    numbers with 6 decimals
               ├► lr/               logistic regression behind a scaler
               └► xgb/              XGBoost, 200 trees of depth 6

    python benches/workload/make.py .runtime/bench

Each bundle holds model.onnx, manifest.toml and golden.jsonl, and for contenders that want the
model in its own library's form native.joblib (lr) or native.ubj (xgb). Does nothing where the
folder was made by this very script. The rows mean nothing: what counts is that every contender
gets the same ones, that the trees are full-grown, and that about one row in 200 is a fraud.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnxruntime
import xgboost
from numpy.typing import NDArray
from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost
from skl2onnx import to_onnx, update_registered_converter
from skl2onnx.common.data_types import FloatTensorType
from skl2onnx.common.shape_calculator import calculate_linear_classifier_output_shapes
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 7
TRAINING_ROWS = 300_000
RECORDS = 200_000
GOLDEN = 256
DECIMALS = 6
FEATURES = [f"V{number}" for number in range(1, 29)] + ["Amount"]

update_registered_converter(
    xgboost.XGBClassifier,
    "XGBoostXGBClassifier",
    calculate_linear_classifier_output_shapes,
    convert_xgboost,
    options={"nocl": [True, False], "zipmap": [True, False, "columns"]},
)


def draw() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Rows, and which are frauds: beyond a slightly bent plane, with noise, the outer 0.5 %."""
    random = np.random.default_rng(SEED)
    rows = random.normal(size=(TRAINING_ROWS, len(FEATURES))).astype(np.float32)
    rows[:, 28] = random.lognormal(3, 1.5, TRAINING_ROWS)
    weights = random.normal(size=len(FEATURES)) * 0.8
    height = rows[:, :28] @ weights[:28] + 0.3 * rows[:, 0] * rows[:, 3] - 0.002 * rows[:, 28]
    # Without noise the classes could be told apart perfectly, and every score would be 0 or 1.
    height += random.logistic(scale=1.0, size=TRAINING_ROWS)
    return rows, (height > np.quantile(height, 0.995)).astype(int)


def fit(rows: NDArray[np.float32], fraud: NDArray[np.int64]) -> dict[str, Any]:
    """The two models."""
    trees = xgboost.XGBClassifier(
        n_estimators=200,
        max_depth=6,
        learning_rate=0.1,
        scale_pos_weight=float((fraud == 0).sum() / (fraud == 1).sum()),
        tree_method="hist",
        random_state=SEED,
    )
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    return {"lr": linear.fit(rows, fraud), "xgb": trees.fit(rows, fraud)}


def write_bundle(directory: Path, model: Any, rows: NDArray[np.float32]) -> None:
    """One bundle; its golden records are scored by ONNX Runtime."""
    directory.mkdir()
    graph = to_onnx(
        model,
        initial_types=[("input", FloatTensorType([None, len(FEATURES)]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    graph.graph.name = directory.name  # otherwise a random uuid
    content = graph.SerializeToString(deterministic=True)
    (directory / "model.onnx").write_bytes(content)
    if isinstance(model, xgboost.XGBClassifier):
        model.save_model(directory / "native.ubj")
    else:
        joblib.dump(model, directory / "native.joblib")

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    written = np.array([[round(float(value), DECIMALS) for value in row] for row in rows])
    (scores,) = session.run(["probabilities"], {"input": written.astype(np.float32)})
    lines = []
    for index, (row, score) in enumerate(zip(written, scores[:, 1], strict=True)):
        record = {"transaction_id": f"golden-{index}", "event_time": 1_700_000_000_000 + index}
        record |= dict(zip(FEATURES, row.tolist(), strict=True))
        lines.append(json.dumps(record | {"expected_score": float(score)}))
    (directory / "golden.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")

    features = "".join(f'    {{ name = "{feature}" }},\n' for feature in FEATURES)
    manifest = f"""\
name = "bench-{directory.name}"
version = "1"
model = "model.onnx"
sha256 = "{hashlib.sha256(content).hexdigest()}"

[input]
tensor = "input"
features = [
{features}]

[output]
tensor = "probabilities"
column = 1

[thresholds]
review = 0.5
decline = 0.9
"""
    (directory / "manifest.toml").write_text(manifest, encoding="utf-8")


def write_records(path: Path, rows: NDArray[np.float32]) -> None:
    """One split-form record per row."""
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            numbers = [round(float(value), DECIMALS) for value in row]
            size += file.write(json.dumps({"columns": FEATURES, "data": [numbers]}) + "\n")
    print(f"{len(rows)} records of {size / len(rows) - 1:.0f} bytes in the mean", file=sys.stderr)


def build_once(destination: Path, scripts: list[Path], build: Callable[[Path], None]) -> None:
    """Makes the folder by `build`, unless these very scripts have already made it."""
    stamp = hashlib.sha256(b"".join(script.read_bytes() for script in scripts)).hexdigest()
    made_by = destination / "made-by"
    if made_by.is_file() and made_by.read_text(encoding="utf-8") == stamp:
        return
    print(f"making {destination}: a minute or less", file=sys.stderr)
    building = destination.with_name(destination.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    build(building)
    (building / "made-by").write_text(stamp, encoding="utf-8")
    shutil.rmtree(destination, ignore_errors=True)
    building.rename(destination)


def build(directory: Path) -> None:
    """The two bundles and the records."""
    rows, fraud = draw()
    for name, model in fit(rows, fraud).items():
        write_bundle(directory / name, model, rows[RECORDS : RECORDS + GOLDEN])
    write_records(directory / "records.jsonl", rows[:RECORDS])


if __name__ == "__main__":
    build_once(Path(sys.argv[1]), [Path(__file__)], build)
