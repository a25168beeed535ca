//! Other ways to do the same job, listed in `benches/peers/contenders.toml`, against the worker.
//!
//! ```text
//!  per model and number of threads:  ours · peer · peer · ours · peer · peer · ours …
//!                                      └── a peer's ratio: the mean of ours before and after, over the peer ──┘
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chart::{Bar, Bars, Chart, Kind, thousands};
use crate::contender::{Contender, Guarantee, Program, resolve};
use crate::latency::{self, GOAL_RATE, Latency, latency_table};
use crate::measure::Bench;
use crate::options::Options;
use crate::report::{Run, Spread, labels, spread, table, warn_of_others, write, write_json};
use crate::workload::Model;
use crate::{machine, root};

/// Peers between two runs of ours: what changes on the machine meanwhile is in no ratio for long.
const BETWEEN: usize = 2;

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    contender: Vec<Entry>,
}

/// A contender's entry; benches/README.md explains the fields.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    version: String,
    guarantees: Vec<Guarantee>,
    #[serde(default = "both")]
    models: Vec<Model>,
    #[serde(default = "one")]
    threads: Vec<usize>,
    #[serde(default)]
    directory: String,
    #[serde(default)]
    setup: Vec<String>,
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default = "second")]
    warm_up_seconds: f64,
    seconds: Option<f64>,
    records: Option<u64>,
    #[serde(default = "yes")]
    latency: bool,
}

fn both() -> Vec<Model> {
    Model::ALL.to_vec()
}

fn one() -> Vec<usize> {
    vec![1]
}

fn second() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

impl Entry {
    /// Its lines of a model.
    fn lines(&self, options: &Options, model: Model) -> Vec<Contender> {
        let folder = root().join(&options.peers).parent().unwrap().join(&self.directory);
        let line = |guarantee, threads| Contender {
            name: self.name.clone(),
            version: self.version.clone(),
            program: Program::Peer(self.command.clone()),
            environment: self.environment.clone(),
            directory: folder.clone(),
            warm_up: Duration::from_secs_f64(self.warm_up_seconds),
            window: self.seconds.map(Duration::from_secs_f64),
            records: self.records,
            ..Contender::worker(model, guarantee, threads, &[])
        };
        let guarantees = || self.guarantees.iter().copied();
        let all = self.threads.iter().flat_map(|&threads| guarantees().map(move |guarantee| (guarantee, threads)));
        if self.models.contains(&model) {
            all.map(|(guarantee, threads)| line(guarantee, threads)).collect()
        } else {
            vec![]
        }
    }

    fn set_up(&self, options: &Options) -> Result<(), String> {
        set_up(&self.setup, &root().join(&options.peers).parent().unwrap().join(&self.directory))
    }
}

/// Runs an entry's setup, if it has one, in `folder`.
pub fn set_up(setup: &[String], folder: &Path) -> Result<(), String> {
    let [program, arguments @ ..] = setup else { return Ok(()) };
    let mut command = Command::new(resolve(folder, program));
    let output = command.args(arguments).current_dir(folder).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{setup:?} failed: {said}")) }
}

/// All that was measured, and what could not be.
#[derive(Default)]
struct Findings {
    runs: Vec<Run>,
    beside: Vec<Beside>,
    latencies: Vec<Latency>,
    failures: Vec<String>,
}

/// A peer's run beside ours.
#[derive(Clone, Serialize)]
struct Beside {
    round: u64,
    label: String,
    ours_over_peer_per_cpu_second: f64,
    ours_over_peer_per_second: f64,
}

