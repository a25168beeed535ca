//! A look at single records, without a place in any group: what a topic held last, what stands at an offset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::client::{self, BrokerHealth};
use super::oauth;

/// Offsets at a partition's end among which its last visible record is looked for.
const LOOKED_THROUGH: i64 = 10_000;

/// A record that was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its offset.
    pub offset: i64,
    /// Kafka timestamp, epoch milliseconds.
    pub timestamp: Option<i64>,
    /// Its value, empty where it has none.
    pub value: Vec<u8>,
}

struct Events {
    health: Arc<BrokerHealth>,
}

impl ClientContext for Events {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is no news here.
        if !matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
            self.health.report(&error, reason);
        }
    }
}

impl ConsumerContext for Events {}

/// A client that looks at records.
pub struct Look {
    consumer: BaseConsumer<Events>,
    patience: Duration,
}

impl Look {
    /// A client with a member's properties, transactions that are not committed left out if those say so. No look takes
    /// longer than `patience`.
    pub fn new(config: &ClientConfig, patience: Duration) -> KafkaResult<Look> {
        let mut config = config.clone();
        config.set("enable.partition.eof", "true");
        let consumer = config.create_with_context(Events { health: Arc::default() })?;
        client::serve(&consumer, |_| {});
        Ok(Look { consumer, patience })
    }

    /// The last record of a partition, if there is one among its last offsets; `None` too where there is no such partition.
    pub fn last(&self, topic: &str, partition: i32) -> KafkaResult<Option<Seen>> {
        let (low, high) = match self.consumer.fetch_watermarks(topic, partition, self.patience) {
            Err(KafkaError::MetadataFetch(
                RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition,
            )) => return Ok(None),
            marks => marks?,
        };
        if low >= high {
            return Ok(None);
        }
        let mut last = None;
        self.read(topic, partition, low.max(high - LOOKED_THROUGH), |seen| {
            last = Some(seen);
            true
        })?;
        Ok(last)
    }

    /// The record at an offset, or the first one behind it.
    pub fn at(&self, topic: &str, partition: i32, offset: i64) -> KafkaResult<Option<Seen>> {
        let mut found = None;
        self.read(topic, partition, offset, |seen| {
            found = Some(seen);
            false
        })?;
        Ok(found)
    }

    /// Reads from an offset on until the end, or until `on` has seen enough.
    fn read(&self, topic: &str, partition: i32, from: i64, mut on: impl FnMut(Seen) -> bool) -> KafkaResult<()> {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(topic, partition, Offset::Offset(from))?;
        self.consumer.assign(&list)?;
        let deadline = Instant::now() + self.patience;
        let mut outcome = Err(KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut));
        while Instant::now() < deadline {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let (offset, timestamp) = (message.offset(), message.timestamp().to_millis());
                    let value = message.payload().unwrap_or_default().to_vec();
                    if !on(Seen { offset, timestamp, value }) {
                        outcome = Ok(());
                        break;
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    outcome = Ok(());
                    break;
                }
                Some(Err(error)) => {
                    outcome = Err(error);
                    break;
                }
                None => {}
            }
        }
        self.consumer.unassign()?;
        outcome
    }
}
