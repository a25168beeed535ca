//! Produce: outcomes become messages in the committer's queue, in input order, verdicts and dead letters interleaved
//! as their records were. Same key, same partition as the record.

use std::ffi::CStr;

use fraud_wire::dead_letter::{self, Rejection};
use fraud_wire::verdict::TRACEPARENT_HEADER;
use rdkafka::message::Header;

use super::commit::{Committer, Interruption};
use super::decode::EventTime;
use super::encode::{Encoder, RowSource};
use super::engine::{Engine, Outcome};
use crate::kafka::batch::Record;
use crate::kafka::outbox::Outgoing;
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
        rows: std::ops::Range<usize>,
        committer: &mut Committer,
        ticket: usize,
        tally: &mut Tally,
    ) -> Result<(), Interruption> {
        let (partition, offset, timestamp) = (record.partition(), record.offset(), record.timestamp());
        let payload = record.payload().unwrap_or_default();
        let trace = record.header(TRACEPARENT);
        for row in engine.rows(rows) {
            let event_time = match row.meta.event_time {
                EventTime::Milliseconds(time) => time,
                EventTime::Absent => timestamp.unwrap_or(0),
            };
            let source = RowSource { partition, offset, row: row.meta.row };
            self.encoder.verdict(&mut self.buffer, payload, &row, event_time, source);
            let message = Outgoing {
                topic: &self.destination.output,
                partition,
                key: record.key(),
                value: Some(&self.buffer),
                headers: self.encoder.verdict_headers(trace),
            };
            committer.send(message, ticket)?;
            tally.verdict(row.decision, row.score, timestamp);
        }
        Ok(())
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
        let own = record.headers();
        let mut headers = self.encoder.dead_letter_headers(&own, rejection, partition, offset, record.timestamp());
        let mut value = record.payload();
        if let Some(bytes) = value.filter(|bytes| bytes.len() >= committer.refused_size()) {
            // The topic takes no record of this size: better a letter without its value than a partition that stands.
            tracing::error!(
                partition,
                offset,
                bytes = bytes.len(),
                topic = self.destination.dead_letter,
                "the dead-letter topic refused a value of this size: written without it; raise its max.message.bytes"
            );
            let size = bytes.len().to_string();
            headers = headers.insert(Header { key: dead_letter::headers::VALUE_OMITTED, value: Some(&size) });
            value = None;
        }
        let message = Outgoing {
            topic: &self.destination.dead_letter,
            partition: partition % self.destination.dead_letter_partitions,
            key: record.key(),
            value,
            headers,
        };
        committer.send(message, ticket)
    }
}
