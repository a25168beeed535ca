//! The verdict: one per transaction row, on the output topic, in input order within a partition.

use serde::{Deserialize, Serialize};

/// What the bundle's two thresholds make of a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// Below the review threshold.
    Approve,
    /// At or above the review threshold, below the decline threshold.
    Review,
    /// At or above the decline threshold.
    Decline,
}

impl Decision {
    /// All decisions, in ascending order of suspicion; the index of each is `decision as usize`.
    pub const ALL: [Decision; 3] = [Decision::Approve, Decision::Review, Decision::Decline];

    /// The decision as it is printed in a verdict.
    pub fn as_str(self) -> &'static str {
        match self {
            Decision::Approve => "approve",
            Decision::Review => "review",
            Decision::Decline => "decline",
        }
    }

    /// 1 for `decline`, 0 otherwise: the verdict's `label`.
    pub fn label(self) -> u8 {
        u8::from(self == Decision::Decline)
    }
}

/// One scored transaction row, as subscribers read it. JSON Schema: `docs/schemas/verdict.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The transaction's own id, or `topic-partition-offset-row` where it had none.
    pub transaction_id: String,
    /// Probability of fraud in [0, 1]; printed so that it reads back to the same f32.
    pub score: f32,
    /// What the thresholds make of the score.
    pub decision: Decision,
    /// 1 for `decline`, else 0.
    pub label: u8,
    /// The model that scored the row.
    pub model: ModelVersion,
    /// Epoch milliseconds: the transaction's own time, or its record's Kafka timestamp.
    pub event_time: i64,
    /// Where the row was read.
    pub source: Source,
}

/// Name and version of a model bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelVersion {
    /// The bundle's `name`.
    pub name: String,
    /// The bundle's `version`.
    pub version: String,
}

/// The record and row a verdict belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Input topic.
    pub topic: String,
    /// Partition of the input topic.
    pub partition: i32,
    /// Offset within the partition.
    pub offset: i64,
    /// Row within the message: 0 for the object form, counted from 0 in the split form.
    pub row: u32,
}

impl Source {
    /// That of a message's value; `None` where it is neither a verdict nor a comparison.
    pub fn of(value: &[u8]) -> Option<Source> {
        #[derive(Deserialize)]
        struct Sourced {
            source: Source,
        }
        serde_json::from_slice::<Sourced>(value).ok().map(|sourced| sourced.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_example_reads_back() {
        let text = r#"{"transaction_id":"t1","score":0.9731,"decision":"decline","label":1,
            "model":{"name":"fraud","version":"3"},"reasons":[{"feature":"V14","contribution":2.31}],
            "event_time":1700000000000,"source":{"topic":"transactions","partition":2,"offset":917,"row":0}}"#;
        let verdict: Verdict = serde_json::from_str(text).expect("the contract's own example");
        assert_eq!(verdict.decision, Decision::Decline);
        assert_eq!(verdict.label, verdict.decision.label());
        assert_eq!(verdict.source.offset, 917);
    }
}
