//! Batches of borrowed records: librdkafka's batch consume behind a safe face.
//!
//! ```text
//!  partition queue 0 ─┐
//!  partition queue 1 ─┼─ forwarded ─► RecordQueue ── fill ──► Batch<'_> ── iter ──► Record<'_> (no copy)
//!  partition queue n ─┘                                          └─ dropped: messages given back to librdkafka
//! ```
//!
//! `BaseConsumer::poll` takes one message per call and, with an event object each, about half a microsecond; the batch
//! call costs a fifth of that. It must not be used on the consumer's own queue, where it would answer rebalances with
//! an empty assignment; so each assigned partition's queue is forwarded into one of ours (librdkafka keeps an
//! application's forward), and rebalances stay where [`super::subscription`] polls for them.
//!
//! Soundness, in one place:
//! - A [`RecordQueue`] holds the consumer it was made from (an `Arc`), so that the queue never outlives its client;
//!   the queue's own reference is given back before the client's, in `Drop`.
//! - A message pointer obtained from librdkafka is owned by the [`Batch`] alone and destroyed exactly once, in its
//!   `Drop`. Records borrow from the batch, so no slice of a payload outlives the message.
//! - The batch borrows the queue, so no message outlives the client.

use std::ffi::{CStr, CString, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use super::consumer::{Membership, NativeConsumer};
use super::failure;
use super::message::{Message, slice};

/// A queue of our own into which assigned partitions deliver.
pub struct RecordQueue<R: Membership> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    consumer: Arc<NativeConsumer<R>>,
}

// SAFETY: librdkafka's queues are thread-safe; nothing here is tied to the thread that made it.
unsafe impl<R: Membership> Send for RecordQueue<R> {}

/// Memory for the pointers of one batch, reused from batch to batch.
#[derive(Default)]
pub struct BatchBuffer {
    messages: Vec<*mut Message>,
    capacity: usize,
}

// SAFETY: between batches the buffer is empty, and a batch borrows it on one thread.
unsafe impl Send for BatchBuffer {}

impl BatchBuffer {
    /// Room for `capacity` records.
    pub fn new(capacity: usize) -> Self {
        BatchBuffer { messages: Vec::with_capacity(capacity), capacity }
    }
}

impl<R: Membership> RecordQueue<R> {
    /// A queue of `consumer`'s client.
    pub fn new(consumer: Arc<NativeConsumer<R>>) -> Self {
        // SAFETY: the client is alive (we hold it); rd_kafka_queue_new never fails but for memory.
        let queue = unsafe { sys::rd_kafka_queue_new(consumer.as_ptr()) };
        let queue = NonNull::new(queue).expect("librdkafka allocates a queue or aborts");
        RecordQueue { queue, consumer }
    }

    /// Lets a partition deliver here from now on. To be called before the partition is assigned.
    pub fn forward(&self, topic: &str, partition: i32) {
        let Ok(topic) = CString::new(topic) else { return };
        // SAFETY: client and topic are valid for the call; the partition queue is a counted reference that is given
        // back right away, the forward holds its own.
        unsafe {
            let queue = sys::rd_kafka_queue_get_partition(self.consumer.as_ptr(), topic.as_ptr(), partition);
            if !queue.is_null() {
                sys::rd_kafka_queue_forward(queue, self.queue.as_ptr());
                sys::rd_kafka_queue_destroy(queue);
            }
        }
    }

    /// Waits up to `wait` for a first record, then takes what is there, up to the buffer's capacity. No timer closes a
    /// batch: it is one record at low load, thousands at high load.
    pub fn fill<'a>(&'a self, buffer: &'a mut BatchBuffer, wait: Duration) -> Batch<'a> {
        buffer.messages.clear();
        self.take(buffer, 0);
        if buffer.messages.is_empty() && !wait.is_zero() {
            let wait = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX).max(1);
            // SAFETY: our queue is alive; the message, if any, becomes the batch's.
            let message = unsafe { sys::rd_kafka_consume_queue(self.queue.as_ptr(), wait) };
            if !message.is_null() {
                buffer.messages.push(message.cast());
                self.take(buffer, 0);
            }
        }
        Batch { messages: &mut buffer.messages, _client: PhantomData }
    }

    fn take(&self, buffer: &mut BatchBuffer, wait_milliseconds: i32) {
        let held = buffer.messages.len();
        let room = buffer.capacity.saturating_sub(held);
        if room == 0 {
            return;
        }
        buffer.messages.reserve(room);
        // SAFETY: the spare capacity holds `room` pointers; librdkafka initialises the first `taken` of them.
        unsafe {
            let spare = buffer.messages.as_mut_ptr().add(held);
            let taken = sys::rd_kafka_consume_batch_queue(self.queue.as_ptr(), wait_milliseconds, spare.cast(), room);
            buffer.messages.set_len(held + usize::try_from(taken).unwrap_or(0));
        }
    }
}

impl<R: Membership> Drop for RecordQueue<R> {
    fn drop(&mut self) {
        // SAFETY: our own reference, given back once; the client is still alive in `self.consumer`.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Records taken together; given back to librdkafka when dropped.
pub struct Batch<'a> {
    messages: &'a mut Vec<*mut Message>,
    _client: PhantomData<&'a ()>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages.drain(..) {
            // SAFETY: each pointer came from a consume call and is destroyed only here.
            unsafe { sys::rd_kafka_message_destroy(message.cast()) }
        }
    }
}

impl Batch<'_> {
    /// Whether nothing was there.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Number of entries, errors included.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The entries, in each partition's order.
    pub fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.messages.iter().map(|&message| {
            // SAFETY: valid until the batch is dropped, which the borrow of `self` excludes.
            Entry::of(unsafe { &*message })
        })
    }
}

