"""`make incident-demo`: something goes wrong, and someone hears of it.

    quiet traffic ─► no alert, no mail
    incident      ─► metric moves ─► alert fires ─► mail arrives ─► incident ends ─► resolved

Everything is real: Kafka, the worker, Prometheus with the rules of deploy/prometheus, Alertmanager
with those of deploy/alertmanager, and a mail server on loopback that keeps what it gets. The rules
are the shipped ones; `--compress 10` divides their times by ten, for those in a hurry.
"""

import argparse
import email.header
import email.message
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Message

from demos.parts import (
    RELEASE,
    ROOT,
    DemoError,
    Program,
    Stage,
    Timeline,
    free_port,
    get,
    get_json,
    until,
)

RATE = 1_000
"""Transactions per second of the quiet traffic, and as many more of an incident's."""


DRIFT_WINDOW_SECONDS = 600
"""The worker's own default."""


LEAST_FOR_SECONDS = 10
"""What an alert waits at least. Prometheus may take five seconds to its first scrape, and until
then no worker seems to be there."""


@dataclass(frozen=True)
class Scenario:
    """An incident: how the producer plays it, and what should be seen of it."""

    name: str
    alert: str
    metric: str
    """Expression that is drawn for people, and moves before the alert."""
    moved: Callable[[float], bool]


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            "fraud-spike",
            "FraudRateHigh",
            "fraud_scorer:decline_ratio:rate5m",
            lambda share: share > 0.0035,
        ),
        Scenario(
            "poison",
            "DeadLetterRateHigh",
            "fraud_scorer:dead_letter_ratio:rate5m",
            lambda share: share > 0.001,
        ),
        Scenario(
            "distribution-shift",
            "DriftShareHigh",
            "max(fraud_scorer_drift_share)",
            lambda share: share > 0.1,
        ),
    )
}


class Mailbox(Message):
    """Keeps mails as they arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.subjects: list[tuple[float, str]] = []

    def handle_message(self, message: email.message.Message) -> None:
        subject = str(email.header.make_header(email.header.decode_header(message["Subject"])))
        self.subjects.append((time.monotonic(), subject))


def compressed(text: str, factor: int) -> str:
    """A configuration with its times divided."""

    def divide(found: re.Match[str]) -> str:
        seconds = int(found[2]) * {"s": 1, "m": 60, "h": 3_600}[found[3]]
        least = LEAST_FOR_SECONDS if found[1] == "for: " else 1
        return f"{found[1]}{max(least, round(seconds / factor))}s"

    times = r"(\[|for: |_wait: |_interval: |_timeout: )(\d+)([smh])\b"
    return re.sub(times, divide, text) if factor > 1 else text


class Watch:
    """Kafka, worker, Prometheus, Alertmanager, mailbox: from a transaction to a mail."""

    def __init__(self, stage: Stage, compress: int) -> None:
        self.stage, self.compress, self.timeline = stage, compress, Timeline()
        self.mailbox = Mailbox()
        self.mail_server = Controller(self.mailbox, hostname="127.0.0.1", port=free_port())
        self.mail_server.start()
        stage.callback(self.mail_server.stop)
        self.kafka = stage.kafka()
        self.kafka.create({"transactions": 4, "verdicts": 4, "transactions.dlq": 4})
        self.worker = f"127.0.0.1:{free_port()}"
        self.prometheus = f"127.0.0.1:{free_port()}"
        self.alertmanager = f"127.0.0.1:{free_port()}"
        self.start()

    def start(self) -> None:
        self.programs = [
            self.stage.start(
                "worker",
                *(RELEASE / "fraud-scorer", "run", "--brokers", self.kafka.address),
                *("--http", self.worker, "--drift-window", f"{self.drift_window()}s"),
            ),
            self.stage.start(
                "alertmanager",
                found("prometheus-alertmanager", "alertmanager"),
                f"--config.file={self.write_alertmanager()}",
                f"--storage.path={self.stage.directory / 'alertmanager'}",
                f"--web.listen-address={self.alertmanager}",
                "--cluster.listen-address=",
            ),
            self.stage.start(
                "prometheus",
                found("prometheus"),
                f"--config.file={self.write_prometheus()}",
                f"--storage.tsdb.path={self.stage.directory / 'prometheus-data'}",
                f"--web.listen-address={self.prometheus}",
            ),
        ]
        for page in (
            f"http://{self.worker}/readyz",
            f"http://{self.alertmanager}/-/ready",
            f"http://{self.prometheus}/-/ready",
        ):
            until(page, lambda page=page: self.well() and get(page)[0] == 200, 60)
        until("the first scrape", lambda: self.value("up") == 1, 60)
        self.timeline.tell(
            f"worker, Prometheus http://{self.prometheus}, Alertmanager, mail server"
        )

    def drift_window(self) -> int:
        """Seconds, of which the worker wants ten at least."""
        return max(10, round(self.seconds(DRIFT_WINDOW_SECONDS)))

    def well(self) -> bool:
        for program in self.programs:
            program.must_run()
        return True

    def write_prometheus(self) -> Path:
        """The shipped configuration, with this machine's ports."""
        directory = self.stage.directory / "prometheus"
        directory.mkdir()
        shipped = ROOT / "deploy" / "prometheus"
        for rules in ("thresholds.yml", "alerts.yml"):
            text = compressed((shipped / rules).read_text(encoding="utf-8"), self.compress)
            (directory / rules).write_text(text, encoding="utf-8")
        text = compressed((shipped / "prometheus.yml").read_text(encoding="utf-8"), self.compress)
        content = yaml.safe_load(text)
        content["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
            self.alertmanager
        ]
        content["scrape_configs"][0]["static_configs"][0]["targets"] = [self.worker]
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def write_alertmanager(self) -> Path:
        shipped = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"
        content = yaml.safe_load(compressed(shipped.read_text(encoding="utf-8"), self.compress))
        content["global"]["smtp_smarthost"] = f"127.0.0.1:{self.mail_server.port}"
        path = self.stage.directory / "alertmanager.yml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def traffic(self, name: str, *more: str) -> Program:
        return self.stage.start(
            name,
            *(RELEASE / "fraud-producer", "--brokers", self.kafka.address, "--quiet"),
            *("--rate", str(RATE), *more),
        )

    def value(self, expression: str) -> float | None:
        """An expression's value now; nothing where it has none."""
        url = f"http://{self.prometheus}/api/v1/query?query={quote(expression)}"
        answer = get_json(url)
        series = answer["data"]["result"] if answer else []
        return float(series[0]["value"][1]) if series else None

    def firing(self) -> set[str]:
        answer = get_json(f"http://{self.prometheus}/api/v1/alerts")
        alerts = answer["data"]["alerts"] if answer else []
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

    def mail_about(self, alert: str, state: str) -> tuple[float, str] | None:
        mails = (m for m in self.mailbox.subjects if f"[{state}" in m[1] and alert in m[1])
        return next(mails, None)

    def seconds(self, seconds: float) -> float:
        return seconds / self.compress


