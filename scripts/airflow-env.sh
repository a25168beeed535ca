#!/bin/sh
# Apache Airflow in .runtime/airflow, an environment of its own: its dependencies do not go together with those of the
# training package.
#
#   scripts/airflow-env.sh                  make it, where it is missing or its lock changed
#   scripts/airflow-env.sh dags test …      the same, then run `airflow dags test …` on this repository's DAGs
#
# Airflow's own database, logs and work folders go to .runtime/airflow-home, or to AIRFLOW_HOME.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/locked-env.sh" airflow "$root/deploy/airflow/requirements.lock"
[ $# -gt 0 ] || exit 0

airflow="$root/.runtime/airflow/bin/airflow"
# What the caller set already stays.
export AIRFLOW_HOME="${AIRFLOW_HOME:-$root/.runtime/airflow-home}"
export AIRFLOW__CORE__DAGS_FOLDER="${AIRFLOW__CORE__DAGS_FOLDER:-$root/deploy/airflow/dags}"
export AIRFLOW__CORE__LOAD_EXAMPLES="${AIRFLOW__CORE__LOAD_EXAMPLES:-false}"
export FRAUD_TRAINING_BIN="${FRAUD_TRAINING_BIN:-$root/.runtime/venv/bin/fraud-training}"
export FRAUD_PRODUCER_BIN="${FRAUD_PRODUCER_BIN:-$root/target/release/fraud-producer}"
mkdir -p "$AIRFLOW_HOME"
"$airflow" db migrate >"$AIRFLOW_HOME/migrate.log" 2>&1 || {
    echo "error: Airflow's database could not be made, see $AIRFLOW_HOME/migrate.log" >&2
    exit 1
}
exec "$airflow" "$@"
