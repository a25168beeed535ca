//! `fraud-scorer run`: the worker process. Raw arguments become [`WorkerSettings`] here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use fraud_settings::{KafkaArguments, parse_duration};

use super::Failure;
use crate::http::{self, Edge};
use crate::kafka::startup::{StartupError, Topics};
use crate::model::choice::KernelChoice;
use crate::pipeline::commit::Guarantee;
use crate::scoring_service::Scoring;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::telemetry::metrics;
use crate::telemetry::readiness::Readiness;
use crate::worker::{StartError, Worker, WorkerSettings};

/// Beyond the drain: how long leaving the group may take before the process ends regardless.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArguments,

    /// Worker settings.
    #[command(flatten)]
    pub worker: WorkerArguments,

    /// Address of the console, the HTTP API and /metrics; port 0 takes a free one [default: 127.0.0.1:9464, a free port if taken]
    #[arg(long, value_name = "ADDR:PORT")]
    pub http: Option<SocketAddr>,
}

/// What a worker is, apart from where its broker lives.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArguments {
    /// Consumer group; workers of one group share the partitions
    #[arg(long, default_value = "fraud-scorer")]
    pub group: String,

    /// Topic of the transactions
    #[arg(long, value_name = "TOPIC", default_value = "transactions")]
    pub input_topic: String,

    /// Topic of the verdicts; needs as many partitions as the input topic
    #[arg(long, value_name = "TOPIC", default_value = "verdicts")]
    pub output_topic: String,

    /// Topic of what could not be scored
    #[arg(long, value_name = "TOPIC", default_value = "transactions.dlq")]
    pub dead_letter_topic: String,

    /// Directory of the model bundle
    #[arg(long, value_name = "DIR", default_value = "models/fraud")]
    pub model: PathBuf,

    /// What computes the model
    #[arg(long, value_enum, default_value_t = KernelChoice::Auto)]
    pub kernel: KernelChoice,

    /// What subscribers may rely on
    #[arg(long, value_enum, default_value_t = Guarantee::ExactlyOnce)]
    pub guarantee: Guarantee,

    /// Scoring threads; one keeps about one core busy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    /// Longest time between commits; bounds the latency of exactly-once
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_interval)]
    pub commit_interval: Duration,

    /// How long a shutdown may wait for the last commit
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Most records scored together
    #[arg(long, value_name = "RECORDS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_batch: u32,

    /// Largest transaction that is parsed; larger ones are dead letters
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub max_message_bytes: u32,

    /// Create missing topics
    #[arg(long)]
    pub create_topics: bool,

    /// Partitions of a created input topic; outputs take the input's count
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub partitions: i32,

    /// Names this worker for the broker's transactions; must be unique within the group. A stable name (a pod's) lets a
    /// restarted worker take over at once instead of after the transaction's time-out [default: random]
    #[arg(long, value_name = "ID")]
    pub instance_id: Option<String>,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&interval) {
        Ok(interval)
    } else {
        Err("expected 1ms to 10s (a transaction must end before transaction.timeout.ms, 15 s by default)".into())
    }
}

impl WorkerArguments {
    /// The validated settings of a worker on these brokers.
    pub fn settings(&self, kafka: &KafkaArguments) -> Result<WorkerSettings, Failure> {
        kafka.check().map_err(Failure::configuration)?;
        let topics = [&self.input_topic, &self.output_topic, &self.dead_letter_topic];
        if topics[0] == topics[1] || topics[0] == topics[2] || topics[1] == topics[2] {
            let message = "--input-topic, --output-topic and --dead-letter-topic must be three different topics";
            return Err(Failure::configuration(anyhow::anyhow!("{message}, not {topics:?}")));
        }
        Ok(WorkerSettings {
            kafka: kafka.client_config(),
            group: self.group.clone(),
            topics: Topics {
                input: self.input_topic.clone(),
                output: self.output_topic.clone(),
                dead_letter: self.dead_letter_topic.clone(),
                create: self.create_topics,
                partitions: self.partitions,
            },
            model: self.model.clone(),
            kernel: self.kernel,
            guarantee: self.guarantee,
            threads: usize::from(self.threads),
            instance_id: self.instance_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            max_batch: self.max_batch as usize,
            max_message_bytes: self.max_message_bytes as usize,
            commit_interval: self.commit_interval,
            drain_timeout: self.drain_timeout,
        })
    }
}

/// Runs the worker until a signal ends it.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let settings = arguments.worker.settings(&arguments.kafka)?;
    let metrics = metrics::install().context("metrics recorder")?;
    let (readiness, shutdown) = (Readiness::default(), Shutdown::default());
    readiness.hold("start", "starting");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime
        .block_on(http::listen(arguments.http))
        .with_context(|| format!("cannot listen on {}", arguments.http.unwrap_or(http::DEFAULT_ADDRESS)))
        .map_err(Failure::configuration)?;
    tracing::info!(address = %listener.local_addr()?, "HTTP edge listens");
    let scoring = Scoring::new(settings.max_message_bytes);
    let edge = Edge { metrics, readiness: readiness.clone(), scoring: scoring.clone() };
    runtime.spawn(http::serve(listener, edge));
    {
        let _guard = runtime.enter();
        runtime.spawn(Signals::listen()?.request(shutdown.clone()));
    }

    let worker = match Worker::start(&settings, &readiness, &shutdown, &scoring) {
        Ok(worker) => worker,
        Err(StartError::Kafka(StartupError::Stopped)) => {
            tracing::info!("stopped before a broker was reached; nothing was read");
            return Ok(());
        }
        Err(error) if error.is_configuration() => return Err(Failure::configuration(error)),
        Err(error) => return Err(Failure::at_run_time(error)),
    };
    while !shutdown.wait(Duration::from_millis(500)) {}
    end_in_time(settings.drain_timeout + LEAVE_GRACE, &shutdown);
    let outcome = worker.join();
    if !outcome.failures.is_empty() {
        return Err(Failure::at_run_time(anyhow::anyhow!(outcome.failures.join("; "))));
    }
    if outcome.undrained > 0 {
        let message = "stopped before everything read was committed; it is read again at the next start";
        return Err(Failure::at_run_time(anyhow::anyhow!(message)));
    }
    tracing::info!("drained and left the consumer group");
    Ok(())
}

/// Ends the process if leaving hangs (a broker that answers nothing) or when a second signal will not have it wait.
fn end_in_time(limit: Duration, shutdown: &Shutdown) {
    let shutdown = shutdown.clone();
    let watch = move || {
        let began = std::time::Instant::now();
        let mut aborted = None;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            if shutdown.is_aborted() {
                aborted.get_or_insert_with(std::time::Instant::now);
            }
            if began.elapsed() > limit || aborted.is_some_and(|since| since.elapsed() > Duration::from_secs(1)) {
                super::tell("error: leaving took too long; uncommitted work is read again at the next start");
                std::process::exit(i32::from(fraud_settings::exit_code::FAILED));
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("drain-watch".into()).spawn(watch) {
        tracing::warn!(%error, "the drain is not watched");
    }
}
