//! At least once: which offsets may be committed, and whose counts a commit completes. Pure.
//!
//! ```text
//!  queued ─► sent (oldest first) ─ settled ─► settled ─ no failure ─► ready: may be committed
//! ```
//!
//! A message that failed is settled too: a batch that is settled may hold one. So what is settled becomes ready only when
//! failures were looked at after it.

use std::collections::VecDeque;

use super::Step;
use super::rules::{Rule, Rules};
use crate::kafka::position::{Offsets, merge};

/// The batches of one thread that are on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Deliveries {
    /// Batches whose messages are not known to be settled, with the offsets behind them.
    sent: VecDeque<(usize, Offsets)>,
    /// Next offsets to read behind settled batches; failures were not looked at since.
    settled: Offsets,
    /// Next offsets to read that may be committed.
    ready: Offsets,
    /// Next offsets to read whose commit was not waited for: it may have been refused.
    unconfirmed: Offsets,
    /// The last batch of those whose counts wait for a commit.
    counted: Option<usize>,
    rules: Rules,
}

impl Deliveries {
    pub(super) fn with(rules: Rules) -> Deliveries {
        Deliveries { rules, ..Deliveries::default() }
    }

    pub(super) fn queued(&mut self, batch: usize, next: &Offsets) {
        self.sent.push_back((batch, next.clone()));
    }

    /// How many batches are on their way.
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// The oldest batch that is on its way.
    pub(super) fn oldest(&self) -> Option<usize> {
        self.sent.front().map(|(batch, _)| *batch)
    }

    /// The oldest batch is settled.
    pub(super) fn settled(&mut self) {
        if let Some((_, next)) = self.sent.pop_front() {
            let to = if self.rules.hold(Rule::FailuresAfterDeliveries) { &mut self.settled } else { &mut self.ready };
            merge(to, &next);
        }
    }

    pub(super) fn confirmed(&mut self) {
        if !self.settled.is_empty() {
            merge(&mut self.ready, &self.settled);
            self.settled.clear();
        }
    }

    /// Nothing is uncommitted.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty() && self.settled.is_empty() && self.ready.is_empty() && self.counted.is_none()
    }

    /// The next step until all is committed.
    pub(super) fn next_step(&mut self) -> Option<Step> {
        if !self.sent.is_empty() {
            Some(Step::AwaitSettled)
        } else if !self.settled.is_empty() {
            Some(Step::CheckFailures)
        } else if !self.ready.is_empty() || !self.unconfirmed.is_empty() {
            self.counted = None;
            let mut offsets = std::mem::take(&mut self.unconfirmed);
            merge(&mut offsets, &self.ready);
            self.ready.clear();
            Some(Step::CommitOffsets { offsets, wait: true, is_last: true })
        } else {
            None
        }
    }

    /// Commits what is ready. `last` is the last batch that was queued: its counts, and those since the last time, wait for
    /// a commit that covers them, unless earlier ones still do.
    pub(crate) fn commit_ready(&mut self, last: usize, steps: &mut Vec<Step>) -> bool {
        let offsets = std::mem::take(&mut self.ready);
        merge(&mut self.unconfirmed, &offsets);
        let submits = self.counted.is_none();
        let counted = *self.counted.get_or_insert(last);
        // Numbers wrap around, long after their batch is gone.
        let is_later = |(batch, _): &(usize, Offsets)| batch.wrapping_sub(counted).cast_signed() > 0;
        let covers = self.settled.is_empty() && self.sent.front().is_none_or(is_later);
        if covers {
            self.counted = None;
        }
        steps.push(Step::CommitOffsets { offsets, wait: false, is_last: self.sent.is_empty() && submits && covers });
        if submits {
            steps.push(Step::CountsSubmitted);
        }
        if covers {
            steps.push(Step::CountsCommitted);
        }
        covers
    }

    pub(super) fn throw_away(&mut self) {
        *self = Deliveries::with(self.rules);
    }
}
