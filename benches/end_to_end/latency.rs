//! From send to receipt at a given rate, against an echo and, exactly once, against peers.
//!
//! ```text
//!  sender (open loop, linger 0) ─► input ─► contender ─► output ─► receiver (read_committed)
//!     record n is due at start + n / rate                            now − due = latency of n
//! ```
//!
//! A record's clock starts when it was due, not when it was sent: a sender that is held up, or a contender that stalls,
//! cannot hide the wait of the records behind (coordinated omission). How late the sender itself was is in the results.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde::Serialize;
use serde_json::json;

use crate::contender::{Contender, Guarantee};
use crate::measure::{Bench, Running};
use crate::peers;
use crate::processes::Tree;
use crate::report::{Claim, Spread, claims_table, table, write_json};
use crate::topics::PARTITIONS;

/// The rate that the goals are about.
pub const GOAL_RATE: u64 = 2_000;

/// At least once: most of the echo's p99.
const OF_ECHO: f64 = 1.5;

/// The rate at which there is hardly more than one record at a time.
const LOW_RATE: u64 = 200;

/// Exactly once: most CPU time of the broker, of what it needs with transactions as long as the commit interval.
const BROKER_COST: f64 = 1.6;

/// For how long transactions grow at least, milliseconds.
const GROWN: [u64; 3] = [20, 50, 100];

/// Of peers, milliseconds.
const PEERS_GROWN: [u64; 2] = [20, 100];

/// A broker's transactions are warmed up at each rate for as many times the window: at a low one its code is compiled late.
const TRANSACTIONS_WARM_UP: f64 = 4.0;

/// How long a contender may take to answer its first records.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is dropped at the least, at the rate that is measured.
const WARM_UP: Duration = Duration::from_secs(2);

/// The broker is warm when the echo's p50 is below this, milliseconds; how often that is tried.
const WARM: f64 = 3.0;
const WARM_UP_RUNS: usize = 4;

/// How long the last answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// One contender's run at one rate; times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    pub round: u64,
    pub rate: u64,
    pub label: String,
    pub records: u64,
    pub unanswered: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub worst: f64,
    /// How late the sender was, which is within the figures above.
    pub sender_late_p99: f64,
    /// Of one core.
    pub cpu_share: f64,
    /// The broker's, of one core.
    pub broker_share: f64,
    pub peak_rss_bytes: u64,
}

/// Measures, prints and writes it.
pub fn run(bench: &Bench) {
    let echo = Contender::reference("echo", Some(Guarantee::AtLeastOnce));
    let model = *bench.options.models.iter().max().unwrap();
    let [once, least] = Guarantee::ALL.map(|guarantee| bench.worker(model, guarantee, 1));
    let spared = GROWN.map(|milliseconds| {
        let interval = format!("{milliseconds}ms");
        let mut contender = bench.worker_with(model, Guarantee::ExactlyOnce, &["--min-commit-interval", &interval]);
        contender.name += &format!(", transactions of {milliseconds} ms");
        contender
    });
    let peers = peers::with_transactions(&bench.options, model, &PEERS_GROWN);
    let mut runs = Vec::new();
    warm_up(bench, &echo);
    // Transactions are code of their own.
    let warm_up = Duration::from_secs_f64(TRANSACTIONS_WARM_UP * bench.options.latency_seconds);
    let warming = Contender { warm_up, ..once.clone() };
    for &rate in &bench.options.rates {
        measure(bench, &warming, rate, 0).unwrap_or_else(|error| panic!("{error}"));
    }
    for round in 1..=bench.options.rounds {
        for &rate in &bench.options.rates {
            eprintln!("  latency, round {round} of {}, {rate}/s", bench.options.rounds);
            // Longer transactions show what shorter ones cost the broker.
            let spared = spared.iter().filter(|_| rate == GOAL_RATE);
            for contender in [&echo, &least, &once].into_iter().chain(spared) {
                runs.push(measure(bench, contender, rate, round).unwrap_or_else(|error| panic!("{error}")));
            }
            for peer in peers.iter().filter(|_| rate <= GOAL_RATE) {
                match measure(bench, peer, rate, round) {
                    Ok(run) => runs.push(run),
                    Err(error) => println!("left out: {error}"),
                }
            }
        }
    }
    let claims = claims(&runs, &echo, &least, &once, &spared[GROWN.len() - 1]);
    println!("\nMilliseconds from due time to receipt by a read_committed reader, median (min–max) of the rounds\n");
    println!("{}", latency_table(&runs));
    println!("{}", claims_table(&claims));
    write_json(&bench.options, "latency.json", json!({"runs": runs, "claims": claims}));
}

