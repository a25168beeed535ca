"""The image can be built from the checkout, and is what the compose file takes it for."""

import json
import os
import re
import shutil
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, binary, free_port, help_text, run, succeed

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def dockerfile() -> list[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (x.partition(" ") for x in lines if x.strip())
    ]


def arguments(dockerfile: list[Instruction], word: str) -> list[str]:
    return [rest for name, rest in dockerfile if name == word]


@pytest.fixture(scope="module")
def context() -> set[str]:
    """Every file that .dockerignore lets into the build context."""
    rules = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = (
                re.escape(line.lstrip("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
            )
            rules.append((re.compile(pattern + "(/.*)?"), line.startswith("!")))

    def excluded(path: str) -> bool:
        verdict = False
        for pattern, back in rules:
            if pattern.fullmatch(path):
                verdict = not back
        return verdict

    files = set()
    for folder, folders, names in os.walk(ROOT):
        # Large, and excluded: the walk need not look inside.
        folders[:] = [x for x in folders if x not in {".git", "target", ".runtime", ".venv"}]
        paths = (os.path.relpath(Path(folder) / name, ROOT) for name in names)
        files.update(path for path in paths if not excluded(path))
    return files


def test_base_images_are_pinned(dockerfile: list[Instruction]) -> None:
    build, runtime = (re.split(r"\s+AS\s+", rest)[0] for rest in arguments(dockerfile, "FROM"))
    digest = r"@sha256:[0-9a-f]{64}"
    toolchain = re.fullmatch(rf"rust:(\d+\.\d+\.\d+)-(\w+){digest}", build)
    assert toolchain, build
    # The same Debian release, so that the binaries find the C library they were built for.
    assert re.fullmatch(rf"debian:{toolchain[2]}-\d{{8}}-slim{digest}", runtime), runtime

    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    least = [int(part) for part in package["rust-version"].split(".")]
    assert [int(part) for part in toolchain[1].split(".")] >= least


def test_image_does_not_run_as_root(dockerfile: list[Instruction]) -> None:
    user = arguments(dockerfile, "USER")[-1]
    assert int(user.partition(":")[0]) > 0


def test_copied_paths_are_in_the_context(dockerfile: list[Instruction], context: set[str]) -> None:
    copies = [rest for rest in arguments(dockerfile, "COPY") if "--from=" not in rest]
    assert copies
    for rest in copies:
        *sources, _ = [word for word in rest.split() if not word.startswith("--")]
        for source in sources:
            prefix = "" if source == "." else source.removesuffix("/")
            assert any(
                path == prefix or path.startswith(prefix and prefix + "/") for path in context
            ), source


def test_context_holds_all_that_cargo_needs(context: set[str], tmp_path: Path) -> None:
    for path in context:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(ROOT / path, target) if same_disk(tmp_path) else shutil.copy(ROOT / path, target)
    succeed("cargo", "metadata", "--locked", "--format-version", "1", cwd=tmp_path)

    # What the compiler reads beside the modules.
    for source in (path for path in context if path.endswith(".rs")):
        text = (ROOT / source).read_text()
        for included in re.findall(r'include_(?:str|bytes)!\(\s*"([^"]+)"', text):
            path = os.path.normpath(Path(source).parent / included)
            assert path in context, f"{source} includes {included}"


def same_disk(folder: Path) -> bool:
    return folder.stat().st_dev == ROOT.stat().st_dev


def test_context_leaves_downloads_and_builds_out(context: set[str]) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".runtime", "target"} <= set(ignored)
    assert not [path for path in context if path.startswith("training/")]
    assert "models/fraud/manifest.toml" in context


def test_image_starts_the_worker(dockerfile: list[Instruction]) -> None:
    (entry,), (command,) = arguments(dockerfile, "ENTRYPOINT"), arguments(dockerfile, "CMD")
    assert json.loads(entry) == ["fraud-scorer"]
    (subcommand,) = json.loads(command)
    assert help_text(binary("fraud-scorer"), subcommand)


def test_health_check_asks_the_exposed_port(
    dockerfile: list[Instruction], services: dict[str, dict[str, Any]]
) -> None:
    (port,) = arguments(dockerfile, "EXPOSE")
    (check,) = arguments(dockerfile, "HEALTHCHECK")
    assert re.search(r"CMD (\[.*\])", check)[1] == '["readyz"]'
    assert services["worker"]["healthcheck"]["test"] == ["CMD", "readyz"]
    assert services["worker"]["environment"]["FRAUD_SCORER_HTTP"].endswith(f":{port}")
    # The image itself opens nothing.
    assert "FRAUD_SCORER_" not in " ".join(arguments(dockerfile, "ENV"))


class Worker(BaseHTTPRequestHandler):
    """Answers as a worker does: /readyz with the status its server was given."""

    def do_GET(self) -> None:
        status = self.server.status if self.path == "/readyz" else 404  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"waiting for a Kafka broker")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def worker() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Worker)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_readyz_tells_ready_from_not(worker: HTTPServer, status: int, code: int) -> None:
    worker.status = status  # type: ignore[attr-defined]
    done = run("scripts/readyz.sh", str(worker.server_port))
    assert done.returncode == code
    assert str(status) in done.stdout
    assert "waiting for a Kafka broker" in done.stdout


def test_readyz_takes_the_port_from_the_workers_address(worker: HTTPServer) -> None:
    worker.status = 200  # type: ignore[attr-defined]
    address = f"0.0.0.0:{worker.server_port}"
    succeed("scripts/readyz.sh", env=os.environ | {"FRAUD_SCORER_HTTP": address})


def test_readyz_fails_where_nothing_listens() -> None:
    assert run("scripts/readyz.sh", str(free_port())).returncode != 0
