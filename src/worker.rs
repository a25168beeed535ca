//! The worker: N scoring threads in one process, from settings to drained.
//!
//! ```text
//!  settings ─► bundle verified ─► broker and topics checked ─► N × ScoringThread ─► Outcome
//! ```
//!
//! Start-up order is the order of the functions below. What can be known to be wrong before the first record is an
//! error here ([`StartError`]); after that only what the process cannot survive is.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::kafka::client;
use crate::kafka::startup::{Inquiry, StartupError, Topics};
use crate::model::ModelError;
use crate::model::bundle::Bundle;
use crate::model::choice::KernelChoice;
use crate::pipeline::commit::{CommitSettings, Guarantee, Interruption};
use crate::pipeline::produce::Destination;
use crate::pipeline::thread::{Ended, ScoringThread, ThreadSettings};
use crate::scoring_service::{FixedBundle, Scoring};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Instruments;
use crate::telemetry::readiness::Readiness;

/// Everything a worker needs, validated; no environment, file or flag is looked at after this.
#[derive(Clone)]
pub struct WorkerSettings {
    /// `bootstrap.servers` and the user's librdkafka properties.
    pub kafka: ClientConfig,
    /// Consumer group.
    pub group: String,
    /// Topics.
    pub topics: Topics,
    /// Bundle directory.
    pub model: PathBuf,
    /// What computes the model.
    pub kernel: KernelChoice,
    /// What subscribers may rely on.
    pub guarantee: Guarantee,
    /// Scoring threads.
    pub threads: usize,
    /// Unique among the running workers of the group; with the thread's number it makes the transactional id.
    pub instance_id: String,
    /// Most records taken at once.
    pub max_batch: usize,
    /// Largest value that is parsed, bytes.
    pub max_message_bytes: usize,
    /// Longest time between commits while there is work.
    pub commit_interval: Duration,
    /// How long a shutdown may wait for the last commit.
    pub drain_timeout: Duration,
}

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bundle.
    #[error("model bundle refused: {0}")]
    Model(#[from] ModelError),
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
}

/// How a worker ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Threads that left without committing all they had read.
    pub undrained: usize,
    /// Why threads could not go on.
    pub failures: Vec<String>,
}

impl Worker {
    /// Checks everything, then starts the scoring threads. Waits for a broker that is down until told to stop.
    /// `scoring` answers over HTTP as soon as the bundle is verified, broker or not.
    pub fn start(
        settings: &WorkerSettings,
        readiness: &Readiness,
        shutdown: &Shutdown,
        scoring: &Scoring,
    ) -> Result<Worker, StartError> {
        readiness.hold("start", "loading the model bundle");
        let bundle = Bundle::load_for(&settings.model, settings.kernel)?;
        let manifest = &bundle.manifest;
        tracing::info!(
            model = manifest.id(),
            features = manifest.features.len(),
            golden_records = bundle.golden_records,
            engine = bundle.engine.name(),
            detail = bundle.engine.detail(),
            review = manifest.thresholds.review(),
            decline = manifest.thresholds.decline(),
            "model bundle verified"
        );
        Instruments::default().model(&manifest.name, &manifest.version, &manifest.sha256);
        Instruments::default().engine(bundle.engine.name(), &bundle.engine.detail());

        scoring.open(Arc::new(FixedBundle::new(bundle.clone(), settings.max_message_bytes)))?;

        readiness.hold("start", "waiting for a Kafka broker");
        let partitions = Inquiry::new(&settings.kafka)?.prepare(&settings.topics, shutdown)?;
        if settings.threads > partitions.input as usize {
            tracing::warn!(
                threads = settings.threads,
                partitions = partitions.input,
                "more scoring threads than partitions: some will have nothing to do"
            );
        }

        let destination = Destination {
            output: settings.topics.output.clone(),
            dead_letter: settings.topics.dead_letter.clone(),
            dead_letter_partitions: partitions.dead_letter,
        };
        let mut threads = Vec::with_capacity(settings.threads);
        for number in 0..settings.threads {
            let thread = thread_settings(settings, destination.clone(), number);
            let (bundle, readiness, shutdown) = (bundle.clone(), readiness.clone(), shutdown.clone());
            let builder = std::thread::Builder::new().name(thread.name.clone());
            let handle = builder.spawn(move || {
                let alarm = Alarm { shutdown: shutdown.clone(), armed: true };
                let outcome = ScoringThread::start(thread, &bundle, readiness, shutdown).and_then(ScoringThread::run);
                alarm.disarm_if(outcome.is_ok());
                outcome
            });
            threads.push(handle.map_err(StartError::Thread)?);
        }
        readiness.clear("start");
        Ok(Worker { threads })
    }

    /// Waits until all threads have left the group.
    pub fn join(self) -> Outcome {
        let mut outcome = Outcome::default();
        for thread in self.threads {
            match thread.join() {
                Ok(Ok(ended)) => outcome.undrained += usize::from(!ended.drained),
                Ok(Err(Interruption::OutOfPatience)) => outcome.undrained += 1,
                Ok(Err(reason)) => outcome.failures.push(reason.to_string()),
                Err(_) => outcome.failures.push("a scoring thread panicked".into()),
            }
        }
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
            let id = format!("{}-{}-{number}", settings.group, settings.instance_id);
            client::transactional_config(&settings.kafka, &id)
        }
        Guarantee::AtLeastOnce => client::idempotent_config(&settings.kafka),
    };
    ThreadSettings {
        commit: CommitSettings {
            name: name.clone(),
            guarantee: settings.guarantee,
            producer,
            input_topic: settings.topics.input.clone(),
            interval: settings.commit_interval,
            drain_timeout: settings.drain_timeout,
        },
        name,
        input_topic: settings.topics.input.clone(),
        destination,
        consumer: client::consumer_config(&settings.kafka, &settings.group),
        max_batch: settings.max_batch,
        max_message_bytes: settings.max_message_bytes,
    }
}
