#!/usr/bin/env bash
# Runs every stage of `make test`, or those that STAGES names, one after the other, and says what each cost: how long it
# took and, on Linux, how much of the machine's processors was busy. A stage that fails does not keep the later ones from
# running; the exit code tells of any.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

known=(lint test-rust test-fuzz deny test-python test-spark test-drift test-deploy test-http)
# test-http is part of test-deploy.
read -ra stages <<<"${STAGES:-${known[*]:0:8}}"
for stage in "${stages[@]}"; do
    # Other targets, such as clean, are no stages.
    [[ " ${known[*]} " == *" $stage "* ]] || {
        echo "no such stage: $stage; there are ${known[*]}" >&2
        exit 2
    }
done

# Jiffies of all processors since the start: those that were busy, and all.
processors() {
    awk '/^cpu /{ busy = $2 + $3 + $4 + $7 + $8; print busy, busy + $5 + $6 + $9 }' /proc/stat 2>/dev/null || echo 0 0
}

# What the stage that began at $1 seconds, $2 busy and $3 jiffies in all has cost.
cost() {
    local busy all
    read -r busy all <<<"$(processors)"
    echo "$((SECONDS - $1)) s$( ((all > $3)) && echo ", processors $(((busy - $2) * 100 / (all - $3))) % busy")"
}

make=("${MAKE:-make}" --no-print-directory)

failed=()
for stage in "${stages[@]}"; do
    read -r busy all <<<"$(processors)"
    begun=$SECONDS
    echo "==> $stage"
    preparing=
    if [[ $stage == test-rust && $stage != "${stages[-1]}" ]]; then
        # Downloads and a build for the stages that follow, in what this one leaves of the processors. What fails there is
        # made, and told, by the stage that needs it.
        mkdir -p .runtime
        nice -n 19 "${make[@]}" prepare &>.runtime/prepare.log &
        preparing=$!
    fi
    if "${make[@]}" "$stage"; then
        echo "==> $stage passed in $(cost "$begun" "$busy" "$all")"
    else
        echo "==> $stage FAILED after $(cost "$begun" "$busy" "$all")"
        failed+=("$stage")
    fi
    [[ -z $preparing ]] || wait "$preparing" || true
done
if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
