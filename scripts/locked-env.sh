#!/bin/sh
# Makes .runtime/NAME, a Python environment that holds what a lock names and nothing else; does nothing when neither
# the lock nor the interpreter changed. PYTHON names the interpreter. Options go to `uv pip install`.
#
#   scripts/locked-env.sh NAME LOCK [OPTION…]
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 2 ] || {
    echo "usage: scripts/locked-env.sh NAME LOCK [OPTION…]" >&2
    exit 2
}
venv="$root/.runtime/$1"
lock="$2"
shift 2
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
wanted=$("$python" - "$venv" "$lock" <<'PYTHON'
import hashlib, sys
digest = hashlib.sha256(f"{sys.version_info[:2]} {sys.argv[1]}".encode())
with open(sys.argv[2], "rb") as file:
    digest.update(file.read())
print(digest.hexdigest())
PYTHON
)
if [ -x "$venv/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

echo "creating $venv" >&2
mkdir -p "$root/.runtime"
"$root/scripts/uv.sh" venv --clear --python "$(command -v "$python")" "$venv" || fail "could not create $venv"
"$root/scripts/uv.sh" pip install --python "$venv/bin/python" --require-hashes "$@" -r "$lock" ||
    fail "what $lock names could not be installed: check the network and pip's index settings (PIP_INDEX_URL), then run this again"
echo "$wanted" >"$stamp"
