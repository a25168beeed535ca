//! Answers: scored rows as the JSON of a verdict, a list of verdicts, or MLflow's predictions.

use std::ops::Range;

use fraud_wire::dead_letter::{ErrorClass, Rejection};
use fraud_wire::verdict::Decision;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::About;
use super::reasons::append;
use crate::explain::{Explainer, Reason};
use crate::pipeline::decode::{EventTime, TransactionId};
use crate::pipeline::engine::{Engine, ScoredRow};

/// A message with its rows of the batch.
type Scored<'a> = (&'a [u8], Range<usize>);

/// Suspicious rows of one answer that reasons are given for, the first ones: a request with thousands of rows must not hold
/// up the others while each is explained.
const EXPLAINED_ROWS: usize = 100;

/// One verdict for the object form, `{"verdicts":[…]}` for the split form. `now` (epoch milliseconds) is the time of
/// what has none.
pub(super) fn verdicts(
    scored: &[Scored<'_>],
    engine: &Engine,
    explainer: &mut Option<Explainer>,
    about: &About,
    now: i64,
) -> Result<Vec<u8>, Rejection> {
    let mut answer = Vec::with_capacity(256);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let model = format!(",\"model\":{{\"name\":{},\"version\":{}}}", quoted(&about.name), quoted(&about.version));
    let mut left = EXPLAINED_ROWS;
    let listed = scored.iter().any(|(payload, _)| is_split(payload));
    if listed {
        answer.extend_from_slice(b"{\"verdicts\":[");
    }
    let mut first = true;
    for (payload, rows) in scored {
        for (index, row) in rows.clone().zip(engine.rows(rows.clone())) {
            if !std::mem::take(&mut first) {
                answer.push(b',');
            }
            let explainer = explainer.as_mut().filter(|_| row.decision != Decision::Approve && left > 0);
            let reasons = explainer.map(|explainer| {
                left -= 1;
                explainer.reasons(engine.features_of(index), row.score)
            });
            verdict(&mut answer, payload, &row, &reasons.unwrap_or_default(), &model, now);
            check_size(&answer, engine)?;
        }
    }
    if listed {
        answer.extend_from_slice(b"]}");
    }
    Ok(answer)
}

/// Each verdict on a row of a message repeats the message's id: a small request of many rows could be answered by gigabytes.
fn check_size(answer: &[u8], engine: &Engine) -> Result<(), Rejection> {
    let most = engine.most_answer_bytes();
    if answer.len() <= most {
        return Ok(());
    }
    let message = format!(
        "the answer would have more than {most} bytes (8 × --max-message-bytes): send the rows in parts, or shorten \
         transaction_id"
    );
    Err(Rejection::new(ErrorClass::TooLarge, message))
}

/// `{"predictions":[0.25,…]}`, one probability per row in the request's order.
pub(super) fn predictions(scored: &[Scored<'_>], engine: &Engine) -> Vec<u8> {
    let mut answer = b"{\"predictions\":[".to_vec();
    let mut first = true;
    for (_, rows) in scored {
        for row in engine.rows(rows.clone()) {
            if !std::mem::take(&mut first) {
                answer.push(b',');
            }
            answer.extend_from_slice(ryu::Buffer::new().format_finite(row.score).as_bytes());
        }
    }
    answer.extend_from_slice(b"]}");
    answer
}

/// Which of its two forms an accepted message has: the answer to a list is a list, were it of one.
fn is_split(payload: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Keys {
        columns: Option<IgnoredAny>,
        data: Option<IgnoredAny>,
        dataframe_split: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Keys>(payload)
        .is_ok_and(|keys| keys.dataframe_split.is_some() || (keys.columns.is_some() && keys.data.is_some()))
}

/// As a topic's verdict (`pipeline::encode`), but without a source: there is no record it came from.
fn verdict(answer: &mut Vec<u8>, payload: &[u8], row: &ScoredRow<'_>, reasons: &[Reason<'_>], model: &str, now: i64) {
    answer.extend_from_slice(b"{\"transaction_id\":\"");
    match &row.meta.transaction_id {
        // Already valid inside a JSON string, escapes and all.
        TransactionId::Payload(range) => {
            answer.extend_from_slice(&payload[range.start as usize..range.end as usize]);
        }
        TransactionId::Absent => {
            let mut text = uuid::Uuid::encode_buffer();
            answer.extend_from_slice(uuid::Uuid::new_v4().as_hyphenated().encode_lower(&mut text).as_bytes());
        }
    }
    answer.extend_from_slice(b"\",\"score\":");
    answer.extend_from_slice(ryu::Buffer::new().format_finite(row.score).as_bytes());
    answer.extend_from_slice(match row.decision {
        Decision::Approve => b",\"decision\":\"approve\",\"label\":0".as_slice(),
        Decision::Review => b",\"decision\":\"review\",\"label\":0",
        Decision::Decline => b",\"decision\":\"decline\",\"label\":1",
    });
    let event_time = match row.meta.event_time {
        EventTime::Milliseconds(time) => time,
        EventTime::Absent => now,
    };
    answer.extend_from_slice(model.as_bytes());
    append(reasons, answer);
    answer.extend_from_slice(format!(",\"event_time\":{event_time}}}").as_bytes());
}
