"""Writes dashboards/*.json and provisioning/alerting/*.yml: `python deploy/grafana/make.py`.

What panels show stands here, once. A dashboard is rows of panels; a panel is a title, a unit, a
sentence on how to read it, and its queries with their legends. Everything else that Grafana wants
is the same for all of them. Every query is run against a real Prometheus by
tests/deploy/test_grafana.py.

Alert rules are not written here: they are made of deploy/prometheus/alerts.yml, expression by
expression, with the same thresholds, times, labels and texts, for those who let Grafana evaluate
and notify.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
RULES = HERE.parent / "prometheus" / "alerts.yml"
SOURCE = {"type": "prometheus", "uid": "fraud-scorer"}
SCHEMA = 39
"""Of Grafana 11's dashboards."""
HEIGHT, COLUMNS = 8, 24


@dataclass(frozen=True)
class Panel:
    title: str
    unit: str
    text: str
    queries: dict[str, str]
    """Legend to expression."""
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    alerts: tuple[str, ...] = ()
    """Alerts that this panel explains; Grafana shows their states in it."""

    def to_json(self, number: int, x: int, y: int) -> dict[str, Any]:
        targets = [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": self.kind in {"stat", "table"},
                "range": self.kind not in {"stat", "table"},
                **({"format": "table"} if self.kind == "table" else {}),
                **({"format": "heatmap"} if self.kind == "heatmap" else {}),
            }
            for index, (legend, expression) in enumerate(self.queries.items())
        ]
        defaults: dict[str, Any] = {"unit": self.unit}
        if self.kind != "heatmap":
            defaults["min"] = 0
        if self.kind == "timeseries":
            defaults["custom"] = {
                "lineWidth": 1,
                "fillOpacity": 20 if self.stacked else 5,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none"},
            }
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.text,
            "datasource": SOURCE,
            "gridPos": {"h": HEIGHT, "w": self.width, "x": x, "y": y},
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": self.options(),
            "targets": targets,
        }

    def options(self) -> dict[str, Any]:
        if self.kind == "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }
        if self.kind == "heatmap":
            return {"calculate": False, "yAxis": {"unit": self.unit}, "color": {"scheme": "Blues"}}
        return {}


RATE = "$__rate_interval"

SAME_DECISION = (
    "label_replace(sum by (challenger) (fraud_scorer_challenger_decisions_total),"
    ' "champion", "$1", "challenger", "(.*)")'
)
"""Series of pairs of equal decisions; those where nothing changes are not drawn."""


def rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[{RATE}]))"


def quantiles(metric: str, *of: float) -> dict[str, str]:
    return {
        f"p{q * 100:g}": f"histogram_quantile({q}, sum by (le) (rate({metric}_bucket[{RATE}])))"
        for q in of
    }


OPERATIONS = [
    Panel(
        "Transactions per second",
        "cps",
        "Committed rows of all workers.",
        {"transactions": rate("fraud_scorer_transactions_total")},
        alerts=("NoTransactions",),
    ),
    Panel(
        "From transaction to verdict",
        "s",
        "From a transaction's Kafka timestamp to the commit of its verdict, all workers.",
        quantiles("fraud_scorer_end_to_end_seconds", 0.5, 0.95, 0.99)
        | {"alert above": "fraud_scorer:threshold:latency_seconds"},
        alerts=("VerdictLatencyHigh",),
    ),
    Panel(
        "How long transactions wait",
        "s",
        "Age of the last record read while there are more, per partition.",
        {
            "partition {{partition}}": "max by (partition) (fraud_scorer_consumer_lag_seconds)",
            "alert above": "fraud_scorer:threshold:lag_seconds",
        },
        alerts=("ConsumerLagHigh",),
    ),
    Panel(
        "Transactions that wait",
        "short",
        "Records not yet read, per partition.",
        {"partition {{partition}}": "max by (partition) (fraud_scorer_consumer_lag)"},
        stacked=True,
        alerts=("ConsumerStalled",),
    ),
    Panel(
        "Dead letters per second",
        "cps",
        "Messages that cannot be scored, by reason.",
        {"{{error_class}}": rate("fraud_scorer_dead_letters_total", "error_class")},
        stacked=True,
    ),
    Panel(
        "Share of dead letters",
        "percentunit",
        "Over five minutes, with the line above which the alert fires.",
        {
            "dead letters": "fraud_scorer:dead_letter_ratio:rate5m",
            "alert above": "fraud_scorer:threshold:dead_letter_ratio",
        },
        alerts=("DeadLetterRateHigh",),
    ),
    Panel(
        "Where a scoring thread's time goes",
        "percentunit",
        "Seconds of each stage per second; the threads of all workers together.",
        {"{{stage}}": rate("fraud_scorer_stage_seconds_sum", "stage")},
        stacked=True,
    ),
    Panel(
        "Rows scored together",
        "short",
        "Size of a batch: 1 at low load, up to --max-batch at high load.",
        quantiles("fraud_scorer_batch_rows", 0.5, 0.99),
    ),
    Panel(
        "Rebalances and redone work",
        "short",
        "Partitions came or went, or are left alone; work was done again; records were gone.",
        {
            "rebalances": f"sum(increase(fraud_scorer_rebalances_total[{RATE}]))",
            "redone": f"sum(increase(fraud_scorer_redone_total[{RATE}]))",
            "partitions paused": "sum(fraud_scorer_partition_paused) or vector(0)",
            "records gone": f"sum(increase(fraud_scorer_records_gone_total[{RATE}])) or vector(0)",
        },
        alerts=("PartitionPaused", "RecordsGone"),
    ),
    Panel(
        "Workers",
        "short",
        "Workers whose metrics Prometheus reaches, and those of them that are ready.",
        {"workers": 'sum(up{job="fraud-scorer"})', "ready": "sum(fraud_scorer_ready)"},
        kind="stat",
        alerts=("WorkersDown",),
    ),
]

