//! `golden.jsonl`: transactions with the scores that training gave them, one JSON object a line. Pure.
//!
//! The features are read by the decoder of a topic's records, so that what is checked offline is what runs.

use super::probability::{clamped, is_probability};
use crate::pipeline::decode::{Decoder, Feature, Rows};

/// Longest golden record that is read.
const MAX_GOLDEN_BYTES: usize = 1 << 20;

/// Golden records, one row each.
#[derive(Debug, Default)]
pub struct Golden {
    /// Their features.
    pub rows: Rows,
    /// Training's score of each row.
    pub expected: Vec<f32>,
    /// The line of each row, from 1.
    pub lines: Vec<usize>,
}

/// Why a line is no golden record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldenError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Golden {
    /// Reads the text of a file for a model of `features`; empty lines are left out.
    ///
    /// # Errors
    /// The first line that is no transaction of one row with an `expected_score`.
    pub fn parse(text: &[u8], features: &[Feature]) -> Result<Golden, GoldenError> {
        let (mut golden, mut decoder) = (Golden::default(), Decoder::new(features, MAX_GOLDEN_BYTES));
        for (index, text) in text.split(|byte| *byte == b'\n').enumerate() {
            if text.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let line = index + 1;
            let error = |reason: String| GoldenError { line, reason };
            let rows = decoder.decode(Some(text), 0, &mut golden.rows).map_err(|rejection| error(rejection.message))?;
            if rows != 1 {
                // Each later score would be held against another row's.
                return Err(error(format!("it has {rows} rows: write one transaction a line")));
            }
            let record: GoldenRecord = serde_json::from_slice(text).map_err(|unread| error(unread.to_string()))?;
            // Training's own sums of 32-bit floats may overshoot as the model's do.
            if !is_probability(clamped(record.expected_score)) {
                return Err(error(format!(
                    "expected_score = {} is not a probability in [0, 1]",
                    record.expected_score
                )));
            }
            golden.expected.push(record.expected_score);
            golden.lines.push(line);
        }
        Ok(golden)
    }
}

#[derive(serde::Deserialize)]
struct GoldenRecord {
    expected_score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_one_row_with_its_score() {
        let features = [Feature { name: "V1".into(), default: None }];
        let parse = |text: &str| Golden::parse(text.as_bytes(), &features);
        let golden = parse("{\"V1\":1.5,\"expected_score\":0.25}\n\n{\"V1\":2,\"expected_score\":1}\n").expect("two");
        assert_eq!(golden.rows.features, [1.5, 2.0]);
        assert_eq!((golden.expected, golden.lines), (vec![0.25, 1.0], vec![1, 3]));
        for (text, says) in [
            ("{\"V1\":1}", "expected_score"),
            ("\n{\"expected_score\":1}", "V1"),
            ("{\"V1\":1,\"expected_score\":1.3}", "probability"),
            ("{\"columns\":[\"V1\"],\"data\":[[1],[2]],\"expected_score\":1}", "2 rows"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.reason.contains(says), "{text}: {error:?}");
            assert_eq!(error.line, if text.starts_with('\n') { 2 } else { 1 });
        }
    }
}
