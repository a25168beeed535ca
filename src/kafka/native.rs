//! librdkafka's producer in batches: the unsafe half of [`super::outbox`].
//!
//! ```text
//!  messages of one partition ─ produce ─► librdkafka's queue ─► broker
//!                                                               │ on_acknowledgement: the outcome is counted
//!                                                               └─► Reports (atomics; called on librdkafka's threads)
//! ```
//!
//! Why not `BaseProducer`: its `send` is a call per message that copies the topic's name and brings each delivery back as
//! an event. `rd_kafka_produce_batch` takes a partition's messages in one call. An interceptor (KIP-42; librdkafka's
//! `rd_kafka_interceptor_add_on_acknowledgement`) runs for every message on its way out, so deliveries are counted where
//! they happen.
//!
//! Soundness, in one place:
//! - The client owns its reports: they are freed after `rd_kafka_destroy`, which ends all threads that use them.
//! - Pointers in a [`ProduceBuffer`] are written and read within one call; values and keys are copied by librdkafka.
//! - Messages are looked at as [`Message`], never through the bindings' enum of error codes.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::consumer::{Membership, NativeConsumer};
use super::failure::{self, Failure};
use super::message::Message;
use super::oauth;

mod callbacks;
mod headers;
#[cfg(test)]
mod tests;

pub use self::callbacks::{Deliveries, Reports, Settled};
use self::callbacks::{NAME, on_error, on_log, on_new, on_statistics, on_token};
use self::headers::HeaderList;
pub use self::headers::{Headers, headers_size};

/// A client of librdkafka's that reports to `reports`, which its owner keeps for longer than the client; `set` adds callbacks
/// of its kind. Where it logs in by tokens, it has one.
pub(super) fn open<R: Reports>(
    kind: sys::rd_kafka_type_t,
    config: &ClientConfig,
    reports: &Arc<R>,
    set: impl FnOnce(*mut sys::rd_kafka_conf_t, *mut c_void),
) -> Result<NonNull<sys::rd_kafka_t>, KafkaError> {
    let native = config.create_native_config()?;
    let opaque = Arc::as_ptr(reports).cast_mut().cast::<c_void>();
    let mut text = [0 as c_char; 512];
    // SAFETY: the configuration is valid; on success librdkafka owns it, on failure it is still ours. `opaque` outlives the
    // client (the caller's promise).
    let client = unsafe {
        let conf = native.ptr();
        sys::rd_kafka_conf_set_opaque(conf, opaque);
        sys::rd_kafka_conf_set_log_cb(conf, Some(on_log::<R>));
        sys::rd_kafka_conf_set_error_cb(conf, Some(on_error::<R>));
        sys::rd_kafka_conf_set_stats_cb(conf, Some(on_statistics::<R>));
        sys::rd_kafka_conf_set_oauthbearer_token_refresh_cb(conf, Some(on_token));
        set(conf, opaque);
        sys::rd_kafka_new(kind, conf, text.as_mut_ptr(), text.len())
    };
    let Some(client) = NonNull::new(client) else {
        // SAFETY: librdkafka ends the text with a zero.
        let reason = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
        return Err(KafkaError::ClientCreation(reason));
    };
    let _ = ManuallyDrop::new(native);
    if oauth::is_used(config) {
        // Not to wait until the client is served for the first time. SAFETY: the client is alive.
        unsafe { oauth::hand_to(client.as_ptr()) };
    }
    Ok(client)
}

/// A topic's handle.
struct Topic {
    name: String,
    handle: NonNull<sys::rd_kafka_topic_t>,
}

/// A producer of librdkafka's.
pub struct NativeProducer<R: Deliveries> {
    client: NonNull<sys::rd_kafka_t>,
    topics: Vec<Topic>,
    reports: Arc<R>,
}

// SAFETY: librdkafka's client and topic handles are thread-safe.
unsafe impl<R: Deliveries> Send for NativeProducer<R> {}
unsafe impl<R: Deliveries> Sync for NativeProducer<R> {}

/// Memory for the messages of one call, reused.
#[derive(Default)]
pub struct ProduceBuffer {
    messages: Vec<Message>,
}

// SAFETY: empty between calls.
unsafe impl Send for ProduceBuffer {}

/// How far a batch got.
#[derive(Debug, PartialEq, Eq)]
pub enum Produced {
    /// All messages are queued.
    All,
    /// The queue is full: the first so many messages are queued, the others are to be sent again, in order.
    Full(usize),
}

impl<R: Deliveries> NativeProducer<R> {
    /// A producer of `config` to `topics`.
    pub fn open(config: &ClientConfig, topics: &[&str], reports: R) -> Result<Self, KafkaError> {
        let reports = Arc::new(reports);
        let client = open(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, config, &reports, |conf, opaque| {
            // SAFETY: the configuration is valid; `opaque` outlives the client.
            unsafe { sys::rd_kafka_conf_interceptor_add_on_new(conf, NAME.as_ptr(), Some(on_new::<R>), opaque) };
        })?;
        let mut producer = NativeProducer { client, topics: Vec::new(), reports };
        for name in topics {
            let c_name = CString::new(*name).map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
            // SAFETY: client and name are valid; null takes the client's default topic configuration.
            let handle = unsafe { sys::rd_kafka_topic_new(client.as_ptr(), c_name.as_ptr(), null_mut()) };
            let handle = NonNull::new(handle).ok_or_else(|| KafkaError::ClientCreation(format!("topic {name}")))?;
            producer.topics.push(Topic { name: (*name).to_owned(), handle });
        }
        Ok(producer)
    }

