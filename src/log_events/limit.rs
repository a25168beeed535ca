//! How often one event may be written.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets one through per interval, and counts the others.
pub(crate) struct RateLimit {
    interval_milliseconds: u64,
    /// Milliseconds since the process's first limited event, from when on the next one may pass.
    next: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimit {
    /// At most one in so many seconds; the first passes at once.
    pub(crate) const fn every_seconds(seconds: u64) -> RateLimit {
        RateLimit { interval_milliseconds: seconds * 1000, next: AtomicU64::new(0), suppressed: AtomicU64::new(0) }
    }

    /// Whether this one may pass now, and if so how many were held back since the last that did.
    pub(crate) fn admit(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = START.get_or_init(Instant::now).elapsed().as_millis();
        self.admit_at(u64::try_from(now).unwrap_or(u64::MAX))
    }

    fn admit_at(&self, now: u64) -> Option<u64> {
        let next = self.next.load(Ordering::Relaxed);
        // Of threads that come at once, the one that moves the mark passes.
        let passes = now >= next
            && self
                .next
                .compare_exchange(
                    next,
                    now.saturating_add(self.interval_milliseconds),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok();
        if passes {
            return Some(self.suppressed.swap(0, Ordering::Relaxed));
        }
        self.suppressed.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_passes_per_interval_and_tells_of_those_that_did_not() {
        let limit = RateLimit::every_seconds(10);
        assert_eq!(limit.admit_at(5), Some(0), "the first at once");
        assert_eq!(limit.admit_at(5), None);
        assert_eq!(limit.admit_at(10_004), None);
        assert_eq!(limit.admit_at(10_005), Some(2));
        assert_eq!(limit.admit_at(20_004), None);
        assert_eq!(limit.admit_at(60_000), Some(1));
        assert_eq!(limit.admit_at(90_000), Some(0));
    }
}
