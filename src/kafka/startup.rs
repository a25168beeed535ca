//! Before the first record: wait for a broker, then hold the topics against what the worker needs.
//!
//! A broker that is down is waited for; what waiting cannot mend (credentials, a missing topic, partition counts that
//! differ) ends the process at once with what to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::admin;
use super::client::{self, BrokerHealth, Events};
use super::consumer::NativeConsumer;
use super::failure::{self, Failure};
use super::outbox::Outbox;
use crate::log_events;
use crate::shutdown::Shutdown;

/// How long one question to the broker may take before it is asked again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of a topic that is made: names and values.
type TopicSettings = &'static [(&'static str, &'static str)];

/// A topic that forgets nothing: neither by age nor by size, nor by key.
const KEPT: TopicSettings = &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];

/// The topics of a worker and how missing ones are made.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Where transactions come from.
    pub input: String,
    /// Where verdicts go.
    pub output: String,
    /// Where dead letters go.
    pub dead_letter: String,
    /// Where comparisons with the challenger go, if anywhere.
    pub challenger: Option<String>,
    /// Where audit events go, if anywhere.
    pub audit: Option<String>,
    /// Create what is missing.
    pub create: bool,
    /// Partitions of a created input topic; a created output takes the input's count.
    pub partitions: i32,
}

/// What the broker knows about the topics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    /// Of the input and the output topic.
    pub input: i32,
    /// Of the dead-letter topic.
    pub dead_letter: i32,
}