    /// What it reports to.
    pub fn reports(&self) -> &R {
        &self.reports
    }

    fn topic(&self, name: &str) -> Result<*mut sys::rd_kafka_topic_t, Failure> {
        let topic = self.topics.iter().find(|topic| topic.name == name);
        topic
            .map(|topic| topic.handle.as_ptr())
            .ok_or_else(|| Failure::lasting(RDKafkaErrorCode::UnknownTopic, format!("no topic {name} was opened")))
    }

    /// Queues messages (key and value each, copied) for one partition of a topic, without headers.
    pub fn produce<'a>(
        &self,
        topic: &str,
        partition: i32,
        tag: usize,
        messages: impl Iterator<Item = (Option<&'a [u8]>, &'a [u8])>,
        buffer: &mut ProduceBuffer,
    ) -> Result<Produced, Failure> {
        let topic = self.topic(topic)?;
        buffer.messages.clear();
        buffer.messages.extend(messages.map(|(key, value)| Message {
            err: 0,
            topic,
            partition,
            payload: value.as_ptr().cast_mut().cast(),
            len: value.len(),
            key: key.map_or(null_mut(), |key| key.as_ptr().cast_mut().cast()),
            key_len: key.map_or(0, <[u8]>::len),
            offset: 0,
            opaque: tag as *mut c_void,
        }));
        let count = buffer.messages.len();
        // SAFETY: topic and array are valid for the call; F_COPY makes librdkafka copy values (keys it always copies), so
        // nothing of the caller's is kept.
        let queued = unsafe {
            let messages = buffer.messages.as_mut_ptr().cast();
            sys::rd_kafka_produce_batch(topic, partition, sys::RD_KAFKA_MSG_F_COPY, messages, count as c_int)
        };
        let queued = usize::try_from(queued).unwrap_or(0);
        // librdkafka marks what it did not queue; only a full queue leaves the others in order behind it.
        let refused = || buffer.messages.iter().map(|message| message.err).find(|&err| err != 0);
        let first = if queued == count { None } else { refused() };
        buffer.messages.clear();
        match first.map(|number| (failure::code(number), number)) {
            None => Ok(Produced::All),
            Some((RDKafkaErrorCode::QueueFull, _)) => Ok(Produced::Full(queued)),
            Some((code, number)) => Err(Failure::lasting(code, failure::words(number))),
        }
    }

    /// Queues one message with headers.
    pub fn produce_one(
        &self,
        topic: &str,
        partition: i32,
        tag: usize,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &Headers<'_>,
    ) -> Result<Produced, Failure> {
        use sys::rd_kafka_vtype_t as kind;
        let topic = self.topic(topic)?;
        let list = HeaderList::new(headers);
        let memory = |bytes: Option<&[u8]>| sys::rd_kafka_vu_s__bindgen_ty_1 {
            mem: sys::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: bytes.map_or(null_mut(), |bytes| bytes.as_ptr().cast_mut().cast()),
                size: bytes.map_or(0, <[u8]>::len),
            },
        };
        let arguments = [
            sys::rd_kafka_vu_t { vtype: kind::RD_KAFKA_VTYPE_RKT, u: sys::rd_kafka_vu_s__bindgen_ty_1 { rkt: topic } },
            sys::rd_kafka_vu_t {
                vtype: kind::RD_KAFKA_VTYPE_PARTITION,
                u: sys::rd_kafka_vu_s__bindgen_ty_1 { i32_: partition },
            },
            sys::rd_kafka_vu_t {
                vtype: kind::RD_KAFKA_VTYPE_MSGFLAGS,
                u: sys::rd_kafka_vu_s__bindgen_ty_1 { i: sys::RD_KAFKA_MSG_F_COPY },
            },
            sys::rd_kafka_vu_t {
                vtype: kind::RD_KAFKA_VTYPE_OPAQUE,
                u: sys::rd_kafka_vu_s__bindgen_ty_1 { ptr: tag as *mut c_void },
            },
            sys::rd_kafka_vu_t { vtype: kind::RD_KAFKA_VTYPE_KEY, u: memory(key) },
            sys::rd_kafka_vu_t { vtype: kind::RD_KAFKA_VTYPE_VALUE, u: memory(value) },
            sys::rd_kafka_vu_t {
                vtype: kind::RD_KAFKA_VTYPE_HEADERS,
                u: sys::rd_kafka_vu_s__bindgen_ty_1 { headers: list.0.as_ptr() },
            },
        ];
        // SAFETY: every argument's union holds the member its type names, valid for the call. On success the message owns
        // the header list, on failure it is still ours.
        let error = unsafe { sys::rd_kafka_produceva(self.client.as_ptr(), arguments.as_ptr(), arguments.len()) };
        match checked(error) {
            Ok(()) => {
                let _ = ManuallyDrop::new(list);
                Ok(Produced::All)
            }
            Err(failure) if failure.code == RDKafkaErrorCode::QueueFull => Ok(Produced::Full(0)),
            Err(failure) => Err(Failure { transient: false, ..failure }),
        }
    }

    /// Announces this transactional id; aborts whatever an earlier holder of it left open.
    pub fn init_transactions(&self, timeout: Duration) -> Result<(), Failure> {
        // SAFETY (this and the next four): the client is alive; the error, if any, is taken over.
        checked(unsafe { sys::rd_kafka_init_transactions(self.client.as_ptr(), milliseconds(timeout)) })
    }

    /// Opens a transaction; local to this client.
    pub fn begin_transaction(&self) -> Result<(), Failure> {
        checked(unsafe { sys::rd_kafka_begin_transaction(self.client.as_ptr()) })
    }

    /// Adds the consumer's offsets to the transaction (KIP-447).
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Failure> {
        checked(unsafe {
            let (offsets, group) = (offsets.ptr(), group.0.as_ptr());
            sys::rd_kafka_send_offsets_to_transaction(self.client.as_ptr(), offsets, group, milliseconds(timeout))
        })
    }

    /// Delivers what is queued and commits. May be called again after a time-out.
    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        checked(unsafe { sys::rd_kafka_commit_transaction(self.client.as_ptr(), milliseconds(timeout)) })
    }

    /// Drops what is queued and aborts.
    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        checked(unsafe { sys::rd_kafka_abort_transaction(self.client.as_ptr(), milliseconds(timeout)) })
    }

    /// Serves log lines, errors and statistics of the client, waiting up to `wait` for the first.
    pub fn serve(&self, wait: Duration) {
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_poll(self.client.as_ptr(), milliseconds(wait)) };
    }

    /// Sends what waits for more to come (`linger.ms`), and waits up to `wait` for its delivery.
    pub fn flush(&self, wait: Duration) {
        // SAFETY: the client is alive. A time-out is no failure: the caller looks at what is outstanding.
        unsafe { sys::rd_kafka_flush(self.client.as_ptr(), milliseconds(wait)) };
    }

    /// Messages queued or in flight (and events that were not served).
    pub fn outstanding(&self) -> usize {
        // SAFETY: the client is alive.
        usize::try_from(unsafe { sys::rd_kafka_outq_len(self.client.as_ptr()) }).unwrap_or(0)
    }
}

