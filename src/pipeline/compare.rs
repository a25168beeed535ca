//! Compare: what champion and challenger made of the same rows, for the metrics and, where asked for, for a topic.
//!
//! ```text
//!  champion's scores ─┐
//!  challenger's ──────┴─► difference, decisions, amount at stake ─► Tally ─► metrics, once committed
//!                                                                └► JSON on the comparison topic, with the verdicts' commit
//! ```
//!
//! A comparison is written by hand into a reused buffer, as a verdict is, and keeps to docs/schemas/challenger.json. It has
//! its record's key and partition.

use fraud_wire::verdict::Decision;

use super::decode::EventTime;
use super::encode::{RowSource, transaction_id};
use super::engine::{Engine, ScoredRow};
use super::produce::Gathered;
use super::shadow::{Compared, Shadow};
use crate::kafka::batch::Record;
use crate::kafka::outbox::Kind;
use crate::model::exchange::LoadedModel;
use crate::telemetry::metrics::Tally;
use crate::transaction::Interruption;
use crate::transaction::committer::Committer;

/// One thread's comparisons of one champion with one challenger.
pub struct Comparer {
    topic: Option<String>,
    amount_feature: String,
    /// The champion's column of the amount at stake.
    amount: Option<usize>,
    text: Text,
    gathered: Gathered,
}

/// What does not change from row to row.
#[derive(Default)]
struct Text {
    input_topic: String,
    /// `,"source":{"topic":"…","partition":`
    source: String,
    /// `},"champion":{"name":…,"version":…,"score":`
    champion: String,
    /// `},"challenger":{"name":…,"version":…,"score":`
    challenger: String,
}

/// Two opinions on one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// The champion's decision.
    pub champion: Decision,
    /// The challenger's score.
    pub score: f32,
    /// And decision.
    pub challenger: Decision,
    /// The challenger's score less the champion's.
    pub difference: f32,
    /// The amount at stake, where the champion reads one.
    pub amount: Option<f32>,
}

impl Comparer {
    /// Comparisons on records of `input_topic`; written to `topic` where there is one. The amount at stake is the
    /// champion's feature of that name.
    pub fn new(input_topic: &str, topic: Option<String>, amount_feature: String) -> Comparer {
        let text = Text {
            input_topic: input_topic.to_owned(),
            source: format!(",\"source\":{{\"topic\":{},\"partition\":", quoted(input_topic)),
            ..Text::default()
        };
        Comparer { topic, amount_feature, amount: None, text, gathered: Gathered::default() }
    }

    /// From now on these two are compared.
    pub fn between(&mut self, champion: &LoadedModel, challenger: &LoadedModel) {
        let features = &champion.manifest.features;
        self.amount = features.iter().position(|feature| feature.name == self.amount_feature);
        let side = |role: &str, model: &LoadedModel| {
            let (name, version) = (quoted(&model.manifest.name), quoted(&model.manifest.version));
            format!("}},\"{role}\":{{\"name\":{name},\"version\":{version},\"score\":")
        };
        self.text.champion = side("champion", champion);
        self.text.challenger = side("challenger", challenger);
    }

