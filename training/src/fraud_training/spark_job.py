r"""A whole retraining as one Spark job, from an archive that is too large for one machine's memory.

    archive (day=…/part-….parquet) ─► window, one row per transaction ─► thinned rows with weights
                                   ─► `fraud-training retrain --engine spark` on these

Frauds are few and all kept. Of the genuine rows at most `--genuine` are kept, each with the number
of rows it stands for as its weight, which every later step honours: fit, calibration, metrics and
profile. Which rows stay depends on their ids and the seed alone, not on how Spark cut the work, so
that the same archive gives the same rows, and with them the same data fingerprint.

    spark-submit … training/src/fraud_training/spark_job.py --source s3a://bucket/rows \
        --rows s3a://bucket/work/rows --work /tmp/retrain [--window 14d] [further retrain arguments]

Without `spark-submit`, `python -m fraud_training.spark_job` computes at SPARK_MASTER.
"""

import argparse
import re
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fraud_training import FEATURES
from fraud_training.errors import UserError
from fraud_training.spark import session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

GENUINE = 2_000_000
"""Rows of 29 numbers each that the driver holds comfortably; at 1 fraud in 600 they are the rows
that say least."""

COLUMNS = ("transaction_id", "event_time", *FEATURES, "label", "known_at")
PARTS = 1_000_000
"""Of so many, by hash, a row's place is drawn: the finest share that can be kept."""

UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(text: str) -> int:
    """A window such as 14d or 36h."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if not found or int(found[1]) == 0:
        raise UserError(f"--window {text}: expected a number with s, m, h or d, such as 14d")
    return int(found[1]) * UNITS[found[2]]


def moment(text: str) -> int | None:
    """An as-of time in epoch milliseconds; None for `latest`."""
    if text == "latest":
        return None
    if text == "now":
        return int(datetime.now(UTC).timestamp() * 1_000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"--as-of {text}: expected latest, now, or RFC 3339") from error
    if found.tzinfo is None:
        raise UserError(f"--as-of {text}: the time zone is missing, such as Z")
    return round(found.timestamp() * 1_000)


def hadoop(address: str) -> str:
    """The name by which Spark knows a place that the rest of the package calls s3://."""
    return re.sub(r"^s3://", "s3a://", address)


def thin(archive: "DataFrame", as_of: int, window: int, genuine: int, seed: int) -> "DataFrame":
    """Rows of the window, one per transaction, with their weights."""
    from pyspark.sql import Window
    from pyspark.sql import functions as f

    for column in (*COLUMNS, "day"):
        if column not in archive.columns:
            raise UserError(f"column {column!r} is missing from the archive")
    # Whole days are left out by their folders, before anything of them is read.
    first = datetime.fromtimestamp((as_of - window) / 1_000, UTC).date()
    last = datetime.fromtimestamp(as_of / 1_000, UTC).date()
    given = f.col("weight") if "weight" in archive.columns else f.lit(1.0)
    rows = (
        archive.where(f.col("day").cast("date").between(f.lit(first), f.lit(last)))
        .where((f.col("event_time") > as_of - window) & (f.col("event_time") <= as_of))
        .select(*COLUMNS, f.col("day").cast("string").alias("day"), given.alias("weight"))
        .withColumn("known", (f.col("known_at") <= as_of) & f.col("label").isNotNull())
    )
    # The latest label known by now holds: a chargeback may have been taken back.
    newest = Window.partitionBy("transaction_id").orderBy(
        f.desc("known"), f.desc("known_at"), f.desc("event_time")
    )
    rows = rows.withColumn("place", f.row_number().over(newest)).where("place = 1")
    fraud = f.col("known") & (f.col("label") == 1)
    count = rows.where(~fraud).count()
    share = min(1.0, max(round(PARTS * genuine / max(count, 1)), 1) / PARTS)
    drawn = f.pmod(f.xxhash64("transaction_id", f.lit(seed)), f.lit(PARTS)) < round(share * PARTS)
    return (
        rows.where(fraud | drawn)
        .withColumn("weight", f.when(fraud, f.col("weight")).otherwise(f.col("weight") / share))
        .select(*COLUMNS, "weight", "day")
    )


def newest_event(archive: "DataFrame") -> int:
    """The archive's newest event time; only its newest day is read."""
    from pyspark.sql import functions as f

    day = archive.agg(f.max("day")).first()
    found = archive.where(f.col("day") == f.lit(day[0])).agg(f.max("event_time")).first()
    if found is None or found[0] is None:
        raise UserError("the archive holds no rows")
    return int(found[0])


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="spark_job", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    root.add_argument("--source", required=True, help="archive: a folder, s3:// or s3a://")
    root.add_argument(
        "--rows", help="where the thinned rows go; seen by all workers (default: WORK/rows)"
    )
    root.add_argument("--work", required=True, help="work folder of the driver")
    root.add_argument("--window", default="14d")
    root.add_argument("--as-of", default="latest", help="latest, now, or RFC 3339")
    root.add_argument("--genuine", type=int, default=GENUINE, help="genuine rows to keep at most")
    root.add_argument("--seed", type=int, default=7)
    return root


def main(arguments: list[str] | None = None) -> int:
    """Exit codes are those of `fraud-training retrain`."""
    options, further = parser().parse_known_args(arguments)
    try:
        rows, as_of = prepare(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    from fraud_training.cli import main as fraud_training

    text = datetime.fromtimestamp(as_of / 1_000, UTC).isoformat(timespec="milliseconds")
    return fraud_training([
        "retrain", "--engine", "spark", "--source", re.sub(r"^s3a://", "s3://", rows),
        "--work", options.work, "--window", options.window, "--seed", str(options.seed),
        "--as-of", text.replace("+00:00", "Z"), *further,
    ])  # fmt: skip


def prepare(options: argparse.Namespace) -> tuple[str, int]:
    """Writes the thinned rows; gives their place and the as-of time."""
    if options.genuine < 1:
        raise UserError(f"--genuine {options.genuine}: at least one row must stay")
    window, as_of = milliseconds(options.window), moment(options.as_of)
    spark = session()
    from pyspark.errors import AnalysisException

    try:
        archive = spark.read.option("recursiveFileLookup", "false").parquet(hadoop(options.source))
    except AnalysisException as error:
        raise UserError(f"--source {options.source} cannot be read: {error}") from error
    if as_of is None:
        as_of = newest_event(archive)
    rows = options.rows or f"{options.work}/rows"
    thinned = thin(archive, as_of, window, options.genuine, options.seed)
    # One file per day and task: files stay few, and a repeated run replaces its own.
    thinned.repartition("day").write.mode("overwrite").partitionBy("day").parquet(hadoop(rows))
    return rows, as_of


if __name__ == "__main__":
    sys.exit(main())
