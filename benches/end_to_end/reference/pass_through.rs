//! Consumes and produces the first 100 bytes of each record, with librdkafka's batch calls, and does nothing else.

use std::ffi::CString;
use std::time::Duration;

use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseProducer, Producer};

use super::{client, consumer, variable};

/// Bytes of each record that are sent on.
const PASSED: usize = 100;

/// Messages taken at once, as many as the worker takes.
const BATCH: usize = 4096;

pub fn run() {
    let consumer = consumer();
    let mut config = client();
    config.set("linger.ms", "20").set("batch.num.messages", "10000").set("queue.buffering.max.messages", "1000000");
    let producer: BaseProducer = config.create().unwrap();
    let output = CString::new(variable("OUT")).unwrap();
    // SAFETY: live clients and a valid name; null takes the default topic configuration. The partitions are assigned by
    // hand, so no rebalance will ever stand in the consumer's queue, which the batch call could not answer.
    let (topic, queue) = unsafe {
        let topic = sys::rd_kafka_topic_new(producer.client().native_ptr(), output.as_ptr(), std::ptr::null_mut());
        (topic, sys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()))
    };
    let mut taken = vec![std::ptr::null_mut::<sys::rd_kafka_message_t>(); BATCH];
    let mut messages: Vec<sys::rd_kafka_message_t> = Vec::with_capacity(BATCH);
    loop {
        // SAFETY: the queue lives as long as this process; `taken` has room for BATCH pointers.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(queue, 100, taken.as_mut_ptr(), BATCH) };
        let count = usize::try_from(count).unwrap_or(0);
        messages.clear();
        for &message in &taken[..count] {
            // SAFETY: librdkafka filled the first `count` pointers; they are valid until destroyed below.
            let message = unsafe { &*message };
            if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                continue;
            }
            // SAFETY: all-zero is a valid message of nothing.
            let mut passed: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
            (passed.payload, passed.len) = (message.payload, message.len.min(PASSED));
            (passed.key, passed.key_len, passed.partition) = (message.key, message.key_len, message.partition);
            messages.push(passed);
        }
        while !messages.is_empty() {
            let flags = sys::RD_KAFKA_MSG_F_COPY | sys::RD_KAFKA_MSG_F_PARTITION;
            // SAFETY: what the messages point to is copied within the call and destroyed after it.
            unsafe { sys::rd_kafka_produce_batch(topic, -1, flags, messages.as_mut_ptr(), messages.len() as i32) };
            messages.retain(|message| message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            producer.poll(if messages.is_empty() { Duration::ZERO } else { Duration::from_millis(5) });
        }
        for &message in &taken[..count] {
            // SAFETY: each came from the call above and is destroyed once.
            unsafe { sys::rd_kafka_message_destroy(message) };
        }
    }
}
