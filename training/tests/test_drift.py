"""The drift report without Evidently: its windows, samples, bins, false alarms, and archives."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import archives
import boto3
import numpy as np
import pandas as pd
import pytest
from moto.server import ThreadedMotoServer
from scipy.stats import chi2

from fraud_training import FEATURES, paths
from fraud_training.cli import main
from fraud_training.drift import bins
from fraud_training.drift.archives import Found, read_archive
from fraud_training.drift.bins import Bins
from fraud_training.drift.reference import (
    SCORE,
    Reference,
    from_archive,
    from_bundle,
    open_bundle,
    with_defaults,
)
from fraud_training.drift.sample import Sample, unweighted
from fraud_training.drift.topics import Inputs, verdict_row
from fraud_training.drift.window import Wanted, Window
from fraud_training.errors import UsageError, UserError
from fraud_training.scoring import Feature
from fraud_training.times import parse_time

ALL = Window(0, 1 << 60)
HOUR = 3_600_000


# ---- window


def test_a_window_ends_where_it_was_said_or_with_the_data() -> None:
    assert Wanted(None, None, 10).window(newest=100) == Window(90, 100)
    assert Wanted(50, None, 10).window(newest=100) == Window(40, 50)
    assert Wanted(50, 5, 10).window(newest=100) == Window(5, 50)
    with pytest.raises(UsageError, match=r"--from .*00:50.000Z is not before .*00:50.000Z"):
        Wanted(50_000, 50_000, 10).window(newest=0)


def test_times_are_understood_and_others_refused() -> None:
    assert parse_time("latest", "--until", 7, latest=True) is None
    assert parse_time("now", "--until", 7, latest=True) == 7
    assert parse_time("2026-01-01T00:00:00", "--from", 7, latest=False) == archives.START
    assert parse_time(str(archives.START), "--from", 7, latest=False) == archives.START
    with pytest.raises(UsageError, match="--from latest: expected now, or a time such as"):
        parse_time("latest", "--from", 7, latest=False)


# ---- sample


def rows(count: int, start: int = 0, **columns: Any) -> pd.DataFrame:
    numbers = np.arange(start, start + count)
    ids = [f"t-{number}" for number in numbers]
    return pd.DataFrame({"transaction_id": ids, "event_time": numbers + 1, **columns})


def test_a_sample_is_the_same_in_whatever_pieces_it_comes() -> None:
    everything = rows(20_000)
    whole, pieces = Sample(ALL, 1_000), Sample(ALL, 1_000)
    whole.add(everything)
    shuffled = everything.sample(frac=1.0, random_state=3)
    for at in range(0, len(shuffled), 700):
        pieces.add(shuffled.iloc[at : at + 700])
        assert pieces._held <= 2_000 + 700
    one, other = whole.finish(), pieces.finish()
    assert one.frame.equals(other.frame)
    assert (len(one.frame), one.seen, other.seen) == (1_000, 20_000, 20_000)
    # Uniform: the mean of 1,000 of 20,000 lies within five standard errors of that of all.
    assert abs(one.frame["event_time"].mean() - 10_000) < 5 * 20_000 / np.sqrt(12 * 1_000)


def test_a_sample_holds_rows_of_the_window_once() -> None:
    sample = Sample(Window(10, 20), 1_000)
    sample.add(rows(100))
    sample.add(rows(100))
    chosen = sample.finish()
    assert chosen.frame["event_time"].tolist() == list(range(11, 21))
    assert chosen.seen == 20
    assert Sample(ALL, 1_000).finish().frame.empty


def test_thinned_rows_are_drawn_by_what_they_stand_for() -> None:
    weight = np.where(np.arange(10_000) < 5_000, 9.0, 1.0)
    drawn = unweighted(rows(10_000, weight=weight), seed=1)
    assert "weight" not in drawn.columns
    assert len(drawn) == round(weight.sum() ** 2 / (weight**2).sum())
    assert (drawn["event_time"] <= 5_000).mean() == pytest.approx(0.9, abs=0.02)
    assert drawn.equals(unweighted(rows(10_000, weight=weight), seed=1))
    assert len(unweighted(rows(10, weight=np.ones(10)), seed=1)) == 10


# ---- bins


def test_bins_and_thresholds_are_the_workers() -> None:
    source = "".join(
        (paths.REPOSITORY / "src" / name).read_text("utf-8")
        for name in ("drift.rs", "drift/baseline.rs", "drift/psi.rs")
    )
    found = dict(re.findall(r"const (\w+): \w+ = ([\d._e-]+);", source))
    for name in (
        "DRIFTED", "LEAST_ROWS", "LEAST_FEATURE_SHARE", "LEAST_SCORE_SHARE", "MOST_BINS",
        "SHARE_FLOOR", "NORMAL_QUANTILE",
    ):  # fmt: skip
        assert float(found[name]) == getattr(bins, name), name


def test_narrow_bins_are_merged_as_in_the_worker() -> None:
    # The cases of src/drift/baseline.rs.
    cuts, shares = np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.01, 0.5, 0.02, 0.46, 0.01])
    merged = Bins.of_histogram(cuts, shares, 0.05, 1_000)
    assert merged.cuts.tolist() == [2.0]
    assert merged.shares == pytest.approx([0.51, 0.49])
    constant = Bins.of_histogram(np.array([]), np.array([1.0]), 0.05, 1_000)
    assert (constant.cuts.tolist(), constant.shares.tolist()) == ([], [1.0])
    assert constant.index(np.array([3.0, 4.0])) == 0.0
    many = Bins.of_histogram(np.arange(1.0, 1_000.0), np.full(1_000, 0.001), 0.005, 1_000)
    assert bins.MOST_BINS / 2 <= len(many.shares) <= bins.MOST_BINS
    for default, expected in ((-1.0, [0.6, 0.4]), (1.0, [0.4, 0.6])):
        filled = Bins.of_histogram(
            np.array([0.0]), np.array([0.5, 0.5]), 0.05, 1_000, (default, 0.2)
        )
        assert filled.shares == pytest.approx(expected)


def test_the_index_is_the_textbook_sum() -> None:
    halves = Bins.of_histogram(np.array([0.0]), np.array([0.5, 0.5]), 0.05, 1_000)
    exact = 0.1 * np.log(1.2) - 0.1 * np.log(0.8)
    assert halves.index_of(np.array([600_000, 400_000])) == pytest.approx(exact, abs=1e-6)
    assert 3.0 < halves.index_of(np.array([1_000, 0])) < 5.0
    # A value at a cut is below it, and values count as the 32-bit floats that are scored.
    amount = Bins.of_histogram(np.array([2.69]), np.array([0.5, 0.5]), 0.05, 1_000)
    assert amount.index(np.array([2.69])) == amount.index_of(np.array([0, 1]))


def test_chance_is_as_large_as_the_distribution_says() -> None:
    for degrees in (2, 5, 10, 15):
        one = Bins(np.array([]), np.array([1.0]), degrees, 1 << 60)
        exact = chi2.ppf(0.9999, degrees) / 100
        assert 0.999 < one.threshold(100) / exact < 1.05
    assert Bins(np.array([]), np.array([1.0]), 15, 1 << 60).threshold(1_000) == bins.DRIFTED


@pytest.fixture(scope="module")
def own_reference() -> Reference:
    return from_bundle(open_bundle(paths.MODELS / "fraud"), seed=7)


def test_false_alarms_are_as_rare_as_stated(own_reference: Reference) -> None:
    """Windows drawn from the training data's own shares, of the least rows a report takes."""
    random = np.random.default_rng(5)
    looks, alarms, largest = 1_000, 0, 0.0
    for one in own_reference.bins.values():
        counts = random.multinomial(bins.LEAST_ROWS, one.shares, size=looks)
        indices = np.array([one.index_of(row) for row in counts])
        alarms += int((indices > one.threshold(bins.LEAST_ROWS)).sum())
        largest = max(largest, float(indices.max()))
    columns = len(own_reference.bins)
    assert columns == len(FEATURES) + 1
    # Stated: at most one column in 10,000, thus three reports in 1,000 with a drifted column at
    # all; with 1,000 rows the fixed threshold is far beyond chance, and there should be none.
    assert alarms == 0, f"{alarms} of {looks * columns}"
    assert largest < bins.DRIFTED


