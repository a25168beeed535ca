#!/bin/sh
# Makes .runtime/venv: the locked Python dependencies and the training package (editable).
# Does nothing when neither the lock nor the package's metadata changed. PYTHON names the interpreter.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.runtime/venv"
project="$root/training/pyproject.toml"
stamp="$venv/.fraud-training-stamp"

"$root/scripts/locked-env.sh" venv "$root/training/requirements.lock"
if [ -x "$venv/bin/fraud-training" ] && cmp -s "$project" "$stamp"; then
    exit 0
fi
"$root/scripts/uv.sh" pip install --python "$venv/bin/python" --no-deps --no-build-isolation --editable "$root/training" || {
    echo "error: the training package could not be installed" >&2
    exit 1
}
cp "$project" "$stamp"
