//! Admit: the records of a batch that a thread is to process: of its own partitions, none twice.
//!
//! ```text
//!  Batch ─► Admitted { records in order, runs: one per stretch of the same partition }
//!                 ▲
//!             Positions: per partition, where it was begun, what comes next
//! ```
//!
//! A fetch brings many records of one partition in a row, so what is known of the partition is looked up once per such
//! run and not once per record.

use std::collections::HashMap;

use rdkafka::error::RDKafkaErrorCode;

use super::commit::Interruption;
use crate::kafka::batch::{Batch, Entry, Record};
use crate::kafka::subscription::Subscription;
use crate::log_events;

/// What is known of a partition since it was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Offset of the first record read.
    first: i64,
    /// Offset below which nothing is processed again; `None` after the way back to the last commit.
    next: Option<i64>,
    /// How far it was ever read: what was thrown away is above `next`.
    reached: i64,
    /// Kafka timestamp of the last record read.
    last_timestamp: Option<i64>,
}

/// How far a thread has read each of its partitions.
#[derive(Debug, Default)]
pub struct Positions {
    partitions: HashMap<i32, Position>,
}

/// Records of one partition that follow each other in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The partition.
    pub partition: i32,
    /// The offset after its last record.
    pub next: i64,
    first: i64,
    last_timestamp: Option<i64>,
}

/// What of a batch is to be processed.
pub struct Admitted<'a> {
    /// The records, in the batch's order.
    pub records: Vec<Record<'a>>,
    /// Their runs, in the batch's order; a partition may have several.
    pub runs: Vec<Run>,
    /// Partitions whose end was reached beyond their last record: what is between holds nothing to score (transaction
    /// markers, records of transactions that were aborted, compacted ones).
    pub ends: Vec<(i32, i64)>,
    /// Records that were gone before they were read: partition, the offset that came next, and where the log begins now.
    pub gone: Vec<(i32, i64, i64)>,
    /// Partitions whose log begins again below what was read: it was cut short, or the topic was made anew.
    pub cut: Vec<i32>,
}

