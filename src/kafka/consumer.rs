//! librdkafka's consumer: the unsafe half of [`super::subscription`], and of every client that only reads or asks.
//!
//! ```text
//!  broker ─► librdkafka ─► serve / poll ─┬─► Reports, Membership: lines, errors, statistics, changes (the caller's thread)
//!                                        └─► entries that no partition's queue of our own takes
//! ```
//!
//! Why not `BaseConsumer`: the bindings return what a broker answered as a Rust enum of the codes that were known when they
//! were made, and a code of a later Kafka is undefined behaviour there. Here every code is an integer.
//!
//! Soundness, in one place: the client owns its reports, which are freed after `rd_kafka_destroy` has ended all threads that
//! use them; lists and messages are looked at as plain memory, field by field.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::{NonNull, null};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::batch::Entry;
use super::failure::{self, Failure};
use super::message::Message;
use super::native::{Reports, checked, milliseconds, open};

pub(super) mod ffi;
mod list;
mod metadata;

pub use self::list::ListEntry;
use self::list::entries;
pub use self::metadata::{Broker, TopicMetadata};

/// What a group says of its member; on the thread that serves the client.
pub trait Membership: Reports {
    /// Partitions came or go. The group waits for [`Rebalance::answer`], or for the same by the consumer's methods.
    fn rebalanced(&self, rebalance: Rebalance<'_>) {
        // Nothing of a client that only looks is worth a line, and closing goes on without an answer.
        let _ = rebalance.answer();
    }

    /// How a commit ended that was not waited for: partitions and the next offset to read, or why not.
    fn commit_ended(&self, _committed: Result<&[(i32, i64)], &Failure>) {}
}

/// A change of a member's partitions.
pub struct Rebalance<'a> {
    client: *mut sys::rd_kafka_t,
    list: &'a sys::rd_kafka_topic_partition_list_t,
    /// Whether partitions came; else they go.
    pub is_assigned: bool,
}

impl Rebalance<'_> {
    /// The partitions it is about.
    pub fn partitions(&self) -> Vec<i32> {
        entries(self.list).map(|entry| entry.partition).collect()
    }

    /// Takes what came, gives up what goes.
    ///
    /// # Errors
    /// librdkafka refuses.
    pub fn answer(&self) -> Result<(), Failure> {
        // SAFETY: client and list are alive for as long as the callback that has this.
        unsafe { answer(self.client, self.list, self.is_assigned) }
    }
}

/// Takes partitions or gives them up, as the group's protocol wants it: little by little (KIP-429) or all at once.
///
/// # Safety
/// Client and list are alive.
unsafe fn answer(
    client: *mut sys::rd_kafka_t,
    list: *const sys::rd_kafka_topic_partition_list_t,
    is_assigned: bool,
) -> Result<(), Failure> {
    // SAFETY: the caller's promise; the protocol's name is a constant of librdkafka's, or null.
    unsafe {
        let protocol = sys::rd_kafka_rebalance_protocol(client);
        let is_cooperative = !protocol.is_null() && CStr::from_ptr(protocol) == c"COOPERATIVE";
        match (is_cooperative, is_assigned) {
            (true, true) => checked(sys::rd_kafka_incremental_assign(client, list)),
            (true, false) => checked(sys::rd_kafka_incremental_unassign(client, list)),
            (false, true) => succeeded(ffi::rd_kafka_assign(client, list)),
            (false, false) => succeeded(ffi::rd_kafka_assign(client, null())),
        }
    }
}

/// No partition in particular: `RD_KAFKA_PARTITION_UA`.
const UNASSIGNED: i32 = -1;

/// What a call returned.
pub(super) fn succeeded(number: c_int) -> Result<(), Failure> {
    if number == 0 { Ok(()) } else { Err(Failure::of(number)) }
}

/// A consumer of librdkafka's.
pub struct NativeConsumer<R: Membership> {
    client: NonNull<sys::rd_kafka_t>,
    reports: Arc<R>,
    /// The configuration names a group, whether it is ever joined or not.
    has_group: bool,
}

// SAFETY: librdkafka's client is thread-safe.
unsafe impl<R: Membership> Send for NativeConsumer<R> {}
unsafe impl<R: Membership> Sync for NativeConsumer<R> {}

