"""Stage 5: registers the candidate and moves the aliases, one run at a time.

    comparison.json ─► (lock) ─► still the same champion? ─► version, aliases ─► decision.json

Always registered, promoted or not: a rejected candidate keeps its reasons and its report, and the
same rows are not trained on again. Steps are ordered so that a run that dies between any two is
finished by the next one: the version carries its tags from the start, `settled` is set last.
"""

import json
from typing import Any

import mlflow
from mlflow import MlflowClient

from fraud_training import __version__, registry, tracking
from fraud_training.lock import Lock
from fraud_training.retrain.ingest import nothing_new
from fraud_training.retrain.judge import compare_models
from fraud_training.retrain.options import Options
from fraud_training.retrain.work import Work


def promote(
    options: Options, work: Work, client: MlflowClient, lock: Lock, ingested: dict[str, Any]
) -> dict[str, Any]:
    """The decision, carried out."""
    identity = ingested["fingerprint"]
    work.read("comparison", "compare", identity)
    lock.check()
    earlier = registry.find_by_fingerprint(client, options.model_name, identity)
    if earlier is not None and earlier.settled:
        return nothing_new(earlier, identity)

    champion = registry.champion_of(client, options.model_name)
    if earlier is not None and champion is not None and champion.version == earlier.version:
        # A run of ours died after it had moved the alias: only the mark is missing.
        registry.tag(client, earlier, {"settled": "true"})
        return outcome_of(earlier, "promoted", json.loads(earlier.tags["reasons"]), False, None)
    comparison = work.read("comparison", "compare", identity)
    if comparison["champion"] != (champion.version if champion else None):
        # Another run promoted since: what was compared is not what serves.
        compare_models(options, work, client, identity)
        comparison = work.read("comparison", "compare", identity)
    promoting = bool(comparison["proposal"]["promote"])
    challenging = bool(comparison["proposal"]["challenge"])
    reasons = list(comparison["proposal"]["reasons"])

    outcome = "promoted" if promoting else "rejected"
    tags = {
        "decision": outcome,
        "reasons": registry.reasons_tag(reasons),
        "fingerprint": identity,
        "as_of": ingested["as_of_text"],
        "compared_with": str(comparison["champion"] or "none"),
        "rejected": "false" if promoting else "true",
    }
    lock.check()
    if earlier is None:
        run_id = record(options, work, client, ingested, comparison, tags)
        lock.check()
        version = registry.register(client, options.model_name, run_id, tags | {"run_id": run_id})
    else:
        version = earlier
        registry.tag(client, version, tags)
    lock.check()
    if promoting:
        registry.promote(client, version)
    elif challenging:
        registry.set_alias(client, version, registry.CHALLENGER)
    registry.tag(client, version, {"settled": "true"})
    served = champion.version if champion and promoting else None
    return outcome_of(version, outcome, reasons, challenging, served) | {"fingerprint": identity}


def outcome_of(
    version: registry.Version,
    decision: str,
    reasons: list[str],
    challenger: bool,
    previous: str | None,
) -> dict[str, Any]:
    """The content of decision.json."""
    return {
        "decision": decision,
        "reasons": reasons,
        "challenger": challenger,
        "version": version.version,
        "previous": previous,
        "run_id": version.run_id,
        "model_name": version.name,
        "fingerprint": version.tags.get("fingerprint"),
    }


def record(
    options: Options,
    work: Work,
    client: MlflowClient,
    ingested: dict[str, Any],
    comparison: dict[str, Any],
    tags: dict[str, str],
) -> str:
    """One MLflow run with everything that was found; returns its id."""
    trained = work.read("train", "train", ingested["fingerprint"])
    checked = work.read("validation", "validate", ingested["fingerprint"])
    more = {"package.version": __version__}
    if revision := tracking.git_revision():
        more["mlflow.source.git.commit"] = revision
    evidence = comparison["evidence"]
    figures = {
        f"{who}_{key}": float(value)
        for who in ("candidate", "champion")
        for key, value in (evidence[who] or {}).items()
    }
    gain = evidence["average_precision"]
    if gain is not None:
        figures |= {f"average_precision_gain_{key}": float(value) for key, value in gain.items()}
    with (
        registry.explained("recording the run"),
        tracking.run(f"retrain {options.model_name}", tags | more) as run_id,
    ):
        mlflow.log_params(
            {
                **trained["candidate"]["parameters"],
                "family": trained["candidate"]["family"],
                "engine": options.engine,
                "seed": options.seed,
                "trials": options.trials,
                "data": ingested["source"],
                "as_of": ingested["as_of_text"],
                "rows": checked["rows"],
                "frauds": checked["frauds"],
                "quarantined_days": len(checked["quarantined"]),
            }
        )
        mlflow.log_metrics(
            figures | {f"test_{key}": one["value"] for key, one in trained["test"].items()}
        )
        for name in (
            "report.html", "comparison.json", "validation.html", "validation.json", "ingest.json",
            "train.json",
        ):  # fmt: skip
            mlflow.log_artifact(str(work.path(name)))
        mlflow.log_artifact(str(work.bundle / "MODEL_CARD.md"))
        with registry.staged(work.bundle) as copy:
            mlflow.log_artifacts(str(copy), registry.ARTEFACT)
    return run_id


def record_quarantine(options: Options, work: Work, decision: dict[str, Any]) -> str:
    """A run that holds only the report on why nothing was trained; once per fingerprint."""
    with registry.explained("recording the quarantine"):
        identity = decision["fingerprint"]
        found = mlflow.search_runs(
            experiment_names=[options.experiment],
            filter_string=f"tags.fingerprint = '{identity}' and tags.decision = 'quarantined'",
            output_format="list",
            max_results=1,
        )
        if found:
            return str(found[0].info.run_id)
        tags = {
            "decision": "quarantined",
            "fingerprint": identity,
            "reasons": registry.reasons_tag(decision["reasons"]),
        }
        with tracking.run(f"quarantine {options.model_name}", tags) as run_id:
            for name in ("validation.html", "validation.json", "ingest.json"):
                mlflow.log_artifact(str(work.path(name)))
    return run_id
