//! Produce: outcomes become messages in the committer's queue, in input order, verdicts and dead letters interleaved
//! as their records were. Same key, same partition as the record.

use std::ffi::CStr;
use std::ops::Range;

use fraud_wire::dead_letter::{self, ErrorClass, Rejection};
use fraud_wire::verdict::TRACEPARENT_HEADER;
use rdkafka::message::{Header, OwnedHeaders};

use super::commit::{Committer, Interruption};
use super::decode::EventTime;
use super::encode::{Encoder, RowSource};
use super::engine::{Engine, Outcome, ScoredRow};
use crate::kafka::batch::Record;
use crate::kafka::outbox::{Kind, Outgoing};
use crate::telemetry::metrics::Tally;

const TRACEPARENT: &CStr = c"traceparent";
const _: () = assert!(TRACEPARENT.count_bytes() == TRACEPARENT_HEADER.len());

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Topic of the verdicts; its partitions are the input's.
    pub output: String,
    /// Topic of the dead letters.
    pub dead_letter: String,
    /// Partitions of the dead-letter topic.
    pub dead_letter_partitions: i32,
}

/// Writes the messages of one thread.
pub struct Writer {
    encoder: Encoder,
    destination: Destination,
    buffer: Vec<u8>,
}

impl Writer {
    /// A writer to `destination`.
    pub fn new(encoder: Encoder, destination: Destination) -> Writer {
        Writer { encoder, destination, buffer: Vec::new() }
    }

    /// Queues the messages of a batch that `engine` has just run on `records`.
    pub fn write(
        &mut self,
        records: &[Record<'_>],
        engine: &Engine,
        committer: &mut Committer,
        ticket: usize,
        tally: &mut Tally,
    ) -> Result<(), Interruption> {
        for (record, outcome) in records.iter().zip(engine.outcomes()) {
            match outcome {
                Outcome::Scored(rows) => self.verdicts(record, engine, rows.clone(), committer, ticket, tally)?,
                Outcome::Rejected(rejection) => {
                    self.dead_letter(record, rejection, committer, ticket)?;
                    tally.dead_letter(rejection.class);
                }
            }
        }
        Ok(())
    }

    fn verdicts(
        &mut self,
        record: &Record<'_>,
        engine: &Engine,
        rows: Range<usize>,
        committer: &mut Committer,
        ticket: usize,
        tally: &mut Tally,
    ) -> Result<(), Interruption> {
        let limit = committer.size_limit(Kind::Verdict);
        if limit != usize::MAX
            && let Some(rejection) = self.first_too_large(record, engine, rows.clone(), limit)
        {
            // One row's verdict that its topic does not take rejects the message: whole or not at all.
            self.dead_letter(record, &rejection, committer, ticket)?;
            tally.dead_letter(rejection.class);
            return Ok(());
        }
        for row in engine.rows(rows) {
            let message = self.verdict(record, &row);
            committer.send(message, ticket)?;
            tally.verdict(row.decision, row.score, record.timestamp());
        }
        Ok(())
    }

    fn verdict<'a>(&'a mut self, record: &Record<'a>, row: &ScoredRow<'_>) -> Outgoing<'a> {
        let event_time = match row.meta.event_time {
            EventTime::Milliseconds(time) => time,
            EventTime::Absent => record.timestamp().unwrap_or(0),
        };
        let source = RowSource { partition: record.partition(), offset: record.offset(), row: row.meta.row };
        self.encoder.verdict(&mut self.buffer, record.payload().unwrap_or_default(), row, event_time, source);
        Outgoing {
            kind: Kind::Verdict,
            topic: &self.destination.output,
            partition: record.partition(),
            key: record.key(),
            value: Some(&self.buffer),
            headers: self.encoder.verdict_headers(record.header(TRACEPARENT)),
        }
    }

    /// Only asked once the output topic has refused a verdict.
    #[cold]
    fn first_too_large(
        &mut self,
        record: &Record<'_>,
        engine: &Engine,
        rows: Range<usize>,
        limit: usize,
    ) -> Option<Rejection> {
        let topic = self.destination.output.clone();
        engine.rows(rows).find_map(|row| {
            let size = self.verdict(record, &row).size();
            let message = || {
                format!(
                    "the verdict on row {} has {size} bytes with its key, more than topic {topic} takes: shorten \
                     transaction_id or the key, or raise the topic's max.message.bytes",
                    row.meta.row
                )
            };
            (size >= limit).then(|| Rejection::new(ErrorClass::TooLarge, message()))
        })
    }

    fn dead_letter(
        &self,
        record: &Record<'_>,
        rejection: &Rejection,
        committer: &mut Committer,
        ticket: usize,
    ) -> Result<(), Interruption> {
        let (partition, offset) = (record.partition(), record.offset());
        tracing::debug!(partition, offset, class = %rejection.class, reason = rejection.message, "dead letter");
        let headers = |own: &[(String, Option<&[u8]>)]| {
            self.encoder.dead_letter_headers(own, rejection, partition, offset, record.timestamp())
        };
        let own = record.headers();
        let mut message = Outgoing {
            kind: Kind::DeadLetter,
            topic: &self.destination.dead_letter,
            partition: partition % self.destination.dead_letter_partitions,
            key: record.key(),
            value: record.payload(),
            headers: headers(&own),
        };
        let limit = committer.size_limit(Kind::DeadLetter);
        if message.size() >= limit {
            // The topic takes no record of this size: better a letter without its contents than a partition that
            // stands. They are left out in the order in which they can be found again at the source.
            tracing::error!(
                partition,
                offset,
                bytes = message.size(),
                topic = self.destination.dead_letter,
                "the dead-letter topic refused a record of this size: written in part; raise its max.message.bytes"
            );
            if let Some(value) = message.value.take() {
                message.headers = with_count(message.headers, dead_letter::headers::VALUE_OMITTED, value.len());
            }
            if message.size() >= limit && !own.is_empty() {
                let bytes = own.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
                message.headers = with_count(headers(&[]), dead_letter::headers::HEADERS_OMITTED, bytes);
                if let Some(value) = record.payload() {
                    message.headers = with_count(message.headers, dead_letter::headers::VALUE_OMITTED, value.len());
                }
            }
            if message.size() >= limit
                && let Some(key) = message.key.take()
            {
                message.headers = with_count(message.headers, dead_letter::headers::KEY_OMITTED, key.len());
            }
        }
        committer.send(message, ticket)
    }
}

fn with_count(headers: OwnedHeaders, key: &str, bytes: usize) -> OwnedHeaders {
    headers.insert(Header { key, value: Some(&bytes.to_string()) })
}