    /// Counts the comparisons of a batch and queues them for their topic; returns how many were dropped because that does
    /// not take any just now.
    pub fn write(
        &mut self,
        records: &[Record<'_>],
        engine: &Engine,
        shadow: &Shadow,
        committer: &mut Committer,
        tally: &mut Tally,
    ) -> Result<u64, Interruption> {
        self.gathered.clear();
        let mut dropped = 0;
        let takes = committer.takes_comparisons();
        let limit = committer.size_limit(Kind::Comparison);
        let mut partition = None;
        for compared in shadow.compared() {
            let row = engine.row(compared.row);
            let comparison = self.compare(engine, shadow, compared);
            tally.comparison(&comparison);
            let Some(topic) = &self.topic else { continue };
            if !takes {
                dropped += 1;
                continue;
            }
            let index = row.meta.record as usize;
            let record = &records[index];
            if partition != Some(record.partition()) || self.gathered.is_full() {
                self.gathered.send(Kind::Comparison, topic, records, committer)?;
                partition = Some(record.partition());
            }
            let begin = self.gathered.values.len();
            let payload = record.payload().unwrap_or_default();
            let event_time = match row.meta.event_time {
                EventTime::Milliseconds(time) => time,
                EventTime::Absent => record.timestamp().unwrap_or(0),
            };
            let source = RowSource { partition: record.partition(), offset: record.offset(), row: row.meta.row };
            self.text.write(&mut self.gathered.values, payload, &row, event_time, source, &comparison);
            // A key that the topic will not take together with the comparison: the metrics have counted the row.
            let value = self.gathered.values.len() - begin;
            if value + record.key().map_or(0, <[u8]>::len) >= limit {
                self.gathered.values.truncate(begin);
                continue;
            }
            self.gathered.end_message(index);
        }
        if let Some(topic) = &self.topic {
            self.gathered.send(Kind::Comparison, topic, records, committer)?;
        }
        Ok(dropped)
    }

    /// What both made of one row of the batch that `engine` and `shadow` have just run.
    #[inline]
    pub fn compare(&self, engine: &Engine, shadow: &Shadow, compared: Compared) -> Comparison {
        let row = engine.row(compared.row);
        Comparison {
            champion: row.decision,
            score: compared.score,
            challenger: shadow.thresholds().decide(compared.score),
            difference: compared.score - row.score,
            amount: self.amount.map(|column| engine.features_of(compared.row)[column]),
        }
    }

    /// Appends one comparison to `buffer`. `payload` is the record the id's range points into.
    pub fn encode(
        &self,
        buffer: &mut Vec<u8>,
        payload: &[u8],
        row: &ScoredRow<'_>,
        event_time: i64,
        source: RowSource,
        comparison: &Comparison,
    ) {
        self.text.write(buffer, payload, row, event_time, source, comparison);
    }
}

impl Text {
    fn write(
        &self,
        buffer: &mut Vec<u8>,
        payload: &[u8],
        row: &ScoredRow<'_>,
        event_time: i64,
        source: RowSource,
        comparison: &Comparison,
    ) {
        let mut integers = itoa::Buffer::new();
        let mut floats = ryu::Buffer::new();
        buffer.extend_from_slice(b"{\"transaction_id\":\"");
        transaction_id(buffer, payload, &row.meta.transaction_id, &self.input_topic, source);
        buffer.extend_from_slice(b"\",\"event_time\":");
        buffer.extend_from_slice(integers.format(event_time).as_bytes());
        buffer.extend_from_slice(self.source.as_bytes());
        buffer.extend_from_slice(integers.format(source.partition).as_bytes());
        buffer.extend_from_slice(b",\"offset\":");
        buffer.extend_from_slice(integers.format(source.offset).as_bytes());
        buffer.extend_from_slice(b",\"row\":");
        buffer.extend_from_slice(integers.format(source.row).as_bytes());
        for (side, score, decision) in
            [(&self.champion, row.score, row.decision), (&self.challenger, comparison.score, comparison.challenger)]
        {
            buffer.extend_from_slice(side.as_bytes());
            buffer.extend_from_slice(floats.format_finite(score).as_bytes());
            buffer.extend_from_slice(b",\"decision\":\"");
            buffer.extend_from_slice(decision.as_str().as_bytes());
            buffer.push(b'"');
        }
        buffer.extend_from_slice(b"},\"difference\":");
        buffer.extend_from_slice(floats.format_finite(comparison.difference).as_bytes());
        if let Some(amount) = comparison.amount {
            buffer.extend_from_slice(b",\"amount\":");
            buffer.extend_from_slice(floats.format_finite(amount).as_bytes());
        }
        buffer.push(b'}');
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::decode::{RowMeta, TransactionId};

    fn text() -> Text {
        Text {
            input_topic: "transactions".into(),
            source: ",\"source\":{\"topic\":\"transactions\",\"partition\":".into(),
            champion: "},\"champion\":{\"name\":\"fraud\",\"version\":\"1\",\"score\":".into(),
            challenger: "},\"challenger\":{\"name\":\"fraud\",\"version\":\"2\",\"score\":".into(),
        }
    }

    fn written(id: TransactionId, payload: &[u8], amount: Option<f32>) -> serde_json::Value {
        let meta = RowMeta { record: 0, row: 2, transaction_id: id, event_time: EventTime::Absent };
        let row = ScoredRow { meta: &meta, score: 0.75, decision: Decision::Review };
        let source = RowSource { partition: 3, offset: 917, row: 2 };
        let comparison = Comparison {
            champion: Decision::Review,
            score: 0.25,
            challenger: Decision::Approve,
            difference: -0.5,
            amount,
        };
        let mut buffer = Vec::new();
        text().write(&mut buffer, payload, &row, -5, source, &comparison);
        serde_json::from_slice(&buffer).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&buffer)))
    }

    #[test]
    fn comparisons_keep_to_their_schema() {
        let schema = include_str!("../../docs/schemas/challenger.json");
        let schema = serde_json::from_str(schema).expect("the schema is JSON");
        let validator = jsonschema::validator_for(&schema).expect("a valid schema");
        let payload = br#"{"transaction_id":"a\"\u00e9"}"#;
        let with = written(TransactionId::Payload(19..28), payload, Some(149.62));
        let without = written(TransactionId::Absent, b"{}", None);
        for value in [&with, &without] {
            validator.validate(value).unwrap_or_else(|error| panic!("{value}: {error}"));
        }
        assert_eq!((&with["transaction_id"], &with["difference"]), (&"a\"é".into(), &(-0.5).into()));
        assert_eq!(without["transaction_id"], "transactions-3-917-2");
        assert_eq!((&with["champion"]["score"], &with["challenger"]["decision"]), (&0.75.into(), &"approve".into()));
        assert!(!validator.is_valid(&serde_json::json!({"transaction_id": "x", "difference": 0.5})));
    }
}