impl<R: Membership> NativeConsumer<R> {
    /// A consumer of `config`, which joins nothing yet. Where it logs in by tokens, it has one.
    ///
    /// # Errors
    /// librdkafka refuses the configuration.
    pub fn open(config: &ClientConfig, reports: R) -> Result<Self, KafkaError> {
        let reports = Arc::new(reports);
        let client = open(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, config, &reports, |conf, _| {
            // SAFETY: the configuration is valid.
            unsafe {
                ffi::rd_kafka_conf_set_rebalance_cb(conf, Some(on_rebalance::<R>));
                ffi::rd_kafka_conf_set_offset_commit_cb(conf, Some(on_commit::<R>));
            }
        })?;
        let has_group = config.get("group.id").is_some();
        if has_group {
            // One queue to serve: the client's own leads into the member's. SAFETY: the client is alive.
            unsafe { sys::rd_kafka_poll_set_consumer(client.as_ptr()) };
        }
        Ok(NativeConsumer { client, reports, has_group })
    }

    /// What it reports to.
    pub fn reports(&self) -> &R {
        &self.reports
    }

    /// librdkafka's own handle, alive as long as this.
    pub(super) fn as_ptr(&self) -> *mut sys::rd_kafka_t {
        self.client.as_ptr()
    }

    /// Serves what librdkafka has to report, waiting up to `wait` for an entry that no queue of our own takes.
    pub fn poll(&self, wait: Duration) -> Option<Polled> {
        if !self.has_group {
            // SAFETY (this and below): the client is alive; the message, if any, becomes ours.
            unsafe { sys::rd_kafka_poll(self.as_ptr(), milliseconds(wait)) };
            return None;
        }
        NonNull::new(unsafe { sys::rd_kafka_consumer_poll(self.as_ptr(), milliseconds(wait)) }.cast()).map(Polled)
    }

    /// Serves all that librdkafka has to report; entries that no queue of our own takes go to `on`.
    pub fn serve(&self, mut on: impl FnMut(Entry<'_>)) {
        // Bounded, in case they never stop.
        for _ in 0..1024 {
            match self.poll(Duration::ZERO) {
                Some(polled) => on(polled.entry()),
                None => break,
            }
        }
    }

    /// Joins the configuration's group.
    ///
    /// # Errors
    /// librdkafka refuses, as do the calls below; those that ask a broker also return what it answered.
    pub fn subscribe(&self, topics: &[&str]) -> Result<(), Failure> {
        let mut list = TopicPartitionList::with_capacity(topics.len());
        for topic in topics {
            list.add_partition(topic, UNASSIGNED);
        }
        // SAFETY (this and the calls below): client and list are alive for the call, which copies what it keeps.
        succeeded(unsafe { ffi::rd_kafka_subscribe(self.as_ptr(), list.ptr()) })
    }

    /// Leaves the group.
    pub fn unsubscribe(&self) {
        unsafe { ffi::rd_kafka_unsubscribe(self.as_ptr()) };
    }

    /// Whether the member's partitions already have another owner.
    pub fn is_assignment_lost(&self) -> bool {
        unsafe { sys::rd_kafka_assignment_lost(self.as_ptr()) != 0 }
    }

    /// Reads these partitions, and no others.
    pub fn assign(&self, list: &TopicPartitionList) -> Result<(), Failure> {
        succeeded(unsafe { ffi::rd_kafka_assign(self.as_ptr(), list.ptr()) })
    }

    /// Reads no partition any more.
    pub fn unassign(&self) -> Result<(), Failure> {
        succeeded(unsafe { ffi::rd_kafka_assign(self.as_ptr(), null()) })
    }

    /// Takes partitions that the group has assigned, or gives up those that it takes back.
    pub fn answer(&self, list: &TopicPartitionList, is_assigned: bool) -> Result<(), Failure> {
        unsafe { answer(self.as_ptr(), list.ptr(), is_assigned) }
    }

    /// Goes on at the list's offsets.
    pub fn seek(&self, list: &TopicPartitionList, timeout: Duration) -> Result<(), Failure> {
        checked(unsafe { sys::rd_kafka_seek_partitions(self.as_ptr(), list.ptr(), milliseconds(timeout)) })?;
        entries(unsafe { &*list.ptr() }).try_for_each(|entry| entry.check())
    }

    /// Leaves partitions alone.
    pub fn pause(&self, list: &TopicPartitionList) -> Result<(), Failure> {
        succeeded(unsafe { ffi::rd_kafka_pause_partitions(self.as_ptr(), list.ptr()) })
    }

    /// Goes on with them.
    pub fn resume(&self, list: &TopicPartitionList) -> Result<(), Failure> {
        succeeded(unsafe { ffi::rd_kafka_resume_partitions(self.as_ptr(), list.ptr()) })
    }

    /// Commits the list's offsets; waits for the answer, or lets [`Membership::commit_ended`] have it.
    pub fn commit(&self, list: &TopicPartitionList, wait: bool) -> Result<(), Failure> {
        succeeded(unsafe { ffi::rd_kafka_commit(self.as_ptr(), list.ptr(), c_int::from(!wait)) })
    }

    /// What the group has committed of the list's partitions, those without a commit left out.
    pub fn committed(&self, list: &TopicPartitionList, timeout: Duration) -> Result<Vec<ListEntry>, Failure> {
        succeeded(unsafe { ffi::rd_kafka_committed(self.as_ptr(), list.ptr(), milliseconds(timeout)) })?;
        let mut found = Vec::new();
        for entry in entries(unsafe { &*list.ptr() }) {
            entry.check()?;
            if entry.offset >= 0 {
                found.push(entry);
            }
        }
        Ok(found)
    }

    /// The first offset of a partition and the offset behind its last record, asked of its leader.
    ///
    /// An empty log is to be doubted: librdkafka 2.12 sends a request for each of the two, and where the first one fails while
    /// the second is answered already, it takes the end for the start (`rd_kafka_query_wmark_offsets_resp_cb`).
    pub fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), Failure> {
        let topic = c_string(topic)?;
        let (mut low, mut high) = (-1, -1);
        succeeded(unsafe {
            let timeout = milliseconds(timeout);
            ffi::rd_kafka_query_watermark_offsets(
                self.as_ptr(),
                topic.as_ptr(),
                partition,
                &mut low,
                &mut high,
                timeout,
            )
        })?;
        Ok((low, high))
    }

