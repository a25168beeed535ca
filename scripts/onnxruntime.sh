#!/usr/bin/env bash
# Gets ONNX Runtime's C library, out of its Python wheel, to .runtime/onnxruntime/libonnxruntime.so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pins=scripts/onnxruntime.txt
folder=.runtime/onnxruntime
python=${PYTHON:-python3}

fail() {
    echo "onnxruntime: $*" >&2
    exit 1
}

case "$(uname -s) $(uname -m)" in
"Linux x86_64") platform=manylinux_2_28_x86_64 ;;
"Linux aarch64") platform=manylinux_2_28_aarch64 ;;
*) fail "no library for $(uname -s) $(uname -m) here: give your own with ORT_DYLIB_PATH=/path/to/libonnxruntime.so" ;;
esac

# What is there is right when it came from these pins on this machine.
wanted="$platform $(sha256sum <$pins)"
if [[ -f $folder/libonnxruntime.so && "$(cat $folder/.source 2>/dev/null)" == "$wanted" ]]; then
    exit 0
fi

"$python" -m pip --version >/dev/null 2>&1 ||
    fail "needs Python 3 with pip: apt-get install python3-pip (or name another interpreter with PYTHON=)"

mkdir -p .runtime
temporary=$(mktemp -d .runtime/onnxruntime.XXXXXX)
trap 'rm -rf "$temporary"' EXIT

echo "onnxruntime: downloading the $platform wheel of $(grep -o '^onnxruntime==[^ ]*' $pins)" >&2
# With platform and Python version given, any interpreter downloads the same wheel.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --implementation cp --python-version 3.11 --abi cp311 --platform "$platform" \
    --dest "$temporary" -r $pins ||
    fail "pip could not download the wheel: see its message above; a mirror or proxy is set in pip's own configuration"

"$python" - "$temporary" <<'PYTHON'
import pathlib, sys, zipfile

folder = pathlib.Path(sys.argv[1])
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (library,) = [name for name in archive.namelist() if "/libonnxruntime.so." in name]
    (folder / "libonnxruntime.so").write_bytes(archive.read(library))
    for name in ("LICENSE", "ThirdPartyNotices.txt"):
        (folder / name).write_bytes(archive.read(f"onnxruntime/{name}"))
wheel.unlink()
PYTHON

echo "$wanted" >"$temporary/.source"
chmod 755 "$temporary"
rm -rf "$folder"
mv "$temporary" "$folder"
trap - EXIT
echo "onnxruntime: $folder/libonnxruntime.so" >&2
