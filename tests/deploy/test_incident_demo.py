"""The incident demo tells its story: quiet, then an incident, an alert, a mail, and its end.

One scenario with the shipped rules at a twentieth of their times.
"""

import os
import re
import shutil
import sys
from pathlib import Path

from conftest import ROOT, binary, kafka_java, need, run

STORY = ["no alert, no mail", "injected", "moved", "fired", "mail", "ended", "resolved"]


def test_a_fraud_spike_is_noticed_mailed_and_resolved(tmp_path: Path) -> None:
    need(shutil.which("prometheus"), "apt-get install prometheus")
    need(shutil.which("prometheus-alertmanager"), "apt-get install prometheus-alertmanager")
    kafka_java()
    binary("fraud-producer")
    done = run(
        *(sys.executable, "-m", "demos.incident", "--scenario", "fraud-spike"),
        *("--compress", "20", "--quiet-seconds", "10", "--directory", tmp_path / "demo"),
        env=os.environ | {"FRAUD_SCORER_BINARIES": str(binary("fraud-scorer").parent)},
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    told = [word for line in lines for word in STORY if re.search(rf" s  (.*: )?{word}", line)]
    assert told == STORY, done.stdout
    assert re.search(r"mail +\[FIRING:1\] FraudRateHigh", done.stdout), done.stdout
    assert re.search(r"resolved +\[RESOLVED\] FraudRateHigh", done.stdout), done.stdout
