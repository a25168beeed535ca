//! Chaos: three brokers, three workers, an archive and an open-loop producer, under seeded faults. An independent reader
//! counts every number. `make chaos` is the long run; `cargo test` runs a bounded one.
//!
//! ```text
//!  traffic ──► input ──► proxies ──► workers ──► proxies ──► output, dead letters ──► checker
//!                 faults ───┴──────────┴───────────┘            └────► archive ──► files
//! ```
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use rdkafka::admin::TopicReplication;

mod archiver;
mod checker;
mod cluster;
mod faults;
mod fleet;
mod proxy;
#[path = "../promises/support/mod.rs"]
#[allow(dead_code)]
mod support;
mod traffic;

use self::archiver::Archiver;
use self::checker::Checker;
use self::cluster::Cluster;
use self::faults::{Fault, World, wait};
use self::fleet::{Fleet, faketime};
use self::support::topics::Topics;
use self::support::unique;
use self::traffic::Traffic;

/// Partitions at first.
const PARTITIONS: usize = 6;

/// Partitions at most: each costs the brokers something.
const MOST_PARTITIONS: usize = 16;

#[derive(Parser)]
#[command(args_override_self = true)]
struct Arguments {
    /// Which faults, in which order, with which parameters.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Faults exactly once; at least once, a third of them.
    #[arg(long, default_value_t = 8)]
    faults: usize,
    /// Fewest transactions, exactly once; at least once, a tenth of them.
    #[arg(long, default_value_t = 0)]
    transactions: usize,
    /// Transactions per second.
    #[arg(long, default_value_t = 1_000)]
    rate: u64,
    /// One guarantee alone.
    #[arg(long, value_parser = ["exactly-once", "at-least-once"])]
    guarantee: Option<String>,
    /// Only these faults (`worker-killed,leader-killed`).
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
}

/// Drawn numbers (SplitMix64), the same for the same seed.
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    /// From `from` up to, and without, `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from).max(1)
    }
}

/// A topic on all brokers.
pub fn make(topics: &Topics, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    topics.make_on(name, partitions, TopicReplication::Fixed(3), settings);
}

/// What came of a run.
#[derive(Default)]
struct Report {
    sent: usize,
    faults: BTreeMap<Fault, usize>,
    lost: usize,
    excused: usize,
    doubled: usize,
    disordered: usize,
    longest_stall: Duration,
    recoveries: Vec<Duration>,
    samples: usize,
    idle: usize,
    /// What must not be.
    violations: Vec<String>,
}

/// The faults of a run: every kind in turn, in an order that the seed says.
fn plan(kinds: &[Fault], count: usize, random: &mut Random) -> Vec<Fault> {
    let mut plan = Vec::new();
    while plan.len() < count && !kinds.is_empty() {
        let mut round = kinds.to_vec();
        while !round.is_empty() {
            plan.push(round.remove(random.below(round.len())));
        }
    }
    plan.truncate(count);
    plan
}

