#!/usr/bin/env python3
"""Asks OSV (https://osv.dev) for known vulnerabilities of the packages in an SBOM.

Exit code 1: there is one that deny.toml does not list with a reason; or, with --required, OSV
could not be asked. Otherwise a network that is not there fails nothing, but is told.
"""

import argparse
import json
import re
import sys
import tomllib
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# What keeps OSV from being asked, and what an answer raises that is not OSV's.
NO_ANSWER = (OSError, HTTPException, ValueError, KeyError)


def ask(url: str, question: Any = None) -> dict[str, Any]:
    data = None if question is None else json.dumps(question).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        answer = json.load(response)
    if not isinstance(answer, dict):
        raise ValueError(f"{url} answers something else than an object")
    return answer


def known(osv: str, purls: list[str]) -> list[tuple[str, str]]:
    """Packages and the ids of their advisories."""
    found = []
    queries: list[dict[str, Any]] = [{"package": {"purl": purl}} for purl in purls]
    while queries:
        # OSV takes 1,000 queries at a time, and answers a long list in pages.
        asked, queries = queries[:1000], queries[1000:]
        results = ask(f"{osv}/v1/querybatch", {"queries": asked})["results"]
        for query, result in zip(asked, results, strict=True):
            found += [(query["package"]["purl"], entry["id"]) for entry in result.get("vulns", [])]
            if token := result.get("next_page_token"):
                queries.append(query | {"page_token": token})
    return found


def details(osv: str, advisory: str) -> dict[str, Any]:
    try:
        return ask(f"{osv}/v1/vulns/{advisory}")
    except NO_ANSWER:
        # That there is a vulnerability is known already.
        return {}


def ignored(path: Path) -> set[str]:
    """Ids from cargo-deny's list, of which only entries with a reason count."""
    entries = tomllib.loads(path.read_text()).get("advisories", {}).get("ignore", [])
    return {
        entry["id"]
        for entry in entries
        if isinstance(entry, dict) and "id" in entry and entry.get("reason", "").strip()
    }


def same_name(one: str, other: str) -> bool:
    return re.sub(r"[-_.]+", "-", one).lower() == re.sub(r"[-_.]+", "-", other).lower()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sbom", type=Path)
    parser.add_argument("--required", action="store_true", help="fail where OSV cannot be asked")
    parser.add_argument("--osv", default="https://api.osv.dev", help="OSV's address")
    parser.add_argument("--ignored", type=Path, default=ROOT / "deny.toml", help="a deny.toml")
    options = parser.parse_args()

    components = json.loads(options.sbom.read_text())["components"]
    packages = {entry["purl"]: entry for entry in components if "purl" in entry}
    reasoned = ignored(options.ignored)
    try:
        found = known(options.osv, list(packages))
    except NO_ANSWER as error:
        if isinstance(error, urllib.error.HTTPError) and error.code == 400:
            # What OSV does not understand is a mistake of this script.
            raise
        print(f"advisories: NOT LOOKED AT: {options.osv}: {error}")
        return int(options.required)

    told: set[tuple[str, str]] = set()
    failures = passed = 0
    for purl, advisory in found:
        package, detail = packages[purl], details(options.osv, advisory)
        ids = [advisory, *detail.get("aliases", [])]
        if any((purl, name) in told for name in ids):
            continue
        told.update((purl, name) for name in ids)
        affected = [
            entry
            for entry in detail.get("affected", [])
            if same_name(entry.get("package", {}).get("name", ""), package["name"])
        ]
        fixed = {
            event["fixed"]
            for entry in affected
            for span in entry.get("ranges", [])
            for event in span.get("events", [])
            if "fixed" in event and span.get("type") != "GIT"
        }
        # A crate that was given up has no vulnerability yet; `make audit` lists it.
        kinds = {entry.get("database_specific", {}).get("informational") for entry in affected}
        if reasoned & set(ids) or (kinds and kinds <= {"notice", "unmaintained"}):
            passed += 1
            continue
        failures += 1
        locks = ", ".join(entry["value"] for entry in package["properties"])
        print(
            f"{package['name']} {package['version']} ({locks}): {', '.join(ids)}: "
            f"{detail.get('summary', 'https://osv.dev/' + advisory)}; "
            f"fixed in {', '.join(sorted(fixed)) or 'no version yet'}"
        )
    if failures:
        print(f"advisories: {failures} known: update or list it in deny.toml with a reason")
        return 1
    print(f"advisories: none for {len(packages)} packages; {passed} listed or informational")
    return 0


if __name__ == "__main__":
    sys.exit(main())
