//! One scoring thread: the loop that takes batches, scores them, and does what [`super::protocol`] decides.
//!
//! ```text
//!            ┌──────────────────────────────── turn ────────────────────────────────┐
//!  join ──►  │ answer changes ─► take a batch ─► score ─► commit if due ─► verdicts   │ ──► drain ──► leave
//!            │ (another model, if one is to score)          (challenger, if there is one) │
//!            └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Whatever happens becomes an event; `ScoringThread::handle` steps the protocol with it and performs the effects, until
//! there are none left. An error ends a turn early and is an event too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use super::counts::Counts;
use super::protocol::{Effect, Event, Failed, Protocol};
use crate::kafka::batch::BatchBuffer;
use crate::kafka::client::BrokerHealth;
use crate::kafka::look::Look;
use crate::kafka::position::{Offsets, Reset};
use crate::kafka::progress::Progress;
use crate::kafka::subscription::{Change, Subscription};
use crate::log_events;
use crate::model::exchange::{Seat, ThreadChallenger, ThreadModel};
use crate::pipeline::compare::Comparer;
use crate::pipeline::produce::{Destination, Writer};
use crate::shutdown::Shutdown;
use crate::telemetry::metrics::Instruments;
use crate::telemetry::readiness::Readiness;
use crate::transaction::committer::{CommitSettings, Committer};
use crate::transaction::pause::Pause;
use crate::transaction::{Interruption, LOST, Step, severity};

/// How often membership changes and the client's events are looked for while records flow.
const EVENTS_INTERVAL: Duration = Duration::from_millis(2);

/// How often lag is published, and what stands still is looked at.
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
    pub(super) settings: ThreadSettings,
    pub(super) subscription: Subscription,
    pub(super) committer: Committer,
    pub(super) protocol: Protocol,
    pub(super) counts: Counts,
    pub(super) seat: Seat,
    pub(super) model: ThreadModel,
    pub(super) challenger: ThreadChallenger,
    pub(super) comparer: Comparer,
    pub(super) writer: Writer,
    pub(super) buffer: BatchBuffer,
    pub(super) unanswered: VecDeque<Change>,
    pub(super) health: Arc<BrokerHealth>,
    pub(super) next: Offsets,
    pub(super) inspected_again: Instant,
    pub(super) instruments: Instruments,
    pub(super) readiness: Readiness,
    pub(super) shutdown: Shutdown,
    /// Why the work is thrown away, in words.
    pub(super) reason: String,
    /// Partitions that are left alone, or were and are being tried again.
    pub(super) pauses: HashMap<i32, Pause>,
    ended: Option<Ended>,
    lag_published: Instant,
    pub(super) samples_left: Option<Instant>,
    events_served: Instant,
    /// Nothing was there at the last look.
    pub(super) idle: bool,
    /// Looks at single records, once that was needed.
    pub(super) look: Option<Look>,
    /// What the transaction commits that is being ended.
    submitted: Offsets,
    /// Partitions of a topic that was deleted and made again, of which that is said already.
    pub(super) left: Offsets,
}

impl ScoringThread {
    /// Takes its model, opens the producer, joins the group.
    pub fn start(
        settings: ThreadSettings,
        seat: Seat,
        readiness: Readiness,
        progress: Progress,
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
        let subscription = Subscription::open(&settings.consumer, &settings.input_topic, health.clone(), &progress)
            .and_then(|subscription| subscription.subscribe().map(|()| subscription))
            .map_err(|error| Interruption::Fatal(format!("Kafka consumer: {error}")))?;
        let mut thread = ScoringThread {
            buffer: BatchBuffer::new(settings.max_batch),
            protocol: Protocol::new(settings.commit.guarantee),
            settings,
            subscription,
            committer,
            counts: Counts::default(),
            seat,
            model,
            challenger,
            comparer,
            writer,
            unanswered: VecDeque::new(),
            health,
            next: Offsets::new(),
            inspected_again: Instant::now(),
            instruments: Instruments::default(),
            readiness,
            shutdown,
            reason: String::new(),
            pauses: HashMap::new(),
            ended: None,
            lag_published: Instant::now(),
            samples_left: None,
            events_served: Instant::now(),
            idle: true,
            look: None,
            submitted: Offsets::new(),
            left: Offsets::new(),
        };
        thread.fit_amount();
        thread.fit_challenger();
        Ok(thread)
    }

