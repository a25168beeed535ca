//! The way to Kafka: a client that never loses count.
//!
//! Every record offered ends as exactly one of: delivered (the broker's report), failed (a report with an error, or
//! refused at once), or not taken because the client's queue is full, which the caller waits out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fraud_settings::SettingsError;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;

/// What the user's properties may override. Idempotence keeps retries from duplicating or reordering; a linger of
/// 5 ms fills batches at high rates and adds little latency at low ones; a minute without a broker is enough to
/// restart one.
const DEFAULTS: [(&str, &str); 4] =
    [("client.id", "fraud-producer"), ("enable.idempotence", "true"), ("linger.ms", "5"), (TIMEOUT, "60000")];

const TIMEOUT: &str = "message.timeout.ms";
/// librdkafka's other name for the same property.
const TIMEOUT_ALIAS: &str = "delivery.timeout.ms";

/// A topic may be new, or be created by the very question for it; after this long it does not exist.
const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(3);
/// librdkafka asks for an idempotent producer's id when it starts, finds no broker yet, and asks again on a timer of
/// 500 ms. Records sent before that would wait for it, and show the client's start as latency.
const IDENTITY_WAIT: Duration = Duration::from_millis(550);

const BROKER_LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What became of an offered record.
pub(crate) enum Offer {
    /// The client has it; a delivery report will follow.
    Taken,
    /// It can never be delivered (too large); counted as failed.
    Refused,
    /// The client's queue is full; offer it again after a poll.
    Full,
    /// The client accepts nothing any more.
    Broken(String),
}

/// How waiting for the broker ended.
pub(crate) enum Connected {
    /// The topic is there, with this many partitions.
    Partitions(usize),
    /// The run was asked to stop meanwhile.
    Interrupted,
}

/// The two kinds of records, counted apart. The number travels with each record to its delivery report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Transaction = 0,
    Label = 1,
}

/// A producer for the transactions' topic and, where labels are sent, theirs.
pub(crate) struct Sender {
    producer: BaseProducer<Reports>,
    brokers: String,
    topic: String,
    label_topic: Option<String>,
    /// How long a record may wait for delivery; `None` for ever.
    timeout: Option<Duration>,
    is_idempotent: bool,
}

/// Counts delivery reports as they come, and tells the log about the broker.
struct Reports {
    brokers: String,
    /// By [`Kind`].
    delivered: [AtomicU64; 2],
    failed: [AtomicU64; 2],
    first_error: OnceLock<String>,
    created: Instant,
    /// When the absence of all brokers was last logged, in milliseconds since `created`.
    absence_logged: AtomicI64,
}

impl Reports {
    fn fail(&self, kind: usize, reason: impl FnOnce() -> String) {
        self.failed[kind].fetch_add(1, Ordering::Relaxed);
        self.first_error.get_or_init(reason);
    }
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            // One per broker and attempt; the absence of all brokers, which matters, comes as its own error.
            Some(RDKafkaErrorCode::BrokerTransportFailure) => return tracing::debug!("{reason}"),
            // A wrong password, an untrusted certificate, a host that cannot be resolved.
            _ => return tracing::warn!("{reason}"),
        }
        let now = self.created.elapsed().as_millis() as i64;
        if now - self.absence_logged.load(Ordering::Relaxed) >= BROKER_LOG_INTERVAL.as_millis() as i64 {
            self.absence_logged.store(now, Ordering::Relaxed);
            tracing::warn!("no broker of {} answers: waiting for one ({reason})", self.brokers);
        }
    }
}

impl ProducerContext for Reports {
    /// The [`Kind`] as a number.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, kind: usize) {
        match result {
            Ok(_) => _ = self.delivered[kind].fetch_add(1, Ordering::Relaxed),
            Err((error, message)) => self.fail(kind, || {
                let code = error.rdkafka_error_code();
                let partition = message.partition();
                match code {
                    Some(code) => format!("delivery to partition {partition} of {} failed: {code}", message.topic()),
                    None => error.to_string(),
                }
            }),
        }
    }
}

