//! Threads 1…N in one process and processes 1…N of one thread, and what the capacity model says of them.

use serde_json::json;

use crate::capacity::Costs;
use crate::contender::{Contender, Guarantee};
use crate::machine;
use crate::measure::{Bench, Measured};
use crate::report::{Run, Spread, labels, spread, table, warn_of_others, write_json};
use crate::topics::PARTITIONS;
use crate::workload::Model;

/// How far a prediction may lie off, as a share.
const OFF: f64 = 0.20;

/// Measures, prints and writes it.
pub fn run(bench: &Bench) {
    let most = bench.options.up_to.unwrap_or(machine::cores()).min(PARTITIONS as usize);
    let mut runs: Vec<Run> = Vec::new();
    for round in 1..=bench.options.rounds {
        for &model in &bench.options.models {
            eprintln!("  scaling, round {round} of {}, {}", bench.options.rounds, model.name());
            for contender in layouts(bench, model, most) {
                let measured = bench.throughput(&contender).unwrap_or_else(|error| panic!("{error}"));
                runs.push(Run::new(round, &contender, measured));
            }
        }
    }
    let mut models = serde_json::Map::new();
    for &model in &bench.options.models {
        let Some(costs) = costs(bench, model, &runs) else { continue };
        println!("\n{}, exactly once: microseconds per record, one process of one thread\n", model.name());
        println!("{}", costs_table(&costs));
        let (text, predictions) = predictions(model, &costs, &runs);
        println!("Measured (median, min–max of {} rounds) and predicted, records per second\n", bench.options.rounds);
        println!("{text}");
        let cluster = costs.cluster();
        println!(
            "{:.0} M/s at {:.0} % use: {} cores for workers, {} for brokers (before replication), {} scoring threads, \
             {} partitions",
            cluster.records_per_second / 1e6,
            cluster.planned_use * 100.0,
            cluster.worker_cores,
            cluster.broker_cores_unreplicated,
            cluster.scoring_threads,
            cluster.partitions
        );
        models.insert(
            model.name().into(),
            json!({"costs_microseconds": costs, "predictions": predictions, "cluster": cluster}),
        );
    }
    warn_of_others(&runs);
    write_json(&bench.options, "scaling.json", json!({"runs": runs, "models": models}));
}

fn layouts(bench: &Bench, model: Model, most: usize) -> Vec<Contender> {
    let worker = |threads, processes| Contender { processes, ..bench.worker(model, Guarantee::ExactlyOnce, threads) };
    let threads = (1..=most).map(|threads| worker(threads, 1));
    threads.chain((2..=most).map(|processes| worker(1, processes))).collect()
}

fn costs(bench: &Bench, model: Model, runs: &[Run]) -> Option<Costs> {
    let single = bench.worker(model, Guarantee::ExactlyOnce, 1).label();
    let measured: Vec<&Measured> = runs.iter().filter(|run| run.label == single).map(|run| &run.measured).collect();
    Costs::of(&measured)
}

fn costs_table(costs: &Costs) -> String {
    let line = |what: &str, value: f64| vec![what.to_owned(), format!("{value:.3}")];
    let stages = costs.decode + costs.inference + costs.produce;
    let rows = vec![
        line("scoring thread: decode", costs.decode),
        line("scoring thread: inference", costs.inference),
        line("scoring thread: encode and produce", costs.produce),
        line("scoring thread: take, commit, release", (costs.scoring - stages).max(0.0)),
        line("librdkafka's threads", costs.librdkafka),
        line("the worker's other threads", costs.other),
        line("worker, together", costs.worker()),
        line("broker", costs.broker),
    ];
    table(&["", "µs"], rows)
}

fn predictions(model: Model, costs: &Costs, runs: &[Run]) -> (String, Vec<serde_json::Value>) {
    let (mut rows, mut values) = (Vec::new(), Vec::new());
    for label in labels(runs) {
        let Some(run) = runs.iter().find(|run| run.label == label && run.model == Some(model.name())) else { continue };
        let measured: Spread = spread(runs, label, |run| run.per_second).unwrap();
        // What others had of the machine, nobody can use; on a quiet one that is nothing.
        let others = spread(runs, label, |run| run.measured.others_share).unwrap().median;
        let cores = machine::cores() as f64 * (1.0 - others);
        let predicted = costs.per_second(run.threads * run.processes, cores);
        let ratio = predicted / measured.median;
        let good = (ratio - 1.0).abs() <= OFF;
        rows.push(vec![
            format!("{} × {} thread(s)", run.processes, run.threads),
            measured.scaled(1e-3).to_string(),
            format!("{:.0}", predicted / 1e3),
            format!("{ratio:.2}"),
            if good { "yes" } else { "no" }.into(),
            spread(runs, label, |run| run.per_cpu_second).unwrap().scaled(1e-3).to_string(),
        ]);
        values.push(json!({
            "processes": run.processes, "threads": run.threads, "measured": measured,
            "cores_left_by_others": cores, "predicted": predicted, "within_20_percent": good,
        }));
    }
    let head = ["processes × threads", "measured, k/s", "predicted, k/s", "ratio", "within 20 %", "k/CPU-s"];
    (table(&head, rows), values)
}
