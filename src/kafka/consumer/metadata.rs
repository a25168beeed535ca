//! What the cluster says of a topic, copied out of librdkafka's memory field by field.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::{NonNull, null, null_mut};
use std::time::Duration;

use rdkafka::bindings as sys;

use super::{c_string, ffi, succeeded};
use crate::kafka::failure::Failure;
use crate::kafka::native::milliseconds;

/// A topic.
#[derive(Debug)]
pub struct TopicMetadata {
    /// Its partitions, each with the broker that leads it (negative: none).
    pub partitions: Vec<(i32, i32)>,
    /// What the broker said of the topic; 0: nothing is wrong.
    pub error: c_int,
    /// The cluster's brokers.
    pub brokers: Vec<Broker>,
}

/// A broker, by the address that it advertises.
#[derive(Debug)]
pub struct Broker {
    /// Its number.
    pub id: i32,
    /// `HOST:PORT`.
    pub address: String,
}

/// Frees what librdkafka allocated.
struct Owned(*const sys::rd_kafka_metadata);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::rd_kafka_metadata_destroy(self.0) }
    }
}

struct TopicHandle(NonNull<sys::rd_kafka_topic_t>);

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: ours, and given back once.
        unsafe { sys::rd_kafka_topic_destroy(self.0.as_ptr()) }
    }
}

/// Asks any broker. `client` is alive for the call.
pub(super) fn fetch(client: *mut sys::rd_kafka_t, topic: &str, timeout: Duration) -> Result<TopicMetadata, Failure> {
    let name = c_string(topic)?;
    let mut answer = null();
    // SAFETY: client and topic are alive for the calls; the answer, if any, is ours.
    let owned = unsafe {
        let handle = NonNull::new(sys::rd_kafka_topic_new(client, name.as_ptr(), null_mut())).map(TopicHandle);
        let unknown = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC as c_int;
        let handle = handle.ok_or_else(|| Failure::of(unknown))?;
        succeeded(ffi::rd_kafka_metadata(client, 0, handle.0.as_ptr(), &mut answer, milliseconds(timeout)))?;
        Owned(answer)
    };
    let mut found = TopicMetadata { partitions: Vec::new(), error: 0, brokers: Vec::new() };
    // SAFETY: arrays hold as many elements as their counts say, names are C strings; codes are read as integers.
    unsafe {
        let metadata = owned.0;
        for index in 0..usize::try_from((*metadata).broker_cnt).unwrap_or(0) {
            let broker = (*metadata).brokers.add(index);
            let address = format!("{}:{}", text((*broker).host), (*broker).port);
            found.brokers.push(Broker { id: (*broker).id, address });
        }
        for index in 0..usize::try_from((*metadata).topic_cnt).unwrap_or(0) {
            let found_topic = (*metadata).topics.add(index);
            if text((*found_topic).topic) != topic {
                continue;
            }
            found.error = (&raw const (*found_topic).err).cast::<c_int>().read();
            for index in 0..usize::try_from((*found_topic).partition_cnt).unwrap_or(0) {
                let partition = (*found_topic).partitions.add(index);
                found.partitions.push(((*partition).id, (*partition).leader));
            }
        }
    }
    Ok(found)
}

/// # Safety
/// A C string, or null.
unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: the caller's promise.
    if pointer.is_null() { String::new() } else { unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned() }
}
