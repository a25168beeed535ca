//! Positions: how far each partition was read, and so which records of a batch a thread processes: those of its own
//! partitions, none twice.
//!
//! ```text
//!  Batch ─► Admitted { records in order, runs: one per stretch of the same partition }
//!                 ▲
//!             Positions: per partition, where it was begun, what comes next
//! ```
//!
//! A fetch brings many records of one partition in a row, so what is known of the partition is looked up once per such
//! run and not once per record.

use std::collections::BTreeMap;

use rdkafka::error::RDKafkaErrorCode;

use crate::kafka::batch::{Batch, Entry, Record};
use crate::kafka::position::{Committed, NO_EPOCH, Next, Offsets};
use crate::kafka::subscription::Subscription;
use crate::log_events;
use crate::transaction::Interruption;
use crate::transaction::rules::{Rule, Rules};

#[cfg(test)]
mod tests;

/// What is known of a partition since it was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Position {
    /// Where it was begun.
    first: i64,
    /// Offset below which nothing is processed again; `None` after the way back to the last commit.
    next: Option<i64>,
    /// Leader epoch of the last record read.
    epoch: i32,
    /// How far it was ever read: what was thrown away is above `next`.
    reached: i64,
    /// Kafka timestamp of the last record read.
    last_timestamp: Option<i64>,
    /// For so many ticks more a gap is looked at twice.
    doubtful_ticks: u8,
    /// The offset behind a gap that is being looked at again.
    behind_gap: Option<i64>,
    /// What came next when it was last asked whether the partition rests.
    resting_at: Option<i64>,
}

/// For how many ticks after librdkafka was told to go elsewhere a gap is looked at twice.
const DOUBTFUL_TICKS: u8 = 5;

/// How far a thread has read each of its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Positions {
    partitions: BTreeMap<i32, Position>,
    rules: Rules,
}

/// Records of one partition that follow each other in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The partition.
    pub partition: i32,
    /// The offset after its last record.
    pub next: i64,
    /// Leader epoch of its last record.
    pub epoch: i32,
    first: i64,
    last_timestamp: Option<i64>,
}

/// What of a batch is to be processed.
pub struct Admitted<'a> {
    /// The records, in the batch's order.
    pub records: Vec<Record<'a>>,
    /// Their runs, in the batch's order; a partition may have several.
    pub runs: Vec<Run>,
    /// Records that were gone before they were read: partition, the offset that came next, and where the log begins now.
    pub gone: Vec<(i32, i64, i64)>,
    /// Partitions whose log was cut short below what was read, with the offset to go on at: where another leader's log parts
    /// from the one that was read (KIP-320), or `None` where only the log's start is sure.
    pub cut: Vec<(i32, Option<i64>)>,
    /// Partitions to be read again from where they are: records may be missing before those that came.
    pub again: Vec<i32>,
    /// Partitions whose next batch is damaged, and librdkafka's words.
    pub damaged: Vec<(i32, String)>,
}

#[cfg(test)]
impl Run {
    /// Of one record.
    pub(super) fn of(partition: i32, offset: i64, epoch: i32) -> Run {
        Run { partition, next: offset + 1, epoch, first: offset, last_timestamp: None }
    }
}

impl Admitted<'_> {
    /// What follows in the batch is not where the partition goes on.
    fn is_interrupted(&self, partition: i32) -> bool {
        self.cut.iter().any(|(cut, _)| *cut == partition)
            || self.again.contains(&partition)
            || self.damaged.iter().any(|(damaged, _)| *damaged == partition)
    }
}

impl Position {
    fn at(Next { offset, epoch }: Next) -> Position {
        Position {
            first: offset,
            next: Some(offset),
            epoch,
            reached: offset,
            last_timestamp: None,
            doubtful_ticks: DOUBTFUL_TICKS,
            behind_gap: None,
            resting_at: None,
        }
    }
}

impl Positions {
    pub(super) fn with(rules: Rules) -> Positions {
        Positions { rules, ..Positions::default() }
    }

