#!/bin/sh
# The MLflow server in .runtime/mlflow-server, from the lock of its image: with accounts, PostgreSQL and S3, which the training
# package does not need.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
exec "$root/scripts/locked-env.sh" mlflow-server "$root/deploy/mlflow/requirements.lock"
