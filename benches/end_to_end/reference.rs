//! The references, each a process of its own: it works through the same records and prints records, wall seconds, CPU
//! seconds and peak memory of itself.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fraud_scorer::kafka::batch::{BatchBuffer, Entry, RecordQueue};
use fraud_scorer::kafka::client;
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::decode::{Decoder, Rows};
use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::contender::{cpu_time, peak_rss};

/// Bytes of each record that pass-through sends on.
const PASSED: usize = 100;

pub fn main(arguments: &[String]) {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = match arguments[..] {
        ["pass-through", brokers, input, output, records] => {
            pass_through(brokers, input, output, records.parse().unwrap())
        }
        ["onnxruntime", model, brokers, input, _, _] => onnxruntime(model, brokers, input),
        _ => panic!("unknown reference {arguments:?}"),
    };
    let (records, began, cpu) = begun;
    let (wall, cpu) = (began.elapsed(), cpu_time(std::process::id()) - cpu);
    println!("{records} {} {} {}", wall.as_secs_f64(), cpu.as_secs_f64(), peak_rss(std::process::id()));
    // Closing clients is not what is measured.
    std::process::exit(0);
}

type Begun = (u64, Instant, Duration);

fn now() -> (Instant, Duration) {
    (Instant::now(), cpu_time(std::process::id()))
}

fn open(brokers: &str, input: &str) -> (Arc<BaseConsumer>, RecordQueue<DefaultConsumerContext>) {
    let mut base = ClientConfig::new();
    base.set("bootstrap.servers", brokers).set("statistics.interval.ms", "0");
    let consumer: Arc<BaseConsumer> = Arc::new(client::consumer_config(&base, "reference").create().unwrap());
    let queue = RecordQueue::new(consumer.clone());
    let mut list = TopicPartitionList::new();
    for partition in 0..4 {
        queue.forward(input, partition);
        list.add_partition_offset(input, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    (consumer, queue)
}

fn pass_through(brokers: &str, input: &str, output: &str, wanted: u64) -> Begun {
    let (_consumer, queue) = open(brokers, input);
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("linger.ms", "20").set("batch.num.messages", "10000");
    config.set("queue.buffering.max.messages", "1000000");
    let producer: BaseProducer = config.create().unwrap();
    let topic = std::ffi::CString::new(output).unwrap();
    // SAFETY: a live client and a valid name; null takes the default topic configuration.
    let topic =
        unsafe { sys::rd_kafka_topic_new(producer.client().native_ptr(), topic.as_ptr(), std::ptr::null_mut()) };
    let mut buffer = BatchBuffer::new(4096);
    let mut messages: Vec<sys::rd_kafka_message_t> = Vec::with_capacity(4096);
    let (mut passed, mut begun) = (0, None);
    while passed < wanted {
        let batch = queue.fill(&mut buffer, Duration::from_millis(100));
        messages.clear();
        for entry in batch.iter() {
            let Entry::Record(record) = entry else { continue };
            let (value, key) = (record.payload().unwrap(), record.key().unwrap_or_default());
            // SAFETY: all-zero is a valid message of nothing; librdkafka copies what it is given (F_COPY).
            let mut message: sys::rd_kafka_message_t = unsafe { std::mem::zeroed() };
            (message.payload, message.len) = (value.as_ptr().cast_mut().cast(), value.len().min(PASSED));
            (message.key, message.key_len) = (key.as_ptr().cast_mut().cast(), key.len());
            message.partition = record.partition();
            messages.push(message);
        }
        passed += messages.len() as u64;
        begun = begun.or_else(|| (passed > 0).then(now).map(|(wall, cpu)| (passed, wall, cpu)));
        while !messages.is_empty() {
            let flags = sys::RD_KAFKA_MSG_F_COPY | sys::RD_KAFKA_MSG_F_PARTITION;
            // SAFETY: the messages point into the batch, which outlives the call.
            unsafe { sys::rd_kafka_produce_batch(topic, -1, flags, messages.as_mut_ptr(), messages.len() as i32) };
            messages.retain(|message| message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
            let wait = if messages.is_empty() { Duration::ZERO } else { Duration::from_millis(5) };
            producer.poll(wait);
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let (before, wall, cpu) = begun.unwrap();
    (passed - before, wall, cpu)
}

/// The model alone: the topic's first rows in memory, over and over, batch 1,024, one thread.
fn onnxruntime(model: &str, brokers: &str, input: &str) -> Begun {
    const ROWS: usize = 1024 * 64;
    const BATCH: usize = 1024;
    let bundle = Bundle::load(Path::new(model)).unwrap();
    let (_consumer, queue) = open(brokers, input);
    let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
    let mut buffer = BatchBuffer::new(4096);
    while rows.len() < ROWS {
        for entry in queue.fill(&mut buffer, Duration::from_millis(100)).iter() {
            let Entry::Record(record) = entry else { continue };
            decoder.decode(record.payload(), 0, &mut rows).unwrap();
        }
    }
    let mut scorer = bundle.scorer().unwrap();
    let mut scores = Vec::new();
    let width = decoder.width();
    let (wall, cpu) = now();
    let mut scored = 0;
    while wall.elapsed() < Duration::from_secs(2) {
        for batch in rows.features[..ROWS * width].chunks_exact(BATCH * width) {
            scorer.score(batch, &mut scores).unwrap();
            scored += scores.len() as u64;
        }
    }
    (scored, wall, cpu)
}
