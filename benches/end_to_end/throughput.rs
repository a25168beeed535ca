//! The worker against pass-through and ONNX Runtime alone, per CPU-second and on the wall.

use serde_json::json;

use crate::chart::{Bar, Bars, Chart, Kind, thousands};
use crate::contender::{Contender, Guarantee};
use crate::machine;
use crate::measure::Bench;
use crate::reference::Alone;
use crate::report::{
    Claim, Run, Spread, claims_table, labels, ratio, spread, table, warn_of_others, write, write_json,
};
use crate::workload::Model;

const PASS_THROUGH: &str = "pass-through";

/// What the worker must do per CPU-second of what pass-through does, with the logistic regression.
const OF_PASS_THROUGH: f64 = 0.70;

/// What the worker must do per CPU-second of what its model alone does in ONNX Runtime, with the trees.
const OF_MODEL_ALONE: f64 = 5.5;

/// What exactly once must do on the wall of what at least once does, with all cores busy.
const OF_AT_LEAST_ONCE: f64 = 0.95;

/// One round's run of a model alone.
struct AloneRun {
    round: u64,
    model: Model,
    alone: Alone,
}

/// Measures, prints and writes it.
pub fn run(bench: &Bench) {
    let pass_through = Contender::reference(PASS_THROUGH, None);
    eprintln!("  warming the broker up");
    // A young broker's own compiler would be measured with the first contender.
    bench.throughput(&pass_through).unwrap();
    let mut runs: Vec<Run> = Vec::new();
    let mut alone: Vec<AloneRun> = Vec::new();
    for round in 1..=bench.options.rounds {
        eprintln!("  throughput, round {round} of {}", bench.options.rounds);
        runs.extend(bench.throughput(&pass_through).map(|measured| Run::new(round, &pass_through, measured)));
        for &model in &bench.options.models {
            alone.push(AloneRun { round, model, alone: Alone::measure(model, bench.options.seconds.min(4.0)) });
            for contender in worker_lines(bench, model) {
                let measured = bench.throughput(&contender).unwrap_or_else(|error| panic!("{error}"));
                runs.push(Run::new(round, &contender, measured));
            }
        }
    }
    let claims = claims(bench, &runs, &alone);
    println!("\nThousand records per second, median (min–max) of {} rounds\n", bench.options.rounds);
    println!("{}", rates_table(&runs, &alone));
    println!("{}", claims_table(&claims));
    warn_of_others(&runs);
    let alone_runs: Vec<_> = alone
        .iter()
        .map(|run| json!({"round": run.round, "model": run.model, "per_cpu_second": run.alone.per_cpu_second(), "run": run.alone}))
        .collect();
    write_json(
        &bench.options,
        "throughput.json",
        json!({"runs": runs, "onnxruntime_alone": alone_runs, "claims": claims}),
    );
    write(&bench.options, "throughput.svg", &chart(bench, &runs, &alone).svg());
}

/// The worker's lines of a model: both guarantees, on one thread and on all cores.
fn worker_lines(bench: &Bench, model: Model) -> Vec<Contender> {
    let mut threads = vec![1, machine::cores()];
    threads.dedup();
    let lines = threads.into_iter().flat_map(|threads| Guarantee::ALL.map(|guarantee| (guarantee, threads)));
    lines.map(|(guarantee, threads)| bench.worker(model, guarantee, threads)).collect()
}

fn alone_spread(alone: &[AloneRun], model: Model) -> Option<Spread> {
    Spread::of(alone.iter().filter(|run| run.model == model).map(|run| run.alone.per_cpu_second()))
}

