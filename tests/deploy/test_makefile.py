"""Every make target that is named somewhere exists, and `make test` runs all of its stages."""

import os
import re
import shutil
from pathlib import Path

import pytest
from conftest import ROOT, run, succeed

MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTED = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE))


def test_help_is_the_default_and_lists_the_targets() -> None:
    listed = re.findall(r"^  ([a-z-]+) ", succeed("make"), flags=re.MULTILINE)
    assert listed == DOCUMENTED
    assert {"build", "demo", "kafka", "run", "produce", "train", "lint", "test"} <= set(listed)


@pytest.mark.parametrize("target", DOCUMENTED)
def test_target_can_be_made(target: str) -> None:
    succeed("make", "--dry-run", target)


def test_no_file_stands_in_for_a_target() -> None:
    assert set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, flags=re.MULTILINE)) == targets()


def test_targets_named_in_the_documentation_exist() -> None:
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / ".ci/run"]
    documents += [ROOT / "deny.toml", *ROOT.glob("src/**/*.rs"), *ROOT.glob("producer/**/*.rs")]
    named = set()
    for document in documents:
        named.update(re.findall(r"(?:^|`|\s{4})make ([a-z][a-z-]*)", document.read_text()))
    assert "test" in named
    assert named <= targets()


def test_recipes_call_files_that_exist() -> None:
    called = set(re.findall(r"\bscripts/[\w.-]+", MAKEFILE))
    assert called
    assert all(os.access(ROOT / path, os.X_OK) for path in called)


@pytest.mark.parametrize("broken", [None, "lint", "test-rust", "test-deploy"])
def test_test_runs_every_stage_and_fails_with_any(tmp_path: Path, broken: str | None) -> None:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/test.sh", tmp_path / "scripts/test.sh")
    make = tmp_path / "make"
    make.write_text(f'#!/bin/bash\necho "made ${{!#}}"\n[[ ${{!#}} != {broken} ]]\n')
    make.chmod(0o755)
    done = run(tmp_path / "scripts/test.sh", env=os.environ | {"MAKE": str(make)})
    stages = ["lint", "test-rust", "test-python", "test-spark", "test-drift", "test-deploy"]
    assert re.findall(r"^made (\S+)$", done.stdout, flags=re.MULTILINE) == stages
    assert set(stages) <= targets()
    if broken:
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1] == f"failed: {broken}"
    else:
        assert done.returncode == 0
