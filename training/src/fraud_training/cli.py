"""`fraud-training`: the doorway. Parses arguments, runs one command, maps errors to exit codes."""

import argparse
import dataclasses
import importlib.util
import os
import sys
import time
from pathlib import Path

from fraud_training import __version__, paths
from fraud_training.errors import UsageError, UserError

DRIFT = 3
"""Exit code of `drift --fail-on-drift` where the window drifted."""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="fraud-training", description=__doc__)
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(dest="command", required=True)

    train = commands.add_parser("train", help="train, judge and pack both models")
    train.add_argument(
        "--data",
        default="auto",
        help="Kaggle creditcard.csv, plain or gzip (default: auto, the sample if present, "
        "else synthetic rows)",
    )
    train.add_argument(
        "--output", type=Path, help="directory of the bundles (default: models/ of the repository)"
    )
    train.add_argument("--seed", type=int, default=7)
    train.add_argument("--experiment", default="fraud-scorer", help="MLflow experiment")
    train.add_argument(
        "--trials", type=int, default=8, help="XGBoost settings to compare (default: %(default)s)"
    )
    train.add_argument(
        "--model-version", default="1", help="version in the manifests (default: %(default)s)"
    )
    train.add_argument(
        "--resamples", type=int, default=500, help="bootstrap resamples (default: %(default)s)"
    )

    train.add_argument(
        "--register", action="store_true", help="register the bundles as versions of their models"
    )
    add_retrain(commands.add_parser("retrain", help="train on the newest rows and decide"))
    add_drift(
        commands.add_parser("drift", help="report how far scored rows are from the training data")
    )

    register = commands.add_parser("register", help="register a bundle that is there already")
    register.add_argument("--bundle", type=Path, required=True)
    register.add_argument("--alias", help="alias to move to it, such as champion or challenger")
    register.add_argument("--experiment", default="fraud-retrain", help="MLflow experiment")

    score = commands.add_parser("score", help="score a file with a bundle")
    score.add_argument("--model", type=Path, default=paths.MODELS / "fraud")
    source = score.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", type=Path, help="JSON lines, one object per transaction")
    source.add_argument("--csv", type=Path, help="Kaggle creditcard.csv, plain or gzip")
    score.add_argument("--output", type=Path, required=True, help="JSON lines to write")

    check = commands.add_parser(
        "profile-check", help="compare scores of drawn rows with those of real ones"
    )
    check.add_argument("--model", type=Path, default=paths.MODELS / "fraud")
    return root


def add_retrain(retrain: argparse.ArgumentParser) -> None:
    """The flags of `retrain`. Their text is checked in `retrain_command`, where errors name it."""
    retrain.add_argument(
        "--source", required=True, help="FOLDER, s3://bucket/prefix or kafka://host:port"
    )
    retrain.add_argument("--work", type=Path, required=True, help="directory of the run's files")
    retrain.add_argument(
        "--stage",
        choices=("all", "ingest", "validate", "train", "compare", "promote"),
        default="all",
    )
    retrain.add_argument("--transactions-topic", default="transactions")
    retrain.add_argument("--labels-topic", default="labels")
    retrain.add_argument(
        "--property-file", type=Path, help="Kafka properties, key=value lines (credentials)"
    )
    retrain.add_argument("--model-name", default="fraud", help="registered model")
    retrain.add_argument("--window", default="14d", help="event time to look back (%(default)s)")
    retrain.add_argument(
        "--as-of",
        default="latest",
        help="labels known by then are used: latest (newest event time), now, or RFC 3339",
    )
    retrain.add_argument("--engine", choices=("xgboost", "spark"), default="xgboost")
    retrain.add_argument("--seed", type=int, default=7)
    retrain.add_argument("--trials", type=int, default=4, help="settings to compare (%(default)s)")
    retrain.add_argument("--resamples", type=int, default=500, help="bootstrap (%(default)s)")
    retrain.add_argument("--experiment", default="fraud-retrain", help="MLflow experiment")
    retrain.add_argument(
        "--review-budget",
        type=float,
        default=0.005,
        help="share of genuine transactions that may be reviewed (%(default)s)",
    )
    retrain.add_argument(
        "--rule", type=Path, help="TOML with numbers of the promotion rule to replace"
    )
    retrain.add_argument(
        "--lock-wait", default="10m", help="how long to wait for another run (%(default)s)"
    )


