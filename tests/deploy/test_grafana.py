"""Dashboards and Grafana's alert rules.

As their generator writes them, in the shape that Grafana reads, the same as Prometheus' own rules,
and every query answered by a real Prometheus.
"""

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import jsonschema
import pytest
import yaml
from conftest import ROOT, binary, kafka_java, need

sys.path[:0] = [str(ROOT), str(ROOT / "deploy" / "grafana")]
os.environ.setdefault("FRAUD_SCORER_BINARIES", str(ROOT / "target" / "debug"))

import make  # noqa: E402

from demos.incident import found  # noqa: E402
from demos.parts import (  # noqa: E402
    PYTHON,
    RELEASE,
    DemoError,
    Stage,
    free_port,
    get,
    get_json,
    until,
)

# Shapes of what Grafana reads, as its documentation of dashboards and of file provisioning has
# them. Closed: a misspelt key is an error here, where Grafana would pass over it.
SOURCE = {"const": {"type": "prometheus", "uid": "fraud-scorer"}}
WHOLE = {"type": "integer", "minimum": 0}
TEXT = {"type": "string", "minLength": 1}
ANY = {"type": "object"}


def closed(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these keys and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": required | optional,
        "additionalProperties": False,
    }


TARGET = closed(
    {
        "refId": {"pattern": "^[A-Z]$"},
        "datasource": SOURCE,
        "expr": TEXT,
        "legendFormat": {"type": "string"},
        "instant": {"type": "boolean"},
        "range": {"type": "boolean"},
    },
    format={"enum": ["table", "heatmap"]},
)
PANEL = closed(
    {
        "id": {"type": "integer", "minimum": 1},
        "type": {"enum": ["timeseries", "stat", "table", "heatmap"]},
        "title": {"type": "string", "minLength": 3},
        "description": {"type": "string", "minLength": 10},
        "datasource": SOURCE,
        "gridPos": closed({"h": WHOLE, "w": WHOLE, "x": WHOLE, "y": WHOLE}),
        "fieldConfig": closed(
            {
                "defaults": closed({"unit": TEXT}, min={"type": "number"}, custom=ANY),
                "overrides": {"type": "array"},
            }
        ),
        "options": ANY,
        "targets": {"type": "array", "minItems": 1, "items": TARGET},
    }
)
LIST = closed({"list": {"type": "array"}})
DASHBOARD = closed(
    {
        "uid": {"pattern": "^[a-z-]{1,40}$"},
        "title": TEXT,
        "description": TEXT,
        "tags": {"type": "array", "items": TEXT},
        "schemaVersion": {"type": "integer", "minimum": 30},
        "editable": {"type": "boolean"},
        "refresh": TEXT,
        "time": closed({"from": TEXT, "to": TEXT}),
        "timezone": {"enum": ["browser", "utc"]},
        "templating": LIST,
        "annotations": LIST,
        "panels": {"type": "array", "minItems": 3, "items": PANEL},
    }
)
DURATION = {"type": "string", "pattern": "^[0-9]+[smhd]$"}
QUERY = closed(
    {
        "refId": TEXT,
        "queryType": {"type": "string"},
        "relativeTimeRange": closed({"from": WHOLE, "to": WHOLE}),
        "datasourceUid": {"enum": ["fraud-scorer", "__expr__"]},
        "model": {"type": "object", "required": ["refId", "datasource"]},
    }
)
RULE = closed(
    {
        "uid": {"pattern": "^[a-z-]{1,40}$"},
        "title": TEXT,
        "condition": TEXT,
        "data": {"type": "array", "minItems": 1, "items": QUERY},
        "noDataState": {"enum": ["Alerting", "NoData", "OK", "KeepLast"]},
        "execErrState": {"enum": ["Alerting", "Error", "OK", "KeepLast"]},
        "for": DURATION,
        "annotations": {"type": "object", "additionalProperties": TEXT},
        "labels": {"type": "object", "additionalProperties": TEXT},
        "isPaused": {"const": False},
    },
    dashboardUid=TEXT,
    panelId={"type": "integer", "minimum": 1},
)
GROUP = closed(
    {
        "orgId": {"const": 1},
        "name": TEXT,
        "folder": TEXT,
        # Grafana's scheduler knows multiples of ten seconds only.
        "interval": {"pattern": "^[1-9][0-9]*0s$"},
        "rules": {"type": "array", "minItems": 1, "items": RULE},
    }
)
DATA_SOURCE = closed(
    {
        "name": TEXT,
        "uid": {"pattern": "^[a-z-]{1,40}$"},
        "type": {"enum": ["prometheus", "alertmanager"]},
        "access": {"const": "proxy"},
        "url": TEXT,
        "jsonData": ANY,
    },
    isDefault={"type": "boolean"},
)
PROVIDER = closed(
    {
        "name": TEXT,
        "folder": TEXT,
        "type": {"const": "file"},
        "allowUiUpdates": {"type": "boolean"},
        "options": closed({"path": TEXT}),
    }
)


