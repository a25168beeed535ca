//! The outbox: verdicts and dead letters out, delivery reports back.
//!
//! ```text
//!  pipeline ── send(batch) ──► librdkafka's queue ──► broker
//!     ▲                                                   │
//!     └── undelivered(batch), failure() ◄── Ledger ◄── settled, on librdkafka's threads
//! ```
//!
//! Each message carries the number of its batch. At least once, a batch's offsets may be committed when nothing of it is
//! undelivered; exactly once, the transaction counts for itself.

use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::client::{self, BrokerHealth};
use super::failure::{self, Failure};
use super::native::{Deliveries, NativeProducer, Reports, Settled, headers_size};
pub use super::native::{GroupMetadata, Headers, ProduceBuffer, Produced};
use super::statistics::Statistics;
use crate::telemetry::clients::{Client, Role};

#[cfg(test)]
mod tests;

/// Headers of a dead letter that say where its record stood (`fraud_wire::dead_letter::headers`).
const SOURCE_PARTITION: &CStr = c"source.partition";
const SOURCE_OFFSET: &CStr = c"source.offset";

/// How many batches may be undelivered at a time; a power of two.
pub const BATCHES: usize = 1024;

/// Most messages of one producer that are remembered as refused: a request holds up to 10,000, and what is not remembered
/// is refused again.
const MOST_REFUSED: usize = 10_000;

/// What delivery reports say: counted up by the scoring thread, down by librdkafka's.
struct Ledger {
    undelivered: Vec<AtomicI64>,
    /// Size in bytes of the largest message refused as too large, by kind; 0 where none was.
    largest_refused: [AtomicUsize; Kind::ALL.len()],
    failed: AtomicBool,
    failure: Mutex<Option<Undelivered>>,
    refused: Mutex<Vec<Refused>>,
    health: Arc<BrokerHealth>,
    /// The user wants to see librdkafka's debug lines.
    is_debugged: bool,
    metrics: Client,
}

/// A message that was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// What it is.
    pub kind: Kind,
    /// Where it was to go.
    pub partition: i32,
    /// Why it did not.
    pub failure: Failure,
}

/// A message that its topic does not take, however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What it is.
    pub kind: Kind,
    /// Its value, where it has one.
    pub value: Option<Vec<u8>>,
    /// Where the record that it came from stood, as a dead letter's headers say it.
    pub source: Option<(i32, i64)>,
    /// The broker's reason.
    pub reason: String,
}

/// Whether the broker means this very message, and for good. What was sent with such a message fails too, but says so
/// (KIP-467).
fn is_refused(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode::{InvalidMessage, InvalidRecord, InvalidTimestamp, UnsupportedForMessageFormat};
    matches!(code, InvalidRecord | InvalidTimestamp | InvalidMessage | UnsupportedForMessageFormat)
}

impl Deliveries for Ledger {
    fn settled(&self, message: Settled<'_>) {
        let tag = message.tag();
        if let Some(number) = message.error() {
            self.not_delivered(Kind::ALL[(tag % Kind::TAGS).min(Kind::ALL.len() - 1)], number, &message);
            // Before the count: who sees nothing undelivered must see that something failed.
            self.failed.store(true, Ordering::Release);
        }
        self.undelivered[(tag / Kind::TAGS) % BATCHES].fetch_sub(1, Ordering::Release);
    }
}

impl Reports for Ledger {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.health.hear(facility, line);
        if self.is_debugged || !matches!(level, RDKafkaLogLevel::Debug) {
            client::log(level, facility, line);
        }
    }

    fn error(&self, code: RDKafkaErrorCode, reason: &str) {
        self.health.report(code, reason);
    }

    fn statistics(&self, json: &[u8]) {
        if let Some(statistics) = Statistics::read(json) {
            self.metrics.report(&statistics);
        }
    }
}