/// Measures, prints and writes it; says whether every contender ran.
pub fn run(bench: &Bench) -> bool {
    let mut findings = Findings::default();
    let entries = set_up_all(listed(&bench.options), &bench.options, &mut findings.failures);
    for round in 1..=bench.options.rounds {
        for &model in &bench.options.models {
            eprintln!("  peers, round {round} of {}, {}", bench.options.rounds, model.name());
            let lines: Vec<Contender> = entries.iter().flat_map(|entry| entry.lines(&bench.options, model)).collect();
            let mut threads: Vec<usize> = lines.iter().map(|line| line.threads).collect();
            threads.sort_unstable();
            threads.dedup();
            for threads in threads {
                let lines: Vec<&Contender> = lines.iter().filter(|line| line.threads == threads).collect();
                let ours = bench.worker(model, Guarantee::ExactlyOnce, threads);
                findings.compare(bench, round, &ours, &lines);
            }
        }
        findings.answer_times(bench, round, &entries);
    }
    let Findings { runs, beside, latencies, failures } = findings;
    let text = markdown(&runs, &beside, &latencies);
    println!("\n{text}");
    warn_of_others(&runs);
    for failure in &failures {
        println!("left out: {failure}");
    }
    let results = json!({"runs": runs, "beside_ours": beside, "latency": latencies, "left_out": failures});
    write_json(&bench.options, "peers.json", results);
    write(&bench.options, "peers.md", &text);
    write(&bench.options, "peers.svg", &chart(bench, &runs).svg());
    failures.is_empty()
}

/// Whether what was asked for leaves any contender but the worker.
pub fn is_wanted(options: &Options) -> bool {
    !listed(options).is_empty()
}

/// The peers that the worker's transactions are compared with, each with the commit interval that all are told and with
/// shorter ones, milliseconds; those that could not be set up are told of.
pub fn with_transactions(options: &Options, model: Model, intervals: &[u64]) -> Vec<Contender> {
    let mut failures = Vec::new();
    let mut wanted = listed(options);
    wanted.retain(|entry| {
        let is_named = ["Go, franz-go", "Kafka Streams, batching"].contains(&entry.name.as_str());
        is_named && entry.guarantees.contains(&Guarantee::ExactlyOnce)
    });
    let lines: Vec<Contender> =
        set_up_all(wanted, options, &mut failures).iter().flat_map(|entry| entry.lines(options, model)).collect();
    failures.iter().for_each(|failure| println!("left out: {failure}"));
    let with_interval = |line: &Contender, milliseconds: u64| {
        let mut line = line.clone();
        line.name += &format!(", transactions of {milliseconds} ms");
        line.environment.insert("COMMIT_MS".into(), milliseconds.to_string());
        line
    };
    lines.iter().flat_map(|line| intervals.iter().map(|&interval| with_interval(line, interval))).collect()
}

/// Those of the file that were asked for.
fn listed(options: &Options) -> Vec<Entry> {
    let path = root().join(&options.peers);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let wanted = |entry: &Entry| options.only.as_ref().is_none_or(|only| entry.name.contains(only.as_str()));
    file.contender.into_iter().filter(wanted).collect()
}

/// Those that could be set up.
fn set_up_all(entries: Vec<Entry>, options: &Options, failures: &mut Vec<String>) -> Vec<Entry> {
    let entries = entries.into_iter();
    entries
        .filter(|entry| {
            if !entry.setup.is_empty() {
                eprintln!("  setting up {}", entry.name);
            }
            let outcome = entry.set_up(options);
            failures.extend(outcome.as_ref().err().map(|error| format!("{}: {error}", entry.name)));
            outcome.is_ok()
        })
        .collect()
}

impl Findings {
    /// Ours, two peers, ours, two peers, ours.
    fn compare(&mut self, bench: &Bench, round: u64, ours: &Contender, lines: &[&Contender]) {
        let mut before = self.measure_ours(bench, round, ours);
        for group in lines.chunks(BETWEEN) {
            let mut peers = Vec::new();
            for &line in group {
                match bench.throughput(line) {
                    Ok(measured) => peers.push(Run::new(round, line, measured)),
                    Err(error) => self.failures.push(format!("{}: {error}", line.label())),
                }
            }
            let after = self.measure_ours(bench, round, ours);
            self.beside.extend(peers.iter().map(|peer| Beside {
                round,
                label: peer.label.clone(),
                ours_over_peer_per_cpu_second: f64::midpoint(before.0, after.0) / peer.per_cpu_second,
                ours_over_peer_per_second: f64::midpoint(before.1, after.1) / peer.per_second,
            }));
            self.runs.extend(peers);
            before = after;
        }
    }

