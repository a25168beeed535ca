//! Encode: a scored row becomes a verdict's bytes, a rejected record a dead letter's headers.
//!
//! The verdict is written by hand into a reused buffer: what does not change from row to row (model, topic) is
//! prepared once. Tests read it back through [`fraud_wire::verdict::Verdict`] and the JSON Schema.

use fraud_wire::dead_letter::{Rejection, headers};
use fraud_wire::trace_context::{TRACEPARENT_HEADER, TRACESTATE_HEADER};
use fraud_wire::verdict::Decision;

use super::decode::TransactionId;
use super::engine::ScoredRow;
use crate::kafka::outbox::Headers;
use crate::telemetry::spans;

/// Where a row was read.
#[derive(Clone, Copy, Debug)]
pub struct RowSource {
    /// Partition of the input topic.
    pub partition: i32,
    /// Offset within the partition.
    pub offset: i64,
    /// Row within the message.
    pub row: u32,
}

/// Appends the inside of the JSON string that is a row's id; its place where it has none.
#[inline]
pub(super) fn transaction_id(buffer: &mut Vec<u8>, payload: &[u8], id: &TransactionId, topic: &str, source: RowSource) {
    match id {
        // Already valid inside a JSON string, escapes and all.
        TransactionId::Payload(range) => {
            buffer.extend_from_slice(&payload[range.start as usize..range.end as usize]);
        }
        TransactionId::Absent => {
            let mut integers = itoa::Buffer::new();
            // Topic names need no escapes (letters, digits, '.', '_', '-').
            buffer.extend_from_slice(topic.as_bytes());
            for part in [i64::from(source.partition), source.offset, i64::from(source.row)] {
                buffer.push(b'-');
                buffer.extend_from_slice(integers.format(part).as_bytes());
            }
        }
    }
}

/// Writes verdicts and dead-letter headers of one model and one input topic.
pub struct Encoder {
    topic: String,
    /// `,"model":{…},"event_time":`
    model: String,
    /// `,"source":{"topic":"…","partition":`
    source: String,
}

impl Encoder {
    /// An encoder for verdicts of model `name`@`version` on records of `topic`.
    pub fn new(name: &str, version: &str, topic: &str) -> Self {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        Encoder {
            topic: topic.to_owned(),
            model: format!(",\"model\":{{\"name\":{},\"version\":{}}},\"event_time\":", quoted(name), quoted(version)),
            source: format!(",\"source\":{{\"topic\":{},\"partition\":", quoted(topic)),
        }
    }

    /// The input topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Appends the verdict on one row to `buffer`. `payload` is the record the id's range points into.
    pub fn verdict(
        &self,
        buffer: &mut Vec<u8>,
        payload: &[u8],
        row: &ScoredRow<'_>,
        event_time: i64,
        source: RowSource,
    ) {
        let mut integers = itoa::Buffer::new();
        buffer.extend_from_slice(b"{\"transaction_id\":\"");
        transaction_id(buffer, payload, &row.meta.transaction_id, &self.topic, source);
        buffer.extend_from_slice(b"\",\"score\":");
        buffer.extend_from_slice(ryu::Buffer::new().format_finite(row.score).as_bytes());
        buffer.extend_from_slice(match row.decision {
            Decision::Approve => b",\"decision\":\"approve\",\"label\":0".as_slice(),
            Decision::Review => b",\"decision\":\"review\",\"label\":0",
            Decision::Decline => b",\"decision\":\"decline\",\"label\":1",
        });
        buffer.extend_from_slice(self.model.as_bytes());
        buffer.extend_from_slice(integers.format(event_time).as_bytes());
        buffer.extend_from_slice(self.source.as_bytes());
        buffer.extend_from_slice(integers.format(source.partition).as_bytes());
        buffer.extend_from_slice(b",\"offset\":");
        buffer.extend_from_slice(integers.format(source.offset).as_bytes());
        buffer.extend_from_slice(b",\"row\":");
        buffer.extend_from_slice(integers.format(source.row).as_bytes());
        buffer.extend_from_slice(b"}}");
    }

    /// Bytes that a verdict has at most beside an id that is the transaction's own.
    pub fn most_bytes_without_id(&self) -> usize {
        // What `verdict` writes between its parts, and its numbers at their longest.
        const BETWEEN: usize = 192;
        BETWEEN + self.model.len() + self.source.len() + self.topic.len()
    }