impl Sender {
    /// Creates the client; it begins to connect in the background.
    pub(crate) fn new(
        config: &ClientConfig,
        brokers: &str,
        topic: &str,
        label_topic: Option<&str>,
    ) -> anyhow::Result<Sender> {
        let mut config = config.clone();
        for (key, value) in DEFAULTS {
            let alias = if key == TIMEOUT { TIMEOUT_ALIAS } else { key };
            if config.get(key).or(config.get(alias)).is_none() {
                config.set(key, value);
            }
        }
        let timeout = config.get(TIMEOUT).or(config.get(TIMEOUT_ALIAS));
        let timeout = timeout.and_then(|text| text.parse().ok()).map_or(Duration::from_secs(60), Duration::from_millis);
        let reports = Reports {
            brokers: brokers.to_owned(),
            delivered: Default::default(),
            failed: Default::default(),
            first_error: OnceLock::new(),
            created: Instant::now(),
            absence_logged: AtomicI64::new(i64::MIN / 2),
        };
        let producer = config.create_with_context(reports).map_err(|error: KafkaError| match error {
            KafkaError::ClientCreation(reason) => anyhow::Error::new(SettingsError::Client(reason)),
            other => other.into(),
        })?;
        let timeout = (!timeout.is_zero()).then_some(timeout);
        let is_idempotent = config.get("enable.idempotence") == Some("true");
        Ok(Sender {
            producer,
            brokers: brokers.to_owned(),
            topic: topic.to_owned(),
            label_topic: label_topic.map(str::to_owned),
            timeout,
            is_idempotent,
        })
    }

    /// Waits until each topic has a leader for every partition and the client its identity.
    pub(crate) fn connect(&self, stop: &AtomicBool) -> anyhow::Result<Connected> {
        let began = Instant::now();
        let connected = self.await_topic(&self.topic, began, stop)?;
        if let Some(label_topic) = &self.label_topic
            && matches!(self.await_topic(label_topic, began, stop)?, Connected::Interrupted)
        {
            return Ok(Connected::Interrupted);
        }
        if matches!(connected, Connected::Partitions(_)) {
            self.await_identity(stop);
        }
        Ok(connected)
    }