METRIC = r"\b(?:fraud_scorer|drift_share|push_time)[\w:]+|\bup\b"


def provisioned(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    return closed({"apiVersion": {"const": 1}, kind: {"type": "array", "items": item}})


PROVISIONING = {
    "alerting/fraud-scorer.yml": provisioned("groups", GROUP),
    "dashboards/dashboards.yml": provisioned("providers", PROVIDER),
    "datasources/prometheus.yml": provisioned("datasources", DATA_SOURCE),
}


def dashboards() -> list[dict[str, Any]]:
    folder = ROOT / "deploy" / "grafana" / "dashboards"
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def provisioning(name: str) -> Any:
    return yaml.safe_load((ROOT / "deploy/grafana/provisioning" / name).read_text(encoding="utf-8"))


def test_the_files_are_what_the_generator_writes() -> None:
    wanted = make.files()
    folder = ROOT / "deploy" / "grafana"
    found_files = {*folder.glob("dashboards/*"), *folder.glob("provisioning/alerting/*")}
    assert found_files == set(wanted)
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, "run: python deploy/grafana/make.py"


def test_the_dashboards_have_the_shape_that_grafana_reads() -> None:
    for board in dashboards():
        jsonschema.validate(board, DASHBOARD)
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        taken = set()
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= make.COLUMNS
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, f"{panel['title']} lies on another panel"
            taken |= cells
    assert len({board["uid"] for board in dashboards()}) == len(dashboards())


def test_the_provisioning_has_the_shape_that_grafana_reads() -> None:
    folder = ROOT / "deploy" / "grafana" / "provisioning"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.yml")} == set(PROVISIONING)
    for name, schema in PROVISIONING.items():
        jsonschema.validate(provisioning(name), schema)


def test_a_misspelt_key_is_found() -> None:
    board, rules = dashboards()[0], provisioning("alerting/fraud-scorer.yml")
    board["panels"][0]["targets"][0]["legendFromat"] = "x"
    rules["groups"][0]["rules"][0]["noDateState"] = "OK"
    for content, schema in (
        (board, DASHBOARD),
        (rules, PROVISIONING["alerting/fraud-scorer.yml"]),
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content, schema)


def test_the_data_source_has_the_name_that_the_panels_use() -> None:
    source, alertmanager = provisioning("datasources/prometheus.yml")["datasources"]
    assert (source["type"], source["uid"]) == (make.SOURCE["type"], make.SOURCE["uid"])
    assert source["isDefault"]
    assert alertmanager["type"] == "alertmanager"


def test_grafana_has_the_alerts_of_prometheus() -> None:
    """Read anew from both files, not by the generator's own steps."""
    text = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    groups = yaml.safe_load(text)["groups"]
    wanted = {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}
    (group,) = provisioning("alerting/fraud-scorer.yml")["groups"]
    assert [rule["title"] for rule in group["rules"]] == list(wanted)
    assert len({rule["uid"] for rule in group["rules"]}) == len(wanted)
    panels = {
        (board["uid"], panel["id"]): panel for board in dashboards() for panel in board["panels"]
    }
    for rule in group["rules"]:
        name = rule["title"]
        own = wanted[name]
        query, exists, threshold = rule["data"]
        assert query["model"]["expr"].split() == own["expr"].split(), name
        assert query["datasourceUid"] == make.SOURCE["uid"]
        assert query["model"]["instant"]
        # Whatever the query returns, fires.
        assert "$query" in exists["model"]["expression"]
        assert threshold["model"]["expression"] == exists["refId"]
        assert rule["condition"] == threshold["refId"]
        assert rule["for"] == own.get("for", "0s")
        assert rule["labels"] == own["labels"]
        texts = rule["annotations"]
        assert texts["description"] == own["annotations"]["description"]
        assert texts["runbook_url"].endswith(own["annotations"]["runbook_url"])
        summary = texts["summary"].replace("$values.query.Value", "$value")
        assert summary == own["annotations"]["summary"]
        panel = panels[rule["dashboardUid"], rule["panelId"]]
        drawn = " ".join(target["expr"] for target in panel["targets"])
        metrics = set(re.findall(METRIC, own["expr"]))
        assert any(metric in drawn for metric in metrics), f"{name}: {panel['title']}"
    assert not [rule["title"] for rule in group["rules"] if "dashboardUid" not in rule]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes a worker which has scored, and refused, some messages.

    The worker follows a registry, and has a challenger.
    """
    kafka_java()
    binary("fraud-scorer")
    try:
        found("prometheus")
    except DemoError as error:
        need(None, str(error))
    with Stage(tmp_path_factory.mktemp("grafana") / "stage") as stage:
        kafka, registry = stage.kafka(), stage.mlflow()
        stage.environment(MLFLOW_TRACKING_URI=registry)
        stage.run("register", *register(dated(stage.directory)))
        worker, server = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        scorer = stage.start(
            "worker",
            *(RELEASE / "fraud-scorer", "run", "--brokers", kafka.address, "--create-topics"),
            *("--model", "mlflow:fraud@champion", "--model-cache", stage.directory / "models"),
            *("--challenger", ROOT / "models/fraud-lr", "--http", worker),
        )

        def ready() -> bool:
            scorer.must_run()
            return get(f"http://{worker}/readyz")[0] == 200

        until("the worker", ready, 120)
        poison = stage.directory / "poison.jsonl"
        poison.write_text('{"V1": \n{"V1": 1}\n', encoding="utf-8")
        send = (RELEASE / "fraud-producer", "--brokers", kafka.address, "--quiet")
        stage.run("poison", *send, "--jsonl", poison)
        stage.start("traffic", *send, "--rate", "500", "--fraud-share", "0.05")
        config = configuration(stage.directory, worker, report(stage))
        stage.start(
            "prometheus",
            *(found("prometheus"), f"--config.file={config}"),
            *(f"--storage.tsdb.path={stage.directory / 'data'}", f"--web.listen-address={server}"),
        )
        until("Prometheus", lambda: get(f"http://{server}/-/ready")[0] == 200)
        yield f"http://{server}"


def dated(directory: Path) -> Path:
    """The shipped bundle, with a word on how old it is, as retraining writes it."""
    bundle = directory / "fraud"
    shutil.copytree(ROOT / "models" / "fraud", bundle)
    manifest = bundle / "manifest.toml"
    text = manifest.read_text(encoding="utf-8")
    until = int(time.time() * 1000) - 86_400_000
    manifest.write_text(text.replace("[training]\n", f"[training]\ntrained_until = {until}\n", 1))
    return bundle


def register(bundle: Path) -> tuple[str | Path, ...]:
    """Makes a bundle the registry's champion."""
    program = PYTHON.with_name("fraud-training")
    return (program, "register", "--bundle", bundle, "--alias", "champion")


class Report(BaseHTTPRequestHandler):
    """What a Pushgateway shows after `fraud-training drift`."""

    def do_GET(self) -> None:
        group = 'job="fraud-training-drift",model="fraud"'
        text = (
            f"drift_share_of_drifted_columns{{{group}}} 0.1\n"
            f'drift_column_score{{{group},column="V14"}} 0.3\n'
            f"push_time_seconds{{{group}}} {time.time() - 60}\n"
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Not to the terminal."""


def report(stage: Stage) -> str:
    """Address of such a page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Report)
    Thread(target=server.serve_forever, daemon=True).start()
    stage.callback(server.shutdown)
    return f"127.0.0.1:{server.server_port}"


def configuration(directory: Path, worker: str, gateway: str) -> Path:
    """The shipped one with one worker, and everything once a second."""
    shipped = ROOT / "deploy" / "prometheus"
    content = yaml.safe_load((shipped / "prometheus.yml").read_text(encoding="utf-8"))
    content["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for name in content["rule_files"]:
        rules = yaml.safe_load((shipped / name).read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group.pop("interval", None)
        (directory / name).write_text(yaml.safe_dump(rules), encoding="utf-8")
    for job in content["scrape_configs"]:
        address = worker if job["job_name"] == "fraud-scorer" else gateway
        job["static_configs"][0]["targets"] = [address]
    del content["alerting"]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def result(prometheus: str, expression: str) -> list[dict[str, Any]] | None:
    """What a query returns; nothing where it is refused, which fails the test."""
    answer = get_json(f"{prometheus}/api/v1/query?query={quote(expression)}")
    return answer["data"]["result"] if answer else None


def test_every_query_returns_data(prometheus: str) -> None:
    for board in dashboards():
        for panel in board["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "10s")
                until(
                    f"{board['title']}, {panel['title']}: {expression}",
                    lambda expression=expression: bool(result(prometheus, expression)),
                    180,
                )


def test_prometheus_takes_the_queries_of_grafanas_alerts(prometheus: str) -> None:
    for rule in provisioning("alerting/fraud-scorer.yml")["groups"][0]["rules"]:
        assert result(prometheus, rule["data"][0]["model"]["expr"]) is not None, rule["title"]
