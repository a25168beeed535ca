#!/bin/sh
# What tests/http needs (schemathesis, selenium), in .runtime/test-venv, from its lock.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
exec "$root/scripts/locked-env.sh" test-venv "$root/tests/http/requirements.lock"