    /// Ours, per CPU-second and per second.
    fn measure_ours(&mut self, bench: &Bench, round: u64, ours: &Contender) -> (f64, f64) {
        let run = Run::new(round, ours, bench.throughput(ours).unwrap_or_else(|error| panic!("{error}")));
        let rates = (run.per_cpu_second, run.per_second);
        self.runs.push(run);
        rates
    }

    /// The latency of ours and of all who take part, at the rate that the goals are about.
    fn answer_times(&mut self, bench: &Bench, round: u64, entries: &[Entry]) {
        let model = *bench.options.models.iter().max().unwrap();
        let echo = Contender::reference("echo", Some(Guarantee::AtLeastOnce));
        if round == 1 {
            latency::warm_up(bench, &echo);
        }
        let mut lines = vec![echo];
        lines.extend([Guarantee::AtLeastOnce, Guarantee::ExactlyOnce].map(|promise| bench.worker(model, promise, 1)));
        let peers = entries.iter().filter(|entry| entry.latency).flat_map(|entry| entry.lines(&bench.options, model));
        lines.extend(peers.filter(|line| line.threads == 1));
        eprintln!("  peers, round {round} of {}, latency at {GOAL_RATE}/s", bench.options.rounds);
        for line in lines {
            match latency::measure(bench, &line, GOAL_RATE, round) {
                Ok(latency) => self.latencies.push(latency),
                Err(error) => self.failures.push(error),
            }
        }
    }
}

fn markdown(runs: &[Run], beside: &[Beside], latencies: &[Latency]) -> String {
    let mut labels = labels(runs);
    // By model, then the fastest first.
    let order = |label: &str| {
        let model = runs.iter().find(|run| run.label == label).and_then(|run| run.model);
        (model, -spread(runs, label, |run| run.per_cpu_second).map_or(0.0, |found| found.median))
    };
    labels.sort_by(|one, other| order(one).partial_cmp(&order(other)).unwrap());
    let rows = labels.into_iter().map(|label| {
        let of = |value: fn(&Run) -> f64| spread(runs, label, value).unwrap();
        let ratio = |value: fn(&Beside) -> f64| {
            let found = Spread::of(beside.iter().filter(|beside| beside.label == label).map(value));
            found.map_or("–".into(), |found| found.to_string())
        };
        vec![
            label.to_owned(),
            of(|run| run.per_cpu_second).scaled(1e-3).to_string(),
            of(|run| run.per_second).scaled(1e-3).to_string(),
            format!("{:.0}", of(|run| run.measured.peak_rss_bytes as f64 / 1e6).max),
            ratio(|beside| beside.ours_over_peer_per_cpu_second),
            ratio(|beside| beside.ours_over_peer_per_second),
        ]
    });
    let head = ["", "k/CPU-s", "k/s", "peak MB", "ours/CPU-s ÷ this", "ours/s ÷ this"];
    format!(
        "Thousand records per second; median (min–max) of the rounds; ours is exactly-once with as many threads\n\n{}\n\
         Milliseconds from due time to receipt\n\n{}",
        table(&head, rows.collect()),
        latency_table(latencies)
    )
}

fn chart(bench: &Bench, runs: &[Run]) -> Chart {
    let groups = bench.options.models.iter().map(|&model| {
        let mut bars: Vec<Bar> = labels(runs)
            .into_iter()
            .filter_map(|label| runs.iter().find(|run| run.label == label))
            .filter(|run| run.model == Some(model.name()) && run.threads == 1)
            .map(|run| {
                let found = spread(runs, &run.label, |run| run.per_cpu_second).unwrap().scaled(1e-3);
                let kind = if run.name == "fraud-scorer" { Kind::Ours } else { Kind::Other };
                let label = format!("{}, {}", run.name, run.guarantee.unwrap_or_default());
                let text = thousands(found.median);
                Bar { label, value: found.median, range: (found.min, found.max), text, kind }
            })
            .collect();
        bars.sort_by(|one, other| other.value.total_cmp(&one.value));
        Bars { title: model.title().into(), bars }
    });
    Chart {
        title: "Transactions per CPU-second, Kafka to Kafka, one thread".into(),
        subtitle: format!(
            "thousands, higher is better; median of {} rounds, line from lowest to highest",
            bench.options.rounds
        ),
        groups: groups.collect(),
        footer: machine::line(),
    }
}
