//! A member of the consumer group: changes of its partitions as values, records in batches.
//!
//! ```text
//!  broker ──► librdkafka ──► changes()  ──► the pipeline finishes its work ──► accept / release
//!                       └──► records()  ──► Batch
//! ```
//!
//! librdkafka calls back in the middle of a poll when partitions come or go. The callback only writes the change down;
//! the scoring thread takes it between two batches, where nothing is in flight, commits what it did, and answers. The
//! group waits for that answer, so a partition's next owner begins where this one committed.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::batch::{Batch, BatchBuffer, RecordQueue};
use super::client::{self, BrokerHealth};
use super::outbox::GroupMetadata;
pub use super::statistics::PartitionLag;
use super::statistics::Statistics;
use crate::log_events;
use crate::telemetry::clients::{Client, Role};

/// Something that happened to this member's partitions; to be answered in order.
#[derive(Debug)]
pub enum Change {
    /// Partitions that are now this member's. Answer: [`Subscription::accept`].
    Assigned(Vec<i32>),
    /// Partitions to give up, work done so far may still be committed. Answer: [`Subscription::release`].
    Revoked(Vec<i32>),
    /// Partitions that already have another owner: nothing may be committed. Answer: [`Subscription::release`].
    Lost(Vec<i32>),
}

/// A committed offset and what its committer wrote beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The partition.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// Empty where there is none.
    pub note: String,
}

/// What librdkafka calls.
struct Events {
    topic: String,
    changes: Mutex<Vec<(bool, Vec<i32>)>>,
    leaving: AtomicBool,
    health: Arc<BrokerHealth>,
    lag: Mutex<Vec<PartitionLag>>,
    /// Partitions whose position librdkafka found outside of their log.
    resets: Mutex<Vec<i32>>,
    metrics: Client,
}

/// The partition of a line that says that librdkafka goes on elsewhere: `TOPIC [PARTITION]: offset reset (at …`, the only
/// way in which it tells.
fn reset_partition(facility: &str, line: &str) -> Option<i32> {
    let (before, _) = line.split_once("]: offset reset (at ").filter(|_| facility == "OFFSET")?;
    before.rsplit_once('[')?.1.parse().ok()
}

impl ClientContext for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(partition) = reset_partition(facility, message)
            && let Ok(mut resets) = self.resets.lock()
        {
            resets.push(partition);
        }
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.report(&error, reason);
    }

    fn stats_raw(&self, json: &[u8]) {
        let Some(statistics) = Statistics::read(json) else { return };
        if statistics.is_connected() {
            self.health.reached();
        }
        self.metrics.report(&statistics);
        if let Ok(mut slot) = self.lag.lock() {
            *slot = statistics.lag(&self.topic);
        }
    }
}

impl ConsumerContext for Events {
    /// Only writes the change down: see the module's words. The exception is a member that is leaving, whose work is
    /// committed already.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.leaving.load(Ordering::Acquire) {
            let outcome = match consumer.rebalance_protocol() {
                // Closing waits for an answer; what is accepted is revoked again at once.
                RebalanceProtocol::Cooperative if assigned => consumer.incremental_assign(list),
                _ if assigned => consumer.assign(list),
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
                _ => consumer.unassign(),
            };
            if let Err(error) = outcome {
                log_events::kafka::LeavingPartitions { error: &error }.log();
            }
            return;
        }
        let partitions = list.elements().iter().map(|element| element.partition()).collect();
        if let Ok(mut changes) = self.changes.lock() {
            changes.push((assigned, partitions));
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // At least once: the next commit carries the same or later offsets.
            log_events::kafka::OffsetCommitFailed { error: &error }.log();
        }
    }
}

/// Membership of one scoring thread in the group.
pub struct Subscription {
    // Order of fields is order of drop: the queue before the consumer it belongs to.
    queue: RecordQueue<Events>,
    consumer: Arc<BaseConsumer<Events>>,
    topic: String,
    owned: Vec<i32>,
    /// Those of the owned partitions that are not paused.
    active: Vec<i32>,
}

impl Subscription {
    /// Joins the group of `config` (see [`client::consumer_config`]) on `topic`.
    pub fn join(config: &ClientConfig, topic: &str, health: Arc<BrokerHealth>) -> KafkaResult<Subscription> {
        let events = Events {
            topic: topic.to_owned(),
            changes: Mutex::default(),
            leaving: AtomicBool::new(false),
            health,
            lag: Mutex::default(),
            resets: Mutex::default(),
            metrics: Client::opened(Role::Consumer),
        };
        let consumer: Arc<BaseConsumer<Events>> = Arc::new(config.create_with_context(events)?);
        let queue = RecordQueue::new(consumer.clone());
        consumer.subscribe(&[topic])?;
        Ok(Subscription { queue, consumer, topic: topic.to_owned(), owned: Vec::new(), active: Vec::new() })
    }

