//! Commit: the two guarantees. Offsets advance only on confirmed output.
//!
//! ```text
//!  exactly once    begin ─ send… ─ send… ─ [nearly over] ─ all delivered ─ hand over ─► notary: offsets, commit
//!                                                            └─ begin with the other producer ─ send… ─
//!  at least once   send… ─ delivery reports ─ batch complete ─ [interval over] ─ commit offsets
//! ```
//!
//! What cannot be completed ends as an [`Interruption`]: the work since the last commit is thrown away
//! ([`Committer::abandon`]) and read again. There is one such path for every failure, fencing and time-outs included:
//! a new producer under the same transactional id, which makes the broker abort what the old one left open.

mod deliveries;
mod notary;
mod pause;
mod refusals;
mod severity;
mod size_limits;
mod timing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::CommitMode;
use rdkafka::error::RDKafkaErrorCode;

use self::deliveries::Deliveries;
use self::notary::{Notary, Order, Unfinished};
pub use self::pause::Pause;
pub use self::refusals::Refusal;
use self::refusals::Refusals;
pub(super) use self::severity::severity;
use self::size_limits::SizeLimits;
use self::timing::Timing;
use crate::kafka::client::BrokerHealth;
use crate::kafka::failure::Failure;
use crate::kafka::outbox::{Kind, Outbox, Outgoing, ProduceBuffer, Produced, TICKETS, Undelivered};
use crate::kafka::position::Offsets;
use crate::kafka::subscription::Subscription;
use crate::log_events;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// One attempt of a call to the broker; between attempts shutdown is looked at. Long enough for the several round trips
/// of a transaction's end, coordinator look-ups with their back-off included: an attempt that times out starts anew, and
/// too short a one would never end.
const ATTEMPT: Duration = Duration::from_secs(5);

/// After this long the broker has aborted the transaction (transaction.timeout.ms) and repeating its end is in vain.
const GIVE_UP: Duration = Duration::from_secs(30);

/// How long a farewell may take: whatever it does is done again by the next producer's start.
const FAREWELL: Duration = Duration::from_millis(500);

/// Wait for room in a full queue.
const FULL_WAIT: Duration = Duration::from_millis(1);

/// How soon to look again after a transaction that holds the next one up.
const HELD_UP_WAIT: Duration = Duration::from_millis(1);

/// Output that stands still for this long makes the worker not ready.
const STALL: Duration = Duration::from_secs(3);

/// What a subscriber may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Guarantee {
    /// Verdicts, dead letters and offsets in one transaction: each row's verdict exactly once for `read_committed`.
    ExactlyOnce,
    /// Offsets after delivery reports: lowest latency, verdicts may be repeated after a crash.
    AtLeastOnce,
}

/// Why a turn of the scoring loop ended early.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// Throw away the work since the last commit and read it again.
    #[error("{0}")]
    Redo(String),
    /// One partition cannot go on: throw away the work since the last commit, and go on with the others.
    #[error("partition {partition}: {reason}")]
    Partition {
        /// Of the input topic.
        partition: i32,
        /// What is in its way.
        reason: String,
    },
    /// The process cannot go on.
    #[error("{0}")]
    Fatal(String),
    /// Shutdown will not wait any longer.
    #[error("stopped before the work was committed; it is read again at the next start")]
    OutOfPatience,
}

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
    /// How long a shutdown may wait for the last commit.
    pub drain_timeout: Duration,
}

/// How far commits are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What was handed over before is now committed; it took this long.
    pub committed: Option<Duration>,
    /// What was done until now is on its way to be committed.
    pub handed_over: bool,
}

/// One thread's commits.
pub struct Committer {
    settings: CommitSettings,
    /// Topics of verdicts, dead letters and, where they are written, comparisons.
    topics: Vec<String>,
    /// At least once: one producer. Exactly once: two, of which one takes messages while the other's transaction ends.
    outboxes: Vec<Arc<Outbox>>,
    current: usize,
    notary: Option<Notary>,
    timing: Timing,
    /// How long the messages of the transaction that is being ended took to be delivered.
    delivering: Duration,
    health: Arc<BrokerHealth>,
    shutdown: Shutdown,
    readiness: Readiness,
    /// Next offsets to read of what may be committed now.
    ready: Offsets,
    /// Since when there is something to commit.
    since: Option<Instant>,
    in_transaction: bool,
    deliveries: Deliveries,
    /// A commit, at least once, that the next progress tells of.
    reporting: Option<Duration>,
    ticket: usize,
    buffer: ProduceBuffer,
    size_limits: SizeLimits,
    refusals: Refusals,
    /// While comparisons are not written: their topic does not take them.
    comparisons: Pause,
    /// Some were written since the producers were opened.
    compared: bool,
    drain_began: Option<Instant>,
    stalled: bool,
}

