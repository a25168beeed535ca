"""The written rule: each of its conditions can stop a promotion, and nothing else does."""

from dataclasses import replace
from pathlib import Path

import pytest

from fraud_training.errors import UsageError
from fraud_training.promotion import Difference, Evidence, Rule, Side, decide

RULE = Rule()
BETTER = Side(0.85, 0.90, 0.00050, 1.1, 30.0, 1e-7)
SERVING = Side(0.80, 0.90, 0.00055, 1.2, 25.0, 1e-7)
GOOD = Evidence(
    frauds=80,
    fraud_share=0.002,
    candidate=BETTER,
    champion=SERVING,
    champion_problem=None,
    average_precision=Difference(0.05, 0.01, 0.09),
    recall=Difference(0.0, -0.02, 0.02),
)


def failed(evidence: Evidence, rule: Rule = RULE) -> set[str]:
    return {check.name for check in decide(evidence, rule).checks if not check.passed}


def test_better_in_everything_is_promoted() -> None:
    proposal = decide(GOOD, RULE)
    assert proposal.promote
    assert not proposal.challenge
    assert "PR-AUC 0.8500 against 0.8000" in proposal.reasons[0]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"frauds": 9}, "evidence"),
        ({"average_precision": Difference(0.05, 0.0, 0.09)}, "pr-auc"),
        ({"average_precision": Difference(0.05, -0.01, 0.09)}, "pr-auc"),
        ({"average_precision": Difference(-0.05, -0.09, -0.01)}, "pr-auc"),
        ({"recall": Difference(-0.0101, -0.03, 0.01)}, "recall"),
        ({"candidate": replace(BETTER, calibration_ratio=2.1)}, "calibration"),
        ({"candidate": replace(BETTER, calibration_ratio=0.4)}, "calibration"),
        ({"candidate": replace(BETTER, calibration_ratio=0.0)}, "calibration"),
        ({"candidate": replace(BETTER, brier=0.00061)}, "brier"),
        ({"candidate": replace(BETTER, latency_microseconds=75.1)}, "latency"),
        ({"candidate": replace(BETTER, golden_difference=1.1e-5)}, "golden"),
        ({"candidate": replace(BETTER, golden_difference=float("nan"))}, "golden"),
    ],
)
def test_each_condition_alone_stops_it(change: dict[str, object], name: str) -> None:
    evidence = replace(GOOD, **change)
    assert failed(evidence) == {name}
    proposal = decide(evidence, RULE)
    assert not proposal.promote
    assert len(proposal.reasons) == 1


def test_bounds_themselves_are_allowed() -> None:
    edge = replace(BETTER, calibration_ratio=2.0, brier=0.000605, latency_microseconds=75.0)
    assert decide(replace(GOOD, candidate=edge, frauds=10), RULE).promote
    assert decide(replace(GOOD, recall=Difference(-0.01, -0.1, 0.1)), RULE).promote


def test_out_of_bounds_calibration_may_be_nearer_than_the_champions() -> None:
    """Where fraud has risen threefold, both expect too little: the nearer one may still come."""
    candidate = replace(BETTER, calibration_ratio=0.4)
    worse = replace(SERVING, calibration_ratio=0.2)
    assert decide(replace(GOOD, candidate=candidate, champion=worse), RULE).promote


def test_nearly_better_becomes_the_challenger() -> None:
    close = replace(GOOD, average_precision=Difference(0.02, -0.01, 0.05))
    assert decide(close, RULE).challenge
    assert not decide(
        replace(close, average_precision=Difference(-0.02, -0.05, 0.01)), RULE
    ).challenge
    also_slow = replace(close, candidate=replace(BETTER, latency_microseconds=500.0))
    assert not decide(also_slow, RULE).challenge


def without_champion(**change: object) -> Evidence:
    return replace(GOOD, champion=None, average_precision=None, recall=None, **change)


def test_the_first_model_must_beat_the_floor() -> None:
    assert decide(without_champion(), RULE).promote
    low = replace(BETTER, average_precision=0.039)
    assert failed(without_champion(candidate=low)) == {"floor"}
    # 20 × 5 % would be 1: the cap keeps the floor reachable.
    assert decide(without_champion(fraud_share=0.05), RULE).promote
    slow = replace(BETTER, latency_microseconds=1_001.0)
    assert failed(without_champion(candidate=slow)) == {"latency"}


def test_an_unusable_champion_is_named() -> None:
    proposal = decide(without_champion(champion_problem="version 3 is unusable: torn"), RULE)
    assert proposal.promote
    assert proposal.reasons[0].startswith("version 3 is unusable: torn")


def test_numbers_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rule.toml"
    path.write_text("minimum_gain = 0.02\nlatency_factor = 1\n", "utf-8")
    rule = Rule.read(path)
    assert rule == replace(RULE, minimum_gain=0.02, latency_factor=1)
    assert failed(GOOD, rule) == {"pr-auc", "latency"}
    assert Rule.read(None) == RULE


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("minimum_gian = 1", "unknown 'minimum_gian'"),
        ("minimum_gain = true", "minimum_gain must be a number"),
        ("minimum_gain = nan", "must be finite"),
        ("brier_factor = -1", "must be finite and not negative"),
        ("minimum_gain =", "rule.toml"),
    ],
)
def test_a_wrong_rule_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rule.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=said):
        Rule.read(path)
