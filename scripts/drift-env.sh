#!/bin/sh
# Evidently in .runtime/drift, on top of the training package's environment (.runtime/venv, which this makes first): for
# `fraud-training drift` and the tests of it. Does nothing when no lock changed.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)

"$root/scripts/python-env.sh"
# The lock names only what the training environment lacks, so that nothing is installed twice.
"$root/scripts/locked-env.sh" drift "$root/deploy/drift/requirements.lock" --no-deps
"$root/scripts/over-training-env.sh" drift