def test_with_few_rows_the_threshold_keeps_what_it_promises(own_reference: Reference) -> None:
    random = np.random.default_rng(6)
    looks, alarms = 1_000, 0
    features = [one for name, one in own_reference.bins.items() if name != SCORE]
    for one in features:
        counts = random.multinomial(300, one.shares, size=looks)
        alarms += sum(one.index_of(row) > one.threshold(300) for row in counts)
    # 2.9 expected; more than 12 would happen once in 100,000 runs.
    assert alarms <= 12


def test_drawn_rows_look_like_the_training_data(bundle: Path) -> None:
    reference = from_bundle(open_bundle(bundle), seed=7)
    assert set(reference.frame.columns) == {*FEATURES, SCORE}
    for name, one in reference.bins.items():
        index = one.index(reference.frame[name].to_numpy())
        assert index < bins.DRIFTED / 2, f"{name}: {index}"


# ---- reference


def write_bundle(folder: Path, histograms: dict[str, Any] | None, training: str = "") -> Path:
    """A copy of the committed bundle with another reference and other training facts."""
    folder.mkdir()
    source = paths.MODELS / "fraud"
    (folder / "model.onnx").write_bytes((source / "model.onnx").read_bytes())
    manifest = (source / "manifest.toml").read_text("utf-8")
    manifest = manifest.replace("[training]", f"[training]\n{training}")
    (folder / "manifest.toml").write_text(manifest, "utf-8")
    if histograms is not None:
        (folder / "reference.json").write_text(json.dumps(histograms), "utf-8")
    return folder


