//! The service: N scoring threads in one process, from settings to drained.
//!
//! ```text
//!  settings ─► model verified, on the exchange ─► broker and topics checked ─► N × ScoringThread ─► Outcome
//! ```
//!
//! Start-up order is the order of the functions below. What can be known to be wrong before the first record is an
//! error here ([`StartError`]); after that only what the process cannot survive is.

use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use super::thread::{Ended, ScoringThread, ThreadSettings};
use super::watch::Watcher;
use crate::audit::{Actor, Audit};
use crate::drift::DriftSettings;
use crate::kafka::client;
use crate::kafka::oauth;
use crate::kafka::position::Reset;
use crate::kafka::progress::Progress;
use crate::kafka::startup::{Inquiry, StartupError, Topics};
use crate::log_events;
use crate::model::choice::KernelChoice;
use crate::model::exchange::{ChallengerSettings, Exchange, ExchangeSettings, Refusal, Verification};
use crate::model::source::Candidate;
use crate::model::trust::ModelKey;
use crate::pipeline::produce::Destination;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;
use crate::transaction::committer::CommitSettings;
use crate::transaction::{Guarantee, Interruption};

/// Everything a worker needs, validated; no environment, file or flag is looked at after this.
#[derive(Clone)]
pub struct WorkerSettings {
    /// `bootstrap.servers` and the user's librdkafka properties.
    pub kafka: ClientConfig,
    /// How clients get their tokens, where they log in by such.
    pub tokens: Option<oauth::Method>,
    /// Consumer group.
    pub group: String,
    /// Topics.
    pub topics: Topics,
    /// How challengers run.
    pub challengers: ChallengerSettings,
    /// The feature that is the amount at stake, for metrics, the console and comparisons with a challenger.
    pub amount_feature: String,
    /// How models are verified before this process loads them; `None`: here alone.
    pub verification: Option<Verification>,
    /// What computes the model.
    pub kernel: KernelChoice,
    /// Whose signature models must have.
    pub key: Option<ModelKey>,
    /// What subscribers may rely on.
    pub guarantee: Guarantee,
    /// Scoring threads.
    pub threads: usize,
    /// Unique among the running workers of the group; with the thread's number it makes the transactional id.
    pub instance_id: String,
    /// A partition without a committed offset may begin though the output holds verdicts on it.
    pub rescore: bool,
    /// Most records taken at once.
    pub max_batch: usize,
    /// Largest value that is parsed, bytes.
    pub max_message_bytes: usize,
    /// Longest time between commits while there is work.
    pub commit_interval: Duration,
    /// Exactly once: how long a transaction grows at least.
    pub min_commit_interval: Duration,
    /// How long a shutdown may wait for the last commit.
    pub drain_timeout: Duration,
    /// How drift is watched.
    pub drift: DriftSettings,
    /// Where changes are told.
    pub audit: Audit,
}

impl WorkerSettings {
    /// What concerns models.
    pub fn exchange(&self) -> ExchangeSettings {
        ExchangeSettings {
            kernel: self.kernel,
            key: self.key.clone(),
            threads: self.threads,
            max_message_bytes: self.max_message_bytes,
            max_batch: self.max_batch,
            input_topic: self.topics.input.clone(),
            challenger: self.challengers,
            drift: self.drift,
            verification: self.verification.clone(),
            audit: self.audit.clone(),
        }
    }
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bundle.
    #[error("model bundle {0}")]
    Model(#[from] Refusal),
    /// The broker or the topics.
    #[error(transparent)]
    Kafka(#[from] StartupError),
    /// The operating system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl StartError {
    /// Starting again without a change of configuration will not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            StartError::Thread(_) => false,
            StartError::Kafka(StartupError::Client(error)) => {
                matches!(error, KafkaError::ClientCreation(_) | KafkaError::ClientConfig(..))
            }
            _ => true,
        }
    }
}

/// A worker whose threads run.
pub struct Worker {
    threads: Vec<JoinHandle<Result<Ended, Interruption>>>,
    watcher: JoinHandle<()>,
}

/// How a worker ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Threads that left without committing all they had read.
    pub undrained: usize,
    /// Why threads could not go on.
    pub failures: Vec<String>,
}

/// Verifies the first models of a worker with these settings: the one that serves, and the challenger if there is one.
pub fn open_exchange(
    settings: &WorkerSettings,
    candidate: Candidate,
    challenger: Option<Candidate>,
    readiness: &Readiness,
) -> Result<Exchange, StartError> {
    readiness.hold("start", "loading the model bundle");
    let exchange = Exchange::open(settings.exchange(), candidate)?;
    let model = exchange.serving();
    log_events::model::Verified {
        model: &model.id(),
        features: model.manifest.features.len(),
        golden_records: model.golden_records,
        engine: model.engine,
        detail: &model.engine_detail,
        review: model.manifest.thresholds.review(),
        decline: model.manifest.thresholds.decline(),
    }
    .log();
    // Refused or not, verdicts do without it: the exchange has logged why.
    let _ = exchange.challenge(challenger, &Actor::configuration());
    Ok(exchange)
}

