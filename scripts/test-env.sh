#!/bin/sh
# Makes .runtime/test-venv: what tests/http needs (schemathesis, selenium), locked with hashes.
# Does nothing when the lock did not change. PYTHON names the interpreter.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.runtime/test-venv"
lock="$root/tests/http/requirements.lock"
stamp="$venv/.stamp"
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "$python not found: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot create virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)"

# The path is part of the hash: a moved or copied checkout gets an environment of its own.
wanted=$({ "$python" --version && echo "$lock" && cat "$lock"; } | sha256sum)
if [ -x "$venv/bin/pytest" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

echo "creating $venv (half a minute the first time)" >&2
mkdir -p "$root/.runtime"
"$python" -m venv --clear "$venv" || fail "could not create $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" ||
    fail "the locked dependencies could not be installed: check the network and pip's index settings (PIP_INDEX_URL), then run this again"
echo "$wanted" >"$stamp"
