//! What the HTTP measurement found, as Markdown.

use std::collections::BTreeSet;

use super::services::{Face, Service};
use super::{Answers, HEADROOM, Rate, Wait, same_questions};
use crate::report::{Spread, table};
use crate::workload::Model;

/// All of it.
pub fn markdown(
    rates: &[Rate],
    waits: &[Wait],
    answers: &[Answers],
    beyond: &BTreeSet<String>,
    services: &[Service],
) -> String {
    let mut text =
        String::from("Requests per second; median (min–max) of the rounds; ours is asked with the same bytes\n");
    let mut kinds: Vec<(Model, usize)> = rates.iter().map(|rate| (rate.model, rate.rows)).collect();
    kinds.sort_unstable_by(|one, other| other.0.cmp(&one.0).then(one.1.cmp(&other.1)));
    kinds.dedup();
    for (model, rows) in kinds {
        let of_kind: Vec<&Rate> = rates.iter().filter(|rate| (rate.model, rate.rows) == (model, rows)).collect();
        text += &format!("\n{}, {} per request\n\n{}", model.title(), in_words(rows), rates_table(&of_kind, services));
    }
    if !waits.is_empty() {
        text += "\nMilliseconds from due time to answer, open loop\n\n";
        text += &waits_table(waits);
    }
    if !beyond.is_empty() {
        let beyond: Vec<&str> = beyond.iter().map(String::as_str).collect();
        text += &format!(
            "\nNot measured, or not in every round, as the closed loop did not reach {HEADROOM} times the rate: {}.\n",
            beyond.join("; ")
        );
    }
    text += "\n";
    for service in services {
        text += &format!("- {}: {}\n", service.name, service.version);
    }
    if let Some(worst) = answers.iter().map(|answers| answers.worst_difference).reduce(f64::max) {
        let compared: usize = answers.iter().map(|answers| answers.compared).sum();
        text += &format!(
            "\n{compared} answers were compared with ONNX Runtime's scores, most of them of those given under load; the \
             largest difference is {worst:.1e}.\n"
        );
    }
    text
}

/// A number of rows.
pub fn in_words(rows: usize) -> String {
    if rows == 1 { "one row".into() } else { format!("{rows} rows") }
}

/// One line per number of connections and face, ours first and then the fastest.
fn rates_table(rates: &[&Rate], services: &[Service]) -> String {
    let faces: Vec<&Face> = services.iter().flat_map(|service| &service.faces).collect();
    let of = |connections: usize, face: &Face, value: fn(&Rate) -> f64| {
        let runs = rates.iter().filter(|rate| rate.connections == connections && rate.service == face.name);
        Spread::of(runs.map(|rate| value(rate)))
    };
    let mut lines: Vec<(usize, &Face, f64)> = Vec::new();
    for face in faces {
        for rate in rates.iter().filter(|rate| rate.service == face.name) {
            if !lines.iter().any(|line| line.0 == rate.connections && line.1.name == face.name) {
                let speed = of(rate.connections, face, Rate::per_cpu_second).map_or(0.0, |found| found.median);
                lines.push((rate.connections, face, speed));
            }
        }
    }
    lines.sort_by(|one, other| one.0.cmp(&other.0).then(other.1.ours.cmp(&one.1.ours)).then(other.2.total_cmp(&one.2)));
    let rows = lines.into_iter().map(|(connections, face, _)| {
        let of = |value| of(connections, face, value).unwrap();
        let beside_ours = |value: fn(&Rate) -> f64| {
            let ours = same_questions(face, services).filter(|_| !face.ours);
            let ratio = ours.and_then(|ours| ratio(rates, connections, &ours.name, &face.name, value));
            ratio.map_or("–".into(), |found| found.to_string())
        };
        let plural = if connections == 1 { "" } else { "s" };
        vec![
            format!("{connections} connection{plural}, {}", face.name),
            of(Rate::per_cpu_second).to_string(),
            of(Rate::per_second).to_string(),
            format!("{:.0} %", of(|rate| rate.cpu_seconds / rate.wall_seconds).median * 100.0),
            format!("{:.0} %", of(|rate| rate.client_cpu_seconds / rate.wall_seconds).median * 100.0),
            format!("{:.0}", of(|rate| rate.peak_rss_bytes as f64 / 1e6).max),
            beside_ours(Rate::per_cpu_second),
            beside_ours(Rate::per_second),
        ]
    });
    let head = ["", "per CPU-s", "per s", "of a core", "client", "peak MB", "ours/CPU-s ÷ this", "ours/s ÷ this"];
    table(&head, rows.collect())
}

/// Ours over another, each within its round.
fn ratio(rates: &[&Rate], connections: usize, ours: &str, other: &str, value: fn(&Rate) -> f64) -> Option<Spread> {
    let of = |service: &str, round: u64| {
        let mut runs = rates.iter().filter(|rate| rate.connections == connections && rate.round == round);
        runs.find(|rate| rate.service == service).map(|rate| value(rate))
    };
    let rounds = rates.iter().filter(|rate| rate.connections == connections && rate.service == other);
    Spread::of(rounds.filter_map(|rate| Some(of(ours, rate.round)? / value(rate))))
}

fn waits_table(waits: &[Wait]) -> String {
    let mut lines: Vec<(usize, u64, &str)> = Vec::new();
    for wait in waits {
        if !lines.contains(&(wait.rows, wait.rate, &wait.service)) {
            lines.push((wait.rows, wait.rate, &wait.service));
        }
    }
    let of = |(rows, rate, service): (usize, u64, &str), value: fn(&Wait) -> f64| {
        let runs = waits.iter().filter(|wait| (wait.rows, wait.rate, wait.service.as_str()) == (rows, rate, service));
        Spread::of(runs.map(value)).unwrap()
    };
    lines.sort_by(|&one, &other| {
        let p99 = |line| of(line, |wait| wait.p99).median;
        (one.0, one.1).cmp(&(other.0, other.1)).then(p99(one).total_cmp(&p99(other)))
    });
    let rows = lines.into_iter().map(|line| {
        let (rows, rate, service) = line;
        vec![
            format!("{rate}/s, {}, {service}", in_words(rows)),
            of(line, |wait| wait.p50).to_string(),
            of(line, |wait| wait.p99).to_string(),
            of(line, |wait| wait.worst).to_string(),
            format!("{:.1} %", of(line, |wait| wait.cpu_share).median * 100.0),
            format!("{:.2}", of(line, |wait| wait.sender_late_p99).median),
        ]
    });
    table(&["", "p50", "p99", "worst", "of a core", "sender late p99"], rows.collect())
}