MODEL = [
    Panel(
        "Models that serve",
        "short",
        "Number of workers per model version.",
        {"": "count by (name, version, sha256) (fraud_scorer_model_info == 1)"},
        kind="table",
        width=12,
    ),
    Panel(
        "Models that asked to serve",
        "short",
        "Taken into service, refused at a gate, or taken back.",
        {"{{result}}": f"sum by (result) (increase(fraud_scorer_model_swaps_total[{RATE}]))"},
        width=6,
    ),
    Panel(
        "Workers that reach the registry",
        "short",
        "Of those that follow an alias.",
        {
            "reach it": "sum(fraud_scorer_registry_reachable)",
            "follow an alias": "count(fraud_scorer_registry_reachable)",
        },
        kind="stat",
        width=6,
        alerts=("RegistryUnreachable",),
    ),
    Panel(
        "Age of the newest model",
        "s",
        "Since the newest transaction that it has learnt from.",
        {
            "age": "time() - max(fraud_scorer_model_trained_timestamp_seconds)",
            "alert above": "fraud_scorer:threshold:model_age_seconds",
        },
        alerts=("ModelTooOld",),
    ),
    Panel(
        "Scores",
        "short",
        "Histogram of the probability of fraud over time.",
        {"{{le}}": f"sum by (le) (increase(fraud_scorer_score_bucket[{RATE}]))"},
        kind="heatmap",
    ),
    Panel(
        "Scores that are nearly the same",
        "percentunit",
        "Share of the fullest bin of the score. All in one: the model no longer tells apart.",
        {
            "{{model}}": "fraud_scorer:score_fullest_bin:share15m",
            "alert above": "fraud_scorer:threshold:score_fullest_bin",
        },
        alerts=("ScoreDistributionCollapsed",),
    ),
    Panel(
        "Drifted features",
        "percentunit",
        "Share of the features that left the training data, per worker.",
        {
            "{{instance}}": "fraud_scorer_drift_share",
            "alert above": "fraud_scorer:threshold:drift_share",
        },
        alerts=("DriftShareHigh",),
    ),
    Panel(
        "Drift of the features",
        "short",
        "Population stability index, the ten highest: to 0.1 none, to 0.25 some, beyond much.",
        {"{{feature}}": "topk(10, max by (feature) (fraud_scorer_drift_psi))"},
    ),
    Panel(
        "Drift of the score",
        "short",
        "Population stability index of the model's score, per worker.",
        {"{{instance}}": "fraud_scorer_drift_score_psi"},
    ),
    Panel(
        "Drift of the features, all workers, last hour",
        "short",
        "From counts that add up over workers; the ten highest.",
        {"{{feature}}": "topk(10, max by (feature) (fraud_scorer:drift_psi:1h))"},
        width=12,
    ),
    Panel(
        "Drift of the score, all workers, last hour",
        "short",
        "From counts that add up over workers.",
        {"{{model}}": "fraud_scorer:drift_score_psi:1h"},
        width=12,
    ),
    Panel(
        "Drift report",
        "percentunit",
        "Share of drifted columns in the last report of `fraud-training drift`, by model.",
        {
            "{{model}}": "max by (model) (drift_share_of_drifted_columns)",
            "alert above": "fraud_scorer:threshold:drift_share",
        },
        alerts=("DriftReportHigh",),
    ),
    Panel(
        "Columns of the drift report",
        "short",
        "How far each column is off, the ten highest.",
        {"{{column}}": "topk(10, max by (column) (drift_column_score))"},
    ),
    Panel(
        "Age of the drift report",
        "s",
        "Since the last push.",
        {
            "{{model}}": 'time() - max by (model) (push_time_seconds{job="fraud-training-drift"})',
            "alert above": "fraud_scorer:threshold:drift_report_age_seconds",
        },
        alerts=("DriftReportTooOld",),
    ),
    Panel(
        "Challengers",
        "short",
        "Models that score in the champion's shadow, with their workers.",
        {"": "count by (name, version, sha256) (fraud_scorer_challenger_info == 1)"},
        kind="table",
        width=12,
    ),
    Panel(
        "Challenger's score less champion's",
        "short",
        "Histogram of the difference over time; above 0 the challenger is more suspicious.",
        {
            "{{le}}": "sum by (le) "
            f"(increase(fraud_scorer_challenger_score_difference_bucket[{RATE}]))"
        },
        kind="heatmap",
        width=12,
    ),
    Panel(
        "Decisions the challenger would change",
        "percentunit",
        "Share of the compared rows, by the champion's decision and the challenger's.",
        {
            "{{champion}} → {{challenger}}": "sum by (champion, challenger) "
            f"(rate(fraud_scorer_challenger_decisions_total[{RATE}]))"
            " / on () group_left () "
            f"(sum(rate(fraud_scorer_challenger_decisions_total[{RATE}])) > 0)"
            " unless on (champion, challenger) " + SAME_DECISION
        },
        stacked=True,
    ),
    Panel(
        "Money in changed decisions, per minute",
        "short",
        "Sum of the amounts that the challenger decides differently.",
        {
            "{{champion}} → {{challenger}}": "60 * sum by (champion, challenger) "
            f"(rate(fraud_scorer_challenger_flip_amount_total[{RATE}])) unless on "
            f"(champion, challenger) {SAME_DECISION}"
        },
        stacked=True,
    ),
    Panel(
        "Rows without a challenger's score",
        "cps",
        "The challenger failed on them; their verdicts stand.",
        {"failed": rate("fraud_scorer_challenger_failures_total")},
    ),
]

