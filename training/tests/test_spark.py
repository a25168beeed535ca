"""The Spark engine in local mode: the same model, the same bundle, thinned rows with true weights.

Runs in the environment of scripts/spark-env.sh (`make test-spark`); elsewhere it is skipped.
"""

import json
import os
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fraud_training import FEATURES, models, paths
from fraud_training.dataset import Dataset
from fraud_training.errors import UserError
from fraud_training.evaluate import Scored, Thresholds, metrics
from fraud_training.export import Contents, run_onnx, to_graph, write_bundle
from fraud_training.models import Candidate, Fitted
from fraud_training.profile import Profile

pytest.importorskip("pyspark", reason="no pyspark here: scripts/spark-env.sh")

from fraud_training import spark, spark_job

CANDIDATE = Candidate("xgboost", {**models.XGBOOST_DEFAULT, "n_estimators": 40})
ROOT = Path(__file__).resolve().parents[2]
START = 1_767_225_600_000  # 2026-01-01, midnight UTC


@pytest.fixture(scope="module", autouse=True)
def local_session() -> Iterator[None]:
    """One session of two cores for all tests, ended with them."""
    os.environ["SPARK_MASTER"] = "local[2]"
    os.environ["FRAUD_SPARK_WORKERS"] = "2"
    try:
        yield
        spark.session().stop()
    finally:
        spark.session.cache_clear()
        del os.environ["SPARK_MASTER"], os.environ["FRAUD_SPARK_WORKERS"]


@pytest.fixture(scope="module")
def fitted(drawn: Dataset) -> Fitted:
    return spark.fit(CANDIDATE, drawn, seed=7)


def test_scores_are_those_of_onnx_runtime(fitted: Fitted, drawn: Dataset) -> None:
    graph = to_graph(fitted, "fraud").SerializeToString()
    difference = np.abs(run_onnx(graph, drawn.features) - fitted.predict(drawn.features))
    assert difference.max() <= 1e-5


def test_it_learns_what_xgboost_in_one_process_learns(fitted: Fitted, drawn: Dataset) -> None:
    own = models.fit(CANDIDATE, drawn, seed=7)

    def quality(model: Fitted) -> dict[str, float]:
        scored = Scored(model.predict(drawn.features), drawn.label, drawn.weight)
        return metrics(scored, Thresholds(0.05, 0.5))

    mine, theirs = quality(fitted), quality(own)
    assert mine["average_precision"] == pytest.approx(theirs["average_precision"], abs=0.05)
    # Sampling weights count: without them frauds would look some 25 times as frequent.
    mean = np.average(fitted.predict(drawn.features), weights=drawn.weight)
    assert mean == pytest.approx(drawn.fraud_share, rel=0.3)


def test_monotone_directions_hold(fitted: Fitted, drawn: Dataset) -> None:
    directions = models.monotone_directions(drawn, 0.3)
    falling = [at for at, sign in enumerate(directions) if sign < 0]
    assert falling
    rows = np.repeat(drawn.features[:50], 2, axis=0)
    rows[1::2, falling[0]] += 5
    scores = fitted.predict(rows)
    assert (scores[1::2] <= scores[::2]).all()


