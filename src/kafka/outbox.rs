//! The outbox: verdicts and dead letters out, delivery reports back.
//!
//! ```text
//!  pipeline ── send(ticket) ──► librdkafka's queue ──► broker
//!     ▲                                                   │
//!     └── undelivered(ticket), failure() ◄── Ledger ◄── delivery report, on our own thread in serve()
//! ```
//!
//! A ticket names the batch a message belongs to. At least once, a batch's offsets may be committed when its ticket has
//! nothing undelivered; exactly once, the transaction counts for itself and tickets only feed the failure report.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};

use super::client::{self, BrokerHealth};

/// How many batches may be undelivered at a time; a power of two.
pub const TICKETS: usize = 1024;

/// What delivery reports say, counted by the scoring thread itself (the only one that serves them): the atomics are
/// never contended, they are there because the context must be `Sync`.
struct Ledger {
    undelivered: Vec<AtomicI64>,
    /// Size in bytes of the largest message refused as too large, by kind; 0 where none was.
    largest_refused: [AtomicUsize; 2],
    failed: AtomicBool,
    failure: Mutex<Option<KafkaError>>,
    health: Arc<BrokerHealth>,
}

impl ClientContext for Ledger {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.health.report(&error, reason);
    }
}

impl ProducerContext for Ledger {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        self.undelivered[(tag >> 1) % TICKETS].fetch_sub(1, Ordering::Relaxed);
        if let Err((error, message)) = result {
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                let size = message.key_len() + message.payload_len() + message.headers().map_or(0, headers_size);
                self.largest_refused[tag & 1].fetch_max(size, Ordering::Relaxed);
            }
            self.failed.store(true, Ordering::Relaxed);
            if let Ok(mut failure) = self.failure.lock() {
                failure.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// What a message is; verdicts and dead letters have different ways out of being too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A verdict.
    Verdict,
    /// A dead letter.
    DeadLetter,
}

impl Kind {
    /// Both; the index of each is `kind as usize`.
    pub const ALL: [Kind; 2] = [Kind::Verdict, Kind::DeadLetter];
}

/// A message on its way out.
pub struct Outgoing<'a> {
    /// What it is.
    pub kind: Kind,
    /// Topic.
    pub topic: &'a str,
    /// Partition.
    pub partition: i32,
    /// Key, passed on from the record.
    pub key: Option<&'a [u8]>,
    /// Value; copied by librdkafka.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: OwnedHeaders,
}

impl Outgoing<'_> {
    /// Bytes of key, value and headers: what a topic's max.message.bytes is about, some framing aside.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers_size(&self.headers)
    }
}

fn headers_size(headers: &impl Headers) -> usize {
    headers.iter().map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len)).sum()
}

/// What became of a send.
pub enum Sent {
    /// In librdkafka's queue.
    Queued,
    /// The queue is full: serve delivery reports and send this again.
    Full(OwnedHeaders),
    /// It can never be sent.
    Refused(KafkaError),
}

/// A scoring thread's producer.
pub struct Outbox {
    producer: BaseProducer<Ledger>,
}

impl Outbox {
    /// A producer of `config` (see [`client::transactional_config`], [`client::idempotent_config`]).
    pub fn open(config: &ClientConfig, health: Arc<BrokerHealth>) -> KafkaResult<Outbox> {
        let ledger = Ledger {
            undelivered: (0..TICKETS).map(|_| AtomicI64::new(0)).collect(),
            largest_refused: [AtomicUsize::new(0), AtomicUsize::new(0)],
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            health,
        };
        Ok(Outbox { producer: config.create_with_context(ledger)? })
    }

    fn ledger(&self) -> &Ledger {
        self.producer.context()
    }

    /// Announces this transactional id; aborts whatever an earlier holder of it left open.
    pub fn init_transactions(&self, patience: Duration) -> KafkaResult<()> {
        self.producer.init_transactions(patience)
    }

    /// Opens a transaction; local to this client.
    pub fn begin_transaction(&self) -> KafkaResult<()> {
        self.producer.begin_transaction()
    }

    /// Adds the consumer's offsets to the transaction (KIP-447).
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
        patience: Duration,
    ) -> KafkaResult<()> {
        self.producer.send_offsets_to_transaction(offsets, group, patience)
    }

    /// Delivers what is queued and commits. May be called again after a time-out.
    pub fn commit_transaction(&self, patience: Duration) -> KafkaResult<()> {
        self.producer.commit_transaction(patience)
    }

    /// Drops what is queued and aborts.
    pub fn abort_transaction(&self, patience: Duration) -> KafkaResult<()> {
        self.producer.abort_transaction(patience)
    }

    /// Queues a message for delivery.
    pub fn send(&self, message: Outgoing<'_>, ticket: usize) -> Sent {
        let tag = ticket << 1 | message.kind as usize;
        let mut record =
            BaseRecord::with_opaque_to(message.topic, tag).partition(message.partition).headers(message.headers);
        record.key = message.key;
        record.payload = message.value;
        match self.producer.send::<[u8], [u8]>(record) {
            Ok(()) => {
                self.ledger().undelivered[ticket % TICKETS].fetch_add(1, Ordering::Relaxed);
                Sent::Queued
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                Sent::Full(record.headers.unwrap_or_default())
            }
            Err((error, _)) => Sent::Refused(error),
        }
    }

    /// Serves delivery reports and events, waiting up to `wait` for the first.
    pub fn serve(&self, wait: Duration) {
        self.producer.poll(wait);
    }

    /// Messages are queued, in flight, or have a report that was not served.
    pub fn has_unserved(&self) -> bool {
        self.producer.in_flight_count() > 0
    }

    /// Messages of this ticket without a delivery report.
    pub fn undelivered(&self, ticket: usize) -> i64 {
        self.ledger().undelivered[ticket % TICKETS].load(Ordering::Relaxed)
    }

    /// The first delivery failure, if there was one.
    pub fn failure(&self) -> Option<KafkaError> {
        let ledger = self.ledger();
        ledger.failed.load(Ordering::Relaxed).then(|| ledger.failure.lock().ok()?.clone()).flatten()
    }

    /// Size of the largest message of this kind that was refused as too large; 0 where none was.
    pub fn largest_refused(&self, kind: Kind) -> usize {
        self.ledger().largest_refused[kind as usize].load(Ordering::Relaxed)
    }
}
