"""The committed bundles keep the contract with the engine."""

import hashlib
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
import xgboost

from fraud_training import FEATURES, paths
from fraud_training.export import GOLDEN_TOLERANCE, edge_features, run_native, run_onnx
from fraud_training.fidelity import ProfileCheck, check_bundle
from fraud_training.profile import Profile

SCHEMAS = Path(__file__).parents[1] / "schemas"
PARITY = 1e-6


def schema(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))
    return content


def manifest(bundle: Path) -> dict[str, Any]:
    return tomllib.loads((bundle / "manifest.toml").read_text("utf-8"))


def reference(bundle: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((bundle / "reference.json").read_text("utf-8"))
    return content


def golden(bundle: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bundle / "golden.jsonl").read_text("utf-8").splitlines()]


def golden_rows(bundle: Path) -> tuple[np.ndarray, np.ndarray]:
    records = golden(bundle)
    rows = np.array([[r[name] for name in FEATURES] for r in records], dtype=np.float32)
    return rows, np.array([r["expected_score"] for r in records])


def test_manifest_names_model_and_inputs(bundle: Path) -> None:
    content = manifest(bundle)
    jsonschema.validate(content, schema("manifest"))
    assert content["name"] == bundle.name
    assert tuple(f["name"] for f in content["input"]["features"]) == FEATURES
    assert not any("default" in f for f in content["input"]["features"])
    model = (bundle / content["model"]).read_bytes()
    assert hashlib.sha256(model).hexdigest() == content["sha256"]
    assert content["thresholds"]["review"] < content["thresholds"]["decline"]


