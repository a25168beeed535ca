"""Writes dashboards/*.json: `python deploy/grafana/make.py`. What panels show stands here, once.

A dashboard is rows of panels; a panel is a title, a unit, a sentence on how to read it, and its
queries with their legends. Everything else that Grafana wants is the same for all of them. Every
query is run against a real Prometheus by tests/deploy/test_grafana.py.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
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
        defaults: dict[str, Any] = {"unit": self.unit, "min": 0}
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
    ),
    Panel(
        "From transaction to verdict",
        "s",
        "From a transaction's Kafka timestamp to the commit of its verdict, all workers.",
        quantiles("fraud_scorer_end_to_end_seconds", 0.5, 0.95, 0.99)
        | {"alert above": "fraud_scorer:threshold:latency_seconds"},
    ),
    Panel(
        "How long transactions wait",
        "s",
        "Age of the last record read while there are more, per partition.",
        {"partition {{partition}}": "max by (partition) (fraud_scorer_consumer_lag_seconds)"},
    ),
    Panel(
        "Transactions that wait",
        "short",
        "Records not yet read, per partition.",
        {"partition {{partition}}": "max by (partition) (fraud_scorer_consumer_lag)"},
        stacked=True,
    ),
    Panel(
        "Dead letters per second",
        "cps",
        "Messages that cannot be scored, by reason.",
        {"{{error_class}}": rate("fraud_scorer_dead_letters_total", "error_class")},
        stacked=True,
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
        "Partitions came or went; work since the last commit was thrown away and read again.",
        {
            "rebalances": f"sum(increase(fraud_scorer_rebalances_total[{RATE}]))",
            "redone": f"sum(increase(fraud_scorer_redone_total[{RATE}]))",
        },
    ),
    Panel(
        "Workers",
        "short",
        "Workers whose metrics Prometheus reaches.",
        {"workers": 'sum(up{job="fraud-scorer"})'},
        kind="stat",
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
        "Scores",
        "short",
        "Histogram of the probability of fraud over time.",
        {"{{le}}": f"sum by (le) (increase(fraud_scorer_score_bucket[{RATE}]))"},
        kind="heatmap",
        width=12,
    ),
    Panel(
        "Low scores",
        "percentunit",
        "Share of scores of 0.01 and less. All of them, or few: the model no longer tells apart.",
        {"0.01 and less": "fraud_scorer:low_score_ratio:rate15m"},
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
    ),
    Panel(
        "Share to review",
        "percentunit",
        "What people are asked to look at.",
        {
            "review": rate('fraud_scorer_verdicts_total{decision="review"}')
            + f" / ({rate('fraud_scorer_verdicts_total')} > 0)"
        },
        width=12,
    ),
    Panel(
        "Today's decisions",
        "short",
        "Verdicts of the last 24 hours.",
        {"{{decision}}": "sum by (decision) (increase(fraud_scorer_verdicts_total[24h]))"},
        kind="stat",
        width=12,
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


def files() -> dict[Path, str]:
    """All dashboards as they should be on disk."""
    return {
        HERE / "dashboards" / f"{board.uid}.json": json.dumps(board.to_json(), indent=2) + "\n"
        for board in DASHBOARDS
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE))
