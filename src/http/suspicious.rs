//! The latest suspicious verdicts as the console gets them: with reasons.
//!
//! ```text
//!  ring of the process ─► Latest (50 verdicts) ─► to explain ─► scoring service ─► reasons ─► JSON for every browser
//!                                                     ▲               │
//!                                                     └─ other model ─┘ asked again the next second
//! ```
//!
//! Fields that `--mask` names are masked here, on the way out: the row itself is needed to explain it.
//!
//! Each verdict is explained once, whoever watches, and only while somebody does. The scoring service has the model that
//! serves now; a verdict of another one waits, and goes out without reasons until that model should serve again.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::Value;

use crate::mask::{MASKED, Mask, TRANSACTION_ID};
use crate::scoring_service::{Explained, ToExplain};
use crate::telemetry::suspicious::{KEPT, Suspicious};

/// The verdicts that are shown, newest first.
#[derive(Default)]
pub(super) struct Latest {
    mask: Mask,
    shown: VecDeque<Shown>,
    changed: bool,
}

/// One of them.
struct Shown {
    verdict: Suspicious,
    /// What stands in its JSON for reasons; `None` while nobody was able to say.
    reasons: Option<String>,
}

impl Latest {
    /// None yet; of those to come, the fields of `mask` are hidden.
    pub fn new(mask: Mask) -> Latest {
        Latest { mask, ..Latest::default() }
    }

    /// Serial number of the newest.
    pub fn newest(&self) -> u64 {
        self.shown.front().map_or(0, |shown| shown.verdict.serial)
    }

    /// Takes verdicts that came since, newest first.
    pub fn add(&mut self, verdicts: Vec<Suspicious>) {
        self.changed |= !verdicts.is_empty();
        for verdict in verdicts.into_iter().rev() {
            self.shown.truncate(KEPT - 1);
            self.shown.push_front(Shown { verdict, reasons: None });
        }
    }

    /// Those that wait to be explained: their serial numbers, and what to ask.
    pub fn unexplained(&self) -> (Vec<u64>, Vec<ToExplain>) {
        let waiting = self.shown.iter().filter(|shown| shown.reasons.is_none());
        let ask = |shown: &Shown| ToExplain {
            generation: shown.verdict.model,
            features: shown.verdict.features.clone(),
            score: shown.verdict.score,
        };
        waiting.map(|shown| (shown.verdict.serial, ask(shown))).unzip()
    }

    /// Takes the answers about those of these serial numbers.
    pub fn explain(&mut self, serials: &[u64], answers: Vec<Explained>) {
        for (serial, answer) in serials.iter().zip(answers) {
            let found = self.shown.iter_mut().find(|shown| shown.verdict.serial == *serial);
            if let (Some(shown), Explained::Reasons(reasons)) = (found, answer) {
                self.changed |= !reasons.is_empty();
                shown.reasons = Some(reasons);
            }
        }
    }

    /// A JSON array of `{"verdict":…,"amount":…}`, newest first, if it is another one than the last time.
    pub fn changed(&mut self) -> Option<Arc<str>> {
        std::mem::take(&mut self.changed).then(|| {
            let list: Vec<String> = self.shown.iter().filter_map(|shown| shown.json(&self.mask)).collect();
            format!("[{}]", list.join(",")).into()
        })
    }
}

