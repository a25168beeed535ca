//! Topics: made, measured by their end offsets, deleted.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Partitions of every topic here.
pub const PARTITIONS: i32 = 4;

/// Makes and deletes topics.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
    brokers: String,
}

impl Admin {
    pub fn new(brokers: &str) -> Admin {
        let client = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Admin { client, runtime, brokers: brokers.into() }
    }

    /// Makes a topic; its files go soon after it does.
    pub fn create(&self, name: &str, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)).set("file.delete.delay.ms", "1000");
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        let created = self.runtime.block_on(self.client.create_topics([&topic], &options())).unwrap();
        for result in created {
            result.unwrap_or_else(|(topic, code)| panic!("{topic}: {code}"));
        }
        Ends::of(&self.brokers, name).wait();
    }

    /// Deletes topics.
    pub fn delete(&self, names: &[&str]) {
        let deleted = self.runtime.block_on(self.client.delete_topics(names, &options())).unwrap();
        for result in deleted {
            result.unwrap_or_else(|(topic, code)| panic!("{topic}: {code}"));
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

/// A topic's end offsets, as a `read_committed` reader is shown them.
pub struct Ends {
    consumer: BaseConsumer,
    question: TopicPartitionList,
}

impl Ends {
    pub fn of(brokers: &str, topic: &str) -> Ends {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("isolation.level", "read_committed").set("group.id", "ends");
        config.set("log_level", "3");
        let mut question = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            question.add_partition_offset(topic, partition, Offset::End).unwrap();
        }
        Ends { consumer: config.create().unwrap(), question }
    }

    /// Their sum; `None` when the broker has no answer now.
    pub fn sum(&self) -> Option<u64> {
        let answer = self.consumer.offsets_for_times(self.question.clone(), Duration::from_secs(5)).ok()?;
        answer
            .elements()
            .iter()
            .map(|element| match (element.error(), element.offset()) {
                (Ok(()), Offset::Offset(offset)) => u64::try_from(offset).ok(),
                _ => None,
            })
            .sum()
    }

    /// Waits until there is an answer: a topic just made has no leader for a moment.
    pub fn wait(&self) -> u64 {
        for _ in 0..200 {
            if let Some(sum) = self.sum() {
                return sum;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no end offsets within 10 s");
    }
}