impl Committer {
    /// Opens the producer; exactly once, waits until the broker has settled this transactional id.
    pub fn open(
        settings: CommitSettings,
        topics: Vec<String>,
        health: Arc<BrokerHealth>,
        shutdown: Shutdown,
        readiness: Readiness,
    ) -> Result<Committer, Interruption> {
        let size_limits = SizeLimits::new(&settings.producer);
        let outboxes = open_outboxes(&settings, &topics, size_limits.batch_bytes, &health)?;
        let notary = match settings.guarantee {
            Guarantee::ExactlyOnce => Some(Notary::start(&settings.name)?),
            Guarantee::AtLeastOnce => None,
        };
        let mut committer = Committer {
            timing: Timing::new(settings.interval),
            delivering: Duration::ZERO,
            settings,
            topics,
            outboxes,
            current: 0,
            notary,
            health,
            shutdown,
            readiness,
            ready: Offsets::new(),
            since: None,
            in_transaction: false,
            deliveries: Deliveries::default(),
            reporting: None,
            ticket: 0,
            buffer: ProduceBuffer::default(),
            size_limits,
            refusals: Refusals::default(),
            comparisons: Pause::of_comparisons(),
            compared: false,
            drain_began: None,
            stalled: false,
        };
        // Nothing was begun, so there is nothing to lose by waiting: `patiently` says that it does.
        while let Err(interruption) = committer.initialise() {
            let Interruption::Redo(reason) = interruption else { return Err(interruption) };
            committer.stall("transactions cannot begin", &reason);
            if committer.shutdown.wait(Duration::from_secs(1)) {
                return Err(Interruption::OutOfPatience);
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
            self.patiently("the transaction coordinator does not answer", |committer| {
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
    fn outbox(&self) -> &Outbox {
        &self.outboxes[self.current]
    }

    /// Messages of this kind and of this size or more are refused by their topic; `usize::MAX` where none was yet.
    pub fn size_limit(&self, kind: Kind) -> usize {
        self.size_limits.refused[kind as usize]
    }

    /// What the broker refused of a record, when it was written before.
    #[inline]
    pub fn refusal(&self, partition: i32, offset: i64) -> Option<&Refusal> {
        self.refusals.of(partition, offset)
    }

    /// Whether comparisons are written: not for a while after their topic did not take one.
    pub fn takes_comparisons(&mut self) -> bool {
        self.comparisons.is_over(Instant::now())
    }

    /// Begins a batch; its messages carry the ticket.
    pub fn begin_batch(&mut self) -> Result<usize, Interruption> {
        if self.settings.guarantee == Guarantee::ExactlyOnce && !self.in_transaction {
            self.outbox()
                .begin_transaction()
                .map_err(|error| Interruption::Redo(format!("beginning a transaction: {error}")))?;
            self.in_transaction = true;
        }
        self.since.get_or_insert_with(Instant::now);
        self.ticket = self.ticket.wrapping_add(1);
        Ok(self.ticket)
    }

    /// Queues verdicts or comparisons (key and value each) of one partition in order, waiting while the queue is full: this is where
    /// the worker stops consuming when verdicts cannot be delivered.
    pub fn send_together<'a>(
        &mut self,
        (kind, topic): (Kind, &str),
        partition: i32,
        ticket: usize,
        messages: impl ExactSizeIterator<Item = (Option<&'a [u8]>, &'a [u8])> + Clone,
    ) -> Result<(), Interruption> {
        let (mut sent, count) = (0, messages.len());
        self.compared |= kind == Kind::Comparison;
        let largest = || messages.clone().map(|(key, value)| key.map_or(0, <[u8]>::len) + value.len()).max();
        self.until_queued(
            (kind, topic),
            partition,
            || largest().unwrap_or(0),
            |committer| {
                let rest = messages.clone().skip(sent);
                let outbox = &committer.outboxes[committer.current];
                match outbox.send_together((kind, topic), partition, ticket, rest, &mut committer.buffer)? {
                    Produced::All => Ok(true),
                    Produced::Full(queued) => {
                        sent += queued;
                        Ok(sent == count)
                    }
                }
            },
        )
    }

    /// Queues one message with headers of its own, waiting while the queue is full.
    pub fn send(&mut self, message: &Outgoing<'_>, ticket: usize) -> Result<(), Interruption> {
        self.until_queued(
            (message.kind, message.topic),
            message.partition,
            || message.size(),
            |committer| committer.outbox().send(message, ticket).map(|produced| produced == Produced::All),
        )
    }

    /// Sends until all is queued; `size` is the largest message's.
    fn until_queued(
        &mut self,
        (kind, topic): (Kind, &str),
        partition: i32,
        size: impl Fn() -> usize,
        mut send: impl FnMut(&mut Committer) -> Result<bool, Failure>,
    ) -> Result<(), Interruption> {
        let mut waiting: Option<Instant> = None;
        loop {
            match send(self) {
                Ok(true) => {
                    if waiting.is_some() {
                        self.flows_again();
                    }
                    return Ok(());
                }
                Ok(false) => {
                    let began = *waiting.get_or_insert_with(Instant::now);
                    self.outbox().flush(FULL_WAIT);
                    self.check_delivery()?;
                    self.check_patience(began, "verdicts cannot be delivered")?;
                }
                Err(failure) if failure.code == RDKafkaErrorCode::MessageSizeTooLarge => {
                    let refused = &mut self.size_limits.refused[kind as usize];
                    *refused = size().min(*refused);
                    return Err(Interruption::Redo(format!("a message for {topic} is too large for this client")));
                }
                // Nothing of the call is queued: the verdicts go on without their comparisons.
                Err(failure) if kind == Kind::Comparison => {
                    self.suspend_comparisons(&failure);
                    return Ok(());
                }
                Err(failure) if kind == Kind::Verdict && failure.code == RDKafkaErrorCode::UnknownPartition => {
                    return Err(self.no_partition(partition));
                }
                Err(failure) => return Err(self.judge(&failure, "sending")),
            }
        }
    }

    /// The input topic has a partition that the output topic has not, or not yet.
    fn no_partition(&self, partition: i32) -> Interruption {
        let (output, input) = (&self.topics[0], &self.settings.input_topic);
        let reason = format!(
            "topic {output} has no partition {partition}, {input} has: give both the same count (kafka-topics.sh --alter)"
        );
        Interruption::Partition { partition, reason }
    }

    fn suspend_comparisons(&mut self, failure: &Failure) {
        let wait = self.comparisons.begin(Instant::now());
        log_events::pipeline::ComparisonsSuspended {
            thread: &self.settings.name,
            seconds: wait.as_secs(),
            reason: &failure,
        }
        .log();
    }

    /// Serves what the producers have to tell, be there work or not: their statistics would pile up.
    pub fn serve(&self) {
        self.outboxes.iter().for_each(|outbox| outbox.serve(Duration::ZERO));
    }

    /// Ends a batch: `next` are the next offsets to read once its messages are delivered.
    pub fn finish_batch(&mut self, ticket: usize, next: &Offsets) -> Result<(), Interruption> {
        self.outbox().serve(Duration::ZERO);
        match self.settings.guarantee {
            Guarantee::ExactlyOnce => merge(&mut self.ready, next),
            Guarantee::AtLeastOnce => {
                self.deliveries.add(ticket, next.clone());
                // Tickets are reused after a turn of the ring: never have more batches out.
                let began = Instant::now();
                while self.deliveries.len() >= TICKETS - 1 {
                    self.outbox().serve(Duration::from_millis(20));
                    self.collect_delivered()?;
                    self.check_patience(began, "verdicts cannot be delivered")?;
                }
            }
        }
        self.check_delivery()
    }

    /// How long until something is to be committed; not zero where the commit before it holds it up.
    pub fn due_in(&self) -> Option<Duration> {
        // Whoever is behind does not wait.
        let due = self.growth(false).saturating_sub(self.since?.elapsed());
        let held_up = self.notary.as_ref().and_then(Notary::busy_since).is_some();
        Some(if held_up { due.max(HELD_UP_WAIT) } else { due })
    }

    /// Commits when the interval is over, exactly once so that it is then done; tells how far that is. `behind`: more
    /// records wait than the thread takes at once.
    pub fn commit_if_due(&mut self, subscription: &Subscription, behind: bool) -> Result<Progress, Interruption> {
        match self.settings.guarantee {
            Guarantee::ExactlyOnce => self.commit_transaction_if_due(subscription, behind),
            Guarantee::AtLeastOnce => {
                let mut progress = Progress { committed: self.reporting.take(), handed_over: false };
                if let Some(oldest) = self.deliveries.oldest() {
                    self.outbox().serve(Duration::ZERO);
                    self.collect_delivered()?;
                    if oldest > STALL && !self.deliveries.is_empty() {
                        self.check_patience(Instant::now() - oldest, "verdicts cannot be delivered")?;
                    }
                }
                if self.is_due(behind) {
                    let began = Instant::now();
                    let commit = subscription.commit(&self.ready, CommitMode::Async);
                    commit.map_err(|error| self.judge(&error.into(), "committing offsets"))?;
                    self.refusals.forget_below(&self.ready);
                    self.ready.clear();
                    progress.handed_over = self.deliveries.count_up_to(self.ticket);
                    // Where earlier counts still waited, the latest ones need a commit more, though there is nothing to commit.
                    let is_done = self.deliveries.is_empty() && progress.handed_over;
                    self.since = if is_done { None } else { Some(Instant::now()) };
                    if self.deliveries.is_covered() {
                        self.reporting = Some(began.elapsed());
                    }
                }
                Ok(progress)
            }
        }
    }

    fn is_due(&self, behind: bool) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= self.growth(behind))
    }

    /// How long work is gathered before its commit begins.
    fn growth(&self, behind: bool) -> Duration {
        match self.settings.guarantee {
            Guarantee::ExactlyOnce => self.timing.growth(behind),
            Guarantee::AtLeastOnce => self.settings.interval,
        }
    }

    fn commit_transaction_if_due(
        &mut self,
        subscription: &Subscription,
        behind: bool,
    ) -> Result<Progress, Interruption> {
        let mut progress = Progress::default();
        if let Some(outcome) = self.notary.as_mut().and_then(|notary| notary.outcome(Duration::ZERO)) {
            progress.committed = Some(self.committed(outcome)?);
        }
        if !self.is_due(behind) {
            return Ok(progress);
        }
        if self.notary.as_ref().and_then(Notary::busy_since).is_some() {
            // The one before is not committed yet. For a moment this transaction may grow; then the thread waits, or
            // its own would grow older than the broker bears.
            let patience = (self.settings.interval * 4).max(Duration::from_secs(1));
            if self.since.is_none_or(|since| since.elapsed() < patience) {
                return Ok(progress);
            }
            progress.committed = self.wait_for_notary()?;
        }
        progress.handed_over = self.hand_over(subscription)?;
        Ok(progress)
    }

    /// Passes the open transaction to the notary and changes to the other producer.
    fn hand_over(&mut self, subscription: &Subscription) -> Result<bool, Interruption> {
        self.since = None;
        if !self.in_transaction {
            return Ok(false);
        }
        let began = Instant::now();
        while self.outbox().has_outstanding() {
            self.outbox().flush(Duration::from_millis(1));
            self.check_delivery()?;
            self.check_patience(began, "verdicts cannot be delivered")?;
        }
        self.check_delivery()?;
        self.delivering = began.elapsed();
        let group = subscription
            .group_metadata()
            .ok_or_else(|| Interruption::Redo("no longer a member of the group".into()))?;
        let offsets =
            subscription.to_commit(&self.ready).map_err(|error| Interruption::Redo(format!("offsets: {error}")))?;
        let outbox = self.outboxes[self.current].clone();
        if let Some(notary) = &mut self.notary {
            notary.hand_over(Order { outbox, offsets, group })?;
        }
        self.in_transaction = false;
        self.refusals.forget_below(&self.ready);
        self.ready.clear();
        self.current = (self.current + 1) % self.outboxes.len();
        Ok(true)
    }

    /// Waits for the transaction that is being ended, if there is one.
    fn wait_for_notary(&mut self) -> Result<Option<Duration>, Interruption> {
        while let Some(since) = self.notary.as_ref().and_then(Notary::busy_since) {
            if let Some(outcome) = self.notary.as_mut().and_then(|notary| notary.outcome(Duration::from_millis(20))) {
                return self.committed(outcome).map(Some);
            }
            self.check_patience(since, "the transaction cannot be committed")?;
        }
        Ok(None)
    }

    /// The notary ended a transaction; how long it needed, if it is committed.
    fn committed(&mut self, outcome: Result<Duration, Unfinished>) -> Result<Duration, Interruption> {
        match outcome {
            Ok(took) => {
                self.timing.ended(self.delivering + took);
                self.flows_again();
                Ok(took)
            }
            Err(Unfinished::Refused(failure, doing)) => Err(self.judge(&failure, doing)),
            Err(Unfinished::Gone) => Err(Interruption::Fatal("the committing thread is gone".into())),
        }
    }

    /// What a failure means. A transaction in which one topic is forbidden fails whole, and the broker does not say which:
    /// while comparisons are written, theirs is tried without first.
    fn judge(&mut self, failure: &Failure, doing: &str) -> Interruption {
        let in_transaction = self.settings.guarantee == Guarantee::ExactlyOnce;
        if in_transaction && self.compared && failure.code == RDKafkaErrorCode::TopicAuthorizationFailed {
            self.suspend_comparisons(failure);
            return Interruption::Redo(format!("{doing}: {failure}"));
        }
        severity(failure, doing)
    }

    /// Commits everything, now: before partitions are given up and at the end.
    pub fn commit_all(&mut self, subscription: &Subscription) -> Result<(), Interruption> {
        match self.settings.guarantee {
            Guarantee::ExactlyOnce => {
                self.wait_for_notary()?;
                self.hand_over(subscription)?;
                self.wait_for_notary()?;
                Ok(())
            }
            Guarantee::AtLeastOnce if self.since.is_none() => Ok(()),
            Guarantee::AtLeastOnce => {
                let began = Instant::now();
                loop {
                    self.collect_delivered()?;
                    if self.deliveries.is_empty() {
                        break;
                    }
                    self.outbox().serve(Duration::from_millis(20));
                    self.check_patience(began, "verdicts cannot be delivered")?;
                }
                self.flows_again();
                let next = std::mem::take(&mut self.ready);
                self.since = None;
                self.deliveries.clear();
                self.reporting = None;
                self.patiently("offsets cannot be committed", |_| Ok(subscription.commit(&next, CommitMode::Sync)?))
            }
        }
    }

    /// Lets the transaction that is being ended end, one way or the other; tells whether it was committed. To be called
    /// before [`Committer::abandon`].
    pub fn settle(&mut self) -> bool {
        let ended = self.notary.as_mut().and_then(Notary::give_up);
        self.reporting.take().is_some() || matches!(ended, Some(Ok(_)))
    }

    /// Throws away everything since the last commit and starts over with new producers.
    pub fn abandon(&mut self) -> Result<(), Interruption> {
        self.farewell();
        for outbox in &self.outboxes {
            self.size_limits.learn(Kind::ALL.map(|kind| outbox.largest_refused(kind)));
            self.refusals.learn(outbox.take_refused());
        }
        self.in_transaction = false;
        self.compared = false;
        self.ready.clear();
        self.deliveries.clear();
        self.since = None;
        if self.notary.as_ref().and_then(Notary::busy_since).is_some() {
            // A call to the broker that does not return: leave it and its thread to themselves.
            self.notary = Some(Notary::start(&self.settings.name)?);
        }
        self.outboxes = open_outboxes(&self.settings, &self.topics, self.size_limits.batch_bytes, &self.health)?;
        self.initialise()
    }

    /// Aborts the open transaction: polite, so that subscribers need not wait for the time-out; the new producer's start
    /// does it as well. What was queued is settled before it returns, and that tells what must not be sent again.
    fn farewell(&self) {
        let began = Instant::now();
        let mut aborting = self.in_transaction;
        while (aborting || self.outbox().has_outstanding()) && began.elapsed() < FAREWELL {
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

    /// At least once: the offsets of delivered batches become ready, unless a message failed.
    fn collect_delivered(&mut self) -> Result<(), Interruption> {
        let outbox = self.outboxes[self.current].clone();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        let mut ready = std::mem::take(&mut self.ready);
        let collected = deliveries.collect(&mut ready, |ticket| outbox.undelivered(ticket), || self.check_delivery());
        (self.deliveries, self.ready) = (deliveries, ready);
        if collected? {
            self.flows_again();
        }
        Ok(())
    }

    /// A message that failed for good: the work it belongs to must be done again. At least once, a comparison's failure
    /// concerns no other message; in a transaction it takes the others with it, once.
    fn check_delivery(&mut self) -> Result<(), Interruption> {
        let Some(Undelivered { kind, partition, failure }) = self.outbox().failure() else { return Ok(()) };
        match kind {
            Kind::Comparison => {
                self.suspend_comparisons(&failure);
                if self.settings.guarantee == Guarantee::AtLeastOnce {
                    self.outbox().forgive_comparison();
                    return Ok(());
                }
                Err(Interruption::Redo(format!("delivering a comparison: {failure}")))
            }
            Kind::Verdict if failure.code == RDKafkaErrorCode::UnknownPartition => Err(self.no_partition(partition)),
            _ => Err(self.judge(&failure, "delivering")),
        }
    }

    /// Calls until it succeeds, fails for good or shutdown runs out of patience.
    fn patiently(
        &mut self,
        stall: &str,
        mut call: impl FnMut(&mut Committer) -> Result<(), Failure>,
    ) -> Result<(), Interruption> {
        let began = Instant::now();
        loop {
            match call(self) {
                Ok(()) => {
                    self.flows_again();
                    return Ok(());
                }
                Err(error) if error.transient => {
                    self.check_patience(began, stall)?;
                    if began.elapsed() > GIVE_UP {
                        return Err(Interruption::Redo(format!("{stall}: {error}")));
                    }
                    // A call that fails at once must not spin.
                    self.outbox().serve(Duration::from_millis(20));
                }
                Err(error) => return Err(self.judge(&error, stall)),
            }
        }
    }

    /// Not ready while stalled; out of patience when a drain took too long.
    fn check_patience(&mut self, began: Instant, stall: &str) -> Result<(), Interruption> {
        self.serve();
        if self.shutdown.is_aborted() {
            return Err(Interruption::OutOfPatience);
        }
        if self.shutdown.is_requested() {
            let drain_began = *self.drain_began.get_or_insert_with(Instant::now);
            if drain_began.elapsed() > self.settings.drain_timeout {
                return Err(Interruption::OutOfPatience);
            }
        }
        if !self.stalled && began.elapsed() > STALL {
            self.stall(stall, &self.health.last_error());
        }
        Ok(())
    }

    fn stall(&mut self, stall: &str, reason: &str) {
        if !std::mem::replace(&mut self.stalled, true) {
            log_events::pipeline::OutputStalled { thread: &self.settings.name, reason, stall }.log();
            self.readiness.hold(&self.output_name(), format!("{stall}: {reason}"));
        }
    }

    fn flows_again(&mut self) {
        if std::mem::take(&mut self.stalled) {
            log_events::pipeline::OutputFlows { thread: &self.settings.name }.log();
            self.readiness.clear(&self.output_name());
        }
    }

    /// Under which readiness knows this thread's output; joining the group is another reason of the same thread.
    fn output_name(&self) -> String {
        format!("{} output", self.settings.name)
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

/// Adds `next` to `into`, the later offset winning.
fn merge(into: &mut Offsets, next: &Offsets) {
    for (&partition, &next) in next {
        let slot = into.entry(partition).or_insert(next);
        *slot = next.max(*slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::position::Next;

    #[test]
    fn offsets_only_advance() {
        let offsets =
            |all: [(i32, i64); 3]| all.map(|(partition, offset)| (partition, Next { offset, epoch: 2 })).into();
        let mut ready: Offsets = offsets([(0, 10), (1, 5), (2, 0)]);
        merge(&mut ready, &offsets([(0, 8), (1, 6), (2, 1)]));
        assert_eq!(ready, offsets([(0, 10), (1, 6), (2, 1)]));
        let later = Next { offset: 10, epoch: 3 };
        merge(&mut ready, &Offsets::from([(0, later)]));
        assert_eq!(ready[&0], later, "the same place, of a later leader");
    }
}
