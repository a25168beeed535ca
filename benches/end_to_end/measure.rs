//! One contender's run over the loaded topic, measured from outside.
//!
//! ```text
//!  start ──► first output ──► warm-up ──► window: records, CPU of contender and broker, wall ──► 98 % or time ──► stop
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::broker::{Broker, free_port};
use crate::contender::{Contender, Guarantee, Job, Program};
use crate::machine::cores;
use crate::options::Options;
use crate::processes::{Tree, machine_busy, own_cpu};
use crate::reaper::Group;
use crate::root;
use crate::topics::{Admin, Ends};
use crate::workload::{Model, Records, load};

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a contender may take to its first output, and between two.
const PATIENCE: Duration = Duration::from_secs(90);

/// The window closes here: the tail has other costs than the run.
const ENOUGH: f64 = 0.98;

/// Where a contender's own last commit or flush may take its time.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Keeps an output topic from filling the disk.
const OUTPUT: &[(&str, &str)] = &[("segment.bytes", "67108864"), ("retention.bytes", "268435456")];

/// The broker, the loaded topic, and what was asked for.
pub struct Bench {
    pub broker: Broker,
    pub admin: Admin,
    pub records: Records,
    /// The loaded topic.
    pub input: String,
    /// How many records it holds.
    pub loaded: u64,
    pub options: Options,
}

impl Bench {
    /// Starts a broker and loads `loaded` records.
    pub fn start(mut options: Options, loaded: u64) -> Bench {
        let records = Records::read();
        let broker = Broker::start(&options.broker_directory());
        let admin = Admin::new(&broker.address());
        let input = "transactions".to_owned();
        admin.create(&input, &[]);
        admin.create("dead-letters", &[]);
        if loaded > 0 {
            load(&broker.address(), &input, &records, loaded);
        }
        let bench = Bench { broker, admin, records, input, loaded, options };
        if loaded > 0 {
            // The broker's code is compiled while it runs: whoever came first would find a slower one.
            eprintln!("  warming the broker up");
            for _ in 0..3 {
                let _ = bench.throughput(&bench.worker(Model::Lr, Guarantee::ExactlyOnce, 1));
            }
        }
        bench
    }

    /// A job on `input` with an output topic and a group of its own.
    pub fn job(&self, input: &str, linger: u32) -> Job {
        let name = format!("bench-{}", uuid::Uuid::new_v4().simple());
        self.admin.create(&name, OUTPUT);
        Job {
            brokers: self.broker.address(),
            input: input.into(),
            output: name.clone(),
            dead_letter: "dead-letters".into(),
            group: name,
            linger,
            port: free_port(),
        }
    }

    /// The worker with what the options add to it.
    pub fn worker(&self, model: Model, guarantee: Guarantee, threads: usize) -> Contender {
        Contender::worker(model, guarantee, threads, &self.options.worker)
    }

    /// The worker, with further arguments.
    pub fn worker_with(&self, model: Model, guarantee: Guarantee, arguments: &[&str]) -> Contender {
        let further = arguments.iter().map(|argument| (*argument).to_owned());
        let further: Vec<String> = self.options.worker.iter().cloned().chain(further).collect();
        Contender::worker(model, guarantee, 1, &further)
    }

    /// Runs a contender over the loaded topic.
    pub fn throughput(&self, contender: &Contender) -> Result<Measured, String> {
        let job = self.job(&self.input, 5);
        let measured =
            Running::start(contender, &job).and_then(|mut running| self.watch(&mut running, contender, &job));
        self.admin.delete(&[&job.output]);
        let outcome = measured.as_ref().map_or_else(Clone::clone, ToString::to_string);
        eprintln!("    {:<52} {outcome}", contender.label());
        measured
    }

