"""Stage 3: the candidate.

    accepted.parquet ─► parameters and thresholds (validation windows) ─► fit before the test window
                     ─► figures on the test window ─► bundle/, train.json

The bundle holds the model that was measured: it has not learnt from the test window. `train` ships
a model fitted again on all rows; here that would be wrong twice. What is promoted without a person
looking should be what was judged. And tomorrow's comparison uses rows of today's test window: a
champion that had learnt from them would look better than it is. `trained_until` in the manifest
says where its rows end, so that `judge.py` can keep to later ones.
"""

import dataclasses
import importlib
from typing import Any

import numpy as np

from fraud_training.evaluate import Scored, bootstrap, choose_thresholds, metrics
from fraud_training.export import Contents, run_onnx, to_graph, write_bundle
from fraud_training.fidelity import DRAWS, Figures, ProfileCheck, cross_fitted_scores, scored_draws
from fraud_training.models import Fitter, fit, xgboost_candidates
from fraud_training.profile import compact, fit_profile, group_rows, reference
from fraud_training.retrain.card import CardFacts, candidate_card
from fraud_training.retrain.options import Options
from fraud_training.retrain.work import Work
from fraud_training.rows import as_text, to_dataset
from fraud_training.split import Split, temporal_split
from fraud_training.train import best, say, score_window, try_all

SEEDS = 1
"""Seeds per setting in the search. One: a run every half an hour is itself a repetition."""


def train(options: Options, work: Work, ingested: dict[str, Any]) -> None:
    """Writes the candidate's bundle and the facts of its making."""
    identity = ingested["fingerprint"]
    data = to_dataset(work.read_frame("accepted.parquet", "validate"), ingested["source"], identity)
    fitter, split = engine(options.engine), temporal_split(data)
    say(f"{len(data)} rows ({int(data.label.sum())} frauds); average precision, log loss, setting:")
    trials = try_all(
        xgboost_candidates(options.trials, options.seed), data, split, options.seed, fitter, SEEDS
    )
    chosen = best(trials)
    thresholds = choose_thresholds(chosen.validation, options.review_budget)
    learnt = data.where(split.test.training(data.time))
    fitted = fitter(chosen.candidate, learnt, options.seed)
    test = score_window(fitted, data, split.test)

    def statistic(scored: Scored) -> dict[str, float]:
        return metrics(scored, thresholds)

    figures = bootstrap(test, statistic, options.seed, options.resamples)
    unseen = cross_fitted_scores(chosen.candidate, learnt, options.seed, fitter)
    bands = (thresholds.review / 10, thresholds.review, thresholds.decline)
    profile = fit_profile(
        learnt.features, learnt.label, learnt.weight, group_rows(learnt.label, unseen, bands)
    )
    graph = to_graph(fitted, options.model_name).SerializeToString(deterministic=True)
    drawn = scored_draws(profile, lambda rows: run_onnx(graph, rows), options.seed, DRAWS)
    check = ProfileCheck(
        real=Figures.of(Scored(unseen, learnt.label, learnt.weight), thresholds),
        drawn=Figures.of(drawn, thresholds),
        draws=DRAWS,
        seed=options.seed,
    )
    content = reference(learnt.features, learnt.label, learnt.weight, unseen, profile)
    content["profile_check"] = check.to_json()
    until = trained_until(split)
    version = f"candidate-{identity[:12]}"
    facts = CardFacts(
        name=options.model_name,
        version=version,
        engine=options.engine,
        candidate=chosen.candidate,
        data=data,
        learnt=learnt,
        test_frauds=int((test.label == 1).sum()),
        test_rows=len(test),
        as_of=ingested["as_of_text"],
        trained_until=as_text(until),
        thresholds=thresholds,
        review_budget=options.review_budget,
        figures=figures,
        complaints=check.complaints(),
        seed=options.seed,
        trials=options.trials,
    )
    write_bundle(
        work.bundle,
        Contents(
            fitted=fitted,
            name=options.model_name,
            version=version,
            thresholds=thresholds,
            profile=profile,
            reference=content,
            training={
                "data": data.source,
                "data_fingerprint": identity,
                "rows": len(learnt),
                "frauds": int(learnt.label.sum()),
                "family": chosen.candidate.family,
                "engine": options.engine,
                "seed": options.seed,
                "as_of": ingested["as_of_text"],
                "trained_until": until,
                **{f"test_{key}": compact(one.value) for key, one in figures.items()},
            },
            card=candidate_card(facts),
            seed=options.seed,
        ),
    )
    work.write(
        "train",
        {
            "fingerprint": identity,
            "candidate": {
                "family": chosen.candidate.family,
                "parameters": plain(chosen.candidate.parameters),
            },
            "trials": [
                {
                    "setting": trial.candidate.describe(),
                    "average_precision": trial.average_precision,
                    "log_loss": trial.log_loss,
                }
                for trial in trials
            ],
            "thresholds": dataclasses.asdict(thresholds),
            "test": {key: dataclasses.asdict(one) for key, one in figures.items()},
            "rows": len(learnt),
            "frauds": int(learnt.label.sum()),
            "trained_until": until,
            "test_until": int(data.time.max() * 1_000),
            "profile_complaints": check.complaints(),
        },
    )


def engine(name: str) -> Fitter:
    """What fits: XGBoost in this process, or Spark's."""
    if name == "spark":
        # By name: Spark lives in an environment of its own, and its module imports pyspark.
        found: Fitter = importlib.import_module("fraud_training.spark").fit
        return found
    return fit


def trained_until(split: Split) -> int:
    """Epoch milliseconds from which on the candidate has seen nothing."""
    return round(split.test.start * 1_000)


def plain(parameters: Any) -> dict[str, Any]:
    """Parameters as JSON takes them."""
    return {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in parameters.items()
    }