    /// The offsets behind the last records of partitions, asked of their leaders: all of them, or none.
    pub fn ends(&self, topic: &str, partitions: &[i32], timeout: Duration) -> Result<BTreeMap<i32, i64>, Failure> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            // In place of a time stamp.
            list.add_partition_offset(topic, partition, Offset::End)?;
        }
        succeeded(unsafe { ffi::rd_kafka_offsets_for_times(self.as_ptr(), list.ptr(), milliseconds(timeout)) })?;
        let end = |entry: ListEntry| entry.check().map(|()| (entry.partition, entry.offset));
        entries(unsafe { &*list.ptr() }).map(end).collect()
    }

    /// As [`NativeConsumer::watermarks`], by the last fetch: nothing is asked of a broker.
    pub fn cached_watermarks(&self, topic: &str, partition: i32) -> Option<(i64, i64)> {
        let topic = c_string(topic).ok()?;
        let (mut low, mut high) = (-1, -1);
        unsafe { ffi::rd_kafka_get_watermark_offsets(self.as_ptr(), topic.as_ptr(), partition, &mut low, &mut high) };
        (low >= 0).then_some((low, high))
    }

    /// What the cluster says of a topic. Creates none.
    pub fn metadata(&self, topic: &str, timeout: Duration) -> Result<TopicMetadata, Failure> {
        metadata::fetch(self.as_ptr(), topic, timeout)
    }
}

impl<R: Membership> Drop for NativeConsumer<R> {
    fn drop(&mut self) {
        // SAFETY: the client is alive until the last call, and nothing else has a handle to it. Closing revokes partitions by
        // the callback and leaves the group.
        unsafe {
            if self.has_group {
                ffi::rd_kafka_consumer_close(self.as_ptr());
            }
            sys::rd_kafka_destroy(self.as_ptr());
        }
    }
}

/// An entry that came by the client's own queue; given back to librdkafka when dropped.
pub struct Polled(NonNull<Message>);

impl Polled {
    /// What it is.
    pub fn entry(&self) -> Entry<'_> {
        // SAFETY: ours until it is dropped.
        Entry::of(unsafe { self.0.as_ref() })
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr().cast()) }
    }
}

pub(super) fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG as c_int))
}

unsafe extern "C" fn on_rebalance<R: Membership>(
    client: *mut sys::rd_kafka_t,
    code: c_int,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    let is_assigned = code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS as c_int;
    // SAFETY: `opaque` is the reports; client and list are alive for the call.
    unsafe { (*opaque.cast::<R>()).rebalanced(Rebalance { client, list: &*list, is_assigned }) }
}

unsafe extern "C" fn on_commit<R: Membership>(
    _client: *mut sys::rd_kafka_t,
    code: c_int,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the reports; the list, if any, is alive for the call.
    let (reports, list) = unsafe { (&*opaque.cast::<R>(), list.as_ref()) };
    if code == 0 {
        let committed: Vec<_> =
            list.into_iter().flat_map(entries).map(|entry| (entry.partition, entry.offset)).collect();
        reports.commit_ended(Ok(&committed));
    } else if failure::code(code) != rdkafka::error::RDKafkaErrorCode::NoOffset {
        // Else it is no failure: there was nothing to commit.
        reports.commit_ended(Err(&Failure::of(code)));
    }
}

#[cfg(test)]
mod tests;
