"""`make incident-demo`: something goes wrong, and someone hears of it.

    quiet traffic ─► no alert, no mail
    incident      ─► metric moves ─► alert fires ─► mail arrives ─► incident ends ─► resolved

Everything is real: Kafka, the worker, Prometheus with the rules of deploy/prometheus, Alertmanager
with those of deploy/alertmanager, and a mail server on loopback that keeps what it gets. Rules and
thresholds are the shipped ones. Their times are divided by ten, so that one can watch; `--full`
plays them as shipped, which takes the better part of an hour.

An incident is a generator (`play`) that yields while it waits, so that the next one can begin while
the mail that this one is over is still being held back, as Alertmanager does.
"""

import argparse
import email.header
import email.message
import email.policy
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
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

COMPRESS = 10
"""By what the rules' times are divided, unless somebody wants them as they are."""

QUIET_SECONDS = 600
"""Of traffic without an incident: longer than any alert looks back and waits, but for
NoTransactions, which looks back an hour."""

DRIFT_WINDOW_SECONDS = 600
"""The worker's own default."""

WARM_SECONDS = 10
"""Of traffic before Prometheus begins to look."""

LEAST_FOR_SECONDS = 10
"""What an alert waits at least. Prometheus may take five seconds to its first scrape, and until
then no worker seems to be there."""

PROMETHEUS = ("prometheus",)
ALERTMANAGER = ("prometheus-alertmanager", "alertmanager")
"""Names of the programs, Debian's first."""

RULE_FILES = ("thresholds.yml", "drift.rules.yml", "alerts.yml")
"""The rule files of deploy/prometheus."""


