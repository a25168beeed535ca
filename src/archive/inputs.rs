//! The inputs that verdicts name: each partition of the input topic read forward, one record at a time, only as far as
//! the verdicts have come.
//!
//! ```text
//!  verdict's source ─► Cursor (join.rs): here │ gone │ read on │ go there ─► decode, with the worker's own decoder
//! ```
//!
//! No member of any group: partitions are taken by hand, and those that nobody asks for rest. Memory: the record read
//! last, and what librdkafka has fetched ahead, per partition that is being read.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fraud_wire::verdict::Verdict;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::join::{Cursor, Step};
use crate::kafka::batch::{BatchBuffer, Entry, Record, RecordQueue};
use crate::kafka::client::{self, Events};
use crate::kafka::consumer::NativeConsumer;
use crate::kafka::failure::Failure;
use crate::log_events::archive as events;
use crate::pipeline::decode::{Decoder, Feature, Rows, TransactionId};

/// How long a seek may take before it is tried again.
const SEEK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an input is read for before the broker is asked whether the topic holds it at all. What came of it is written after
/// it, so where the topic ends before it, it is another topic than the worker read: it was deleted and made again.
const UNSURE: Duration = Duration::from_millis(100);

/// How long such a question may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Times that a seek is repeated whose first answer lies behind the offset asked for although the topic should hold it.
/// A query of librdkafka's own that is under way can overtake a seek; a compacted topic really has such holes.
const SEEK_TRIES: u32 = 5;

/// What consumers of inputs have of their own.
const PROPERTIES: &[(&str, &str)] = &[
    ("auto.offset.reset", "earliest"),
    ("enable.partition.eof", "true"),
    ("isolation.level", "read_committed"),
    ("statistics.interval.ms", "0"),
];

/// Per partition: one megabyte ahead, and one fetch of as much.
const DEFAULTS: &[(&str, &str)] = &[
    ("queued.max.messages.kbytes", "1024"),
    ("queued.min.messages", "5000"),
    ("fetch.message.max.bytes", "1048576"),
    // A queue that was full is looked at again at once: the next verdicts want what follows.
    ("fetch.queue.backoff.ms", "5"),
];

/// An answer to "what was the input?".
#[derive(Debug, PartialEq)]
pub enum Lookup<'a> {
    /// The row's features, in the bundle's order.
    Found(&'a [f32]),
    /// Not to be had.
    Missing(Missing),
    /// Ask again: it was not read within the time given.
    NotYet,
}

/// Why an input is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The topic does not hold it any more.
    Gone,
    /// The verdict names another topic, or a partition that the topic does not have.
    Elsewhere,
    /// It is there, but does not give this row with the bundle's features.
    Undecodable,
    /// Another transaction stands in its place.
    Another,
}

impl Missing {
    /// All, for metrics that begin at 0.
    pub const ALL: [Missing; 4] = [Missing::Gone, Missing::Elsewhere, Missing::Undecodable, Missing::Another];

    /// In a word, for a metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Missing::Gone => "gone",
            Missing::Elsewhere => "elsewhere",
            Missing::Undecodable => "undecodable",
            Missing::Another => "another",
        }
    }
}

/// Reads inputs.
pub struct Inputs {
    source: InputSource,
    // Order of fields is order of drop: the partitions' queues before the consumer they belong to.
    partitions: HashMap<i32, Partition>,
    consumer: Arc<NativeConsumer<Events>>,
    decoder: Decoder,
    /// The topic was asked for partitions that were added, since the verdicts at hand were read.
    is_counted: bool,
}

/// What inputs are read from, and with which features.
#[derive(Clone)]
pub struct InputSource {
    /// librdkafka's properties.
    pub kafka: ClientConfig,
    /// Never joined; librdkafka wants a name.
    pub group: String,
    /// The input topic.
    pub topic: String,
    /// Its partitions.
    pub partitions: i32,
    /// The bundle's features.
    pub features: Vec<Feature>,
    /// Larger inputs are not decoded.
    pub max_bytes: usize,
}

/// One partition of the input topic.
struct Partition {
    queue: RecordQueue<Events>,
    buffer: BatchBuffer,
    cursor: Cursor,
    current: Current,
    resting: bool,
    /// What is being read for, and since when.
    wanted: Option<(i64, Instant)>,
    /// Where the topic ends, asked since the verdicts at hand were read: what they name from here on is in no topic of today.
    end: Option<i64>,
    /// Nothing was read since the last seek, so what comes first is not yet to be believed.
    just_sought: bool,
    /// How often the offset was sought in vain.
    seeks: (i64, u32),
}

/// The record read last, decoded.
#[derive(Default)]
struct Current {
    rows: Rows,
    /// The transaction id of each row, where it has one.
    ids: Vec<Option<String>>,
}