BUSINESS = [
    Panel(
        "Decisions per minute",
        "short",
        "Committed verdicts by decision.",
        {"{{decision}}": f"60 * {rate('fraud_scorer_verdicts_total', 'decision')}"},
        stacked=True,
        width=12,
    ),
    Panel(
        "Share declined",
        "percentunit",
        "Over five minutes, with the line above which the alert fires.",
        {
            "declined": "fraud_scorer:decline_ratio:rate5m",
            "alert above": "fraud_scorer:threshold:decline_ratio",
        },
        width=12,
        alerts=("FraudRateHigh",),
    ),
    Panel(
        "Amounts per minute",
        "short",
        "Sum of the transactions' amounts by decision, in their own currency.",
        {"{{decision}}": f"60 * {rate('fraud_scorer_verdict_amount_total', 'decision')}"},
        stacked=True,
        width=12,
    ),
    Panel(
        "Mean amount",
        "short",
        "Of a transaction, by decision.",
        {
            "{{decision}}": rate("fraud_scorer_verdict_amount_total", "decision")
            + f" / ({rate('fraud_scorer_verdicts_total', 'decision')} > 0)"
        },
        width=12,
    ),
    Panel(
        "Share to review",
        "percentunit",
        "What people are asked to look at.",
        {
            "review": rate('fraud_scorer_verdicts_total{decision="review"}')
            + f" / ({rate('fraud_scorer_verdicts_total')} > 0)"
        },
        width=8,
    ),
    Panel(
        "Today's decisions",
        "short",
        "Verdicts of the last 24 hours.",
        {"{{decision}}": "sum by (decision) (increase(fraud_scorer_verdicts_total[24h]))"},
        kind="stat",
    ),
    Panel(
        "Today's amounts",
        "short",
        "Amounts of the last 24 hours.",
        {"{{decision}}": "sum by (decision) (increase(fraud_scorer_verdict_amount_total[24h]))"},
        kind="stat",
    ),
]


