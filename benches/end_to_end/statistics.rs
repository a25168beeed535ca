//! What librdkafka's statistics cost: the worker, and the worker with those of all its clients turned off.
//!
//! What the worker counts by itself is measured by `benches/metrics.rs`; it cannot be turned off.

use crate::contender::{Contender, Guarantee};
use crate::measure::Bench;
use crate::shadow::{against_alone, alone};
use crate::workload::Model;

/// Measures, prints and writes it.
pub fn run(bench: &Bench) {
    let lines = bench.options.models.iter().map(|&model| (alone(bench, model), vec![silent(bench, model)])).collect();
    against_alone(bench, lines, "statistics");
}

fn silent(bench: &Bench, model: Model) -> Contender {
    let mut arguments = bench.options.worker.clone();
    arguments.extend(["-X".into(), "statistics.interval.ms=0".into()]);
    let name = "fraud-scorer, no statistics".into();
    Contender { name, ..Contender::worker(model, Guarantee::ExactlyOnce, 1, &arguments) }
}
