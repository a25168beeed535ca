"""Targets and measurements that are named somewhere exist; `make test` runs all of its stages."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, run, succeed

MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTED = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))


def measurements() -> list[str]:
    """Those that `make bench` lists."""
    return re.findall(r"^  ([a-z-]+) +\d+ (?:min|h) ", succeed("make", "bench"), flags=re.MULTILINE)


def documents() -> list[Path]:
    """Tracked files that tell people what to type; the change log tells what there once was."""
    tracked = succeed("git", "ls-files", "*.md", "*.rs", "*.py", "*.toml", "*.sh", ".ci/run")
    return [ROOT / path for path in tracked.split() if path != "CHANGELOG.md"]


def test_help_is_the_default_and_lists_the_targets() -> None:
    listed = re.findall(r"^  ([a-z-]+) ", succeed("make"), flags=re.MULTILINE)
    assert listed == DOCUMENTED
    assert {"build", "demo", "kafka", "run", "produce", "train", "lint", "test"} <= set(listed)
    assert len(listed) <= 20


def test_help_is_grouped() -> None:
    ungrouped, *groups = re.split(r"^(?=\S)", succeed("make"), flags=re.MULTILINE)[1:]
    assert re.findall(r"^  ([a-z-]+) ", ungrouped, flags=re.MULTILINE) == ["help"]
    assert [group.splitlines()[0] for group in groups] == [
        "First minutes",
        "Run it",
        "Models",
        "Measure",
        "Develop",
    ]
    assert all(re.search(r"^  [a-z-]+ ", group, flags=re.MULTILINE) for group in groups)


@pytest.mark.parametrize("target", DOCUMENTED)
def test_target_can_be_made(target: str) -> None:
    succeed("make", "--dry-run", target)


def test_no_file_stands_in_for_a_target() -> None:
    assert set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)) == targets()


def test_targets_named_in_the_documentation_exist() -> None:
    named = set()
    # In the comments of programs the verb stands at the beginning of lines, too.
    for document in (document for document in documents() if document.suffix not in (".py", ".sh")):
        named.update(re.findall(r"(?:^|`|\s{4})make ([a-z][a-z-]*)", document.read_text()))
    assert {"test", "bench"} <= named
    assert named <= targets()


def test_measurements_named_in_the_documentation_exist() -> None:
    named = set()
    for document in documents():
        named.update(re.findall(r"make bench ARGS='?([a-z][a-z-]*)", document.read_text()))
    assert {"throughput", "ab", "kernel-peers"} <= named
    assert named <= set(measurements())


def test_every_measurement_is_listed_explained_and_can_be_run() -> None:
    listed = measurements()
    script = (ROOT / "scripts/bench.sh").read_text()
    branches = re.findall(r"^([a-z][a-z| -]*)\)$", script, flags=re.MULTILINE)
    assert sorted(name for branch in branches for name in branch.split(" | ")) == sorted(listed)
    readme = (ROOT / "benches/README.md").read_text()
    table = readme.split("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)[^|]*` \|", table, flags=re.MULTILINE) == listed
    harness = (ROOT / "benches/end_to_end/options.rs").read_text()
    elsewhere = {"metrics", "micro", "kernel", "kernel-peers"}
    commands = re.findall(r"^    ([A-Z]\w+)\(\w*(?:::)?\w+\),$", harness, flags=re.MULTILINE)
    assert {command.lower() for command in commands} | elsewhere == set(listed)


def test_an_unknown_measurement_is_refused() -> None:
    done = run("scripts/bench.sh", "thruput")
    assert done.returncode == 2
    assert done.stderr.startswith("no such measurement: thruput\n")
    assert "throughput" in done.stderr


def test_recipes_call_files_that_exist() -> None:
    called = set(re.findall(r"\bscripts/[\w.-]+", MAKEFILE))
    assert called
    assert all(os.access(ROOT / path, os.X_OK) for path in called)


def run_stages(folder: Path, broken: str | None, stages: str) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the script with a `make` that only says what it is to make."""
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/test.sh", folder / "scripts/test.sh")
    make = folder / "make"
    make.write_text(f'#!/bin/bash\necho "made ${{!#}}"\n[[ ${{!#}} != {broken} ]]\n')
    make.chmod(0o755)
    return run(folder / "scripts/test.sh", env=os.environ | {"MAKE": str(make), "STAGES": stages})


@pytest.mark.parametrize("broken", [None, "lint", "test-rust", "test-deploy"])
def test_test_runs_every_stage_and_fails_with_any(tmp_path: Path, broken: str | None) -> None:
    done = run_stages(tmp_path, broken, "")
    rust = ["lint", "test-rust", "test-fuzz", "deny"]
    stages = [*rust, "test-python", "test-spark", "test-drift", "test-deploy"]
    assert re.findall(r"^made (\S+)$", done.stdout, flags=re.MULTILINE) == stages
    assert set(stages) <= targets()
    if broken:
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == f"failed: {broken}"
    else:
        assert done.returncode == 0


def test_a_part_of_the_stages_can_be_run(tmp_path: Path) -> None:
    done = run_stages(tmp_path, None, "test-http lint")
    assert done.returncode == 0
    assert re.findall(r"^made (\S+)$", done.stdout, flags=re.MULTILINE) == ["test-http", "lint"]


def test_what_is_no_stage_is_not_made(tmp_path: Path) -> None:
    done = run_stages(tmp_path, None, "lint clean")
    assert done.returncode == 2
    assert "no such stage: clean" in done.stderr
    assert "made" not in done.stdout
