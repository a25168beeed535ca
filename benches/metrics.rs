//! `make bench ARGS=metrics`: what metrics, and drift beside them, take of the hot path, in one run on one thread.
//!
//! ```text
//!  records of .runtime/bench ─► decode ─► score ─► encode            ┐
//!                               the same, counted as a worker does   ├─ in turn, round after round ─► ratios
//!                               the same, drift watched              ┘
//! ```
//!
//! The stages are those of a scoring thread without what librdkafka does, so a share here is more than its share of a
//! whole worker. Counted as a worker does: decision, score, amount and timestamp per row; stage times and the batch's size
//! per batch; everything added to the process's metrics per commit. Time is the thread's time on a processor, so that
//! other work on the machine disturbs less. A claim is the median of the rounds' own ratios.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fraud_scorer::drift::DriftSettings;
use fraud_scorer::kafka::embedded::EmbeddedBroker;
use fraud_scorer::kafka::statistics::Statistics;
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::encode::{Encoder, RowSource};
use fraud_scorer::pipeline::engine::{Engine, Outcome};
use fraud_scorer::telemetry::clients::{Client, Role};
use fraud_scorer::telemetry::metrics::{self, Exposition, Instruments, Measured, Stage, Tally};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

/// Records in memory: more than the second-level cache holds, as those that come from the network.
const RECORDS: usize = 16 * 1024;

/// Rows of a batch: under load, and while the worker keeps up easily.
const BATCHES: [usize; 2] = [1024, 16];

/// Rows between two commits: 100 ms of a thread under load.
const COMMIT_ROWS: usize = 64 * 1024;

/// Rows whose records have the same timestamp, in milliseconds: 16,000 rows a second. The fewer, the more is to be done.
const ROWS_PER_MILLISECOND: usize = 16;

/// Rounds; the first is not counted.
const ROUNDS: usize = 16;

/// Rows of one pass: some 50 to 200 ms.
const PASS_ROWS: usize = 16 * RECORDS;

/// What is done beside the stages.
#[derive(Clone, Copy, PartialEq)]
enum Beside {
    Nothing,
    Metrics,
    Drift,
}

const CONTENDERS: [Beside; 3] = [Beside::Nothing, Beside::Metrics, Beside::Drift];

struct Worker {
    engine: Engine,
    encoder: Encoder,
    amount: Option<usize>,
    instruments: Instruments,
    tally: Tally,
    measured: Measured,
    values: Vec<u8>,
}

fn main() {
    let results = std::env::args().skip_while(|argument| argument != "--results").nth(1);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(".runtime/bench");
    let text = std::fs::read_to_string(directory.join("records.jsonl")).expect("make bench ARGS=metrics makes it");
    let records: Vec<&[u8]> = text.lines().take(RECORDS).map(str::as_bytes).collect();
    assert_eq!(records.len(), RECORDS);
    let exposition = metrics::install().unwrap();
    let mut json = Vec::new();

    println!(
        "nanoseconds per row on one thread, and what is added to them: median of {} rounds (lowest to highest)\n",
        ROUNDS - 1
    );
    println!(
        "| {:<5} | {:>5} | {:>22} | {:>32} | {:>32} |",
        "model", "batch", "decode, score, encode", "metrics", "drift"
    );
    println!("|{0}|{1}:|{2}:|{3}:|{3}:|", "-".repeat(7), "-".repeat(6), "-".repeat(23), "-".repeat(33));
    for model in ["lr", "xgb"] {
        let bundle = Bundle::load(&directory.join(model)).unwrap();
        for batch in BATCHES {
            let mut worker = Worker::new(&bundle, Beside::Nothing);
            // The references of the bench's bundles are the committed model's: same features, and a row costs the same.
            let mut watched = Worker::new(&bundle, Beside::Drift);
            let mut times = [const { Vec::new() }; CONTENDERS.len()];
            for round in 0..ROUNDS {
                // Every other round backwards: who is first has no lasting advantage.
                let mut order = CONTENDERS;
                if round % 2 == 1 {
                    order.reverse();
                }
                for beside in order {
                    let worker = if beside == Beside::Drift { &mut watched } else { &mut worker };
                    let time = worker.pass(&records, batch, beside);
                    if round > 0 {
                        times[beside as usize].push(time);
                    }
                }
            }
            let [alone, counted, drift] = &times;
            let (with_metrics, with_drift) = (Added::of(alone, counted), Added::of(alone, drift));
            let alone = median(alone.clone());
            println!("| {model:<5} | {batch:>5} | {alone:>22.1} | {with_metrics:>32} | {with_drift:>32} |");
            json.push(serde_json::json!({
                "model": model, "batch": batch, "stages_ns": alone,
                "metrics_share": with_metrics.share, "drift_share": with_drift.share,
            }));
        }
    }
    show_costs(&exposition);
    if let Some(path) = results {
        std::fs::write(&path, serde_json::to_string_pretty(&json).unwrap() + "\n").unwrap();
        println!("\nwritten: {path}");
    }
}

impl Worker {
    fn new(bundle: &Bundle, beside: Beside) -> Worker {
        let mut engine = Engine::new(bundle, 1 << 20).unwrap();
        if beside == Beside::Drift {
            let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fraud-lr");
            let monitor = fraud_scorer::drift::open(&reference, &bundle.manifest, DriftSettings::default());
            assert!(monitor.is_some(), "the bench's bundles have the features of models/fraud-lr");
            engine.watch(monitor);
        }
        Worker {
            engine,
            encoder: Encoder::new("fraud", "1", "transactions"),
            amount: bundle.manifest.features.iter().position(|feature| feature.name == "Amount"),
            instruments: Instruments::default(),
            tally: Tally::default(),
            measured: Measured::default(),
            values: Vec::new(),
        }
    }

