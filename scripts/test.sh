#!/usr/bin/env bash
# Runs every stage of `make test`, one after the other, and says how long each took. A stage that fails does not keep
# the later ones from running; the exit code tells of any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

failed=()
for stage in lint test-rust test-python test-spark test-drift test-deploy; do
    begun=$SECONDS
    echo "==> $stage"
    if "${MAKE:-make}" --no-print-directory "$stage"; then
        echo "==> $stage passed in $((SECONDS - begun)) s"
    else
        echo "==> $stage FAILED after $((SECONDS - begun)) s"
        failed+=("$stage")
    fi
done
if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