fn claims(runs: &[Latency], echo: &Contender, least: &Contender, once: &Contender, longest: &Contender) -> Vec<Claim> {
    let beside_echo = |contender: &Contender, value: fn(f64, f64) -> f64| {
        let rounds = runs.iter().filter(|run| run.rate == GOAL_RATE && run.label == contender.label());
        Spread::of(rounds.filter_map(|run| {
            let same =
                |other: &&Latency| (other.rate, other.round) == (run.rate, run.round) && other.label == echo.label();
            Some(value(run.p99, runs.iter().find(same)?.p99))
        }))
    };
    let mut claims = Vec::new();
    if let Some(found) = beside_echo(least, |ours, echo| ours / echo) {
        claims.push(Claim::at_most(format!("at-least-once p99 / echo's p99 at {GOAL_RATE}/s"), found, OF_ECHO));
    }
    let of = |rate: u64, value: fn(&Latency) -> f64| {
        Spread::of(runs.iter().filter(|run| run.rate == rate && run.label == once.label()).map(value))
    };
    for (rate, quantile, value, goal) in [
        (GOAL_RATE, "p50", (|run| run.p50) as fn(&Latency) -> f64, 15.0),
        (GOAL_RATE, "p99", |run| run.p99, 30.0),
        (LOW_RATE, "p99", |run| run.p99, 12.0),
    ] {
        if let Some(found) = of(rate, value) {
            claims.push(Claim::at_most(format!("exactly-once {quantile} at {rate}/s, ms"), found, goal));
        }
    }
    let rounds = runs.iter().filter(|run| run.rate == GOAL_RATE && run.label == once.label());
    let broker = rounds.filter_map(|run| {
        let same =
            |other: &&Latency| (other.rate, other.round) == (run.rate, run.round) && other.label == longest.label();
        Some(run.broker_share / runs.iter().find(same)?.broker_share)
    });
    if let Some(found) = Spread::of(broker) {
        let what = format!("exactly-once, the broker's CPU time / with transactions of 100 ms, at {GOAL_RATE}/s");
        claims.push(Claim::at_most(what, found, BROKER_COST));
    }
    claims
}

/// One line per rate and contender.
pub fn latency_table(runs: &[Latency]) -> String {
    let mut lines: Vec<(u64, &str)> = Vec::new();
    for run in runs {
        if !lines.contains(&(run.rate, &run.label)) {
            lines.push((run.rate, &run.label));
        }
    }
    lines.sort_by_key(|(rate, _)| *rate);
    let rows = lines.into_iter().map(|(rate, label)| {
        let of = |value: fn(&Latency) -> f64| {
            let rounds = runs.iter().filter(|run| run.rate == rate && run.label == label);
            Spread::of(rounds.map(value)).unwrap()
        };
        let columns: [fn(&Latency) -> f64; 3] = [|run| run.p50, |run| run.p99, |run| run.p999];
        let mut row = vec![format!("{rate}/s, {label}")];
        row.extend(columns.map(|column| format!("{:.1}", of(column))));
        row.push(format!("{:.1} %", of(|run| run.cpu_share).median * 100.0));
        row.push(format!("{:.1} %", of(|run| run.broker_share).median * 100.0));
        row.push(format!("{:.2}", of(|run| run.sender_late_p99).median));
        row
    });
    table(&["", "p50", "p99", "p99.9", "of a core", "broker", "sender late p99"], rows.collect())
}

/// A young broker compiles itself for a while, and the first contender would wait for it: lets an echo run until its
/// p50 is that of an idle machine, or for some rounds in vain.
pub fn warm_up(bench: &Bench, echo: &Contender) {
    for _ in 0..WARM_UP_RUNS {
        eprintln!("  warming the broker up");
        let latency = measure(bench, echo, GOAL_RATE, 0).unwrap_or_else(|error| panic!("{error}"));
        if latency.p50 < WARM {
            return;
        }
    }
}

/// One contender at one rate.
pub fn measure(bench: &Bench, contender: &Contender, rate: u64, round: u64) -> Result<Latency, String> {
    let input = format!("latency-{}", uuid::Uuid::new_v4().simple());
    bench.admin.create(&input, &[]);
    let job = bench.job(&input, 0);
    let receiver = Receiver::start(&job.brokers, &job.output, rate);
    let outcome = Running::start(contender, &job)
        .and_then(|mut running| drive(bench, contender, &mut running, &receiver, &input, rate));
    let latencies = receiver.finish();
    bench.admin.delete(&[&input, &job.output]);
    let driven = outcome.map_err(|error| format!("{}: {error}", contender.label()))?;
    let milliseconds = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let latency = Latency {
        round,
        rate,
        label: contender.label(),
        records: driven.measured,
        unanswered: driven.measured.saturating_sub(latencies.len()),
        p50: milliseconds(0.5),
        p90: milliseconds(0.9),
        p99: milliseconds(0.99),
        p999: milliseconds(0.999),
        worst: latencies.max() as f64 / 1e3,
        sender_late_p99: driven.late.value_at_quantile(0.99) as f64 / 1e3,
        cpu_share: driven.cpu_share,
        broker_share: driven.broker_share,
        peak_rss_bytes: driven.peak_rss_bytes,
    };
    eprintln!(
        "    {:<52} p50 {:>7.2}  p99 {:>7.2}  p99.9 {:>7.2} ms  {:>4.1} % of a core, broker {:>4.1} %, {} unanswered",
        latency.label,
        latency.p50,
        latency.p99,
        latency.p999,
        latency.cpu_share * 100.0,
        latency.broker_share * 100.0,
        latency.unanswered
    );
    Ok(latency)
}

