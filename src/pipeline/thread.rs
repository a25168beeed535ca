//! One scoring thread: the loop that drives the stages between membership changes and commits.
//!
//! ```text
//!            ┌──────────────────────────────── turn ────────────────────────────────┐
//!  join ──►  │ answer changes ─► take a batch ─► score ─► commit if due ─► verdicts   │ ──► drain ──► leave
//!            │ (another model, if one is to score)          (challenger, if there is one) │
//!            └───────▲────────────────────────────────────────────────────────┬───────┘
//!                    └────────── abandon, rewind to the last commit ◄── Redo ─┘
//! ```
//!
//! Invariants: a partition is given up only after what was done for it is committed or thrown away; a record below a
//! partition's position is never processed again within one assignment; after a redo every position is forgotten and
//! the broker's committed offsets decide.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};

use super::admit::{Admitted, Positions};
use super::commit::{CommitSettings, Committer, Interruption, Pause, severity};
use super::compare::Comparer;
use super::encode::Source;
use super::engine::{Outcome, Times};
use super::produce::{Destination, Writer};
use crate::kafka::batch::{BatchBuffer, Record};
use crate::kafka::client::BrokerHealth;
use crate::kafka::look::Look;
use crate::kafka::position::{self, Gone, Next, Offsets, Reset, Restart};
use crate::kafka::subscription::{Change, Noted, Subscription};
use crate::log_events;
use crate::model::exchange::{Seat, ThreadChallenger, ThreadModel};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::{Instruments, Measured, Stage, Tally};
use crate::telemetry::readiness::Readiness;

/// Longest wait for a record: how long a membership change or a signal waits at most on an idle thread.
const IDLE_WAIT: Duration = Duration::from_millis(20);

/// Wait after the second redo in a row; doubled each time up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How long the questions of going back to the last commit may take.
const REWIND_PATIENCE: Duration = Duration::from_secs(10);

/// How long the questions about partitions that were just assigned may take, each, before other work goes on.
const INSPECTION_PATIENCE: Duration = Duration::from_millis(500);

/// How soon they are asked again: offsets that are just being committed are not shown.
const INSPECTION_INTERVAL: Duration = Duration::from_millis(500);

/// How soon librdkafka is asked again to begin with a partition that it does not read yet.
const BEGIN_INTERVAL: Duration = Duration::from_millis(10);

/// How often membership changes and the client's events are looked for while records flow.
const EVENTS_INTERVAL: Duration = Duration::from_millis(2);

/// How often lag is published.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// How often payloads are left for candidates to try themselves on.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

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
    /// Where partitions begin that the group has no offset of.
    pub reset: Reset,
    /// Such a partition may begin though the output holds verdicts on it: they are written a second time.
    pub rescore: bool,
    /// How to commit.
    pub commit: CommitSettings,
    /// Most records taken at once.
    pub max_batch: usize,
    /// The feature that is the amount at stake, for metrics, the console and comparisons with a challenger.
    pub amount_feature: String,
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
    seat: Seat,
    model: ThreadModel,
    challenger: ThreadChallenger,
    comparer: Comparer,
    writer: Writer,
    buffer: BatchBuffer,
    unanswered: VecDeque<Change>,
    /// Partitions of which it is not yet known where they begin; they deliver nothing before.
    waiting: Vec<i32>,
    inspected_again: Instant,
    positions: Positions,
    next: Offsets,
    /// What was done since the last hand-over to a commit, and what that commit is about.
    tally: Tally,
    committing: Tally,
    /// Of batches, whatever becomes of them.
    measured: Measured,
    instruments: Instruments,
    readiness: Readiness,
    shutdown: Shutdown,
    redos: u32,
    /// Partitions that are left alone, or were and are being tried again.
    pauses: HashMap<i32, Pause>,
    /// Work was thrown away, but the partitions are not yet back at the last commit.
    astray: bool,
    lag_published: Instant,
    samples_left: Option<Instant>,
    events_served: Instant,
    /// Nothing was there at the last look.
    idle: bool,
    /// Partitions whose log was cut short below what was read, and where to go on, as far as is known.
    cut: Vec<(i32, Option<i64>)>,
    /// Partitions to be read again from where they are.
    again: Vec<i32>,
    /// Looks at single records, once that was needed.
    look: Option<Look>,
}

