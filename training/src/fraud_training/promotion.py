"""The rule by which a candidate takes the champion's place. Pure: evidence in, decision out.

A candidate is promoted when ALL of these hold on rows that neither model has learnt from:

    evidence     the window holds enough frauds to tell
    golden       the exported bundle says what the trained model says
    pr-auc       better than the champion's: the lower end of the paired bootstrap interval of the
                 difference is above `minimum_gain`
    recall       recall at 1 % false positives is not worse by more than `recall_tolerance`
    calibration  expected over observed frauds lies within bounds, or nearer to 1 than the
                 champion's
    brier        the Brier score is at most `brier_factor` times the champion's
    latency      the bundle scores in at most `latency_factor` times the champion's time

Without a champion (none registered, or its artefact is unusable) there is nothing to be better
than: PR-AUC must reach `floor_lift` times the fraud share, and latency an absolute bound.

A candidate that only misses the certainty of `pr-auc` (its own figure is higher, the interval
still reaches down to `minimum_gain`) becomes the challenger: the worker can score it in the shadow
until more is known.
"""

import math
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fraud_training.errors import UsageError


@dataclass(frozen=True)
class Rule:
    """All numbers of the rule. `--rule FILE` (TOML) replaces single ones."""

    minimum_frauds: int = 10
    """Frauds in the window both are judged on."""
    minimum_gain: float = 0.0
    """Average precision the candidate must surely gain (lower 2.5 % bound)."""
    recall_tolerance: float = 0.01
    """Recall at 1 % false positives may be lower by this much."""
    calibration_low: float = 0.5
    calibration_high: float = 2.0
    """Bounds of (sum of scores) / (number of frauds)."""
    brier_factor: float = 1.10
    latency_factor: float = 3.0
    latency_limit_microseconds: float = 1_000.0
    """One row alone, where there is no champion to compare with."""
    floor_lift: float = 20.0
    """First model: average precision at least this many times the fraud share…"""
    floor_cap: float = 0.3
    """…but never more than this is asked, where the share itself is high."""
    golden_tolerance: float = 1e-5

    @staticmethod
    def read(path: Path | None) -> "Rule":
        if path is None:
            return Rule()
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"--rule {path}: {error}") from error
        known = {entry.name: entry.type for entry in fields(Rule)}
        for key, value in content.items():
            if key not in known:
                raise UsageError(f"--rule {path}: unknown {key!r}, expected {', '.join(known)}")
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise UsageError(f"--rule {path}: {key} must be a number")
            if not math.isfinite(value) or value < 0:
                raise UsageError(f"--rule {path}: {key} must be finite and not negative")
        return Rule(**content)


@dataclass(frozen=True)
class Difference:
    """Candidate minus champion, with the 2.5 % and 97.5 % points of the paired bootstrap."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Side:
    """One model's figures on the common window."""

    average_precision: float
    recall_at_1pct_fpr: float
    brier: float
    calibration_ratio: float
    """Sum of scores over number of frauds, both weighted."""
    latency_microseconds: float
    """One row alone, median."""
    golden_difference: float
    """Largest distance between ONNX and the bundle's golden scores."""


@dataclass(frozen=True)
class Evidence:
    """All that the rule looks at."""

    frauds: int
    fraud_share: float
    candidate: Side
    champion: Side | None
    champion_problem: str | None
    """Why a registered champion could not be compared with."""
    average_precision: Difference | None
    recall: Difference | None


@dataclass(frozen=True)
class Check:
    name: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Proposal:
    """What the rule says."""

    promote: bool
    challenge: bool
    checks: tuple[Check, ...]

    @property
    def reasons(self) -> list[str]:
        """Why not, or, for a promotion, why."""
        failed = [check.text for check in self.checks if not check.passed]
        return failed or [check.text for check in self.checks if check.name in ("pr-auc", "floor")]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "reasons": self.reasons}


