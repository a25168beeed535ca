//! One scoring thread: the loop that drives the stages between membership changes and commits.
//!
//! ```text
//!            ┌──────────────────────────── turn ────────────────────────────┐
//!  join ──►  │ answer changes ─► take a batch ─► stages ─► commit if due     │ ──► drain ──► leave
//!            └───────▲──────────────────────────────────────────────┬───────┘
//!                    └── abandon, rewind to the last commit ◄── Redo ┘
//! ```
//!
//! Invariants: a partition is given up only after what was done for it is committed or thrown away; a record below a
//! partition's position is never processed again within one assignment; after a redo every position is forgotten and
//! the broker's committed offsets decide.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;

use super::commit::{CommitSettings, Committer, Interruption};
use super::encode::Encoder;
use super::engine::Engine;
use super::produce::{Destination, Writer};
use crate::kafka::batch::{Batch, BatchBuffer, Entry, Record};
use crate::kafka::client::BrokerHealth;
use crate::kafka::subscription::{Change, Subscription};
use crate::model::bundle::Bundle;
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::{Instruments, Stage, Tally};
use crate::telemetry::readiness::Readiness;

/// Longest wait for a record: how long a membership change or a signal waits at most on an idle thread.
const IDLE_WAIT: Duration = Duration::from_millis(20);

/// Wait after the second redo in a row; doubled each time up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How long the questions of going back to the last commit may take.
const REWIND_PATIENCE: Duration = Duration::from_secs(10);

/// How often lag is published.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// What a scoring thread needs to know.
#[derive(Clone)]
pub struct ThreadSettings {
    /// Name for logs and readiness.
    pub name: String,
    /// Input topic.
    pub input_topic: String,
    /// Where messages go.
    pub destination: Destination,
    /// Consumer properties.
    pub consumer: ClientConfig,
    /// How to commit.
    pub commit: CommitSettings,
    /// Most records taken at once.
    pub max_batch: usize,
    /// Largest value that is parsed, bytes.
    pub max_message_bytes: usize,
}

/// What a thread did, for the closing log line and the demo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Everything read was committed before the thread left.
    pub drained: bool,
}

/// One scoring thread.
pub struct ScoringThread {
    settings: ThreadSettings,
    subscription: Subscription,
    committer: Committer,
    engine: Engine,
    writer: Writer,
    buffer: BatchBuffer,
    unanswered: VecDeque<Change>,
    positions: HashMap<i32, i64>,
    /// Offset of the first record read since the partition was assigned.
    first_read: HashMap<i32, i64>,
    next: HashMap<i32, i64>,
    /// Kafka timestamp of the last record read, per partition.
    last_read: HashMap<i32, i64>,
    /// What was done since the last hand-over to a commit, and what that commit is about.
    tally: Tally,
    committing: Tally,
    instruments: Instruments,
    readiness: Readiness,
    shutdown: Shutdown,
    redos: u32,
    /// Work was thrown away, but the partitions are not yet back at the last commit.
    astray: bool,
    lag_published: Instant,
}

