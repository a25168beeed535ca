//! Questions and orders to a cluster's controller: make a topic, read a topic's limit.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as sys;

use super::consumer::{Membership, NativeConsumer, c_string, ffi, succeeded};
use super::failure::Failure;
use super::native::milliseconds;

/// A queue for one answer.
struct Queue(NonNull<sys::rd_kafka_queue_t>);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: ours, and given back once.
        unsafe { sys::rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// An answer.
struct Event(NonNull<sys::rd_kafka_event_t>);

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: ours, and freed once.
        unsafe { sys::rd_kafka_event_destroy(self.0.as_ptr()) }
    }
}

/// Waits for the answer to what `ask` puts into its queue; checks that it is one.
///
/// # Safety
/// `ask` may only use its queue during the call.
unsafe fn answer(
    client: *mut sys::rd_kafka_t,
    timeout: Duration,
    ask: impl FnOnce(*mut sys::rd_kafka_queue_t),
) -> Result<Event, Failure> {
    let timed_out = || Failure::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT as c_int);
    // SAFETY: the client is alive; queue and event are ours.
    unsafe {
        let queue = NonNull::new(sys::rd_kafka_queue_new(client)).map(Queue).ok_or_else(timed_out)?;
        ask(queue.0.as_ptr());
        let event = sys::rd_kafka_queue_poll(queue.0.as_ptr(), milliseconds(timeout));
        let event = NonNull::new(event).map(Event).ok_or_else(timed_out)?;
        succeeded(ffi::rd_kafka_event_error(event.0.as_ptr()))?;
        Ok(event)
    }
}

/// Creates a topic with the broker's default replication, and these settings.
///
/// # Errors
/// No answer, or the broker's refusal.
pub fn create_topic<R: Membership>(
    client: &NativeConsumer<R>,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
    timeout: Duration,
) -> Result<(), Failure> {
    let name = c_string(topic)?;
    let strings = |(name, value): &(&str, &str)| Ok((c_string(name)?, c_string(value)?));
    let settings = settings.iter().map(strings).collect::<Result<Vec<_>, Failure>>()?;
    let invalid = |_| Failure::of(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__INVALID_ARG as c_int);
    let mut text = [0; 256];
    // SAFETY: strings and arrays are valid for the calls, which copy them; the result belongs to the event.
    unsafe {
        let new = sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, -1, text.as_mut_ptr(), text.len());
        let mut new = NonNull::new(new).ok_or(()).map_err(invalid)?.as_ptr();
        for (name, value) in &settings {
            // Refuses only what is no string at all.
            sys::rd_kafka_NewTopic_set_config(new, name.as_ptr(), value.as_ptr());
        }
        let event = answer(client.as_ptr(), timeout, |queue| {
            sys::rd_kafka_CreateTopics(client.as_ptr(), &mut new, 1, std::ptr::null(), queue);
        });
        sys::rd_kafka_NewTopic_destroy(new);
        let event = event?;
        let mut count = 0;
        let results = sys::rd_kafka_CreateTopics_result_topics(
            sys::rd_kafka_event_CreateTopics_result(event.0.as_ptr()),
            &mut count,
        );
        (0..count).try_for_each(|index| succeeded(ffi::rd_kafka_topic_result_error(*results.add(index))))
    }
}

/// A topic's `max.message.bytes`; `None` where it is not to be had.
pub fn max_message_bytes<R: Membership>(client: &NativeConsumer<R>, topic: &str, timeout: Duration) -> Option<usize> {
    let name = c_string(topic).ok()?;
    // SAFETY: as above; names and values are C strings, or null.
    unsafe {
        let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        let mut resource = NonNull::new(sys::rd_kafka_ConfigResource_new(kind, name.as_ptr()))?.as_ptr();
        let event = answer(client.as_ptr(), timeout, |queue| {
            sys::rd_kafka_DescribeConfigs(client.as_ptr(), &mut resource, 1, std::ptr::null(), queue);
        });
        sys::rd_kafka_ConfigResource_destroy(resource);
        let event = event.ok()?;
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeConfigs_result(event.0.as_ptr());
        let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &mut count);
        if count == 0 {
            return None;
        }
        let entries = sys::rd_kafka_ConfigResource_configs(*resources, &mut count);
        (0..count).find_map(|index| {
            let entry = *entries.add(index);
            let name = CStr::from_ptr(sys::rd_kafka_ConfigEntry_name(entry));
            let value = sys::rd_kafka_ConfigEntry_value(entry);
            let is_it = name == c"max.message.bytes" && !value.is_null();
            is_it.then(|| CStr::from_ptr(value).to_str().ok()?.parse().ok()).flatten()
        })
    }
}
