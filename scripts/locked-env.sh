#!/bin/sh
# Makes .runtime/NAME, a Python environment that holds what a lock names and nothing else; does nothing when neither
# the lock nor the interpreter changed. What goes together with the training package is in .runtime/venv instead
# (python-env.sh). PYTHON names the interpreter.
#
#   scripts/locked-env.sh NAME LOCK
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -eq 2 ] || {
    echo "usage: scripts/locked-env.sh NAME LOCK" >&2
    exit 2
}
venv="$root/.runtime/$1"
lock="$2"
stamp="$venv/.locked-env-stamp"
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 ||
    fail "$python not found: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3"
[ -r "$lock" ] || fail "$lock cannot be read"

# The path is part of the hash: a moved or copied checkout gets an environment of its own.
wanted=$("$python" - "$venv" "$lock" <<'EOF'
import hashlib, sys
digest = hashlib.sha256(f"{sys.version_info[:2]} {sys.argv[1]}".encode())
with open(sys.argv[2], "rb") as file:
    digest.update(file.read())
print(digest.hexdigest())
EOF
)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

echo "creating $venv (about a minute)" >&2
mkdir -p "$root/.runtime"
"$python" -m venv --clear "$venv" ||
    fail "could not create $venv: install Python's venv package (Debian, Ubuntu: apt install python3-venv)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$lock" ||
    fail "what $lock names could not be installed: check the network and pip's index settings (PIP_INDEX_URL), then run this again"
echo "$wanted" >"$stamp"