impl Inputs {
    /// Reads a topic.
    ///
    /// # Errors
    /// A property that librdkafka refuses.
    pub fn open(source: InputSource) -> Result<Inputs, KafkaError> {
        let InputSource { kafka, group, topic, partitions, features, max_bytes } = &source;
        let mut config = kafka.clone();
        for (key, value) in DEFAULTS {
            if config.get(key).is_none() {
                config.set(*key, *value);
            }
        }
        let mut config = client::consumer_config(&config, group, 0, 1);
        for (key, value) in PROPERTIES {
            config.set(*key, *value);
        }
        let is_debugged = client::overhear(&mut config, "metadata");
        let consumer = Arc::new(NativeConsumer::open(&config, Events::new(Arc::default(), is_debugged))?);
        let mut list = TopicPartitionList::with_capacity(*partitions as usize);
        let mut known = HashMap::new();
        for number in 0..*partitions {
            // A number, not the beginning or the end: those would be looked up, and the answer could undo a seek.
            list.add_partition_offset(topic, number, Offset::Offset(0))?;
            let queue = RecordQueue::new(consumer.clone());
            queue.forward(topic, number);
            let partition = Partition {
                queue,
                buffer: BatchBuffer::new(1),
                cursor: Cursor::default(),
                current: Current::default(),
                resting: true,
                wanted: None,
                end: None,
                just_sought: false,
                seeks: (0, 0),
            };
            known.insert(number, partition);
        }
        // Assigned once and for all: partitions rest and are sought, but are never given back, which would undo the
        // forwards of their queues (see `ScoringThread::rewind`).
        let refused = |failure: Failure| KafkaError::Subscription(failure.to_string());
        consumer.assign(&list).map_err(refused)?;
        consumer.pause(&list).map_err(refused)?;
        let decoder = Decoder::new(features, *max_bytes);
        Ok(Inputs { source, partitions: known, consumer, decoder, is_counted: false })
    }

    /// Where the topic was deleted and made again, reads the one that has its name now, with a new client: the one before
    /// would go on asking those who led the topic that is gone (`ScoringThread::rejoin`). So too where the client was told of no
    /// broker at all, and may have lost those it knew for good.
    ///
    /// # Errors
    /// As [`Inputs::open`].
    pub fn follow(&mut self) -> Result<(), KafkaError> {
        let reports = self.consumer.reports();
        if reports.is_recreated.load(Ordering::Relaxed) || reports.health.has_lost_brokers() {
            *self = Inputs::open(self.source.clone())?;
        }
        Ok(())
    }

    /// Further verdicts were read: what was asked before says nothing of theirs.
    pub fn begin(&mut self) {
        self.is_counted = false;
        self.partitions.values_mut().for_each(|partition| partition.end = None);
    }

    /// Where a verdict names a partition that was not known, looks whether it was added.
    fn follow_added(&mut self, partition: i32) -> Result<(), String> {
        if partition >= self.source.partitions && !std::mem::replace(&mut self.is_counted, true) {
            let metadata =
                self.consumer.metadata(&self.source.topic, ASK_TIMEOUT).map_err(|error| error.to_string())?;
            let count = metadata.partitions.len() as i32;
            if count > self.source.partitions {
                let source = InputSource { partitions: count, ..self.source.clone() };
                *self = Inputs::open(source).map_err(|error| error.to_string())?;
                self.is_counted = true;
            }
        }
        Ok(())
    }

    /// The features of the row that a verdict is about; reads on for it until `deadline`.
    pub fn look_up(&mut self, verdict: &Verdict, deadline: Instant) -> Lookup<'_> {
        let source = &verdict.source;
        if source.topic != self.source.topic {
            return Lookup::Missing(Missing::Elsewhere);
        }
        if let Err(reason) = self.follow_added(source.partition) {
            self.is_counted = false;
            events::InputsError { reason: &reason }.log();
            return Lookup::NotYet;
        }
        let Some(partition) = self.partitions.get_mut(&source.partition) else {
            return Lookup::Missing(Missing::Elsewhere);
        };
        loop {
            if partition.end.is_some_and(|end| end <= source.offset) {
                return Lookup::Missing(Missing::Gone);
            }
            match partition.cursor.step(source.offset) {
                Step::Here => break,
                Step::Gone => return Lookup::Missing(Missing::Gone),
                Step::Seek => {
                    if let Err(error) =
                        partition.begin(&self.consumer, &self.source.topic, source.partition, source.offset)
                    {
                        let (partition, offset) = (source.partition, source.offset);
                        events::InputsSought { partition, offset, error: &error }.log();
                        if Instant::now() >= deadline {
                            return Lookup::NotYet;
                        }
                        // The assignment takes a moment to be known to librdkafka's own thread.
                        std::thread::sleep(Duration::from_millis(10));
                    }
                }
                Step::Read => {
                    let more = partition.read(source.offset, &mut self.decoder);
                    if more && partition.is_doubtful(source.offset) {
                        let low = self.consumer.watermarks(&self.source.topic, source.partition, SEEK_TIMEOUT);
                        match low {
                            // Retention was here.
                            Ok((low, _)) if low > source.offset => {}
                            _ => partition.cursor = Cursor::default(),
                        }
                    }
                    if partition.is_unsure(source.offset) {
                        match self.consumer.watermarks(&self.source.topic, source.partition, ASK_TIMEOUT) {
                            Ok((_, end)) => partition.end = Some(end),
                            Err(error) if is_unknown(&error) => partition.end = Some(0),
                            Err(error) => {
                                events::InputsError { reason: &error }.log();
                                return Lookup::NotYet;
                            }
                        }
                    }
                    // Far behind, many records lie before the one: the group must hear from us meanwhile.
                    if Instant::now() >= deadline {
                        return Lookup::NotYet;
                    }
                }
            }
        }
        let width = self.decoder.width();
        let row = source.row as usize;
        let Some(id) = partition.current.ids.get(row) else { return Lookup::Missing(Missing::Undecodable) };
        let expected = || format!("{}-{}-{}-{}", source.topic, source.partition, source.offset, source.row);
        let matches =
            id.as_ref().map_or_else(|| verdict.transaction_id == expected(), |id| *id == verdict.transaction_id);
        if !matches {
            return Lookup::Missing(Missing::Another);
        }
        Lookup::Found(&partition.current.rows.features[row * width..(row + 1) * width])
    }

    /// Serves librdkafka's events; to be called every few seconds.
    pub fn serve(&self) {
        self.consumer.serve(|entry| {
            if let Entry::Error { reason, .. } = entry {
                events::InputsError { reason: &reason }.log();
            }
        });
    }

    /// Nothing of this partition is asked for any more, as far as one knows.
    pub fn rest(&mut self, number: i32) {
        let Some(partition) = self.partitions.get_mut(&number).filter(|partition| !partition.resting) else { return };
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.source.topic, number);
        if self.consumer.pause(&list).is_ok() {
            partition.resting = true;
            partition.cursor = Cursor::default();
            partition.current = Current::default();
        }
    }
}