class Mailbox(Message):
    """Keeps mails as they arrive, also as files."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.subjects: list[tuple[float, str]] = []

    def handle_message(self, message: email.message.Message) -> None:
        subject = str(email.header.make_header(email.header.decode_header(message["Subject"])))
        path = self.directory / f"mail-{len(self.subjects) + 1:02}.eml"
        path.write_bytes(message.as_bytes(policy=email.policy.SMTP))
        self.subjects.append((time.monotonic(), " ".join(subject.split())))

    def about(self, alert: str, state: str, since: float) -> float | None:
        """When a mail about an alert came, the first one since a moment."""
        mails = (at for at, subject in self.subjects if subject.startswith(f"[{state}] {alert}"))
        return next((at for at in mails if at >= since), None)


def compressed(text: str, factor: int) -> str:
    """A configuration with its times divided, but for those that verdicts' latency is judged by.

    The slowest hundredth of half a minute is a single pause of 0.3 seconds, as any machine has
    them; that of five minutes, for two more, is not.
    """

    def divide(found: re.Match[str]) -> str:
        seconds = int(found[2]) * {"s": 1, "m": 60, "h": 3_600}[found[3]]
        least = LEAST_FOR_SECONDS if found[1] == "for: " else 1
        return f"{found[1]}{max(least, round(seconds / factor))}s"

    times = r"(\[|offset |for: |interval: |_wait: |_timeout: )(\d+)([smh])\b"
    rules = re.split(r"^(?= *- (?:alert|record): )", text, flags=re.MULTILINE)
    return "".join(
        rule if factor == 1 or "end_to_end_seconds" in rule else re.sub(times, divide, rule)
        for rule in rules
    )


class Watch:
    """Kafka, worker, Prometheus, Alertmanager, mailbox: from a transaction to a mail."""

    def __init__(self, stage: Stage, compress: int) -> None:
        self.stage, self.compress, self.timeline = stage, compress, Timeline()
        self.mailbox = Mailbox(stage.directory)
        self.told = 0
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
        ]
        self.ready(f"http://{self.worker}/readyz")
        self.quiet = self.traffic("producer")
        # The first seconds of broker and worker are slow, and nobody's incident: Prometheus comes
        # after them.
        until("the first verdicts", lambda: self.well() and self.verdicts() > WARM_SECONDS * RATE)
        self.programs += [
            self.stage.start(
                "alertmanager",
                found(*ALERTMANAGER),
                f"--config.file={self.write_alertmanager()}",
                f"--storage.path={self.stage.directory / 'alertmanager'}",
                f"--web.listen-address={self.alertmanager}",
                "--cluster.listen-address=",
            ),
            self.stage.start(
                "prometheus",
                found(*PROMETHEUS),
                f"--config.file={self.write_prometheus()}",
                f"--storage.tsdb.path={self.stage.directory / 'prometheus-data'}",
                f"--web.listen-address={self.prometheus}",
            ),
        ]
        self.ready(f"http://{self.alertmanager}/-/ready")
        self.ready(f"http://{self.prometheus}/-/ready")
        until("the first scrape", lambda: self.value("up") == 1, 60)
        self.timeline.tell(
            f"worker, Prometheus http://{self.prometheus}, "
            f"Alertmanager http://{self.alertmanager}, mail server"
        )

    def drift_window(self) -> int:
        """Seconds, of which the worker wants ten at least."""
        return max(10, round(self.seconds(DRIFT_WINDOW_SECONDS)))

    def ready(self, page: str) -> None:
        until(page, lambda: self.well() and get(page)[0] == 200, 60)

    def verdicts(self) -> int:
        """Transactions that the worker has committed."""
        _, text = get(f"http://{self.worker}/metrics")
        count = re.search(r"^fraud_scorer_transactions_total (\d+)", text, re.MULTILINE)
        return int(count[1]) if count else 0

    def well(self) -> bool:
        for program in self.programs:
            program.must_run()
        return True

    def write_prometheus(self) -> Path:
        """The shipped configuration, with this machine's ports, and the worker alone to watch."""
        directory = self.stage.directory / "prometheus"
        directory.mkdir()
        shipped = ROOT / "deploy" / "prometheus"
        for rules in RULE_FILES:
            text = compressed((shipped / rules).read_text(encoding="utf-8"), self.compress)
            (directory / rules).write_text(text, encoding="utf-8")
        text = compressed((shipped / "prometheus.yml").read_text(encoding="utf-8"), self.compress)
        content = yaml.safe_load(text)
        content["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [
            self.alertmanager
        ]
        (worker,) = (job for job in content["scrape_configs"] if job["job_name"] == "fraud-scorer")
        worker["static_configs"][0]["targets"] = [self.worker]
        content["scrape_configs"] = [worker]
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    def write_alertmanager(self) -> Path:
        shipped = ROOT / "deploy" / "alertmanager"
        text = (shipped / "alertmanager.yml").read_text(encoding="utf-8")
        content = yaml.safe_load(compressed(text, self.compress))
        content["global"]["smtp_smarthost"] = f"127.0.0.1:{self.mail_server.port}"
        path = self.stage.directory / "alertmanager.yml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        shutil.copy(shipped / "mail.tmpl", self.stage.directory)
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

    def tell_mails(self) -> None:
        """Prints those that came since the last time."""
        for at, subject in self.mailbox.subjects[self.told :]:
            kind = "resolved" if subject.startswith("[RESOLVED]") else "mail"
            self.timeline.tell(f"{kind:<11}{subject}", at)
            self.told += 1

    def seconds(self, seconds: float) -> float:
        return seconds / self.compress


def found(*names: str) -> str:
    for name in names:
        path = shutil.which(name)
        if path:
            return path
    raise DemoError(f"{names[0]} is missing: apt-get install prometheus prometheus-alertmanager")


# ---- what can go wrong ---------------------------------------------------------------------------

End = Callable[[], None]
"""Takes an incident back."""


def more_traffic(name: str) -> Callable[[Watch], End]:
    """Beside the quiet traffic, as much again of the producer's scenario."""

    def begin(watch: Watch) -> End:
        source = watch.traffic(f"producer-{name}", "--scenario", name)
        watch.programs.append(source)

        def end() -> None:
            watch.programs.remove(source)
            source.stop()

        return end

    return begin


