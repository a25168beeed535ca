"""Stage 4: champion and candidate on the same rows, and what the rule says about them.

    accepted.parquet, bundle/, the registry's champion ─► comparison.json, report.html

The rows are those of the candidate's test window that the champion has not learnt from either.
"""

import dataclasses
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient

from fraud_training import compare, registry
from fraud_training.compare import BrokenBundleError, Bundle, open_bundle
from fraud_training.errors import UserError
from fraud_training.evaluate import Scored
from fraud_training.promotion import Evidence, Proposal, decide
from fraud_training.report import Comparison, comparison_page
from fraud_training.retrain.options import Options
from fraud_training.retrain.work import Work
from fraud_training.rows import as_text


@dataclass(frozen=True)
class Champion:
    """The version that serves; without a bundle where its artefact is unusable."""

    version: registry.Version
    bundle: Bundle | None
    problem: str | None


def compare_models(options: Options, work: Work, client: MlflowClient, identity: str) -> Proposal:
    """Writes comparison and report."""
    trained = work.read("train", "train", identity)
    frame = work.read_frame("accepted.parquet", "validate")
    try:
        candidate = open_bundle(work.bundle)
    except BrokenBundleError as error:
        raise UserError(f"the candidate in {work.bundle} is unusable: {error}") from error
    champion = fetch_champion(options, work, client)
    bundle = champion.bundle if champion else None

    rows = frame[frame["event_time"] >= trained["trained_until"]]
    seen_until = learnt_until(bundle) if bundle else 0
    fresh = rows[rows["event_time"] >= seen_until]
    frauds = int((fresh["label"] == 1).sum())
    if frauds >= options.rule.minimum_frauds:
        rows = fresh  # otherwise the figures are shown for all, and the rule refuses by `frauds`

    ours = scored(candidate, rows)
    theirs = scored(bundle, rows) if bundle else None
    bundles = [candidate, bundle] if bundle else [candidate]
    times = compare.latencies(bundles, features(candidate, rows.head(1)))
    paired = (
        compare.paired_bootstrap(ours, theirs, options.seed, options.resamples) if theirs else None
    )
    evidence = Evidence(
        frauds=frauds,
        fraud_share=float(np.average(ours.label, weights=ours.weight)),
        candidate=compare.side(candidate, ours, times[0]),
        champion=compare.side(bundle, theirs, times[1]) if bundle and theirs else None,
        champion_problem=champion.problem if champion else None,
        average_precision=paired.average_precision if paired else None,
        recall=paired.recall if paired else None,
    )
    proposal = decide(evidence, options.rule)
    facts = {
        "model": options.model_name,
        "champion": f"version {champion.version.version}" if champion else "none",
        "fingerprint": identity,
        "window": f"{as_text(trained['trained_until'])} to {as_text(trained['test_until'])}",
        "rows, frauds": f"{len(rows):,}, {int((rows['label'] == 1).sum())}",
        "champion has learnt from rows until": as_text(seen_until) if seen_until else "unknown",
        "candidate": candidate_text(trained),
    }
    work.write_text(
        "report.html",
        comparison_page(
            Comparison(
                title=f"{options.model_name}: champion and candidate",
                facts=facts,
                evidence=evidence,
                proposal=proposal,
                candidate=ours,
                champion=theirs,
                draws=paired.draws if paired else None,
            )
        ),
    )
    work.write(
        "comparison",
        {
            "fingerprint": identity,
            "champion": champion.version.version if champion else None,
            "rule": dataclasses.asdict(options.rule),
            "evidence": dataclasses.asdict(evidence),
            "rows": len(rows),
            "proposal": proposal.to_json(),
        },
    )
    return proposal


def fetch_champion(options: Options, work: Work, client: MlflowClient) -> Champion | None:
    """The serving version's bundle.

    Unusable is what no worker could serve either: a missing or altered file, a model that does not
    load, another name. A registry that does not answer is a failure of the run instead.
    """
    version = registry.champion_of(client, options.model_name)
    if version is None:
        return None
    folder = work.path("champion")
    shutil.rmtree(folder, ignore_errors=True)
    directory = registry.download(version, client, folder)
    try:
        bundle = open_bundle(directory)
    except BrokenBundleError as error:
        return Champion(version, None, f"version {version.version} is unusable: {error}")
    if bundle.name != options.model_name:
        problem = f"version {version.version} is unusable: its bundle is named {bundle.name!r}"
        return Champion(version, None, problem)
    return Champion(version, bundle, None)


def learnt_until(bundle: Bundle) -> int:
    """Epoch milliseconds of the newest row the bundle has learnt from; 0 where it does not say."""
    value = bundle.training.get("trained_until")
    return value if isinstance(value, int) and 0 <= value < 2**53 else 0


def features(bundle: Bundle, rows: pd.DataFrame) -> Any:
    """The rows as the bundle takes them."""
    absent = [name for name in bundle.features if name not in rows.columns]
    if absent:
        raise UserError(
            f"the champion wants the feature {absent[0]!r}, which the data does not have: "
            f"the two cannot be compared, register this model under another --model-name"
        )
    return np.ascontiguousarray(rows[list(bundle.features)].to_numpy(dtype=np.float32))


def scored(bundle: Bundle, rows: pd.DataFrame) -> Scored:
    return Scored(
        bundle.score(features(bundle, rows)),
        rows["label"].to_numpy(dtype=np.int8),
        rows["weight"].to_numpy(dtype=np.float64),
    )


def candidate_text(trained: dict[str, Any]) -> str:
    settings = ", ".join(f"{k} {v}" for k, v in sorted(trained["candidate"]["parameters"].items()))
    return f"{trained['candidate']['family']}: {settings}"
