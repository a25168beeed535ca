"""The SBOM holds what the lock files pin; known vulnerabilities fail unless there is a reason."""

import json
import re
import subprocess
import sys
import threading
import tomllib
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, free_port, run, succeed

PYTHON_LOCKS = ("training/requirements.lock", "scripts/onnxruntime.txt")


def write_sbom(path: Path) -> dict[str, Any]:
    succeed(sys.executable, "scripts/sbom.py", path)
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def sbom_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sbom") / "target" / "sbom.cdx.json"
    write_sbom(path)
    return path


@pytest.fixture(scope="module")
def sbom(sbom_file: Path) -> dict[str, Any]:
    return json.loads(sbom_file.read_text())


def contents(hashes: list[dict[str, str]]) -> set[str]:
    assert all(entry["alg"] == "SHA-256" for entry in hashes)
    return {entry["content"] for entry in hashes}


def test_it_is_cyclonedx(sbom: dict[str, Any]) -> None:
    assert (sbom["bomFormat"], sbom["specVersion"], sbom["version"]) == ("CycloneDX", "1.6", 1)
    assert sbom["serialNumber"] == uuid.UUID(sbom["serialNumber"]).urn
    components = [sbom["metadata"]["component"], *sbom["components"]]
    assert all(entry["type"] in ("application", "library") for entry in components)
    assert all(entry["name"] and entry["version"] for entry in components)
    refs = [entry["bom-ref"] for entry in components]
    assert len(set(refs)) == len(refs)
    assert refs[1:] == sorted(refs[1:])
    edges = {entry["ref"]: entry["dependsOn"] for entry in sbom["dependencies"]}
    assert set(edges) | {ref for ends in edges.values() for ref in ends} <= set(refs)


def test_every_crate_is_in_it(sbom: dict[str, Any]) -> None:
    hashes = {
        (entry["name"], entry["version"]): contents(entry["hashes"])
        for entry in sbom["components"]
        if entry.get("purl", "").startswith("pkg:cargo/")
    }
    locked = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    assert hashes == {
        (crate["name"], crate["version"]): {crate["checksum"]}
        for crate in locked
        if "checksum" in crate
    }
    refs = {entry["bom-ref"] for entry in sbom["components"]}
    assert "pkg:cargo/serde@" in " ".join(refs)
    # Build metadata is part of a version, and + is not itself in a URL.
    assert any(re.fullmatch(r"pkg:cargo/zstd-sys@[\d.]+%2Bzstd[.\d]+", ref) for ref in refs)


def test_our_own_crates_are_in_it_without_hash(sbom: dict[str, Any]) -> None:
    product = sbom["metadata"]["component"]
    ours = [product, *(entry for entry in sbom["components"] if "purl" not in entry)]
    assert not any("hashes" in entry for entry in ours)
    assert {entry["name"]: entry["type"] for entry in ours} == {
        "fraud-scorer": "application",
        "fraud-producer": "application",
        "fraud-fuzz": "library",
        "fraud-settings": "library",
        "fraud-storage": "library",
        "fraud-trees": "library",
        "fraud-wire": "library",
    }
    edges = {entry["ref"]: entry["dependsOn"] for entry in sbom["dependencies"]}
    used = [re.sub("@.*", "", ref) for ref in edges[product["bom-ref"]]]
    assert {"fraud-wire", "pkg:cargo/rdkafka", "pkg:pypi/onnxruntime"} <= set(used)


@pytest.mark.parametrize("lock", PYTHON_LOCKS)
def test_every_pinned_python_package_is_in_it(sbom: dict[str, Any], lock: str) -> None:
    packages = {entry["purl"]: entry for entry in sbom["components"] if "purl" in entry}
    name = ""
    hashes: dict[str, set[str]] = {}
    for line in (ROOT / lock).read_text().splitlines():
        if pin := re.match(r"([a-z0-9-]+)==([^\s;]+) ", line):
            name = f"pkg:pypi/{pin[1]}@{pin[2]}"
            hashes[name] = set()
        elif digest := re.match(r"    --hash=sha256:(\w{64})", line):
            hashes[name].add(digest[1])
    assert hashes
    for purl, expected in hashes.items():
        (files,) = packages[purl]["externalReferences"]
        assert expected
        assert expected <= contents(files["hashes"]), purl
        assert {"name": "fraud-scorer:lock", "value": lock} in packages[purl]["properties"]


