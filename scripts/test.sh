#!/usr/bin/env bash
# Runs every stage of `make test`, or those that STAGES names, and says how long each took. A stage that fails does not keep
# the others from running; the exit code tells of any.
#
#   lint ─► test-rust ─┬─► test-python ─► test-spark ─► test-drift ─┬─► what test-deploy said
#                      └─► test-deploy, which mostly waits ─────────┘
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

run() {
    local begun=$SECONDS
    echo "==> $1"
    if "${MAKE:-make}" --no-print-directory "$1"; then
        echo "==> $1 passed in $((SECONDS - begun)) s"
    else
        echo "==> $1 FAILED after $((SECONDS - begun)) s"
        return 1
    fi
}

# For schedulers, alerts and browsers: beside the stages that compute. It needs what test-rust builds.
beside=test-deploy beside_pid=
output=$(mktemp)
trap '[[ -z $beside_pid ]] || kill "$beside_pid" 2>/dev/null; rm -f "$output"' EXIT
start_beside() {
    if [[ -z $beside_pid && " ${stages[*]} " == *" $beside "* ]]; then
        run $beside >"$output" 2>&1 </dev/null &
        beside_pid=$!
    fi
}

failed=()
for stage in "${stages[@]}"; do
    [[ $stage == "$beside" ]] && continue
    [[ $stage == lint || $stage == test-rust ]] || start_beside
    run "$stage" || failed+=("$stage")
done
start_beside
if [[ -n $beside_pid ]]; then
    wait "$beside_pid" || failed+=("$beside")
    beside_pid=
    cat "$output"
fi
if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