impl ScoringThread {
    /// Opens the producer, loads the model, joins the group.
    pub fn start(
        settings: ThreadSettings,
        bundle: &Bundle,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<ScoringThread, Interruption> {
        readiness.hold(&settings.name, "joining the consumer group");
        let health = Arc::new(BrokerHealth::default());
        let engine =
            Engine::new(bundle, settings.max_message_bytes).map_err(|error| Interruption::Fatal(error.to_string()))?;
        let (model, topic) = (&bundle.manifest, &settings.input_topic);
        let writer = Writer::new(Encoder::new(&model.name, &model.version, topic), settings.destination.clone());
        let committer = Committer::open(settings.commit.clone(), health.clone(), shutdown.clone(), readiness.clone())?;
        let subscription = Subscription::join(&settings.consumer, &settings.input_topic, health)
            .map_err(|error| Interruption::Fatal(format!("Kafka consumer: {error}")))?;
        Ok(ScoringThread {
            buffer: BatchBuffer::new(settings.max_batch),
            settings,
            subscription,
            committer,
            engine,
            writer,
            unanswered: VecDeque::new(),
            positions: HashMap::new(),
            first_read: HashMap::new(),
            next: HashMap::new(),
            last_read: HashMap::new(),
            tally: Tally::default(),
            committing: Tally::default(),
            instruments: Instruments::default(),
            readiness,
            shutdown,
            redos: 0,
            astray: false,
            lag_published: Instant::now(),
        })
    }

    /// Scores until shutdown, then drains, commits and leaves the group.
    pub fn run(mut self) -> Result<Ended, Interruption> {
        while !self.shutdown.is_requested() {
            match self.turn() {
                Ok(()) => {}
                Err(Interruption::Redo(reason)) => match self.redo(&reason) {
                    Ok(()) => {}
                    Err(Interruption::OutOfPatience) => break,
                    Err(fatal) => return self.leave(Err(fatal)),
                },
                Err(Interruption::OutOfPatience) => break,
                Err(fatal) => return self.leave(Err(fatal)),
            }
        }
        let drained = match self.committer.commit_all(&self.subscription) {
            Ok(()) => {
                self.publish_all();
                true
            }
            Err(reason) => {
                tracing::warn!(thread = self.settings.name, %reason, "left without committing; those records are read again");
                false
            }
        };
        self.leave(Ok(Ended { drained }))
    }

    fn leave(self, outcome: Result<Ended, Interruption>) -> Result<Ended, Interruption> {
        let name = self.settings.name.clone();
        self.readiness.hold(&name, "left the consumer group");
        // Order matters: the last verdicts are out, so the others may take over.
        drop(self.committer);
        let mut subscription = self.subscription;
        let late = subscription.changes().unwrap_or_default();
        subscription.leave(self.unanswered.into_iter().chain(late));
        tracing::debug!(thread = name, "left the consumer group");
        outcome
    }

    fn turn(&mut self) -> Result<(), Interruption> {
        let changes =
            self.subscription.changes().map_err(|error| Interruption::Fatal(format!("Kafka consumer: {error}")))?;
        self.unanswered.extend(changes);
        while let Some(change) = self.unanswered.pop_front() {
            self.answer(change)?;
        }
        if self.astray {
            return Err(Interruption::Redo("not yet back at the last commit".into()));
        }
        let wait = self.committer.due_in().map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT));
        {
            let batch = self.subscription.records(&mut self.buffer, wait);
            let records = admit(&batch, self.subscription.partitions(), &mut self.positions, &mut self.last_read)?;
            if let (Some(_), false) = (records.first(), self.shutdown.is_aborted()) {
                for record in &records {
                    self.first_read.entry(record.partition()).or_insert(record.offset());
                }
                let ticket = self.committer.begin_batch()?;
                let times = self.engine.run(records.iter().map(Record::payload));
                let began = Instant::now();
                self.writer.write(&records, &self.engine, &mut self.committer, ticket, &mut self.tally)?;
                self.instruments.stage(Stage::Decode, times.decode);
                self.instruments.stage(Stage::Inference, times.inference);
                self.instruments.stage(Stage::Produce, began.elapsed());
                self.instruments.batch(self.engine.row_count());
                self.next.clear();
                for record in &records {
                    self.next.insert(record.partition(), record.offset() + 1);
                }
                self.committer.finish_batch(ticket, &self.next)?;
            }
        }
        let progress = self.committer.commit_if_due(&self.subscription)?;
        if let Some(took) = progress.committed {
            self.instruments.stage(Stage::Commit, took);
            self.publish_committing();
            self.redos = 0;
        }
        if progress.handed_over {
            std::mem::swap(&mut self.tally, &mut self.committing);
        }
        if self.lag_published.elapsed() >= LAG_INTERVAL {
            self.publish_lag();
        }
        Ok(())
    }

    /// Answers one change of membership. The group waits for us: whatever fails, the partitions are released.
    fn answer(&mut self, change: Change) -> Result<(), Interruption> {
        self.instruments.rebalance();
        match change {
            Change::Assigned(partitions) => {
                tracing::info!(thread = self.settings.name, ?partitions, "partitions assigned");
                for partition in &partitions {
                    self.positions.remove(partition);
                    self.first_read.remove(partition);
                }
                self.subscription
                    .accept(&partitions)
                    .map_err(|error| Interruption::Redo(format!("assigning: {error}")))?;
                self.readiness.clear(&self.settings.name);
                Ok(())
            }
            Change::Revoked(partitions) => {
                let committed = self.committer.commit_all(&self.subscription);
                if committed.is_ok() {
                    self.publish_all();
                }
                tracing::info!(
                    thread = self.settings.name,
                    ?partitions,
                    committed = committed.is_ok(),
                    "partitions revoked"
                );
                self.release(&partitions)?;
                committed
            }
            Change::Lost(partitions) => {
                tracing::warn!(thread = self.settings.name, ?partitions, "partitions lost to another member");
                self.release(&partitions)?;
                Err(Interruption::Redo("partitions were lost: this member was silent for too long".into()))
            }
        }
    }

    fn release(&mut self, partitions: &[i32]) -> Result<(), Interruption> {
        for &partition in partitions {
            self.positions.remove(&partition);
            self.first_read.remove(&partition);
            self.last_read.remove(&partition);
            // The next owner publishes it.
            self.instruments.lag(&self.settings.input_topic, partition, 0, 0.0);
        }
        self.subscription
            .release(partitions)
            .map_err(|error| Interruption::Redo(format!("giving up partitions: {error}")))
    }

    /// Throws away the work since the last commit and goes back to it.
    fn redo(&mut self, reason: &str) -> Result<(), Interruption> {
        tracing::warn!(thread = self.settings.name, reason, "work since the last commit is thrown away and read again");
        self.instruments.redone();
        if self.committer.settle() {
            self.publish_committing();
        }
        self.committing.clear();
        self.tally.clear();
        if self.redos > 0 {
            self.shutdown.wait((FIRST_BACKOFF * 2u32.saturating_pow(self.redos - 1)).min(LONGEST_BACKOFF));
        }
        self.redos = self.redos.saturating_add(1).min(16);
        let went_back = self.committer.abandon().and_then(|()| {
            let rewound = self.subscription.rewind(&self.first_read, REWIND_PATIENCE);
            rewound.map_err(|error| Interruption::Redo(format!("going back to the last commit: {error}")))
        });
        match went_back {
            Ok(()) => {
                self.positions.clear();
                self.astray = false;
                Ok(())
            }
            // The broker is still not well. Nothing may be read until the way back is made.
            Err(Interruption::Redo(reason)) => {
                tracing::warn!(thread = self.settings.name, reason, "starting over failed");
                self.astray = true;
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    fn publish_committing(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        self.instruments.committed(&mut self.committing, now);
    }

    /// After everything was committed.
    fn publish_all(&mut self) {
        self.publish_committing();
        std::mem::swap(&mut self.tally, &mut self.committing);
        self.publish_committing();
    }

    fn publish_lag(&mut self) {
        self.lag_published = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        for lag in self.subscription.lag() {
            let age = self.last_read.get(&lag.partition).map_or(0, |read| (now - read).max(0));
            let seconds = if lag.records > 0 { age as f64 / 1000.0 } else { 0.0 };
            self.instruments.lag(&self.settings.input_topic, lag.partition, lag.records, seconds);
        }
    }
}

/// The records of a batch that this thread is to process: of its own partitions, none twice.
fn admit<'a>(
    batch: &'a Batch<'_>,
    owned: &[i32],
    positions: &mut HashMap<i32, i64>,
    last_read: &mut HashMap<i32, i64>,
) -> Result<Vec<Record<'a>>, Interruption> {
    let mut records = Vec::with_capacity(batch.len());
    for entry in batch.iter() {
        match entry {
            Entry::Record(record) => {
                let read_before = positions.get(&record.partition()).is_some_and(|next| record.offset() < *next);
                if read_before || !owned.contains(&record.partition()) {
                    tracing::warn!(
                        partition = record.partition(),
                        offset = record.offset(),
                        "skipped a record that is not ours or was read before"
                    );
                    continue;
                }
                positions.insert(record.partition(), record.offset() + 1);
                records.push(record);
            }
            Entry::Error { partition, code, reason } => match code {
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed => {
                    return Err(Interruption::Fatal(format!("reading partition {partition}: {reason}")));
                }
                RDKafkaErrorCode::AutoOffsetReset => {
                    return Err(Interruption::Fatal(format!(
                        "partition {partition}: {reason}. The committed offset is gone from the topic: set \
                         -X auto.offset.reset=earliest (or latest) to go on"
                    )));
                }
                _ => tracing::warn!(partition, ?code, reason, "partition error; librdkafka tries again"),
            },
        }
    }
    if let Some(last) = records.last()
        && let Some(timestamp) = last.timestamp()
    {
        last_read.insert(last.partition(), timestamp);
    }
    Ok(records)
}
