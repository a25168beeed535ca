//! Topics of one test, and what stands in them, read by an independent `read_committed` consumer.

use std::collections::{HashMap, HashSet};
use std::process::Command;
use std::time::{Duration, Instant};

use fraud_wire::verdict::Verdict;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::broker::Broker;
use super::process::{ADMIN_TOKEN, Running, producer, scorer};
use super::{unique, wait_for};

/// Input, output and dead-letter topic of one test, and its consumer group.
pub struct Topics {
    pub client: ClientConfig,
    pub brokers: String,
    pub input: String,
    pub output: String,
    pub dead_letter: String,
    pub group: String,
}

/// A message as a subscriber reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Received {
    /// The last header of this name as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let header = self.headers.iter().rev().find(|(key, _)| key == name)?;
        Some(String::from_utf8(header.1.clone()?).unwrap())
    }

    /// The value as a verdict.
    pub fn verdict(&self) -> Verdict {
        let value = self.value.as_deref().unwrap();
        serde_json::from_slice(value).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(value)))
    }
}

impl Topics {
    /// Creates topics of `partitions` that take large records.
    pub fn create(broker: &Broker, partitions: i32) -> Topics {
        let topics = Topics {
            client: broker.client(),
            brokers: broker.address(),
            input: unique("transactions"),
            output: unique("verdicts"),
            dead_letter: unique("dead-letters"),
            group: unique("group"),
        };
        topics.make(&topics.input, partitions, "20000000");
        topics.make(&topics.output, partitions, "1000000");
        topics.make(&topics.dead_letter, partitions, "20000000");
        topics
    }

    /// Creates one topic.
    pub fn make(&self, name: &str, partitions: i32, max_message_bytes: &str) {
        self.make_with(name, partitions, &[("max.message.bytes", max_message_bytes)]);
    }

