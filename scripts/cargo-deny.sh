#!/usr/bin/env bash
# Runs `cargo deny ARGS…`, having built it into .runtime/tools when the machine has none of this version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=0.20.2
tools=$PWD/.runtime/tools

installed() {
    [[ "$("$1" --version 2>/dev/null)" == "cargo-deny $version" ]]
}

program=cargo-deny
if ! installed $program; then
    program=$tools/bin/cargo-deny
fi
if ! installed "$program"; then
    echo "cargo-deny: building $version into .runtime/tools (about a minute, once)" >&2
    # Without optimisation: it builds in a third of the time and checks this tree in 2 s.
    env -u CARGO_TARGET_DIR \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_DEBUG=false \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install cargo-deny --locked --version $version --root "$tools" --force --quiet || {
        echo "cargo-deny: could not be built: see above. A C compiler is needed (apt-get install gcc), and crates.io;" \
            "or install cargo-deny $version yourself so that it is on PATH" >&2
        exit 1
    }
fi
exec "$program" "$@"