/// What the sending side saw.
struct Driven {
    measured: u64,
    late: Histogram<u64>,
    cpu_share: f64,
    broker_share: f64,
    peak_rss_bytes: u64,
}

fn drive(
    bench: &Bench,
    contender: &Contender,
    running: &mut Running,
    receiver: &Receiver,
    input: &str,
    rate: u64,
) -> Result<Driven, String> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bench.broker.address()).set("linger.ms", "0");
    let producer: BaseProducer = config.create().unwrap();
    let send = |partition: u64, key: &str, number: u64| {
        let record = BaseRecord::to(input).partition((partition % PARTITIONS as u64) as i32);
        producer.send(record.key(key).payload(bench.records.get(number))).map_err(|(error, _)| error).unwrap();
        producer.poll(Duration::ZERO);
    };
    for partition in 0..PARTITIONS as u64 {
        send(partition, "probe", partition);
    }
    let deadline = Instant::now() + PATIENCE;
    while receiver.shared.probes.load(Ordering::Relaxed) < PARTITIONS as u64 {
        running.check()?;
        if Instant::now() > deadline {
            return Err(running.complaint("no answer to the first records"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }

    let warm_up = (contender.warm_up.max(WARM_UP).as_secs_f64() * rate as f64) as u64;
    let count = warm_up + (bench.options.latency_seconds * rate as f64) as u64;
    let mut late = histogram();
    let mut broker = Tree::new(vec![bench.broker.id()]);
    let (mut key, mut opened) = (itoa::Buffer::new(), None);
    let start = Instant::now() + Duration::from_millis(20);
    receiver.shared.start.set(Start { at: start, warm_up }).unwrap();
    for number in 0..count {
        let due = start + due(number, rate);
        let now = wait_until(due);
        if number >= warm_up {
            opened.get_or_insert_with(|| (now, running.tree.cpu(), broker.cpu()));
            late.saturating_record((now - due).as_micros() as u64);
        }
        send(number, key.format(number), number);
    }
    producer.flush(Duration::from_secs(30)).unwrap();
    let (opened, cpu, broker_cpu) = opened.unwrap();
    let seconds = opened.elapsed().as_secs_f64();
    let cpu_share = (running.tree.cpu() - cpu).as_secs_f64() / seconds;
    let broker_share = (broker.cpu() - broker_cpu).as_secs_f64() / seconds;
    let deadline = Instant::now() + LAST_ANSWERS;
    while receiver.shared.received.load(Ordering::Relaxed) < count - warm_up && Instant::now() < deadline {
        running.check()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    let peak_rss_bytes = running.tree.peak_rss();
    running.stop();
    Ok(Driven { measured: count - warm_up, late, cpu_share, broker_share, peak_rss_bytes })
}

/// When record `number` is due, from the start.
pub fn due(number: u64, rate: u64) -> Duration {
    Duration::from_nanos((u128::from(number) * 1_000_000_000 / u128::from(rate)) as u64)
}

/// Sleeps, and gives the time after. Never spins: on a small machine that would take a core from what is measured.
pub fn wait_until(due: Instant) -> Instant {
    loop {
        let now = Instant::now();
        match due.checked_duration_since(now) {
            Some(left) if !left.is_zero() => std::thread::sleep(left),
            _ => return now,
        }
    }
}

/// Microseconds, up to a minute, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap()
}

/// When sending began, and how many records do not count.
#[derive(Debug)]
struct Start {
    at: Instant,
    warm_up: u64,
}

#[derive(Default)]
struct Shared {
    start: OnceLock<Start>,
    probes: AtomicU64,
    received: AtomicU64,
    stop: AtomicBool,
}

/// Reads the output on a thread of its own and notes when each record arrives.
struct Receiver {
    shared: Arc<Shared>,
    thread: JoinHandle<Histogram<u64>>,
}

impl Receiver {
    fn start(brokers: &str, topic: &str, rate: u64) -> Receiver {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", topic).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("fetch.queue.backoff.ms", "5");
        let consumer: BaseConsumer = config.create().unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let shared = shared.clone();
            move || receive(&consumer, &shared, rate)
        });
        Receiver { shared, thread }
    }

    fn finish(self) -> Histogram<u64> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn receive(consumer: &BaseConsumer, shared: &Shared, rate: u64) -> Histogram<u64> {
    let mut latencies = histogram();
    while !shared.stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let now = Instant::now();
        let number = message.key().and_then(|key| std::str::from_utf8(key).ok()?.parse::<u64>().ok());
        match (number, shared.start.get()) {
            (Some(number), Some(start)) if number >= start.warm_up => {
                let latency = now.saturating_duration_since(start.at + due(number, rate));
                latencies.saturating_record(latency.as_micros().max(1) as u64);
                shared.received.fetch_add(1, Ordering::Relaxed);
            }
            (Some(_), _) => {}
            (None, _) => {
                shared.probes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    latencies
}
