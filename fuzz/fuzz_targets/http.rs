//! Bodies of `POST /v1/score` and `POST /invocations`, through the whole service: thread, decoder, model, reasons,
//! answer.
//!
//! ```text
//!  input ─┬► /v1/score ─────► a verdict or a list of them, no larger than answers may be, or a rejection
//!         ├► /invocations ──► predictions, or a rejection
//!         └► as dataframe_records[0] ─► what both accept, both score alike
//! ```
//! It needs ONNX Runtime (`make onnxruntime`), which the model is verified with.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use fraud_scorer::mask::Mask;
use fraud_scorer::model::ModelError;
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::scoring_service::{Protocol, Scoring, Served, Serving, Unscored};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::runtime::Runtime;

/// `--max-message-bytes`; inputs beyond it are rejected.
const MOST_BYTES: usize = 2048;

struct Fixed(Bundle);

impl Serving for Fixed {
    fn generation(&self) -> u64 {
        1
    }

    fn load(&self) -> Result<Served, ModelError> {
        Served::of(&self.0, 1, MOST_BYTES)
    }
}

static SERVICE: LazyLock<(Runtime, Scoring)> = LazyLock::new(|| {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/fraud");
    let mut bundle = Bundle::load(&models).expect("the committed model, and ONNX Runtime");
    // So that short bodies are transactions.
    for feature in &mut bundle.manifest.features[2..] {
        feature.default = Some(0.0);
    }
    let scoring = Scoring::new(MOST_BYTES, Mask::default());
    scoring.open(Arc::new(Fixed(bundle))).expect("a service");
    (tokio::runtime::Builder::new_current_thread().build().expect("a runtime"), scoring)
});

/// The answer's JSON; `None` where the body is rejected.
fn answer(protocol: Protocol, body: &[u8]) -> Option<Value> {
    let (runtime, scoring) = &*SERVICE;
    match runtime.block_on(scoring.score(protocol, body.to_vec().into())) {
        Ok(answer) => {
            assert!(answer.len() <= scoring.most_answer_bytes(), "{} bytes for {}", answer.len(), body.len());
            Some(serde_json::from_slice(&answer).expect("an answer is JSON"))
        }
        Err(Unscored::Rejected(rejection)) => {
            assert!(!rejection.message.is_empty());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

fn score(value: &Value) -> f64 {
    let score = value.as_f64().expect("a number");
    assert!((0.0..=1.0).contains(&score), "{score}");
    score
}

fn predictions(answer: &Value) -> Vec<f64> {
    answer["predictions"].as_array().expect("a list").iter().map(score).collect()
}

fuzz_target!(|body: &[u8]| {
    let verdicts = answer(Protocol::Verdict, body);
    let predicted = answer(Protocol::Mlflow, body).map(|answer| predictions(&answer));
    let Some(verdicts) = verdicts else { return };
    // Not as values: serde_json refuses 1e400 even where its value is ignored.
    let sent: BTreeMap<String, IgnoredAny> = serde_json::from_slice(body).expect("what is accepted is a JSON object");
    let Some(listed) = verdicts["verdicts"].as_array() else {
        let record = [b"{\"dataframe_records\":[", body, b"]}"].concat();
        if let Some(answer) = answer(Protocol::Mlflow, &record) {
            assert_eq!(predictions(&answer), [score(&verdicts["score"])]);
        }
        return;
    };
    let scores: Vec<f64> = listed.iter().map(|verdict| score(&verdict["score"])).collect();
    // Beside `dataframe_split`, columns and data of the outermost object would be another list.
    if let Some(predicted) = predicted.filter(|_| !sent.contains_key("columns") && !sent.contains_key("data")) {
        assert_eq!(predicted, scores);
    }
});
