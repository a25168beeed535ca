//! What a challenger in the shadow costs: the worker alone, with a challenger on a tenth of the records, and on all.

use serde_json::json;

use crate::contender::{Contender, Guarantee};
use crate::measure::Bench;
use crate::report::{Run, ratio, spread, table, warn_of_others, write_json};
use crate::workload::Model;

/// The shares of the records that a challenger scores.
const SHARES: [f64; 2] = [0.1, 1.0];

/// Measures, prints and writes it.
pub fn run(bench: &Bench) {
    let lines = bench.options.models.iter().map(|&model| (alone(bench, model), shadowed(bench, model))).collect();
    against_alone(bench, lines, "shadow");
}

/// Measures the worker alone and with variants of it, in turn; prints what each gets of the worker alone, and writes it to
/// NAME.json.
pub fn against_alone(bench: &Bench, lines: Vec<(Contender, Vec<Contender>)>, name: &str) {
    let mut runs: Vec<Run> = Vec::new();
    eprintln!("  warming the broker up");
    // A young broker's own compiler would be measured with the first contender.
    bench.throughput(&alone(bench, Model::Lr)).unwrap_or_else(|error| panic!("{error}"));
    for round in 1..=bench.options.rounds {
        eprintln!("  {name}, round {round} of {}", bench.options.rounds);
        for contender in lines.iter().flat_map(|(alone, variants)| std::iter::once(alone).chain(variants)) {
            let measured = bench.throughput(contender).unwrap_or_else(|error| panic!("{error}"));
            runs.push(Run::new(round, contender, measured));
        }
    }
    let mut rows = Vec::new();
    for (alone, variants) in &lines {
        let rate = |label: &str| {
            let found = spread(&runs, label, |run| run.per_cpu_second);
            found.map_or(String::new(), |found| found.scaled(1e-3).to_string())
        };
        rows.push(vec![alone.label(), rate(&alone.label()), String::new()]);
        for contender in variants {
            let found = ratio(&runs, &contender.label(), &alone.label(), |run| run.per_cpu_second);
            let ratio = found.map_or(String::new(), |found| found.to_string());
            rows.push(vec![contender.label(), rate(&contender.label()), ratio]);
        }
    }
    println!("\nThousand records per CPU-second, median (min–max) of {} rounds\n", bench.options.rounds);
    println!("{}", table(&["", "per CPU-second", "of the worker alone"], rows));
    warn_of_others(&runs);
    write_json(&bench.options, &format!("{name}.json"), json!({"runs": runs}));
}

/// The worker with its default settings.
pub fn alone(bench: &Bench, model: Model) -> Contender {
    bench.worker(model, Guarantee::ExactlyOnce, 1)
}

/// The worker with a challenger of the same kind: the same model again, which costs as much as itself.
fn shadowed(bench: &Bench, model: Model) -> Vec<Contender> {
    let with = |share: f64| {
        let challenger = model.bundle().display().to_string();
        let mut arguments = bench.options.worker.clone();
        arguments.extend(["--challenger".into(), challenger, "--challenger-share".into(), share.to_string()]);
        let name = format!("fraud-scorer, challenger on {:.0} %", share * 100.0);
        Contender { name, ..Contender::worker(model, Guarantee::ExactlyOnce, 1, &arguments) }
    };
    SHARES.map(with).into()
}