def test_the_same_locks_give_the_same_bytes(sbom_file: Path, tmp_path: Path) -> None:
    write_sbom(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == sbom_file.read_bytes()
    assert "timestamp" not in sbom_file.read_text()


BROKEN: dict[str, tuple[Any, int]] = {
    "status 400": ({}, 400),
    "status 503": ({}, 503),
    "no JSON": (b"<html>", 200),
    "too short": ({"results": []}, 200),
}


class Osv(BaseHTTPRequestHandler):
    """Plays OSV: two databases have an advisory on `leaky` 2.0."""

    asked: list[str]
    informational: str | None
    broken: str

    def answer(self, body: Any, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        assert self.path == "/v1/querybatch"
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        if self.broken:
            self.answer(*BROKEN[self.broken])
            return
        type(self).asked += [query["package"]["purl"] for query in queries]
        self.answer({"results": [self.result(query) for query in queries]})

    def result(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["package"]["purl"] != "pkg:pypi/leaky@2.0":
            return {}
        if "page_token" in query:
            return {"vulns": [{"id": "PYSEC-2026-7"}]}
        return {"vulns": [{"id": "GHSA-aaaa-bbbb-cccc"}], "next_page_token": "more"}

    def do_GET(self) -> None:
        advisory = self.path.removeprefix("/v1/vulns/")
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}]
        affected = {
            "package": {"ecosystem": "PyPI", "name": "Leaky"},
            "ranges": ranges,
            "database_specific": {"informational": self.informational},
        }
        record = {"summary": "Leaks", "aliases": ["CVE-2026-7"], "affected": [affected]}
        self.answer({"id": advisory, **record})

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[tuple[type[Osv], str]]:
    handler = type("Handler", (Osv,), {"asked": [], "informational": None, "broken": ""})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield handler, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def look(
    folder: Path, url: str, *options: str, ignore: str = ""
) -> subprocess.CompletedProcess[str]:
    packages = [("leaky", "2.0"), ("sound", "1.0")]
    components = [
        {
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{name}@{version}",
            "properties": [{"name": "fraud-scorer:lock", "value": "some.lock"}],
        }
        for name, version in packages
    ]
    components.append({"name": "fraud-wire", "version": "0.1.0"})
    (folder / "sbom.json").write_text(json.dumps({"components": components}))
    (folder / "deny.toml").write_text(f"[advisories]\nignore = [{ignore}]\n")
    files = (folder / "sbom.json", "--ignored", folder / "deny.toml")
    script = (sys.executable, "scripts/advisories.py")
    # No proxy of this machine between the script and the test's server.
    return run(*script, *files, "--osv", url, *options, env={"no_proxy": "*"})


def test_a_known_vulnerability_fails(tmp_path: Path, osv: tuple[type[Osv], str]) -> None:
    done = look(tmp_path, osv[1])
    assert done.returncode == 1, done.stderr
    # Two databases' advisories on one CVE are told once.
    assert done.stdout.splitlines() == [
        "leaky 2.0 (some.lock): GHSA-aaaa-bbbb-cccc, CVE-2026-7: Leaks; fixed in 2.1",
        "advisories: 1 known: update or list it in deny.toml with a reason",
    ]
    assert set(osv[0].asked) == {"pkg:pypi/leaky@2.0", "pkg:pypi/sound@1.0"}


@pytest.mark.parametrize("advisory", ["GHSA-aaaa-bbbb-cccc", "CVE-2026-7"])
def test_one_with_a_reason_passes(
    tmp_path: Path, osv: tuple[type[Osv], str], advisory: str
) -> None:
    reasoned = look(tmp_path, osv[1], ignore=f'{{ id = "{advisory}", reason = "not called" }}')
    assert reasoned.returncode == 0, reasoned.stdout
    assert "advisories: none for 2 packages; 1 listed" in reasoned.stdout
    for ignore in (f'"{advisory}"', f'{{ id = "{advisory}", reason = " " }}'):
        assert look(tmp_path, osv[1], ignore=ignore).returncode == 1


def test_a_package_that_was_given_up_is_no_vulnerability(
    tmp_path: Path, osv: tuple[type[Osv], str]
) -> None:
    osv[0].informational = "unmaintained"
    assert look(tmp_path, osv[1]).returncode == 0
    osv[0].informational = "unsound"
    assert look(tmp_path, osv[1]).returncode == 1


def test_without_a_network_it_says_that_it_did_not_look(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for options, code in (((), 0), (("--required",), 1)):
        done = look(tmp_path, url, *options)
        assert done.returncode == code
        (line,) = done.stdout.splitlines()
        assert line.startswith(f"advisories: NOT LOOKED AT: {url}: ")
        assert "refused" in line


@pytest.mark.parametrize("broken", ["status 503", "no JSON", "too short"])
def test_what_is_no_answer_of_osv_is_not_taken_for_one(
    tmp_path: Path, osv: tuple[type[Osv], str], broken: str
) -> None:
    osv[0].broken = broken
    for options, code in (((), 0), (("--required",), 1)):
        done = look(tmp_path, osv[1], *options)
        assert done.returncode == code, done.stderr
        assert done.stdout.startswith("advisories: NOT LOOKED AT: ")


def test_a_question_that_osv_does_not_understand_fails(
    tmp_path: Path, osv: tuple[type[Osv], str]
) -> None:
    osv[0].broken = "status 400"
    assert look(tmp_path, osv[1]).returncode == 1