    /// Creates one topic with settings of its own.
    pub fn make_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.make_on(name, partitions, TopicReplication::Fixed(1), settings);
    }

    /// Creates one topic on these brokers.
    pub fn make_on(&self, name: &str, partitions: i32, brokers: TopicReplication<'_>, settings: &[(&str, &str)]) {
        let topic = NewTopic::new(name, partitions, brokers);
        let topic = settings.iter().fold(topic, |topic, (key, value)| topic.set(key, value));
        // One that was just deleted may still be in the way.
        wait_for("the topic is made", Duration::from_secs(30), || {
            let made = self.admin(async |admin, options| admin.create_topics([&topic], options).await);
            match made.unwrap().into_iter().next()? {
                Ok(_) => Some(()),
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => None,
                Err((topic, code)) => panic!("{topic}: {code}"),
            }
        });
    }

    /// Creates input, output and dead-letter topic with these settings instead.
    pub fn remake(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        self.delete(name);
        self.make_with(name, partitions, settings);
    }

    /// Deletes a topic.
    pub fn delete(&self, name: &str) {
        for result in self.admin(async |admin, options| admin.delete_topics(&[name], options).await).unwrap() {
            result.unwrap_or_else(|(topic, code)| panic!("{topic}: {code}"));
        }
    }

    /// Deletes the group and its offsets.
    pub fn forget_group(&self) {
        wait_for("the group is gone", Duration::from_secs(30), || {
            let deleted =
                self.admin(async |admin, options| admin.delete_groups(&[&self.group], options).await).unwrap();
            // One whose last member has just left may still be in use.
            deleted.into_iter().all(|result| result.is_ok()).then_some(())
        });
    }

    /// Raises the number of partitions.
    pub fn grow(&self, name: &str, partitions: usize) {
        let grown = NewPartitions::new(name, partitions);
        for result in self.admin(async |admin, options| admin.create_partitions([&grown], options).await).unwrap() {
            result.unwrap_or_else(|(topic, code)| panic!("{topic}: {code}"));
        }
    }

    /// How many replicas of a topic's first partition have all of it.
    pub fn in_sync(&self, name: &str) -> usize {
        let consumer: BaseConsumer = self.client.create().unwrap();
        let Ok(metadata) = consumer.fetch_metadata(Some(name), Duration::from_secs(5)) else { return 0 };
        metadata.topics()[0].partitions().first().map_or(0, |partition| partition.isr().len())
    }

    /// Deletes the records of a partition below an offset, as retention does.
    pub fn delete_records(&self, name: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before)).unwrap();
        let left = self.admin(async |admin, options| admin.delete_records(&list, options).await).unwrap();
        left.elements().iter().for_each(|element| element.error().unwrap());
    }

    fn admin<T>(
        &self,
        call: impl AsyncFnOnce(&AdminClient<DefaultClientContext>, &AdminOptions) -> KafkaResult<T>,
    ) -> KafkaResult<T> {
        let admin: AdminClient<DefaultClientContext> = self.client.create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(call(&admin, &options))
    }

    /// The group's committed offset of a partition of the input topic, where there is one, and the end of that partition.
    pub fn committed(&self, partition: i32) -> (Option<i64>, i64) {
        self.committed_of(&self.input, partition)
    }

    /// As [`Topics::committed`], of another topic.
    pub fn committed_of(&self, topic: &str, partition: i32) -> (Option<i64>, i64) {
        let mut config = self.client.clone();
        let consumer: BaseConsumer = config.set("group.id", &self.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let list = consumer.committed_offsets(list, Duration::from_secs(20)).unwrap();
        let committed = match list.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        let (_, end) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).unwrap();
        (committed, end)
    }

    /// How many members the group has, by its coordinator.
    pub fn members(&self) -> Option<usize> {
        let consumer: BaseConsumer = self.client.create().unwrap();
        let groups = consumer.fetch_group_list(Some(&self.group), Duration::from_secs(5)).ok()?;
        Some(groups.groups().first()?.members().len())
    }

    /// Waits until the group has no members, for less time than an unheard member's session lasts (10 s, of which at
    /// most 3 may have passed since its last heartbeat).
    pub fn wait_until_all_left(&self) {
        wait_for("all members left", Duration::from_secs(5), || (self.members() == Some(0)).then_some(()));
    }

    /// Commits an offset for the group, which has no members, with a note beside it.
    pub fn commit(&self, topic: &str, partition: i32, offset: i64, note: &str) {
        let mut config = self.client.clone();
        let consumer: BaseConsumer = config.set("group.id", &self.group).create().unwrap();
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(topic, partition);
        element.set_offset(Offset::Offset(offset)).unwrap();
        element.set_metadata(note);
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    /// `fraud-scorer run` on these topics, ready to be given more arguments.
    pub fn worker(&self) -> Command {
        let mut command = scorer();
        command.args(["run", "--brokers", &self.brokers, "--group", &self.group, "--http", "127.0.0.1:0"]);
        command.args(["--input-topic", &self.input, "--output-topic", &self.output]);
        command.args(["--dead-letter-topic", &self.dead_letter]);
        command.env("FRAUD_SCORER_ADMIN_TOKEN", ADMIN_TOKEN);
        command
    }

    /// Starts [`Topics::worker`] and waits until it is ready.
    pub fn start_worker(&self, arguments: &[&str]) -> Running {
        let mut command = self.worker();
        command.args(arguments);
        let mut worker = Running::start(command);
        worker.wait_until_ready();
        worker
    }

    /// `fraud-producer` into the input topic, ready to be given more arguments.
    pub fn producer(&self) -> Command {
        let mut command = producer();
        command.args(["--brokers", &self.brokers, "--topic", &self.input]);
        command
    }

    /// Starts `fraud-producer` with so many drawn rows at so many per second, the same for the same seed.
    pub fn start_producer(&self, rate: usize, count: usize, seed: u64) -> Running {
        let mut producer = self.producer();
        producer.args(["--rate", &rate.to_string(), "--count", &count.to_string(), "--seed", &seed.to_string()]);
        Running::start(producer)
    }

    /// Sends records to the input topic in order, to the partition given.
    pub fn send(&self, records: &[Record<'_>]) {
        let mut config = self.client.clone();
        let config = config.set("message.max.bytes", "100000000").set("enable.idempotence", "true");
        let producer: BaseProducer = config.create().unwrap();
        for record in records {
            let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.input).partition(record.partition);
            (message.key, message.payload) = (record.key, record.value);
            let headers = record
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
            producer.send(message.headers(headers)).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(60)).unwrap();
        assert_eq!(producer.in_flight_count(), 0);
    }

    /// Everything committed in `topic` now, by partition and offset.
    pub fn read(&self, topic: &str) -> Vec<Received> {
        self.subscribe(topic).drain()
    }

    /// An independent subscriber from the beginning of `topic`.
    pub fn subscribe(&self, topic: &str) -> Subscriber {
        let mut config = self.client.clone();
        config.set("group.id", unique("subscriber")).set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false").set("fetch.wait.max.ms", "50").set("enable.partition.eof", "true");
        let consumer: BaseConsumer = config.create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
        let partitions = metadata.topics()[0].partitions().len() as i32;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        Subscriber { consumer, partitions, seen: Vec::new() }
    }
}

