//! The latest verdicts at review or decline, with the rows they are about, for the console.
//!
//! ```text
//!  scoring thread ─► Gathered (a few per commit, in the tally) ─commit─► ring of the process ─► since() ─► console
//! ```
//!
//! They travel with the tally, so only what was committed is ever shown. A few of each commit are enough to look at, and
//! a thread that finds the ring in use drops its few: the path of a record waits for nobody who looks at it. Whoever looks
//! gets copies, and finds out for itself why a row scored as it did (`crate::explain`): here rows are only kept.
//!
//! All memory is used again and again: neither the tally nor the ring allocates once it has grown.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};

/// Verdicts that are kept.
pub const KEPT: usize = 50;

/// Verdicts a thread takes along to one commit.
const PER_COMMIT: usize = 8;

/// A verdict that a scoring thread noticed, with what it is about.
#[derive(Clone, Copy, Debug)]
pub struct Noticed<'a> {
    /// The verdict's JSON.
    pub verdict: &'a [u8],
    /// The row, in the order of the model's features.
    pub features: &'a [f32],
    /// Its score.
    pub score: f32,
    /// What the transaction was about, in its own currency.
    pub amount: Option<f32>,
    /// Number of the model within the process (`LoadedModel::number`): it alone can say why.
    pub model: u64,
}

/// A verdict of the ring.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Suspicious {
    /// Counts the verdicts that ever came into the ring, from 1.
    pub serial: u64,
    /// As [`Noticed::verdict`].
    pub verdict: Vec<u8>,
    /// As [`Noticed::features`].
    pub features: Vec<f32>,
    /// As [`Noticed::score`].
    pub score: f32,
    /// As [`Noticed::amount`].
    pub amount: Option<f32>,
    /// As [`Noticed::model`].
    pub model: u64,
}

/// What a thread takes along to its next commit.
#[derive(Debug, Default)]
pub struct Gathered {
    verdicts: Vec<u8>,
    features: Vec<f32>,
    taken: Vec<Taken>,
}

/// One of [`Gathered`]: where its verdict and its features end, and the rest of it.
#[derive(Clone, Copy, Debug)]
struct Taken {
    verdict_end: usize,
    features_end: usize,
    score: f32,
    amount: Option<f32>,
    model: u64,
}

impl Gathered {
    /// Whether another one is taken along.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.taken.len() < PER_COMMIT
    }

    /// Takes a verdict along.
    pub fn add(&mut self, noticed: &Noticed<'_>) {
        self.verdicts.extend_from_slice(noticed.verdict);
        self.features.extend_from_slice(noticed.features);
        self.taken.push(Taken {
            verdict_end: self.verdicts.len(),
            features_end: self.features.len(),
            score: noticed.score,
            amount: noticed.amount,
            model: noticed.model,
        });
    }

    /// The work was thrown away, or is shown.
    pub fn clear(&mut self) {
        self.verdicts.clear();
        self.features.clear();
        self.taken.clear();
    }

    /// Shows what was taken along, unless somebody looks at the ring right now. Empties it either way.
    pub fn publish(&mut self) {
        if !self.taken.is_empty()
            && let Ok(mut ring) = ring().try_lock()
        {
            self.show(&mut ring);
        }
        self.clear();
    }

    fn show(&self, ring: &mut Ring) {
        let (mut verdict, mut features) = (0, 0);
        for taken in &self.taken {
            ring.push(&Noticed {
                verdict: &self.verdicts[verdict..taken.verdict_end],
                features: &self.features[features..taken.features_end],
                score: taken.score,
                amount: taken.amount,
                model: taken.model,
            });
            (verdict, features) = (taken.verdict_end, taken.features_end);
        }
    }
}

/// What whoever looks may see.
#[derive(Debug, Default)]
struct Ring {
    /// Of the newest.
    serial: u64,
    /// Newest first.
    latest: VecDeque<Suspicious>,
}

impl Ring {
    /// Puts a verdict in the place of the oldest.
    fn push(&mut self, noticed: &Noticed<'_>) {
        let oldest = if self.latest.len() < KEPT { None } else { self.latest.pop_back() };
        let mut slot = oldest.unwrap_or_default();
        self.serial += 1;
        slot.serial = self.serial;
        slot.verdict.clear();
        slot.verdict.extend_from_slice(noticed.verdict);
        slot.features.clear();
        slot.features.extend_from_slice(noticed.features);
        (slot.score, slot.amount, slot.model) = (noticed.score, noticed.amount, noticed.model);
        self.latest.push_front(slot);
    }

    fn since(&self, serial: u64) -> Vec<Suspicious> {
        self.latest.iter().take_while(|slot| slot.serial > serial).cloned().collect()
    }
}

fn ring() -> &'static Mutex<Ring> {
    static RING: OnceLock<Mutex<Ring>> = OnceLock::new();
    RING.get_or_init(Mutex::default)
}

/// Copies of the verdicts that came after the one of this serial number (0 for all that are kept), newest first.
pub fn since(serial: u64) -> Vec<Suspicious> {
    ring().lock().unwrap_or_else(|poisoned| poisoned.into_inner()).since(serial)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noticed<'a>(verdict: &'a str, features: &'a [f32]) -> Noticed<'a> {
        Noticed { verdict: verdict.as_bytes(), features, score: 0.5, amount: Some(features[0]), model: 7 }
    }

    #[test]
    fn the_latest_come_first_and_the_oldest_go() {
        let mut ring = Ring::default();
        for number in 0..KEPT + 10 {
            // Longer and shorter by turns: a slot that is used again keeps nothing of what was in it.
            let features = vec![number as f32; 1 + number % 3];
            ring.push(&noticed(&format!("{{\"n\":{number}}}{}", " ".repeat(number % 5)), &features));
        }
        assert_eq!(ring.latest.len(), KEPT);
        let newest = &ring.latest[0];
        assert_eq!((newest.serial, newest.verdict.as_slice()), (60, br#"{"n":59}    "#.as_slice()));
        assert_eq!((newest.features.as_slice(), newest.amount, newest.model), ([59.0; 3].as_slice(), Some(59.0), 7));
        let after: Vec<u64> = ring.since(57).iter().map(|slot| slot.serial).collect();
        assert_eq!(after, [60, 59, 58]);
        assert_eq!((ring.since(60).len(), ring.since(0).len()), (0, KEPT));
    }

    #[test]
    fn a_thread_takes_a_few_along_and_forgets_what_was_thrown_away() {
        let (mut gathered, mut ring) = (Gathered::default(), Ring::default());
        gathered.add(&noticed("{}", &[1.0]));
        gathered.clear();
        let mut taken = 0;
        while gathered.has_room() {
            gathered.add(&noticed(&format!("{{\"n\":{taken}}}"), &[taken as f32, 0.5]));
            taken += 1;
        }
        assert_eq!(taken, PER_COMMIT);
        gathered.show(&mut ring);
        let shown: Vec<(&[u8], &[f32])> =
            ring.latest.iter().map(|slot| (slot.verdict.as_slice(), slot.features.as_slice())).collect();
        assert_eq!(shown.len(), PER_COMMIT);
        assert_eq!(shown[0], (br#"{"n":7}"#.as_slice(), [7.0, 0.5].as_slice()));
        assert_eq!(shown[7], (br#"{"n":0}"#.as_slice(), [0.0, 0.5].as_slice()));
        gathered.clear();
        assert!(gathered.has_room() && gathered.verdicts.is_empty() && gathered.features.is_empty());
    }
}
