//! Every method on a grid of shapes and batch sizes. `cargo bench -p fraud-trees -- 200x6` for one shape.
//!
//! Throughput is rows per second; compare lines of one run with each other, since machines and their moods differ.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::Duration;

use common::{Comparisons, Likeness, Missing, Weights, rows};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fraud_trees::ensemble::{Aggregate, Comparison};
use fraud_trees::kernel::{Kernel, Method};

const WIDTH: usize = 29;

fn likeness(trees: usize, depth: usize) -> Likeness {
    Likeness {
        seed: 1,
        width: WIDTH,
        outputs: 1,
        trees,
        depth,
        leaves: 0,
        nodes: usize::MAX,
        thresholds: 255,
        comparisons: Comparisons::One(Comparison::Less),
        missing: Missing::Mixed,
        weights: Weights::InTurn,
        aggregate: Aggregate::Sum,
        oblivious: false,
    }
}

fn shapes() -> Vec<(&'static str, Likeness)> {
    vec![
        ("20x3", likeness(20, 3)),
        ("200x6", likeness(200, 6)),
        ("200x6 exact splits", Likeness { thresholds: 5000, ..likeness(200, 6) }),
        ("200x6 oblivious", Likeness { oblivious: true, ..likeness(200, 6) }),
        ("200x6 five classes", Likeness { outputs: 5, ..likeness(200, 6) }),
        ("200x8", likeness(200, 8)),
        ("200 of 31 leaves", Likeness { leaves: 5, nodes: 61, ..likeness(200, 12) }),
        ("100x16 forest", Likeness { outputs: 2, weights: Weights::All, leaves: 15, nodes: 2000, ..likeness(100, 16) }),
    ]
}

/// As the system calls it: figures of one processor say little of another.
fn processor() -> String {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = about.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown").trim().to_owned()
    };
    format!("{}, family {}, model {}", value("model name"), value("cpu family"), value("model"))
}

fn bench(criterion: &mut Criterion) {
    println!("processor: {}", processor());
    for (name, likeness) in shapes() {
        let (ensemble, thresholds) = likeness.ensemble();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).warm_up_time(Duration::from_millis(20)).measurement_time(Duration::from_millis(80));
        for batch in [1, 16, 64, 512, 4096] {
            let rows = rows(batch, 0, &thresholds, 2);
            group.throughput(Throughput::Elements(batch as u64));
            let mut measure = |name: &str, mut kernel: Kernel| {
                let mut sums = Vec::new();
                group.bench_function(BenchmarkId::new(name, batch), |bencher| {
                    bencher.iter(|| kernel.sums(&rows, &mut sums));
                });
            };
            for method in Method::ALL {
                if let Ok(kernel) = Kernel::compile_with(&ensemble, method) {
                    measure(method.name(), kernel);
                }
            }
            if let Ok(kernel) = Kernel::compile(&ensemble) {
                measure("chosen", kernel);
            }
        }
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