impl Positions {
    /// Takes the records of `batch` that are of `owned` partitions and were not read before.
    pub fn admit<'a>(
        &mut self,
        batch: &'a Batch<'_>,
        subscription: &Subscription,
    ) -> Result<Admitted<'a>, Interruption> {
        let owned = subscription.partitions();
        let mut admitted = Admitted {
            records: Vec::with_capacity(batch.len()),
            runs: Vec::new(),
            ends: Vec::new(),
            gone: Vec::new(),
            cut: Vec::new(),
        };
        for entry in batch.iter() {
            match entry {
                Entry::Record(record) => {
                    let (partition, offset) = (record.partition(), record.offset());
                    // A run ends at a gap: what is between is looked at once.
                    let same = |run: &&mut Run| run.partition == partition && offset == run.next;
                    if let Some(run) = admitted.runs.last_mut().filter(same) {
                        run.next = offset + 1;
                        run.last_timestamp = record.timestamp();
                    } else if !owned.contains(&partition) || admitted.cut.contains(&partition) {
                        continue;
                    } else if self.is_new(&admitted.runs, partition, offset) {
                        if let Some(next) = self.expected(&admitted.runs, partition).filter(|next| offset > *next)
                            && let Some(start) = subscription.log_start(partition).filter(|start| *start > next)
                        {
                            admitted.gone.push((partition, next, start.min(offset)));
                        }
                        let last_timestamp = record.timestamp();
                        admitted.runs.push(Run { partition, next: offset + 1, first: offset, last_timestamp });
                    } else if subscription.was_reset(partition) {
                        admitted.cut.push(partition);
                        continue;
                    } else {
                        log_events::pipeline::RecordSkipped { partition, offset }.log();
                        continue;
                    }
                    admitted.records.push(record);
                }
                Entry::End { partition, offset } if owned.contains(&partition) => {
                    admitted.ends.push((partition, offset))
                }
                Entry::End { .. } => {}
                Entry::Error { partition, code, reason } => partition_error(partition, code, &reason)?,
            }
        }
        for run in &admitted.runs {
            self.read(run.partition, run.first, run.next, run.last_timestamp);
        }
        let mut ends = std::mem::take(&mut admitted.ends);
        ends.retain(|&(partition, end)| {
            let known = self.partitions.get(&partition).and_then(|position| position.next);
            let beyond = known.is_none_or(|next| end > next);
            if beyond {
                self.read(partition, end, end, None);
            }
            beyond
        });
        admitted.ends = ends;
        Ok(admitted)
    }

    fn read(&mut self, partition: i32, first: i64, next: i64, last_timestamp: Option<i64>) {
        let unread = Position { first, next: None, reached: 0, last_timestamp: None };
        let position = self.partitions.entry(partition).or_insert(unread);
        position.next = Some(next);
        position.reached = position.reached.max(next);
        position.last_timestamp = last_timestamp.or(position.last_timestamp);
    }

    /// The next offset to read of a partition, as far as is known.
    pub fn next(&self, partition: i32) -> Option<i64> {
        self.partitions.get(&partition)?.next
    }

    /// Whether records were read that were thrown away since, and not read again.
    pub fn has_unread(&self) -> bool {
        self.partitions.values().any(|position| position.next.is_none_or(|next| next < position.reached))
    }

    /// A partition begins here: it was assigned, or its log does not have what was known of it.
    pub fn begin(&mut self, partition: i32, offset: i64) {
        let position = Position { first: offset, next: Some(offset), reached: offset, last_timestamp: None };
        self.partitions.insert(partition, position);
    }

    /// Whether a record that begins a run is above everything read before.
    fn is_new(&self, runs: &[Run], partition: i32, offset: i64) -> bool {
        self.expected(runs, partition).is_none_or(|next| offset >= next)
    }

    /// What comes next in a partition, behind these runs.
    fn expected(&self, runs: &[Run], partition: i32) -> Option<i64> {
        let in_batch = runs.iter().rev().find(|run| run.partition == partition).map(|run| run.next);
        in_batch.or_else(|| self.partitions.get(&partition)?.next)
    }

    /// Partitions that came or went: what was known of them is about another assignment.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    /// Work was thrown away: until the way back is made, nothing says what comes next.
    pub fn thrown_away(&mut self) {
        self.partitions.values_mut().for_each(|position| position.next = None);
    }

    /// The way back to the last commit is made: `next` is what comes next.
    pub fn rewound(&mut self, next: &HashMap<i32, i64>) {
        for (partition, &offset) in next {
            if let Some(position) = self.partitions.get_mut(partition) {
                position.next = Some(offset);
            }
        }
    }

    /// Where each partition was begun: where one without a commit goes back to.
    pub fn first_read(&self) -> HashMap<i32, i64> {
        self.partitions.iter().map(|(&partition, position)| (partition, position.first)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(partition: i32, first: i64, next: i64) -> Run {
        Run { partition, next, first, last_timestamp: None }
    }

    #[test]
    fn a_record_is_new_once() {
        let mut positions = Positions::default();
        positions.partitions.insert(1, Position { first: 3, next: Some(7), reached: 7, last_timestamp: None });
        let runs = [run(0, 4, 9), run(2, 0, 1)];
        for (partition, offset, new) in
            [(1, 6, false), (1, 7, true), (0, 8, false), (0, 9, true), (2, 1, true), (3, 0, true)]
        {
            assert_eq!(positions.is_new(&runs, partition, offset), new, "{partition} {offset}");
        }
        positions.thrown_away();
        assert!(positions.has_unread(), "what was read is thrown away");
        positions.rewound(&HashMap::from([(1, 5)]));
        assert!(!positions.is_new(&[], 1, 4), "the last commit decides");
        assert!(positions.is_new(&[], 1, 5) && positions.has_unread());
        positions.read(1, 5, 7, None);
        assert!(!positions.has_unread(), "all of it was read again");
        assert_eq!(positions.first_read(), HashMap::from([(1, 3)]));
        positions.forget(&[1]);
        assert_eq!(positions.first_read(), HashMap::new());
    }
}
