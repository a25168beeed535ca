//! A member of the consumer group: changes of its partitions as values, records in batches.
//!
//! ```text
//!  broker ──► librdkafka ──► changes()  ──► the pipeline finishes its work ──► accept / release
//!                       └──► queue()    ──► Batch
//! ```
//!
//! librdkafka calls back in the middle of a poll when partitions come or go. The callback only writes the change down;
//! the scoring thread takes it between two batches, where nothing is in flight, commits what it did, and answers. The
//! group waits for that answer, so a partition's next owner begins where this one committed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::batch::{Batch, BatchBuffer, Entry, RecordQueue};
use super::client::{self, BrokerHealth};
use super::consumer::NativeConsumer;
use super::failure::Failure;
use super::outbox::GroupMetadata;
use super::position::{Committed, NO_EPOCH, Next, Offsets};
use super::progress::Progress;
pub use super::statistics::PartitionLag;
use crate::log_events;
use crate::telemetry::clients::{Client, Role};

mod closing;
mod events;
mod offsets;

pub use self::events::Events;

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
    pub next: Next,
    /// Empty where there is none.
    pub note: String,
}

/// Membership of one scoring thread in the group.
pub struct Subscription {
    // Order of fields is order of drop: the queue before the consumer it belongs to.
    queue: Rc<RecordQueue<Events>>,
    consumer: Arc<NativeConsumer<Events>>,
    topic: String,
    owned: Vec<i32>,
    /// The id of the topic that offsets are of; `None` until it is looked at.
    topic_id: Option<String>,
    /// What ends this member.
    failed: Cell<Option<Failure>>,
    /// What the group or the broker refused last.
    refused: RefCell<Option<String>>,
}

