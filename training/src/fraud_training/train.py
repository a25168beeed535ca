"""One training run, from data to two bundles: the order of the stages can be read here.

load ─► split ─► choose parameters (validation) ─► thresholds (validation)
     ─► judge on the test window ─► refit on all rows ─► profile ─► bundle ─► MLflow
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from numpy.typing import NDArray

from fraud_training import __version__, paths, registry, tracking
from fraud_training.card import Compared, Facts, Judged, model_card
from fraud_training.dataset import KAGGLE, Dataset, draw_synthetic, load_csv
from fraud_training.errors import UserError
from fraud_training.evaluate import (
    Estimate,
    Scored,
    Thresholds,
    bootstrap,
    calibration_bins,
    choose_thresholds,
    metrics,
    plot_all,
)
from fraud_training.export import Contents, run_onnx, to_graph, write_bundle
from fraud_training.fidelity import (
    DRAWS,
    Figures,
    ProfileCheck,
    cross_fitted_scores,
    scored_draws,
)
from fraud_training.models import (
    BASELINES,
    RIVAL_MARGIN,
    RIVALS,
    Candidate,
    Fitted,
    Fitter,
    fit,
    xgboost_candidates,
)
from fraud_training.profile import Profile, compact, fit_profile, group_rows, reference
from fraud_training.split import Split, Window, temporal_split

SELECTION_SEEDS = 3

SELECTION_TOLERANCE = 0.005
"""Average precision moves by about so much from seed to seed: closer candidates are equals in it,
and the log loss, which every row has a say in, decides between them."""


@dataclass(frozen=True)
class Options:
    data: Path | None
    """None: the sample if it is there, else synthetic rows."""
    output: Path | None
    seed: int
    experiment: str
    trials: int
    version: str
    resamples: int
    register: bool = False


@dataclass(frozen=True)
class Trial:
    """A candidate on the validation windows: its scores there by the run's own seed."""

    candidate: Candidate
    validation: Scored
    average_precision: float
    """The mean over the seeds tried, as is the next."""
    log_loss: float