def test_graph_is_the_declared_function(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx")
    onnx.checker.check_model(model)
    assert [i.name for i in model.graph.input] == ["input"]
    assert [o.name for o in model.graph.output] == ["probabilities"]
    domains = [entry.domain for entry in model.opset_import]
    assert sorted(domains) == sorted(set(domains))
    batch, width = model.graph.input[0].type.tensor_type.shape.dim
    assert not batch.HasField("dim_value"), "the batch dimension must be free"
    assert width.dim_value == len(FEATURES)
    rows, _ = golden_rows(bundle)
    together = run_onnx(bundle / "model.onnx", rows)
    alone = np.concatenate([run_onnx(bundle / "model.onnx", rows[i : i + 1]) for i in range(5)])
    assert np.abs(together[:5] - alone).max() <= PARITY


def test_native_onnx_and_golden_scores_agree(bundle: Path) -> None:
    rows, expected = golden_rows(bundle)
    native = run_native(bundle, rows)
    assert np.abs(native - expected).max() <= PARITY
    assert np.abs(run_onnx(bundle / "model.onnx", rows) - native).max() <= GOLDEN_TOLERANCE


def test_golden_records_cover_all_bands_and_edges(bundle: Path) -> None:
    records = golden(bundle)
    assert len(records) >= 200
    for record in records:
        jsonschema.validate(record, schema("golden"))
    assert len({r["transaction_id"] for r in records}) == len(records)
    rows, expected = golden_rows(bundle)
    bands = np.digitize(expected, list(manifest(bundle)["thresholds"].values()))
    assert np.bincount(bands, minlength=3).min() >= 20
    assert (rows == 0).all(axis=1).any()
    assert rows[:, -1].max() >= 1e6


def test_golden_values_are_exact_float32(bundle: Path) -> None:
    for record in golden(bundle):
        for name in FEATURES:
            value = np.float32(record[name])
            assert float(str(value)) == record[name] or name == "Amount"
        assert float(str(np.float32(record["expected_score"]))) == record["expected_score"]


def test_reference_is_whole_and_consistent(bundle: Path) -> None:
    content = reference(bundle)
    jsonschema.validate(content, schema("reference"))
    assert [f["name"] for f in content["features"]] == list(FEATURES)
    for histogram in (*content["features"], content["score"]):
        assert len(histogram["shares"]) == len(histogram["cuts"]) + 1
        assert sum(histogram["shares"]) == pytest.approx(1.0)
        assert histogram["cuts"] == sorted(set(histogram["cuts"]))
    levels = content["profile"]["levels"]
    assert (levels[0], levels[-1]) == (0.0, 1.0)
    assert levels == sorted(set(levels))
    fraud = 0.0
    for component in content["profile"]["components"]:
        assert [f["name"] for f in component["features"]] == list(FEATURES)
        for feature in component["features"]:
            assert len(feature["quantiles"]) == len(levels)
            assert feature["quantiles"] == sorted(feature["quantiles"])
        assert np.array(component["covariance"]).shape == (len(FEATURES),) * 2
        assert [len(row) for row in component["correlation_cholesky"]] == [
            *range(1, len(FEATURES) + 1)
        ]
        fraud += component["share"] * component["label"]
    assert sum(c["share"] for c in content["profile"]["components"]) == pytest.approx(1.0)
    assert fraud == pytest.approx(content["fraud_share"], rel=1e-4)


def test_profile_scores_like_the_data(bundle: Path) -> None:
    stored = ProfileCheck.from_json(reference(bundle)["profile_check"])
    assert stored.complaints() == []
    # Drawn again, with another seed, by the committed model: the stored figures are no accident.
    fresh = check_bundle(bundle)
    assert fresh.complaints() == []
    assert fresh.seed != stored.seed
    assert fresh.drawn.recall_at_review == pytest.approx(stored.drawn.recall_at_review, abs=0.02)


def test_nothing_of_the_machine_is_in_the_bundle(bundle: Path) -> None:
    leak = re.compile(rb"/(home|root|tmp|Users|opt|var)/|" + re.escape(bytes(paths.REPOSITORY)))
    for path in bundle.iterdir():
        assert not leak.search(path.read_bytes()), path.name


def tree_cuts(bundle: Path) -> list[tuple[int, np.float32]]:
    """Every (feature, threshold) the committed trees split on, from the native model."""
    booster = xgboost.Booster()
    booster.load_model(bundle / "native.ubj")
    found: set[tuple[int, np.float32]] = set()

    def visit(node: dict[str, Any]) -> None:
        if "split" in node:
            found.add((int(node["split"].removeprefix("f")), np.float32(node["split_condition"])))
            for child in node["children"]:
                visit(child)

    for tree in booster.get_dump(dump_format="json"):
        visit(json.loads(tree))
    return sorted(found)


def test_trees_split_alike_at_and_next_to_every_cut() -> None:
    bundle = paths.MODELS / "fraud"
    cuts = tree_cuts(bundle)
    assert len(cuts) > 100
    profile = Profile.from_json(reference(bundle)["profile"])
    random = np.random.default_rng(0)
    base = np.vstack([profile.draw(random, 2, label) for label in (0, 1)])
    rows = []
    for feature, cut in cuts:
        for value in (
            cut,
            np.nextafter(cut, np.float32(-np.inf)),
            np.nextafter(cut, np.float32(np.inf)),
        ):
            row = base[random.integers(len(base))].copy()
            row[feature] = value
            rows.append(row)
    table = np.array(rows, dtype=np.float32)
    native, exported = run_native(bundle, table), run_onnx(bundle / "model.onnx", table)
    assert np.abs(native - exported).max() <= PARITY


def test_a_cut_belongs_to_the_right_branch() -> None:
    """Guards the test above: crossing a cut must change some scores, or it proves nothing."""
    bundle = paths.MODELS / "fraud"
    profile = Profile.from_json(reference(bundle)["profile"])
    base = profile.draw(np.random.default_rng(0), 1, label=1)
    moved = 0
    for feature, cut in tree_cuts(bundle):
        pair = np.repeat(base, 2, axis=0)
        pair[:, feature] = [cut, np.nextafter(cut, np.float32(-np.inf))]
        below, at = run_native(bundle, pair)
        moved += bool(below != at)
    assert moved > 50


def test_edge_rows_give_probabilities(bundle: Path) -> None:
    rows, _ = golden_rows(bundle)
    scores = run_onnx(bundle / "model.onnx", edge_features(rows))
    assert np.isfinite(scores).all()
    assert ((scores >= 0) & (scores <= 1)).all()
