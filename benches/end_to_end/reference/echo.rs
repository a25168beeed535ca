//! Two hops through Kafka without any work between them: each record is sent on as it is, at once, at least once.
//!
//! It is what a scorer could be at its fastest: `linger.ms=0`, an idempotent producer, and offsets committed every
//! 100 ms, only behind records whose copies were delivered.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Message, Offset, TopicPartitionList};

use super::{client, consumer, variable};
use crate::contender::COMMIT_INTERVAL;
use crate::topics::PARTITIONS;

/// Undelivered copies of the two latest commit intervals, by the interval's parity.
#[derive(Default)]
struct Undelivered([AtomicI64; 2]);

impl ClientContext for Undelivered {}

impl ProducerContext for Undelivered {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, interval: usize) {
        assert!(result.is_ok(), "a copy was not delivered");
        self.0[interval].fetch_sub(1, Ordering::Relaxed);
    }
}

pub fn run() {
    let (input, output) = (variable("IN"), variable("OUT"));
    let consumer = consumer();
    let mut config = client();
    config.set("linger.ms", "0").set("enable.idempotence", "true").set("acks", "all");
    let producer: BaseProducer<Undelivered> = config.create_with_context(Undelivered::default()).unwrap();
    let mut next = [None; PARTITIONS as usize];
    let mut closing: Option<TopicPartitionList> = None;
    let (mut interval, mut begun) = (0, Instant::now());
    loop {
        // Delivery reports do not wake this wait; they only feed the commit.
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
            let mut record = BaseRecord::with_opaque_to(&output, interval).partition(message.partition());
            (record.key, record.payload) = (message.key(), message.payload());
            producer.context().0[interval].fetch_add(1, Ordering::Relaxed);
            while let Err((_, again)) = producer.send::<[u8], [u8]>(record) {
                producer.poll(Duration::from_millis(1));
                record = again;
            }
            next[message.partition() as usize] = Some(message.offset() + 1);
        }
        producer.poll(Duration::ZERO);
        let delivered = |interval: usize| producer.context().0[interval].load(Ordering::Relaxed) == 0;
        if begun.elapsed() < COMMIT_INTERVAL || !delivered(1 - interval) {
            continue;
        }
        if let Some(offsets) = closing.take() {
            commit(&consumer, &offsets);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next.iter().enumerate() {
            if let Some(offset) = offset {
                offsets.add_partition_offset(&input, partition as i32, Offset::Offset(*offset)).unwrap();
            }
        }
        closing = (offsets.count() > 0).then_some(offsets);
        (interval, begun) = (1 - interval, Instant::now());
    }
}

fn commit(consumer: &BaseConsumer, offsets: &TopicPartitionList) {
    if let Err(error) = consumer.commit(offsets, CommitMode::Async) {
        eprintln!("commit: {error}");
    }
}
