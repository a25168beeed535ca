"""`fraud-training`: the doorway. Parses arguments, runs one command, maps errors to exit codes."""

import argparse
import dataclasses
import sys
from pathlib import Path

from fraud_training import __version__, paths
from fraud_training.errors import UserError


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


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 1 failed with a message, 2 bad usage."""
    options = parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options)
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
        )
    )
    for outcome in outcomes:
        print(f"{outcome.bundle}  (MLflow run {outcome.run_id})")
        for name, estimate in outcome.test.items():
            print(f"  {name:22} {estimate}")
        print(
            f"  thresholds             review {outcome.thresholds.review:g}, "
            f"decline {outcome.thresholds.decline:g}"
        )
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
    "score": score_command,
    "profile-check": profile_check_command,
}

if __name__ == "__main__":
    sys.exit(main())
