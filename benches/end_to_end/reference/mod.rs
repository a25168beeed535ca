//! The references, each a process of its own that keeps the contract of contenders (onnxruntime apart, which knows no
//! Kafka). They use nothing of fraud-scorer: a yardstick must not change with what it measures.

mod echo;
mod model;
mod pass_through;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

pub use model::{Alone, scores};

use crate::topics::PARTITIONS;

/// Runs one until it is ended.
pub fn main(name: &str) {
    match name {
        "pass-through" => pass_through::run(),
        "echo" => echo::run(),
        "onnxruntime" => model::run(),
        "scores" => model::print_scores(),
        _ => panic!("no reference {name:?}"),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the environment lacks {name}"))
}

fn client() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", variable("BROKERS"));
    config
}

/// A consumer of all partitions of the input, from the beginning, with the worker's default properties.
fn consumer() -> BaseConsumer {
    let mut config = client();
    config.set("group.id", variable("GROUP")).set("isolation.level", "read_committed");
    config.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
    config.set("fetch.queue.backoff.ms", "5");
    // Small enough to stay in the caches: with 16 times as much, pass-through does a quarter less per CPU-second.
    config.set("queued.max.messages.kbytes", "16384").set("queued.min.messages", "100000");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions.add_partition_offset(&variable("IN"), partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    consumer
}
