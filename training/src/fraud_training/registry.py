"""The model registry: complete bundles as versions of a registered model, and its aliases.

    bundle ─► + MLmodel ─► artefact `bundle` of a run ─► model version (tags) ─► alias

A version's source is the whole bundle directory, so that the worker (`mlflow:fraud@champion`) and a
notebook (`mlflow.pyfunc.load_model("models:/fraud@champion")`) use one thing. Aliases:

    champion     serves
    previous     served before it
    challenger   nearly better: scored in the shadow

Publishing is done in steps that can be repeated: create the version with all its tags, move the
aliases, mark it `settled`. A run that finds an unsettled version of its own fingerprint goes on
from there.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before the import: a server that is down should be told of in seconds, not after minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec

from fraud_training import bundle_pyfunc
from fraud_training.errors import UsageError, UserError

CHAMPION = "champion"
PREVIOUS = "previous"
CHALLENGER = "challenger"

ARTEFACT = "bundle"
FILES = ("manifest.toml", "golden.jsonl", "reference.json", "MODEL_CARD.md")
"""What a bundle must hold besides the model its manifest names."""

LOADER = "fraud_bundle_pyfunc"
"""Module name of the loader in a version: one of its own, whatever else a notebook imports."""

MAX_TAG = 4_000
"""Characters of a tag's value; the store's limit is 5,000 (100,000 since MLflow 2.x)."""


class RegistryError(UserError):
    """The registry refused or did not answer."""


@dataclass(frozen=True)
class Version:
    """A registered version."""

    name: str
    version: str
    run_id: str
    tags: dict[str, str]

    @property
    def settled(self) -> bool:
        return self.tags.get("settled") == "true"


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns MLflow's exceptions into a message that names the registry."""
    try:
        yield
    except (MlflowException, requests.RequestException) as error:
        # The address may hold a password, and MLflow repeats it.
        text = re.sub(r"//[^/@\s]+@", "//", str(error)).strip()
        text = (text.splitlines() or ["no message"])[0][:500]
        raise RegistryError(
            f"registry at {shown_uri()}: {what}: {text} (check MLFLOW_TRACKING_URI and "
            f"MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD)"
        ) from error


def shown_uri() -> str:
    """The registry's address without a password that may stand in it."""
    scheme, separator, rest = str(mlflow.get_registry_uri()).partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def champion_of(client: MlflowClient, name: str) -> Version | None:
    """The version that serves; None where there is no such model or alias."""
    with explained(f"looking up {name}@{CHAMPION}"):
        return _by_alias(client, name, CHAMPION)


def _by_alias(client: MlflowClient, name: str, alias: str) -> Version | None:
    try:
        return _version(client.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        if _absent(error):
            return None
        raise


def _absent(error: MlflowException) -> bool:
    """A model or alias that is not there; MLflow says the second as an invalid parameter."""
    return error.error_code == "RESOURCE_DOES_NOT_EXIST" or (
        error.error_code == "INVALID_PARAMETER_VALUE" and "alias" in str(error).lower()
    )


def find_by_fingerprint(client: MlflowClient, name: str, fingerprint: str) -> Version | None:
    """The newest version made of the same data, code and settings."""
    with explained(f"searching versions of {name}"):
        found = client.search_model_versions(
            f"name='{name}' and tags.fingerprint='{fingerprint}'", max_results=100
        )
        versions = sorted(found, key=lambda one: int(one.version))
        return _version(versions[-1]) if versions else None


def download(version: Version, client: MlflowClient, destination: Path) -> Path:
    """The version's artefact in a folder of its own; empty where the store has lost it."""
    with explained(f"downloading {version.name} version {version.version}"):
        uri = client.get_model_version_download_uri(version.name, version.version)
        destination.mkdir(parents=True, exist_ok=True)
        try:
            mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(destination))
        except MlflowException:
            # Lost, or the store does not answer? Then this fails as well.
            if mlflow.artifacts.list_artifacts(artifact_uri=uri):
                raise
    # A single artefact folder is put into the destination under its own name.
    for manifest in sorted(destination.rglob("manifest.toml")):
        return manifest.parent
    return destination


def fetch(reference: str, destination: Path) -> tuple[Version, Path]:
    """The version that `NAME@ALIAS` or `NAME/NUMBER` means now, and its bundle's directory."""
    match = re.fullmatch(r"([^/@:\s]+)(?:@([^/@:\s]+)|/(\d+))", reference)
    if match is None:
        raise UsageError(f"mlflow:{reference}: expected mlflow:NAME@ALIAS or mlflow:NAME/NUMBER")
    name, alias, number = match.groups()
    with explained(f"looking up {reference}"):
        client = MlflowClient()
        try:
            found = (
                client.get_model_version_by_alias(name, alias)
                if number is None
                else client.get_model_version(name, number)
            )
        except MlflowException as error:
            if _absent(error):
                raise UserError(f"the registry has no {reference}") from error
            raise
    version = _version(found)
    bundle = download(version, client, destination)
    if not (bundle / "manifest.toml").is_file():
        raise UserError(
            f"{name} version {version.version} holds no bundle: manifest.toml is missing"
        )
    return version, bundle


