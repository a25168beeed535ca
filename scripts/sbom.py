#!/usr/bin/env python3
"""Writes an SBOM (CycloneDX 1.6, JSON) from the lock files: what the programs are built of, and
the models trained with.

    scripts/sbom.py OUTPUT

The same lock files give the same bytes: there is no time in it, and its serial number is a hash
of the rest.
"""

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
PYTHON_LOCKS = ("training/requirements.lock", "scripts/onnxruntime.txt")

Component = dict[str, Any]


def toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def component(name: str, version: str, lock: str, kind: str = "library") -> Component:
    return {
        "type": kind,
        "bom-ref": f"{name}@{version}",
        "name": name,
        "version": version,
        "properties": [{"name": "fraud-scorer:lock", "value": lock}],
    }


def packaged(ecosystem: str, name: str, version: str, lock: str) -> Component:
    """A component from a registry. Ours have no purl: there, the name could be somebody else's."""
    purl = f"pkg:{ecosystem}/{name}@{quote(version, safe='')}"
    return component(name, version, lock) | {"bom-ref": purl, "purl": purl}


def sha256(digests: list[str]) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest} for digest in sorted(digests)]


def workspace() -> dict[str, str]:
    """The name of each member, the root first, and whether it is an application or a library."""
    folders = [ROOT, *(ROOT / name for name in toml(ROOT / "Cargo.toml")["workspace"]["members"])]
    return {
        toml(folder / "Cargo.toml")["package"]["name"]: "application"
        if (folder / "src/main.rs").exists()
        else "library"
        for folder in folders
    }


def crates() -> tuple[list[Component], dict[str, list[str]]]:
    """The crates, and of each what it depends on."""
    members = workspace()
    packages = toml(ROOT / "Cargo.lock")["package"]
    components, refs = [], {}
    for package in packages:
        name, version = package["name"], package["version"]
        if "source" in package:
            crate = packaged("cargo", name, version, "Cargo.lock")
            crate["hashes"] = sha256([package["checksum"]])
        else:
            crate = component(name, version, "Cargo.lock", members[name])
        components.append(crate)
        # A dependency is named with its version only where there are several.
        refs[name] = refs[f"{name} {version}"] = crate["bom-ref"]
    depends_on = {
        refs[f"{package['name']} {package['version']}"]: sorted(
            refs[dependency] for dependency in package.get("dependencies", [])
        )
        for package in packages
    }
    return components, depends_on


def python_packages(lock: str) -> list[Component]:
    """The pinned packages. A hash is that of one of a version's files, so none is the package's."""
    components = []
    for entry in re.split(r"\n(?=[^\s#])", (ROOT / lock).read_text()):
        pin = re.search(r"^([\w.-]+)(?:\[.*?\])?==([^\s;\\]+)", entry, flags=re.MULTILINE)
        if pin:
            name = re.sub(r"[-_.]+", "-", pin[1]).lower()
            package = packaged("pypi", name, pin[2], lock)
            package["externalReferences"] = [
                {
                    "type": "distribution",
                    "url": f"https://pypi.org/simple/{name}/",
                    "hashes": sha256(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)),
                }
            ]
            components.append(package)
    return components


def bom() -> dict[str, Any]:
    components, depends_on = crates()
    by_ref = {entry["bom-ref"]: entry for entry in components}
    for lock in PYTHON_LOCKS:
        for package in python_packages(lock):
            # Where two locks pin the same version, the first one's hashes include the other's.
            same = by_ref.setdefault(package["bom-ref"], package)
            if same is not package:
                same["properties"] += package["properties"]
    root = next(iter(workspace()))
    product = next(entry for entry in components if entry["name"] == root)
    del by_ref[product["bom-ref"]]
    # ONNX Runtime is loaded at run time: Cargo does not know of it.
    depends_on[product["bom-ref"]] += [
        package["bom-ref"] for package in python_packages("scripts/onnxruntime.txt")
    ]
    content = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "pre-build"}], "component": product},
        "components": [by_ref[ref] for ref in sorted(by_ref)],
        "dependencies": [{"ref": ref, "dependsOn": depends_on[ref]} for ref in sorted(depends_on)],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(content, sort_keys=True))
    return content | {"serialNumber": f"urn:uuid:{serial}"}


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: scripts/sbom.py OUTPUT")
    output = Path(sys.argv[1])
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(bom(), indent=2) + "\n")


if __name__ == "__main__":
    main()
