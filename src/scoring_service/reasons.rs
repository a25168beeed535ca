//! Reasons for verdicts of the topic that somebody looks at: found by this service, which has a model of its own.
//!
//! ```text
//!  console ─► ToExplain (row, score, number of the model) ─┬ the service's model ─► Explained::Reasons
//!                                                          └ another ────────────► Explained::OtherModel
//! ```
//!
//! Only the model that gave a score can say why. Just after an exchange the service may not have that model yet, or not any
//! more: then it says so, and whoever asks may ask again.

use crate::explain::Reason;

use super::Served;

/// A row that was scored on a topic.
#[derive(Clone, Debug, PartialEq)]
pub struct ToExplain {
    /// The generation of the model that scored it ([`super::Serving::generation`]).
    pub generation: u64,
    /// The row, in the order of that model's features.
    pub features: Vec<f32>,
    /// Its score.
    pub score: f32,
}

/// What can be said about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Explained {
    /// `,"reasons":[…]`, to stand within the verdict's JSON; nothing where there are none.
    Reasons(String),
    /// The service has another model just now.
    OtherModel,
}

/// Says why `row` scored as it did, if `served` is the model that scored it.
pub(super) fn explain(served: &mut Served, row: &ToExplain) -> Explained {
    if served.generation != row.generation {
        return Explained::OtherModel;
    }
    let mut json = Vec::new();
    if let Some(explainer) = &mut served.explainer {
        append(&explainer.reasons(&row.features, row.score), &mut json);
    }
    Explained::Reasons(String::from_utf8(json).unwrap_or_default())
}

/// Appends `,"reasons":[…]` to the inside of a verdict; nothing where there are none.
pub(super) fn append(reasons: &[Reason<'_>], json: &mut Vec<u8>) {
    if reasons.is_empty() {
        return;
    }
    let begin = json.len();
    json.extend_from_slice(b",\"reasons\":");
    // Names and finite numbers in plain structures: always JSON.
    if serde_json::to_writer(&mut *json, reasons).is_err() {
        json.truncate(begin);
    }
}
