//! The loop: membership, reading, joining, cutting. One thread; uploads run beside it, one set of cuts at a time.
//!
//! ```text
//!  turn: changes of the group ─► outgoing cuts go on ─► a batch of verdicts ─► inputs ─► cuts that are due
//!           (always, within 100 ms)                        └ not while a closed cut waits for the one before:
//!                                                            memory and disk stay bounded
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;

use super::columns::{self, Layout};
use super::cut::{self, Plan};
use super::inputs::{InputSource, Inputs, Lookup, Missing};
use super::outgoing::Outgoing;
use super::partition::{Finished, Partition, Surroundings};
use super::store::Store;
use super::telemetry;
use super::verdicts::VerdictRecord;
use super::{ArchiveError, ArchiveSettings};
use crate::kafka::batch::{BatchBuffer, Entry};
use crate::kafka::client::{self, BrokerHealth};
use crate::kafka::position::Next;
use crate::kafka::progress::Progress;
use crate::kafka::subscription::{Change, Noted, Subscription};
use crate::log_events::archive as events;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// Verdicts taken at once; they wait in memory until their inputs are found.
const BATCH: usize = 2_048;

/// Longest time without a look at the group's changes.
const TURN: Duration = Duration::from_millis(100);

/// Wait of a turn that may not read.
const PAUSE: Duration = Duration::from_millis(20);

/// How long one question to the broker may take before it is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Rows in memory over all partitions and hours, at most: some 50 MB with 29 features. Beyond, the largest file's
/// leave as a row group of their own.
const GATHERED_ROWS: usize = 131_072;

/// A member that was given nothing for so long gets nothing: a share that others have to give up comes a moment later.
const SETTLED: Duration = Duration::from_secs(10);

/// A verdict that waits for its input for so long makes the archive not ready: it may be far behind, but reading goes on.
const STANDS_STILL: Duration = Duration::from_secs(10);

/// How often the metrics of what is under way are set.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All that was read is archived and committed.
    Drained,
    /// What was read last is not; it is read again at the next start.
    Undrained,
}

/// An archive at work.
pub struct Archiver {
    settings: ArchiveSettings,
    layout: Layout,
    store: Store,
    runtime: Handle,
    readiness: Readiness,
    shutdown: Shutdown,
    /// Properties of the group's member.
    member: ClientConfig,
    health: Arc<BrokerHealth>,
    subscription: Subscription,
    buffer: BatchBuffer,
    inputs: Inputs,
    /// The partitions that are this member's.
    partitions: BTreeMap<i32, Partition>,
    /// Those of them whose committed offset is not known yet.
    unopened: Vec<i32>,
    /// The group was rearranged, and the partitions that stayed are not yet sought where they are.
    rearranged: bool,
    /// When the group gave this member its share last, be it nothing.
    assigned: Option<Instant>,
    /// Verdicts that wait for their inputs.
    pending: VecDeque<VerdictRecord>,
    /// Since when the first of them does, if none was found since.
    stands: Option<Instant>,
    outgoing: Option<Outgoing>,
    shown: Instant,
}