    fn await_topic(&self, topic: &str, began: Instant, stop: &AtomicBool) -> anyhow::Result<Connected> {
        let mut unknown_since = None;
        let mut logged = Instant::now();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Connected::Interrupted);
            }
            let waiting_for = match self.topic_state(topic) {
                TopicState::Ready(partitions) => return Ok(Connected::Partitions(partitions)),
                TopicState::Hopeless(reason) => {
                    bail!("cannot send to topic {topic} at {}: {reason}", self.brokers)
                }
                TopicState::Unknown => {
                    if unknown_since.get_or_insert_with(Instant::now).elapsed() >= UNKNOWN_TOPIC_PATIENCE {
                        // The worker creates its own topics; labels are none of them.
                        let by_worker = if topic == self.topic { "`fraud-scorer run --create-topics` or " } else { "" };
                        bail!(
                            "topic {topic} does not exist at {brokers}: create it with {by_worker}\
                             `kafka-topics --create --topic {topic} --bootstrap-server {brokers}`",
                            brokers = self.brokers,
                        );
                    }
                    "the topic does not exist".to_owned()
                }
                TopicState::NotYet(reason) => {
                    unknown_since = None;
                    reason
                }
            };
            if self.timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                let waited = began.elapsed().as_secs_f64();
                return Err(anyhow::Error::msg(waiting_for))
                    .with_context(|| format!("no broker of {} was ready within {waited:.1} s", self.brokers));
            }
            if logged.elapsed() >= BROKER_LOG_INTERVAL {
                logged = Instant::now();
                tracing::warn!("waiting for topic {topic} at {}: {waiting_for}", self.brokers);
            }
            // Serves the client's own errors as well, which become log lines.
            self.poll(Duration::from_millis(100));
        }
    }

    fn await_identity(&self, stop: &AtomicBool) {
        let created = self.reports().created;
        while self.is_idempotent && created.elapsed() < IDENTITY_WAIT && !stop.load(Ordering::Relaxed) {
            self.poll(Duration::from_millis(10));
        }
    }

    fn topic_state(&self, name: &str) -> TopicState {
        let patience = Duration::from_secs(1).min(self.timeout.unwrap_or(Duration::MAX));
        let metadata = match self.producer.client().fetch_metadata(Some(name), patience) {
            Ok(metadata) => metadata,
            Err(error) => return TopicState::NotYet(error.to_string()),
        };
        let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else {
            return TopicState::Unknown;
        };
        match topic.error().map(RDKafkaErrorCode::from) {
            None if topic.partitions().is_empty() => TopicState::Unknown,
            None => match topic.partitions().iter().find(|partition| partition.leader() < 0) {
                Some(partition) => TopicState::NotYet(format!("partition {} has no leader", partition.id())),
                None => TopicState::Ready(topic.partitions().len()),
            },
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => TopicState::Unknown,
            Some(RDKafkaErrorCode::LeaderNotAvailable) => TopicState::NotYet("it has no leader".to_owned()),
            Some(code) => TopicState::Hopeless(code.to_string()),
        }
    }

    /// Hands a record to the client, which copies it. `timestamp` is in milliseconds since 1970-01-01 UTC.
    pub(crate) fn offer(&self, kind: Kind, key: &str, value: &[u8], timestamp: i64) -> Offer {
        let topic = match kind {
            Kind::Transaction => &self.topic,
            // Nobody has labels to offer without a topic for them.
            Kind::Label => self.label_topic.as_ref().unwrap_or(&self.topic),
        };
        let record = BaseRecord::with_opaque_to(topic, kind as usize).key(key).payload(value).timestamp(timestamp);
        let Err((error, _)) = self.producer.send(record) else { return Offer::Taken };
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Offer::Full,
            Some(code @ RDKafkaErrorCode::MessageSizeTooLarge) => {
                self.reports().fail(kind as usize, || format!("a record of {} bytes was refused: {code}", value.len()));
                Offer::Refused
            }
            _ => Offer::Broken(error.to_string()),
        }
    }

    /// Serves delivery reports for this long.
    pub(crate) fn poll(&self, duration: Duration) {
        self.producer.poll(duration);
    }

    /// Waits until every record has its report, which `message.timeout.ms` bounds.
    pub(crate) fn flush(&self, mut waiting: impl FnMut()) {
        while self.producer.in_flight_count() > 0 {
            if let Err(error) = self.producer.flush(Duration::from_millis(50))
                && error.rdkafka_error_code() != Some(RDKafkaErrorCode::OperationTimedOut)
            {
                tracing::debug!(%error, "flush");
            }
            self.producer.poll(Duration::ZERO);
            waiting();
        }
    }

    /// Delivered and failed so far.
    pub(crate) fn tally(&self, kind: Kind) -> (u64, u64) {
        let reports = self.reports();
        let count = |counts: &[AtomicU64; 2]| counts[kind as usize].load(Ordering::Relaxed);
        (count(&reports.delivered), count(&reports.failed))
    }

    /// What went wrong first, with either kind.
    pub(crate) fn first_error(&self) -> Option<String> {
        self.reports().first_error.get().cloned()
    }

    fn reports(&self) -> &Reports {
        self.producer.context()
    }
}

/// What the cluster says about the topic.
enum TopicState {
    Ready(usize),
    Unknown,
    NotYet(String),
    /// Waiting will not help: no permission, an invalid name.
    Hopeless(String),
}