/// A record to be sent.
#[derive(Clone, Debug, Default)]
pub struct Record<'a> {
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// Reads one topic.
pub struct Subscriber {
    consumer: BaseConsumer,
    partitions: i32,
    pub seen: Vec<Received>,
}

impl Subscriber {
    /// Reads until `count` messages were seen; panics with `what` after `limit`.
    pub fn wait_for(&mut self, what: &str, count: usize, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.seen.len() < count {
            assert!(Instant::now() < deadline, "{what}: {} of {count} within {limit:?}", self.seen.len());
            self.poll();
        }
    }

    /// Reads until `done` says so, asked whenever nothing more is there; panics with `what` after `limit`.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&[Received]) -> bool) {
        let deadline = Instant::now() + limit;
        let mut read = 0;
        loop {
            self.poll();
            if self.seen.len() == read && done(&self.seen) {
                return;
            }
            read = self.seen.len();
            assert!(Instant::now() < deadline, "{what}: not within {limit:?}, {read} messages read");
        }
    }

    /// Partitions of the topic.
    pub fn partition_count(&self) -> i32 {
        self.partitions
    }

    /// Reads to the end of every partition.
    fn drain(mut self) -> Vec<Received> {
        let mut ended: HashMap<i32, bool> = HashMap::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        while ended.len() < self.partitions as usize {
            assert!(Instant::now() < deadline, "the end of the topic is not reached");
            if let Some(partition) = self.poll() {
                ended.insert(partition, true);
            }
        }
        self.seen
    }

    /// Reads on until nothing has come for `quiet`.
    pub fn settle(&mut self, quiet: Duration) {
        let mut last = (self.seen.len(), Instant::now());
        while last.1.elapsed() < quiet {
            self.poll();
            if self.seen.len() > last.0 {
                last = (self.seen.len(), Instant::now());
            }
        }
    }

    /// One poll; gives the partition whose end was reached.
    pub fn poll(&mut self) -> Option<i32> {
        match self.consumer.poll(Duration::from_millis(50)) {
            Some(Ok(message)) => {
                let headers = message.headers().map(|headers| {
                    headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
                });
                self.seen.push(Received {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.unwrap_or_default(),
                });
                None
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => Some(partition),
            Some(Err(_)) | None => None,
        }
    }
}

/// How many transactions verdicts are about.
pub fn distinct(seen: &[Received]) -> usize {
    seen.iter().map(|message| message.verdict().transaction_id).collect::<HashSet<_>>().len()
}

/// What is wrong with the verdicts of `rows` input rows; empty when each has exactly one, in order within its partition.
pub fn faults(verdicts: &[Received], rows: usize) -> Vec<String> {
    let mut faults = Vec::new();
    let mut count: HashMap<(i32, i64, u32), usize> = HashMap::new();
    let mut last: HashMap<i32, (i64, u32)> = HashMap::new();
    for message in verdicts {
        let source = message.verdict().source;
        *count.entry((source.partition, source.offset, source.row)).or_default() += 1;
        if source.partition != message.partition {
            faults.push(format!("{source:?} has its verdict in partition {}", message.partition));
        }
        let place = (source.offset, source.row);
        if let Some(before) = last.insert(source.partition, place)
            && before >= place
        {
            faults.push(format!("{source:?} comes after {before:?}"));
        }
    }
    let doubled = count.values().filter(|count| **count > 1).count();
    if doubled > 0 || count.len() != rows {
        faults.push(format!("{} rows of {rows} have a verdict, {doubled} more than one", count.len()));
    }
    faults.truncate(10);
    faults
}