impl Subscription {
    /// A member of the group of `config` (see [`client::consumer_config`]) on `topic`, which has not joined yet. What it commits
    /// shows in `progress`.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn open(
        config: &ClientConfig,
        topic: &str,
        health: Arc<BrokerHealth>,
        progress: &Progress,
    ) -> Result<Subscription, KafkaError> {
        let mut config = config.clone();
        let is_debugged = client::overhear(&mut config, "metadata");
        let events = Events {
            topic: topic.to_owned(),
            changes: Mutex::default(),
            leaving: AtomicBool::new(false),
            health,
            lag: Mutex::default(),
            progress: progress.clone(),
            resets: Mutex::default(),
            topic_id: Mutex::default(),
            is_debugged,
            metrics: Client::opened(Role::Consumer),
        };
        let consumer = Arc::new(NativeConsumer::open(&config, events)?);
        let queue = Rc::new(RecordQueue::new(consumer.clone()));
        Ok(Subscription {
            queue,
            consumer,
            topic: topic.to_owned(),
            owned: Vec::new(),
            topic_id: None,
            failed: Cell::new(None),
            refused: RefCell::new(None),
        })
    }

    /// Joins the group that it was opened for.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn subscribe(&self) -> Result<(), KafkaError> {
        self.consumer.subscribe(&[&self.topic]).map_err(|failure| KafkaError::Subscription(failure.to_string()))
    }

    /// Serves librdkafka's events: changes, lines, errors. What they say is asked for by the methods below.
    fn serve(&self) {
        self.consumer.serve(|entry| match entry {
            Entry::Error { code, reason, .. } => self.report(Failure::lasting(code, reason)),
            Entry::End { .. } => {}
            Entry::Record(record) => {
                // Partitions deliver into our own queue; a record that comes this way would never be scored.
                let (partition, offset) = (record.partition(), record.offset());
                log_events::kafka::RecordByEventQueue { partition, offset }.log();
                let reason = "a record came by the event queue";
                self.failed.set(Some(Failure::lasting(RDKafkaErrorCode::Inconsistent, reason)));
            }
        });
    }

    /// An error of the member, not of one record.
    #[cold]
    fn report(&self, error: Failure) {
        match error.code {
            RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed => self.failed.set(Some(error)),
            _ => {
                log_events::kafka::ConsumerError { error: &error }.log();
                *self.refused.borrow_mut() = Some(error.to_string());
            }
        }
    }

    /// What the broker has refused this member since it was last asked: to join its group, for example.
    pub fn refused(&self) -> Option<String> {
        self.refused.take()
    }

    /// Serves librdkafka's events and takes what happened since. Errors that end the consumer come back as `Err`.
    pub fn changes(&mut self) -> Result<Vec<Change>, Failure> {
        self.serve();
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let written = self.consumer.reports().changes.lock().map(|mut changes| std::mem::take(&mut *changes));
        let lost = self.consumer.is_assignment_lost();
        let change = |(assigned, partitions)| match (assigned, lost) {
            (true, _) => Change::Assigned(partitions),
            (false, false) => Change::Revoked(partitions),
            (false, true) => Change::Lost(partitions),
        };
        Ok(written.unwrap_or_default().into_iter().map(change).collect())
    }

    /// Takes newly assigned partitions, from their committed offsets.
    pub fn accept(&mut self, partitions: &[i32]) -> Result<(), Failure> {
        for &partition in partitions {
            self.queue.forward(&self.topic, partition);
            if !self.owned.contains(&partition) {
                self.owned.push(partition);
            }
        }
        self.progress().take(partitions);
        self.consumer.answer(&self.list(partitions), true)
    }

    /// Reads a partition that was just accepted from here on. `false`: librdkafka is not so far yet, try again.
    pub fn begin(&self, partition: i32, next: Next, timeout: Duration) -> Result<bool, Failure> {
        match self.seek(&Offsets::from([(partition, next)]), timeout) {
            Err(Failure { code: RDKafkaErrorCode::State | RDKafkaErrorCode::PreviousInProgress, .. }) => Ok(false),
            sought => sought.map(|()| true),
        }
    }

    /// Gives partitions up.
    pub fn release(&mut self, partitions: &[i32]) -> Result<(), Failure> {
        self.owned.retain(|owned| !partitions.contains(owned));
        self.progress().give_up(partitions);
        self.consumer.answer(&self.list(partitions), false)
    }

    /// Goes on with these offsets. What was fetched before and not yet read is not delivered any more.
    pub fn seek(&self, to: &Offsets, timeout: Duration) -> Result<(), Failure> {
        let list = offsets::list(&self.topic, to.iter().map(|(&partition, &next)| (partition, next, "")))?;
        self.consumer.seek(&list, timeout)?;
        self.progress().begin(to);
        Ok(())
    }

    /// What this member has committed.
    pub fn progress(&self) -> &Progress {
        &self.consumer.reports().progress
    }

    /// Leaves a partition alone until [`Subscription::resume`].
    pub fn pause(&self, partition: i32) -> Result<(), Failure> {
        self.progress().give_up(&[partition]);
        self.consumer.pause(&self.list(&[partition]))
    }

    /// Goes on with a paused partition.
    pub fn resume(&self, partition: i32) -> Result<(), Failure> {
        self.progress().take(&[partition]);
        self.consumer.resume(&self.list(&[partition]))
    }

    /// The partitions this member owns.
    pub fn owned(&self) -> &[i32] {
        &self.owned
    }

    /// Whether the topic's name stands for another topic than the one that offsets are of.
    pub fn is_recreated(&self) -> bool {
        self.serve();
        let Ok(named) = self.consumer.reports().topic_id.lock() else { return false };
        named.is_some() && self.topic_id.is_some() && *named != self.topic_id
    }

    /// From now on, offsets are of the topic that has the name now.
    pub fn take_topic(&mut self) {
        self.serve();
        if let Ok(named) = self.consumer.reports().topic_id.lock() {
            self.topic_id.clone_from(&named);
        }
    }

    /// The id of the topic that offsets are of, as it is noted beside commits; empty where the broker names none.
    pub fn topic_id(&self) -> &str {
        self.topic_id.as_deref().unwrap_or_default()
    }

    /// Whether a commit is of the topic that has the name now, as far as is known.
    fn is_of_this_topic(&self, noted: &Noted) -> bool {
        noted.note.is_empty() || self.topic_id().is_empty() || noted.note == self.topic_id()
    }

    /// What is known of a commit.
    pub fn judge(&self, noted: &Noted) -> Committed {
        Committed { next: noted.next, is_of_this_topic: self.is_of_this_topic(noted) }
    }

    /// The next batch; waits up to `wait` for its first record.
    pub fn records<'a>(&'a self, buffer: &'a mut BatchBuffer, wait: Duration) -> Batch<'a> {
        self.queue.fill(buffer, wait)
    }

    /// Where the records of owned partitions come: for batches that live on while the subscription is asked something.
    pub fn queue(&self) -> Rc<RecordQueue<Events>> {
        self.queue.clone()
    }

    /// What a transaction needs to commit this member's offsets (KIP-447).
    pub fn group_metadata(&self) -> Option<GroupMetadata> {
        GroupMetadata::of(self.consumer.as_ref())
    }

    /// The next offset to read of each partition as a commit takes it: with the topic's id beside it.
    pub fn to_commit(&self, next: &Offsets) -> Result<TopicPartitionList, KafkaError> {
        offsets::list(&self.topic, next.iter().map(|(&partition, &next)| (partition, next, self.topic_id())))
    }

    /// Commits the next offset to read of each partition; waits for the answer, or has it logged where it is a failure.
    pub fn commit(&self, next: &Offsets, wait: bool) -> Result<(), Failure> {
        if next.is_empty() {
            return Ok(());
        }
        self.consumer.commit(&self.to_commit(next)?, wait)?;
        if wait {
            self.progress().committed(next);
        }
        Ok(())
    }

    /// Commits the next offset to read of each partition, with a note for its next owner, and waits for the answer. The
    /// broker refuses it from a member that was put out of the group.
    pub fn commit_with_notes(&self, next: &[Noted]) -> Result<(), Failure> {
        let list =
            offsets::list(&self.topic, next.iter().map(|noted| (noted.partition, noted.next, noted.note.as_str())))?;
        if next.is_empty() { Ok(()) } else { self.consumer.commit(&list, true) }
    }

    /// What was committed last for those partitions that have a commit.
    pub fn committed(&self, partitions: &[i32], timeout: Duration) -> Result<Vec<Noted>, Failure> {
        let found = self.consumer.committed(&self.list(partitions), timeout)?;
        let noted = found.into_iter().map(|entry| {
            let next = Next { offset: entry.offset, epoch: entry.epoch.max(NO_EPOCH) };
            Noted { partition: entry.partition, next, note: entry.note }
        });
        Ok(noted.collect())
    }

    /// As [`Subscription::committed`] for each of these partitions that an answer came for, and why none came for others.
    pub fn committed_of_each(
        &self,
        partitions: &[i32],
        timeout: Duration,
    ) -> (Vec<(i32, Option<Noted>)>, Option<Failure>) {
        let pick = |found: Vec<Noted>, asked: &[i32]| -> Vec<(i32, Option<Noted>)> {
            asked.iter().map(|asked| (*asked, found.iter().find(|noted| noted.partition == *asked).cloned())).collect()
        };
        match self.committed(partitions, timeout) {
            Ok(found) => (pick(found, partitions), None),
            Err(error) if partitions.len() < 2 => (Vec::new(), Some(error)),
            // One whose offset is just being committed keeps the answer for all of them back.
            Err(_) => {
                let (mut known, mut failed) = (Vec::new(), None);
                for partition in partitions.chunks(1) {
                    match self.committed(partition, timeout / 4) {
                        Ok(found) => known.extend(pick(found, partition)),
                        Err(error) => failed = Some(error),
                    }
                }
                (known, failed)
            }
        }
    }

    /// The first offset of a partition and the offset behind its last record.
    pub fn watermarks(&self, partition: i32, timeout: Duration) -> Result<(i64, i64), Failure> {
        self.consumer.watermarks(&self.topic, partition, timeout)
    }

    /// The first offset of a partition's log and its end, as the last fetch said them.
    pub fn log(&self, partition: i32) -> Option<(i64, i64)> {
        self.consumer.cached_watermarks(&self.topic, partition)
    }

    /// Whether librdkafka found the partition's position outside of its log since this was last asked.
    pub fn was_reset(&self, partition: i32) -> bool {
        self.serve();
        let Ok(mut resets) = self.consumer.reports().resets.lock() else { return false };
        let before = resets.len();
        resets.retain(|reset| *reset != partition);
        resets.len() < before
    }

    /// Lag by librdkafka's last statistics (one second old at most, by default).
    pub fn lag(&self) -> Vec<PartitionLag> {
        let mut lag = self.consumer.reports().lag.lock().map(|lag| lag.clone()).unwrap_or_default();
        lag.retain(|lag| self.owned.contains(&lag.partition));
        lag
    }

    /// Leaves the group at once, so that the others need not wait for the session to time out. `unanswered` are changes
    /// that were taken but not answered: the group waits for them.
    pub fn leave(mut self, unanswered: impl IntoIterator<Item = Change>) {
        self.progress().end();
        for change in unanswered {
            let outcome = match &change {
                Change::Assigned(partitions) => self.accept(partitions),
                Change::Revoked(partitions) | Change::Lost(partitions) => self.release(partitions),
            };
            if let Err(error) = outcome {
                log_events::kafka::LeavingChange { error: &error, change: &change }.log();
            }
        }
        self.consumer.reports().leaving.store(true, Ordering::Release);
        if self.owned.is_empty() {
            // librdkafka 2.12 closes a cooperative member without partitions but does not tell the group (it skips the
            // rejoin that would have sent LeaveGroup): unsubscribing first does.
            self.consumer.unsubscribe();
        }
        let Subscription { queue, consumer, .. } = self;
        drop(queue);
        closing::close(consumer);
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }
}