def no_traffic(watch: Watch) -> End:
    """The only producer holds back what it should send."""
    watch.quiet.stop()
    source = watch.traffic("producer-stall", "--scenario", "stall", "--scenario-for", "24h")

    def end() -> None:
        # Another one takes over; what the first held back is not sent.
        source.stop()
        watch.quiet = watch.traffic("producer-again")

    return end


def frozen_broker(watch: Watch) -> End:
    """The broker's process is stopped where it stands: connections are open, nobody answers."""
    (pid_file,) = (watch.stage.directory / "kafka").glob("*.pid")
    broker = int(pid_file.read_text(encoding="utf-8"))
    os.kill(broker, signal.SIGSTOP)
    # Whatever ends the demo, a stopped process would outlive it.
    watch.stage.callback(lambda: wake(broker))
    return lambda: wake(broker)


def wake(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGCONT)


@dataclass(frozen=True)
class Incident:
    """What goes wrong, and what should be seen of it."""

    name: str
    alert: str
    metric: str
    """Expression that is drawn for people, and moves before the alert."""
    moved: Callable[[float], bool]
    begin: Callable[[Watch], End]


INCIDENTS = {
    incident.name: incident
    for incident in (
        Incident(
            "fraud-spike",
            "FraudRateHigh",
            "fraud_scorer:decline_ratio:rate5m",
            lambda share: share > 0.0035,
            more_traffic("fraud-spike"),
        ),
        Incident(
            "distribution-shift",
            "DriftShareHigh",
            "max(fraud_scorer_drift_share)",
            lambda share: share > 0.1,
            more_traffic("distribution-shift"),
        ),
        Incident(
            "poison",
            "DeadLetterRateHigh",
            "fraud_scorer:dead_letter_ratio:rate5m",
            lambda share: share > 0.001,
            more_traffic("poison"),
        ),
        Incident(
            "stall",
            "NoTransactions",
            "sum(rate(fraud_scorer_transactions_total[1m]))",
            lambda rate: rate < RATE / 2,
            no_traffic,
        ),
        Incident(
            "frozen-broker",
            "ConsumerStalled",
            "min(fraud_scorer_ready)",
            lambda ready: ready == 0,
            frozen_broker,
        ),
    )
}


# ---- how it goes ---------------------------------------------------------------------------------


@dataclass
class Record:
    """When what happened, by the monotonic clock."""

    incident: Incident
    times: dict[str, float] = field(default_factory=dict)

    def line(self, began: float) -> str:
        injected = self.times["injected"]
        after = "".join(
            f"{f'+{self.times[step] - injected:.0f} s':>10}"
            for step in ("moved", "fired", "mailed", "ended", "resolved")
        )
        start = f"{injected - began:.0f} s"
        return f"{self.incident.name:<20}{self.incident.alert:<20}{start:>10}{after}"


def quiet_baseline(watch: Watch, seconds: float) -> None:
    """Quiet traffic for a while: whatever fires now is a false alarm."""
    watch.timeline.tell(f"quiet      {RATE:,} transactions per second")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.well()
        watch.quiet.must_run()
        if alerts := watch.firing():
            raise DemoError(f"{', '.join(sorted(alerts))} fired without an incident")
        time.sleep(0.5)
    if watch.mailbox.subjects:
        raise DemoError(f"a mail without an incident: {watch.mailbox.subjects[0][1]}")
    watch.timeline.tell(f"quiet      {seconds:.0f} s of it: no alert, no mail")