def test_a_bundle_without_histograms_needs_training_rows(tmp_path: Path) -> None:
    bare = open_bundle(write_bundle(tmp_path / "bare", None))
    with pytest.raises(UserError, match=r"no reference.json to draw rows from: .* --reference"):
        from_bundle(bare, seed=1)
    content = json.loads((paths.MODELS / "fraud/reference.json").read_text("utf-8"))
    del content["profile"]
    with pytest.raises(UserError, match=r"no profile in its reference.json"):
        from_bundle(open_bundle(write_bundle(tmp_path / "half", content)), seed=1)
    archives.write(tmp_path / "rows", archives.draw(genuine=3_000))
    found = from_archive(bare, str(tmp_path / "rows"), 14 * archives.DAY, seed=1)
    assert set(found.bins) == {*FEATURES, SCORE}
    assert all(len(one.shares) > 3 for one in found.bins.values())


def test_training_rows_end_where_the_training_did(tmp_path: Path) -> None:
    archives.write(tmp_path / "rows", archives.draw(genuine=6_000, days=10))
    until = archives.START + 5 * archives.DAY
    bundle = open_bundle(
        write_bundle(tmp_path / "fraud", None, f"trained_until = {until}"), registered_version="9"
    )
    assert (bundle.name, bundle.version, bundle.trained_until) == ("fraud", "9", until)
    found = from_archive(bundle, str(tmp_path / "rows"), 14 * archives.DAY, seed=1)
    assert 2_500 < len(found.frame) < 3_500
    assert "up to 2026-01-06T00:00:00" in found.origin
    with pytest.raises(UserError, match=r"usable rows from .* --reference-window"):
        from_archive(bundle, str(tmp_path / "rows"), HOUR, seed=1)


def test_missing_features_are_what_is_scored_in_their_place() -> None:
    features = (Feature("a"), Feature("b", 2.5))
    frame = pd.DataFrame({"a": [1.0, np.nan, np.inf, 4.0], "b": [np.nan, 1.0, 1.0, 3.0]})
    filled = with_defaults(frame, features)
    assert filled["a"].tolist() == [1.0, 4.0]
    assert filled["b"].tolist() == [2.5, 3.0]


