//! The latest verdicts at review or decline, for the console.
//!
//! ```text
//!  scoring thread ─► Gathered (a few per commit, in the tally) ─commit─► ring of the process ─► console
//! ```
//!
//! They travel with the tally, so only what was committed is ever shown. A few of each commit are enough to look at, and
//! a thread that finds the ring in use drops its few: the path of a record waits for nobody who looks at it.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};

/// Verdicts that are kept.
const KEPT: usize = 50;

/// Verdicts a thread takes along to one commit.
const PER_COMMIT: usize = 8;

/// What a thread takes along to its next commit; its memory is used again and again.
#[derive(Debug, Default)]
pub struct Gathered {
    json: Vec<u8>,
    /// Where each verdict ends, and the amount at stake.
    ends: Vec<(usize, Option<f32>)>,
}

impl Gathered {
    /// Whether another one is taken along.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.ends.len() < PER_COMMIT
    }

    /// Takes a verdict along. `amount` is what the transaction was about, in its own currency.
    pub fn add(&mut self, verdict: &[u8], amount: Option<f32>) {
        self.json.extend_from_slice(verdict);
        self.ends.push((self.json.len(), amount));
    }

    /// The work was thrown away, or is shown.
    pub fn clear(&mut self) {
        self.json.clear();
        self.ends.clear();
    }

    /// Shows what was taken along, unless somebody looks at the ring right now. Empties it either way.
    pub fn publish(&mut self) {
        if !self.ends.is_empty()
            && let Ok(mut ring) = ring().try_lock()
        {
            let mut begin = 0;
            for &(end, amount) in &self.ends {
                ring.push(&self.json[begin..end], amount);
                begin = end;
            }
        }
        self.clear();
    }
}

/// What the console shows.
#[derive(Debug, Default)]
struct Ring {
    /// Moves with every verdict.
    version: u64,
    latest: VecDeque<String>,
}

impl Ring {
    fn push(&mut self, verdict: &[u8], amount: Option<f32>) {
        // Ids are the sender's bytes, checked to be UTF-8 by the decoder.
        let Ok(verdict) = std::str::from_utf8(verdict) else { return };
        let amount = amount.filter(|amount| amount.is_finite()).map_or("null".to_owned(), |amount| amount.to_string());
        self.latest.truncate(KEPT - 1);
        self.latest.push_front(format!("{{\"verdict\":{verdict},\"amount\":{amount}}}"));
        self.version += 1;
    }
}

fn ring() -> &'static Mutex<Ring> {
    static RING: OnceLock<Mutex<Ring>> = OnceLock::new();
    RING.get_or_init(Mutex::default)
}

/// The latest verdicts, newest first, as a JSON array of `{"verdict":…,"amount":…}`, where there are other ones than at
/// `version`; with the version they are at.
pub fn since(version: u64) -> Option<(u64, String)> {
    let ring = ring().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    (ring.version != version).then(|| {
        let list: Vec<&str> = ring.latest.iter().map(String::as_str).collect();
        (ring.version, format!("[{}]", list.join(",")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_come_first_and_the_oldest_go() {
        let mut ring = Ring::default();
        for number in 0..KEPT + 10 {
            ring.push(format!("{{\"n\":{number}}}").as_bytes(), Some(number as f32 + 0.5));
        }
        assert_eq!(ring.latest.len(), KEPT);
        assert_eq!(ring.latest[0], r#"{"verdict":{"n":59},"amount":59.5}"#);
        ring.push(b"{}", Some(f32::NAN));
        assert_eq!(ring.latest[0], r#"{"verdict":{},"amount":null}"#);
    }

    #[test]
    fn a_thread_takes_a_few_along_and_forgets_what_was_thrown_away() {
        let mut gathered = Gathered::default();
        let mut taken = 0;
        while gathered.has_room() {
            gathered.add(b"{}", None);
            taken += 1;
        }
        assert_eq!(taken, PER_COMMIT);
        gathered.clear();
        assert!(gathered.has_room() && gathered.json.is_empty());
    }
}
