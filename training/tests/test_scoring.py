"""`fraud-training score` answers row by row, in order, and names what it cannot read."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fraud_training import FEATURES, paths
from fraud_training.cli import main


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_golden_records_score_as_expected(bundle: Path, tmp_path: Path) -> None:
    source, output = bundle / "golden.jsonl", tmp_path / "scores.jsonl"
    assert (
        main(["score", "--model", str(bundle), "--input", str(source), "--output", str(output)])
        == 0
    )
    records, answers = lines(source), lines(output)
    assert [a["transaction_id"] for a in answers] == [r["transaction_id"] for r in records]
    gaps = [abs(a["score"] - r["expected_score"]) for a, r in zip(answers, records, strict=True)]
    assert max(gaps) <= 1e-5
    for answer in answers:
        assert float(np.float32(answer["score"]).astype(str)) == answer["score"]


def test_other_fields_and_missing_ids_do_not_matter(tmp_path: Path) -> None:
    record = lines(paths.MODELS / "fraud" / "golden.jsonl")[0]
    bare = {name: record[name] for name in reversed(FEATURES)}
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    noisy = {**bare, "transaction_id": "x", "V99": "ignored", "Time": None}
    source.write_text(json.dumps(bare) + "\n\n" + json.dumps(noisy) + "\n", "utf-8")
    assert main(["score", "--input", str(source), "--output", str(output)]) == 0
    first, second = lines(output)
    assert (first["transaction_id"], second["transaction_id"]) == (None, "x")
    assert first["score"] == second["score"]


def test_csv_scores_like_the_same_rows_in_json(tmp_path: Path) -> None:
    bundle = paths.MODELS / "fraud"
    records = lines(bundle / "golden.jsonl")[:20]
    table = tmp_path / "creditcard.csv"
    rows = [",".join(("Time", *FEATURES, "Class"))]
    rows += [",".join(["0", *(repr(r[name]) for name in FEATURES), "0"]) for r in records]
    table.write_text("\n".join(rows) + "\n", "utf-8")
    output = tmp_path / "out.jsonl"
    assert main(["score", "--csv", str(table), "--output", str(output)]) == 0
    assert [a["score"] for a in lines(output)] == pytest.approx(
        [r["expected_score"] for r in records], abs=1e-6
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"V5": None}, "line 2 .* lacks the field 'V5'"),
        ({"V6": "12"}, "line 2 .* 'V6' is not a number"),
        ({"V7": True}, "line 2 .* 'V7' is not a number"),
        ({"V8": 1e39}, "line 2 .* 'V8' is not a finite number"),
    ],
)
def test_bad_records_are_named(
    change: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = lines(paths.MODELS / "fraud" / "golden.jsonl")[0]
    source = tmp_path / "in.jsonl"
    source.write_text(json.dumps(record) + "\n" + json.dumps({**record, **change}) + "\n", "utf-8")
    assert main(["score", "--input", str(source), "--output", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(said, error)


def test_no_bundle_and_no_input_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--output", str(tmp_path / "out")]
    assert main(["score", "--model", str(tmp_path), "--input", "x", *out]) == 1
    assert "manifest.toml is missing" in capsys.readouterr().err
    assert main(["score", "--input", str(tmp_path / "none.jsonl"), *out]) == 1
    assert "none.jsonl" in capsys.readouterr().err
