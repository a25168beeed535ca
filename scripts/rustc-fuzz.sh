#!/usr/bin/env bash
# rustc with libFuzzer's coverage, for the workspace's own crates alone: cargo calls it as RUSTC_WORKSPACE_WRAPPER, so that
# dependencies are the ones that were built for the tests. These are the flags of `cargo fuzz --sanitizer none`, which a stable
# compiler has too; AddressSanitizer it has not.
set -euo pipefail
exec "$@" -C codegen-units=1 -C passes=sancov-module \
    -C llvm-args=-sanitizer-coverage-level=4 \
    -C llvm-args=-sanitizer-coverage-inline-8bit-counters \
    -C llvm-args=-sanitizer-coverage-pc-table \
    -C llvm-args=-sanitizer-coverage-trace-compares
