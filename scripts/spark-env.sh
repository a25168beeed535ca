#!/bin/sh
# Spark in .runtime/spark, on top of the training package's environment (.runtime/venv, which this makes first): for
# `fraud-training retrain --engine spark` and the tests of it. Does nothing when no lock changed. Needs Java 17 or later
# when it runs.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.runtime/spark"
lock="$root/deploy/spark/requirements.lock"

fail() {
    echo "error: $1" >&2
    exit 1
}

"$root/scripts/python-env.sh"
# What PySpark's source package is built with comes first, so that the build itself fetches nothing.
"$root/scripts/locked-env.sh" spark "$root/deploy/spark/build.lock"
if ! cmp -s "$lock" "$venv/.spark.lock"; then
    echo "adding Spark to $venv (about a minute)" >&2
    "$root/scripts/uv.sh" pip install --python "$venv/bin/python" --no-build-isolation --require-hashes -r "$lock" ||
        fail "Spark could not be installed: check the network and pip's index settings (PIP_INDEX_URL), then run this again"
    cp "$lock" "$venv/.spark.lock"
fi

"$root/scripts/over-training-env.sh" spark
