"""Champion and candidate on the same rows, both by their bundles as ONNX Runtime runs them.

    out-of-time rows ─► scores of both ─► paired bootstrap ─► Evidence for promotion.py
                     └► latency, golden records, calibration

Paired: every resample takes the same rows for both models, so what the rows have in common cancels
out of the difference. Stratified: rows are drawn within each class, so the fraud share stays.
"""

import json
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fraud_training.errors import UserError
from fraud_training.evaluate import Scored, metrics
from fraud_training.promotion import Difference, Side
from fraud_training.registry import file_sha256
from fraud_training.scoring import bundle_features, read_jsonl

LATENCY_ROUNDS = 30
LATENCY_CALLS = 20


class BrokenBundleError(UserError):
    """A bundle that no worker would serve; says what is wrong with it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle ready to score, checked as the worker checks it: digest, tensors, golden records."""

    directory: Path
    name: str
    features: tuple[str, ...]
    thresholds: dict[str, float]
    training: dict[str, Any]
    session: onnxruntime.InferenceSession
    input: str
    output: str
    column: int | None
    golden_difference: float

    def score(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of fraud per row."""
        (values,) = self.session.run([self.output], {self.input: features})
        table = np.asarray(values, dtype=np.float64)
        return table.reshape(-1) if self.column is None else table[:, self.column]


def open_bundle(directory: Path) -> Bundle:
    """Loads and checks a bundle; `BrokenBundleError` says what is wrong."""
    try:
        content = tomllib.loads((directory / "manifest.toml").read_text(encoding="utf-8"))
        model = directory / content["model"]
        if file_sha256(model) != content["sha256"].lower():
            raise BrokenBundleError(f"{model.name} is not the file its manifest names by SHA-256")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        bundle = Bundle(
            directory=directory,
            name=content["name"],
            features=tuple(feature.name for feature in bundle_features(directory)),
            thresholds=content["thresholds"],
            training=content.get("training", {}),
            session=session,
            input=content["input"]["tensor"],
            output=content["output"]["tensor"],
            column=content["output"].get("column"),
            golden_difference=0.0,
        )
        difference = golden_difference(bundle)
    except BrokenBundleError:
        raise
    except Exception as error:  # whatever an untrusted file can provoke in TOML, JSON or ONNX
        text = (str(error).splitlines() or [""])[0]
        raise BrokenBundleError(f"{type(error).__name__}: {text}") from error
    return Bundle(**{**bundle.__dict__, "golden_difference": difference})


def golden_difference(bundle: Bundle) -> float:
    """Largest distance between what the bundle scores and what its golden records expect."""
    path = bundle.directory / "golden.jsonl"
    _, rows = read_jsonl(path, bundle_features(bundle.directory))
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = np.array([json.loads(line)["expected_score"] for line in lines if line.strip()])
    scores = bundle.score(rows)
    if not len(expected) or not np.isfinite(scores).all():
        raise BrokenBundleError("golden.jsonl is empty, or a score is not a number")
    return float(np.abs(scores - expected).max())


@dataclass(frozen=True)
class Curve:
    """One model's scores, sorted once, so that each resample only adds up its weights."""

    order: NDArray[np.int64]
    last_of_tie: NDArray[np.int64]

    @staticmethod
    def of(score: NDArray[np.float64]) -> "Curve":
        order = np.argsort(-score, kind="stable")
        ordered = score[order]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        return Curve(order, last)

    def figures(self, label: NDArray[np.int8], weight: NDArray[np.float64]) -> tuple[float, float]:
        """Average precision, and recall at 1 % false positives, as scikit-learn defines them."""
        fraud = label[self.order] == 1
        mass = weight[self.order]
        caught = np.cumsum(np.where(fraud, mass, 0.0))[self.last_of_tie]
        wrong = np.cumsum(np.where(fraud, 0.0, mass))[self.last_of_tie]
        flagged = caught + wrong
        precision = np.divide(caught, flagged, out=np.ones_like(caught), where=flagged > 0.0)
        recall = caught / caught[-1]
        average = float((np.diff(recall, prepend=0.0) * precision).sum())
        rate = np.concatenate([[0.0], wrong / wrong[-1]])
        return average, float(np.interp(0.01, rate, np.concatenate([[0.0], recall])))


@dataclass(frozen=True)
class Paired:
    """The two differences, and the bootstrap's draws of the first for the report's plot."""

    average_precision: Difference
    recall: Difference
    draws: NDArray[np.float64]


def paired_bootstrap(candidate: Scored, champion: Scored, seed: int, resamples: int) -> Paired:
    """Candidate minus champion on the same resampled rows."""
    label, weight = candidate.label, candidate.weight
    curves = (Curve.of(candidate.score), Curve.of(champion.score))
    classes = [np.flatnonzero(label == value) for value in (0, 1)]
    random = np.random.default_rng(seed)
    observed = _difference(curves, label, weight)
    draws = np.empty((resamples, 2))
    for index in range(resamples):
        counts = np.zeros(len(label))
        for rows in classes:
            drawn = random.integers(len(rows), size=len(rows))
            counts[rows] = np.bincount(drawn, minlength=len(rows))
        draws[index] = _difference(curves, label, weight * counts)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return Paired(
        Difference(observed[0], float(low[0]), float(high[0])),
        Difference(observed[1], float(low[1]), float(high[1])),
        draws[:, 0].copy(),
    )


def _difference(
    curves: tuple[Curve, Curve], label: NDArray[np.int8], weight: NDArray[np.float64]
) -> tuple[float, float]:
    ours, theirs = (curve.figures(label, weight) for curve in curves)
    return ours[0] - theirs[0], ours[1] - theirs[1]


def side(bundle: Bundle, scored: Scored, latency: float) -> Side:
    """One model's figures for the rule."""
    values = metrics(scored)
    frauds = float(scored.weight[scored.label == 1].sum())
    return Side(
        average_precision=values["average_precision"],
        recall_at_1pct_fpr=values["recall_at_1pct_fpr"],
        brier=values["brier"],
        calibration_ratio=float((scored.score * scored.weight).sum()) / frauds,
        latency_microseconds=latency,
        golden_difference=bundle.golden_difference,
    )


def latencies(bundles: list[Bundle], row: NDArray[np.float32]) -> list[float]:
    """Microseconds per call with one row: the fastest round's mean, rounds taken in turns.

    In turns, so that a busy moment of the machine hits all alike; the fastest, because noise only
    ever adds.
    """
    best = [float("inf")] * len(bundles)
    single = np.ascontiguousarray(row.reshape(1, -1))
    for bundle in bundles:
        bundle.score(single)
    for _ in range(LATENCY_ROUNDS):
        for index, bundle in enumerate(bundles):
            begun = time.perf_counter()
            for _ in range(LATENCY_CALLS):
                bundle.score(single)
            spent = (time.perf_counter() - begun) / LATENCY_CALLS * 1e6
            best[index] = min(best[index], spent)
    return best
