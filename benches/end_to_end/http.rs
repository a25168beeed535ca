//! Scoring over HTTP: the worker's `/v1/score` and `/invocations` against services that do the same job.
//!
//! ```text
//!  per round and model, each service in turn:  start ─► answers right? ─► closed loops ─► open loops ─► stop
//!                                                          │ rates per CPU-second and on the wall
//!                                                          └ open loop: latency at a rate that it can keep
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `services` | who answers: the worker, and `benches/peers/http/services.toml` |
//! | `questions` | the bodies, and whether answers are right |
//! | `load` | the client |
//! | `cost` | what a run cost, between two looks at it |
//! | `tables` | what comes out |

mod cost;
mod load;
mod questions;
mod services;
mod tables;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hyper::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use self::cost::{Cost, Sample};
use self::load::{Load, Pace, Questions, Seen, ask_each, refused};
use self::questions::{Form, Rows};
pub use self::services::is_wanted;
use self::services::{Face, Service, Started, others, ours};
use self::tables::{in_words, markdown};
use crate::measure::Bench;
use crate::processes::{Tree, machine_busy, own_cpu};
use crate::report::{warn_of_shares, write, write_json};
use crate::workload::Model;

/// Rows of a request that holds many.
const MANY: usize = 100;

/// The closed loops: rows of a request, connections.
const LOOPS: [(usize, usize); 4] = [(1, 1), (1, 16), (1, 64), (MANY, 16)];

/// Those that the smaller models and the brief services are measured in as well.
const IN_BRIEF: usize = 16;

/// Connections of the open loop: none of its requests should have to wait for one.
const OPEN_CONNECTIONS: usize = 64;

/// An open loop is only measured where the closed one reaches this multiple of its rate: else the queue only grows, and
/// its length says how long was measured.
const HEADROOM: f64 = 1.25;

/// Requests that an open loop counts at the least: a p99 of fewer would be little more than the worst of them.
const OPEN_REQUESTS: u64 = 300;

/// Questions asked of every service before anything is measured, of each number of rows.
const CHECKED: usize = 64;

/// What is dropped at the beginning of each run. The services have answered all questions once by then.
const WARM_UP: Duration = Duration::from_millis(300);

/// A closed loop.
#[derive(Clone, Debug, Serialize)]
struct Rate {
    round: u64,
    model: Model,
    service: String,
    version: String,
    rows: usize,
    connections: usize,
    requests: u64,
    wall_seconds: f64,
    /// The service's.
    cpu_seconds: f64,
    /// The load's, so that one sees whether it was the limit.
    client_cpu_seconds: f64,
    /// How much of the machine went to processes that are neither.
    others_share: f64,
    peak_rss_bytes: u64,
    /// From sending to answer, milliseconds; a closed loop hides the wait of what it did not send.
    p50: f64,
    p99: f64,
}

impl Rate {
    fn per_second(&self) -> f64 {
        self.requests as f64 / self.wall_seconds
    }

    fn per_cpu_second(&self) -> f64 {
        self.requests as f64 / self.cpu_seconds
    }
}

/// An open loop; times in milliseconds from the due time to the answer.
#[derive(Clone, Debug, Serialize)]
struct Wait {
    round: u64,
    model: Model,
    service: String,
    rows: usize,
    /// Requests per second.
    rate: u64,
    requests: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    worst: f64,
    /// How late the client was, which is within the figures above.
    sender_late_p99: f64,
    /// Of one core.
    cpu_share: f64,
    others_share: f64,
}

/// A service's answers beside ONNX Runtime's, before and while it was measured.
#[derive(Clone, Debug, Serialize)]
struct Answers {
    round: u64,
    model: Model,
    service: String,
    compared: usize,
    worst_difference: f64,
}

/// What was measured, and what could not be.
#[derive(Default)]
struct Findings {
    rates: Vec<Rate>,
    waits: Vec<Wait>,
    answers: Vec<Answers>,
    /// Open loops that a service could not have kept up with.
    beyond: BTreeSet<String>,
    /// Services that failed with a model: they are not tried again in the rounds that follow.
    failed: BTreeSet<(String, Model)>,
    failures: Vec<String>,
}