fn claims(bench: &Bench, runs: &[Run], alone: &[AloneRun]) -> Vec<Claim> {
    let line = |model, guarantee, threads| bench.worker(model, guarantee, threads).label();
    let mut claims = Vec::new();
    for &model in &bench.options.models {
        let ours = line(model, Guarantee::ExactlyOnce, 1);
        if model == Model::Lr
            && let Some(found) = ratio(runs, &ours, PASS_THROUGH, |run| run.per_cpu_second)
        {
            claims.push(Claim::at_least("lr, exactly-once / pass-through, per CPU-second", found, OF_PASS_THROUGH));
        }
        let of_alone = runs.iter().filter(|run| run.label == ours).filter_map(|run| {
            let alone = alone.iter().find(|alone| alone.model == model && alone.round == run.round)?;
            Some(run.per_cpu_second / alone.alone.per_cpu_second())
        });
        if model == Model::Xgb
            && let Some(found) = Spread::of(of_alone)
        {
            claims.push(Claim::at_least(
                "xgb, exactly-once / ONNX Runtime alone, per CPU-second",
                found,
                OF_MODEL_ALONE,
            ));
        }
        let cores = machine::cores();
        let (once, least) = (line(model, Guarantee::ExactlyOnce, cores), line(model, Guarantee::AtLeastOnce, cores));
        if let Some(found) = ratio(runs, &once, &least, |run| run.per_second) {
            let what = format!("{}, exactly-once / at-least-once on the wall, {cores} threads", model.name());
            claims.push(Claim::at_least(what, found, OF_AT_LEAST_ONCE));
        }
    }
    claims
}

fn rates_table(runs: &[Run], alone: &[AloneRun]) -> String {
    let mut rows = Vec::new();
    for label in labels(runs) {
        let of = |value: fn(&Run) -> f64| spread(runs, label, value);
        let text = |spread: Option<Spread>, factor: f64| {
            spread.map_or(String::new(), |found| found.scaled(factor).to_string())
        };
        let memory = of(|run| run.measured.peak_rss_bytes as f64 / 1e6).map_or(0.0, |found| found.max);
        rows.push(vec![
            label.to_owned(),
            text(of(|run| run.per_cpu_second), 1e-3),
            text(of(|run| run.per_second), 1e-3),
            text(of(|run| run.measured.broker_microseconds()), 1.0),
            format!("{memory:.0}"),
        ]);
    }
    for model in Model::ALL {
        if let Some(found) = alone_spread(alone, model) {
            let label = format!("onnxruntime alone, {}", model.name());
            rows.push(vec![label, found.scaled(1e-3).to_string(), String::new(), String::new(), String::new()]);
        }
    }
    table(&["", "per CPU-second", "on the wall", "broker µs/record", "peak MB"], rows)
}

fn chart(bench: &Bench, runs: &[Run], alone: &[AloneRun]) -> Chart {
    let bar = |label: String, found: Spread, kind| {
        let found = found.scaled(1e-3);
        Bar { label, value: found.median, range: (found.min, found.max), text: thousands(found.median), kind }
    };
    let per_cpu = |label: &str| spread(runs, label, |run| run.per_cpu_second);
    let groups = bench.options.models.iter().map(|&model| {
        let mut bars = Vec::new();
        for guarantee in Guarantee::ALL {
            if let Some(found) = per_cpu(&bench.worker(model, guarantee, 1).label()) {
                bars.push(bar(format!("fraud-scorer, {}", guarantee.name()), found, Kind::Ours));
            }
        }
        if let Some(found) = per_cpu(PASS_THROUGH) {
            bars.push(bar("librdkafka alone: read, write 100 bytes".into(), found, Kind::Reference));
        }
        // The linear model alone is so fast that it would say nothing, and shrink all other bars.
        if model == Model::Xgb
            && let Some(found) = alone_spread(alone, model)
        {
            bars.push(bar("ONNX Runtime alone, rows in memory".into(), found, Kind::Reference));
        }
        Bars { title: model.title().to_owned(), bars }
    });
    Chart {
        title: "Transactions per CPU-second, Kafka to Kafka".into(),
        subtitle: format!(
            "thousands, higher is better; median of {} rounds, line from lowest to highest",
            bench.options.rounds
        ),
        groups: groups.collect(),
        footer: machine::line(),
    }
}