impl Worker {
    /// Checks everything, then starts the scoring threads, which take their model from the `exchange`. Waits for a broker
    /// that is down until told to stop.
    pub fn start(
        settings: &WorkerSettings,
        exchange: &Exchange,
        readiness: &Readiness,
        shutdown: &Shutdown,
    ) -> Result<Worker, StartError> {
        readiness.hold("start", "waiting for a Kafka broker");
        let inquiry = Inquiry::new(&settings.kafka)?;
        let partitions = inquiry.prepare(&settings.topics, shutdown)?;
        if settings.guarantee == Guarantee::ExactlyOnce {
            inquiry.check_fencing()?;
        }
        if settings.threads > partitions.input as usize {
            log_events::lifecycle::TooManyThreads { threads: settings.threads, partitions: partitions.input }.log();
        }

        let destination = Destination {
            output: settings.topics.output.clone(),
            dead_letter: settings.topics.dead_letter.clone(),
            dead_letter_partitions: partitions.dead_letter,
            challenger: settings.topics.challenger.clone(),
        };
        let mut threads = Vec::with_capacity(settings.threads);
        let mut watcher = Watcher {
            input_topic: settings.topics.input.clone(),
            consumer: client::consumer_config(&settings.kafka, &settings.group, 0, 1),
            commit_interval: settings.commit_interval,
            readiness: readiness.clone(),
            shutdown: shutdown.clone(),
            threads: Vec::with_capacity(settings.threads),
        };
        for number in 0..settings.threads {
            let thread = thread_settings(settings, destination.clone(), number);
            let (seat, readiness, shutdown) = (exchange.seat(number), readiness.clone(), shutdown.clone());
            let progress = Progress::default();
            watcher.threads.push((thread.name.clone(), progress.clone()));
            let builder = std::thread::Builder::new().name(thread.name.clone());
            let handle = builder.spawn(move || {
                let alarm = Alarm { shutdown: shutdown.clone(), armed: true };
                let outcome = match ScoringThread::start(thread, seat, readiness, progress, shutdown) {
                    // Asked to stop before anything was read.
                    Err(Interruption::Aborted) => Ok(Ended { drained: true }),
                    started => started.and_then(ScoringThread::run),
                };
                alarm.disarm_if(outcome.is_ok());
                outcome
            });
            threads.push(handle.map_err(StartError::Thread)?);
        }
        let builder = std::thread::Builder::new().name("watcher".into());
        let watcher = builder.spawn(move || watcher.run()).map_err(StartError::Thread)?;
        readiness.clear("start");
        Ok(Worker { threads, watcher })
    }

    /// Waits until all threads have left the group.
    pub fn join(self) -> Outcome {
        let mut outcome = Outcome::default();
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(ended)) => outcome.undrained += usize::from(!ended.drained),
                Ok(Err(Interruption::Aborted)) => outcome.undrained += 1,
                Ok(Err(reason)) => outcome.failures.push(reason.to_string()),
                Err(_) => outcome.failures.push("a scoring thread panicked".into()),
            }
        }
        // It ends when they are told to.
        let _ = self.watcher.join();
        outcome
    }

    /// Whether every thread has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

/// One thread that cannot go on, be it by a panic, ends the process: a supervisor restarts it whole.
struct Alarm {
    shutdown: Shutdown,
    armed: bool,
}

impl Alarm {
    fn disarm_if(mut self, well: bool) {
        self.armed = !well;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.armed && !self.shutdown.is_requested() {
            self.shutdown.request();
        }
    }
}

fn thread_settings(settings: &WorkerSettings, destination: Destination, number: usize) -> ThreadSettings {
    let name = format!("scoring-{number}");
    let producer = match settings.guarantee {
        Guarantee::ExactlyOnce => {
            let id = client::transactional_id(&settings.group, &settings.instance_id, number);
            client::transactional_config(&settings.kafka, &id)
        }
        Guarantee::AtLeastOnce => client::idempotent_config(&settings.kafka),
    };
    // Where partitions begin is decided by the thread; librdkafka must not skip any record that a log holds. A partition's end
    // must not come in a batch (`ScoringThread::pass_over_ends`).
    let mut consumer = client::consumer_config(&settings.kafka, &settings.group, number, settings.threads);
    consumer.set("auto.offset.reset", "earliest").set("enable.partition.eof", "false");
    ThreadSettings {
        commit: CommitSettings {
            name: name.clone(),
            guarantee: settings.guarantee,
            producer,
            input_topic: settings.topics.input.clone(),
            interval: settings.commit_interval,
            min_interval: settings.min_commit_interval,
            drain_timeout: settings.drain_timeout,
        },
        name,
        input_topic: settings.topics.input.clone(),
        destination,
        consumer,
        reset: Reset::of(&settings.kafka),
        rescore: settings.rescore,
        max_batch: settings.max_batch,
        amount_feature: settings.amount_feature.clone(),
    }
}