impl Ledger {
    #[cold]
    fn not_delivered(&self, kind: Kind, number: c_int, message: &Settled<'_>) {
        let code = failure::code(number);
        if code == RDKafkaErrorCode::MessageSizeTooLarge {
            self.largest_refused[kind as usize].fetch_max(message.size(), Ordering::Relaxed);
        }
        if is_refused(code)
            && let Ok(mut refused) = self.refused.lock()
            && refused.len() < MOST_REFUSED
        {
            let header = |name| std::str::from_utf8(message.header(name)?).ok()?.parse::<i64>().ok();
            let partition = header(SOURCE_PARTITION).and_then(|partition| i32::try_from(partition).ok());
            refused.push(Refused {
                kind,
                // A dead letter's value is the record's own, and its headers say where that stood.
                value: (kind != Kind::DeadLetter).then(|| message.value().map(<[u8]>::to_vec)).flatten(),
                source: partition.zip(header(SOURCE_OFFSET)),
                reason: failure::words(number),
            });
        }
        if let Ok(mut failure) = self.failure.lock() {
            // Of several, one of a verdict or dead letter: comparisons can be done without.
            let is_more = |before: &Undelivered| before.kind == Kind::Comparison && kind != Kind::Comparison;
            if failure.as_ref().is_none_or(is_more) {
                let reason = format!("a message was not delivered: {}", failure::words(number));
                let partition = message.partition();
                *failure = Some(Undelivered { kind, partition, failure: Failure::lasting(code, reason) });
            }
        }
    }
}

/// What a message is; each has its own way out of being too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A verdict.
    Verdict,
    /// A dead letter.
    DeadLetter,
    /// A verdict beside that of the challenger.
    Comparison,
    /// Who changed what; by a producer of its own.
    Audit,
}

impl Kind {
    /// All of them; the index of each is `kind as usize`.
    pub const ALL: [Kind; 4] = [Kind::Verdict, Kind::DeadLetter, Kind::Comparison, Kind::Audit];

    /// Tags of one batch: room for every kind.
    const TAGS: usize = 4;
}

/// A message on its way out, with headers of its own.
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
    pub headers: Headers<'a>,
}

impl Outgoing<'_> {
    /// Bytes of key, value and headers: what a topic's max.message.bytes is about, some framing aside.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers_size(&self.headers)
    }
}

/// A scoring thread's producer.
pub struct Outbox {
    producer: NativeProducer<Ledger>,
}

impl Outbox {
    /// A producer of `config` (see [`super::client::transactional_config`], [`super::client::idempotent_config`]) to
    /// `topics`.
    pub fn open(config: &ClientConfig, topics: &[&str], health: Arc<BrokerHealth>) -> KafkaResult<Outbox> {
        let mut config = config.clone();
        let is_debugged = client::overhear(&mut config, "metadata");
        let ledger = Ledger {
            undelivered: (0..BATCHES).map(|_| AtomicI64::new(0)).collect(),
            largest_refused: Kind::ALL.map(|_| AtomicUsize::new(0)),
            failed: AtomicBool::new(false),
            failure: Mutex::default(),
            refused: Mutex::default(),
            health,
            is_debugged,
            metrics: Client::opened(Role::Producer),
        };
        Ok(Outbox { producer: NativeProducer::open(&config, topics, ledger)? })
    }

    fn ledger(&self) -> &Ledger {
        self.producer.reports()
    }

    /// Announces this transactional id; aborts whatever an earlier holder of it left open.
    pub fn init_transactions(&self, timeout: Duration) -> Result<(), Failure> {
        self.producer.init_transactions(timeout)
    }

    /// Opens a transaction; local to this client.
    pub fn begin_transaction(&self) -> Result<(), Failure> {
        self.producer.begin_transaction()
    }

    /// Adds the consumer's offsets to the transaction (KIP-447).
    pub fn send_offsets(
        &self,
        offsets: &TopicPartitionList,
        group: &GroupMetadata,
        timeout: Duration,
    ) -> Result<(), Failure> {
        self.producer.send_offsets(offsets, group, timeout)
    }

