"""Champion and candidate are compared as the worker would run them, on the same resampled rows."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from fraud_training import FEATURES, paths
from fraud_training.compare import (
    BrokenBundleError,
    Curve,
    latencies,
    open_bundle,
    paired_bootstrap,
)
from fraud_training.dataset import Dataset
from fraud_training.evaluate import Scored, bootstrap, metrics
from fraud_training.export import run_onnx


def random_scores(seed: int, ties: bool, rows: int = 2_000) -> Scored:
    random = np.random.default_rng(seed)
    label = (random.random(rows) < 0.05).astype(np.int8)
    score = random.normal(size=rows) + 1.5 * label
    if ties:
        score = score.round(1)
    return Scored(1 / (1 + np.exp(-score)), label, random.uniform(0.5, 20.0, rows))


@pytest.mark.parametrize("ties", [False, True])
def test_resampled_figures_are_scikit_learns(ties: bool) -> None:
    scored = random_scores(1, ties)
    counts = np.random.default_rng(2).integers(0, 4, len(scored))
    found = Curve.of(scored.score).figures(scored.label, scored.weight * counts)
    # The same resample, spelt out row by row.
    rows = np.repeat(np.arange(len(scored)), counts)
    wanted = metrics(scored.take(rows))
    assert found[0] == pytest.approx(wanted["average_precision"], rel=1e-12)
    assert found[1] == pytest.approx(wanted["recall_at_1pct_fpr"], abs=1e-9)


def test_a_model_is_not_better_than_itself() -> None:
    scored = random_scores(3, ties=True)
    paired = paired_bootstrap(scored, scored, seed=1, resamples=50)
    for difference in (paired.average_precision, paired.recall):
        assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)


def test_pairing_sees_a_small_steady_gain() -> None:
    """The interval of the difference is far narrower than that of either model."""
    better = random_scores(4, ties=False, rows=20_000)
    noise = np.random.default_rng(5).normal(0.0, 0.35, len(better))
    logit = np.log(better.score / (1 - better.score)) + noise
    worse = Scored(1 / (1 + np.exp(-logit)), better.label, better.weight)
    paired = paired_bootstrap(better, worse, seed=1, resamples=200)
    assert paired.average_precision.value == pytest.approx(
        average_precision_score(better.label, better.score, sample_weight=better.weight)
        - average_precision_score(worse.label, worse.score, sample_weight=worse.weight)
    )
    assert paired.average_precision.low > 0.0

    def statistic(scored: Scored) -> dict[str, float]:
        return {"average_precision": Curve.of(scored.score).figures(scored.label, scored.weight)[0]}

    alone = bootstrap(better, statistic, seed=1, resamples=200)["average_precision"]
    width = paired.average_precision.high - paired.average_precision.low
    assert width < 0.6 * (alone.high - alone.low)
    again = paired_bootstrap(better, worse, seed=1, resamples=200)
    assert np.array_equal(again.draws, paired.draws)
    back = paired_bootstrap(worse, better, seed=1, resamples=200)
    assert back.average_precision.high == pytest.approx(-paired.average_precision.low)


def test_an_opened_bundle_scores_as_the_graph_does(bundle: Path, drawn: Dataset) -> None:
    opened = open_bundle(bundle)
    assert opened.features == FEATURES
    assert opened.golden_difference <= 1e-5
    expected = run_onnx(bundle / "model.onnx", drawn.features)
    assert np.array_equal(opened.score(drawn.features), expected.astype(np.float64))


def alter_model(bundle: Path) -> None:
    content = bytearray((bundle / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (bundle / "model.onnx").write_bytes(bytes(content))


def torn_model(bundle: Path) -> None:
    content = (bundle / "model.onnx").read_bytes()[:1_000]
    (bundle / "model.onnx").write_bytes(content)
    manifest = (bundle / "manifest.toml").read_text("utf-8").splitlines()
    digest = hashlib.sha256(content).hexdigest()
    lines = [f'sha256 = "{digest}"' if line.startswith("sha256") else line for line in manifest]
    (bundle / "manifest.toml").write_text("\n".join(lines), "utf-8")


def other_golden(bundle: Path) -> None:
    other = (bundle / "golden.jsonl").read_text("utf-8").splitlines()[:1] * 3
    (bundle / "golden.jsonl").write_text("\n".join(["{}", *other]), "utf-8")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda bundle: (bundle / "manifest.toml").unlink(), "manifest.toml"),
        (lambda bundle: (bundle / "model.onnx").unlink(), "model.onnx"),
        (lambda bundle: (bundle / "golden.jsonl").unlink(), "golden.jsonl"),
        (lambda bundle: (bundle / "golden.jsonl").write_text("", "utf-8"), "golden"),
        (lambda bundle: (bundle / "manifest.toml").write_text("name = 3", "utf-8"), "KeyError"),
        (alter_model, "SHA-256"),
        (torn_model, "Error|Fail|InvalidProtobuf|Invalid"),
        (other_golden, "golden.jsonl"),
    ],
)
def test_a_bundle_no_worker_would_serve_is_told(
    damage: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    copy = tmp_path / "fraud"
    shutil.copytree(paths.MODELS / "fraud", copy)
    damage(copy)
    with pytest.raises(BrokenBundleError, match=said):
        open_bundle(copy)


def test_latency_tells_a_slow_model_from_a_fast_one(drawn: Dataset) -> None:
    """200 trees against a linear model, measured in turns."""
    slow, fast = open_bundle(paths.MODELS / "fraud"), open_bundle(paths.MODELS / "fraud-lr")
    times = latencies([slow, fast], drawn.features[0])
    assert 0.0 < times[1] < times[0] < 1e6
