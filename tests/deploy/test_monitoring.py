"""Alert rules and what belongs to each: a test that it fires, a section of the runbook."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, need, succeed

PROMETHEUS = ROOT / "deploy" / "prometheus"


def exposed() -> set[str]:
    """Names of metrics that stand in the worker's code, with what a histogram adds."""
    sources = [*(ROOT / "src").rglob("*.rs"), *ROOT.glob("docs/METRICS.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    names = set(re.findall(r"\bfraud_scorer_\w+", text))
    # The drift family is rendered from the end of its names.
    drift = (ROOT / "src/telemetry/drift.rs").read_text()
    ends = re.findall(r'"(\w+)", "(?:gauge|counter)"', drift)
    names |= {f"fraud_scorer_drift_{end}" for end in ends}
    return names | {f"{name}_{part}" for name in names for part in ("bucket", "sum", "count")}


EXPOSED = exposed()


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def alerts() -> dict[str, dict[str, Any]]:
    groups = load(PROMETHEUS / "alerts.yml")["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    need(found, "promtool is missing: apt-get install prometheus")
    return str(found)


def test_the_rules_hold_what_their_tests_say(promtool: str) -> None:
    succeed(promtool, "test", "rules", PROMETHEUS / "alerts_test.yml")


@pytest.mark.parametrize("name", ["prometheus.yml", "compose.yml"])
def test_prometheus_takes_the_configuration(promtool: str, name: str) -> None:
    told = succeed(promtool, "check", "config", PROMETHEUS / name)
    assert "3 rule files found" in told


def test_alertmanager_takes_the_configuration() -> None:
    amtool = shutil.which("amtool")
    need(amtool, "amtool is missing: apt-get install prometheus-alertmanager")
    succeed(str(amtool), "check-config", ROOT / "deploy" / "alertmanager" / "alertmanager.yml")


def test_each_alert_is_tested_to_fire_and_to_be_quiet() -> None:
    fires, quiet = set(), set()
    for case in load(PROMETHEUS / "alerts_test.yml")["tests"]:
        for check in case["alert_rule_test"]:
            (fires if check.get("exp_alerts") else quiet).add(check["alertname"])
    assert fires == set(alerts()), "alerts without a test that fires them"
    assert quiet == set(alerts()), "alerts without a test that keeps them quiet"


def test_each_alert_has_its_section_of_the_runbook() -> None:
    text = (ROOT / "docs" / "RUNBOOK.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (\w+)$", text, re.MULTILINE))
    assert sections == set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"] == f"docs/RUNBOOK.md#{name.lower()}"
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "numbers", "runbook_url"}


def test_each_section_of_the_runbook_says_what_to_look_at_and_what_to_do() -> None:
    text = (ROOT / "docs" / "RUNBOOK.md").read_text(encoding="utf-8")
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = section.partition("\n")
        assert re.search(r"^\*.+", rest.strip()), f"{name}: what it means comes first"
        assert re.search(r"^Look at", rest, re.MULTILINE), f"{name}: what to look at"
        assert re.search(r"^Do", rest, re.MULTILINE), f"{name}: what to do"
        # Metrics that nobody exposes any more help nobody.
        for metric in re.findall(r"\b(fraud_scorer_\w+)", rest):
            assert metric in EXPOSED, f"{name} names {metric}"


# What the issue asks for, and what was found missing when alerts were tried.
WANTED = {
    "FraudRateHigh", "DriftShareHigh", "ConsumerLagHigh", "DeadLetterRateHigh", "ConsumerStalled",
    "ModelTooOld", "VerdictLatencyHigh", "RegistryUnreachable", "ScoreDistributionCollapsed",
    "NoTransactions", "WorkersDown", "DriftReportHigh", "DriftReportTooOld", "PartitionPaused",
    "RecordsGone",
}  # fmt: skip


def test_nothing_that_should_wake_someone_is_missing() -> None:
    assert set(alerts()) == WANTED
    rule = alerts()["FraudRateHigh"]
    assert rule["for"] == "1m"
    assert "rate5m" in rule["expr"]
    assert "for" not in alerts()["DriftShareHigh"], "fires at once"
    values = thresholds()
    assert values["decline_ratio"] == "vector(0.005)"
    assert values["drift_share"] == "vector(0.5)"


def test_inhibiting_alerts_and_inhibited_ones_exist() -> None:
    rules = load(ROOT / "deploy" / "alertmanager" / "alertmanager.yml")["inhibit_rules"]
    for rule in rules:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            named = re.findall(r"\w+", matcher.split("=", 1)[1])
            assert named
            assert set(named) <= set(alerts()), matcher


def thresholds() -> dict[str, str]:
    """Expressions by name."""
    groups = load(PROMETHEUS / "thresholds.yml")["groups"]
    return {
        rule["record"].removeprefix("fraud_scorer:threshold:"): rule["expr"]
        for group in groups
        for rule in group["rules"]
    }


def test_no_alert_repeats_a_threshold() -> None:
    recorded = {f"fraud_scorer:threshold:{name}" for name in thresholds()}
    used = re.findall(r"fraud_scorer:threshold:\w+", (PROMETHEUS / "alerts.yml").read_text())
    assert set(used) == recorded
