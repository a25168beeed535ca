//! What the broker refuses for good, by the record it came from: such a record is written another way when it is read
//! again. Pure.
//!
//! | refused | then |
//! |---|---|
//! | a record's verdict | the record becomes a dead letter |
//! | its dead letter, which had no key | the letter gets a key: a compacted topic takes none without |
//! | that too | its partition stops |

use std::collections::HashMap;

use fraud_wire::verdict::Source;

use crate::kafka::outbox::{Kind, Refused};
use crate::kafka::position::Offsets;

/// What was refused of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Why its verdict was.
    pub verdict: Option<String>,
    /// Why its dead letter was, and how often.
    pub letter: Option<(String, u32)>,
}

/// By partition and offset.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<(i32, i64), Refusal>);

impl Refusals {
    /// Learns from a producer that is given up.
    pub(super) fn learn(&mut self, refused: Vec<Refused>) {
        for Refused { kind, value, source, reason } in refused {
            match kind {
                Kind::Verdict => {
                    if let Some(Source { partition, offset, .. }) = value.and_then(|value| Source::of(&value)) {
                        self.0.entry((partition, offset)).or_default().verdict = Some(reason);
                    }
                }
                Kind::DeadLetter => {
                    if let Some(place) = source {
                        let letter = &mut self.0.entry(place).or_default().letter;
                        let before = letter.as_ref().map_or(0, |(_, times)| *times);
                        *letter = Some((reason, before + 1));
                    }
                }
                // A comparison is done without, and no scoring thread sends the other.
                Kind::Comparison | Kind::Audit => {}
            }
        }
    }

    /// What was refused of a record.
    #[inline]
    pub(super) fn of(&self, partition: i32, offset: i64) -> Option<&Refusal> {
        if self.0.is_empty() { None } else { self.0.get(&(partition, offset)) }
    }

    /// Forgets records below `next`: they are committed.
    pub(super) fn forget_below(&mut self, next: &Offsets) {
        if !self.0.is_empty() {
            self.0.retain(|(partition, offset), _| next.get(partition).is_none_or(|next| *offset >= next.offset));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::position::Next;

    fn refused(kind: Kind, value: Option<&str>, source: Option<(i32, i64)>) -> Refused {
        Refused { kind, value: value.map(|value| value.as_bytes().to_vec()), source, reason: "no key".into() }
    }

    #[test]
    fn what_was_refused_is_known_by_its_record_until_that_is_committed() {
        let mut refusals = Refusals::default();
        let verdict = r#"{"transaction_id":"a","score":0.5,"source":{"topic":"t","partition":2,"offset":917,"row":0}}"#;
        refusals.learn(vec![
            refused(Kind::Verdict, Some(verdict), None),
            refused(Kind::DeadLetter, None, Some((2, 918))),
            refused(Kind::DeadLetter, None, Some((2, 918))),
            refused(Kind::Comparison, Some(verdict), None),
            refused(Kind::Verdict, Some("no verdict"), None),
        ]);
        assert_eq!(refusals.of(2, 917).and_then(|refusal| refusal.verdict.as_deref()), Some("no key"));
        assert_eq!(refusals.of(2, 918).and_then(|refusal| refusal.letter.clone()), Some(("no key".into(), 2)));
        assert_eq!(refusals.of(1, 917), None);
        refusals.forget_below(&Offsets::from([(1, Next::at(5000)), (2, Next::at(918))]));
        assert_eq!((refusals.of(2, 917), refusals.0.len()), (None, 1));
    }
}