fn run(
    cluster: Cluster,
    guarantee: &'static str,
    (kinds, count): (&[Fault], usize),
    transactions: usize,
    rate: u64,
    random: &mut Random,
) -> (Cluster, Report) {
    let mut report = Report::default();
    let topics = Topics {
        client: cluster.client(),
        brokers: cluster.client().get("bootstrap.servers").unwrap().to_owned(),
        input: unique("transactions"),
        output: unique("verdicts"),
        dead_letter: unique("dead-letters"),
        group: unique("group"),
    };
    let partitions = PARTITIONS as i32;
    make(&topics, &topics.input, partitions, &[]);
    // It takes nothing without a key, and yet forgets nothing.
    let keyed = [("cleanup.policy", "compact,delete"), ("min.compaction.lag.ms", "86400000")];
    make(&topics, &topics.output, partitions, &keyed);
    make(&topics, &topics.dead_letter, partitions, &[]);
    let client = cluster.client();
    let clock = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let mut archiver = Archiver::new(&topics, &cluster.proxied());
    let (traffic, producer) = Traffic::start(&client, &topics.input, PARTITIONS, rate);
    let (checker, reader) = Checker::start(&client, &topics.output, &topics.dead_letter, PARTITIONS);
    let fleet = Fleet::new(topics, cluster.proxied(), guarantee, Some(clock.to_path_buf()));
    let fleet = std::sync::Arc::new(fleet);
    (0..3).for_each(|_| fleet.start());
    archiver.start();
    let sampler = fleet.sample(&client, &traffic);
    let mut world = World { cluster, fleet, traffic, checker, archiver, excused: Vec::new() };

    let began = Instant::now();
    let mut healthy = world.recover();
    world.checker.is_expecting.store(true, Ordering::SeqCst);
    for (number, fault) in plan(kinds, count, random).into_iter().enumerate() {
        if let Err(error) = &healthy {
            report.violations.push(error.clone());
            break;
        }
        if fault == Fault::PartitionsAdded && world.traffic.partitions.load(Ordering::SeqCst) >= MOST_PARTITIONS {
            continue;
        }
        std::thread::sleep(Duration::from_millis(random.between(500, 2_500)));
        let injected = Instant::now();
        if let Err(error) = world.inject(fault, random) {
            report.violations.push(format!("{fault:?}: {error}"));
            break;
        }
        *report.faults.entry(fault).or_default() += 1;
        healthy = world.recover().map_err(|error| format!("after {fault:?}: {error}"));
        let seen = world.checker.seen.lock().unwrap().distinct;
        println!(
            "{guarantee}: fault {} of {count} ({fault:?}) {:.1} s, caught up after {:.1} s; {seen} seen, {} idle samples",
            number + 1,
            injected.elapsed().as_secs_f64(),
            healthy.as_ref().map_or(0.0, Duration::as_secs_f64),
            world.fleet.idle.lock().unwrap().len(),
        );
        report.recoveries.extend(healthy.as_ref().ok());
        healthy = healthy.and_then(|recovered| world.archiver.catch_up(10.0 * rate as f64).map(|()| recovered));
    }
    // What is left of the transactions.
    while report.violations.is_empty() && world.traffic.sent.load(Ordering::SeqCst) < transactions {
        std::thread::sleep(Duration::from_millis(200));
        let caught_up = world.recover().and_then(|_| world.archiver.catch_up(10.0 * rate as f64));
        report.violations.extend(caught_up.err());
    }
    // From here on no more verdicts are owed, and waiting for the archive is no standstill.
    world.checker.is_expecting.store(false, Ordering::SeqCst);
    if let Err(error) = world.traffic.pause(Duration::from_secs(120)) {
        report.violations.push(error);
    }
    let places = world.traffic.places.lock().unwrap().clone();
    let excused = |place: &traffic::Place| {
        world.excused.iter().any(|(topic, partition, below)| {
            place.topic == *topic && partition.is_none_or(|one| one == place.partition) && place.offset < *below
        })
    };
    let missing = |count_excused: bool| {
        let seen = world.checker.seen.lock().unwrap();
        let is_missing = |number: usize| seen.times.get(number).copied().unwrap_or(0) == 0;
        let stands = |place: &traffic::Place| place.topic > 0 && excused(place) == count_excused;
        places.iter().enumerate().filter(|(number, place)| stands(place) && is_missing(*number)).count()
    };
    if let Err(error) = wait("every number", Duration::from_secs(120), || missing(false) == 0) {
        report.violations.push(format!("{error}\n{}", world.fleet.state()));
    }
    // What should not come would come now.
    std::thread::sleep(Duration::from_secs(2));
    (report.sent, report.lost, report.excused) = (places.len(), missing(false), missing(true));
    while world.fleet.len() > 0 {
        if let Err(error) = world.fleet.drain(0) {
            report.violations.push(error);
        }
    }
    let verdicts = world.checker.seen.lock().unwrap().verdicts;
    report.violations.extend(world.archiver.check(verdicts, Duration::from_secs(300)));
    world.fleet.end();
    world.traffic.end();
    world.checker.end();
    for thread in [producer, reader, sampler] {
        thread.join().unwrap();
    }
    let seen = world.checker.seen.lock().unwrap();
    (report.doubled, report.disordered, report.longest_stall) = (seen.doubled, seen.disordered, seen.longest_stall);
    report.samples = world.fleet.samples.load(Ordering::Relaxed);
    let idle = world.fleet.idle.lock().unwrap();
    report.idle = idle.len();
    if report.lost > 0 {
        report.violations.push(format!("{} transactions are lost", report.lost));
    }
    if guarantee == "exactly-once" && report.doubled + report.disordered > 0 {
        report.violations.extend(seen.faults.iter().cloned());
    }
    report.violations.extend(world.fleet.long_idle.lock().unwrap().iter().take(10).cloned());
    println!("{guarantee}: {:.0} s", began.elapsed().as_secs_f64());
    drop((seen, idle));
    (world.cluster, report)
}

