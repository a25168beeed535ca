"""`--engine spark`: fits XGBoost on a Spark cluster, or on the cores of this machine.

    Dataset ─► Spark rows ─► SparkXGBClassifier (one worker per task) ─► booster ─► XGBClassifier

The parameters are those of `models.fit`, and what comes back is the same kind of estimator, so
choice of settings, thresholds, evaluation and export are shared. With one worker and the same rows
the trees are XGBoost's own; with several, histograms are added up in an order that is not fixed,
and scores may differ in the last digits from one fit to the next.

Where it computes is `SPARK_MASTER` (`local[2]`, `yarn`, `spark://host:port`; all local cores where
it is not set), or what `spark-submit` said. `FRAUD_SPARK_WORKERS` names the number of workers; on
its own it is Spark's default parallelism. The session is made at the first fit and kept.
"""

import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xgboost

from fraud_training import FEATURES
from fraud_training.dataset import Dataset
from fraud_training.errors import UserError
from fraud_training.models import Candidate, Fitted, monotone_directions

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MAX_WORKERS = 256
"""A bound against slips of the keyboard; each worker holds a slot of the cluster for the fit."""

MISSING = (
    "--engine spark needs pyspark, which is not in this environment: run scripts/spark-env.sh "
    "and use .runtime/spark/bin/fraud-training"
)


@cache
def session() -> "SparkSession":
    """The Spark session of this process."""
    try:
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise UserError(MISSING) from error

    builder = SparkSession.builder.appName("fraud-training")
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    master = os.environ.get("SPARK_MASTER") or "local[*]"
    if not submitted:
        builder = builder.master(master)
    if not submitted and master.startswith("local"):
        # Tasks run in this very environment, and nothing of it can be reached from outside.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = (
            builder.config("spark.driver.host", "127.0.0.1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.ui.enabled", "false")
        )
    builder = (
        builder.config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures", "3")
    )
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):
        # Keys stay in the environment, where Hadoop's own chain of providers finds them.
        builder = (
            builder.config("spark.hadoop.fs.s3a.endpoint", endpoint)
            .config("spark.hadoop.fs.s3a.path.style.access", "true")
            .config(
                "spark.hadoop.fs.s3a.connection.ssl.enabled",
                str(endpoint.startswith("https:")).lower(),
            )
        )
    if region := os.environ.get("AWS_REGION"):
        builder = builder.config("spark.hadoop.fs.s3a.endpoint.region", region)
    made: SparkSession = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    return made


def workers(spark: "SparkSession") -> int:
    """How many tasks fit together."""
    text = os.environ.get("FRAUD_SPARK_WORKERS")
    if not text:
        return min(int(spark.sparkContext.defaultParallelism), MAX_WORKERS)
    if not text.isdecimal() or not 1 <= int(text) <= MAX_WORKERS:
        raise UserError(f"FRAUD_SPARK_WORKERS is {text!r}: expected 1 to {MAX_WORKERS}")
    return int(text)


def fit(candidate: Candidate, data: Dataset, seed: int) -> Fitted:
    """Fits `candidate` on all rows of `data`: the counterpart of `models.fit`."""
    if candidate.family != "xgboost":
        raise ValueError(f"Spark fits the family xgboost, not {candidate.family!r}")
    spark = session()
    from xgboost.spark import SparkXGBClassifier

    parameters = {key: plain(value) for key, value in candidate.parameters.items()}
    directions = monotone_directions(data, parameters.pop("monotone_above"))
    frame = pd.DataFrame(data.features, columns=list(FEATURES))
    frame["label"] = data.label.astype(np.int32)
    frame["weight"] = data.weight
    count = workers(spark)
    rows = spark.createDataFrame(frame).repartition(count)
    estimator = SparkXGBClassifier(
        features_col=list(FEATURES),
        label_col="label",
        weight_col="weight",
        num_workers=count,
        base_score=data.fraud_share,
        tree_method="hist",
        random_state=seed,
        monotone_constraints="(" + ",".join(map(str, directions)) + ")",
        verbosity=0,
        **parameters,
    )
    return Fitted(candidate, classifier(estimator.fit(rows).get_booster()))


def classifier(booster: xgboost.Booster) -> xgboost.XGBClassifier:
    """A booster as the estimator that the export takes."""
    # Columns are told apart by position here; with names it would ask for them in every call.
    booster.feature_names = None
    booster.feature_types = None
    estimator = xgboost.XGBClassifier(n_jobs=1)
    estimator.load_model(bytearray(booster.save_raw("ubj")))
    return estimator


def plain(value: Any) -> Any:
    """A number of NumPy as Python's own: Spark hands parameters on as JSON."""
    return value.item() if isinstance(value, np.generic) else value