impl ScoringThread {
    /// Takes its model, opens the producer, joins the group.
    pub fn start(
        settings: ThreadSettings,
        seat: Seat,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<ScoringThread, Interruption> {
        readiness.hold(&settings.name, "joining the consumer group");
        let health = Arc::new(BrokerHealth::default());
        let model = seat.first().ok_or_else(|| Interruption::Fatal("no model is prepared for this thread".into()))?;
        let challenger =
            seat.first_challenger().ok_or_else(|| Interruption::Fatal("this thread's place is taken".into()))?;
        let destination = &settings.destination;
        let written = [Some(&destination.output), Some(&destination.dead_letter), destination.challenger.as_ref()];
        let comparer =
            Comparer::new(&settings.input_topic, destination.challenger.clone(), settings.amount_feature.clone());
        let topics = written.into_iter().flatten().cloned().collect();
        let writer = Writer::new(settings.destination.clone(), settings.amount_feature.clone());
        let committer =
            Committer::open(settings.commit.clone(), topics, health.clone(), shutdown.clone(), readiness.clone())?;
        let subscription = Subscription::join(&settings.consumer, &settings.input_topic, health)
            .map_err(|error| Interruption::Fatal(format!("Kafka consumer: {error}")))?;
        let mut thread = ScoringThread {
            buffer: BatchBuffer::new(settings.max_batch),
            settings,
            subscription,
            committer,
            seat,
            model,
            challenger,
            comparer,
            writer,
            unanswered: VecDeque::new(),
            waiting: Vec::new(),
            inspected_again: Instant::now(),
            positions: Positions::default(),
            next: Offsets::new(),
            tally: Tally::default(),
            committing: Tally::default(),
            measured: Measured::default(),
            instruments: Instruments::default(),
            readiness,
            shutdown,
            redos: 0,
            pauses: HashMap::new(),
            astray: false,
            lag_published: Instant::now(),
            samples_left: None,
            events_served: Instant::now(),
            idle: true,
            cut: Vec::new(),
            again: Vec::new(),
            look: None,
        };
        thread.fit_amount();
        thread.fit_challenger();
        Ok(thread)
    }

    /// Scores until shutdown, then drains, commits and leaves the group.
    pub fn run(mut self) -> Result<Ended, Interruption> {
        while !self.shutdown.is_requested() {
            match self.turn() {
                Ok(()) => {}
                Err(Interruption::Redo(reason)) => match self.redo(&reason) {
                    Ok(()) => {}
                    Err(Interruption::OutOfPatience) => return self.leave(Ok(Ended { drained: false })),
                    Err(fatal) => return self.leave(Err(fatal)),
                },
                Err(Interruption::Partition { partition, reason }) => match self.leave_alone(partition, &reason) {
                    Ok(()) => {}
                    Err(Interruption::OutOfPatience) => return self.leave(Ok(Ended { drained: false })),
                    Err(fatal) => return self.leave(Err(fatal)),
                },
                // Also in the midst of a revocation: what was given up then must not be committed any more.
                Err(Interruption::OutOfPatience) => return self.leave(Ok(Ended { drained: false })),
                Err(fatal) => return self.leave(Err(fatal)),
            }
        }
        let drained = match self.committer.commit_all(&self.subscription) {
            Ok(()) => {
                self.publish_all();
                !self.astray && !self.positions.has_unread()
            }
            Err(reason) => {
                log_events::lifecycle::LeftWithoutCommitting { thread: &self.settings.name, reason: &reason }.log();
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
        log_events::kafka::LeftGroup { thread: &name }.log();
        outcome
    }

    fn turn(&mut self) -> Result<(), Interruption> {
        if self.idle || self.events_served.elapsed() >= EVENTS_INTERVAL {
            self.events_served = Instant::now();
            let changes =
                self.subscription.changes().map_err(|error| match severity(&error.into(), "Kafka consumer") {
                    Interruption::Redo(reason) => Interruption::Fatal(reason),
                    other => other,
                })?;
            self.unanswered.extend(changes);
            if let Some(reason) = self.subscription.refused()
                && self.subscription.owned().is_empty()
            {
                self.readiness.hold(&self.settings.name, format!("no partitions: {reason}"));
            }
        }
        while let Some(change) = self.unanswered.pop_front() {
            self.answer(change)?;
        }
        if self.astray {
            return Err(Interruption::Redo("not yet back at the last commit".into()));
        }
        if !self.waiting.is_empty() && Instant::now() >= self.inspected_again {
            self.inspect()?;
        }
        if self.seat.is_outdated(&self.model) {
            self.exchange_model();
        }
        if self.seat.has_other_challenger(&self.challenger) && self.seat.exchange_challenger(&mut self.challenger) {
            self.fit_challenger();
        }
        let wait = self.committer.due_in().map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT));
        {
            let batch = self.subscription.records(&mut self.buffer, wait);
            self.idle = batch.is_empty();
            if !self.idle && self.subscription.is_recreated() {
                // None of these are of the topic that the offsets so far are of.
                drop(batch);
                return self.begin_recreated();
            }
            let Admitted { records, runs, gone, cut, again } = self.positions.admit(&batch, &self.subscription)?;
            let working = !records.is_empty() && !self.shutdown.is_aborted();
            let taken = Instant::now();
            let times =
                if working { self.model.engine.run(records.iter().map(Record::payload)) } else { Times::default() };
            // After the scores and before the verdicts: while this batch was scored, the last one's verdicts were delivered.
            let behind = batch.len() >= self.settings.max_batch;
            let progress = self.committer.commit_if_due(&self.subscription, behind)?;
            if let Some(took) = progress.committed {
                self.measured.stage(Stage::Commit, took);
                publish(&self.instruments, &mut self.committing, &mut self.measured);
                settled(&mut self.redos, &self.readiness, &self.settings.name);
            }
            if progress.handed_over {
                std::mem::swap(&mut self.tally, &mut self.committing);
            }
            if working {
                let ticket = self.committer.begin_batch()?;
                let began = Instant::now();
                self.writer.write((&records, taken), &self.model, &mut self.committer, ticket, &mut self.tally)?;
                self.measured.stage(Stage::Decode, times.decode);
                self.measured.stage(Stage::Inference, times.inference);
                self.measured.stage(Stage::Produce, began.elapsed());
                self.measured.batch(self.model.engine.row_count());
                self.model.engine.observe_drift(began, &mut self.tally.drift);
                if let Some(shadow) = self.challenger.shadow.as_deref_mut().filter(|shadow| shadow.is_active()) {
                    // Behind the verdicts: they do not wait for it, only for the next turn.
                    let (began, engine) = (Instant::now(), &self.model.engine);
                    let failed = shadow.run(engine, records.iter().map(|record| (record.partition(), record.offset())));
                    self.instruments.challenger().failed(failed);
                    let dropped =
                        self.comparer.write(&records, engine, shadow, &mut self.committer, ticket, &mut self.tally)?;
                    if dropped > 0 {
                        self.instruments.dropped(dropped);
                    }
                    self.measured.stage(Stage::Challenger, began.elapsed());
                }
                self.next.clear();
                self.next.extend(runs.iter().map(|run| (run.partition, Next { offset: run.next, epoch: run.epoch })));
                self.committer.finish_batch(ticket, &self.next)?;
                if self.samples_left.is_none_or(|left| left.elapsed() >= SAMPLE_INTERVAL) {
                    self.samples_left = Some(Instant::now());
                    leave_samples(&self.seat, &records, self.model.engine.outcomes());
                }
            }
            for (partition, position, begin) in gone {
                let (end, gone) = (-1, Gone::Deleted { records: begin - position });
                log_events::pipeline::RecordsGone { partition, position, begin, end, reason: gone.reason() }.log();
                self.instruments.gone(&self.settings.input_topic, partition, gone.records(), gone.reason());
            }
            self.cut = cut;
            self.again = again;
        }
        if !self.again.is_empty() {
            let from = self.again.drain(..).filter_map(|partition| Some((partition, self.positions.next(partition)?)));
            let sought = self.subscription.seek(&from.collect(), REWIND_PATIENCE);
            sought.map_err(|error| Interruption::Redo(format!("reading again: {error}")))?;
        }
        for (partition, at) in std::mem::take(&mut self.cut) {
            self.restart(partition, at)?;
        }
        if self.lag_published.elapsed() >= LAG_INTERVAL {
            self.publish_lag();
            self.committer.serve();
            self.pass_over_ends()?;
            self.try_again()?;
        }
        Ok(())
    }

    /// Where a resting partition's log goes on and holds nothing to score (transaction markers, records of transactions that
    /// were aborted, compacted ones), commits its end: an idle group's lag is 0 all the same.
    ///
    /// Asked of a client of its own. The end as an entry of the batch (`enable.partition.eof`) would be simpler, but librdkafka
    /// 2.12 counts it as a message read (`rd_kafka_q_serve_rkmessages`), and goes on behind it when the group is rearranged:
    /// past the record that stands there by then, or outside of the log.
    fn pass_over_ends(&mut self) -> Result<(), Interruption> {
        for (partition, next) in self.positions.at_rest() {
            let is_behind = self.subscription.log(partition).is_some_and(|(_, end)| end > next.offset);
            if !is_behind || !self.subscription.partitions().contains(&partition) {
                continue;
            }
            // What fails is asked again.
            let look = look(&mut self.look, &self.settings.consumer);
            let end = look.and_then(|look| {
                look.end_behind(&self.settings.input_topic, partition, next.offset, INSPECTION_PATIENCE)
            });
            if let Ok(Some(offset)) = end {
                self.positions.pass(partition, offset);
                self.note(Offsets::from([(partition, Next { offset, ..next })]))?;
            }
        }
        Ok(())
    }

    /// Takes up the model that is to score, between two batches: what was scored keeps its version. Where the shelf is in
    /// use, the next turn tries again.
    #[cold]
    fn exchange_model(&mut self) {
        if self.seat.exchange(&mut self.model) {
            log_events::pipeline::ModelTakenUp { thread: &self.settings.name, model: &self.model.model.id() }.log();
            self.fit_amount();
            self.fit_challenger();
        }
    }

    /// After a change of champion: which of its features is the amount.
    fn fit_amount(&mut self) {
        if self.writer.fit(&self.model.model) {
            self.instruments.amounts().show();
        }
    }

    /// After a change of champion or challenger: which of the rows' columns the challenger gets.
    fn fit_challenger(&mut self) {
        let Some(shadow) = self.challenger.shadow.as_deref_mut() else { return };
        // Where it does not fit it rests; the exchange has said why.
        if shadow.fit(&self.model.model).is_ok() {
            self.comparer.between(&self.model.model, shadow.model());
        }
    }

    /// Answers one change of membership. The group waits for us: whatever fails, the partitions are released.
    fn answer(&mut self, change: Change) -> Result<(), Interruption> {
        self.instruments.rebalance();
        match change {
            Change::Assigned(partitions) => {
                log_events::kafka::PartitionsAssigned { thread: &self.settings.name, partitions: &partitions }.log();
                self.positions.forget(&partitions);
                self.subscription
                    .accept_waiting(&partitions)
                    .map_err(|error| Interruption::Redo(format!("assigning: {error}")))?;
                self.waiting.extend(partitions);
                if self.waiting.is_empty() {
                    self.readiness.clear(&self.settings.name);
                    return Ok(());
                }
                self.inspect()
            }
            Change::Revoked(partitions) => {
                let committed = self.committer.commit_all(&self.subscription);
                if committed.is_ok() {
                    self.publish_all();
                }
                log_events::kafka::PartitionsRevoked {
                    thread: &self.settings.name,
                    partitions: &partitions,
                    committed: committed.is_ok(),
                }
                .log();
                self.release(&partitions)?;
                committed
            }
            Change::Lost(partitions) => {
                log_events::kafka::PartitionsLost { thread: &self.settings.name, partitions: &partitions }.log();
                self.release(&partitions)?;
                Err(Interruption::Redo("partitions were lost: this member was silent for too long".into()))
            }
        }
    }

    fn release(&mut self, partitions: &[i32]) -> Result<(), Interruption> {
        self.positions.forget(partitions);
        self.waiting.retain(|waiting| !partitions.contains(waiting));
        for &partition in partitions {
            if self.pauses.remove(&partition).is_some() {
                self.readiness.clear(&self.partition_name(partition));
                self.instruments.paused(&self.settings.input_topic, partition, false);
            }
            // The next owner publishes it.
            self.instruments.lag(&self.settings.input_topic, partition, 0, 0.0);
        }
        self.subscription
            .release(partitions)
            .map_err(|error| Interruption::Redo(format!("giving up partitions: {error}")))
    }

    /// Throws away the work since the last commit and goes back to it.
    fn redo(&mut self, reason: &str) -> Result<(), Interruption> {
        log_events::pipeline::WorkRedone { thread: &self.settings.name, reason }.log();
        self.instruments.redone();
        if self.committer.settle() {
            publish(&self.instruments, &mut self.committing, &mut self.measured);
        }
        self.instruments.measured(&mut self.measured);
        self.committing.clear();
        self.tally.clear();
        if self.redos > 0 {
            self.shutdown.wait((FIRST_BACKOFF * 2u32.saturating_pow(self.redos - 1)).min(LONGEST_BACKOFF));
        }
        self.redos = self.redos.saturating_add(1).min(16);
        if self.redos > 1 {
            // Once happens; twice in a row, nothing gets done.
            let why = format!("work is thrown away again and again: {reason}");
            self.readiness.hold(&rollback_name(&self.settings.name), why);
        }
        self.positions.thrown_away();
        let went_back = self.committer.abandon().and_then(|()| {
            let rewound = self.subscription.rewind(&self.positions.begun(), REWIND_PATIENCE);
            rewound.map_err(|error| Interruption::Redo(format!("going back to the last commit: {error}")))
        });
        match went_back {
            Ok(back) => {
                self.positions.rewound(&back);
                self.astray = false;
                Ok(())
            }
            // The broker is still not well. Nothing may be read until the way back is made.
            Err(Interruption::Redo(reason)) => {
                log_events::pipeline::RedoFailed { thread: &self.settings.name, reason: &reason }.log();
                self.astray = true;
                Ok(())
            }
            Err(other) => Err(other),
        }
    }

    /// Goes on without a partition: what comes of its records cannot be written.
    #[cold]
    fn leave_alone(&mut self, partition: i32, reason: &str) -> Result<(), Interruption> {
        self.redo(&format!("partition {partition}: {reason}"))?;
        let pause = self.pauses.entry(partition).or_insert_with(Pause::of_a_partition);
        let seconds = pause.begin(Instant::now()).as_secs();
        log_events::pipeline::PartitionPaused { partition, seconds, reason }.log();
        self.readiness.hold(&self.partition_name(partition), reason);
        self.instruments.paused(&self.settings.input_topic, partition, true);
        self.subscription
            .pause(partition)
            .map_err(|error| Interruption::Fatal(format!("pausing partition {partition}: {error}")))
    }

    /// Tries partitions again that were left alone for long enough.
    fn try_again(&mut self) -> Result<(), Interruption> {
        if self.pauses.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let owned = self.subscription.partitions();
        let due: Vec<i32> = self
            .pauses
            .iter()
            .filter(|(partition, pause)| pause.is_over(now) && !owned.contains(partition))
            .map(|(partition, _)| *partition)
            .collect();
        for partition in due {
            log_events::pipeline::PartitionTriedAgain { partition }.log();
            let begun = self.positions.begun().get(&partition).copied().unwrap_or(Next::at(0));
            let back = self.subscription.resume(partition, begun, REWIND_PATIENCE);
            let back = back.map_err(|error| Interruption::Redo(format!("resuming partition {partition}: {error}")))?;
            self.positions.rewound(&back);
            self.readiness.clear(&self.partition_name(partition));
            self.instruments.paused(&self.settings.input_topic, partition, false);
        }
        Ok(())
    }

    /// Finds out where the partitions that wait begin, by the group's offsets and their logs, and lets them begin. What is
    /// not known yet is asked again, and the other partitions go on meanwhile: a dead member's transaction may hold its
    /// offsets back until it times out.
    fn inspect(&mut self) -> Result<(), Interruption> {
        if self.subscription.is_recreated() {
            self.begin_recreated()?;
        } else if self.subscription.topic_id().is_empty() {
            self.subscription.take_topic();
        }
        let what = "finding where partitions begin";
        let (known, failed) = self.subscription.committed_of_each(&self.waiting, INSPECTION_PATIENCE);
        let mut unknown = match failed.map(|failure| severity(&failure, what)) {
            Some(Interruption::Redo(reason)) => Some(reason),
            Some(other) => return Err(other),
            None => None,
        };
        for (partition, noted) in known {
            match self.begin(partition, noted.as_ref()) {
                Ok(true) => self.waiting.retain(|waiting| *waiting != partition),
                Ok(false) => {}
                Err(Interruption::Redo(reason)) => unknown = Some(format!("{what}: {reason}")),
                Err(other) => return Err(other),
            }
        }
        self.inspected_again = Instant::now() + if unknown.is_some() { INSPECTION_INTERVAL } else { BEGIN_INTERVAL };
        if self.waiting.is_empty() {
            self.readiness.clear(&self.settings.name);
        } else if let Some(reason) = unknown {
            self.readiness.hold(&self.settings.name, reason);
        }
        Ok(())
    }

    /// Lets a partition begin, where the group's offset and its log say. `false`: librdkafka is not so far yet.
    fn begin(&mut self, partition: i32, noted: Option<&Noted>) -> Result<bool, Interruption> {
        let failed = |error: KafkaError| severity(&error.into(), "asking for the log's start and end");
        let log = self.subscription.watermarks(partition, INSPECTION_PATIENCE).map_err(failed)?;
        let committed = noted.map(|noted| self.subscription.judge(noted));
        let Restart { next, gone } = position::restart(committed, log, self.settings.reset);
        if committed.is_none() && next.offset < log.1 && !self.settings.rescore {
            self.refuse_to_rescore(partition, log)?;
        }
        if !self.subscription.begin(partition, next, INSPECTION_PATIENCE).map_err(failed)? {
            return Ok(false);
        }
        self.positions.begin(partition, next);
        match (committed, gone) {
            (Some(before), Some(gone)) => self.report_gone(partition, before.next.offset, log, gone)?,
            (Some(_), None) => return Ok(true),
            (None, _) => log_events::pipeline::BeginsWithoutCommit { partition, offset: next.offset }.log(),
        }
        self.note(Offsets::from([(partition, next)])).map(|()| true)
    }

    /// Where the group has no offset of a partition whose verdicts stand already, its offsets are lost.
    fn refuse_to_rescore(&mut self, partition: i32, log: (i64, i64)) -> Result<(), Interruption> {
        let (input, output) = (&self.settings.input_topic, &self.settings.destination.output);
        let mut is_scored = || -> KafkaResult<bool> {
            let look = look(&mut self.look, &self.settings.consumer)?;
            let Some(verdict) = look.last(output, partition, REWIND_PATIENCE)? else { return Ok(false) };
            let Some(source) = Source::of(&verdict.value) else { return Ok(false) };
            if source.topic != *input || source.partition != partition || !(log.0..log.1).contains(&source.offset) {
                return Ok(false);
            }
            // A record that is younger than its verdict is of a topic that was deleted and made again.
            let record = look.at(input, partition, source.offset, REWIND_PATIENCE)?;
            Ok(record.is_none_or(|record| record.timestamp <= verdict.timestamp))
        };
        let asked = is_scored().map_err(|error| severity(&error.into(), &format!("looking for verdicts on {output}")));
        if !asked? {
            return Ok(());
        }
        let group = self.settings.consumer.get("group.id").unwrap_or_default();
        Err(Interruption::Fatal(format!(
            "group {group} has no offset of partition {partition} of {input}, but {output} holds verdicts on it: the \
             group's offsets expired (offsets.retention.minutes) or were deleted, or another group writes there. Set them \
             (kafka-consumer-groups.sh --reset-offsets), or start with --rescore to write those verdicts a second time"
        )))
    }

    /// Commits, with the next commit, where partitions go on though nothing of them was scored. Where they begin, too: a group
    /// without an offset of them has then lost it.
    fn note(&mut self, next: Offsets) -> Result<(), Interruption> {
        let ticket = self.committer.begin_batch()?;
        self.committer.finish_batch(ticket, &next)
    }

    fn report_gone(
        &self,
        partition: i32,
        position: i64,
        (begin, end): (i64, i64),
        gone: Gone,
    ) -> Result<(), Interruption> {
        log_events::pipeline::RecordsGone { partition, position, begin, end, reason: gone.reason() }.log();
        self.instruments.gone(&self.settings.input_topic, partition, gone.records(), gone.reason());
        if self.settings.reset != Reset::Error {
            return Ok(());
        }
        Err(Interruption::Fatal(format!(
            "partition {partition}: offset {position} is gone from its log, which holds {begin} to {end}: \
             auto.offset.reset=error ends the worker here; set it to earliest to go on"
        )))
    }

    /// The input topic was deleted, and another one has its name: reads all that it holds.
    #[cold]
    fn begin_recreated(&mut self) -> Result<(), Interruption> {
        // What was done before is of the old topic, and committed with its id: no member goes on from there.
        let committed = self.committer.commit_all(&self.subscription);
        if committed.is_ok() {
            self.publish_all();
        }
        self.subscription.take_topic();
        let begun: Vec<_> = self
            .subscription
            .partitions()
            .iter()
            .map(|&partition| (partition, self.positions.next(partition)))
            .collect();
        for (partition, _) in &begun {
            self.positions.begin(*partition, Next::at(0));
        }
        committed?;
        for (partition, before) in begun {
            self.restart_from(partition, before, None, Gone::Recreated)?;
        }
        Ok(())
    }

    /// A partition's log was cut short below what was read: goes on at `at`, or reads all that it holds.
    #[cold]
    fn restart(&mut self, partition: i32, at: Option<i64>) -> Result<(), Interruption> {
        // What was done before is about offsets that must not be mixed with those that come.
        self.committer.commit_all(&self.subscription)?;
        self.publish_all();
        self.restart_from(partition, self.positions.next(partition), at, Gone::Truncated)
    }

    fn restart_from(
        &mut self,
        partition: i32,
        before: Option<Next>,
        at: Option<i64>,
        gone: Gone,
    ) -> Result<(), Interruption> {
        let failed = |error| Interruption::Redo(format!("finding where partition {partition} goes on: {error}"));
        let log = self.subscription.watermarks(partition, REWIND_PATIENCE).map_err(failed)?;
        self.report_gone(partition, before.map_or(-1, |next| next.offset), log, gone)?;
        let next = Next::at(at.unwrap_or(log.0).max(log.0));
        self.positions.begin(partition, next);
        let to = Offsets::from([(partition, next)]);
        self.subscription.seek(&to, REWIND_PATIENCE).map_err(failed)?;
        // Below the last commit: without one of its own, a redo would go back to offsets that are gone.
        self.note(to)
    }

    /// Under which readiness knows a partition that is left alone.
    fn partition_name(&self, partition: i32) -> String {
        format!("partition {partition} of {}", self.settings.input_topic)
    }

    /// After everything was committed.
    fn publish_all(&mut self) {
        settled(&mut self.redos, &self.readiness, &self.settings.name);
        publish(&self.instruments, &mut self.committing, &mut self.measured);
        std::mem::swap(&mut self.tally, &mut self.committing);
        publish(&self.instruments, &mut self.committing, &mut self.measured);
    }

    fn publish_lag(&mut self) {
        self.lag_published = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        for lag in self.subscription.lag() {
            let age = self.positions.last_timestamp(lag.partition).map_or(0, |read| (now - read).max(0));
            let seconds = if lag.records > 0 { age as f64 / 1000.0 } else { 0.0 };
            self.instruments.lag(&self.settings.input_topic, lag.partition, lag.records, seconds);
        }
    }
}

/// The thread's client that looks at records, opened where it is not yet.
fn look<'a>(slot: &'a mut Option<Look>, config: &ClientConfig) -> KafkaResult<&'a Look> {
    Ok(match slot {
        Some(look) => look,
        None => slot.insert(Look::new(config)?),
    })
}

/// Something was committed: what was thrown away before is no loop.
fn settled(redos: &mut u32, readiness: &Readiness, thread: &str) {
    if std::mem::take(redos) > 1 {
        readiness.clear(&rollback_name(thread));
    }
}

/// Under which readiness knows that a thread's work is thrown away again and again.
fn rollback_name(thread: &str) -> String {
    format!("{thread} roll-backs")
}

/// Leaves payloads that were scored for candidates to try themselves on.
fn leave_samples<'a>(seat: &Seat, records: &[Record<'a>], outcomes: &[Outcome]) {
    let scored = |(record, outcome): (&Record<'a>, &Outcome)| match outcome {
        Outcome::Scored(_) => record.payload(),
        Outcome::Rejected(_) => None,
    };
    // The latest ones: some partition's end.
    seat.samples().leave(records.iter().zip(outcomes).rev().filter_map(scored));
}

/// Adds committed work, and what was measured of all of it, to the metrics.
fn publish(instruments: &Instruments, committed: &mut Tally, measured: &mut Measured) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
    instruments.committed(committed, now);
    instruments.measured(measured);
}
