//! An embedded broker, the binary under test, and reading back what it sent.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fraud_settings::KafkaArguments;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Nothing here takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A broker of its own for each test, with one topic.
pub struct Broker {
    pub mock: MockCluster<'static, DefaultProducerContext>,
    pub address: String,
    pub topic: String,
    partitions: i32,
}

/// A record read back.
pub struct Record {
    pub key: String,
    pub value: String,
    pub timestamp: i64,
}

impl Record {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.value).unwrap()
    }
}

impl Broker {
    pub fn new(partitions: i32) -> Broker {
        let mock = MockCluster::new(1).unwrap();
        let topic = format!("transactions-{}", uuid::Uuid::new_v4());
        mock.create_topic(&topic, partitions, 1).unwrap();
        Broker { address: mock.bootstrap_servers(), mock, topic, partitions }
    }

    pub fn kafka(&self) -> KafkaArguments {
        KafkaArguments::new(&self.address)
    }

    /// The binary with `--brokers`, `--topic` and more arguments.
    pub fn producer(&self, arguments: &[&str]) -> Command {
        let mut command = binary();
        command.args(["--brokers", &self.address, "--topic", &self.topic]).args(arguments);
        command
    }

    pub fn closing_line(&self, sent: u64, delivered: u64, failed: u64) -> String {
        format!("sent {sent} messages to {} (delivered {delivered}, failed {failed})\n", self.address)
    }

    /// Reads from the beginning until `count` records are there. Panics when they are not there in time.
    pub fn read(&self, count: usize) -> Vec<Record> {
        self.read_topic(&self.topic, count)
    }

    /// The same for another topic with as many partitions.
    pub fn read_topic(&self, topic: &str, count: usize) -> Vec<Record> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.address)
            .set("group.id", "reader")
            .set("fetch.queue.backoff.ms", "5")
            .create()
            .unwrap();
        let mut partitions = TopicPartitionList::new();
        for partition in 0..self.partitions {
            partitions.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&partitions).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut records = Vec::new();
        while records.len() < count {
            assert!(Instant::now() < deadline, "{} of {count} records after {PATIENCE:?}", records.len());
            let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
            let message = message.unwrap();
            records.push(Record {
                key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
                // Poison may be no text.
                value: String::from_utf8_lossy(message.payload().unwrap()).into_owned(),
                timestamp: message.timestamp().to_millis().unwrap(),
            });
        }
        records
    }

    /// Another topic on the same broker, with as many partitions.
    pub fn another_topic(&self) -> String {
        let topic = format!("labels-{}", uuid::Uuid::new_v4());
        self.mock.create_topic(&topic, self.partitions, 1).unwrap();
        topic
    }

    /// How many records the topic was given (the embedded broker keeps only the last 5 MB of a partition).
    pub fn size(&self) -> u64 {
        self.size_of(&self.topic)
    }

    /// The same for another topic with as many partitions.
    pub fn size_of(&self, topic: &str) -> u64 {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.address).set("group.id", "sizer").create().unwrap();
        let sizes = (0..self.partitions)
            .map(|partition| consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap())
            .map(|(_, high)| high as u64);
        sizes.sum()
    }
}

/// The binary without this process's settings.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fraud-producer"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FRAUD_PRODUCER_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command.env("FRAUD_PRODUCER_MODEL", concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fraud"));
    command
}

pub fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs to the end: exit code, standard output, standard error.
pub fn finish(mut command: Command) -> (i32, String, String) {
    ended(command.stdin(Stdio::null()).output().unwrap())
}

pub fn ended(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Waits until `condition` holds. Panics when it does not in time.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn file(content: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    file
}
