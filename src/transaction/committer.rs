//! What acts for commits: the producers of one scoring thread, and its commit thread. What is done when is decided by
//! [`super::Uncommitted`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use super::commit_thread::{CommitError, CommitThread, PendingTransaction};
use super::pause::Pause;
use super::refusals::Refusals;
use super::size_limits::SizeLimits;
use super::timing::Timing;
use super::{ATTEMPT, Guarantee, Interruption, NO_RETURN};
use crate::kafka::client::BrokerHealth;
use crate::kafka::failure::Failure;
use crate::kafka::outbox::{Kind, Outbox, ProduceBuffer};
use crate::kafka::position::Offsets;
use crate::kafka::subscription::Subscription;
use crate::log_events;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// How long the abort of an open transaction may take: what it does is done again by the next producer's start.
const ABORT: Duration = Duration::from_millis(500);

/// How soon to look again after a transaction that holds the next one up.
const HELD_UP_WAIT: Duration = Duration::from_millis(1);

/// Output that stands still for this long makes the worker not ready.
pub(super) const STALL: Duration = Duration::from_secs(3);

/// What a committer needs to know.
#[derive(Clone)]
pub struct CommitSettings {
    /// Name for readiness and logs.
    pub name: String,
    /// The guarantee.
    pub guarantee: Guarantee,
    /// Producer properties, made for the guarantee.
    pub producer: ClientConfig,
    /// Input topic.
    pub input_topic: String,
    /// Longest time between commits while there is work; exactly once, until the verdicts are visible.
    pub interval: Duration,
    /// Exactly once: how long a transaction grows at least, as far as the longest time allows.
    pub min_interval: Duration,
    /// How long a shutdown may wait for the last commit.
    pub drain_timeout: Duration,
}

/// One thread's producers and commits.
pub struct Committer {
    pub(super) settings: CommitSettings,
    /// Topics of verdicts, dead letters and, where they are written, comparisons.
    pub(super) topics: Vec<String>,
    /// At least once: one producer. Exactly once: two, of which one takes messages while the other's transaction ends.
    pub(super) outboxes: Vec<Arc<Outbox>>,
    pub(super) current: usize,
    commit_thread: Option<CommitThread>,
    timing: Timing,
    /// How long the messages of the transaction that is being ended took to be delivered.
    delivering: Duration,
    pub(super) health: Arc<BrokerHealth>,
    pub(super) shutdown: Shutdown,
    pub(super) readiness: Readiness,
    /// Since when there is something to commit.
    since: Option<Instant>,
    /// When the last batch came.
    last: Instant,
    in_transaction: bool,
    /// At least once: since when no batch was settled though some are on their way.
    pub(super) unsettled_since: Option<Instant>,
    pub(super) batch: usize,
    pub(super) buffer: ProduceBuffer,
    pub(super) size_limits: SizeLimits,
    pub(super) refusals: Refusals,
    /// While comparisons are not written: their topic does not take them.
    pub(super) comparisons: Pause,
    /// Some were written since the producers were opened.
    pub(super) compared: bool,
    pub(super) drain_began: Option<Instant>,
    pub(super) stalled: bool,
}

impl Committer {
    /// Opens the producers; exactly once, waits until the broker has settled their transactional ids.
    pub fn open(
        settings: CommitSettings,
        topics: Vec<String>,
        health: Arc<BrokerHealth>,
        shutdown: Shutdown,
        readiness: Readiness,
    ) -> Result<Committer, Interruption> {
        let size_limits = SizeLimits::new(&settings.producer);
        let outboxes = open_outboxes(&settings, &topics, size_limits.batch_bytes, &health)?;
        let commit_thread = match settings.guarantee {
            Guarantee::ExactlyOnce => Some(CommitThread::start(&settings.name)?),
            Guarantee::AtLeastOnce => None,
        };
        let mut committer = Committer {
            timing: Timing::new(settings.interval, settings.min_interval),
            delivering: Duration::ZERO,
            settings,
            topics,
            outboxes,
            current: 0,
            commit_thread,
            health,
            shutdown,
            readiness,
            since: None,
            last: Instant::now(),
            in_transaction: false,
            unsettled_since: None,
            batch: 0,
            buffer: ProduceBuffer::default(),
            size_limits,
            refusals: Refusals::default(),
            comparisons: Pause::of_comparisons(),
            compared: false,
            drain_began: None,
            stalled: false,
        };
        // Nothing was begun, so there is nothing to lose by waiting: `repeat` says that it does.
        while let Err(interruption) = committer.initialise() {
            let Interruption::RollBack(reason) = interruption else { return Err(interruption) };
            committer.stall("transactions cannot begin", &reason);
            if committer.shutdown.wait(Duration::from_secs(1)) {
                return Err(Interruption::Aborted);
            }
            committer.outboxes =
                open_outboxes(&committer.settings, &committer.topics, size_limits.batch_bytes, &committer.health)?;
        }
        Ok(committer)
    }

