"""Trains, evaluates and packs the models that fraud-scorer runs.

Data flows in one direction, one module per stage:

    dataset   CSV or profile ─► validated rows with a weight each
    split     rows ─► forward-chained validation windows and the out-of-time test window
    models    rows ─► fitted estimators (logistic regression, XGBoost and its rivals)
    evaluate  scores ─► weighted metrics, intervals, thresholds, plots
    profile   rows ─► aggregate statistics; statistics ─► synthetic rows
    export    estimator ─► ONNX ─► bundle directory (the contract with the Rust side)
    card      everything known about a model ─► MODEL_CARD.md
    tracking  what happened ─► MLflow
    registry  a bundle ─► a version in MLflow's model registry, and its aliases

`train` strings the stages together, `scoring` runs a finished bundle, `cli` is the doorway.
`retrain` does it again and again on the newest rows (`archive`, `kafka_source`, `rows`), keeps bad
days out (`validation`), and lets a candidate take over only by a written rule (`compare`,
`promotion`), one run at a time (`lock`).
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fraud-training")
except PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+source"

FEATURES: tuple[str, ...] = (*(f"V{i}" for i in range(1, 29)), "Amount")
"""The model's inputs, in the order of the ONNX tensor's columns. `Time` is no feature: it is a
position in one particular two-day recording and means nothing to a live stream."""