/// The topic, or the partition, is not there.
fn is_unknown(error: &Failure) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(error.code, Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)
}

impl Partition {
    /// Reads on from `offset`.
    fn begin(
        &mut self,
        consumer: &NativeConsumer<Events>,
        topic: &str,
        number: i32,
        offset: i64,
    ) -> Result<(), Failure> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, number, Offset::Offset(offset))?;
        consumer.seek(&list, SEEK_TIMEOUT)?;
        if self.resting {
            consumer.resume(&list)?;
            self.resting = false;
        }
        self.cursor.sought(offset);
        self.just_sought = true;
        Ok(())
    }

    /// Whether what was read first after a seek lies behind the offset sought, so that this would count as gone. Asked
    /// again and again for the same offset, it is believed in the end.
    fn is_doubtful(&mut self, wanted: i64) -> bool {
        if !std::mem::take(&mut self.just_sought) || self.cursor.step(wanted) != Step::Gone {
            return false;
        }
        let tries = if self.seeks.0 == wanted { self.seeks.1 + 1 } else { 1 };
        self.seeks = (wanted, tries);
        tries < SEEK_TRIES
    }

    /// Whether the one at `wanted` was read for in vain for so long that the topic's end is to be asked for.
    fn is_unsure(&mut self, wanted: i64) -> bool {
        let since = self.wanted.filter(|(offset, _)| *offset == wanted).map_or_else(Instant::now, |(_, since)| since);
        self.wanted = Some((wanted, since));
        self.end.is_none() && since.elapsed() >= UNSURE
    }

    /// Takes the next record, for the sake of the one at `wanted`; false when none came for a moment.
    fn read(&mut self, wanted: i64, decoder: &mut Decoder) -> bool {
        let batch = self.queue.fill(&mut self.buffer, Duration::from_millis(20));
        match batch.iter().next() {
            // What lies before was rejected by the worker: no verdict asks for it.
            Some(Entry::Record(record)) if record.offset() < wanted => self.cursor.skip(record.offset()),
            Some(Entry::Record(record)) => {
                self.cursor.read(record.offset());
                self.current.decode(&record, decoder);
            }
            Some(Entry::End { offset, .. }) => self.cursor.ended(offset),
            Some(Entry::Error { partition, code: RDKafkaErrorCode::TopicAuthorizationFailed, reason }) => {
                events::InputsForbidden { partition, reason: &reason }.log();
                return false;
            }
            Some(Entry::Error { partition, code, reason }) => {
                events::InputsError { reason: &format_args!("partition {partition}: {code:?}: {reason}") }.log();
                return false;
            }
            None => return false,
        }
        true
    }
}

impl Current {
    fn decode(&mut self, record: &Record<'_>, decoder: &mut Decoder) {
        self.rows.clear();
        self.ids.clear();
        if let Err(rejection) = decoder.decode(record.payload(), 0, &mut self.rows) {
            let (partition, offset) = (record.partition(), record.offset());
            events::InputUndecodable { partition, offset, reason: &rejection.message }.log();
        }
        let payload = record.payload().unwrap_or_default();
        for meta in &self.rows.meta {
            self.ids.push(match &meta.transaction_id {
                TransactionId::Absent => None,
                TransactionId::Payload(range) => {
                    // The inside of a JSON string, escapes and all, as the verdict repeats it.
                    let inside = payload.get(range.start as usize..range.end as usize).unwrap_or_default();
                    let quoted = [b"\"", inside, b"\""].concat();
                    Some(serde_json::from_slice(&quoted).unwrap_or_default())
                }
            });
        }
    }
}