@dataclass(frozen=True)
class Dashboard:
    uid: str
    title: str
    text: str
    panels: list[Panel]

    def to_json(self) -> dict[str, Any]:
        panels, x, y = [], 0, 0
        for number, panel in enumerate(self.panels, start=1):
            if x + panel.width > COLUMNS:
                x, y = 0, y + HEIGHT
            panels.append(panel.to_json(number, x, y))
            x += panel.width
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.text,
            "tags": ["fraud-scorer"],
            "schemaVersion": SCHEMA,
            "editable": True,
            "refresh": "10s",
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "templating": {"list": []},
            "annotations": {"list": []},
            "panels": panels,
        }


DASHBOARDS = [
    Dashboard("fraud-operations", "Fraud: operations", "Does it run, and how fast", OPERATIONS),
    Dashboard("fraud-model", "Fraud: model", "What serves, and whether it still fits", MODEL),
    Dashboard("fraud-business", "Fraud: business", "What is decided", BUSINESS),
]


# ---- alert rules ---------------------------------------------------------------------------------


def step(name: str, kind: str, **model: Any) -> dict[str, Any]:
    """A node that computes with those before it."""
    source = {"type": "__expr__", "uid": "__expr__"}
    return {
        "refId": name,
        "queryType": kind,
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": source["uid"],
        "model": {"refId": name, "type": kind, "datasource": source, **model},
    }


def data(expression: str) -> list[dict[str, Any]]:
    """An alert's expression as Prometheus means it: whatever it returns, fires.

    The same three nodes as those that Grafana makes of Prometheus' rules itself.
    """
    query = {
        "refId": "query",
        "queryType": "",
        "relativeTimeRange": {"from": 600, "to": 0},
        "datasourceUid": SOURCE["uid"],
        "model": {
            "refId": "query",
            "datasource": dict(SOURCE),
            "expr": expression,
            "instant": True,
            "range": False,
        },
    }
    exists = "is_number($query) || is_nan($query) || is_inf($query)"
    above = [{"evaluator": {"type": "gt", "params": [0]}}]
    return [
        query,
        step("prometheus_math", "math", expression=exists),
        step("threshold", "threshold", expression="prometheus_math", conditions=above),
    ]


def annotations(rule: dict[str, str]) -> dict[str, str]:
    """A rule's texts as Grafana writes their variables; it cannot ask for further `numbers`."""
    texts = {name: text for name, text in rule.items() if name != "numbers"}
    texts["summary"] = re.sub(r"\$value\b", "$values.query.Value", texts["summary"])
    texts["runbook_url"] = "${FRAUD_DOCUMENTS_URL}" + texts["runbook_url"]
    return texts


def panels_of_alerts() -> dict[str, tuple[str, int]]:
    """Dashboard and number of the panel that explains an alert."""
    return {
        alert: (board.uid, number)
        for board in DASHBOARDS
        for number, panel in enumerate(board.panels, start=1)
        for alert in panel.alerts
    }


def alerting() -> dict[str, Any]:
    """The file that Grafana reads its alert rules from."""
    panels, rules = panels_of_alerts(), []
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        for rule in group["rules"]:
            if "alert" not in rule:
                continue
            name = rule["alert"]
            place = panels.get(name)
            rules.append(
                {
                    "uid": f"fraud-{name.lower()}",
                    "title": name,
                    "condition": "threshold",
                    "data": data(" ".join(rule["expr"].split())),
                    **({"dashboardUid": place[0], "panelId": place[1]} if place else {}),
                    # Nothing returned is the good case, as in Prometheus.
                    "noDataState": "OK",
                    "execErrState": "Error",
                    "for": rule.get("for", "0s"),
                    "annotations": annotations(rule["annotations"]),
                    "labels": rule["labels"],
                    "isPaused": False,
                }
            )
    group = {
        "orgId": 1,
        "name": "fraud-scorer-alerts",
        "folder": "fraud-scorer",
        # Prometheus evaluates every 15 seconds; Grafana only knows multiples of ten.
        "interval": "10s",
        "rules": rules,
    }
    return {"apiVersion": 1, "groups": [group]}


ALERTING_HEAD = """# Grafana's alert rules, made of deploy/prometheus/alerts.yml by make.py.
# Their thresholds are the series that deploy/prometheus/thresholds.yml records.
"""


def files() -> dict[Path, str]:
    """Everything that is made here, as it should be on disk."""
    text = yaml.safe_dump(alerting(), sort_keys=False, width=110, allow_unicode=True)
    return {
        HERE / "dashboards" / f"{board.uid}.json": json.dumps(board.to_json(), indent=2) + "\n"
        for board in DASHBOARDS
    } | {HERE / "provisioning" / "alerting" / "fraud-scorer.yml": ALERTING_HEAD + text}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE))
