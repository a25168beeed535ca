#!/usr/bin/env bash
# Runs fuzz targets: each over its seeds and over what was found before (fuzz/regressions/), then over inputs of its own for a
# time, as many at once as there are processors. usage: fuzz.sh [--seconds N] [TARGET…]
#
# What makes one fail stays in fuzz/artifacts/, and the command to run that again is printed. Inputs that reached new code stay in
# fuzz/corpus/, to begin with the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=600
if [[ ${1:-} == --seconds ]]; then
    seconds=${2:?--seconds needs a number}
    shift 2
fi
known=()
for file in fuzz/fuzz_targets/*.rs; do
    known+=("$(basename "$file" .rs)")
done
targets=("$@")
((${#targets[@]})) || targets=("${known[@]}")
for target in "${targets[@]}"; do
    [[ " ${known[*]} " == *" $target "* ]] || {
        echo "no such target: $target; there are ${known[*]}" >&2
        exit 2
    }
done

built=${CARGO_TARGET_DIR:-target}/debug
RUSTC_WORKSPACE_WRAPPER=$PWD/scripts/rustc-fuzz.sh "${CARGO:-cargo}" build --locked --quiet -p fraud-fuzz "${targets[@]/#/--bin=}"

run() {
    local target=$1 seconds=$2 built=$3
    local corpus=fuzz/corpus/$target log=fuzz/corpus/$target.log limits=(-timeout=10 -rss_limit_mb=512 -max_len=4096)
    local folders=("$corpus" "fuzz/seeds/$target")
    [[ ! -d fuzz/regressions/$target ]] || folders+=("fuzz/regressions/$target")
    mkdir -p "$corpus" fuzz/artifacts
    # The time does not count what is read at the start: the second limit holds whatever happens.
    if timeout $((seconds + 60)) "$built/$target" "${limits[@]}" -max_total_time="$seconds" -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$target-" "${folders[@]}" &>"$log"; then
        echo "$target: $(awk '$2 == "DONE" { coverage = $3 " " $4 " " $5 " " $6 }
            /number_of_executed_units/{ runs = $2 } /peak_rss_mb/{ peak = $2 }
            END { print runs " inputs, " coverage ", at most " peak " MiB" }' "$log")"
    else
        local found
        found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
        tail -n 40 "$log"
        echo "$target FAILED (all it said: $log)"
        [[ -z $found ]] || echo "again: $built/$target ${limits[*]} $found"
        return 1
    fi
}
export -f run
printf '%s\0' "${targets[@]}" | xargs -0 -P "$(nproc)" -I{} bash -c 'run "$@"' run {} "$seconds" "$built"