impl Archiver {
    /// Joins the group. `input_partitions` are those of the inputs' topic.
    ///
    /// # Errors
    /// A librdkafka property is refused, or a feature is called like a column.
    pub fn join(
        settings: ArchiveSettings,
        layout: Layout,
        store: Store,
        input_partitions: i32,
        runtime: Handle,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Result<Archiver, ArchiveError> {
        readiness.hold("assignment", "waiting for the consumer group");
        let mut member = client::consumer_config(&settings.kafka, &settings.group, 0, 1);
        // What a partition's end says: nothing is waiting, so the clock may close a cut.
        member.set("enable.partition.eof", "true");
        let health = Arc::<BrokerHealth>::default();
        let subscription = Subscription::open(&member, &settings.verdicts, health.clone(), &Progress::default())?;
        subscription.subscribe()?;
        let inputs = Inputs::open(InputSource {
            kafka: settings.kafka.clone(),
            group: settings.group.clone(),
            topic: settings.inputs.clone(),
            partitions: input_partitions,
            features: settings.features.clone(),
            max_bytes: settings.max_message_bytes,
        })?;
        Ok(Archiver {
            settings,
            layout,
            store,
            runtime,
            readiness,
            shutdown,
            member,
            health,
            subscription,
            buffer: BatchBuffer::new(BATCH),
            inputs,
            partitions: BTreeMap::new(),
            unopened: Vec::new(),
            rearranged: false,
            assigned: None,
            pending: VecDeque::new(),
            stands: None,
            outgoing: None,
            shown: Instant::now(),
        })
    }

    /// Archives until told to stop, or until caught up if so set; then drains and leaves the group.
    ///
    /// # Errors
    /// What cannot be mended by waiting; everything not committed is read again at the next start.
    pub fn run(mut self) -> Result<Ended, ArchiveError> {
        let outcome = self.work();
        self.subscription.leave([]);
        outcome
    }

    fn work(&mut self) -> Result<Ended, ArchiveError> {
        let mut stopping: Option<Instant> = None;
        loop {
            self.rejoin_without_brokers()?;
            self.answer_changes()?;
            self.open_partitions()?;
            self.seek_after_change();
            self.inputs.serve();
            self.inputs.follow()?;
            self.send()?;
            if self.show() {
                self.commit_ends();
            }
            if stopping.is_none() && (self.shutdown.is_requested() || self.is_caught_up()) {
                stopping = Some(Instant::now());
                for record in self.pending.drain(..) {
                    // It is read again: what lies behind it is not to be committed.
                    if let Some(partition) = self.partitions.get_mut(&record.partition) {
                        partition.end = None;
                    }
                }
            }
            if let Some(since) = stopping {
                self.partitions.values_mut().for_each(Partition::seal_for_the_end);
                if self.outgoing.is_none() && self.partitions.values().all(Partition::is_empty) {
                    self.commit_ends();
                    return Ok(Ended::Drained);
                }
                if self.must_give_up(since) {
                    return Ok(Ended::Undrained);
                }
                std::thread::sleep(PAUSE);
            } else if self.may_read() {
                self.read()?;
                self.join_inputs()?;
                self.close_by_the_clock();
                self.spill()?;
            } else {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Joins the group with a new client where this one was told of no broker at all, and may have lost those it knew for good.
    fn rejoin_without_brokers(&mut self) -> Result<(), ArchiveError> {
        if !self.health.take_lost() {
            return Ok(());
        }
        events::ClientReplaced {}.log();
        self.readiness.hold("assignment", "joining the consumer group with a new client");
        let partitions = self.subscription.owned().to_vec();
        self.give_up(&partitions)?;
        let verdicts = &self.settings.verdicts;
        let opened = Subscription::open(&self.member, verdicts, self.health.clone(), &Progress::default())?;
        let mut before = std::mem::replace(&mut self.subscription, opened);
        let late = before.changes().unwrap_or_default();
        before.leave(late);
        Ok(self.subscription.subscribe()?)
    }

    fn answer_changes(&mut self) -> Result<(), ArchiveError> {
        for change in self.subscription.changes()? {
            self.rearranged = true;
            match change {
                Change::Assigned(partitions) => {
                    events::PartitionsAssigned { partitions: &partitions }.log();
                    self.subscription.accept(&partitions)?;
                    self.unopened.extend(partitions);
                    self.assigned = Some(Instant::now());
                    self.readiness.clear("assignment");
                }
                Change::Revoked(partitions) => {
                    events::PartitionsRevoked { partitions: &partitions }.log();
                    self.give_up(&partitions)?;
                }
                Change::Lost(partitions) => {
                    events::PartitionsLost { partitions: &partitions }.log();
                    self.give_up(&partitions)?;
                }
            }
        }
        Ok(())
    }

    /// Forgets everything of partitions that are another's. Nothing is sent: whoever has them now reads it again.
    fn give_up(&mut self, partitions: &[i32]) -> Result<(), ArchiveError> {
        self.unopened.retain(|partition| !partitions.contains(partition));
        self.pending.retain(|record| !partitions.contains(&record.partition));
        self.stands = None;
        self.readiness.clear("inputs");
        for &partition in partitions {
            self.partitions.remove(&partition);
            // The worker writes a verdict to the partition that its input came from.
            self.inputs.rest(partition);
            telemetry::forget(partition);
        }
        if self.outgoing.as_mut().is_some_and(|outgoing| !outgoing.forget(partitions, &self.readiness)) {
            self.outgoing = None;
        }
        Ok(self.subscription.release(partitions)?)
    }

    /// Looks up where the cuts of new partitions begin, and whether they are planned. Nothing is read before.
    fn open_partitions(&mut self) -> Result<(), ArchiveError> {
        if self.unopened.is_empty() {
            return Ok(());
        }
        let committed = match self.subscription.committed(&self.unopened, TIMEOUT) {
            Ok(committed) => committed,
            Err(error) => {
                events::OffsetsUnknown { error: &error }.log();
                return Ok(());
            }
        };
        while let Some(&number) = self.unopened.last() {
            let (low, high) = match self.subscription.watermarks(number, TIMEOUT) {
                Ok(marks) => marks,
                Err(error) => {
                    events::EndUnknown { partition: number, error: &error }.log();
                    return Ok(());
                }
            };
            let commit = committed.iter().find(|commit| commit.partition == number);
            let next = commit.map_or(0, |commit| commit.next.offset);
            let plan = commit.and_then(|commit| cut::planned(&commit.note, commit.next.offset));
            if next > high {
                return Err(ArchiveError::Anew { partition: number, committed: next, end: high });
            }
            let finished = match plan {
                Some(plan) if low > next => match self.finished(number, (next, plan.until)) {
                    Ok(finished) => finished,
                    Err(reason) => {
                        events::FilesUnknown { partition: number, reason: &reason }.log();
                        return Ok(());
                    }
                },
                _ => Finished::default(),
            };
            if commit.is_some() && low > next {
                // Of what is left of a plan that says its rows, the loss is known at the cut's end.
                let deleted = match plan {
                    Some(Plan { until, rows: Some(_) }) if low < until => 0,
                    Some(Plan { until, rows: Some(rows) }) => {
                        rows.saturating_sub(finished.rows) + (low - until).unsigned_abs()
                    }
                    Some(_) if !finished.folders.is_empty() => 0,
                    _ => (low - next).unsigned_abs(),
                };
                if deleted > 0 {
                    events::VerdictsDeleted { partition: number, verdicts: deleted }.log();
                    telemetry::lost(deleted);
                }
            }
            let plan = plan.filter(|plan| plan.until > low);
            if let Some(plan) = plan {
                events::CutTakenOver { partition: number, first: next, next: plan.until }.log();
            }
            let planned = plan.map(|plan| (plan, finished));
            self.partitions.insert(number, Partition::new(number, next, planned, high));
            self.unopened.pop();
        }
        Ok(())
    }

    /// Reads on where the partitions are, and not where librdkafka believes: `ScoringThread::pass_over_ends` says why. Until
    /// then nothing is read; what comes twice is below the partition's position.
    fn seek_after_change(&mut self) {
        if !self.rearranged {
            return;
        }
        let next = self.partitions.iter().map(|(&partition, state)| (partition, Next::at(state.next))).collect();
        match self.subscription.seek(&next, TIMEOUT) {
            Ok(()) => self.rearranged = false,
            // A partition that was just assigned is not begun yet, or a broker is away.
            Err(error) => events::NotSought { error: &error }.log(),
        }
    }

    /// Which files of a planned cut are there.
    fn finished(&self, partition: i32, range: (i64, i64)) -> Result<Finished, String> {
        let rows = |file| columns::rows(file).map_err(|error| error.to_string());
        let files = self.store.finished(&self.settings.verdicts, partition, range, rows);
        let files = self.runtime.block_on(files)?;
        let rows = files.iter().map(|(_, rows)| rows).sum();
        Ok(Finished { folders: files.into_iter().map(|(folder, _)| folder).collect(), rows })
    }

    /// Commits the ends of partitions whose last records are no verdicts, so that an idle group has no lag.
    fn commit_ends(&mut self) {
        if self.outgoing.is_some() || !self.pending.is_empty() {
            return;
        }
        let end = |(&partition, state): (&i32, &Partition)| {
            Some(Noted { partition, next: Next::at(state.idle_end()?), note: String::new() })
        };
        let ends: Vec<Noted> = self.partitions.iter().filter_map(end).collect();
        // Where the group is being rearranged, or a broker is away, there is another time.
        if self.subscription.commit_with_notes(&ends).is_ok() {
            self.committed(ends.iter().map(|end| (end.partition, end.next.offset)));
        }
    }

    /// The group's offsets of these partitions are these now.
    fn committed(&mut self, ends: impl Iterator<Item = (i32, i64)>) {
        for (partition, offset) in ends {
            if let Some(partition) = self.partitions.get_mut(&partition) {
                partition.committed = offset;
            }
        }
    }

    /// Lets the cuts on their way go on, and sends those that are closed when none are.
    fn send(&mut self) -> Result<(), ArchiveError> {
        if self.outgoing.is_none() {
            let sealed: Vec<_> = self.partitions.values_mut().filter_map(Partition::take_sealed).collect();
            if sealed.is_empty() {
                return Ok(());
            }
            self.outgoing = Some(Outgoing::new(sealed, &self.settings.verdicts, &self.settings.spool)?);
        }
        if let Some(outgoing) = &mut self.outgoing
            && outgoing.advance(&self.subscription, &self.store, &self.runtime, &self.readiness)?
        {
            let ends: Vec<_> = outgoing.ends().collect();
            self.outgoing = None;
            self.committed(ends.into_iter());
        }
        Ok(())
    }

    /// Whether verdicts may be taken: the place of each partition is known, and no closed cut has to wait.
    fn may_read(&self) -> bool {
        self.unopened.is_empty() && !self.rearranged && !self.partitions.values().any(Partition::has_sealed)
    }

    /// Takes what the partitions have delivered, unless verdicts still wait for their inputs.
    fn read(&mut self) -> Result<(), ArchiveError> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        self.inputs.begin();
        let batch = self.subscription.records(&mut self.buffer, TURN);
        for entry in batch.iter() {
            match entry {
                Entry::Record(record) => {
                    let partition = self.partitions.get_mut(&record.partition());
                    // Else of an assignment that is over.
                    if let Some(partition) = partition.filter(|partition| record.offset() >= partition.next) {
                        partition.next = record.offset() + 1;
                        partition.end = None;
                        self.pending.push_back(VerdictRecord::read(&record));
                    }
                }
                Entry::End { partition, offset } => {
                    if let Some(partition) = self.partitions.get_mut(&partition) {
                        partition.end = Some(offset);
                    }
                }
                Entry::Error { partition, code, reason } => match code {
                    RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed => {
                        return Err(ArchiveError::Forbidden(format!(
                            "reading verdicts of partition {partition}: {reason}"
                        )));
                    }
                    RDKafkaErrorCode::BadMessage => return Err(ArchiveError::Damaged { partition, reason }),
                    _ => events::PartitionError { partition, code: &code, reason: &reason }.log(),
                },
            }
        }
        Ok(())
    }

    /// Finds the input of each waiting verdict, in order, and adds the row; as far as it gets in a turn.
    fn join_inputs(&mut self) -> Result<(), ArchiveError> {
        let deadline = Instant::now() + TURN;
        let around = Surroundings { layout: &self.layout, policy: &self.settings.policy, spool: &self.settings.spool };
        while let Some(record) = self.pending.front() {
            let features = match &record.content {
                Ok(verdict) => match self.inputs.look_up(verdict, deadline) {
                    Lookup::Found(features) => Ok(features),
                    Lookup::Missing(missing) => Err(missing),
                    Lookup::NotYet => {
                        if self.stands.get_or_insert_with(Instant::now).elapsed() >= STANDS_STILL {
                            let what = "waiting for the input of a verdict: is the input topic within reach, and may it be read?";
                            self.readiness.hold("inputs", what);
                        }
                        return Ok(());
                    }
                },
                Err(refused) => {
                    let (partition, offset) = (record.partition, record.offset);
                    events::NoVerdict { partition, offset, reason: &refused.message }.log();
                    // Never looked at.
                    Err(Missing::Gone)
                }
            };
            if let Some(partition) = self.partitions.get_mut(&record.partition) {
                let added = partition.add(record, features, &around);
                added.map_err(|error| ArchiveError::spool(&self.settings.spool, &error))?;
            }
            self.pending.pop_front();
            if self.stands.take().is_some() {
                self.readiness.clear("inputs");
            }
        }
        Ok(())
    }

    fn close_by_the_clock(&mut self) {
        let now = now();
        let nothing_waits = self.pending.is_empty();
        for partition in self.partitions.values_mut() {
            partition.seal_if_due(&self.settings.policy, Some((now, nothing_waits)));
        }
    }

    /// Keeps the rows in memory below their bound.
    fn spill(&mut self) -> Result<(), ArchiveError> {
        let mut files: Vec<_> = self.partitions.values_mut().flat_map(Partition::files).collect();
        let mut gathered: usize = files.iter().map(|file| file.gathered()).sum();
        while gathered > GATHERED_ROWS
            && let Some(largest) = files.iter_mut().max_by_key(|file| file.gathered())
        {
            gathered -= largest.gathered();
            let spool = &self.settings.spool;
            largest.flush(spool).map_err(|error| ArchiveError::spool(spool, &error))?;
        }
        Ok(())
    }

    /// Whether, in the mode that stops by itself, everything that was there at the start was read.
    fn is_caught_up(&self) -> bool {
        self.settings.until_caught_up
            && self.assigned.is_some_and(|at| !self.partitions.is_empty() || at.elapsed() > SETTLED)
            && self.unopened.is_empty()
            && self.pending.is_empty()
            && self.partitions.values().all(|partition| {
                partition.next >= partition.target || partition.end.is_some_and(|end| end >= partition.target)
            })
    }

    /// Whether the last files are not waited for any longer.
    fn must_give_up(&self, since: Instant) -> bool {
        let limit = self.settings.drain_timeout;
        // Caught up, time is limited only where the destination refuses: there is no one who waits for the end.
        let failing = self.outgoing.as_ref().and_then(|outgoing| outgoing.failing_since);
        let told_to = self.shutdown.is_requested() && since.elapsed() > limit;
        self.shutdown.is_aborted() || told_to || failing.is_some_and(|since| since.elapsed() > limit)
    }

    /// Sets the metrics of what is under way, now and then; whether it was time to.
    fn show(&mut self) -> bool {
        if self.shown.elapsed() < SHOW_INTERVAL {
            return false;
        }
        self.shown = Instant::now();
        let earliest = self.partitions.values().filter_map(Partition::earliest).min();
        let age = earliest.map_or(0, |earliest| now().saturating_sub(earliest).max(0));
        let (mut gathered, mut open) = (0, 0);
        for file in self.partitions.values_mut().flat_map(Partition::files) {
            gathered += file.gathered();
            open += 1;
        }
        telemetry::show(&self.subscription.lag(), age as f64 / 1000.0, gathered, open);
        true
    }
}

/// Epoch milliseconds.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
