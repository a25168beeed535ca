//! `fraud-scorer demo`: the whole product in one process, on the embedded broker.
//!
//! ```text
//!  embedded broker ◄── producer thread (profile or card file)
//!        ▲  └────────► worker (the real one) ──► verdicts, dead letters
//!        └──────────── audience: an independent read_committed consumer that counts, times and compares
//! ```

mod audience;
mod display;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use fraud_producer::source::{CsvSource, EventTime, Format, ProfileSource, Source};
use fraud_producer::{Job, Progress, Report};
use fraud_settings::{KafkaArguments, parse_duration};
use fraud_wire::reference::Reference;
use rdkafka::ClientConfig;

use self::audience::Audience;
use self::display::Display;
use super::Failure;
use super::http::HttpArguments;
use crate::audit::Audit;
use crate::drift::DriftSettings;
use crate::http::{self, Edge};
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::startup::Topics;
use crate::mask::Mask;
use crate::model::choice::KernelChoice;
use crate::model::exchange::ChallengerSettings;
use crate::model::source::Candidate;
use crate::pipeline::shadow::Share;
use crate::scoring_service::Scoring;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::telemetry::metrics;
use crate::telemetry::readiness::Readiness;
use crate::transaction::Guarantee;
use crate::worker::{StartError, Worker, WorkerSettings, open_exchange};

const TRANSACTIONS: &str = "transactions";
const VERDICTS: &str = "verdicts";
const DEAD_LETTERS: &str = "transactions.dlq";

/// The embedded broker keeps some 5 MB a partition: at this many the demo's traffic stays readable for ten seconds and
/// more, whatever else the machine does.
const PARTITIONS: i32 = 4;

/// How long the last verdicts may take after the last transaction was delivered.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest transaction and largest request, bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Arguments of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How long transactions are sent
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    duration: Duration,

    /// Transactions per second; bounded, for the embedded broker forgets what is not read in time
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,

    /// Go on until Ctrl-C
    #[arg(long)]
    keep_running: bool,

    /// Play a card file laid out like creditcard.csv (plain or gzip) instead of drawn transactions
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// Directory of the model bundle
    #[arg(long, value_name = "DIR", default_value = "models/fraud")]
    model: PathBuf,

    /// What subscribers may rely on
    #[arg(long, value_enum, default_value_t = Guarantee::ExactlyOnce)]
    guarantee: Guarantee,

    /// Scoring threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

/// Plays the demo; fails when a verdict was lost or doubled.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let source = open_source(&arguments).map_err(Failure::configuration)?;
    let broker = EmbeddedBroker::start(&[TRANSACTIONS, VERDICTS, DEAD_LETTERS], PARTITIONS)
        .context("cannot start the embedded broker")?;
    let kafka = KafkaArguments::new(broker.address());
    let (readiness, shutdown) = (Readiness::default(), Shutdown::default());

    let metrics = metrics::install().context("metrics recorder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let settings = worker_settings(&arguments, client_config(&kafka));
    let door = HttpArguments::default().open(http::DEFAULT_ADDRESS, &settings.audit, &runtime)?;
    let address = door.listener.local_addr()?;
    let edge = Edge::new(metrics, readiness.clone(), Scoring::new(MAX_MESSAGE_BYTES, Mask::default()));
    runtime.spawn(http::serve(door, edge.clone()));
    let stop = Arc::new(AtomicBool::new(false));
    {
        let _guard = runtime.enter();
        let (mut signals, stop) = (Signals::listen()?, stop.clone());
        runtime.spawn(async move {
            signals.next().await;
            stop.store(true, Ordering::Relaxed);
            signals.next().await;
            std::process::exit(i32::from(fraud_settings::exit_code::FAILED));
        });
    }

    let candidate = Candidate::of_directory(&arguments.model);
    let exchange = open_exchange(&settings, candidate, None, &readiness).map_err(Failure::configuration)?;
    edge.open(&exchange).map_err(Failure::configuration)?;
    let worker = Worker::start(&settings, &exchange, &readiness, &shutdown).map_err(|error| match error {
        error @ StartError::Thread(_) => Failure::at_run_time(error),
        error => Failure::configuration(error),
    })?;
    let mut audience =
        Audience::subscribe(&settings.kafka, VERDICTS, DEAD_LETTERS).context("cannot subscribe to the verdicts")?;
    println!("fraud-scorer demo: console http://{address}/, embedded broker {}", broker.address());

    // Joining the group takes a moment that no running worker has: it is not part of the latency.
    let deadline = Instant::now() + PATIENCE;
    while !readiness.reasons().is_empty() {
        if Instant::now() > deadline || worker.is_finished() {
            return Err(Failure::at_run_time(anyhow!(
                "the worker did not get ready: {}",
                readiness.reasons().join("; ")
            )));
        }
        audience.watch(Duration::from_millis(20))?;
    }

    let producer = start_producer(&arguments, &kafka, source, stop.clone())?;
    let mut display = Display::new();
    let sent = follow(producer, &mut audience, &mut display)?;
    shutdown.request();
    let outcome = worker.join();
    // What a closing worker still delivered would be a double: look once more.
    audience.watch(Duration::from_millis(300))?;
    display.close(&sent, &audience, &settings);

    let lost = audience.lost(sent.delivered);
    if !outcome.failures.is_empty() {
        return Err(Failure::at_run_time(anyhow!(outcome.failures.join("; "))));
    }
    if let Some(error) = &sent.first_error {
        return Err(Failure::at_run_time(anyhow!("the producer: {error}")));
    }
    if lost > 0 || audience.doubled() > 0 || outcome.undrained > 0 {
        return Err(Failure::at_run_time(anyhow!("{lost} transactions lost, {} doubled", audience.doubled())));
    }
    Ok(())
}

