"""Runs the stages of a retraining, all or one of them, and says how it ended.

    all      the lock is held from the first stage to the last: a second run waits, then finds that
             there is nothing new
    single   only `promote` takes the lock; a scheduler's stages may lie minutes apart

A decision ends the run: stages after it change nothing and repeat it.
"""

import sys
from contextlib import ExitStack
from typing import Any

from mlflow import MlflowClient

from fraud_training import lock, registry, tracking
from fraud_training.errors import UsageError
from fraud_training.retrain.check import validate
from fraud_training.retrain.ingest import ingest
from fraud_training.retrain.judge import compare_models
from fraud_training.retrain.learn import train
from fraud_training.retrain.options import STAGES, Options
from fraud_training.retrain.publish import promote, record_quarantine
from fraud_training.retrain.work import Work


def retrain(options: Options, stage: str) -> dict[str, Any] | None:
    """The decision, or None where a single stage left the run undecided."""
    work = Work(options.work)
    with ExitStack() as held:
        held.enter_context(work.alone())
        with registry.explained("connecting"):
            tracking.connect(options.experiment)
        client = MlflowClient()
        if stage != "all":
            return one_stage(stage, options, work, client, None)
        with registry.explained("taking the lock"):
            ours = held.enter_context(lock.hold(client, options.model_name, options.lock_wait))
        for name in STAGES:
            print(f"stage {name}", file=sys.stderr, flush=True)
            decision = one_stage(name, options, work, client, ours)
            if decision is not None:
                return decision
    raise AssertionError("promote always decides")


def one_stage(
    stage: str, options: Options, work: Work, client: MlflowClient, held: lock.Lock | None
) -> dict[str, Any] | None:
    """One stage; every decision is written down here."""
    if stage == "ingest":
        return keep(work, ingest(options, work, client))
    ingested = work.read("ingest", "ingest")
    identity = ingested["fingerprint"]
    if ingested["settings"] != options.settings():
        raise UsageError(
            f"--work {options.work} was filled by --stage ingest with other options, or by other "
            f"code: give the same flags to every stage, or run --stage ingest again"
        )
    if (decision := work.decided(identity)) is not None:
        return decision
    match stage:
        case "validate":
            decision = validate(options, work, ingested)
            if decision is not None and decision["decision"] == "quarantined":
                decision["run_id"] = record_quarantine(options, work, decision)
            return keep(work, decision)
        case "train":
            work.read("validation", "validate", identity)
            train(options, work, ingested)
        case "compare":
            compare_models(options, work, client, identity)
        case "promote":
            with ExitStack() as own:
                if held is None:
                    with registry.explained("taking the lock"):
                        held = own.enter_context(
                            lock.hold(client, options.model_name, options.lock_wait)
                        )
                return keep(work, promote(options, work, client, held, ingested))
    return None


def keep(work: Work, decision: dict[str, Any] | None) -> dict[str, Any] | None:
    if decision is not None:
        work.write("decision", decision)
    return decision
