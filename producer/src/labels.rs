//! Labels that are not known yet: they wait until the event-time clock has passed their moment. Pure: the clock is told.
//!
//! ```text
//! row sent ─► add: known at event time + delay ─► [queue by known_at] ─► next_known, sent: what the clock has passed
//! ```
//!
//! A row that waits costs 64 bytes. Rows whose label is known only after the run's last event time (where a run has a
//! known end) are counted and not kept. At most [`MOST_WAITING`] rows wait, 256 MB; beyond that the run ends with an
//! error, since labels that were dropped in silence would make a false set of labels.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use uuid::Uuid;

use crate::source::TransactionId;

/// The most rows that wait for their label's moment.
pub const MOST_WAITING: u64 = 4_000_000;

/// A label with all that its message needs. Ordered by the moment it becomes known, then by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PendingLabel {
    /// Event time at which it becomes known, in milliseconds since 1970-01-01 UTC.
    pub(crate) known_at: i64,
    /// The row's place in the run, which orders labels of the same moment.
    pub(crate) row: u64,
    /// The transaction's key.
    pub(crate) key: Uuid,
    pub(crate) transaction: TransactionId,
    /// 1 for fraud.
    pub(crate) label: u8,
}

/// More rows wait than the queue may hold.
#[derive(Debug, thiserror::Error)]
#[error(
    "more than {MOST_WAITING} rows wait for their label: shorten --label-delay, lower --rate, or let event time run \
     faster (--event-time)"
)]
pub(crate) struct TooManyWaiting;

/// The labels of the rows sent so far, and the event time they are measured against.
pub(crate) struct PendingLabels {
    queue: BinaryHeap<Reverse<PendingLabel>>,
    /// The latest event time seen.
    now: i64,
    /// No row of this run will be later than this.
    end: i64,
    /// Rows that were not kept, because their label is known only after `end`.
    beyond: u64,
}

impl PendingLabels {
    /// `end` is the run's last event time, `i64::MAX` where that is not known beforehand.
    pub(crate) fn new(end: i64) -> PendingLabels {
        PendingLabels { queue: BinaryHeap::new(), now: i64::MIN, end, beyond: 0 }
    }

    /// Keeps a label until it is known.
    pub(crate) fn add(&mut self, label: PendingLabel) -> Result<(), TooManyWaiting> {
        if label.known_at > self.end {
            self.beyond += 1;
        } else if self.queue.len() as u64 >= MOST_WAITING {
            return Err(TooManyWaiting);
        } else {
            self.queue.push(Reverse(label));
        }
        Ok(())
    }

    /// Moves the event-time clock; it never goes back, even where a file's rows do.
    pub(crate) fn advance(&mut self, event_time: i64) {
        self.now = self.now.max(event_time);
    }

    /// The earliest label whose moment has come. It stays until it is [`PendingLabels::sent`].
    pub(crate) fn next_known(&self) -> Option<PendingLabel> {
        self.queue.peek().map(|Reverse(label)| *label).filter(|label| label.known_at <= self.now)
    }

    /// Forgets the earliest label.
    pub(crate) fn sent(&mut self) {
        self.queue.pop();
    }

    /// Rows whose label has not been sent.
    pub(crate) fn not_yet_known(&self) -> u64 {
        self.queue.len() as u64 + self.beyond
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(row: u64, known_at: i64) -> PendingLabel {
        PendingLabel { known_at, row, key: Uuid::nil(), transaction: TransactionId::Row(row), label: 0 }
    }

    /// Rows whose labels are known at `now`, in the order in which they are sent.
    fn known(labels: &mut PendingLabels, now: i64) -> Vec<u64> {
        labels.advance(now);
        let mut rows = Vec::new();
        while let Some(label) = labels.next_known() {
            rows.push(label.row);
            labels.sent();
        }
        rows
    }

    #[test]
    fn labels_leave_when_the_clock_has_passed_them_in_the_order_of_their_moments() {
        let mut labels = PendingLabels::new(i64::MAX);
        for (row, known_at) in [(1, 50), (2, 10), (3, 10), (4, 30), (5, 90)] {
            labels.add(label(row, known_at)).expect("there is room");
        }
        assert!(known(&mut labels, 9).is_empty());
        assert_eq!(known(&mut labels, 30), [2, 3, 4]);
        assert!(known(&mut labels, 20).is_empty(), "an earlier row does not turn the clock back");
        labels.add(label(6, 25)).expect("there is room");
        assert_eq!(known(&mut labels, 20), [6], "what was known before is sent at once");
        assert_eq!(labels.not_yet_known(), 2);
    }

    #[test]
    fn what_the_run_will_never_know_is_counted_and_not_kept() {
        let mut labels = PendingLabels::new(100);
        labels.add(label(1, 100)).expect("there is room");
        labels.add(label(2, 101)).expect("there is room");
        assert_eq!((labels.queue.len(), labels.not_yet_known()), (1, 2));
    }

    #[test]
    fn the_queue_is_bounded_and_a_row_costs_what_is_said() {
        assert_eq!(size_of::<PendingLabel>(), 64);
        let mut labels = PendingLabels::new(i64::MAX);
        for row in 0..MOST_WAITING {
            labels.add(label(row, 1)).expect("there is room");
        }
        let error = labels.add(label(0, 1)).expect_err("no room").to_string();
        assert!(error.contains("--label-delay"), "{error}");
    }
}