    /// Nanoseconds per row of one pass.
    fn pass(&mut self, records: &[&[u8]], batch: usize, beside: Beside) -> f64 {
        let began = on_processor();
        let (mut rows, mut uncommitted, mut timestamp) = (0, 0, 0);
        for records in records.chunks_exact(batch).cycle() {
            let times = self.engine.run(records.iter().map(|record| Some(*record)));
            let produced = Instant::now();
            self.values.clear();
            for (index, (record, outcome)) in records.iter().zip(self.engine.outcomes()).enumerate() {
                let Outcome::Scored(range) = outcome else { continue };
                let first = range.start;
                for row in self.engine.rows(range.clone()) {
                    let source = RowSource { partition: 3, offset: (rows + index) as i64, row: 0 };
                    self.encoder.verdict(&mut self.values, record, &row, 1_700_000_000_000, source);
                    if beside == Beside::Metrics {
                        let row_of = first + row.meta.row as usize;
                        let amount = self.amount.map(|column| self.engine.features_of(row_of)[column]);
                        timestamp = ((rows + index) / ROWS_PER_MILLISECOND) as i64;
                        self.tally.verdict(row.decision, row.score, Some(timestamp), amount);
                    }
                }
            }
            black_box(&self.values);
            rows += records.len();
            uncommitted += records.len();
            match beside {
                Beside::Nothing => {}
                Beside::Metrics => {
                    self.measured.stage(Stage::Decode, times.decode);
                    self.measured.stage(Stage::Inference, times.inference);
                    self.measured.stage(Stage::Produce, produced.elapsed());
                    self.measured.batch(self.engine.row_count());
                }
                Beside::Drift => self.engine.observe_drift(produced, &mut self.tally.drift),
            }
            if uncommitted >= COMMIT_ROWS {
                uncommitted = 0;
                match beside {
                    Beside::Nothing => {}
                    Beside::Metrics => {
                        self.measured.stage(Stage::Commit, Duration::from_millis(5));
                        self.instruments.measured(&mut self.measured);
                        self.instruments.committed(&mut self.tally, timestamp + 30);
                    }
                    Beside::Drift => self.tally.drift.publish(Instant::now()),
                }
            }
            if rows >= PASS_ROWS {
                break;
            }
        }
        (on_processor() - began) as f64 / rows as f64
    }
}

/// What is added to the stages.
struct Added {
    /// Nanoseconds per row.
    time: f64,
    /// Of the stages' time: median, lowest, highest.
    share: [f64; 3],
}

impl Added {
    fn of(alone: &[f64], with: &[f64]) -> Added {
        let shares: Vec<f64> = alone.iter().zip(with).map(|(alone, with)| with / alone - 1.0).collect();
        let (low, high) =
            shares.iter().fold((f64::MAX, f64::MIN), |(low, high), &share| (low.min(share), high.max(share)));
        let time = median(alone.iter().zip(with).map(|(alone, with)| with - alone).collect());
        Added { time, share: [median(shares), low, high] }
    }
}

impl std::fmt::Display for Added {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [share, low, high] = self.share.map(|share| share * 100.0);
        formatter.pad(&format!("{:+.1} ns, {share:+.1} % ({low:+.1} to {high:+.1})", self.time))
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds that this thread was on a processor; where the system does not say, that have passed.
fn on_processor() -> u64 {
    // The account is settled when the thread gives way.
    std::thread::yield_now();
    let account = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let settled = account.and_then(|text| text.split(' ').next()?.parse().ok()).filter(|&time| time > 0);
    settled.unwrap_or_else(|| {
        static BEGAN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        BEGAN.get_or_init(Instant::now).elapsed().as_nanos() as u64
    })
}

/// What happens once a second or less: a client's statistics, on the thread that serves it, and a scrape, elsewhere.
fn show_costs(exposition: &Exposition) {
    let json = statistics_of_a_producer();
    let client = Client::opened(Role::Producer);
    let read = mean(|| client.report(&Statistics::read(&json).unwrap()));
    println!("\na client's statistics ({} bytes) read and added: {read:.0} µs, on its thread", json.len());
    let scrape = mean(|| drop(black_box(exposition.render())));
    println!("a scrape without drift ({} bytes): {scrape:.0} µs, on the thread of HTTP", exposition.render().len());
}

/// Microseconds that a call takes.
fn mean(mut call: impl FnMut()) -> f64 {
    const CALLS: u32 = 500;
    let began = on_processor();
    (0..CALLS).for_each(|_| call());
    (on_processor() - began) as f64 / 1e3 / f64::from(CALLS)
}

/// Keeps the client's last statistics.
#[derive(Default)]
struct Kept(Mutex<Vec<u8>>);

impl ClientContext for Kept {
    fn stats_raw(&self, json: &[u8]) {
        *self.0.lock().unwrap() = json.to_vec();
    }
}

impl ProducerContext for Kept {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// As librdkafka writes them of a producer to two topics of four partitions, on the embedded broker.
fn statistics_of_a_producer() -> Vec<u8> {
    let broker = EmbeddedBroker::start(&["verdicts", "letters"], 4).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address()).set("statistics.interval.ms", "1000");
    let producer: BaseProducer<Kept> = config.create_with_context(Kept::default()).unwrap();
    for topic in ["verdicts", "letters"] {
        for partition in 0..4 {
            let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition).payload(b"value");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    // The first may come before anything was sent.
    for _ in 0..2 {
        producer.context().0.lock().unwrap().clear();
        while producer.context().0.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "no statistics");
            producer.poll(Duration::from_millis(100));
        }
    }
    producer.context().0.lock().unwrap().clone()
}
