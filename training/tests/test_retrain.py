"""A retraining from archive to alias, on a real MLflow server: every way it can end."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archives
import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient

from fraud_training import registry
from fraud_training.cli import main
from fraud_training.compare import open_bundle
from fraud_training.errors import UserError
from fraud_training.retrain import learn, publish

LATER = archives.START + 10 * archives.DAY


@dataclass
class Bench:
    """Retraining runs of one test, under a model name of its own."""

    folder: Path
    model: str
    client: MlflowClient

    def options(self, source: Path | str, work: str, *more: str) -> list[str]:
        return [
            *("retrain", "--source", str(source), "--work", str(self.folder / work)),
            *("--model-name", self.model, "--experiment", self.model),
            *("--trials", "1", "--resamples", "60", *more),
        ]

    def run(self, source: Path | str, work: str, *more: str) -> dict[str, Any]:
        """A whole run; its decision."""
        assert main(self.options(source, work, *more)) == 0
        return self.decision(work)

    def decision(self, work: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / work / "decision.json").read_text())
        return content

    def archive(self, name: str, frame: pd.DataFrame) -> Path:
        archives.write(self.folder / name, frame)
        return self.folder / name

    def serve(self, bundle: Path) -> None:
        """A champion without a run: the bundle, under this test's name."""
        copy = self.folder / "served"
        shutil.copytree(bundle, copy)
        manifest = (copy / "manifest.toml").read_text("utf-8")
        named = manifest.replace('name = "served"', f'name = "{self.model}"')
        (copy / "manifest.toml").write_text(named, "utf-8")
        registry.register_bundle(copy, "champion", {})

    def aliases(self) -> dict[str, str]:
        found = self.client.get_registered_model(self.model).aliases
        return {alias: str(version) for alias, version in found.items()}

    def versions(self) -> list[str]:
        found = self.client.search_model_versions(f"name='{self.model}'")
        return sorted(str(version.version) for version in found)

    def tags(self, version: str) -> dict[str, str]:
        return dict(self.client.get_model_version(self.model, version).tags)


@pytest.fixture
def bench(tracking_server: str, tmp_path: Path) -> Bench:
    name = f"fraud-{uuid.uuid4().hex[:8]}"
    return Bench(tmp_path, name, MlflowClient(tracking_uri=tracking_server))


@pytest.fixture(scope="module")
def first() -> pd.DataFrame:
    return archives.draw()


@pytest.fixture(scope="module")
def moved() -> pd.DataFrame:
    """The next ten days, in which fraud looks otherwise."""
    return archives.draw(seed=6, moved=2.0, start=LATER, prefix="u")