/// Measures, prints and writes it; says whether every service answered, and rightly.
pub fn run(bench: &Bench) -> bool {
    let options = &bench.options;
    let mut findings = Findings::default();
    let mut services = vec![ours(options)];
    services.extend(others(options, &mut findings.failures));
    let quiet = "no-transactions";
    bench.admin.create(quiet, &[]);
    let models: Vec<(Model, Rows)> =
        options.models.iter().map(|&model| (model, Rows::of(model, &bench.records))).collect();
    let largest = options.models.iter().max().copied();
    for round in 1..=options.rounds {
        for (model, rows) in &models {
            eprintln!("  http, round {round} of {}, {}", options.rounds, model.name());
            // Whoever follows on whom changes from round to round.
            let turns = services.iter().cycle().skip(round as usize - 1).take(services.len());
            for service in turns.filter(|service| service.has(*model)) {
                if findings.failed.contains(&(service.name.clone(), *model)) {
                    continue;
                }
                let run =
                    Run { bench, rows, round, model: *model, in_full: Some(*model) == largest && service.in_full() };
                run.service(service, quiet, &mut findings);
            }
        }
    }
    let Findings { rates, waits, answers, beyond, failures, .. } = findings;
    let text = markdown(&rates, &waits, &answers, &beyond, &services);
    println!("\n{text}");
    warn_of_shares(rates.iter().map(|rate| rate.others_share).chain(waits.iter().map(|wait| wait.others_share)));
    for failure in &failures {
        println!("left out: {failure}");
    }
    let timing = json!({
        "window_seconds": options.http_seconds, "rates": options.http_rates, "many_rows": MANY,
        "open_connections": OPEN_CONNECTIONS,
    });
    let results = json!({
        "http": timing, "rates": rates, "waits": waits, "answers": answers, "could_not_keep_up": beyond,
        "left_out": failures,
    });
    write_json(options, "http.json", results);
    write(options, "http.md", &text);
    failures.is_empty()
}

/// One service in one round.
struct Run<'a> {
    bench: &'a Bench,
    rows: &'a Rows,
    round: u64,
    model: Model,
    in_full: bool,
}