@contextmanager
def staged(bundle: Path) -> Iterator[Path]:
    """A complete copy of a bundle, with the MLmodel that lets MLflow load it."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / ARTEFACT
        shutil.copytree(bundle, copy)
        if not (copy / "MLmodel").is_file():
            write_mlmodel(copy)
        yield copy


def write_mlmodel(bundle: Path) -> None:
    """MLmodel and the loader it names, beside the bundle's own files.

    Inputs are declared as doubles, which every notebook has; the loader turns them into float32.
    """
    manifest = tomllib.loads((bundle / "manifest.toml").read_text(encoding="utf-8"))
    columns: list[ColSpec | TensorSpec] = [
        ColSpec("double", feature["name"]) for feature in manifest["input"]["features"]
    ]
    model = Model(
        model_uuid=manifest["sha256"][:32],
        signature=ModelSignature(inputs=Schema(columns)),
        metadata={"bundle": manifest["name"], "thresholds": manifest["thresholds"]},
    )
    loader = Path(bundle_pyfunc.__file__)
    shutil.copyfile(loader, bundle / f"{LOADER}.py")
    mlflow.pyfunc.add_to_model(model, loader_module=LOADER, code=".", env=None)
    model.save(str(bundle / "MLmodel"))


def check_complete(bundle: Path) -> dict[str, Any]:
    """The manifest of a bundle all of whose files are there."""
    path = bundle / "manifest.toml"
    if not path.is_file():
        raise UserError(f"no bundle at {bundle}: manifest.toml is missing")
    manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    for file in (*FILES, manifest["model"]):
        if not (bundle / file).is_file():
            raise UserError(f"the bundle at {bundle} is not complete: {file} is missing")
    if file_sha256(bundle / manifest["model"]) != manifest["sha256"].lower():
        raise UserError(f"{manifest['model']} at {bundle} is not the file its manifest names")
    return manifest


def register(client: MlflowClient, name: str, run_id: str, tags: Mapping[str, str]) -> Version:
    """A new version from the artefact `bundle` of a run that logged it with its MLmodel."""
    with explained(f"registering a version of {name}"):
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        root = client.get_run(run_id).info.artifact_uri
        created = client.create_model_version(
            name,
            source=f"{root}/{ARTEFACT}",
            run_id=run_id,
            tags={key: value[:MAX_TAG] for key, value in tags.items()},
        )
        return _version(created)


def register_bundle(bundle: Path, alias: str | None, tags: Mapping[str, str]) -> Version:
    """An existing bundle as a version under its own name, with a run to hold its files."""
    manifest = check_complete(bundle)
    client = MlflowClient()
    with (
        explained("recording the run"),
        staged(bundle) as copy,
        mlflow.start_run(run_name=f"register {manifest['name']}") as run,
    ):
        mlflow.log_artifacts(str(copy), ARTEFACT)
    version = register(client, manifest["name"], run.info.run_id, {**tags, "settled": "true"})
    if alias == CHAMPION:
        promote(client, version)
    elif alias is not None:
        set_alias(client, version, alias)
    return version


def promote(client: MlflowClient, version: Version) -> Version | None:
    """Moves `champion` to the version and `previous` to the one that served; returns that one."""
    with explained(f"moving the aliases of {version.name}"):
        serving = _by_alias(client, version.name, CHAMPION)
        if serving is not None and serving.version != version.version:
            client.set_registered_model_alias(version.name, PREVIOUS, serving.version)
        client.set_registered_model_alias(version.name, CHAMPION, version.version)
        challenger = _by_alias(client, version.name, CHALLENGER)
        # One that is older than the new champion was judged against another one.
        if challenger is not None and int(challenger.version) <= int(version.version):
            client.delete_registered_model_alias(version.name, CHALLENGER)
        return serving


def set_alias(client: MlflowClient, version: Version, alias: str) -> None:
    with explained(f"setting the alias {alias} of {version.name}"):
        client.set_registered_model_alias(version.name, alias, version.version)


def tag(client: MlflowClient, version: Version, tags: Mapping[str, str]) -> None:
    with explained(f"tagging {version.name} version {version.version}"):
        for key, value in tags.items():
            client.set_model_version_tag(version.name, version.version, key, value[:MAX_TAG])


def reasons_tag(reasons: list[str]) -> str:
    """Reasons as a tag's value: JSON, shortened by leaving out whole reasons."""
    kept = list(reasons)
    while len(text := json.dumps(kept, ensure_ascii=False)) > MAX_TAG and kept:
        kept.pop()
    return text


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _version(found: ModelVersion) -> Version:
    return Version(found.name, str(found.version), str(found.run_id or ""), dict(found.tags))