def found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise DemoError(f"{names[0]} is missing: apt-get install prometheus prometheus-alertmanager")


def baseline(watch: Watch, seconds: float) -> None:
    """Quiet traffic for a while: whatever fires now is a false alarm."""
    watch.timeline.tell(f"quiet traffic, {RATE:,} transactions per second")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.well()
        if alerts := watch.firing():
            raise DemoError(f"{', '.join(sorted(alerts))} fired without an incident")
        time.sleep(0.5)
    if watch.mailbox.subjects:
        raise DemoError(f"a mail without an incident: {watch.mailbox.subjects[0][1]}")
    watch.timeline.tell(f"{seconds:.0f} s of it: no alert, no mail")


def incident(watch: Watch, scenario: Scenario) -> None:
    """Plays a scenario until its alert is resolved."""
    tell = watch.timeline.tell
    watch.mailbox.subjects.clear()
    before = watch.value(scenario.metric)
    source = watch.traffic(f"producer-{scenario.name}", "--scenario", scenario.name)
    began = time.monotonic()
    tell(f"injected   {scenario.name}")

    def moved() -> float | None:
        watch.well()
        source.must_run()
        value = watch.value(scenario.metric)
        return value if value is not None and scenario.moved(value) else None

    value = until(f"{scenario.metric} to move", moved, watch.seconds(600) + 30)
    old = "no value" if before is None else f"{before:.4f}"
    tell(f"moved      {scenario.metric}: {old} → {value:.4f}")
    until(
        f"{scenario.alert} to fire",
        lambda: watch.well() and scenario.alert in watch.firing(),
        watch.seconds(900) + 30,
    )
    tell(f"fired      {scenario.alert}, {time.monotonic() - began:.0f} s after the injection")
    at, subject = until(
        "the mail", lambda: watch.mail_about(scenario.alert, "FIRING"), watch.seconds(300) + 30
    )
    tell(f"mail       {subject}", at)
    source.stop()
    tell("ended      the incident's traffic")
    until(
        f"{scenario.alert} to end",
        lambda: watch.well() and scenario.alert not in watch.firing(),
        watch.seconds(1_800) + 30,
    )
    at, subject = until(
        "the mail that it is over",
        lambda: watch.mail_about(scenario.alert, "RESOLVED"),
        watch.seconds(900) + 30,
    )
    tell(f"resolved   {subject}", at)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make incident-demo")
    parser.add_argument(
        "--scenario", action="append", choices=sorted(SCENARIOS), help="default: all, in turn"
    )
    parser.add_argument("--compress", type=int, default=1, help="divide the rules' times by this")
    parser.add_argument("--quiet-seconds", type=float, help="length of the baseline")
    parser.add_argument(
        "--directory", type=Path, default=ROOT / ".runtime" / "incident-demo", help="logs and data"
    )
    options = parser.parse_args()
    with Stage(options.directory) as stage:
        try:
            watch = Watch(stage, options.compress)
            watch.traffic("producer")
            baseline(watch, options.quiet_seconds or watch.seconds(600))
            for name in options.scenario or SCENARIOS:
                incident(watch, SCENARIOS[name])
        except DemoError as error:
            print(f"error: {error}\nlogs: {options.directory}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