impl Run<'_> {
    fn service(&self, service: &Service, quiet: &str, findings: &mut Findings) {
        let outcome = service.start(self.bench, quiet, self.model).and_then(|mut started| {
            let outcome = service.faces.iter().try_for_each(|face| self.face(service, &mut started, face, findings));
            let outcome = outcome.map_err(|error| started.running.complaint(&error));
            started.stop(self.bench);
            outcome
        });
        if let Err(error) = outcome {
            eprintln!("    {}: {error}", service.name);
            findings.failures.push(format!("{}, {}: {error}", service.name, self.model.name()));
            findings.failed.insert((service.name.clone(), self.model));
        }
    }

    fn face(
        &self,
        service: &Service,
        started: &mut Started,
        face: &Face,
        findings: &mut Findings,
    ) -> Result<(), String> {
        let mut answers = Answers {
            round: self.round,
            model: self.model,
            service: face.name.clone(),
            compared: 0,
            worst_difference: 0.0,
        };
        for rows in [1, MANY] {
            self.check(&self.questions(started, face, rows), rows, &mut answers)?;
        }
        let loops = LOOPS.into_iter().filter(|(_, connections)| self.in_full || *connections == IN_BRIEF);
        let mut reached = [0.0_f64; 2];
        for (rows, connections) in loops {
            let Some(rate) = self.closed_loop(service, started, face, (rows, connections), &mut answers)? else {
                let what = format!("{}, {rows} rows, {connections} connections", face.name);
                findings.failures.push(format!("{what}: too short a run; give it more --http-seconds"));
                continue;
            };
            let reached = &mut reached[usize::from(rows == MANY)];
            *reached = reached.max(rate.per_second());
            findings.rates.push(rate);
        }
        for (rows, rate) in self.open_loops() {
            if reached[usize::from(rows == MANY)] < HEADROOM * rate as f64 {
                findings.beyond.insert(format!("{} at {rate}/s, {}", face.name, in_words(rows)));
                continue;
            }
            findings.waits.push(self.open_loop(started, face, (rows, rate), &mut answers)?);
        }
        findings.answers.push(answers);
        Ok(())
    }

    /// Rows and rates: requests of one row at each rate, of many at the lowest.
    fn open_loops(&self) -> Vec<(usize, u64)> {
        let rates = if self.in_full { self.bench.options.http_rates.as_slice() } else { &[] };
        let one = rates.iter().map(|&rate| (1, rate));
        one.chain(rates.iter().min().map(|&rate| (MANY, rate))).collect()
    }

    fn questions(&self, started: &Started, face: &Face, rows: usize) -> Questions {
        let ask = face.ask(rows);
        Questions { address: started.address, path: ask.path.clone(), bodies: self.rows.bodies(ask.form, rows) }
    }

    /// Asks a part of the questions and holds the answers against ONNX Runtime's.
    fn check(&self, questions: &Questions, rows: usize, answers: &mut Answers) -> Result<(), String> {
        let some = questions.bodies.iter().take(CHECKED).cloned().collect::<Vec<_>>();
        let given = ask_each(&Questions { bodies: some.into(), ..questions.clone() }, &Method::POST)?;
        for (number, (status, answer)) in given.iter().enumerate() {
            if *status != StatusCode::OK {
                return Err(refused(*status, answer));
            }
            answers.compare(self.rows, (number, rows), answer)?;
        }
        Ok(())
    }

    /// `None` where the window saw too little to say anything.
    fn closed_loop(
        &self,
        service: &Service,
        started: &mut Started,
        face: &Face,
        (rows, connections): (usize, usize),
        answers: &mut Answers,
    ) -> Result<Option<Rate>, String> {
        let pace = Pace { connections, rate: None, warm_up: WARM_UP, window: self.bench.options.http_window() };
        let (seen, cost) = self.measured(started, &self.questions(started, face, rows), pace)?;
        answers.compare_kept(self.rows, rows, &seen)?;
        let milliseconds = |quantile| seen.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let rate = Rate {
            round: self.round,
            model: self.model,
            service: face.name.clone(),
            version: service.version.clone(),
            rows,
            connections,
            requests: cost.answered,
            wall_seconds: cost.wall,
            cpu_seconds: cost.cpu,
            client_cpu_seconds: cost.client_cpu,
            others_share: cost.others_share,
            peak_rss_bytes: started.running.tree.peak_rss(),
            p50: milliseconds(0.5),
            p99: milliseconds(0.99),
        };
        if rate.requests == 0 || cost.cpu == 0.0 {
            return Ok(None);
        }
        eprintln!(
            "    {:<36} {rows:>3} rows {connections:>3} connections {:>8.0}/CPU-s {:>8.0}/s  client {:>3.0} % of a core",
            face.name,
            rate.per_cpu_second(),
            rate.per_second(),
            cost.client_cpu / cost.wall * 100.0
        );
        Ok(Some(rate))
    }

    fn open_loop(
        &self,
        started: &mut Started,
        face: &Face,
        (rows, rate): (usize, u64),
        answers: &mut Answers,
    ) -> Result<Wait, String> {
        let window = self.bench.options.http_window().max(Duration::from_secs(OPEN_REQUESTS / rate.max(1)));
        let pace = Pace { connections: OPEN_CONNECTIONS, rate: Some(rate), warm_up: WARM_UP, window };
        let (seen, cost) = self.measured(started, &self.questions(started, face, rows), pace)?;
        answers.compare_kept(self.rows, rows, &seen)?;
        let milliseconds = |quantile| seen.latencies.value_at_quantile(quantile) as f64 / 1e3;
        let wait = Wait {
            round: self.round,
            model: self.model,
            service: face.name.clone(),
            rows,
            rate,
            requests: seen.latencies.len(),
            p50: milliseconds(0.5),
            p90: milliseconds(0.9),
            p99: milliseconds(0.99),
            worst: seen.latencies.max() as f64 / 1e3,
            sender_late_p99: seen.late.value_at_quantile(0.99) as f64 / 1e3,
            cpu_share: cost.cpu / cost.wall,
            others_share: cost.others_share,
        };
        eprintln!(
            "    {:<36} {rows:>3} rows {rate:>5}/s  p50 {:>6.2}  p99 {:>7.2} ms  {:>4.1} % of a core",
            face.name,
            wait.p50,
            wait.p99,
            wait.cpu_share * 100.0
        );
        Ok(wait)
    }

    /// Puts a load on, and takes what it cost between the opening of its window and its end.
    fn measured(&self, started: &mut Started, questions: &Questions, pace: Pace) -> Result<(Seen, Cost), String> {
        let mut broker = Tree::new(vec![self.bench.broker.id()]);
        let load = Load::start(questions, pace)?;
        let mut now = |until: Instant| {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
            let (cpu, client, broker) = (started.running.tree.cpu(), own_cpu(), broker.cpu());
            Sample { at: Instant::now(), answered: load.answered(), cpu, client, broker, busy: machine_busy() }
        };
        let first = now(load.opens);
        let last = now(load.closes);
        let seen = load.finish();
        started.running.check()?;
        Ok((seen?, last.since(&first)))
    }
}

impl Answers {
    fn compare(&mut self, rows: &Rows, (number, per_request): (usize, usize), answer: &[u8]) -> Result<(), String> {
        self.worst_difference = self.worst_difference.max(rows.compare(number, per_request, answer)?);
        self.compared += 1;
        Ok(())
    }

    /// Answers given under load: where requests are scored together, one must not get another's scores.
    fn compare_kept(&mut self, rows: &Rows, per_request: usize, seen: &Seen) -> Result<(), String> {
        seen.kept.iter().try_for_each(|(number, answer)| self.compare(rows, (*number, per_request), answer))
    }
}

/// The face of ours that is asked in the same way, so that both read the very same bytes.
fn same_questions<'a>(face: &Face, services: &'a [Service]) -> Option<&'a Face> {
    let forms = |face: &Face| -> (Form, Form) { (face.one.form, face.many.form) };
    let mut faces = services.iter().flat_map(|service| &service.faces);
    faces.find(|ours| ours.ours && forms(ours) == forms(face))
}