def play(watch: Watch, record: Record) -> Iterator[bool]:
    """Plays an incident until it is over, and yields whenever it waits.

    Yields true once only the mail that it is over is still to come: the next one may begin.
    """
    tell, incident, times = watch.timeline.tell, record.incident, record.times

    def wait(what: str, look: Callable[[], Any], seconds: float) -> Generator[bool, None, Any]:
        """Yields until there is something to see; the result is the generator's value."""
        deadline = time.monotonic() + watch.seconds(seconds) + 60
        while (seen := look()) is None:
            if time.monotonic() > deadline:
                raise DemoError(f"{incident.name}: waited in vain for {what}")
            yield False
        return seen

    def moved() -> float | None:
        value = watch.value(compressed(incident.metric, watch.compress))
        return value if value is not None and incident.moved(value) else None

    before = watch.value(compressed(incident.metric, watch.compress))
    times["injected"] = time.monotonic()
    tell(f"injected   {incident.name}", times["injected"])
    end = incident.begin(watch)
    value = yield from wait(f"{incident.metric} to move", moved, 600)
    times["moved"] = time.monotonic()
    old = "no value" if before is None else f"{before:.4g}"
    tell(f"moved      {incident.metric}: {old} → {value:.4g}")

    alert = incident.alert
    yield from wait(f"{alert} to fire", lambda: alert in watch.firing() or None, 900)
    times["fired"] = time.monotonic()
    tell(f"fired      {alert}, {times['fired'] - times['injected']:.0f} s after the injection")
    times["mailed"] = yield from wait(
        "the mail", lambda: watch.mailbox.about(alert, "FIRING", times["injected"]), 300
    )
    watch.tell_mails()

    end()
    times["ended"] = time.monotonic()
    tell(f"ended      {incident.name}")
    yield from wait(f"{alert} to end", lambda: alert not in watch.firing() or None, 1_800)
    tell(f"calm       {alert} fires no longer")
    deadline = time.monotonic() + watch.seconds(900) + 60
    while (at := watch.mailbox.about(alert, "RESOLVED", times["ended"])) is None:
        if time.monotonic() > deadline:
            raise DemoError(f"{incident.name}: waited in vain for the mail that it is over")
        yield True
    times["resolved"] = at


def play_all(watch: Watch, incidents: list[Incident]) -> list[Record]:
    """One after the other; the next begins when of those before only mails are outstanding."""
    records: list[Record] = []
    waiting, running = list(incidents), []
    while waiting or running:
        watch.well()
        states = [next(story, None) for story in running]
        running = [s for s, state in zip(running, states, strict=True) if state is not None]
        watch.tell_mails()
        if waiting and all(state is not False for state in states):
            records.append(Record(waiting.pop(0)))
            running.append(play(watch, records[-1]))
        time.sleep(0.2)
    return records


def main() -> int:
    parser = argparse.ArgumentParser(prog="make incident-demo")
    parser.add_argument(
        "--scenario", action="append", choices=list(INCIDENTS), help="default: all, in turn"
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--compress",
        type=int,
        default=COMPRESS,
        help="divide the times of rules and windows by this [default: %(default)s]",
    )
    pace.add_argument(
        "--full", action="store_const", dest="compress", const=1, help="the times as shipped"
    )
    parser.add_argument("--quiet-seconds", type=float, help="length of the baseline")
    parser.add_argument(
        "--directory",
        type=Path,
        default=ROOT / ".runtime" / "incident-demo",
        help="logs, mails, data [default: .runtime/incident-demo]",
    )
    options = parser.parse_args()
    # Asked to end, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    incidents = [INCIDENTS[name] for name in options.scenario or INCIDENTS]
    if options.compress > 1:
        print(
            "The shipped rules; their times and the drift window are divided by "
            f"{options.compress}, though no alert waits less than {LEAST_FOR_SECONDS} s. "
            "As shipped: --full"
        )
    with Stage(options.directory) as stage:
        try:
            # Known beforehand, said beforehand.
            for program in ALERTMANAGER, PROMETHEUS:
                found(*program)
            watch = Watch(stage, options.compress)
            quiet_baseline(watch, options.quiet_seconds or watch.seconds(QUIET_SECONDS))
            records = play_all(watch, incidents)
        except DemoError as error:
            print(f"error: {error}\nlogs: {options.directory}", file=sys.stderr)
            return 1
    steps = "".join(f"{step:>10}" for step in ("injected", "moved", "fired", "mail", "ended"))
    print(f"\n{'incident':<20}{'alert':<20}{steps}{'resolved':>10}")
    for record in records:
        print(record.line(watch.timeline.began))
    print(f"\nmails and logs: {options.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