@pytest.fixture(scope="module")
def unmoved() -> pd.DataFrame:
    """The next ten days, in which nothing changed: more of the same teaches nothing new."""
    return archives.draw(seed=8, start=LATER, prefix="v")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The profile is checked with fewer draws: nothing here rests on its precision."""
    monkeypatch.setattr(learn, "DRAWS", 2_000)


@pytest.fixture(scope="module")
def trained(
    first: pd.DataFrame, mlflow_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of the first ten days, for tests that want a champion to begin with."""
    bench = Bench(tmp_path_factory.mktemp("trained"), "served", MlflowClient(mlflow_address))
    source = bench.archive("a", first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", mlflow_address)
        for name in ("ingest", "validate", "train"):
            assert stage(bench, source, name) == 0
    return bench.folder / "w" / "bundle"


def test_the_first_model_is_promoted_and_a_better_one_takes_its_place(
    bench: Bench, first: pd.DataFrame, moved: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    decision = bench.run(bench.archive("a", first), "w1")
    assert capsys.readouterr().out.splitlines()[-1].startswith("decision: promoted version 1: ")
    assert decision["decision"] == "promoted"
    assert bench.aliases() == {"champion": "1"}

    decision = bench.run(bench.archive("b", moved), "w2")
    assert decision["decision"] == "promoted"
    assert bench.aliases() == {"champion": "2", "previous": "1"}
    tags = bench.tags("2")
    assert tags["decision"] == "promoted"
    assert tags["compared_with"] == "1"
    assert tags["fingerprint"] == decision["fingerprint"]
    assert "PR-AUC" in json.loads(tags["reasons"])[0]

    # What was registered is what was judged, with everything that was found beside it.
    evidence = json.loads((bench.folder / "w2" / "comparison.json").read_text())["evidence"]
    assert evidence["candidate"]["average_precision"] > evidence["champion"]["average_precision"]
    assert evidence["average_precision"]["low"] > 0.0
    version = registry.champion_of(bench.client, bench.model)
    assert version is not None
    bundle = open_bundle(registry.download(version, bench.client, bench.folder / "fetched"))
    assert bundle.training["data_fingerprint"] == decision["fingerprint"]
    frame = pd.read_parquet(bench.folder / "w2" / "accepted.parquet")
    assert bundle.training["rows"] == (frame["event_time"] < bundle.training["trained_until"]).sum()
    run = bench.client.get_run(decision["run_id"])
    assert run.data.tags["decision"] == "promoted"
    assert run.data.metrics["candidate_average_precision"] == pytest.approx(
        evidence["candidate"]["average_precision"]
    )
    logged = {one.path for one in bench.client.list_artifacts(decision["run_id"])}
    assert logged >= {"report.html", "MODEL_CARD.md", "validation.html", "bundle"}
    page = (bench.folder / "w2" / "report.html").read_text("utf-8")
    assert page.count("data:image/png;base64,") == 4
    assert "http" not in page.replace("http-equiv", "")


def test_the_same_rows_are_not_trained_on_twice(
    bench: Bench, first: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bench.archive("a", first)
    promoted = bench.run(source, "w1")
    again = bench.run(source, "w2")
    assert again["decision"] == "nothing-new"
    assert again["version"] == "1"
    assert again["fingerprint"] == promoted["fingerprint"]
    assert not (bench.folder / "w2" / "train.json").exists()
    out = capsys.readouterr().out.splitlines()[-1]
    assert out.startswith("decision: nothing-new version 1: ")
    # New rows without labels teach nothing; with other settings the same rows do.
    unlabelled = first.tail(50).assign(
        transaction_id=lambda t: "new-" + t["transaction_id"], known_at=2**50
    )
    archives.write(source, unlabelled, part="part-6")
    assert bench.run(source, "w3")["decision"] == "nothing-new"
    assert bench.versions() == ["1"]
    assert bench.run(source, "w4", "--seed", "8")["decision"] in ("rejected", "promoted")
    assert bench.versions() == ["1", "2"]


def test_no_better_means_rejected_with_reasons(
    bench: Bench, trained: Path, unmoved: pd.DataFrame
) -> None:
    bench.serve(trained)
    rule = bench.folder / "rule.toml"
    rule.write_text("minimum_gain = 0.2\n", "utf-8")
    decision = bench.run(bench.archive("b", unmoved), "w2", "--rule", str(rule))
    assert decision["decision"] == "rejected"
    assert any("PR-AUC" in reason for reason in decision["reasons"])
    assert bench.aliases()["champion"] == "1"
    assert "previous" not in bench.aliases()
    assert bench.versions() == ["1", "2"]
    tags = bench.tags("2")
    assert (tags["decision"], tags["rejected"], tags["settled"]) == ("rejected", "true", "true")
    assert json.loads(tags["reasons"]) == decision["reasons"]
    assert (bench.aliases().get("challenger") == "2") == decision["challenger"]
    assert bench.run(bench.folder / "b", "w3", "--rule", str(rule))["decision"] == "nothing-new"


def test_nearly_better_is_scored_in_the_shadow(
    bench: Bench, trained: Path, moved: pd.DataFrame
) -> None:
    """Better, but by less than is asked for: the challenger."""
    bench.serve(trained)
    rule = bench.folder / "rule.toml"
    rule.write_text("minimum_gain = 0.99\n", "utf-8")
    decision = bench.run(bench.archive("b", moved), "w2", "--rule", str(rule))
    assert decision["decision"] == "rejected"
    assert decision["challenger"]
    assert bench.aliases() == {"champion": "1", "challenger": "2"}


def test_two_at_once_promote_once(bench: Bench, first: pd.DataFrame, tracking_server: str) -> None:
    source = bench.archive("a", first)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracking_server}
    command = [sys.executable, "-m", "fraud_training.cli"]
    runs = [
        subprocess.Popen(
            [*command, *bench.options(source, work)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for work in ("w1", "w2")
    ]
    for run in runs:
        _, said = run.communicate(timeout=300)
        assert run.returncode == 0, said
    ends = sorted(bench.decision(work)["decision"] for work in ("w1", "w2"))
    assert ends == ["nothing-new", "promoted"]
    assert bench.versions() == ["1"]
    assert bench.aliases() == {"champion": "1"}


def stage(bench: Bench, source: Path | str, name: str, work: str = "w", *more: str) -> int:
    return main(bench.options(source, work, "--stage", name, *more))


def test_stages_one_by_one_and_each_one_twice(
    bench: Bench, first: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a scheduler with retries runs them."""
    source = bench.archive("a", first)
    for name in ("validate", "train", "compare", "promote"):
        assert stage(bench, source, name) == 2
        assert "run --stage ingest first" in capsys.readouterr().err
    files: dict[str, bytes] = {}
    for name in ("ingest", "validate", "train", "compare"):
        for _ in range(2):
            assert stage(bench, source, name) == 0
            assert capsys.readouterr().out.splitlines()[-1] == f"stage: {name} done"
            graph = bench.folder / "w" / "bundle" / "model.onnx"
            if graph.exists():
                assert files.setdefault("graph", graph.read_bytes()) == graph.read_bytes()
    for _ in range(2):
        assert stage(bench, source, "promote") == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("decision: promoted version 1:")
    # A decision ends the run, whichever stage is asked for again.
    assert stage(bench, source, "train") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("decision: promoted version 1:")
    assert stage(bench, source, "train", "w", "--seed", "9") == 2
    assert "give the same flags to every stage" in capsys.readouterr().err
    assert bench.versions() == ["1"]


def test_a_run_that_died_before_the_alias_is_finished_by_the_next(
    bench: Bench, first: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = bench.archive("a", first)

    def die(*_: object) -> None:
        raise UserError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(publish.registry, "promote", die)
        assert main(bench.options(source, "w")) == 1
    assert bench.versions() == ["1"]
    assert bench.aliases() == {}
    assert bench.run(source, "w")["decision"] == "promoted"
    assert bench.versions() == ["1"]
    assert bench.aliases() == {"champion": "1"}
    assert bench.tags("1")["settled"] == "true"


def test_a_run_that_died_after_the_alias_is_only_marked(
    bench: Bench, trained: Path, moved: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.serve(trained)
    source = bench.archive("b", moved)
    moving = publish.registry.promote

    def die(*arguments: Any) -> None:
        moving(*arguments)
        raise UserError("the machine went away")

    with monkeypatch.context() as patch:
        patch.setattr(publish.registry, "promote", die)
        assert main(bench.options(source, "w2")) == 1
    decision = bench.run(source, "w3")
    assert decision["decision"] == "promoted"
    assert "PR-AUC" in decision["reasons"][0]
    assert bench.versions() == ["1", "2"]
    assert bench.aliases() == {"champion": "2", "previous": "1"}
    assert bench.tags("2")["compared_with"] == "1"


def test_a_champion_promoted_meanwhile_is_compared_with(
    bench: Bench, first: pd.DataFrame, moved: pd.DataFrame
) -> None:
    """Between this run's comparison and its promotion another run has promoted."""
    old, new = bench.archive("a", first), bench.archive("b", moved)
    for name in ("ingest", "validate", "train", "compare"):
        assert stage(bench, old, name, "slow") == 0
    assert bench.run(new, "quick")["decision"] == "promoted"
    assert stage(bench, old, "promote", "slow") == 0
    decision = bench.decision("slow")
    assert bench.tags(decision["version"])["compared_with"] == "1"
    # Nothing here is newer than what the champion has learnt from: it stays.
    assert decision["decision"] == "rejected"
    assert any("0 frauds in the window" in reason for reason in decision["reasons"])
    assert bench.aliases()["champion"] == "1"


def damage_champion(bench: Bench, server_folder: Path) -> None:
    """Alters the model file in the artefact store."""
    (model,) = [
        path
        for path in server_folder.rglob("bundle/model.onnx")
        if bench.model in (path.parent / "manifest.toml").read_text("utf-8")
    ]
    model.write_bytes(b"not a model")


@pytest.mark.parametrize("gone", [False, True])
def test_a_champion_that_cannot_serve_is_replaced_by_what_beats_the_floor(
    bench: Bench,
    trained: Path,
    unmoved: pd.DataFrame,
    gone: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    bench.serve(trained)
    store = tmp_path_factory.getbasetemp() / "mlflow0" / "artifacts"
    damage_champion(bench, store)
    if gone:
        for path in store.rglob("bundle/manifest.toml"):
            if bench.model in path.read_text("utf-8"):
                shutil.rmtree(path.parent)
    decision = bench.run(bench.archive("b", unmoved), "w2")
    assert decision["decision"] == "promoted"
    assert "version 1 is unusable" in decision["reasons"][0]
    assert bench.aliases() == {"champion": "2", "previous": "1"}


def test_a_bad_day_is_kept_out_and_the_rest_is_learnt_from(
    bench: Bench, first: pd.DataFrame
) -> None:
    source = bench.archive("a", first)
    bad = source / "day=2026-01-05" / "part-5-0.parquet"
    table = pd.read_parquet(bad)
    table.loc[table.index[:20], "V11"] = float("inf")
    table.to_parquet(bad)
    (source / "day=2026-01-06" / "part-5-0.parquet").write_bytes(b"torn")
    decision = bench.run(source, "w")
    assert decision["decision"] == "promoted"
    report = json.loads((bench.folder / "w" / "validation.json").read_text())
    assert report["quarantined"] == ["2026-01-05", "2026-01-06"]
    days = set(pd.read_parquet(bench.folder / "w" / "accepted.parquet")["day"])
    assert len(days) == 8
    assert days.isdisjoint(report["quarantined"])
    page = Path(
        mlflow.artifacts.download_artifacts(
            run_id=decision["run_id"], artifact_path="validation.html"
        )
    ).read_text("utf-8")
    assert page.count("quarantined: ") == 2
    assert bench.client.get_run(decision["run_id"]).data.params["quarantined_days"] == "2"


def test_nothing_but_bad_days_ends_the_run_with_a_report(
    bench: Bench, first: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    source = bench.archive("a", first.assign(Amount=-1.0))
    for work in ("w1", "w2"):
        assert bench.run(source, work)["decision"] == "quarantined"
        assert capsys.readouterr().out.splitlines()[-1].startswith("decision: quarantined 0 frauds")
    assert not bench.client.search_registered_models(f"name='{bench.model}'")
    runs = mlflow.search_runs(experiment_names=[bench.model], output_format="list")
    assert len(runs) == 1, "one report per fingerprint, however often it is looked at"
    assert stage(bench, source, "train", "w1") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("decision: quarantined")


def test_labels_that_are_not_known_yet_are_not_used(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = archives.draw(delay=9 * archives.DAY)
    source = bench.archive("a", frame)
    # On the tenth day only the first day's labels are known.
    assert bench.run(source, "w1")["decision"] == "nothing-new"
    assert "are labelled and accepted" in capsys.readouterr().out
    later = pd.Timestamp(LATER + 9 * archives.DAY, unit="ms", tz="UTC").isoformat()
    decision = bench.run(source, "w2", "--as-of", later, "--window", "30d")
    assert decision["decision"] == "promoted"
    facts = json.loads((bench.folder / "w2" / "ingest.json").read_text())
    assert facts["labelled"] == len(frame)


def test_one_work_directory_is_one_runs(bench: Bench, first: pd.DataFrame) -> None:
    from fraud_training.retrain.work import Work

    source = bench.archive("a", first)
    with Work(bench.folder / "w").alone():
        assert main(bench.options(source, "w")) == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--window", "14"], "--window 14: expected a number with a unit"),
        (["--window", "0d"], "--window must be longer than nothing"),
        (["--as-of", "yesterday"], "--as-of yesterday"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--review-budget", "1.5"], "--review-budget must lie between 0 and 1"),
        (["--source", "kafka://user:secret@host:1"], "expected kafka://host:port"),
        (["--lock-wait", "soon"], "--lock-wait soon"),
    ],
)
def test_a_command_that_cannot_work_is_a_usage_error(
    more: list[str], said: str, bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(bench.options("nowhere", "w", *more)) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "secret@" not in err