# ---- archives


@pytest.fixture(scope="module")
def verdicts() -> pd.DataFrame:
    return archives.score(archives.draw(genuine=3_000, days=3), paths.MODELS / "fraud")


def found_ids(found: Found) -> set[str]:
    return set(found.chosen.frame["transaction_id"])


def ids_within(table: pd.DataFrame, start: int, end: int) -> set[str]:
    return set(table.loc[table["event_time"].between(start + 1, end), "transaction_id"])


def test_verdicts_of_the_window_are_read(verdicts: pd.DataFrame, tmp_path: Path) -> None:
    archives.write_verdicts(tmp_path, verdicts)
    found = read_archive(str(tmp_path), Wanted(None, None, 6 * HOUR), FEATURES, 5_000)
    newest = int(verdicts["event_time"].max())
    assert found.window == Window(newest - 6 * HOUR, newest)
    assert found_ids(found) == ids_within(verdicts, newest - 6 * HOUR, newest)
    one = found.chosen.frame.set_index("transaction_id")
    two = verdicts.set_index("transaction_id").loc[one.index]
    for name in (*FEATURES, "score", "model_name", "model_version"):
        assert (one[name] == two[name]).all(), name
    middle = archives.START + archives.DAY
    found = read_archive(str(tmp_path), Wanted(middle, middle - HOUR, 1), FEATURES, 5_000)
    assert found_ids(found) == ids_within(verdicts, middle - HOUR, middle)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_an_archive_of_rows_has_no_scores(suffix: str, tmp_path: Path) -> None:
    drawn = archives.draw(genuine=500, days=3)
    archives.write(tmp_path, drawn, suffix)
    found = read_archive(str(tmp_path), Wanted(None, None, archives.DAY), FEATURES, 5_000)
    newest = int(drawn["event_time"].max())
    assert found_ids(found) == ids_within(drawn, newest - archives.DAY, newest)
    assert "score" not in found.chosen.frame.columns


def test_only_what_the_window_touches_is_opened(verdicts: pd.DataFrame, tmp_path: Path) -> None:
    archives.write_verdicts(tmp_path, verdicts)
    (tmp_path / "date=2026-01-01/hour=02/broken.parquet").write_bytes(b"no parquet")
    (tmp_path / "date=2026-01-03/hour=20/broken.parquet").write_bytes(b"no parquet")
    # An upload in progress, and what is no folder of the layout.
    (tmp_path / "date=2026-01-03/hour=20/.half.parquet").write_bytes(b"no parquet")
    (tmp_path / "notes.parquet").write_bytes(b"no parquet")
    found = read_archive(str(tmp_path), Wanted(None, None, 6 * HOUR), FEATURES, 5_000)
    assert found.left_out == {"files": 1}
    assert len(found.problems) == 1
    assert found.problems[0].startswith("date=2026-01-03/hour=20/broken.parquet: ")
    assert len(found.chosen.frame) > 100


def test_one_absurd_time_does_not_move_the_window(verdicts: pd.DataFrame, tmp_path: Path) -> None:
    archives.write_verdicts(tmp_path, verdicts)
    newest = int(verdicts["event_time"].max())
    stray = verdicts.head(3).assign(event_time=newest + 400 * archives.DAY)
    folder = sorted(tmp_path.glob("date=*/hour=*"))[-1]
    stray.to_parquet(folder / "verdicts-00001-00000000000000000000.parquet", index=False)
    found = read_archive(str(tmp_path), Wanted(None, None, HOUR), FEATURES, 5_000)
    assert found.window.end == newest


def test_what_is_no_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_archive(str(tmp_path / "absent"), Wanted(None, None, 1), FEATURES, 1_000)
    with pytest.raises(UserError, match="holds neither date="):
        read_archive(str(tmp_path), Wanted(None, None, 1), FEATURES, 1_000)
    frame = archives.draw(genuine=50).drop(columns="V7")
    archives.write(tmp_path, frame)
    found = read_archive(str(tmp_path), Wanted(None, None, archives.DAY), FEATURES, 1_000)
    assert found.chosen.frame.empty
    assert "column 'V7' is missing" in found.problems[0]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An S3 service at an address of its own, with the bucket `archive`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    client = boto3.client("s3")
    client.create_bucket(Bucket="archive")
    yield client
    server.stop()


