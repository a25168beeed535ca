//! What services are asked, and whether their answers are right.
//!
//! ```text
//!  records.jsonl ─► rows ─┬─► bodies, in the form a service reads                     ─► service ─► answers
//!                         └─► ONNX Runtime, in a process of its own ─► expected scores ──────────────┴─► compare
//! ```

use std::sync::Arc;

use hyper::body::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::reference;
use crate::workload::{Model, Records};

/// Distinct rows, so that neither a service nor the model can live on what it has seen a moment ago.
const ROWS: usize = 12_800;

/// The largest difference from ONNX Runtime's score.
pub const TOLERANCE: f64 = 1e-5;

/// How a body says its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// One transaction: `{"transaction_id":"t1","V1":0.1,…,"Amount":2.5}`.
    Object,
    /// `{"columns":["V1",…],"data":[[0.1,…],…]}`.
    Split,
    /// `{"dataframe_split":{"columns":[…],"data":[…]}}`, as MLflow's clients send.
    DataframeSplit,
}

/// Rows to ask about, with the scores that should come back.
pub struct Rows {
    columns: Vec<String>,
    /// Each row's numbers, as the records write them.
    rows: Vec<Vec<Box<RawValue>>>,
    expected: Vec<f32>,
}

#[derive(Deserialize)]
struct Record {
    columns: Vec<String>,
    data: Vec<Vec<Box<RawValue>>>,
}

impl Rows {
    /// The first rows of the records, scored by ONNX Runtime.
    pub fn of(model: Model, records: &Records) -> Rows {
        let mut columns = Vec::new();
        let mut rows = Vec::with_capacity(ROWS);
        for number in 0..ROWS as u64 {
            let record: Record = serde_json::from_slice(records.get(number)).unwrap();
            rows.extend(record.data);
            columns = record.columns;
        }
        assert_eq!(rows.len(), ROWS, "records of one row each");
        Rows { columns, rows, expected: reference::scores(model, ROWS) }
    }

    /// Bodies of `per_request` rows each: all rows once, in order.
    pub fn bodies(&self, form: Form, per_request: usize) -> Arc<Vec<Bytes>> {
        let bodies = self.rows.chunks_exact(per_request).enumerate();
        Arc::new(bodies.map(|(number, rows)| Bytes::from(self.body(form, number, rows))).collect())
    }

    fn body(&self, form: Form, number: usize, rows: &[Vec<Box<RawValue>>]) -> String {
        let columns = || serde_json::to_string(&self.columns).unwrap();
        match form {
            Form::Object => {
                let [row] = rows else { panic!("the object form holds one transaction") };
                let mut text = format!("{{\"transaction_id\":\"transaction-{number}\"");
                for (name, value) in self.columns.iter().zip(row) {
                    text += &format!(",\"{name}\":{value}");
                }
                text + "}"
            }
            Form::Split => format!("{{\"columns\":{},\"data\":{}}}", columns(), serde_json::to_string(rows).unwrap()),
            Form::DataframeSplit => {
                format!("{{\"dataframe_split\":{}}}", self.body(Form::Split, number, rows))
            }
        }
    }

    /// The largest difference of the scores in `answer` to body `number`; an error where it is above [`TOLERANCE`], or
    /// where a score is missing.
    pub fn compare(&self, number: usize, per_request: usize, answer: &[u8]) -> Result<f64, String> {
        let shown = || String::from_utf8_lossy(&answer[..answer.len().min(300)]).into_owned();
        let scores = scores(answer).ok_or_else(|| format!("no scores in {}", shown()))?;
        let expected = &self.expected[number * per_request..][..per_request];
        if scores.len() != expected.len() {
            return Err(format!("{} scores for {per_request} rows in {}", scores.len(), shown()));
        }
        let differences = scores.iter().zip(expected).map(|(score, &expected)| (score - f64::from(expected)).abs());
        let worst = differences.fold(0.0, f64::max);
        if worst <= TOLERANCE {
            Ok(worst)
        } else {
            Err(format!("a score differs by {worst:.1e} from ONNX Runtime's, in {}", shown()))
        }
    }
}

/// The scores of an answer: `{"score":…}`, a list of such under `verdicts`, or `{"predictions":[…]}`, where a prediction
/// is the probability or those of both labels.
fn scores(answer: &[u8]) -> Option<Vec<f64>> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    if let Some(score) = answer.get("score") {
        return Some(vec![score.as_f64()?]);
    }
    if let Some(verdicts) = answer.get("verdicts") {
        return verdicts.as_array()?.iter().map(|verdict| verdict.get("score")?.as_f64()).collect();
    }
    let predictions = answer.get("predictions")?.as_array()?;
    let probability = |prediction: &Value| match prediction {
        Value::Array(of_labels) => of_labels.last()?.as_f64(),
        number => number.as_f64(),
    };
    predictions.iter().map(probability).collect()
}
