//! A look at single records, without a place in any group: what a topic held last, what stands at an offset.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::batch::Entry;
use super::client::{self, Events};
use super::consumer::NativeConsumer;
use super::failure::Failure;

/// Offsets at a partition's end among which its last visible record is looked for.
const LOOKED_THROUGH: i64 = 10_000;

/// A record that was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where it stands in its partition.
    pub offset: i64,
    /// Kafka timestamp, epoch milliseconds.
    pub timestamp: Option<i64>,
    /// Its value, empty where it has none.
    pub value: Vec<u8>,
}

/// A client that looks at records.
pub struct Look(NativeConsumer<Events>);

impl Look {
    /// A client with a member's properties, transactions that are not committed left out if those say so.
    pub fn new(config: &ClientConfig) -> Result<Look, KafkaError> {
        let mut config = config.clone();
        // A partition's end is told when a fetch comes back empty: at once, not after half a second.
        config.set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
        client::lone_consumer(&config, Arc::default()).map(Look)
    }

    /// The last record of a partition, if there is one among its last offsets; `None` too where there is no such partition.
    pub fn last(&self, topic: &str, partition: i32, timeout: Duration) -> Result<Option<Seen>, Failure> {
        let (low, high) = match self.0.watermarks(topic, partition, timeout) {
            Err(Failure {
                code: RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition,
                ..
            }) => return Ok(None),
            marks => marks?,
        };
        if low >= high {
            return Ok(None);
        }
        let mut last = None;
        self.read(topic, partition, low.max(high - LOOKED_THROUGH), timeout, |seen| {
            last = Some(seen);
            true
        })?;
        Ok(last)
    }

    /// The record at an offset, or the first one behind it.
    pub fn at(&self, topic: &str, partition: i32, offset: i64, timeout: Duration) -> Result<Option<Seen>, Failure> {
        let mut found = None;
        self.read(topic, partition, offset, timeout, |seen| {
            found = Some(seen);
            false
        })?;
        Ok(found)
    }

    /// The end of a partition, where it lies behind `from` and no visible record stands between.
    pub fn end_behind(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        timeout: Duration,
    ) -> Result<Option<i64>, Failure> {
        // First: what is read then reaches at least so far.
        let (_, end) = self.0.watermarks(topic, partition, timeout)?;
        let is_empty = end > from && self.at(topic, partition, from, timeout)?.is_none();
        Ok(is_empty.then_some(end))
    }

    /// The offsets behind the last records of partitions: all of them, or none.
    pub fn ends(&self, topic: &str, partitions: &[i32], timeout: Duration) -> Result<BTreeMap<i32, i64>, Failure> {
        self.0.ends(topic, partitions, timeout)
    }

    /// The first offset of a partition and the one behind its last record; an empty log is asked for twice
    /// (see [`NativeConsumer::watermarks`]).
    pub fn bounds(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), Failure> {
        let (low, high) = self.0.watermarks(topic, partition, timeout)?;
        if low < high || high == 0 {
            return Ok((low, high));
        }
        self.0.watermarks(topic, partition, timeout).map(|(again, high)| (low.min(again), high))
    }

    /// Reads from an offset on until the end, or until `on` has seen enough and returns `false`.
    pub fn read(
        &self,
        topic: &str,
        partition: i32,
        from: i64,
        timeout: Duration,
        on: impl FnMut(Seen) -> bool,
    ) -> Result<(), Failure> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, partition, Offset::Offset(from))?;
        self.0.assign(&list)?;
        let outcome = self.read_assigned(timeout, on);
        self.0.unassign()?;
        outcome
    }

    fn read_assigned(&self, timeout: Duration, mut on: impl FnMut(Seen) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let Some(polled) = self.0.poll(Duration::from_millis(100)) else { continue };
            match polled.entry() {
                Entry::Record(record) => {
                    let value = record.payload().unwrap_or_default().to_vec();
                    if !on(Seen { offset: record.offset(), timestamp: record.timestamp(), value }) {
                        return Ok(());
                    }
                }
                Entry::End { .. } => return Ok(()),
                Entry::Error { code, reason, .. } => return Err(Failure::lasting(code, reason)),
            }
        }
        Err(Failure::lasting(RDKafkaErrorCode::OperationTimedOut, "no answer in time"))
    }
}