    fn initialise(&mut self) -> Result<(), Interruption> {
        if self.settings.guarantee == Guarantee::AtLeastOnce {
            return Ok(());
        }
        for outbox in self.outboxes.clone() {
            self.repeat("the transaction coordinator does not answer", |committer| {
                let answer = outbox.init_transactions(ATTEMPT);
                // Asked to stop, nothing of this producer is waited for.
                answer.map_err(|error| Failure {
                    transient: error.transient && !committer.shutdown.is_requested(),
                    ..error
                })
            })?;
        }
        Ok(())
    }

    /// The producer that takes messages.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outboxes[self.current]
    }

    /// Begins a transaction with this producer, which takes messages from now on.
    pub fn begin_transaction(&mut self, producer: usize) -> Result<(), Interruption> {
        self.current = producer;
        let begun = self.outbox().begin_transaction();
        begun.map_err(|error| Interruption::RollBack(format!("beginning a transaction: {error}")))?;
        self.in_transaction = true;
        Ok(())
    }

    /// A batch begins, where this is not the one before; the messages that are sent from now on are counted for it.
    pub fn begin_batch(&mut self, batch: usize) {
        if self.batch != batch {
            self.last = Instant::now();
            self.since.get_or_insert(self.last);
            self.batch = batch;
        }
    }

    /// Serves the producers, also while there is no work: their statistics would pile up.
    pub fn serve(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.serve(Duration::ZERO));
    }

    /// How long until something is to be committed; not zero where the commit before it holds it up.
    pub fn due_in(&self) -> Option<Duration> {
        // A thread with a backlog does not wait.
        let due = self.growth(false).saturating_sub(self.since?.elapsed());
        let due = due.min(self.quiet().saturating_sub(self.last.elapsed()));
        let held_up = self.pending_since().is_some();
        Some(if held_up { due.max(HELD_UP_WAIT) } else { due })
    }

    /// Whether to commit now: the interval is over, exactly once so that it is over when the commit is done. Not for a
    /// moment while the transaction before is being ended; then it is waited for, or this one would grow older than the
    /// broker bears. `behind`: more records wait than the thread takes at once; `came`: some just came.
    pub fn is_due(&self, behind: bool, came: bool) -> bool {
        let is_grown = |age: &Duration| *age >= self.growth(behind) || !came && self.last.elapsed() >= self.quiet();
        let Some(age) = self.since.map(|since| since.elapsed()).filter(is_grown) else { return false };
        self.pending_since().is_none() || age >= (self.settings.interval * 4).max(Duration::from_secs(1))
    }

    /// How long work is gathered before its commit begins.
    fn growth(&self, behind: bool) -> Duration {
        match self.settings.guarantee {
            Guarantee::ExactlyOnce => self.timing.growth(behind),
            Guarantee::AtLeastOnce => self.settings.interval,
        }
    }

    /// How long to wait for a further record before what there is is committed.
    fn quiet(&self) -> Duration {
        match self.settings.guarantee {
            Guarantee::ExactlyOnce => self.timing.quiet(),
            Guarantee::AtLeastOnce => self.settings.interval,
        }
    }

    fn pending_since(&self) -> Option<Instant> {
        self.commit_thread.as_ref().and_then(CommitThread::busy_since)
    }

    /// Exactly once: waits until all messages of the open transaction are settled.
    pub fn await_all_settled(&mut self) -> Result<(), Interruption> {
        let began = Instant::now();
        while self.outbox().has_outstanding() {
            self.outbox().flush(Duration::from_millis(1));
            self.check_failures()?;
            self.check_timeout(began, "verdicts cannot be delivered")?;
        }
        self.delivering = began.elapsed();
        Ok(())
    }

    /// At least once: whether the messages of a batch are settled, having waited up to `wait`.
    pub fn is_settled(&mut self, batch: usize, wait: Duration) -> bool {
        self.outbox().serve(wait);
        let is_settled = self.outbox().undelivered(batch) <= 0;
        if is_settled {
            self.unsettled_since = None;
            self.flows_again();
        } else {
            self.unsettled_since.get_or_insert_with(Instant::now);
        }
        is_settled
    }

    /// At least once: waits until the messages of a batch are settled.
    pub fn await_settled(&mut self, batch: usize) -> Result<(), Interruption> {
        let began = Instant::now();
        while !self.is_settled(batch, Duration::from_millis(20)) {
            self.check_failures()?;
            self.check_timeout(began, "verdicts cannot be delivered")?;
        }
        Ok(())
    }

    /// Passes this producer's transaction to the commit thread.
    pub fn submit(
        &mut self,
        producer: usize,
        offsets: &Offsets,
        subscription: &Subscription,
    ) -> Result<(), Interruption> {
        let group = subscription
            .group_metadata()
            .ok_or_else(|| Interruption::RollBack("no longer a member of the group".into()))?;
        let list =
            subscription.to_commit(offsets).map_err(|error| Interruption::RollBack(format!("offsets: {error}")))?;
        let outbox = self.outboxes[producer].clone();
        if let Some(commit_thread) = &mut self.commit_thread {
            commit_thread.submit(PendingTransaction { outbox, offsets: list, group })?;
        }
        self.in_transaction = false;
        self.since = None;
        self.refusals.forget_below(offsets);
        Ok(())
    }

    /// How long the submitted transaction took to end, if it has.
    pub fn poll_commit(&mut self) -> Result<Option<Duration>, Interruption> {
        self.outcome(Duration::ZERO)
    }

    /// Waits for the submitted transaction; returns how long it took.
    pub fn await_commit(&mut self) -> Result<Option<Duration>, Interruption> {
        while let Some(since) = self.pending_since() {
            if let Some(took) = self.outcome(Duration::from_millis(20))? {
                return Ok(Some(took));
            }
            self.check_timeout(since, "the transaction cannot be committed")?;
            if self.commit_thread.as_ref().is_some_and(|commit_thread| commit_thread.in_call() > NO_RETURN) {
                return Err(Interruption::RollBack("the call that ends the transaction does not return".into()));
            }
        }
        Ok(None)
    }

    fn outcome(&mut self, wait: Duration) -> Result<Option<Duration>, Interruption> {
        match self.commit_thread.as_mut().and_then(|commit_thread| commit_thread.outcome(wait)) {
            None => Ok(None),
            Some(Ok(took)) => {
                self.timing.ended(self.delivering + took);
                self.flows_again();
                Ok(Some(took))
            }
            Some(Err(CommitError::Refused(failure, doing))) => Err(self.judge(&failure, doing)),
            Some(Err(CommitError::Gone)) => Err(Interruption::Fatal("the commit thread is gone".into())),
        }
    }

    /// Commits offsets outside of a transaction; `is_last`: nothing else waits for a commit.
    pub fn commit_offsets(
        &mut self,
        offsets: &Offsets,
        subscription: &Subscription,
        wait: bool,
        is_last: bool,
    ) -> Result<(), Interruption> {
        if wait {
            self.repeat("offsets cannot be committed", |_| subscription.commit(offsets, true))?;
        } else {
            let commit = subscription.commit(offsets, false);
            commit.map_err(|error| self.judge(&error, "committing offsets"))?;
        }
        self.refusals.forget_below(offsets);
        self.since = if is_last { None } else { Some(Instant::now()) };
        Ok(())
    }

    /// Lets the submitted transaction end, one way or the other, unless its producer has `lost` its brokers; returns whether it
    /// was committed. Before [`Committer::start_over`].
    pub fn await_in_flight(&mut self, lost: bool) -> bool {
        let outcome = self.commit_thread.as_mut().and_then(|commit_thread| commit_thread.give_up(!lost));
        matches!(outcome, Some(Ok(_)))
    }

    /// Throws away everything since the last commit and starts over with new producers.
    pub fn start_over(&mut self) -> Result<(), Interruption> {
        self.abort();
        for outbox in &self.outboxes {
            self.size_limits.learn(Kind::ALL.map(|kind| outbox.largest_refused(kind)));
            self.refusals.learn(outbox.take_refused());
        }
        self.in_transaction = false;
        self.compared = false;
        self.since = None;
        self.unsettled_since = None;
        if self.pending_since().is_some() {
            // A call to the broker that does not return: leave it and its thread to themselves.
            self.commit_thread = Some(CommitThread::start(&self.settings.name)?);
        }
        self.outboxes = open_outboxes(&self.settings, &self.topics, self.size_limits.batch_bytes, &self.health)?;
        self.initialise()
    }

    /// Aborts the open transaction, so that subscribers need not wait for its time-out; the new producer's start does it as
    /// well. What was queued is settled before this returns, which shows what must not be sent again.
    fn abort(&self) {
        let began = Instant::now();
        let mut aborting = self.in_transaction;
        while (aborting || self.outbox().has_outstanding()) && began.elapsed() < ABORT {
            self.outbox().serve(Duration::from_millis(5));
            if aborting {
                match self.outbox().abort_transaction(Duration::from_millis(50)) {
                    Err(error) if error.transient => {}
                    Err(error) => {
                        log_events::kafka::AbortFailed { error: &error }.log();
                        aborting = false;
                    }
                    Ok(()) => aborting = false,
                }
            }
        }
    }
}

/// The producers of a thread: exactly once two, each with a transactional id of its own.
fn open_outboxes(
    settings: &CommitSettings,
    topics: &[String],
    batch_bytes: usize,
    health: &Arc<BrokerHealth>,
) -> Result<Vec<Arc<Outbox>>, Interruption> {
    let count = if settings.guarantee == Guarantee::ExactlyOnce { 2 } else { 1 };
    let open = |number: usize| {
        let mut config = settings.producer.clone();
        config.set("batch.size", batch_bytes.to_string());
        if let Some(id) = settings.producer.get("transactional.id") {
            config.set("transactional.id", format!("{id}-{number}"));
        }
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        let outbox = Outbox::open(&config, &topics, health.clone());
        outbox.map(Arc::new).map_err(|error| Interruption::Fatal(format!("Kafka producer: {error}")))
    };
    (0..count).map(open).collect()
}