def test_verdicts_may_lie_on_s3(verdicts: pd.DataFrame, bucket: Any, tmp_path: Path) -> None:
    archives.write_verdicts(tmp_path, verdicts)
    for path in tmp_path.rglob("*.parquet"):
        bucket.upload_file(str(path), "archive", f"verdicts/{path.relative_to(tmp_path)}")
    wanted = Wanted(None, None, 6 * HOUR)
    there = read_archive("s3://archive/verdicts", wanted, FEATURES, 5_000)
    assert there.chosen.frame.equals(
        read_archive(str(tmp_path), wanted, FEATURES, 5_000).chosen.frame
    )


# ---- topics


class Record:
    """A message as the client gives it."""

    def __init__(self, offset: int, content: Any) -> None:
        self._offset, self._content = offset, content

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return json.dumps(self._content).encode()


def verdict(identity: str, offset: int, row: int = 0) -> dict[str, Any]:
    return {
        "transaction_id": identity,
        "score": 0.5,
        "decision": "review",
        "label": 0,
        "model": {"name": "fraud", "version": "1"},
        "event_time": 5,
        "source": {"topic": "in", "partition": 0, "offset": offset, "row": row},
    }


def test_verdicts_find_their_rows_in_records() -> None:
    said = [verdict("a", 4), verdict("b", 7, 0), verdict("c", 7, 1), verdict("d", 9)]
    said.append(verdict("in-0-12-0", 12))
    columns = [
        "transaction_id", "event_time", "score", "model_name", "model_version",
        "source_topic", "source_partition", "source_offset", "source_row",
    ]  # fmt: skip
    inputs = Inputs(pd.DataFrame([verdict_row(one) for one in said], columns=columns), ["x", "y"])
    assert inputs.stretches == {"in": {0: (4, 13)}}
    split = {"columns": ["y", "x", "transaction_id"], "data": [[1, 2, "b"], [3, 4, "c"]]}
    for record in (
        Record(4, {"transaction_id": "a", "x": 5, "y": "six"}),
        Record(5, {"transaction_id": "z", "x": 0, "y": 0}),
        Record(7, {"dataframe_split": split}),
        Record(9, {"transaction_id": "somebody else", "x": 0, "y": 0}),
        Record(12, {"x": 7, "y": None}),
    ):
        inputs.add("in", record)  # type: ignore[arg-type]
    joined, gone = inputs.join()
    assert gone == 1
    assert joined["transaction_id"].tolist() == ["a", "b", "c", "in-0-12-0"]
    assert joined["x"].tolist() == [5.0, 2.0, 4.0, 7.0]
    assert joined["y"].isna().tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    "broken", [{"event_time": "soon"}, {"event_time": True}, {"model": None}, {"source": {}}]
)
def test_a_verdict_that_is_none_is_told(broken: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        verdict_row(verdict("a", 1) | broken)


# ---- command line


def test_the_command_says_what_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main(["drift", "--source", str(tmp_path), "--output", str(tmp_path)]) == 1
    assert "run scripts/drift-env.sh" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--last", "yesterday"], "--last yesterday: expected a number with a unit"),
        (["--last", "0s"], "--last must be longer than nothing"),
        (["--until", "soon"], "--until soon: expected latest, now, or a time"),
        (["--from", "latest"], "--from latest: expected now, or a time"),
        (["--max-rows", "10"], "--max-rows must be at least 1000"),
        (["--least-rows", "2000", "--max-rows", "1000"], "--least-rows must not be more"),
        (["--drift-share", "1"], "--drift-share must be at least 0 and less than 1"),
    ],
)
def test_wrong_flags_are_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["drift", "--source", "x", "--output", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err