    /// Scores until shutdown, then drains, commits and leaves the group.
    pub fn run(mut self) -> Result<Ended, Interruption> {
        let outcome = loop {
            if let Some(ended) = self.ended {
                break Ok(ended);
            }
            let turned = if self.shutdown.is_requested() { self.handle(Event::Stop) } else { self.turn() };
            if let Err(fatal) = turned.or_else(|interruption| self.fail(interruption)) {
                break Err(fatal);
            }
        };
        self.leave(outcome)
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

    /// Tells the protocol what happened, and does what it asks for, until it asks for nothing.
    ///
    /// # Errors
    /// What was done so far must not be gone on with: see [`ScoringThread::fail`].
    pub(super) fn handle(&mut self, event: Event<'_>) -> Result<(), Interruption> {
        let effects = self.step(event);
        if effects.is_empty() { Ok(()) } else { self.perform_all(effects) }
    }

    fn step(&mut self, event: Event<'_>) -> Vec<Effect> {
        let effects = self.protocol.step(event);
        self.committer.begin_batch(self.protocol.batch());
        effects
    }

    /// An interruption is an event, unless the process cannot survive it.
    fn fail(&mut self, mut interruption: Interruption) -> Result<(), Interruption> {
        loop {
            let failed = match &interruption {
                Interruption::RollBack(_) => Failed::Work,
                Interruption::Partition { partition, .. } => Failed::Partition(*partition),
                Interruption::Aborted => Failed::Timeout,
                Interruption::Fatal(_) if self.protocol.is_stopping() => Failed::Timeout,
                Interruption::Fatal(_) => return Err(interruption),
            };
            self.reason = interruption.to_string();
            let effects = self.step(Event::Failed(failed));
            if effects.iter().any(|effect| matches!(effect, Effect::End { .. })) {
                let (thread, reason) = (&self.settings.name, &interruption);
                log_events::lifecycle::LeftWithoutCommitting { thread, reason }.log();
            }
            match self.perform_all(effects) {
                Ok(()) => return Ok(()),
                Err(next) => interruption = next,
            }
        }
    }

    fn perform_all(&mut self, effects: Vec<Effect>) -> Result<(), Interruption> {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            effects.extend(self.perform(effect)?);
        }
        Ok(())
    }

    /// Does what the protocol asks for; returns what it asks for next.
    fn perform(&mut self, effect: Effect) -> Result<Vec<Effect>, Interruption> {
        let mut happened = None;
        match effect {
            Effect::Commit(step) => happened = self.commit(step)?,
            Effect::Accept(partitions) => self.accept(&partitions)?,
            Effect::Release(partitions) => self.release(&partitions)?,
            Effect::Rejoin { left } => self.rejoin(left)?,
            Effect::Restart { partition, before, at } => {
                let next = self.restart(partition, before, at)?;
                happened = Some(Event::Begun { partition, next, commit: true });
            }
            Effect::RollBack { number } => {
                let lost = self.health.take_lost();
                match self.roll_back(number, lost)? {
                    Some(back) => return Ok(self.step(Event::Rewound(&back))),
                    None if lost => happened = Some(Event::Outdated),
                    None => {}
                }
            }
            Effect::Pause(partition) => self.pause(partition)?,
            Effect::HoldReadiness => {
                let why = format!("work is thrown away again and again: {}", self.reason);
                self.readiness.hold(&self.roll_backs_name(), why);
            }
            Effect::ClearReadiness => self.readiness.clear(&self.roll_backs_name()),
            Effect::End { drained } => self.ended = Some(Ended { drained }),
        }
        Ok(happened.map_or_else(Vec::new, |event| self.step(event)))
    }