fn table(reports: &[(&str, Report)]) -> String {
    let mut text = String::new();
    let names: Vec<&str> = reports.iter().map(|(name, _)| *name).collect();
    let mut line = |name: &str, value: &dyn Fn(&Report) -> String| {
        let values: Vec<String> = reports.iter().map(|(_, report)| value(report)).collect();
        writeln!(text, "| {name} | {} |", values.join(" | ")).unwrap();
    };
    line("transactions", &|report| report.sent.to_string());
    line("faults", &|report| report.faults.values().sum::<usize>().to_string());
    for fault in Fault::value_variants() {
        line(&format!("· {}", fault.words()), &|report| {
            report.faults.get(fault).copied().unwrap_or_default().to_string()
        });
    }
    line("lost", &|report| report.lost.to_string());
    line("gone from the log before they were read", &|report| report.excused.to_string());
    line("doubled", &|report| report.doubled.to_string());
    line("out of order", &|report| report.disordered.to_string());
    line("longest time without a verdict", &|report| format!("{:.1} s", report.longest_stall.as_secs_f64()));
    line("recovery, median", &|report| seconds(&report.recoveries, 2));
    line("recovery, longest", &|report| seconds(&report.recoveries, 1));
    line("samples of workers", &|report| report.samples.to_string());
    line("ready and not working", &|report| report.idle.to_string());
    let head = format!("| | {} |\n|---|{}\n", names.join(" | "), "---:|".repeat(names.len()));
    head + &text
}

/// The longest where `of` is 1, the median where it is 2.
fn seconds(times: &[Duration], of: usize) -> String {
    let mut sorted = times.to_vec();
    sorted.sort();
    let index = (sorted.len() / of).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or("-".into(), |time| format!("{:.1} s", time.as_secs_f64()))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut random = Random(arguments.seed);
    let mut cluster = Cluster::start();
    let mut kinds = if arguments.only.is_empty() { Fault::value_variants().to_vec() } else { arguments.only.clone() };
    for (kind, is_there) in [(Fault::DiskFull, cluster.small.is_some()), (Fault::ClockJumped, faketime().is_some())] {
        if !is_there && kinds.contains(&kind) {
            println!("SKIPPED: {}: needs the right to mount, or the package faketime", kind.words());
            // `.ci/run` installs that package; the right to mount is the machine's.
            assert!(kind == Fault::DiskFull || std::env::var_os("CI").is_none(), "in CI nothing is skipped");
            kinds.retain(|other| *other != kind);
        }
    }
    let mut reports = Vec::new();
    for (guarantee, share, part) in [("exactly-once", 1, 1), ("at-least-once", 3, 10)] {
        if arguments.guarantee.as_ref().is_some_and(|only| only != guarantee) {
            continue;
        }
        let count = arguments.faults.div_ceil(share);
        let transactions = arguments.transactions / part;
        let (again, report) = run(cluster, guarantee, (&kinds, count), transactions, arguments.rate, &mut random);
        cluster = again;
        reports.push((guarantee, report));
    }
    println!("\nseed {}\n\n{}", arguments.seed, table(&reports));
    let mut status = ExitCode::SUCCESS;
    for (guarantee, report) in &reports {
        for violation in &report.violations {
            println!("VIOLATION ({guarantee}): {violation}");
            status = ExitCode::FAILURE;
        }
    }
    status
}