def test_a_bundle_of_it_is_written_and_checked(
    fitted: Fitted, drawn: Dataset, tmp_path: Path
) -> None:
    content = json.loads(paths.PROFILE.read_text(encoding="utf-8"))
    bundle = write_bundle(
        tmp_path / "fraud",
        Contents(
            fitted=fitted,
            name="fraud",
            version="spark",
            thresholds=Thresholds(0.05, 0.5),
            profile=Profile.from_json(content["profile"]),
            reference=content,
            training={"engine": "spark"},
            card="# made by a test\n",
            seed=7,
        ),
    )
    golden = [json.loads(line) for line in (bundle / "golden.jsonl").read_text().splitlines()]
    assert len(golden) >= 100
    manifest = tomllib.loads((bundle / "manifest.toml").read_text())
    assert [one["name"] for one in manifest["input"]["features"]] == list(FEATURES)

    # The worker's own check: hash, signature, golden scores.
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    scorer = target / "debug/fraud-scorer"
    if not scorer.is_file():
        pytest.skip(f"{scorer} is not built: the worker was not asked")
    scored = subprocess.run(
        [scorer, "score", "--model", bundle, "--input", bundle / "golden.jsonl"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert scored.returncode == 0, scored.stderr
    verdicts = [json.loads(line) for line in scored.stdout.splitlines()]
    assert [verdict["score"] for verdict in verdicts] == pytest.approx(
        [line["expected_score"] for line in golden], abs=1e-5
    )


def test_only_xgboost_is_fitted(drawn: Dataset) -> None:
    with pytest.raises(ValueError, match="random-forest"):
        spark.fit(Candidate("random-forest"), drawn, seed=7)


def test_a_number_of_workers_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_SPARK_WORKERS", "many")
    with pytest.raises(UserError, match="FRAUD_SPARK_WORKERS is 'many'"):
        spark.workers(spark.session())


def archive(drawn: Dataset, folder: Path) -> pd.DataFrame:
    """The drawn rows as an archive of two days; returns all rows written.

    One label comes too late, one is taken back.
    """
    rows = replace(drawn, time=np.linspace(0, 2 * 86_400 - 1, len(drawn)))
    frame = pd.DataFrame(rows.features.astype(np.float64), columns=list(FEATURES))
    frame.insert(0, "transaction_id", [f"t{n}" for n in range(len(frame))])
    frame.insert(1, "event_time", START + (rows.time * 1_000).astype(np.int64))
    frame["label"] = rows.label
    frame["known_at"] = frame["event_time"]
    frauds = frame.index[frame["label"] == 1]
    frame.loc[frauds[0], "known_at"] = START + 10 * 86_400_000
    taken_back = frame.loc[[frauds[1]]].assign(label=np.int8(0))
    taken_back["known_at"] += 1_000
    frame = pd.concat([frame, taken_back], ignore_index=True)
    for day, part in frame.groupby(pd.to_datetime(frame["event_time"], unit="ms").dt.date):
        (folder / f"day={day}").mkdir(parents=True)
        part.to_parquet(folder / f"day={day}" / "part-0.parquet", index=False)
    return frame


def test_thinned_rows_keep_all_frauds_and_the_weight_of_all(drawn: Dataset, tmp_path: Path) -> None:
    written = archive(drawn, tmp_path / "archive")
    command = [
        "--source", str(tmp_path / "archive"), "--work", str(tmp_path / "work"),
        "--window", "7d", "--genuine", "1000",
    ]  # fmt: skip
    kept = []
    for _ in range(2):
        place, as_of = spark_job.prepare(spark_job.parser().parse_args(command))
        frame = pd.concat(pd.read_parquet(x) for x in sorted(Path(place).glob("day=*/*.parquet")))
        kept.append(frame.sort_values("transaction_id", ignore_index=True))
    rows, again = kept
    pd.testing.assert_frame_equal(rows, again)
    assert as_of == written["event_time"].max()
    assert sorted(x.name for x in Path(place).glob("day=*")) == ["day=2026-01-01", "day=2026-01-02"]

    frauds = int((written["label"] == 1).sum())
    known = rows[(rows["label"] == 1) & (rows["known_at"] <= as_of)]
    # One is not known yet, one was taken back.
    assert len(known) == frauds - 2
    assert (known["weight"] == 1).all()
    assert rows["transaction_id"].is_unique
    others = rows.drop(known.index)
    assert 850 <= len(others) <= 1_150
    total = len(written) - 1 - len(known)
    assert others["weight"].sum() == pytest.approx(total, rel=0.1)


def test_a_small_archive_is_not_thinned(drawn: Dataset, tmp_path: Path) -> None:
    archive(drawn, tmp_path / "archive")
    command = ["--source", str(tmp_path / "archive"), "--work", str(tmp_path / "work")]
    # The second day only.
    until = datetime.fromtimestamp(START / 1_000 + 2 * 86_400, UTC).isoformat()
    options = spark_job.parser().parse_args([*command, "--window", "24h", "--as-of", until])
    place, _ = spark_job.prepare(options)
    (part,) = Path(place).glob("day=2026-01-02/*.parquet")
    frame = pd.read_parquet(part)
    assert len(frame) == pytest.approx(len(drawn) / 2, abs=2)
    assert set(frame["weight"]) == {1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "soon"], "--window soon"),
        (["--as-of", "yesterday"], "--as-of yesterday"),
        (["--as-of", "2026-01-01T00:00:00"], "time zone is missing"),
        (["--genuine", "0"], "--genuine 0"),
        ([], "cannot be read"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--source", str(tmp_path / "absent"), "--work", str(tmp_path), *arguments]
    assert spark_job.main(given) == 1
    assert message in capsys.readouterr().err
