//! Exactly once: which transaction is open, and which is being ended. Pure.
//!
//! ```text
//!  begin ─ queued… ─ all settled ─ no failure ─► submit ─► commit thread: offsets, commit
//!                                                  └─ begin with the other producer ─ queued… ─
//! ```

use super::Step;
use super::rules::{Rule, Rules};
use crate::kafka::position::{Offsets, merge};

/// What is known of the messages of the open transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Delivery {
    #[default]
    Unknown,
    /// Each is delivered or failed.
    Settled,
    /// And then none had failed.
    Confirmed,
}

/// The transactions of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Transactions {
    /// The producer that takes messages, of two.
    producer: usize,
    is_open: bool,
    /// Next offsets to read behind the open transaction's messages.
    next: Offsets,
    delivery: Delivery,
    /// The other producer's transaction is being ended.
    is_pending: bool,
    rules: Rules,
}

impl Transactions {
    pub(super) fn with(rules: Rules) -> Transactions {
        Transactions { rules, ..Transactions::default() }
    }

    pub(super) fn begin(&mut self) -> Option<Step> {
        if std::mem::replace(&mut self.is_open, true) {
            return None;
        }
        self.delivery = Delivery::Unknown;
        Some(Step::Begin { producer: self.producer })
    }

    pub(super) fn queued(&mut self, next: &Offsets) {
        merge(&mut self.next, next);
        self.delivery = Delivery::Unknown;
    }

    pub(super) fn settled(&mut self) {
        self.delivery = Delivery::Settled;
    }

    pub(super) fn confirmed(&mut self) {
        if self.delivery == Delivery::Settled {
            self.delivery = Delivery::Confirmed;
        }
    }

    pub(super) fn ended(&mut self) {
        self.is_pending = false;
    }

    pub(super) fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Nothing is uncommitted.
    pub(super) fn is_empty(&self) -> bool {
        !self.is_open && !self.is_pending
    }

    /// The next step until the open transaction is submitted, or until `all` is committed.
    pub(super) fn next_step(&mut self, all: bool) -> Option<Step> {
        if !self.is_open {
            return (all && self.is_pending).then_some(Step::AwaitCommit);
        }
        if self.is_pending && self.rules.hold(Rule::OneCommitAtATime) {
            return Some(Step::AwaitCommit);
        }
        match self.delivery {
            Delivery::Unknown if self.rules.hold(Rule::SettledBeforeSubmit) => return Some(Step::AwaitSettled),
            Delivery::Settled if self.rules.hold(Rule::FailuresAfterDeliveries) => return Some(Step::CheckFailures),
            _ => {}
        }
        let producer = self.producer;
        self.is_open = false;
        self.is_pending = true;
        self.producer = 1 - producer;
        Some(Step::Submit { producer, offsets: std::mem::take(&mut self.next) })
    }

    pub(super) fn throw_away(&mut self) {
        self.is_open = false;
        self.is_pending = false;
        self.next.clear();
        self.delivery = Delivery::Unknown;
    }
}
