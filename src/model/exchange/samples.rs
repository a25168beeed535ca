//! Recent payloads that were scored, for a candidate to try itself on before it serves.
//!
//! Scoring threads leave a few about once a second, if nobody looks at them just then; memory is bounded and reused.

use std::sync::{Mutex, PoisonError};

/// Payloads kept.
const KEPT: usize = 64;

/// Payloads a thread leaves at a time: two visits renew a quarter.
const PER_VISIT: usize = 8;

/// Largest payload kept, bytes.
const LARGEST: usize = 64 * 1024;

/// A ring of payloads, shared by the scoring threads.
#[derive(Debug, Default)]
pub struct Samples {
    ring: Mutex<Ring>,
}

#[derive(Debug, Default)]
struct Ring {
    payloads: Vec<Vec<u8>>,
    next: usize,
}

impl Samples {
    /// Copies a few of `payloads`, all of which were scored; skips it where the ring is in use.
    pub fn leave<'a>(&self, payloads: impl Iterator<Item = &'a [u8]>) {
        let Ok(mut ring) = self.ring.try_lock() else { return };
        for payload in payloads.filter(|payload| payload.len() <= LARGEST).take(PER_VISIT) {
            let index = ring.next;
            match ring.payloads.get_mut(index) {
                Some(old) => {
                    old.clear();
                    old.extend_from_slice(payload);
                }
                None => ring.payloads.push(payload.to_vec()),
            }
            ring.next = (index + 1) % KEPT;
        }
    }

    /// A copy of what is there.
    pub fn copy(&self) -> Vec<Vec<u8>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).payloads.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_no_more() {
        let samples = Samples::default();
        let payloads: Vec<Vec<u8>> = (0..1000_u32).map(|number| number.to_string().into_bytes()).collect();
        for visit in payloads.chunks(50) {
            samples.leave(visit.iter().map(Vec::as_slice));
        }
        let large = vec![b' '; LARGEST + 1];
        samples.leave(std::iter::once(large.as_slice()));
        let kept = samples.copy();
        assert_eq!(kept.len(), KEPT);
        assert!(kept.contains(&b"957".to_vec()) && !kept.contains(&b"958".to_vec()), "some of each visit");
        assert!(!kept.contains(&b"0".to_vec()), "the oldest are gone");
        assert!(!kept.contains(&large));
    }
}
