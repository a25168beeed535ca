"""The HTTP API is what /openapi.json says: held against it by schemathesis.

Against MLflow's protocol and training's scores it is held by hand.
"""

import json
import re
import urllib.error
import urllib.request
from typing import Any

import hypothesis
import pytest
import schemathesis
from conftest import ROOT
from schemathesis import GenerationMode

DESCRIBED = json.loads((ROOT / "src/http/openapi.json").read_text())["paths"]
# Server-sent events never end: the console's tests hold them.
OPERATIONS = [
    (path, method)
    for path, methods in DESCRIBED.items()
    for method in methods
    if path != "/v1/events"
]

# The same requests in every run: a failure is a change of ours, not of the dice.
SAME = hypothesis.settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="session")
def schema(demo: str) -> Any:
    return schemathesis.openapi.from_url(f"{demo}/openapi.json")


def hold(demo: str, operation: Any, mode: GenerationMode, examples: int) -> None:
    """Sends what is generated from the description; the answers must be as described."""
    seen = []

    @hypothesis.settings(SAME, max_examples=examples)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def every_answer_is_as_described(case: Any) -> None:
        seen.append(case.call_and_validate(base_url=demo, timeout=30).status_code)

    every_answer_is_as_described()
    assert seen


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_what_is_described_is_answered_as_described(
    schema: Any, demo: str, path: str, method: str
) -> None:
    examples = 60 if method == "post" else 3
    hold(demo, schema[path][method.upper()], GenerationMode.POSITIVE, examples)


@pytest.mark.parametrize("path", ["/v1/score", "/invocations"])
def test_what_is_not_described_is_refused_as_described(schema: Any, demo: str, path: str) -> None:
    hold(demo, schema[path]["POST"], GenerationMode.NEGATIVE, 150)


def test_every_path_is_described(demo: str) -> None:
    source = (ROOT / "src/http/mod.rs").read_text()
    routes = set(re.findall(r'\.route\(\s*"([^"]+)"', source))
    assert routes == set(DESCRIBED)


def ask(url: str, body: Any) -> tuple[int, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


def test_scores_are_those_that_training_recorded(demo: str, golden: list[dict[str, Any]]) -> None:
    features = [{k: v for k, v in one.items() if k[0] in "VA"} for one in golden]
    columns = [f"V{number}" for number in range(1, 29)] + ["Amount"]
    rows = [[one[name] for name in columns] for one in features]
    for body in (
        {"dataframe_records": features},
        {"dataframe_split": {"columns": columns, "data": rows, "index": list(range(len(rows)))}},
        {"instances": rows},
        {"inputs": rows, "params": {}},
        {"inputs": {name: [one[name] for one in features] for name in columns}},
    ):
        status, answer = ask(f"{demo}/invocations", body)
        assert status == 200, answer
        expected = [one["expected_score"] for one in golden]
        assert answer["predictions"] == pytest.approx(expected, abs=1e-5)


def test_a_problem_names_the_field(demo: str, golden: list[dict[str, Any]]) -> None:
    spoilt = {**golden[0], "V14": "many"}
    for path, body in (("v1/score", spoilt), ("invocations", {"instances": [spoilt]})):
        status, problem = ask(f"{demo}/{path}", body)
        assert status == problem["status"] == 422
        assert problem["type"] == "urn:fraud-scorer:problem:not-a-number"
        assert "V14" in problem["detail"]
