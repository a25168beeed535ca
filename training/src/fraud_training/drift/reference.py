"""What the model was trained on: bins with their shares, and rows to show beside the window's.

    bundle               bins, shares: histograms of the training rows, in reference.json
                         rows: drawn from the profile in it, scored by the bundle's model
    --reference ARCHIVE  bins: the same cuts; shares, rows: of the archive's rows up to the
                         moment that the manifest says the model was trained until

A bundle holds no row of its data, only aggregates (see `profile.py`), and this keeps to that: the
default needs nothing but the bundle. Its numbers are still those of the true training rows, because
the index is computed from the histograms; the drawn rows only show what they looked like.
"""

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fraud_training import bundle_pyfunc
from fraud_training.drift.archives import read_archive
from fraud_training.drift.bins import LEAST_FEATURE_SHARE, LEAST_ROWS, LEAST_SCORE_SHARE, Bins
from fraud_training.drift.sample import unweighted
from fraud_training.drift.window import Wanted
from fraud_training.errors import UserError
from fraud_training.profile import SCORE_CUTS, Profile, histogram, quantile_cuts
from fraud_training.rows import as_text
from fraud_training.scoring import Feature, bundle_features

SCORE = "score"

ROWS = 20_000
"""Rows drawn, or kept of an archive: enough for smooth pictures, and small pages."""


@dataclass(frozen=True)
class Bundle:
    """What a comparison needs to know of the model."""

    directory: Path
    name: str
    version: str
    """As verdicts say it: the registry's number where the bundle came from there."""
    features: tuple[Feature, ...]
    trained_until: int | None
    histograms: Mapping[str, Any] | None
    """The content of reference.json; a foreign bundle need not have it."""

    @property
    def columns(self) -> list[str]:
        return [feature.name for feature in self.features]


@dataclass(frozen=True)
class Reference:
    frame: pd.DataFrame
    """Features, and `score` where it is compared."""
    bins: dict[str, Bins]
    """By column; the score's under `SCORE`."""
    origin: str
    """For people: where it is from."""


def open_bundle(directory: Path, registered_version: str | None = None) -> Bundle:
    features = tuple(bundle_features(directory))
    manifest = tomllib.loads((directory / "manifest.toml").read_text(encoding="utf-8"))
    if any(feature.name == SCORE for feature in features):
        raise UserError(f"the bundle at {directory} has a feature named {SCORE!r}: not supported")
    path = directory / "reference.json"
    until = manifest.get("training", {}).get("trained_until")
    return Bundle(
        directory=directory,
        name=str(manifest["name"]),
        version=registered_version or str(manifest["version"]),
        features=features,
        trained_until=until if isinstance(until, int) and not isinstance(until, bool) else None,
        histograms=json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None,
    )


def with_defaults(frame: pd.DataFrame, features: tuple[Feature, ...]) -> pd.DataFrame:
    """The features as they are scored: a missing one is the feature's default.

    Rows that still lack a feature, or hold an infinite one, are none that a model could score.
    """
    filled = frame.copy()
    for feature in features:
        if feature.default is not None:
            filled[feature.name] = filled[feature.name].fillna(feature.default)
    names = [feature.name for feature in features]
    usable = np.isfinite(filled[names].to_numpy(dtype=np.float64)).all(axis=1)
    kept: pd.DataFrame = filled[usable].reset_index(drop=True)
    return kept


def from_bundle(bundle: Bundle, seed: int) -> Reference:
    """The default: histograms, and rows drawn from the profile."""
    content = bundle.histograms
    if content is None or "profile" not in content:
        missing = "reference.json" if content is None else "profile in its reference.json"
        raise UserError(
            f"the bundle at {bundle.directory} has no {missing} to draw rows from: "
            f"name an archive of training rows with --reference"
        )
    profile = Profile.from_json(content["profile"])
    rows = profile.draw(np.random.default_rng(seed), ROWS)
    frame = pd.DataFrame(rows.astype(np.float64), columns=list(profile.features))
    frame = frame[bundle.columns]
    frame[SCORE] = scores(bundle, frame)
    bins = {
        feature.name: bins_of_histogram(content, feature, bundle.directory)
        for feature in bundle.features
    }
    bins[SCORE] = score_bins(content)
    origin = f"{content['rows']:,} training rows, as the bundle's reference.json describes them"
    return Reference(frame, bins, origin)


def from_archive(bundle: Bundle, source: str, length: int, seed: int) -> Reference:
    """Rows of an archive, `length` milliseconds of event time up to the end of the training."""
    wanted = Wanted(end=bundle.trained_until, start=None, length=length)
    found = read_archive(source, wanted, bundle.columns, ROWS, "--reference")
    frame = with_defaults(unweighted(found.chosen.frame, seed), bundle.features)
    if len(frame) < LEAST_ROWS:
        raise UserError(
            f"--reference {source}: {len(frame)} usable rows from {found.window}, "
            f"at least {LEAST_ROWS} are needed: name a longer --reference-window"
        )
    frame = frame[bundle.columns].copy()
    weight = np.ones(len(frame))
    bins: dict[str, Bins] = {}
    for feature in bundle.features:
        column = frame[feature.name].to_numpy(dtype=np.float32).astype(np.float64)
        entry = histogram_of(bundle.histograms, feature.name)
        cuts = quantile_cuts(column, weight) if entry is None else np.array(entry["cuts"])
        shares = np.array(histogram(column, weight, cuts))
        bins[feature.name] = Bins.of_histogram(cuts, shares, LEAST_FEATURE_SHARE, len(frame))
    frame[SCORE] = scores(bundle, frame)
    if bundle.histograms is None:
        cuts = np.array(SCORE_CUTS)
        shares = np.array(histogram(frame[SCORE].to_numpy(), weight, cuts))
        bins[SCORE] = Bins.of_histogram(cuts, shares, LEAST_SCORE_SHARE, len(frame))
    else:
        # Those are scores of rows that the scoring model had not learnt from; these here are not.
        bins[SCORE] = score_bins(bundle.histograms)
    end = as_text(found.window.end)
    return Reference(frame, bins, f"{len(frame):,} of {found.chosen.seen:,} rows up to {end}")


def scores(bundle: Bundle, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
    model = bundle_pyfunc.BundleModel(bundle.directory)
    return model.predict(frame)["score"].to_numpy(dtype=np.float64)


def histogram_of(content: Mapping[str, Any] | None, name: str) -> dict[str, Any] | None:
    for entry in [] if content is None else content["features"]:
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    return None


def bins_of_histogram(content: Mapping[str, Any], feature: Feature, directory: Path) -> Bins:
    entry = histogram_of(content, feature.name)
    if entry is None:
        raise UserError(
            f"reference.json at {directory} has no histogram of feature {feature.name!r}, "
            f"which the manifest lists: export the bundle again"
        )
    missing = float(entry.get("missing", 0.0))
    return Bins.of_histogram(
        np.array(entry["cuts"], dtype=np.float64),
        np.array(entry["shares"], dtype=np.float64),
        LEAST_FEATURE_SHARE,
        int(content["rows"]),
        None if feature.default is None else (feature.default, missing),
    )


def score_bins(content: Mapping[str, Any]) -> Bins:
    return Bins.of_histogram(
        np.array(content["score"]["cuts"], dtype=np.float64),
        np.array(content["score"]["shares"], dtype=np.float64),
        LEAST_SCORE_SHARE,
        int(content["rows"]),
    )
