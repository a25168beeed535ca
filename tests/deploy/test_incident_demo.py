"""The incident demo tells its stories: quiet, then incidents, alerts, mails, and their ends.

The shipped rules at a twentieth of their times.
"""

import email
import email.policy
import os
import re
import shutil
import sys
from pathlib import Path

from conftest import ROOT, binary, kafka_java, need, run

sys.path.insert(0, str(ROOT))

from demos.incident import INCIDENTS, compressed

STORY = ["injected", "moved", "fired", "mail", "ended", "calm", "resolved"]


def test_only_times_are_divided() -> None:
    text = (
        "rate(x[5m] offset 10m) > 60\nfor: 1m\ninterval: 1m\nrate5m: 600s\ngroup_wait: 5s\n"
        "# for an hour"
    )
    assert compressed(text, 10) == (
        "rate(x[30s] offset 60s) > 60\nfor: 10s\ninterval: 6s\nrate5m: 600s\ngroup_wait: 1s\n"
        "# for an hour"
    )
    assert compressed(text, 1) == text
    rule = "  - alert: VerdictLatencyHigh\n    expr: fraud_scorer:end_to_end_seconds:p99_5m > 1\n"
    late = f"{rule}    for: 2m\n"
    assert compressed(late, 10) == late


def test_incidents_are_noticed_mailed_and_resolved_and_quiet_is_quiet(tmp_path: Path) -> None:
    need(shutil.which("prometheus"), "apt-get install prometheus")
    need(shutil.which("prometheus-alertmanager"), "apt-get install prometheus-alertmanager")
    kafka_java()
    binary("fraud-producer")
    done = run(
        *(sys.executable, "-m", "demos.incident"),
        *("--compress", "20", "--quiet-seconds", "15", "--directory", tmp_path / "demo"),
        env=os.environ | {"FRAUD_SCORER_BINARIES": str(binary("fraud-scorer").parent)},
        cwd=ROOT,
        timeout=900,
    )
    told = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, told
    assert re.search(r"quiet +15 s of it: no alert, no mail", done.stdout), told
    for incident in INCIDENTS.values():
        # In this order, each step with the word that is its own.
        words = {
            "injected": incident.name,
            "moved": re.escape(incident.metric),
            "fired": incident.alert,
            "mail": rf"\[FIRING\] {incident.alert}: .*",
            "ended": incident.name,
            "calm": incident.alert,
            "resolved": rf"\[RESOLVED\] {incident.alert}$",
        }
        place = 0
        for step in STORY:
            found = re.compile(rf" s  {step} +{words[step]}", re.M).search(done.stdout, place)
            assert found, f"{incident.name}: not {step}\n{told}"
            place = found.end()
        assert re.search(
            rf"^{incident.name} +{incident.alert}( +\d+ s)( +\+\d+ s){{5}}$", told, re.M
        )

    mails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        for path in sorted((tmp_path / "demo").glob("mail-*.eml"))
    ]
    first = next(mail for mail in mails if "FraudRateHigh" in mail["Subject"])
    text, html = (
        first.get_body([kind]).get_content().replace("\r\n", "\n")  # type: ignore[union-attr]
        for kind in ("plain", "html")
    )
    assert re.search(r"FraudRateHigh \(critical\) since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", text)
    assert re.search(r"Numbers: threshold 0\.5%; [\d.k]+ verdicts/s; model fraud@\d+\n", text), text
    assert "Runbook: docs/RUNBOOK.md#fraudratehigh\n" in text
    assert re.search(r"Query: +http://\S+\n", text)
    assert '<a href="docs/RUNBOOK.md#fraudratehigh">' in html
    assert "no value" not in text + html