@dataclass(frozen=True)
class Outcome:
    """What became of one model."""

    bundle: Path
    thresholds: Thresholds
    test: dict[str, Estimate]
    check: ProfileCheck
    run_id: str
    version: str | None
    """Number of the registered version, where one was asked for."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def load(options: Options) -> Dataset:
    """The data to train on; synthetic rows, with a notice, where there is none."""
    path = options.data
    if path is None and paths.SAMPLE.is_file():
        path = paths.SAMPLE
    if path is not None:
        return load_csv(path)
    say(
        "NOTICE: no card data found, training on synthetic rows drawn from the profile of\n"
        f"models/fraud. The figures say nothing about real fraud. For the original, get\n"
        f"creditcard.csv from {KAGGLE} and run: fraud-training train --data creditcard.csv"
    )
    return draw_synthetic(paths.PROFILE, options.seed)


def destination(options: Options, data: Dataset) -> Path:
    """Where bundles go. Models of synthetic rows never replace the committed ones."""
    if not data.synthetic:
        return options.output or paths.MODELS
    chosen = options.output or paths.SYNTHETIC_MODELS
    if chosen.resolve() == paths.MODELS.resolve():
        raise UserError(
            f"refusing to overwrite the committed bundles in {paths.MODELS.name}/ with models of "
            f"synthetic rows: pass --data creditcard.csv, or another --output"
        )
    return chosen


def validate(
    candidate: Candidate,
    data: Dataset,
    split: Split,
    seed: int,
    fitter: Fitter = fit,
    seeds: int = SELECTION_SEEDS,
) -> Trial:
    """Scores every validation window by a model of what came before, and pools the windows.

    Models that depend on their seed are fitted with several, and judged by the mean: one seed
    moves the average precision by more than neighbouring settings differ.
    """
    tried = [seed + n for n in range(1 if candidate.deterministic else seeds)]
    pooled = [_score_validation(candidate, data, split, s, fitter) for s in tried]
    found = [metrics(scored) for scored in pooled]
    return Trial(
        candidate,
        pooled[0],
        average_precision=float(np.mean([values["average_precision"] for values in found])),
        log_loss=float(np.mean([values["log_loss"] for values in found])),
    )


def _score_validation(
    candidate: Candidate, data: Dataset, split: Split, seed: int, fitter: Fitter
) -> Scored:
    parts = []
    for window in split.validation:
        fitted = fitter(candidate, data.where(window.training(data.time)), seed)
        parts.append(score_window(fitted, data, window))
    return Scored(
        np.concatenate([p.score for p in parts]),
        np.concatenate([p.label for p in parts]),
        np.concatenate([p.weight for p in parts]),
    )


def score_window(fitted: Fitted, data: Dataset, window: Window) -> Scored:
    rows = data.where(window.scored(data.time))
    return Scored(fitted.predict(rows.features), rows.label, rows.weight)


def try_all(
    candidates: Sequence[Candidate],
    data: Dataset,
    split: Split,
    seed: int,
    fitter: Fitter = fit,
    seeds: int = SELECTION_SEEDS,
) -> list[Trial]:
    """All candidates on the validation windows, in the order given."""
    trials = []
    for candidate in candidates:
        trial = validate(candidate, data, split, seed, fitter, seeds)
        say(f"  {trial.average_precision:.4f}  {trial.log_loss:.5f}  {candidate.describe()}")
        trials.append(trial)
    return trials


def best(trials: Sequence[Trial]) -> Trial:
    """The lowest log loss among those whose average precision is as good as the highest."""
    highest = max(trial.average_precision for trial in trials)
    equals = [t for t in trials if t.average_precision >= highest - SELECTION_TOLERANCE]
    return min(equals, key=lambda trial: trial.log_loss)


def train(options: Options) -> list[Outcome]:
    """The whole run; returns the champion's and the baseline's outcome."""
    data = load(options)
    output = destination(options, data)
    split = temporal_split(data)
    say(f"{len(data)} rows ({int(data.label.sum())} frauds) of {data.source}")

    say("validation: average precision, log loss, candidate")
    seed = options.seed
    boosted = try_all(xgboost_candidates(options.trials, seed), data, split, seed)
    linear = try_all(BASELINES, data, split, seed)
    rivals = try_all(RIVALS, data, split, seed)
    chosen, rival = best(boosted), max(rivals, key=lambda trial: trial.average_precision)
    lead = rival.average_precision - chosen.average_precision
    if lead > RIVAL_MARGIN:
        say(f"WARNING: {rival.candidate.describe()} leads the champion by {lead:.4f}")

    champion = judge("fraud", chosen, data, split, options)
    other = judge("fraud-lr", best(linear), data, split, options)
    profile = build_profile(champion, data)

    tracking.connect(options.experiment)
    compared = [
        Compared(t.candidate.describe(), t.average_precision, t.log_loss)
        for t in boosted + linear + rivals
    ]
    run = Run(options, data, split, compared, profile, output)
    return [pack(champion, other, run), pack(other, champion, run)]


@dataclass(frozen=True)
class Verdict:
    """One model after judging: what it is, how it did, and scores of rows it had not seen."""

    judged: Judged
    test: Scored
    validation: Scored
    unseen: NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What both models of a run share."""

    options: Options
    data: Dataset
    split: Split
    compared: list[Compared]
    profile: Profile
    output: Path


def judge(name: str, trial: Trial, data: Dataset, split: Split, options: Options) -> Verdict:
    """Thresholds from validation, figures from the test window."""
    thresholds = choose_thresholds(trial.validation)
    fitted = fit(trial.candidate, data.where(split.test.training(data.time)), options.seed)
    test = score_window(fitted, data, split.test)

    def statistic(scored: Scored) -> dict[str, float]:
        return metrics(scored, thresholds)

    return Verdict(
        judged=Judged(
            name=name,
            candidate=trial.candidate,
            thresholds=thresholds,
            test=bootstrap(test, statistic, options.seed, options.resamples),
            validation=bootstrap(trial.validation, statistic, options.seed, options.resamples),
        ),
        test=test,
        validation=trial.validation,
        unseen=cross_fitted_scores(trial.candidate, data, options.seed),
    )


