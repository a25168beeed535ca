"""Dashboards: as their generator writes them, and every query answered by a real Prometheus."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
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
from demos.parts import RELEASE, DemoError, Stage, free_port, get, get_json, until  # noqa: E402

PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "description", "datasource", "gridPos", "targets"],
    "properties": {
        "type": {"enum": ["timeseries", "stat", "table", "heatmap"]},
        "title": {"type": "string", "minLength": 3},
        "description": {"type": "string", "minLength": 10},
        "datasource": {"const": {"type": "prometheus", "uid": "fraud-scorer"}},
        "gridPos": {"type": "object", "required": ["h", "w", "x", "y"]},
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["refId", "expr", "legendFormat"]},
        },
    },
}
DASHBOARD = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "time", "refresh"],
    "properties": {"panels": {"type": "array", "minItems": 3, "items": PANEL}},
}


def dashboards() -> list[dict[str, Any]]:
    folder = ROOT / "deploy" / "grafana" / "dashboards"
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def test_the_files_are_what_the_generator_writes() -> None:
    wanted = make.files()
    found_files = set((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
    assert found_files == set(wanted)
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, "run: python deploy/grafana/make.py"


def test_the_dashboards_have_the_shape_that_grafana_reads() -> None:
    for board in dashboards():
        jsonschema.validate(board, DASHBOARD)
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        for panel in board["panels"]:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= make.COLUMNS
    assert len({board["uid"] for board in dashboards()}) == len(dashboards())


def test_the_data_source_has_the_name_that_the_panels_use() -> None:
    path = ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml"
    (source,) = yaml.safe_load(path.read_text(encoding="utf-8"))["datasources"]
    assert (source["type"], source["uid"]) == (make.SOURCE["type"], make.SOURCE["uid"])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes a worker which has scored, and refused, some messages."""
    kafka_java()
    binary("fraud-scorer")
    try:
        found("prometheus")
    except DemoError as error:
        need(None, str(error))
    with Stage(tmp_path_factory.mktemp("grafana") / "stage") as stage:
        kafka = stage.kafka()
        worker, server = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        scorer = stage.start(
            "worker",
            *(RELEASE / "fraud-scorer", "run", "--brokers", kafka.address, "--create-topics"),
            *("--http", worker),
        )
        until("the worker", lambda: scorer.running() and get(f"http://{worker}/readyz")[0] == 200)
        poison = stage.directory / "poison.jsonl"
        poison.write_text('{"V1": \n{"V1": 1}\n', encoding="utf-8")
        send = (RELEASE / "fraud-producer", "--brokers", kafka.address, "--quiet")
        stage.run("poison", *send, "--jsonl", poison)
        stage.start("traffic", *send, "--rate", "500", "--fraud-share", "0.05")
        stage.start(
            "prometheus",
            *(found("prometheus"), f"--config.file={configuration(stage.directory, worker)}"),
            *(f"--storage.tsdb.path={stage.directory / 'data'}", f"--web.listen-address={server}"),
        )
        until("Prometheus", lambda: get(f"http://{server}/-/ready")[0] == 200)
        yield f"http://{server}"


def configuration(directory: Path, worker: str) -> Path:
    shipped = ROOT / "deploy" / "prometheus"
    content = yaml.safe_load((shipped / "prometheus.yml").read_text(encoding="utf-8"))
    content["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    content["rule_files"] = [str(shipped / name) for name in content["rule_files"]]
    content["scrape_configs"][0]["static_configs"][0]["targets"] = [worker]
    del content["alerting"]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_every_query_returns_data(prometheus: str) -> None:
    for board in dashboards():
        for panel in board["panels"]:
            for target in panel["targets"]:
                expression = target["expr"].replace("$__rate_interval", "10s")
                url = f"{prometheus}/api/v1/query?query={quote(expression)}"

                def answered(url: str = url) -> bool:
                    answer = get_json(url)
                    return bool(answer and answer["data"]["result"])

                until(f"{board['title']}, {panel['title']}: {expression}", answered, 60)
