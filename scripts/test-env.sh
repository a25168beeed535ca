#!/bin/sh
# What tests/http needs: schemathesis and selenium in .runtime/test-venv, from its lock, and axe-core in
# .runtime/axe/axe.min.js, out of the wheel that tests/http/axe.txt pins.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/locked-env.sh" test-venv "$root/tests/http/requirements.lock"

pins="$root/tests/http/axe.txt"
folder="$root/.runtime/axe"
wanted=$(cat "$pins")
if [ -f "$folder/axe.min.js" ] && [ "$(cat "$folder/.source" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
mkdir -p "$folder"
temporary=$(mktemp -d "$folder/get.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
python=${PYTHON:-python3}
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --dest "$temporary" -r "$pins" || {
    echo "error: what $pins names could not be downloaded: check the network and pip's index settings (PIP_INDEX_URL), then run this again" >&2
    exit 1
}
"$python" - "$temporary" <<'PYTHON'
import pathlib, sys, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (script,) = [name for name in archive.namelist() if name.endswith("/axe.min.js")]
    (folder / "axe.min.js").write_bytes(archive.read(script))
PYTHON
mv "$temporary/axe.min.js" "$folder/axe.min.js"
echo "$wanted" >"$folder/.source"
