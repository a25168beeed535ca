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
use crate::log_events;

/// What is known of a partition since it was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    /// Offset of the first record read.
    first: i64,
    /// Offset below which nothing is processed again; `None` after the way back to the last commit.
    next: Option<i64>,
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
}

impl Positions {
    /// Takes the records of `batch` that are of `owned` partitions and were not read before.
    pub fn admit<'a>(&mut self, batch: &'a Batch<'_>, owned: &[i32]) -> Result<Admitted<'a>, Interruption> {
        let mut admitted = Admitted { records: Vec::with_capacity(batch.len()), runs: Vec::new() };
        for entry in batch.iter() {
            match entry {
                Entry::Record(record) => {
                    let (partition, offset) = (record.partition(), record.offset());
                    let same = |run: &&mut Run| run.partition == partition && offset >= run.next;
                    if let Some(run) = admitted.runs.last_mut().filter(same) {
                        run.next = offset + 1;
                        run.last_timestamp = record.timestamp();
                    } else if self.is_new(&admitted.runs, owned, partition, offset) {
                        let last_timestamp = record.timestamp();
                        admitted.runs.push(Run { partition, next: offset + 1, first: offset, last_timestamp });
                    } else {
                        log_events::pipeline::RecordSkipped { partition, offset }.log();
                        continue;
                    }
                    admitted.records.push(record);
                }
                Entry::End { .. } => {}
                Entry::Error { partition, code, reason } => partition_error(partition, code, &reason)?,
            }
        }
        for run in &admitted.runs {
            let position = self.partitions.entry(run.partition);
            let position = position.or_insert(Position { first: run.first, next: None, last_timestamp: None });
            (position.next, position.last_timestamp) = (Some(run.next), run.last_timestamp);
        }
        Ok(admitted)
    }

    /// Whether a record that begins a run is ours and above everything read before.
    fn is_new(&self, runs: &[Run], owned: &[i32], partition: i32, offset: i64) -> bool {
        let in_batch = runs.iter().rev().find(|run| run.partition == partition).map(|run| run.next);
        let next = in_batch.or_else(|| self.partitions.get(&partition)?.next);
        owned.contains(&partition) && next.is_none_or(|next| offset >= next)
    }

    /// Partitions that came or went: what was known of them is about another assignment.
    pub fn forget(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    /// After the way back to the last commit: the broker's offsets decide what comes next.
    pub fn rewound(&mut self) {
        self.partitions.values_mut().for_each(|position| position.next = None);
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
        RDKafkaErrorCode::AutoOffsetReset => Err(Interruption::Fatal(format!(
            "partition {partition}: {reason}. The committed offset is gone from the topic: set \
             -X auto.offset.reset=earliest (or latest) to go on"
        ))),
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
        positions.partitions.insert(1, Position { first: 3, next: Some(7), last_timestamp: None });
        let runs = [run(0, 4, 9), run(2, 0, 1)];
        for (partition, offset, new) in
            [(1, 6, false), (1, 7, true), (0, 8, false), (0, 9, true), (2, 1, true), (5, 0, false), (3, 0, true)]
        {
            assert_eq!(positions.is_new(&runs, &[0, 1, 2, 3], partition, offset), new, "{partition} {offset}");
        }
        positions.rewound();
        assert!(positions.is_new(&[], &[1], 1, 0), "after the way back the broker decides");
        assert_eq!(positions.first_read(), HashMap::from([(1, 3)]));
        positions.forget(&[1]);
        assert_eq!(positions.first_read(), HashMap::new());
    }
}