    fn watch(&self, running: &mut Running, contender: &Contender, job: &Job) -> Result<Measured, String> {
        let ends = Ends::of(&job.brokers, &job.output);
        let mut broker = Tree::new(vec![self.broker.id()]);
        let enough = (self.loaded as f64 * ENOUGH) as u64;
        let enough = contender.records.map_or(enough, |records| enough.min(records));
        let limit = contender.warm_up + contender.window.unwrap_or(self.options.window());
        let mut samples: Vec<Sample> = Vec::new();
        let (mut opening, mut progressed) = (None, Instant::now());
        loop {
            running.check()?;
            let records = ends.sum().unwrap_or(0);
            // Looked at only where something became visible: a transaction's cost and its records come together.
            if records > samples.last().map_or(0, |sample| sample.records) {
                progressed = Instant::now();
                let at = running.started.elapsed();
                let (cpu, broker_cpu) = (running.tree.cpu(), broker.cpu());
                let others = machine_busy().saturating_sub(cpu + broker_cpu + own_cpu());
                samples.push(Sample { at, records, cpu, broker_cpu, others });
                let since_first = at - samples[0].at;
                if since_first >= contender.warm_up && opening.is_none() {
                    opening = Some(Detail::now(running, contender, job, records));
                }
                if records >= enough || since_first >= limit {
                    break;
                }
            } else if progressed.elapsed() > PATIENCE {
                return Err(running.complaint(&format!("no output for {} s", PATIENCE.as_secs())));
            }
            std::thread::sleep(LOOK);
        }
        let last = samples[samples.len() - 1];
        let closing = Detail::now(running, contender, job, last.records);
        let peak_rss_bytes = running.tree.peak_rss();
        running.stop();

        let span = last.at - samples[0].at;
        let opens = samples[0].at + contender.warm_up.min(span.mul_f64(0.4));
        let first = *samples.iter().find(|sample| sample.at >= opens).unwrap_or(&samples[0]);
        if last.records == first.records || last.cpu == first.cpu {
            return Err("too short a run: give it more records".into());
        }
        let wall_seconds = (last.at - first.at).as_secs_f64();
        Ok(Measured {
            records: last.records - first.records,
            wall_seconds,
            cpu_seconds: (last.cpu - first.cpu).as_secs_f64(),
            broker_cpu_seconds: (last.broker_cpu - first.broker_cpu).as_secs_f64(),
            others_share: last.others.saturating_sub(first.others).as_secs_f64() / wall_seconds / cores() as f64,
            first_output_seconds: samples[0].at.as_secs_f64(),
            peak_rss_bytes,
            detail: opening.map(|opening| closing.since(&opening)),
        })
    }
}

#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    records: u64,
    cpu: Duration,
    broker_cpu: Duration,
    /// Everybody else's CPU time.
    others: Duration,
}

/// What a run cost, within its window.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    pub records: u64,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
    pub broker_cpu_seconds: f64,
    /// How much of the machine went to processes that are neither the contender, nor the broker, nor the harness.
    pub others_share: f64,
    pub first_output_seconds: f64,
    pub peak_rss_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.records as f64 / self.wall_seconds
    }

    pub fn per_cpu_second(&self) -> f64 {
        self.records as f64 / self.cpu_seconds
    }

    /// Microseconds of the broker's CPU per record, for writing the output as for reading the input.
    pub fn broker_microseconds(&self) -> f64 {
        self.broker_cpu_seconds * 1e6 / self.records as f64
    }
}

impl std::fmt::Display for Measured {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{:>9.0}/CPU-s {:>9.0}/s  {:>5.1} s  broker {:>4.2} µs  {:>4} MB  others {:>2.0} %",
            self.per_cpu_second(),
            self.per_second(),
            self.wall_seconds,
            self.broker_microseconds(),
            self.peak_rss_bytes / 1_000_000,
            self.others_share * 100.0
        )
    }
}

/// Where a contender's time went: seconds by name of thread, and by stage where it says so itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Detail {
    pub records: u64,
    pub thread_cpu_seconds: BTreeMap<String, f64>,
    pub stage_seconds: BTreeMap<String, f64>,
}

impl Detail {
    fn now(running: &mut Running, contender: &Contender, job: &Job, records: u64) -> Detail {
        let stage_seconds = if contender.has_metrics() { stage_seconds(job.port) } else { BTreeMap::new() };
        let mut by_thread = BTreeMap::new();
        for (name, seconds) in running.tree.cpu_by_thread() {
            // scoring-0, scoring-1 … and rdk:broker1, rdk:broker2 … are one kind each.
            let kind = name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-');
            *by_thread.entry(kind.to_owned()).or_default() += seconds;
        }
        Detail { records, thread_cpu_seconds: by_thread, stage_seconds }
    }

