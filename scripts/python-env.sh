#!/bin/sh
# Makes .runtime/venv: the locked Python dependencies and the training package (editable).
# Does nothing when neither the lock nor the package's metadata changed. PYTHON names the interpreter.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
venv="$root/.runtime/venv"
lock="$root/training/requirements.lock"
project="$root/training/pyproject.toml"
stamp="$venv/.fraud-training-stamp"
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "$python not found: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot create virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)"

# The paths are part of the hash: a moved or copied checkout gets an environment of its own.
wanted=$("$python" - "$lock" "$project" <<'EOF'
import hashlib, sys
digest = hashlib.sha256(f"{sys.version_info[:2]} {sys.argv[1:]}".encode())
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        digest.update(file.read())
print(digest.hexdigest())
EOF
)
if [ -x "$venv/bin/fraud-training" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

echo "creating $venv (a minute or two the first time)" >&2
mkdir -p "$root/.runtime"
"$python" -m venv --clear "$venv" || fail "could not create $venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" ||
    fail "the locked dependencies could not be installed: check the network and pip's index settings (PIP_INDEX_URL), then run this again"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable "$root/training" ||
    fail "the training package could not be installed"
echo "$wanted" >"$stamp"
