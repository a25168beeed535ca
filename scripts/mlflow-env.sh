#!/bin/sh
# The MLflow server in .runtime/mlflow, from the lock of its image: with accounts, PostgreSQL and S3, which the training
# package does not need.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
exec "$root/scripts/locked-env.sh" mlflow "$root/deploy/mlflow/requirements.lock"
