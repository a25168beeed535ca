"""Alert rules and what belongs to each: a test that it fires, a section of the runbook."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, need, succeed

PROMETHEUS = ROOT / "deploy" / "prometheus"


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


def test_prometheus_takes_the_configuration(promtool: str) -> None:
    succeed(promtool, "check", "config", PROMETHEUS / "prometheus.yml")


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


def test_no_alert_repeats_a_threshold() -> None:
    recorded = {
        rule["record"]
        for group in load(PROMETHEUS / "thresholds.yml")["groups"]
        for rule in group["rules"]
    }
    used = re.findall(r"fraud_scorer:threshold:\w+", (PROMETHEUS / "alerts.yml").read_text())
    assert set(used) == recorded
