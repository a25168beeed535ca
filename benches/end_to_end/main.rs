//! `make bench`: the whole worker against references, in one run, on a real broker.
//!
//! ```text
//!  broker ─ load the topic once ─► round 1: each contender in turn ─► round 2 … ─► table of medians and ratios
//! ```
//!
//! Machines are noisy: a claim is a ratio of two contenders of the same round, never a figure of its own. Contenders are
//! separate processes; what is counted is their own user and system time, and the wall, from the first record committed
//! to the last.
//!
//! References: `pass-through` consumes and produces 100 bytes a record with librdkafka's batch calls and does nothing
//! else; `onnxruntime` runs the model on one thread over rows in memory, batch 1,024.
#![allow(clippy::unwrap_used, missing_docs)]

mod contender;
mod reference;
#[path = "../../tests/promises/support/mod.rs"]
#[allow(dead_code)]
mod support;

use std::collections::BTreeMap;

use contender::{Measured, load_topic, run_reference, run_worker};
use support::broker::Broker;

/// Records per round; `FRAUD_SCORER_BENCH_RECORDS` changes it.
const RECORDS: u64 = 1_000_000;

/// Rounds; `FRAUD_SCORER_BENCH_ROUNDS` changes it.
const ROUNDS: u64 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|argument| argument == "--reference") {
        return reference::main(&arguments[2..]);
    }
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let records = number("FRAUD_SCORER_BENCH_RECORDS", RECORDS);
    let rounds = number("FRAUD_SCORER_BENCH_ROUNDS", ROUNDS);

    let broker = Broker::start();
    eprintln!("loading {records} records");
    let topics = load_topic(&broker, records);
    let mut results: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds}");
        let mut note = |name: &'static str, measured: Measured| {
            eprintln!("  {name:<36} {measured}");
            results.entry(name).or_default().push(measured);
        };
        note("reference: pass-through", run_reference(&topics, &["pass-through"], records));
        for (name, model, arguments) in CONTENDERS {
            note(name, run_worker(&topics, model, arguments, records));
        }
        note("reference: onnxruntime fraud-lr", run_reference(&topics, &["onnxruntime", "models/fraud-lr"], records));
        note("reference: onnxruntime fraud", run_reference(&topics, &["onnxruntime", "models/fraud"], records));
    }
    report(&results);
}

/// Name, bundle, further arguments of `run`.
const CONTENDERS: &[(&str, &str, &[&str])] = &[
    ("worker fraud-lr exactly-once", "models/fraud-lr", &[]),
    ("worker fraud-lr at-least-once", "models/fraud-lr", &["--guarantee", "at-least-once"]),
    ("worker fraud (trees) exactly-once", "models/fraud", &[]),
    ("worker fraud (trees) at-least-once", "models/fraud", &["--guarantee", "at-least-once"]),
];

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[values.len() / 2], values[0], values[values.len() - 1])
}

fn report(results: &BTreeMap<&str, Vec<Measured>>) {
    println!(
        "\n{:<38}{:>26}{:>26}{:>8}",
        "thousand records per second", "per CPU-second (min–max)", "on the wall (min–max)", "RSS MB"
    );
    for (name, measured) in results {
        let (cpu, cpu_low, cpu_high) = median(measured.iter().map(Measured::per_cpu_second).collect());
        let (wall, wall_low, wall_high) = median(measured.iter().map(Measured::per_second).collect());
        let rss = measured.iter().map(|measured| measured.peak_rss_bytes).max().unwrap_or(0) / 1_000_000;
        let range =
            |middle: f64, low: f64, high: f64| format!("{:.0} ({:.0}–{:.0})", middle / 1e3, low / 1e3, high / 1e3);
        println!("{name:<38}{:>26}{:>26}{rss:>8}", range(cpu, cpu_low, cpu_high), range(wall, wall_low, wall_high));
    }
    println!("\nratios per CPU-second, median of the rounds' own ratios");
    for (name, of, to) in [
        ("fraud-lr exactly-once / pass-through", "worker fraud-lr exactly-once", "reference: pass-through"),
        ("fraud exactly-once / onnxruntime alone", "worker fraud (trees) exactly-once", "reference: onnxruntime fraud"),
    ] {
        let ratios = results[of].iter().zip(&results[to]).map(|(of, to)| of.per_cpu_second() / to.per_cpu_second());
        let (middle, low, high) = median(ratios.collect());
        println!("{name:<44}{middle:>6.2} ({low:.2}–{high:.2})");
    }
    let wall = |of: &str, to: &str| {
        let ratios = results[of].iter().zip(&results[to]).map(|(of, to)| of.per_second() / to.per_second());
        median(ratios.collect())
    };
    for model in ["fraud-lr", "fraud (trees)"] {
        let (once, least) = (format!("worker {model} exactly-once"), format!("worker {model} at-least-once"));
        let (middle, low, high) = wall(&once, &least);
        println!("{:<44}{middle:>6.2} ({low:.2}–{high:.2})", format!("{model}: exactly-once / at-least-once, wall"));
    }
}
