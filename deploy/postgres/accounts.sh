#!/usr/bin/env bash
# MLflow's database and the account it signs in with, which owns that database and nothing else. The image runs this
# once, as the superuser, when the folder of the data is made.
set -euo pipefail

: "${MLFLOW_DATABASE_PASSWORD:?is empty: make an .env with scripts/environment.sh}"
# psql reads the password from the environment: no secret on a command line.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv password MLFLOW_DATABASE_PASSWORD
CREATE ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'password';
CREATE DATABASE mlflow OWNER mlflow;
REVOKE ALL ON DATABASE mlflow FROM PUBLIC;
SQL