    /// Serves librdkafka's events and takes what happened since. Errors that end the consumer come back as `Err`.
    pub fn changes(&mut self) -> KafkaResult<Vec<Change>> {
        // One event per poll: go on until the queue is empty, bounded in case events never stop.
        for _ in 0..64 {
            match self.consumer.poll(Duration::ZERO) {
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Some(Err(error)) => log_events::kafka::ConsumerEvent { error: &error }.log(),
                Some(Ok(message)) => {
                    // Partitions deliver into our own queue; a record that comes this way would never be scored.
                    let (partition, offset) = (message.partition(), message.offset());
                    log_events::kafka::RecordByEventQueue { partition, offset }.log();
                    return Err(KafkaError::NoMessageReceived);
                }
                None => break,
            }
        }
        let written = self.consumer.context().changes.lock().map(|mut changes| std::mem::take(&mut *changes));
        let lost = self.consumer.assignment_lost();
        let change = |(assigned, partitions)| match (assigned, lost) {
            (true, _) => Change::Assigned(partitions),
            (false, false) => Change::Revoked(partitions),
            (false, true) => Change::Lost(partitions),
        };
        Ok(written.unwrap_or_default().into_iter().map(change).collect())
    }

    /// Takes newly assigned partitions, from their committed offsets.
    pub fn accept(&mut self, partitions: &[i32]) -> KafkaResult<()> {
        for &partition in partitions {
            self.queue.forward(&self.topic, partition);
        }
        for &partition in partitions {
            if !self.owned.contains(&partition) {
                self.owned.push(partition);
                self.active.push(partition);
            }
        }
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_assign(&self.list(partitions)),
            _ => self.consumer.assign(&self.list(partitions)),
        }
    }

    /// Gives partitions up.
    pub fn release(&mut self, partitions: &[i32]) -> KafkaResult<()> {
        self.owned.retain(|owned| !partitions.contains(owned));
        self.active.retain(|active| !partitions.contains(active));
        match self.consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => self.consumer.incremental_unassign(&self.list(partitions)),
            _ => self.consumer.unassign(),
        }
    }

    /// Reads again from the last commit: after work was thrown away. `first_read` are the offsets of the first records
    /// read since each partition was assigned, which is where a partition without a commit goes back to.
    ///
    /// Seeks rather than unassigns and assigns anew: stopping a partition's fetcher resets the forward of its queue some
    /// time later, which may be after the next assignment has set it, and then nothing is delivered any more.
    ///
    /// Returns where each partition goes on.
    pub fn rewind(&mut self, first_read: &HashMap<i32, i64>, patience: Duration) -> KafkaResult<HashMap<i32, i64>> {
        let read: Vec<i32> =
            self.owned.iter().copied().filter(|partition| first_read.contains_key(partition)).collect();
        if read.is_empty() {
            return Ok(HashMap::new());
        }
        let committed = self.consumer.committed_offsets(self.list(&read), patience)?;
        let mut back = HashMap::with_capacity(read.len());
        for element in committed.elements() {
            element.error()?;
            let first = first_read.get(&element.partition()).copied().unwrap_or(0);
            let offset = if let Offset::Offset(committed) = element.offset() { committed.max(first) } else { first };
            back.insert(element.partition(), offset);
        }
        self.seek(&back, patience)?;
        Ok(back)
    }

    /// Goes on with these offsets. What was fetched before and not yet read is not delivered any more.
    pub fn seek(&self, to: &HashMap<i32, i64>, patience: Duration) -> KafkaResult<()> {
        let outcome = self.consumer.seek_partitions(offsets(&self.topic, to)?, patience)?;
        outcome.elements().iter().try_for_each(|element| element.error())
    }

    /// Leaves a partition alone until [`Subscription::resume`].
    pub fn pause(&mut self, partition: i32) -> KafkaResult<()> {
        self.active.retain(|active| *active != partition);
        self.consumer.pause(&self.list(&[partition]))
    }

    /// Goes on with a paused partition, from its last commit or where it was begun.
    pub fn resume(&mut self, partition: i32, first_read: i64, patience: Duration) -> KafkaResult<HashMap<i32, i64>> {
        self.consumer.resume(&self.list(&[partition]))?;
        let back = self.rewind(&HashMap::from([(partition, first_read)]), patience)?;
        // Not before it is back: a record that was fetched meanwhile would be taken for the next one.
        if self.owned.contains(&partition) && !self.active.contains(&partition) {
            self.active.push(partition);
        }
        Ok(back)
    }

    /// The partitions this member owns and has not paused.
    pub fn partitions(&self) -> &[i32] {
        &self.active
    }

    /// The next batch; waits up to `wait` for its first record.
    pub fn records<'a>(&'a self, buffer: &'a mut BatchBuffer, wait: Duration) -> Batch<'a> {
        self.queue.fill(buffer, wait)
    }

    /// What a transaction needs to commit this member's offsets (KIP-447).
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        GroupMetadata::of(self.consumer.as_ref())
    }

    /// Commits the next offset to read of each partition.
    pub fn commit(&self, next: &HashMap<i32, i64>, mode: CommitMode) -> KafkaResult<()> {
        if next.is_empty() { Ok(()) } else { self.consumer.commit(&offsets(&self.topic, next)?, mode) }
    }

    /// Commits the next offset to read of each partition, with a note for its next owner, and waits for the answer. The
    /// broker refuses it from a member that was put out of the group.
    pub fn commit_with_notes(&self, next: &[Noted]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(next.len());
        for noted in next {
            let mut element = list.add_partition(&self.topic, noted.partition);
            element.set_offset(Offset::Offset(noted.offset))?;
            if !noted.note.is_empty() {
                element.set_metadata(&noted.note);
            }
        }
        if next.is_empty() { Ok(()) } else { self.consumer.commit(&list, CommitMode::Sync) }
    }

    /// What was committed last for those partitions that have a commit.
    pub fn committed(&self, partitions: &[i32], patience: Duration) -> KafkaResult<Vec<Noted>> {
        let list = self.consumer.committed_offsets(self.list(partitions), patience)?;
        let mut found = Vec::with_capacity(partitions.len());
        for element in list.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                let note = element.metadata().to_owned();
                found.push(Noted { partition: element.partition(), offset, note });
            }
        }
        Ok(found)
    }

    /// The first offset of a partition and the offset behind its last record.
    pub fn watermarks(&self, partition: i32, patience: Duration) -> KafkaResult<(i64, i64)> {
        self.consumer.fetch_watermarks(&self.topic, partition, patience)
    }

    /// The first offset of a partition's log, as the last fetch said it.
    pub fn log_start(&self, partition: i32) -> Option<i64> {
        let topic = CString::new(self.topic.as_str()).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and topic are valid for the call, which writes both offsets or fails; nothing is asked of a broker.
        unsafe {
            let client = self.consumer.client().native_ptr();
            sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut low, &mut high);
        }
        (low >= 0).then_some(low)
    }

    /// Whether librdkafka found the partition's position outside of its log since this was last asked.
    pub fn was_reset(&self, partition: i32) -> bool {
        let Ok(mut resets) = self.consumer.context().resets.lock() else { return false };
        let before = resets.len();
        resets.retain(|reset| *reset != partition);
        resets.len() < before
    }

    /// Lag by librdkafka's last statistics (one second old at most, by default).
    pub fn lag(&self) -> Vec<PartitionLag> {
        let mut lag = self.consumer.context().lag.lock().map(|lag| lag.clone()).unwrap_or_default();
        lag.retain(|lag| self.owned.contains(&lag.partition));
        lag
    }

    /// Leaves the group at once, so that the others need not wait for the session to time out. `unanswered` are changes
    /// that were taken but not answered: the group waits for them.
    pub fn leave(mut self, unanswered: impl IntoIterator<Item = Change>) {
        for change in unanswered {
            let outcome = match &change {
                Change::Assigned(partitions) => self.accept(partitions),
                Change::Revoked(partitions) | Change::Lost(partitions) => self.release(partitions),
            };
            if let Err(error) = outcome {
                log_events::kafka::LeavingChange { error: &error, change: &change }.log();
            }
        }
        self.consumer.context().leaving.store(true, Ordering::Release);
        if self.owned.is_empty() {
            // librdkafka 2.12 closes a cooperative member without partitions but does not tell the group (it skips the
            // rejoin that would have sent LeaveGroup): unsubscribing first does.
            self.consumer.unsubscribe();
        }
        // Dropping the consumer closes it: partitions revoked, LeaveGroup sent.
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }
}

/// `next` offsets as librdkafka takes them.
pub fn offsets(topic: &str, next: &HashMap<i32, i64>) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(next.len());
    for (&partition, &offset) in next {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::reset_partition;

    #[test]
    fn a_reset_is_read_from_librdkafkas_line_and_from_no_other() {
        let line =
            "transactions.v2 [31]: offset reset (at offset 50 (leader epoch 0), broker 1) to cached BEGINNING offset";
        assert_eq!(reset_partition("OFFSET", line), Some(31));
        assert_eq!(reset_partition("FETCH", line), None);
        assert_eq!(reset_partition("OFFSET", "transactions [3]: something else"), None);
    }
}