    /// Delivers what is queued and commits. May be called again after a time-out.
    pub fn commit_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        self.producer.commit_transaction(timeout)
    }

    /// Drops what is queued and aborts.
    pub fn abort_transaction(&self, timeout: Duration) -> Result<(), Failure> {
        self.producer.abort_transaction(timeout)
    }

    /// Queues messages (key and value each) of one partition, without headers; tells how far it got.
    pub fn send_together<'a>(
        &self,
        (kind, topic): (Kind, &str),
        partition: i32,
        batch: usize,
        messages: impl ExactSizeIterator<Item = (Option<&'a [u8]>, &'a [u8])>,
        buffer: &mut ProduceBuffer,
    ) -> Result<Produced, Failure> {
        let count = messages.len();
        let undelivered = &self.ledger().undelivered[batch % BATCHES];
        // Before the messages can be delivered; what was not queued is taken back.
        undelivered.fetch_add(count as i64, Ordering::Relaxed);
        let produced = self.producer.produce(topic, partition, tag(batch, kind), messages, buffer);
        let queued = match produced {
            Ok(Produced::All) => count,
            Ok(Produced::Full(queued)) => queued,
            // The batch is given up with this producer.
            Err(_) => 0,
        };
        undelivered.fetch_sub((count - queued) as i64, Ordering::Relaxed);
        produced
    }

    /// Queues one message with headers.
    pub fn send(&self, message: &Outgoing<'_>, batch: usize) -> Result<Produced, Failure> {
        let Outgoing { kind, topic, partition, key, value, headers } = message;
        let undelivered = &self.ledger().undelivered[batch % BATCHES];
        undelivered.fetch_add(1, Ordering::Relaxed);
        let produced = self.producer.produce_one(topic, *partition, tag(batch, *kind), *key, *value, headers);
        if !matches!(produced, Ok(Produced::All)) {
            undelivered.fetch_sub(1, Ordering::Relaxed);
        }
        produced
    }

    /// Serves log lines, errors and statistics, waiting up to `wait` for the first.
    pub fn serve(&self, wait: Duration) {
        self.producer.serve(wait);
    }

    /// Sends what waits for company, and waits up to `wait` for the delivery of all.
    pub fn flush(&self, wait: Duration) {
        self.producer.flush(wait);
    }

    /// Messages are queued or in flight.
    pub fn has_outstanding(&self) -> bool {
        self.producer.outstanding() > 0
    }

    /// Messages of this batch that are not delivered.
    pub fn undelivered(&self, batch: usize) -> i64 {
        self.ledger().undelivered[batch % BATCHES].load(Ordering::Acquire)
    }

    /// The first message that was not delivered, where there is one; a verdict or dead letter before any comparison.
    pub fn failure(&self) -> Option<Undelivered> {
        let ledger = self.ledger();
        ledger.failed.load(Ordering::Acquire).then(|| ledger.failure.lock().ok()?.clone()).flatten()
    }

    /// Forgets that a comparison was not delivered, where nothing else failed.
    pub fn forgive_comparison(&self) {
        let ledger = self.ledger();
        let Ok(mut failure) = ledger.failure.lock() else { return };
        if failure.take_if(|undelivered| undelivered.kind == Kind::Comparison).is_some() {
            // Under the lock: what fails now writes its failure down first, and then says that there is one.
            ledger.failed.store(false, Ordering::Release);
        }
    }

    /// Takes the messages that were refused for good.
    pub fn take_refused(&self) -> Vec<Refused> {
        self.ledger().refused.lock().map(|mut refused| std::mem::take(&mut *refused)).unwrap_or_default()
    }

    /// Size of the largest message of this kind that was refused as too large; 0 where none was.
    pub fn largest_refused(&self, kind: Kind) -> usize {
        self.ledger().largest_refused[kind as usize].load(Ordering::Relaxed)
    }
}

fn tag(batch: usize, kind: Kind) -> usize {
    // Wraps with the batch, which is reused long before.
    batch.wrapping_mul(Kind::TAGS) + kind as usize
}
