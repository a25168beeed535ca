//! The label: what a transaction turned out to be, on the labels topic, once somebody knows.
//!
//! Key: the transaction's own key, so that label and transaction share a partition number where the topics have equally
//! many. Value: [`Label`] as JSON. JSON Schema: `docs/schemas/label.json`.

use std::io::Write as _;

use serde::de::{Deserializer, Error as _, Unexpected};
use serde::{Deserialize, Serialize};

use crate::transaction::write_string;

/// One transaction's true class. Unknown fields are ignored, so that a source of labels may carry more.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Label {
    /// The `transaction_id` of the transaction and of its verdict.
    pub transaction_id: String,
    /// 1 for fraud, 0 for a legitimate transaction; nothing else is read.
    #[serde(deserialize_with = "zero_or_one")]
    pub label: u8,
    /// When the label became known, in event time: milliseconds since 1970-01-01 UTC. Never before the transaction.
    pub known_at: i64,
}

/// Appends a label's JSON to `buffer`, as [`Label`] reads it; for a writer that reuses its buffers.
pub fn write_label(buffer: &mut Vec<u8>, transaction_id: &str, label: u8, known_at: i64) {
    buffer.extend_from_slice(b"{\"transaction_id\":");
    write_string(buffer, transaction_id);
    // Writing to a Vec cannot fail.
    _ = write!(buffer, ",\"label\":{label},\"known_at\":{known_at}}}");
}

fn zero_or_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        label @ (0 | 1) => Ok(label),
        other => Err(D::Error::invalid_value(Unexpected::Unsigned(other.into()), &"0 or 1")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_the_contracts_and_reads_back() {
        let mut buffer = Vec::new();
        write_label(&mut buffer, "row-\"7\"", 1, 1_700_000_000_000);
        let text = r#"{"transaction_id":"row-\"7\"","label":1,"known_at":1700000000000}"#;
        assert_eq!(buffer, text.as_bytes());
        let label: Label = serde_json::from_slice(&buffer).unwrap();
        assert_eq!(label, Label { transaction_id: "row-\"7\"".into(), label: 1, known_at: 1_700_000_000_000 });
        assert_eq!(serde_json::to_string(&label).unwrap(), text);
    }

    #[test]
    fn more_fields_are_ignored_and_other_classes_refused() {
        let read = |text: &str| serde_json::from_str::<Label>(text);
        assert!(read(r#"{"transaction_id":"a","label":0,"known_at":-5,"analyst":"x"}"#).is_ok());
        for text in [
            r#"{"transaction_id":"a","label":2,"known_at":1}"#,
            r#"{"transaction_id":"a","label":-1,"known_at":1}"#,
            r#"{"transaction_id":"a","label":true,"known_at":1}"#,
            r#"{"transaction_id":"a","label":1}"#,
            r#"{"transaction_id":5,"label":1,"known_at":1}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