/// Why the worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// SASL or TLS was refused.
    #[error(
        "the broker refused the connection: {0}. Check security.protocol, sasl.mechanism, sasl.username and \
         sasl.password (environment FRAUD_SCORER_PROPERTY or [kafka] in the --config file), and the certificates"
    )]
    Credentials(String),
    /// A topic is not there.
    #[error(
        "topic {topic} does not exist on {brokers}: check the name, or start once with --create-topics \
         (or: kafka-topics.sh --create --topic {topic} --partitions N)"
    )]
    MissingTopic {
        /// The topic.
        topic: String,
        /// Where it was looked for.
        brokers: String,
    },
    /// Input and output differ in partitions.
    #[error(
        "topic {output} has {found} partitions, {input} has {expected}: what is written keeps its transaction's partition, \
         so give both the same count (kafka-topics.sh --alter --topic {output} --partitions {expected})"
    )]
    PartitionCount {
        /// Input topic.
        input: String,
        /// Output topic.
        output: String,
        /// Partitions of the input.
        expected: i32,
        /// Partitions of the output.
        found: i32,
    },
    /// The broker does not let this user see a topic.
    #[error(
        "not allowed to use topic {topic}: {reason}. Grant the user of sasl.username READ on the input and WRITE on the output and dead-letter topics"
    )]
    Forbidden {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// A topic could not be created.
    #[error("cannot create topic {topic}: {reason}")]
    CannotCreate {
        /// The topic.
        topic: String,
        /// The broker's words.
        reason: String,
    },
    /// A broker that is needed cannot be asked.
    #[error(
        "{what} does not answer: {reason}. Brokers are reached by the addresses that they advertise (advertised.listeners), \
         not by --brokers: those must be known and open from here"
    )]
    Unreachable {
        /// Who was asked.
        what: String,
        /// librdkafka's words.
        reason: String,
    },
    /// Exactly once would not hold with this broker.
    #[error(
        "the broker takes offsets in transactions without the generation of the member that read them (TxnOffsetCommit up to \
         version {version}; 3 is needed: KIP-447, Kafka 2.5): a member that was put out of the group could commit. Use another \
         broker, or --guarantee at-least-once"
    )]
    NoFencing {
        /// The highest version that it knows.
        version: i16,
    },
    /// librdkafka refused the configuration.
    #[error("Kafka client: {0}")]
    Client(#[from] KafkaError),
    /// A question was not answered, or refused.
    #[error("the broker was asked in vain: {0}")]
    Unanswered(#[from] Failure),
    /// Asked to stop while waiting for the broker.
    #[error("stopped while waiting for a Kafka broker")]
    Stopped,
}

/// Asks brokers about topics and groups.
pub struct Inquiry {
    consumer: NativeConsumer<Events>,
    base: ClientConfig,
    brokers: String,
    health: Arc<BrokerHealth>,
}

impl Inquiry {
    /// A client that only asks.
    pub fn new(base: &ClientConfig) -> Result<Inquiry, StartupError> {
        let health = Arc::new(BrokerHealth::default());
        let config = client::plain_config(base);
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        let mut asking = config.clone();
        let is_debugged = client::overhear(&mut asking, "feature");
        let consumer = NativeConsumer::open(&asking, Events::new(health.clone(), is_debugged))?;
        Ok(Inquiry { consumer, base: config, brokers, health })
    }

    /// Partitions of `topic`; `None` where it does not exist. One attempt of `timeout`; never creates a topic.
    pub fn partitions(&self, topic: &str, timeout: Duration) -> Result<Option<i32>, StartupError> {
        let answer = self.consumer.metadata(topic, timeout);
        // Serves the errors that say why, if there was no answer.
        self.serve();
        if self.health.is_refused() {
            return Err(StartupError::Credentials(self.health.last_error()));
        }
        let found = answer?;
        self.health.reached();
        match failure::code(found.error) {
            RDKafkaErrorCode::NoError => Ok(Some(found.partitions.len() as i32).filter(|&count| count > 0)),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => Ok(None),
            RDKafkaErrorCode::InvalidTopic => Ok(None),
            RDKafkaErrorCode::TopicAuthorizationFailed => {
                Err(StartupError::Forbidden { topic: topic.into(), reason: failure::words(found.error) })
            }
            // No leader yet, and the like: ask again.
            _ => Err(Failure::of(found.error).into()),
        }
    }

    /// Whether the brokers that answered check who commits offsets in a transaction, as exactly once needs it.
    pub fn check_fencing(&self) -> Result<(), StartupError> {
        self.serve();
        match self.health.offset_commits() {
            version @ ..3 => Err(StartupError::NoFencing { version }),
            _ => Ok(()),
        }
    }

    /// Asks the leader of each partition of `topic`, by its advertised address, for the partition's end.
    pub fn ask_leaders(&self, topic: &str, timeout: Duration) -> Result<(), StartupError> {
        let metadata = self.consumer.metadata(topic, timeout)?;
        for (partition, leader) in metadata.partitions {
            let asked = self.consumer.watermarks(topic, partition, timeout);
            self.serve();
            if let Err(error) = asked {
                let broker = metadata.brokers.iter().find(|broker| broker.id == leader);
                let address = broker.map_or("no broker", |broker| &broker.address);
                let what = format!("the leader of partition {partition} of {topic} ({address})");
                return Err(StartupError::Unreachable { what, reason: self.reason(&error) });
            }
        }
        Ok(())
    }

    /// Asks the coordinator of `group` what is committed of `topic`. Joins nothing.
    pub fn ask_group_coordinator(&self, group: &str, topic: &str, timeout: Duration) -> Result<(), StartupError> {
        let config = client::consumer_config(&self.base, group, 0, 1);
        let consumer = client::lone_consumer(&config, self.health.clone())?;
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let deadline = Instant::now() + timeout;
        let answer = loop {
            let answer = consumer.committed(&list, timeout);
            consumer.serve(|_| {});
            // A coordinator that has just been chosen refuses at first.
            if answer.is_ok() || Instant::now() >= deadline {
                break answer;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let what = || format!("the coordinator of group {group}");
        answer.map(|_| ()).map_err(|error| StartupError::Unreachable { what: what(), reason: self.reason(&error) })
    }

    /// Asks a transaction coordinator for a transactional id of its own, as the worker's threads do.
    pub fn ask_transaction_coordinator(&self, group: &str, timeout: Duration) -> Result<(), StartupError> {
        let id = client::transactional_id(group, "check", 0);
        let outbox = Outbox::open(&client::transactional_config(&self.base, &id), &[], self.health.clone())?;
        let asked = outbox.init_transactions(timeout);
        outbox.serve(Duration::ZERO);
        let what = || format!("the coordinator of transactional id {id}");
        asked.map_err(|failure| StartupError::Unreachable {
            what: what(),
            reason: format!("{failure}; {}", self.last_error()),
        })
    }

    fn serve(&self) {
        self.consumer.serve(|_| {});
    }

    fn reason(&self, error: &Failure) -> String {
        format!("{error}; {}", self.last_error())
    }

    /// librdkafka's last word on why a broker did not answer.
    pub fn last_error(&self) -> String {
        self.health.last_error()
    }

    /// As [`Inquiry::partitions`], waiting for a broker until told to stop.
    fn wait_for_partitions(&self, topic: &str, shutdown: &Shutdown) -> Result<Option<i32>, StartupError> {
        let mut told: Option<Instant> = None;
        loop {
            match self.partitions(topic, TIMEOUT) {
                Err(StartupError::Unanswered(error)) => {
                    if shutdown.is_requested() {
                        return Err(StartupError::Stopped);
                    }
                    // Once at first, then a reminder now and then.
                    if told.is_none_or(|told| told.elapsed() > Duration::from_secs(30)) {
                        let reason = self.health.last_error();
                        log_events::kafka::WaitingForBroker { brokers: &self.brokers, error: &error, reason: &reason }
                            .log();
                        told = Some(Instant::now());
                    }
                    if shutdown.wait(Duration::from_millis(500)) {
                        return Err(StartupError::Stopped);
                    }
                }
                answer => {
                    if told.is_some() {
                        log_events::kafka::BrokerAnswers { brokers: &self.brokers }.log();
                    }
                    return answer;
                }
            }
        }
    }

    /// Partitions of a topic that has to be there; waits for a broker until told to stop.
    pub fn require(&self, topic: &str, shutdown: &Shutdown) -> Result<i32, StartupError> {
        let missing = || StartupError::MissingTopic { topic: topic.to_owned(), brokers: self.brokers.clone() };
        self.wait_for_partitions(topic, shutdown)?.ok_or_else(missing)
    }

    /// Holds the topics against what a worker needs; creates missing ones where allowed.
    pub fn prepare(&self, topics: &Topics, shutdown: &Shutdown) -> Result<Partitions, StartupError> {
        let require_with = |topic: &str, partitions: i32, settings: TopicSettings| -> Result<i32, StartupError> {
            if let Some(found) = self.wait_for_partitions(topic, shutdown)? {
                return Ok(found);
            }
            if !topics.create {
                return Err(StartupError::MissingTopic { topic: topic.into(), brokers: self.brokers.clone() });
            }
            self.create(topic, partitions, settings, shutdown)
        };
        let require = |topic: &str, partitions: i32| require_with(topic, partitions, &[]);
        let input = require(&topics.input, topics.partitions)?;
        for output in [Some(&topics.output), topics.challenger.as_ref()].into_iter().flatten() {
            let found = require(output, input)?;
            if found != input {
                let (input_topic, output) = (topics.input.clone(), output.clone());
                return Err(StartupError::PartitionCount { input: input_topic, output, expected: input, found });
            }
        }
        let dead_letter = require(&topics.dead_letter, input)?;
        if let Some(audit) = &topics.audit {
            require_with(audit, 1, KEPT)?;
        }
        self.compare_size_limits(topics);
        Ok(Partitions { input, dead_letter })
    }

    fn create(
        &self,
        topic: &str,
        partitions: i32,
        settings: TopicSettings,
        shutdown: &Shutdown,
    ) -> Result<i32, StartupError> {
        let refuse = |reason: String| StartupError::CannotCreate { topic: topic.into(), reason };
        match admin::create_topic(&self.consumer, topic, partitions, settings, TIMEOUT) {
            Ok(()) => log_events::kafka::TopicCreated { topic, partitions }.log(),
            Err(failure) if failure.code == RDKafkaErrorCode::TopicAlreadyExists => {} // another worker was faster
            Err(failure) => return Err(refuse(failure.reason)),
        }
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = self.wait_for_partitions(topic, shutdown)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(refuse("created, but the broker does not show it".into()));
            }
            if shutdown.wait(Duration::from_millis(50)) {
                return Err(StartupError::Stopped);
            }
        }
    }

    /// A dead-letter topic that takes smaller values than the input forces the worker to leave values out: say so.
    /// Advice, not a gate: asked aside, for a broker may take its time or not know the question.
    fn compare_size_limits(&self, topics: &Topics) {
        let (Ok(client), topics) = (client::lone_consumer(&self.base, self.health.clone()), topics.clone()) else {
            return;
        };
        let compare = move || {
            let limit = |topic: &str| admin::max_message_bytes(&client, topic, TIMEOUT);
            if let (Some(input), Some(dead_letter)) = (limit(&topics.input), limit(&topics.dead_letter))
                && dead_letter < input
            {
                log_events::kafka::DeadLetterTopicSmaller { input, dead_letter, topic: &topics.dead_letter }.log();
            }
        };
        if let Err(error) = std::thread::Builder::new().name("size-limits".into()).spawn(compare) {
            log_events::kafka::SizeLimitsNotCompared { error: &error }.log();
        }
    }
}