def build_profile(champion: Verdict, data: Dataset) -> Profile:
    """The copulas, one per label and decision band of the champion."""
    thresholds = champion.judged.thresholds
    bands = (thresholds.review / 10, thresholds.review, thresholds.decline)
    return fit_profile(
        data.features, data.label, data.weight, group_rows(data.label, champion.unseen, bands)
    )


def pack(verdict: Verdict, other: Verdict, run: Run) -> Outcome:
    """Fits the model to ship, writes its bundle and its MLflow run."""
    judged, data, options = verdict.judged, run.data, run.options
    shipped = fit(judged.candidate, data, options.seed)
    graph = to_graph(shipped, judged.name).SerializeToString(deterministic=True)
    drawn = scored_draws(run.profile, lambda rows: run_onnx(graph, rows), options.seed)
    check = ProfileCheck(
        real=Figures.of(Scored(verdict.unseen, data.label, data.weight), judged.thresholds),
        drawn=Figures.of(drawn, judged.thresholds),
        draws=DRAWS,
        seed=options.seed,
    )
    for complaint in check.complaints():
        say(f"WARNING: profile, as {judged.name} sees it: {complaint}")
    content = reference(data.features, data.label, data.weight, verdict.unseen, run.profile)
    content["profile_check"] = check.to_json()
    facts = Facts(
        version=options.version,
        model=judged,
        other=other.judged,
        data=data,
        split=run.split,
        compared=run.compared,
        test_rows=verdict.test,
        validation_rows=verdict.validation,
        calibration=calibration_bins(verdict.test),
        check=check,
        seed=options.seed,
        trials=options.trials,
        selection_seeds=SELECTION_SEEDS,
        selection_tolerance=SELECTION_TOLERANCE,
        resamples=options.resamples,
    )
    tags = {"data.sha256": data.fingerprint, "package.version": __version__}
    if revision := tracking.git_revision():
        tags["mlflow.source.git.commit"] = revision
    with tracking.run(judged.name, tags) as run_id, tempfile.TemporaryDirectory() as scratch:
        bundle = write_bundle(
            run.output / judged.name,
            Contents(
                fitted=shipped,
                name=judged.name,
                version=options.version,
                thresholds=judged.thresholds,
                profile=run.profile,
                reference=content,
                training=training_table(judged, data, run_id, options.seed),
                card=model_card(facts),
                seed=options.seed,
            ),
        )
        tracking.record(
            parameters={
                "family": judged.candidate.family,
                **judged.candidate.parameters,
                "seed": options.seed,
                "trials": options.trials,
                "data": data.source,
                "synthetic": data.synthetic,
                "rows": len(data),
                "weighted_rows": round(float(data.weight.sum())),
            },
            metrics={
                **{f"test_{key}": e.value for key, e in judged.test.items()},
                **{f"test_{key}_low": e.low for key, e in judged.test.items()},
                **{f"test_{key}_high": e.high for key, e in judged.test.items()},
                **{f"validation_{key}": e.value for key, e in judged.validation.items()},
                "threshold_review": judged.thresholds.review,
                "threshold_decline": judged.thresholds.decline,
                "profile_genuine_at_review": check.drawn.genuine_at_review,
                "profile_recall_at_review": check.drawn.recall_at_review,
            },
            plots=plot_all(verdict.test, judged.thresholds, judged.name, Path(scratch)),
            bundle=bundle,
        )
    version = None
    if options.register:
        decision = {"decision": "by hand", "settled": "true", "data.sha256": data.fingerprint}
        version = registry.register(MlflowClient(), judged.name, run_id, decision).version
    return Outcome(bundle, judged.thresholds, judged.test, check, run_id, version)


def training_table(
    judged: Judged, data: Dataset, run_id: str, seed: int
) -> dict[str, str | float | int]:
    """The manifest's `[training]`: where the model comes from and what it reached out of time."""
    return {
        "run_id": run_id,
        "data": data.source,
        "data_sha256": data.fingerprint,
        "rows": len(data),
        "frauds": int(data.label.sum()),
        "family": judged.candidate.family,
        "seed": seed,
        **{f"test_{key}": compact(estimate.value) for key, estimate in judged.test.items()},
    }