    fn since(&self, before: &Detail) -> Detail {
        let difference = |now: &BTreeMap<String, f64>, before: &BTreeMap<String, f64>| {
            now.iter().map(|(key, value)| (key.clone(), value - before.get(key).unwrap_or(&0.0))).collect()
        };
        Detail {
            records: self.records - before.records,
            thread_cpu_seconds: difference(&self.thread_cpu_seconds, &before.thread_cpu_seconds),
            stage_seconds: difference(&self.stage_seconds, &before.stage_seconds),
        }
    }

    /// Microseconds of CPU per record on threads of these kinds.
    pub fn thread_microseconds(&self, of: impl Fn(&str) -> bool) -> f64 {
        let times = self.thread_cpu_seconds.iter().filter(|(kind, _)| of(kind));
        times.map(|(_, seconds)| seconds).sum::<f64>() * 1e6 / self.records as f64
    }

    /// Microseconds per record in a stage, by the worker's own clock.
    pub fn stage_microseconds(&self, stage: &str) -> f64 {
        self.stage_seconds.get(stage).unwrap_or(&0.0) * 1e6 / self.records as f64
    }
}

/// The sums of `fraud_scorer_stage_seconds`, from the worker's metrics; empty when it does not answer.
fn stage_seconds(port: u16) -> BTreeMap<String, f64> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = ask().unwrap_or_default();
    let sums = text.lines().filter_map(|line| line.strip_prefix("fraud_scorer_stage_seconds_sum{stage=\""));
    sums.filter_map(|line| line.split_once("\"} "))
        .filter_map(|(stage, sum)| Some((stage.into(), sum.parse().ok()?)))
        .collect()
}

/// A started contender.
pub struct Running {
    groups: Vec<Group>,
    pub tree: Tree,
    pub started: Instant,
    log: PathBuf,
    is_worker: bool,
}

impl Running {
    /// Starts all processes of a contender.
    pub fn start(contender: &Contender, job: &Job) -> Result<Running, String> {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("logs");
        std::fs::create_dir_all(&folder).unwrap();
        let slug: String =
            contender.label().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
        let log = folder.join(format!("{slug}.log"));
        let output = File::create(&log).unwrap();
        let mut groups = Vec::new();
        for _ in 0..contender.processes {
            let mut command = contender.command(job);
            command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
            groups.push(Group::spawn(&mut command).map_err(|error| format!("{:?}: {error}", command.get_program()))?);
        }
        let tree = Tree::new(groups.iter().map(Group::id).collect());
        let is_worker = matches!(contender.program, Program::Worker(_));
        Ok(Running { groups, tree, started: Instant::now(), log, is_worker })
    }

    /// The first process's id.
    pub fn id(&self) -> u32 {
        self.groups[0].id()
    }

    /// An error when a process has ended by itself.
    pub fn check(&mut self) -> Result<(), String> {
        match self.groups.iter_mut().find_map(Group::exited) {
            Some(status) => Err(self.complaint(&format!("ended by itself, {status}"))),
            None => Ok(()),
        }
    }

    /// What is wrong, and the end of the log.
    pub fn complaint(&self, what: &str) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let end = String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned();
        format!("{what}; its log ({}) ends:\n{end}", shown(&self.log))
    }

    /// Ends all of them. The worker must do so by itself and cleanly: a bench that kills it would hide that.
    pub fn stop(&mut self) {
        for group in &mut self.groups {
            group.stop(STOP_PATIENCE);
        }
        if self.is_worker {
            let failed = self.groups.iter_mut().find_map(|group| group.exited().filter(|status| !status.success()));
            if let Some(status) = failed {
                eprintln!("    the worker did not end cleanly: {status}; {}", shown(&self.log));
            }
        }
    }
}

/// A path as seen from the checkout: results are committed, and nobody else has the checkout where it is here.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}
