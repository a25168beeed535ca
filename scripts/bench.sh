#!/usr/bin/env bash
# Runs one measurement: scripts/bench.sh NAME [OPTION…]. Makes what it needs first: ONNX Runtime, the jars of the broker,
# models and records. Without a name it lists the measurements. `make bench ARGS='NAME OPTION…'` is the same, but make
# exits with 2 whenever this script fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo=${CARGO:-cargo}
python=.runtime/venv/bin/python

# Name, duration on two cores, what is measured. tests/deploy/test_makefile.py reads this table.
measurements() {
    cat <<'TABLE'
  throughput     6 min   records per CPU-second and on the wall, against pass-through and ONNX Runtime alone
  latency        6 min   from send to receipt at 100, 2,000 and 20,000 records/s, against an echo
  scaling        4 min   threads and processes, and what the capacity model says of them
  all           15 min   the three above, one after the other
  ab            10 min   two fraud-scorer programs in pairs: ab OLD NEW
  peers            1 h   other ways to do the same job, and then http; builds them first (10 min, 3 GB)
  http           5 min   scoring over HTTP, against FastAPI and MLflow
  soak          10 min   memory at full load; --duration 1h is longer
  swap           3 min   one model for another 1,000 times under load
  shadow         4 min   what a challenger costs
  statistics     3 min   what librdkafka's statistics cost
  profile        2 min   where the worker's time goes, as a flame graph (needs perf)
  metrics        1 min   what metrics and drift take of the hot path, without Kafka
  micro          1 min   the stages one by one, without Kafka
  kernel         2 min   the tree kernel against ONNX Runtime: trees x depth x library x batch
  kernel-peers   5 min   the same trees in XGBoost, LightGBM, lleaves and tl2cgen; builds them first
  smoke          4 min   a little of everything on a broker, to see that it runs; writes no results
TABLE
}

usage() {
    echo "make bench ARGS='NAME [OPTION…]'; the measurements, and about how long each takes once everything is built:"
    echo
    measurements
    echo
    echo "The options of those on a broker: make bench ARGS='NAME --help'. More: benches/README.md."
}

# Python is only needed where models and records were not made yet, or by another script than today's.
workload() {
    local script=benches/workload/make.py made_by
    made_by=$(cat .runtime/bench/made-by 2>/dev/null || true)
    if [[ $(sha256sum <$script | cut -c 1-64) != "$made_by" ]]; then
        scripts/python-env.sh
        $python $script .runtime/bench
    fi
}

if (($# == 0)); then
    usage
    exit 0
fi
name=$1
shift
case $name in
-h | --help | help)
    usage
    ;;
micro)
    scripts/onnxruntime.sh
    exec "$cargo" bench --locked --bench micro -- "$@"
    ;;
metrics)
    scripts/onnxruntime.sh
    workload
    mkdir -p benches/results
    exec "$cargo" bench --locked --package fraud-scorer --bench metrics -- --results benches/results/metrics.json "$@"
    ;;
kernel)
    scripts/onnxruntime.sh
    workload
    scripts/python-env.sh
    $python benches/workload/grid.py .runtime/bench-grid
    mkdir -p benches/results
    exec "$cargo" bench --locked --package fraud-scorer --bench kernel -- --results benches/results/kernel.json "$@"
    ;;
kernel-peers)
    workload
    benches/peers/build.sh kernels
    mkdir -p benches/results
    exec .runtime/peers/kernels/bin/python benches/peers/kernels/measure.py \
        --output benches/results/kernel-peers.json "$@"
    ;;
throughput | latency | scaling | all | ab | peers | http | soak | swap | shadow | statistics | profile | smoke)
    scripts/onnxruntime.sh
    scripts/kafka.sh get
    workload
    exec "$cargo" bench --locked --bench end_to_end -- "$name" "$@"
    ;;
*)
    echo "no such measurement: $name" >&2
    usage >&2
    exit 2
    ;;
esac