def add_drift(drift: argparse.ArgumentParser) -> None:
    """The flags of `drift`. Their text is checked in `drift_command`, where errors name it."""
    drift.add_argument(
        "--source",
        required=True,
        help="archive of verdicts or of rows (FOLDER, s3://bucket/prefix), or kafka://host:port",
    )
    drift.add_argument(
        "--model",
        default=str(paths.MODELS / "fraud"),
        help="bundle, mlflow:NAME@ALIAS or mlflow:NAME/NUMBER",
    )
    drift.add_argument("--output", type=Path, required=True, help="directory of the report")
    start = drift.add_mutually_exclusive_group()
    start.add_argument("--from", dest="start", help="begin of the window: RFC 3339")
    start.add_argument("--last", default="24h", help="event time before its end (%(default)s)")
    drift.add_argument(
        "--until",
        default="latest",
        help="end of the window: latest (newest event time), now, or RFC 3339",
    )
    drift.add_argument(
        "--reference",
        help="archive of training rows (FOLDER, s3://bucket/prefix) to compare with, "
        "in place of the bundle's histograms",
    )
    drift.add_argument(
        "--reference-window",
        default="14d",
        help="event time of --reference before the end of the training (%(default)s)",
    )
    drift.add_argument("--verdicts-topic", default="verdicts")
    drift.add_argument(
        "--property-file", type=Path, help="Kafka properties, key=value lines (credentials)"
    )
    drift.add_argument(
        "--max-rows", type=int, default=50_000, help="rows of the sample (%(default)s)"
    )
    drift.add_argument(
        "--least-rows", type=int, default=1_000, help="fewer make no report (%(default)s)"
    )
    drift.add_argument(
        "--drift-share",
        type=float,
        default=0.5,
        help="share of drifted columns above which the window counts as drifted (%(default)s)",
    )
    drift.add_argument(
        "--pushgateway",
        help="address of a Prometheus Pushgateway to push the result to (PUSHGATEWAY_URL)",
    )
    drift.add_argument(
        "--fail-on-drift", action="store_true", help="exit with 3 where the window drifted"
    )
    drift.add_argument("--seed", type=int, default=7)


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed with a message, 2 bad usage, 3 drift with --fail-on-drift."""
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def train_command(options: argparse.Namespace) -> int:
    from fraud_training.train import Options, train

    outcomes = train(
        Options(
            data=None if options.data == "auto" else Path(options.data),
            output=options.output,
            seed=options.seed,
            experiment=options.experiment,
            trials=options.trials,
            version=options.model_version,
            resamples=options.resamples,
            register=options.register,
        )
    )
    for outcome in outcomes:
        registered = f", registered as version {outcome.version}" if outcome.version else ""
        print(f"{outcome.bundle}  (MLflow run {outcome.run_id}{registered})")
        for name, estimate in outcome.test.items():
            print(f"  {name:22} {estimate}")
        print(
            f"  thresholds             review {outcome.thresholds.review:g}, "
            f"decline {outcome.thresholds.decline:g}"
        )
    return 0


def retrain_command(options: argparse.Namespace) -> int:
    from fraud_training.promotion import Rule
    from fraud_training.retrain.options import Options
    from fraud_training.retrain.run import retrain
    from fraud_training.times import parse_duration, parse_time
    from fraud_training.validation import Limits

    for flag, least in (("trials", 1), ("resamples", 20), ("seed", 0)):
        if getattr(options, flag) < least:
            raise UsageError(f"--{flag} must be at least {least}")
    if not 0.0 < options.review_budget < 1.0:
        raise UsageError("--review-budget must lie between 0 and 1")
    window = parse_duration(options.window, "--window")
    if window <= 0:
        raise UsageError("--window must be longer than nothing")
    decision = retrain(
        Options(
            source=options.source,
            work=options.work,
            model_name=options.model_name,
            window=window,
            as_of=parse_time(options.as_of, "--as-of", int(time.time() * 1_000), latest=True),
            engine=options.engine,
            seed=options.seed,
            trials=options.trials,
            resamples=options.resamples,
            experiment=options.experiment,
            review_budget=options.review_budget,
            lock_wait=parse_duration(options.lock_wait, "--lock-wait") / 1_000,
            rule=Rule.read(options.rule),
            limits=Limits(),
            transactions_topic=options.transactions_topic,
            labels_topic=options.labels_topic,
            property_file=options.property_file,
        ),
        options.stage,
    )
    if decision is None:
        print(f"stage: {options.stage} done")
        return 0
    version = f"version {decision['version']}: " if decision["version"] else ""
    print(f"decision: {decision['decision']} {version}{'; '.join(decision['reasons'])}")
    return 0


def drift_command(options: argparse.Namespace) -> int:
    from fraud_training.drift.window import Wanted
    from fraud_training.times import parse_duration, parse_time

    for flag, least in (("max_rows", 1_000), ("least_rows", 100), ("seed", 0)):
        if getattr(options, flag) < least:
            raise UsageError(f"--{flag.replace('_', '-')} must be at least {least}")
    if options.least_rows > options.max_rows:
        raise UsageError("--least-rows must not be more than --max-rows")
    if not 0.0 <= options.drift_share < 1.0:
        raise UsageError("--drift-share must be at least 0 and less than 1")
    now = int(time.time() * 1_000)
    end = parse_time(options.until, "--until", now, latest=True)
    start = None
    if options.start is not None:
        start = parse_time(options.start, "--from", now, latest=False)
    length = parse_duration(options.last, "--last")
    reference_window = parse_duration(options.reference_window, "--reference-window")
    for flag, value in (("--last", length), ("--reference-window", reference_window)):
        if value <= 0:
            raise UsageError(f"{flag} must be longer than nothing")
    # Here, as it imports what only one of the environments has.
    if importlib.util.find_spec("evidently") is None:
        raise UserError(
            "drift needs Evidently, which is not in this environment: run scripts/drift-env.sh "
            "and use .runtime/drift/bin/fraud-training"
        )
    from fraud_training.drift.gateway import check_address
    from fraud_training.drift.run import Options, report

    gateway = options.pushgateway or os.environ.get("PUSHGATEWAY_URL") or None
    summary = report(
        Options(
            source=options.source,
            model=options.model,
            output=options.output,
            wanted=Wanted(end, start, length),
            reference=options.reference,
            reference_window=reference_window,
            verdicts_topic=options.verdicts_topic,
            property_file=options.property_file,
            most_rows=options.max_rows,
            least_rows=options.least_rows,
            alarm_share=options.drift_share,
            pushgateway=None if gateway is None else check_address(gateway),
            seed=options.seed,
            now=now,
        )
    )
    for remark in summary.remarks:
        print(f"remark: {remark}")
    print(f"report: {options.output / 'report.html'}")
    print(summary.text())
    return DRIFT if summary.drifted and options.fail_on_drift else 0


def register_command(options: argparse.Namespace) -> int:
    from fraud_training import registry, tracking

    registry.check_complete(options.bundle)
    with registry.explained("connecting"):
        tracking.connect(options.experiment)
    version = registry.register_bundle(options.bundle, options.alias, {"decision": "by hand"})
    alias = f", {options.alias}" if options.alias else ""
    print(f"{version.name} version {version.version}{alias}  (MLflow run {version.run_id})")
    return 0


def score_command(options: argparse.Namespace) -> int:
    from fraud_training.scoring import score_file

    rows = score_file(options.model, options.output, jsonl=options.input, csv=options.csv)
    print(f"{rows} rows scored into {options.output}", file=sys.stderr)
    return 0


def profile_check_command(options: argparse.Namespace) -> int:
    from fraud_training.fidelity import check_bundle

    check = check_bundle(options.model)
    print(f"{'':20}{'real':>10}{'drawn':>10}")
    for field in dataclasses.fields(check.real):
        real, drawn = getattr(check.real, field.name), getattr(check.drawn, field.name)
        print(f"{field.name:20}{real:10.5f}{drawn:10.5f}")
    complaints = check.complaints()
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


COMMANDS = {
    "train": train_command,
    "retrain": retrain_command,
    "drift": drift_command,
    "register": register_command,
    "score": score_command,
    "profile-check": profile_check_command,
}

if __name__ == "__main__":
    sys.exit(main())