impl<R: Deliveries> Drop for NativeProducer<R> {
    fn drop(&mut self) {
        // SAFETY: the client is alive until the last call, and nobody else has a handle to it.
        unsafe {
            let client = self.client.as_ptr();
            sys::rd_kafka_purge(client, sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT);
            sys::rd_kafka_flush(client, milliseconds(PURGE_TIMEOUT));
            for topic in &self.topics {
                sys::rd_kafka_topic_destroy(topic.handle.as_ptr());
            }
            sys::rd_kafka_destroy(client);
        }
    }
}

/// How long purged messages may take to come back.
const PURGE_TIMEOUT: Duration = Duration::from_millis(500);

/// A consumer's place in its group, for a transaction's offsets.
pub struct GroupMetadata(NonNull<sys::rd_kafka_consumer_group_metadata_t>);

// SAFETY: plain memory, only read.
unsafe impl Send for GroupMetadata {}

impl GroupMetadata {
    /// That of a consumer; `None` where it is no member of a group.
    pub fn of<R: Membership>(consumer: &NativeConsumer<R>) -> Option<GroupMetadata> {
        // SAFETY: the client is alive for the call; what comes back is ours.
        NonNull::new(unsafe { sys::rd_kafka_consumer_group_metadata(consumer.as_ptr()) }).map(GroupMetadata)
    }
}

impl Drop for GroupMetadata {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::rd_kafka_consumer_group_metadata_destroy(self.0.as_ptr()) }
    }
}

/// As librdkafka takes a time limit.
pub(super) fn milliseconds(time: Duration) -> c_int {
    c_int::try_from(time.as_millis()).unwrap_or(c_int::MAX)
}

unsafe extern "C" {
    /// As the bindings declare it, but for what it returns: the code may be one that their enum does not list.
    #[allow(clashing_extern_declarations)]
    fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
}

/// Takes over an error object.
pub(super) fn checked(error: *mut sys::rd_kafka_error_t) -> Result<(), Failure> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: an error object of librdkafka's that is ours; the string is copied before it is freed.
    unsafe {
        let failure = Failure {
            code: failure::code(rd_kafka_error_code(error)),
            reason: CStr::from_ptr(sys::rd_kafka_error_string(error)).to_string_lossy().into_owned(),
            transient: sys::rd_kafka_error_is_retriable(error) != 0
                && sys::rd_kafka_error_is_fatal(error) == 0
                && sys::rd_kafka_error_txn_requires_abort(error) == 0,
        };
        sys::rd_kafka_error_destroy(error);
        Err(failure)
    }
}
