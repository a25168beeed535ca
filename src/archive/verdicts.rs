//! Verdicts as they stand on the topic: parsed, or the reason why a record is none.

use std::fmt;

use fraud_wire::verdict::Verdict;

use crate::kafka::batch::Record;
use crate::model::probability::is_probability;

/// A record of the verdicts' topic.
pub struct VerdictRecord {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its Kafka timestamp, epoch milliseconds; the event time of the verdict where it has none.
    pub timestamp: i64,
    /// What it says, if it is a verdict.
    pub content: Result<Verdict, NotAVerdict>,
}

/// Why a record of the verdicts' topic is skipped.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAVerdict {
    /// In a word, for a metric's label.
    pub reason: Reason,
    /// In a sentence.
    pub message: String,
}

/// Kinds of records that are no verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A record without a value.
    Tombstone,
    /// Not the JSON object that `docs/schemas/verdict.json` describes: the source is missing, for example.
    Malformed,
    /// Its score is no probability, so no column could hold what it means.
    Score,
}

impl Reason {
    /// All, for metrics that begin at 0.
    pub const ALL: [Reason; 3] = [Reason::Tombstone, Reason::Malformed, Reason::Score];
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Reason::Tombstone => "tombstone",
            Reason::Malformed => "malformed",
            Reason::Score => "score",
        })
    }
}

impl VerdictRecord {
    /// Reads a record.
    pub fn read(record: &Record<'_>) -> VerdictRecord {
        let content = parse(record.payload());
        let event_time = content.as_ref().map_or(0, |verdict| verdict.event_time);
        let timestamp = record.timestamp().unwrap_or(event_time);
        VerdictRecord { partition: record.partition(), offset: record.offset(), timestamp, content }
    }
}

fn parse(payload: Option<&[u8]>) -> Result<Verdict, NotAVerdict> {
    let refuse = |reason, message: String| Err(NotAVerdict { reason, message });
    let Some(payload) = payload else { return refuse(Reason::Tombstone, "the record has no value".into()) };
    match serde_json::from_slice::<Verdict>(payload) {
        Ok(verdict) if !is_probability(verdict.score) => {
            refuse(Reason::Score, format!("score is {}, not a probability", verdict.score))
        }
        Ok(verdict) if verdict.label > 1 => {
            refuse(Reason::Malformed, format!("label is {}, not 0 or 1", verdict.label))
        }
        Ok(verdict) => Ok(verdict),
        Err(error) => refuse(Reason::Malformed, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"transaction_id":"t1","score":0.5,"decision":"review","label":0,"model":{"name":"fraud",
        "version":"3"},"event_time":17,"source":{"topic":"transactions","partition":2,"offset":917,"row":0}}"#;

    #[test]
    fn verdicts_are_read_and_everything_else_has_a_reason() {
        assert_eq!(parse(Some(GOOD.as_bytes())).expect("a verdict").source.offset, 917);
        let without_source = GOOD.replace("source", "origin");
        let cases = [
            (None, Reason::Tombstone, "no value"),
            (Some(""), Reason::Malformed, "EOF"),
            (Some("[]"), Reason::Malformed, "invalid length 0"),
            (Some(without_source.as_str()), Reason::Malformed, "missing field `source`"),
        ];
        for (payload, reason, words) in cases {
            let refused = parse(payload.map(str::as_bytes)).expect_err("no verdict");
            assert_eq!(refused.reason, reason);
            assert!(refused.message.contains(words), "{}", refused.message);
        }
        let refused = parse(Some(GOOD.replace("0.5", "1.5").as_bytes())).expect_err("no probability");
        assert_eq!(refused.reason, Reason::Score);
    }
}
