//! A pause that is longer each time it was in vain. Pure: the moment is an argument.

use std::time::{Duration, Instant};

/// Something that is left alone for a while after it failed.
#[derive(Clone, Debug)]
pub struct Pause {
    first: Duration,
    longest: Duration,
    /// The next one's length.
    next: Duration,
    until: Option<Instant>,
}

impl Pause {
    /// Of comparisons: in a transaction, each try that fails throws away a transaction.
    pub(super) fn of_comparisons() -> Pause {
        Pause::new(Duration::from_secs(30), Duration::from_secs(600))
    }

    /// Of a partition that cannot go on: each try throws away the other partitions' work since the last commit.
    pub fn of_a_partition() -> Pause {
        Pause::new(Duration::from_secs(5), Duration::from_secs(60))
    }

    fn new(first: Duration, longest: Duration) -> Pause {
        Pause { first, longest, next: first, until: None }
    }

    /// Begins a pause; returns its length. One that is under way goes on as it is.
    pub fn begin(&mut self, now: Instant) -> Duration {
        if let Some(until) = self.until.filter(|until| *until > now) {
            return until - now;
        }
        // In vain only if it came soon after the last one.
        if self.until.is_some_and(|until| now - until > self.next * 2) {
            self.next = self.first;
        }
        let length = self.next;
        self.until = Some(now + length);
        self.next = (length * 2).min(self.longest);
        length
    }

    /// Whether there is none, or it is over.
    #[inline]
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_they_are_in_vain_and_begin_anew_after_a_good_while() {
        let mut pause = Pause::new(Duration::from_secs(5), Duration::from_secs(12));
        let start = Instant::now();
        assert!(pause.is_over(start));
        let mut now = start;
        for seconds in [5, 10, 12, 12] {
            assert_eq!(pause.begin(now).as_secs(), seconds);
            assert_eq!(pause.begin(now + Duration::from_secs(1)).as_secs(), seconds - 1, "it is under way");
            assert!(!pause.is_over(now));
            now += Duration::from_secs(seconds);
            assert!(pause.is_over(now));
        }
        assert_eq!(pause.begin(now + Duration::from_secs(60)).as_secs(), 5);
    }
}