    /// Takes the records of `batch` that are of `active` partitions and were not read before.
    pub fn admit<'a>(
        &mut self,
        batch: &'a Batch<'_>,
        active: impl Fn(i32) -> bool,
        subscription: &Subscription,
    ) -> Result<Admitted<'a>, Interruption> {
        let mut admitted = Admitted {
            records: Vec::with_capacity(batch.len()),
            runs: Vec::new(),
            gone: Vec::new(),
            cut: Vec::new(),
            again: Vec::new(),
            damaged: Vec::new(),
        };
        for entry in batch.iter() {
            match entry {
                Entry::Record(record) => {
                    let (partition, offset) = (record.partition(), record.offset());
                    // A run ends at a gap: what is between is looked at once.
                    let same = |run: &&mut Run| run.partition == partition && offset == run.next;
                    if let Some(run) = admitted.runs.last_mut().filter(same) {
                        run.next = offset + 1;
                        run.epoch = record.leader_epoch();
                        run.last_timestamp = record.timestamp();
                    } else if !active(partition) || admitted.is_interrupted(partition) {
                        continue;
                    } else if self.is_new(&admitted.runs, partition, offset) {
                        if self.is_doubtful(&admitted.runs, partition, offset) {
                            admitted.again.push(partition);
                            continue;
                        }
                        if let Some(next) = self.expected(&admitted.runs, partition).filter(|next| offset > *next)
                            && let Some((start, _)) = subscription.log(partition).filter(|(start, _)| *start > next)
                        {
                            admitted.gone.push((partition, next, start.min(offset)));
                        }
                        let (epoch, last_timestamp) = (record.leader_epoch(), record.timestamp());
                        admitted.runs.push(Run { partition, next: offset + 1, epoch, first: offset, last_timestamp });
                    } else if subscription.was_reset(partition) {
                        admitted.cut.push((partition, None));
                        continue;
                    } else if self.is_of_later_leader(&admitted.runs, partition, record.leader_epoch()) {
                        admitted.cut.push((partition, Some(offset)));
                        continue;
                    } else {
                        log_events::pipeline::RecordSkipped { partition, offset }.log();
                        continue;
                    }
                    admitted.records.push(record);
                }
                // Not asked for.
                Entry::End { .. } => {}
                // librdkafka would go on behind it.
                Entry::Error { partition, code: RDKafkaErrorCode::BadMessage, reason } => {
                    if active(partition) && !admitted.is_interrupted(partition) {
                        admitted.damaged.push((partition, reason));
                    }
                }
                Entry::Error { partition, code, reason } => partition_error(partition, code, &reason)?,
            }
        }
        for run in &admitted.runs {
            self.read(run);
        }
        Ok(admitted)
    }

    /// Some time has passed: what librdkafka still had in hand when it was told to go elsewhere has come, or will not.
    pub fn tick(&mut self) {
        for position in self.partitions.values_mut() {
            position.doubtful_ticks = position.doubtful_ticks.saturating_sub(1);
        }
    }

    /// These records are processed.
    pub(super) fn read(&mut self, run: &Run) {
        let position = self.partitions.entry(run.partition).or_insert(Position::at(Next::at(run.first)));
        position.next = Some(run.next);
        position.epoch = position.epoch.max(run.epoch);
        position.reached = position.reached.max(run.next);
        position.last_timestamp = run.last_timestamp.or(position.last_timestamp);
    }

    /// The next offset to read of a partition, as far as is known.
    pub fn next(&self, partition: i32) -> Option<Next> {
        let position = self.partitions.get(&partition)?;
        Some(Next { offset: position.next?, epoch: position.epoch })
    }

    /// Whether records were read that were thrown away since, and not read again.
    pub fn has_unread(&self) -> bool {
        self.partitions.values().any(|position| position.next.is_none_or(|next| next < position.reached))
    }

    /// A partition begins here: it was assigned, or its log does not have what was known of it.
    pub fn begin(&mut self, partition: i32, next: Next) {
        self.partitions.insert(partition, Position::at(next));
    }

    /// Whether records may be missing before this one, which begins a run. librdkafka may lose the first ones when it is told
    /// to go elsewhere while it hands records over; read again from where the partition was, they come, or the gap is the
    /// log's own.
    fn is_doubtful(&mut self, runs: &[Run], partition: i32, offset: i64) -> bool {
        if self.expected(runs, partition).is_none_or(|next| offset <= next) {
            return false;
        }
        let Some(position) = self.partitions.get_mut(&partition) else { return false };
        if position.doubtful_ticks > 0 && position.behind_gap != Some(offset) {
            position.behind_gap = Some(offset);
            return true;
        }
        position.behind_gap = None;
        false
    }

    /// Partitions that were read no further since this was last asked, and where they are.
    pub fn at_rest(&mut self) -> Vec<(i32, Next)> {
        let mut resting = Vec::new();
        for (&partition, position) in &mut self.partitions {
            let before = std::mem::replace(&mut position.resting_at, position.next);
            if let Some(offset) = position.next.filter(|_| before == position.next) {
                resting.push((partition, Next { offset, epoch: position.epoch }));
            }
        }
        resting
    }

    /// Up to there a partition holds nothing to score.
    pub fn pass(&mut self, partition: i32, offset: i64) {
        if let Some(position) = self.partitions.get_mut(&partition) {
            position.next = Some(offset);
            position.reached = position.reached.max(offset);
        }
    }

    /// Whether a record that begins a run is above everything read before.
    pub(super) fn is_new(&self, runs: &[Run], partition: i32, offset: i64) -> bool {
        !self.rules.hold(Rule::NothingTwice) || self.expected(runs, partition).is_none_or(|next| offset >= next)
    }

    /// What comes next in a partition, behind these runs.
    fn expected(&self, runs: &[Run], partition: i32) -> Option<i64> {
        let in_batch = runs.iter().rev().find(|run| run.partition == partition).map(|run| run.next);
        in_batch.or_else(|| self.partitions.get(&partition)?.next)
    }

    /// Whether a record below what was read was written by a later leader than that: one that did not have all of it.
    pub(super) fn is_of_later_leader(&self, runs: &[Run], partition: i32, epoch: i32) -> bool {
        let in_batch = runs.iter().rev().find(|run| run.partition == partition).map(|run| run.epoch);
        let read = in_batch.or_else(|| self.partitions.get(&partition).map(|position| position.epoch));
        self.rules.hold(Rule::EpochsAreCompared) && read.is_some_and(|read| read != NO_EPOCH && epoch > read)
    }

    /// Partitions that came or went: what was known of them is about another assignment.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    /// Work was thrown away: until the way back is made, nothing says what comes next.
    pub fn thrown_away(&mut self) {
        self.partitions.values_mut().for_each(|position| position.next = None);
    }

    /// Where each partition goes back to: to the group's offset, or to where it was begun if there is none since, or only one
    /// of a topic that is gone.
    pub fn back(&self, committed: &BTreeMap<i32, Committed>) -> Offsets {
        let next = |(&partition, position): (&i32, &Position)| {
            let begun = Next::at(position.first);
            let is_usable =
                |committed: &&Committed| committed.is_of_this_topic || !self.rules.hold(Rule::OffsetsOfThisTopic);
            if !self.rules.hold(Rule::RewindToCommitted) {
                return (partition, Next::at(position.reached));
            }
            let usable = committed.get(&partition).filter(is_usable);
            (partition, usable.map_or(begun, |committed| committed.next.max(begun)))
        };
        self.partitions.iter().map(next).collect()
    }

    /// The way back to the last commit is made: `back` is what comes next.
    pub fn rewound(&mut self, back: &Offsets) {
        for (partition, next) in back {
            if let Some(position) = self.partitions.get_mut(partition) {
                position.next = Some(next.offset);
                position.epoch = next.epoch;
                position.doubtful_ticks = DOUBTFUL_TICKS;
            }
        }
    }

    /// Partitions that have begun.
    pub fn begun(&self) -> impl Iterator<Item = i32> {
        self.partitions.keys().copied()
    }

    /// Kafka timestamp of the last record read of a partition, epoch milliseconds.
    pub fn last_timestamp(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.last_timestamp
    }
}

fn partition_error(partition: i32, code: RDKafkaErrorCode, reason: &str) -> Result<(), Interruption> {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed => {
            Err(Interruption::Fatal(format!("reading partition {partition}: {reason}")))
        }
        _ => {
            log_events::kafka::PartitionError { partition, code: &code, reason }.log();
            Ok(())
        }
    }
}
