#!/usr/bin/env bash
# Runs every stage of `make test`, or those that STAGES names, one after the other, and says how long each took. A stage
# that fails does not keep the later ones from running; the exit code tells of any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

known=(lint test-rust test-python test-spark test-drift test-deploy test-http)
# test-http is part of test-deploy.
read -ra stages <<<"${STAGES:-${known[*]:0:6}}"
for stage in "${stages[@]}"; do
    # Other targets, such as clean, are no stages.
    [[ " ${known[*]} " == *" $stage "* ]] || {
        echo "no such stage: $stage; there are ${known[*]}" >&2
        exit 2
    }
done

failed=()
for stage in "${stages[@]}"; do
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
