//! At least once: which offsets may be committed, and whose counts a commit completes. Pure.
//!
//! ```text
//!  batch sent ─► sent (oldest first) ─ nothing undelivered, then no failure ─► ready: its offsets may be committed
//! ```
//!
//! **No offset is committed unless failures were looked at after the deliveries it rests on.** A message that failed is
//! settled too, so a batch with nothing undelivered may hold one; whoever looks at failures first and at deliveries then
//! commits past a failure that came in between.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::kafka::position::Offsets;

/// A batch whose messages were sent.
struct SentBatch {
    ticket: usize,
    next: Offsets,
    sent: Instant,
}

/// The batches that are on their way.
#[derive(Default)]
pub(super) struct Deliveries {
    sent: VecDeque<SentBatch>,
    /// The last batch of those whose counts wait for a commit.
    counted: Option<usize>,
}

impl Deliveries {
    /// A batch was sent; `next` are the offsets behind it.
    pub(super) fn add(&mut self, ticket: usize, next: Offsets) {
        self.sent.push_back(SentBatch { ticket, next, sent: Instant::now() });
    }

    /// Batches on their way.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// Nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// How long the oldest batch has been on its way.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.sent.front().map(|batch| batch.sent.elapsed())
    }

    /// Takes the offsets of delivered batches; returns whether there were any. `undelivered` counts a batch's messages
    /// that are not settled; `failure` is asked last.
    ///
    /// # Errors
    /// A message failed: nothing of what is ready may be committed.
    pub(super) fn collect<E>(
        &mut self,
        ready: &mut Offsets,
        undelivered: impl Fn(usize) -> i64,
        failure: impl FnOnce() -> Result<(), E>,
    ) -> Result<bool, E> {
        let mut any = false;
        while let Some(batch) = self.sent.front().filter(|batch| undelivered(batch.ticket) <= 0) {
            super::merge(ready, &batch.next);
            self.sent.pop_front();
            any = true;
        }
        failure().map(|()| any)
    }

    /// A commit begins, of everything that is ready. Whether the counts up to the batch `last` now wait for a commit that
    /// covers them: not while earlier ones still do.
    pub(super) fn count_up_to(&mut self, last: usize) -> bool {
        if self.counted.is_some() {
            return false;
        }
        self.counted = Some(last);
        true
    }

    /// Whether the commit that has just begun covers the counts that wait; they wait no longer then.
    pub(super) fn is_covered(&mut self) -> bool {
        let Some(last) = self.counted else { return false };
        // Numbers wrap around, long after their batch is gone.
        let is_later = |batch: &SentBatch| batch.ticket.wrapping_sub(last).cast_signed() > 0;
        let covered = self.sent.front().is_none_or(is_later);
        if covered {
            self.counted = None;
        }
        covered
    }

    /// Forgets all: the work is thrown away, or all of it is committed.
    pub(super) fn clear(&mut self) {
        *self = Deliveries::default();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::kafka::position::Next;

    fn next(partition: i32, offset: i64) -> Offsets {
        Offsets::from([(partition, Next::at(offset))])
    }

    #[test]
    fn no_offset_is_ready_unless_failures_were_looked_at_after_its_delivery() {
        let mut deliveries = Deliveries::default();
        deliveries.add(1, next(0, 10));
        let failed = Cell::new(false);
        // The last message fails just when it is looked whether it is settled.
        let undelivered = |_| {
            failed.set(true);
            0
        };
        let mut ready = Offsets::new();
        let outcome = deliveries.collect(&mut ready, undelivered, || if failed.get() { Err(()) } else { Ok(()) });
        assert_eq!(outcome, Err(()));
    }

    #[test]
    fn offsets_are_ready_in_the_order_of_batches() {
        let mut deliveries = Deliveries::default();
        (1..=3).for_each(|ticket| deliveries.add(ticket, next(0, 10 * ticket as i64)));
        let mut ready = Offsets::new();
        let no_failure = || Ok::<(), ()>(());
        // The first is under way: the others wait with it, whatever became of them.
        assert_eq!(deliveries.collect(&mut ready, |ticket| i64::from(ticket == 1), no_failure), Ok(false));
        assert_eq!((ready.len(), deliveries.len()), (0, 3));
        assert_eq!(deliveries.collect(&mut ready, |ticket| i64::from(ticket == 3), no_failure), Ok(true));
        assert_eq!((ready, deliveries.len()), (next(0, 20), 1));
    }

    #[test]
    fn counts_wait_for_a_commit_of_all_they_are_of() {
        let mut deliveries = Deliveries::default();
        let mut ready = Offsets::new();
        (1..=2).for_each(|ticket| deliveries.add(ticket, next(0, ticket as i64)));
        assert!(deliveries.count_up_to(2));
        assert!(!deliveries.is_covered(), "neither batch is delivered");
        let delivered = |last: usize| move |ticket: usize| i64::from(ticket > last);
        deliveries.collect(&mut ready, delivered(1), || Ok::<(), ()>(())).expect("no failure");
        assert!(!deliveries.count_up_to(2) && !deliveries.is_covered());
        deliveries.add(3, next(0, 3));
        deliveries.collect(&mut ready, delivered(2), || Ok::<(), ()>(())).expect("no failure");
        assert!(deliveries.is_covered(), "the third is of no count that waits");
        assert!(deliveries.count_up_to(3) && !deliveries.is_covered());
        deliveries.clear();
        assert!(!deliveries.is_covered() && deliveries.is_empty());
    }
}