fn open_source(arguments: &Arguments) -> anyhow::Result<Box<dyn Source>> {
    if let Some(csv) = &arguments.csv {
        return Ok(Box::new(CsvSource::open(csv, Format::Object, EventTime::Send)?));
    }
    let path = arguments.model.join("reference.json");
    let reference = Reference::read(&path).context(
        "the demo draws its transactions from the bundle's reference.json; give --csv FILE for a bundle without",
    )?;
    Ok(Box::new(ProfileSource::new(&reference, None, Format::Object, 1)?))
}

/// A real broker answers a waiting fetch when a record comes; the mock cluster only when the wait is over.
fn client_config(kafka: &KafkaArguments) -> ClientConfig {
    let mut config = kafka.client_config();
    config.set("fetch.wait.max.ms", "5");
    config
}

fn worker_settings(arguments: &Arguments, kafka: ClientConfig) -> WorkerSettings {
    WorkerSettings {
        kafka,
        tokens: None,
        group: "fraud-scorer-demo".into(),
        topics: Topics {
            input: TRANSACTIONS.into(),
            output: VERDICTS.into(),
            dead_letter: DEAD_LETTERS.into(),
            challenger: None,
            audit: None,
            create: false,
            partitions: PARTITIONS,
        },
        challengers: ChallengerSettings { share: Share::ALL },
        amount_feature: "Amount".into(),
        verification: None,
        kernel: KernelChoice::Auto,
        key: None,
        guarantee: arguments.guarantee,
        threads: usize::from(arguments.threads),
        instance_id: "demo".into(),
        rescore: false,
        max_batch: 1024,
        max_message_bytes: MAX_MESSAGE_BYTES,
        commit_interval: Duration::from_millis(100),
        min_commit_interval: Duration::ZERO,
        drain_timeout: Duration::from_secs(10),
        drift: DriftSettings::default(),
        audit: Audit::new("demo", false),
    }
}

/// A producer at work: where it stands, and its report.
struct Producer {
    thread: JoinHandle<anyhow::Result<Report>>,
    progress: Arc<std::sync::Mutex<Progress>>,
}

fn start_producer(
    arguments: &Arguments,
    kafka: &KafkaArguments,
    source: Box<dyn Source>,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Producer> {
    let mut job = Job::new(kafka, TRANSACTIONS, source).rate(arguments.rate).seed(1);
    if !arguments.keep_running && arguments.csv.is_none() {
        job = job.duration(arguments.duration);
    }
    let progress = Arc::new(std::sync::Mutex::new(Progress::default()));
    let shared = progress.clone();
    let thread = std::thread::Builder::new().name("producer".into()).spawn(move || {
        fraud_producer::run(job, &stop, |now| {
            if let Ok(mut progress) = shared.lock() {
                *progress = *now;
            }
        })
    })?;
    Ok(Producer { thread, progress })
}

/// Watches until everything delivered has its verdict or dead letter.
fn follow(producer: Producer, audience: &mut Audience, display: &mut Display) -> anyhow::Result<Report> {
    while !producer.thread.is_finished() {
        audience.watch(Duration::from_millis(100))?;
        let progress = producer.progress.lock().map(|progress| *progress).unwrap_or_default();
        display.tick(progress.delivered, audience);
    }
    let report = producer.thread.join().map_err(|_| anyhow!("the producer panicked"))??;
    let deadline = Instant::now() + PATIENCE;
    while audience.lost(report.delivered) > 0 && Instant::now() < deadline {
        audience.watch(Duration::from_millis(100))?;
        display.tick(report.delivered, audience);
    }
    Ok(report)
}