/// What stands in a batch.
pub enum Entry<'a> {
    /// A record.
    Record(Record<'a>),
    /// The end of a partition was reached; told only where `enable.partition.eof` asks for it.
    End {
        /// The partition.
        partition: i32,
        /// Offset of what comes next.
        offset: i64,
    },
    /// A partition's or the client's error.
    Error {
        /// The partition, negative for the client as a whole.
        partition: i32,
        /// librdkafka's code.
        code: RDKafkaErrorCode,
        /// librdkafka's words.
        reason: String,
    },
}

impl<'a> Entry<'a> {
    #[inline]
    pub(super) fn of(message: &'a Message) -> Entry<'a> {
        match message.err {
            0 => Entry::Record(Record { message }),
            PARTITION_END => Entry::End { partition: message.partition, offset: message.offset },
            number => {
                Entry::Error { partition: message.partition, code: failure::code(number), reason: reason(message) }
            }
        }
    }
}

const PARTITION_END: c_int = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF as c_int;

fn reason(message: &Message) -> String {
    // SAFETY: the message is valid; for an error entry the string is librdkafka's, copied at once.
    let text = unsafe { sys::rd_kafka_message_errstr(message.as_native()) };
    if text.is_null() {
        return failure::words(message.err);
    }
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    message: &'a Message,
}

impl<'a> Record<'a> {
    /// Topic it was read from. For those who read more than one: allocates.
    pub fn topic(&self) -> String {
        // SAFETY: the message's topic handle is alive as long as it, and has a C string as its name.
        unsafe { CStr::from_ptr(sys::rd_kafka_topic_name(self.message.topic)) }.to_string_lossy().into_owned()
    }

    /// Partition it was read from.
    pub fn partition(&self) -> i32 {
        self.message.partition
    }

    /// Offset within the partition.
    pub fn offset(&self) -> i64 {
        self.message.offset
    }

    /// The value; `None` for a tombstone.
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.bytes(self.message.payload, self.message.len)
    }

    /// The key; `None` where there is none.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.bytes(self.message.key, self.message.key_len)
    }

    /// Epoch milliseconds; `None` where the record has none.
    pub fn timestamp(&self) -> Option<i64> {
        let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: message and out-parameter are valid for the call.
        let time = unsafe { sys::rd_kafka_message_timestamp(self.message.as_native(), &mut kind) };
        (time >= 0 && kind != sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE).then_some(time)
    }

    /// Epoch of the leader that wrote it (KIP-320); negative where the broker names none.
    #[inline]
    pub fn leader_epoch(&self) -> i32 {
        // SAFETY: the message is valid; this reads a field.
        unsafe { sys::rd_kafka_message_leader_epoch(self.message.as_native()) }
    }

    /// The last header of this name.
    #[inline]
    pub fn header(&self, name: &CStr) -> Option<&'a [u8]> {
        if self.surely_without_headers() { None } else { self.find_header(name) }
    }

    /// Whether the record's bytes say that it has no headers; `false` where that cannot be told.
    ///
    /// librdkafka allocates a reader of half a kilobyte to find out that there are none, which most records have. In the
    /// record format that every broker since 0.11 writes (KIP-98; the only one since Kafka 4.0, KIP-724), the byte behind
    /// the value begins the number of headers, so one look tells. A leader epoch marks that format: the older ones have none.
    #[inline]
    fn surely_without_headers(&self) -> bool {
        // SAFETY: the message is valid. Its value is a slice of the fetched (or decompressed) record, in one allocation with
        // what follows it; in this format at least one more byte of the record does.
        unsafe {
            !self.message.payload.is_null()
                && self.leader_epoch() >= 0
                && *self.message.payload.cast::<u8>().add(self.message.len) == 0
        }
    }

    fn find_header(&self, name: &CStr) -> Option<&'a [u8]> {
        let headers = self.raw_headers()?;
        let (mut value, mut size) = (std::ptr::null(), 0);
        // SAFETY: the headers belong to the message; value points into them.
        let code = unsafe { sys::rd_kafka_header_get_last(headers, name.as_ptr(), &mut value, &mut size) };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { self.bytes(value, size) } else { None }
    }

    /// All headers in order; a header may have no value. For dead letters: allocates.
    pub fn headers(&self) -> Vec<(String, Option<&'a [u8]>)> {
        let Some(headers) = self.raw_headers() else { return Vec::new() };
        let mut all = Vec::new();
        loop {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            // SAFETY: as above; an index past the end answers with an error, which ends the loop.
            let code = unsafe { sys::rd_kafka_header_get_all(headers, all.len(), &mut name, &mut value, &mut size) };
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return all;
            }
            // SAFETY: a found header has a C string as its name.
            let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
            all.push((name, self.bytes(value, size)));
        }
    }

    /// Bytes of the message.
    fn bytes(&self, pointer: *const c_void, length: usize) -> Option<&'a [u8]> {
        // SAFETY: pointer and length are of memory that lives as long as the message, which the batch's borrow outlives.
        unsafe { slice(pointer, length) }
    }

    fn raw_headers(&self) -> Option<*mut sys::rd_kafka_headers_t> {
        let mut headers = std::ptr::null_mut();
        // SAFETY: parses the headers on first use into memory owned by the message; the message is not shared between
        // threads while borrowed (Record is not Send).
        let code = unsafe { sys::rd_kafka_message_headers(self.message.as_native(), &mut headers) };
        (code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && !headers.is_null()).then_some(headers)
    }
}
