#!/bin/sh
# Runs `uv ARGS…`, which installs Python packages; gets it into .runtime/tools when this version is not there. What it
# downloads is kept once on the machine (uv's cache) and linked into each environment.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
pins="$root/scripts/uv.txt"
folder="$root/.runtime/tools/uv"
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    exit 1
}

if ! cmp -s "$pins" "$folder/.source"; then
    "$python" -m pip --version >/dev/null 2>&1 ||
        fail "needs Python 3 with pip: apt-get install python3-pip (or name another interpreter with PYTHON=)"
    mkdir -p "$root/.runtime/tools"
    temporary=$(mktemp -d "$folder.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    "$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
        --require-hashes --target "$temporary" -r "$pins" ||
        fail "what $pins names could not be downloaded: check the network and pip's index settings (PIP_INDEX_URL), then run this again"
    cp "$pins" "$temporary/.source"
    rm -rf "$folder"
    mv "$temporary" "$folder"
    trap - EXIT
fi

# As pip has it: the machine's authorities, and its index.
export UV_NATIVE_TLS="${UV_NATIVE_TLS:-1}"
[ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
exec "$folder/bin/uv" --quiet --no-progress "$@"