def decide(evidence: Evidence, rule: Rule) -> Proposal:
    """The rule, check by check."""
    candidate, champion = evidence.candidate, evidence.champion
    checks = [
        Check(
            "evidence",
            evidence.frauds >= rule.minimum_frauds,
            f"{evidence.frauds} frauds in the window, at least {rule.minimum_frauds} are needed",
        ),
        Check(
            "golden",
            candidate.golden_difference <= rule.golden_tolerance,
            f"golden records: off by {candidate.golden_difference:.2g}, "
            f"allowed {rule.golden_tolerance:g}",
        ),
    ]
    if champion is None or evidence.average_precision is None or evidence.recall is None:
        checks += _against_floor(evidence, rule)
    else:
        checks += _against_champion(
            candidate, champion, evidence.average_precision, evidence.recall, rule
        )
    failed = {check.name for check in checks if not check.passed}
    better = evidence.average_precision is not None and evidence.average_precision.value > 0.0
    return Proposal(not failed, failed == {"pr-auc"} and better, tuple(checks))


def _against_floor(evidence: Evidence, rule: Rule) -> list[Check]:
    floor = min(rule.floor_lift * evidence.fraud_share, rule.floor_cap)
    value, ratio = evidence.candidate.average_precision, evidence.candidate.calibration_ratio
    why = evidence.champion_problem or "there is no champion yet"
    return [
        Check(
            "floor",
            value >= floor,
            f"{why}: PR-AUC {value:.4f}, the floor is {floor:.4f}",
        ),
        Check(
            "calibration",
            rule.calibration_low <= ratio <= rule.calibration_high,
            f"expected/observed frauds {ratio:.2f}, "
            f"allowed {rule.calibration_low:g} to {rule.calibration_high:g}",
        ),
        Check(
            "latency",
            evidence.candidate.latency_microseconds <= rule.latency_limit_microseconds,
            f"one row takes {evidence.candidate.latency_microseconds:.0f} µs, "
            f"allowed {rule.latency_limit_microseconds:.0f} µs",
        ),
    ]


def _against_champion(
    candidate: Side, champion: Side, precision: Difference, recall: Difference, rule: Rule
) -> list[Check]:
    ratio, other = candidate.calibration_ratio, champion.calibration_ratio
    inside = rule.calibration_low <= ratio <= rule.calibration_high
    nearer = _distance(ratio) < _distance(other)
    limit = rule.latency_factor * champion.latency_microseconds
    return [
        Check(
            "pr-auc",
            precision.low > rule.minimum_gain,
            f"PR-AUC {candidate.average_precision:.4f} against {champion.average_precision:.4f}: "
            f"{precision.value:+.4f} [{precision.low:+.4f}, {precision.high:+.4f}], "
            f"the lower end must exceed {rule.minimum_gain:g}",
        ),
        Check(
            "recall",
            recall.value >= -rule.recall_tolerance,
            f"recall at 1 % false positives {candidate.recall_at_1pct_fpr:.4f} against "
            f"{champion.recall_at_1pct_fpr:.4f}, at most {rule.recall_tolerance:g} less is allowed",
        ),
        Check(
            "calibration",
            inside or nearer,
            f"expected/observed frauds {ratio:.2f} (champion {other:.2f}), "
            f"allowed {rule.calibration_low:g} to {rule.calibration_high:g} "
            f"or nearer to 1 than the champion",
        ),
        Check(
            "brier",
            candidate.brier <= rule.brier_factor * champion.brier,
            f"Brier score {candidate.brier:.6f} against {champion.brier:.6f}, "
            f"at most {rule.brier_factor:g} times is allowed",
        ),
        Check(
            "latency",
            candidate.latency_microseconds <= limit,
            f"one row takes {candidate.latency_microseconds:.0f} µs against "
            f"{champion.latency_microseconds:.0f} µs, "
            f"at most {rule.latency_factor:g} times is allowed",
        ),
    ]


def _distance(ratio: float) -> float:
    return abs(math.log(ratio)) if ratio > 0.0 else math.inf