    /// Headers of a verdict that goes on with its record's trace; others have none.
    pub fn traced_headers<'a>(trace: &'a spans::Outgoing<'a>) -> Headers<'a> {
        let mut headers: Headers<'a> = vec![(TRACEPARENT_HEADER.into(), Some(trace.traceparent.as_slice().into()))];
        headers.extend(trace.tracestate.map(|state| (TRACESTATE_HEADER.into(), Some(state.as_bytes().into()))));
        headers
    }

    /// Headers of a dead letter: the record's own but for those by our names, then the reason and the source.
    pub fn dead_letter_headers<'a>(
        &'a self,
        own: &'a [(String, Option<&'a [u8]>)],
        rejection: &'a Rejection,
        partition: i32,
        offset: i64,
        timestamp: Option<i64>,
    ) -> Headers<'a> {
        // What the record says under our names would pass for ours with whoever reads the first of a name.
        let others = own.iter().filter(|(name, _)| !headers::is_ours(name));
        let mut all: Headers<'a> = others.map(|(name, value)| (name.as_str().into(), value.map(Into::into))).collect();
        let text = |name: &'static str, value: &'a str| (name.into(), Some(value.as_bytes().into()));
        let number = |name: &'static str, value: i64| (name.into(), Some(value.to_string().into_bytes().into()));
        all.extend([
            text(headers::CLASS, rejection.class.as_str()),
            text(headers::MESSAGE, &rejection.message),
            text(headers::SOURCE_TOPIC, &self.topic),
            number(headers::SOURCE_PARTITION, i64::from(partition)),
            number(headers::SOURCE_OFFSET, offset),
            number(headers::SOURCE_TIMESTAMP, timestamp.unwrap_or(-1)),
            text(headers::WORKER_VERSION, env!("CARGO_PKG_VERSION")),
        ]);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::decode::{EventTime, RowMeta};
    use fraud_wire::verdict::Verdict;
    use proptest::prelude::*;

    fn write(id: &TransactionId, payload: &[u8], score: f32, decision: Decision) -> (String, Verdict) {
        let encoder = Encoder::new("a \"model\"", "1\n", "transactions.v2");
        let mut buffer = b"before".to_vec();
        let source = RowSource { partition: 3, offset: 917, row: 2 };
        let meta = RowMeta { record: 0, row: 2, transaction_id: id.clone(), event_time: EventTime::Absent };
        encoder.verdict(&mut buffer, payload, &ScoredRow { meta: &meta, score, decision }, -5, source);
        let text = String::from_utf8(buffer).expect("UTF-8").strip_prefix("before").expect("appended").to_owned();
        let verdict = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        (text, verdict)
    }

    #[test]
    fn a_verdict_reads_back() {
        let payload = br#"{"transaction_id":"a\"\u00e9"}"#;
        let (_, verdict) = write(&TransactionId::Payload(19..28), payload, 0.25, Decision::Review);
        assert_eq!(verdict.transaction_id, "a\"é");
        assert_eq!((verdict.score, verdict.decision, verdict.label), (0.25, Decision::Review, 0));
        assert_eq!((verdict.model.name.as_str(), verdict.model.version.as_str()), ("a \"model\"", "1\n"));
        assert_eq!(verdict.event_time, -5);
        assert_eq!((verdict.source.partition, verdict.source.offset, verdict.source.row), (3, 917, 2));
    }

    #[test]
    fn a_row_without_an_id_is_named_by_its_place() {
        let (_, verdict) = write(&TransactionId::Absent, b"{}", 1.0, Decision::Decline);
        assert_eq!(verdict.transaction_id, "transactions.v2-3-917-2");
        assert_eq!(verdict.label, 1);
    }

    #[test]
    fn verdicts_keep_to_their_schema() {
        let schema = include_str!("../../docs/schemas/verdict.json");
        let schema = serde_json::from_str(schema).expect("the schema is JSON");
        let validator = jsonschema::validator_for(&schema).expect("a valid schema");
        for (score, decision) in [(0.0, Decision::Approve), (1e-7, Decision::Review), (1.0, Decision::Decline)] {
            let (text, _) = write(&TransactionId::Absent, b"", score, decision);
            let instance = serde_json::from_str(&text).expect("JSON");
            validator.validate(&instance).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        let spoilt = serde_json::json!({"transaction_id": "x", "score": 1.5});
        assert!(!validator.is_valid(&spoilt), "the schema refuses what is no verdict");
    }

    proptest! {
        #[test]
        fn every_score_reads_back_to_the_same_float(bits in 0u32..=1.0f32.to_bits()) {
            let score = f32::from_bits(bits);
            let (_, verdict) = write(&TransactionId::Absent, b"", score, Decision::Approve);
            prop_assert_eq!(verdict.score.to_bits(), bits);
        }
    }
}