    /// Takes a step towards a commit; returns what came of it, where the protocol waits for that.
    fn commit(&mut self, step: Step) -> Result<Option<Event<'static>>, Interruption> {
        match step {
            Step::Begin { producer } => self.committer.begin_transaction(producer)?,
            Step::AwaitSettled => {
                match self.protocol.on_their_way() {
                    Some((oldest, _)) => self.committer.await_settled(oldest)?,
                    None => self.committer.await_all_settled()?,
                }
                return Ok(Some(Event::Settled));
            }
            Step::CheckFailures => {
                self.committer.check_failures()?;
                return Ok(Some(Event::NoFailure));
            }
            Step::Submit { producer, offsets } => {
                self.committer.submit(producer, &offsets, &self.subscription)?;
                self.submitted = offsets;
                return Ok(Some(Event::Submitted));
            }
            Step::AwaitCommit => {
                if let Some(took) = self.committer.await_commit()? {
                    self.counts.commit_took(took);
                }
                return Ok(Some(Event::Committed));
            }
            Step::CommitOffsets { offsets, wait, is_last } => {
                let began = Instant::now();
                self.committer.commit_offsets(&offsets, &self.subscription, wait, is_last)?;
                self.counts.commit_took(began.elapsed());
                return Ok(wait.then_some(Event::Committed));
            }
            Step::CountsSubmitted => self.counts.submitted(),
            Step::CountsCommitted => {
                self.subscription.progress().committed(&std::mem::take(&mut self.submitted));
                self.counts.committed(&self.instruments);
            }
            Step::AllCommitted => self.counts.all_committed(&self.instruments),
        }
        Ok(None)
    }

    fn turn(&mut self) -> Result<(), Interruption> {
        if self.idle || self.events_served.elapsed() >= EVENTS_INTERVAL {
            self.events_served = Instant::now();
            self.take_changes()?;
        }
        while let Some(change) = self.unanswered.pop_front() {
            self.answer(change)?;
        }
        if self.health.has_lost_brokers() {
            return Err(Interruption::RollBack(LOST.into()));
        }
        if self.protocol.is_rewinding() {
            self.leave_topic_that_is_gone()?;
            if self.protocol.is_stuck() {
                // A client that cannot go back, whatever it is that keeps it: another one begins where the group stands.
                self.handle(Event::Outdated)?;
            }
            return Err(Interruption::RollBack("not yet back at the last commit".into()));
        }
        if Instant::now() >= self.inspected_again && self.protocol.waiting().next().is_some() {
            self.inspect()?;
        }
        if self.seat.is_outdated(&self.model) {
            self.exchange_model();
        }
        if self.seat.has_other_challenger(&self.challenger) && self.seat.exchange_challenger(&mut self.challenger) {
            self.fit_challenger();
        }
        self.score_batch()?;
        if self.lag_published.elapsed() >= LAG_INTERVAL {
            self.lag_published = Instant::now();
            self.publish_lag();
            self.committer.serve();
            self.protocol.positions_mut().tick();
            // Also where nothing comes: what librdkafka knows of the topic that is gone may keep it from the new one.
            self.leave_topic_that_is_gone()?;
            if let Some(reason) = self.subscription.progress().distrusted() {
                self.reason = reason;
                return self.handle(Event::Outdated);
            }
            self.pass_over_ends()?;
            if self.is_caught_up() {
                self.handle(Event::CaughtUp)?;
            }
            self.try_again()?;
        }
        Ok(())
    }

    fn take_changes(&mut self) -> Result<(), Interruption> {
        let changes = self.subscription.changes();
        let changes = changes.map_err(|error| match severity(&error, "Kafka consumer") {
            Interruption::RollBack(reason) => Interruption::Fatal(reason),
            other => other,
        })?;
        self.unanswered.extend(changes);
        if let Some(reason) = self.subscription.refused()
            && self.subscription.owned().is_empty()
        {
            self.readiness.hold(&self.settings.name, format!("no partitions: {reason}"));
        }
        Ok(())
    }
}