impl Shown {
    fn json(&self, mask: &Mask) -> Option<String> {
        // Ids are the sender's bytes, checked to be UTF-8 by the decoder.
        let verdict = std::str::from_utf8(&self.verdict.verdict).ok()?.strip_suffix('}')?;
        let reasons = self.reasons.as_deref().unwrap_or_default();
        let mut verdict: Value = serde_json::from_str(&format!("{verdict}{reasons}}}")).ok()?;
        if mask.hides(TRANSACTION_ID) {
            verdict["transaction_id"] = MASKED.into();
        }
        for reason in verdict.get_mut("reasons").and_then(Value::as_array_mut).into_iter().flatten() {
            // What a feature adds to the score tells its value to those who know the model.
            if reason["feature"].as_str().is_some_and(|feature| mask.hides(feature)) {
                reason["contribution"] = MASKED.into();
            }
        }
        let amount = match self.verdict.amount.filter(|amount| amount.is_finite()) {
            Some(_) if mask.hides_amount() => format!("\"{MASKED}\""),
            Some(amount) => amount.to_string(),
            None => "null".to_owned(),
        };
        Some(format!("{{\"verdict\":{verdict},\"amount\":{amount}}}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn verdict(serial: u64, model: u64) -> Suspicious {
        let text = format!(r#"{{"transaction_id":"t{serial}","source":{{"row":0}}}}"#);
        let (features, amount) = (vec![serial as f32], Some(serial as f32 + 0.5));
        Suspicious { serial, verdict: text.into_bytes(), features, score: 0.25, amount, model }
    }

    fn sent(latest: &mut Latest) -> Option<Value> {
        latest.changed().map(|json| serde_json::from_str(&json).expect("JSON"))
    }

    #[test]
    fn reasons_stand_in_the_verdict_and_come_once() {
        let mut latest = Latest::default();
        assert_eq!((sent(&mut latest), latest.newest()), (None, 0));
        latest.add(vec![verdict(2, 1), verdict(1, 1)]);
        assert_eq!(latest.newest(), 2);
        let list = sent(&mut latest).expect("new ones");
        let plain = json!({"verdict": {"transaction_id": "t2", "source": {"row": 0}}, "amount": 2.5});
        assert_eq!((&list[0], list.as_array().map(Vec::len)), (&plain, Some(2)));

        let (serials, ask) = latest.unexplained();
        assert_eq!((serials.as_slice(), ask[0].generation, &ask[1].features), ([2, 1].as_slice(), 1, &vec![1.0]));
        // More come while these are explained.
        latest.add(vec![verdict(3, 1)]);
        let reasons = r#","reasons":[{"feature":"V14","contribution":2.31}]"#.to_owned();
        latest.explain(&serials, vec![Explained::Reasons(reasons), Explained::Reasons(String::new())]);
        let list = sent(&mut latest).expect("reasons");
        assert_eq!(list[1]["verdict"]["reasons"][0]["feature"], "V14");
        assert_eq!(list[1]["verdict"]["source"]["row"], 0);
        assert_eq!(list[2]["verdict"].get("reasons"), None, "there are none");
        assert_eq!(latest.unexplained().0, [3]);
        assert_eq!(sent(&mut latest), None, "nothing changed");
    }

    #[test]
    fn masked_fields_are_named_and_their_values_are_not() {
        let shown = |fields: &[&str]| {
            let fields = fields.iter().map(|field| (*field).to_owned()).collect();
            let mut latest = Latest::new(Mask::new(fields, "Amount"));
            latest.add(vec![verdict(1, 1)]);
            let reasons = r#","reasons":[{"feature":"V1","contribution":2.5},{"feature":"V2","contribution":1.5}]"#;
            latest.explain(&[1], vec![Explained::Reasons(reasons.to_owned())]);
            sent(&mut latest).expect("a list")[0].clone()
        };
        let masked = shown(&["transaction_id", "key", "V1", "Amount"]);
        let reasons = json!([{"feature": "V1", "contribution": "masked"}, {"feature": "V2", "contribution": 1.5}]);
        let expected = json!({"transaction_id": "masked", "source": {"row": 0}, "reasons": reasons});
        assert_eq!(masked, json!({"verdict": expected, "amount": "masked"}));
        let plain = shown(&["V3"]);
        assert_eq!((&plain["verdict"]["transaction_id"], &plain["amount"]), (&json!("t1"), &json!(1.5)));
        assert_eq!(plain["verdict"]["reasons"][0]["contribution"], 2.5);
    }

    #[test]
    fn a_verdict_of_another_model_waits_and_is_never_explained_by_this_one() {
        let mut latest = Latest::default();
        latest.add(vec![verdict(1, 7)]);
        sent(&mut latest);
        latest.explain(&[1], vec![Explained::OtherModel]);
        assert_eq!((sent(&mut latest), latest.unexplained().0), (None, vec![1]));
    }

    #[test]
    fn the_oldest_go_and_what_is_no_json_is_left_out() {
        let mut latest = Latest::default();
        for serial in 1..=KEPT as u64 + 5 {
            latest.add(vec![verdict(serial, 1)]);
        }
        // An answer about one that has gone changes nothing.
        latest.explain(&[1], vec![Explained::Reasons(String::new())]);
        latest.add(vec![Suspicious {
            serial: 99,
            verdict: vec![0xff],
            amount: Some(f32::NAN),
            ..Suspicious::default()
        }]);
        let list = sent(&mut latest).expect("new ones");
        assert_eq!(list.as_array().map(Vec::len), Some(KEPT - 1));
        assert_eq!(list[0]["verdict"]["transaction_id"], "t55");
    }
}
