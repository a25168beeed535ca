//! The notary: ends a thread's transactions while the thread goes on with the next one.
//!
//! ```text
//!  scoring thread   ── transaction A ──┬── transaction B ──┬── transaction A ──►
//!                                 hand over           hand over
//!  notary                              └─ offsets, commit A ─┴─ offsets, commit B ─►
//! ```
//!
//! The end of a transaction is several round trips to the broker during which the thread would stand still; with two
//! producers it need not. Two rules keep the guarantee: a transaction is handed over only when all its messages are
//! delivered, so that the next one's cannot overtake them in a partition; and only when the one before is committed, so
//! that offsets advance in order. One that fails takes the next one with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;

use super::{ATTEMPT, GIVE_UP, Interruption};
use crate::kafka::failure::Failure;
use crate::kafka::outbox::{GroupMetadata, Outbox};

/// A transaction to be ended.
pub(super) struct Order {
    /// Its producer; all its messages are delivered.
    pub(super) outbox: Arc<Outbox>,
    /// Next offsets to read.
    pub(super) offsets: TopicPartitionList,
    /// The member whose offsets they are (KIP-447).
    pub(super) group: GroupMetadata,
}

/// How an order ended: the time it took, or why the work must be done again.
pub(super) type Outcome = Result<Duration, Unfinished>;

/// Why a transaction is not committed.
pub(super) enum Unfinished {
    /// The broker refused it; what was being done.
    Refused(Failure, &'static str),
    /// The thread is gone.
    Gone,
}

/// A thread of its own that takes one order at a time.
pub(super) struct Notary {
    orders: Sender<Order>,
    outcomes: Receiver<Outcome>,
    given_up: Arc<AtomicBool>,
    /// Since when an order is under way.
    busy_since: Option<Instant>,
}

impl Notary {
    /// Starts the thread; it ends when the notary is dropped.
    pub(super) fn start(name: &str) -> Result<Notary, Interruption> {
        let (orders, inbox) = channel::<Order>();
        let (outbox, outcomes) = channel();
        let given_up = Arc::new(AtomicBool::new(false));
        let stop = given_up.clone();
        let work = move || {
            while let Ok(order) = inbox.recv() {
                if outbox.send(end(&order, &stop)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("{name}-commit")).spawn(work);
        thread.map_err(|error| Interruption::Fatal(format!("cannot start a thread: {error}")))?;
        Ok(Notary { orders, outcomes, given_up, busy_since: None })
    }

    /// Since when an order is under way; `None`: the next may be given.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.busy_since
    }

    /// Gives an order; the one before must have ended.
    pub(super) fn hand_over(&mut self, order: Order) -> Result<(), Interruption> {
        self.busy_since = Some(Instant::now());
        self.orders.send(order).map_err(|_| Interruption::Fatal("the committing thread is gone".into()))
    }

    /// The outcome of the order under way, if it ends within `wait`.
    pub(super) fn outcome(&mut self, wait: Duration) -> Option<Outcome> {
        self.busy_since?;
        match self.outcomes.recv_timeout(wait) {
            Ok(outcome) => {
                self.busy_since = None;
                Some(outcome)
            }
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.busy_since = None;
                Some(Err(Unfinished::Gone))
            }
        }
    }

    /// Asks for the end of the order under way, done or not, and waits for it.
    pub(super) fn give_up(&mut self) -> Option<Outcome> {
        self.given_up.store(true, Ordering::Release);
        // Two calls may be under way, one after the other.
        let outcome = self.outcome(ATTEMPT * 2 + Duration::from_secs(1));
        self.given_up.store(false, Ordering::Release);
        outcome
    }
}

fn end(order: &Order, given_up: &AtomicBool) -> Outcome {
    let began = Instant::now();
    let Order { outbox, offsets, group } = order;
    repeat(began, given_up, "committing offsets", || outbox.send_offsets(offsets, group, ATTEMPT))?;
    repeat(began, given_up, "committing the transaction", || outbox.commit_transaction(ATTEMPT))?;
    Ok(began.elapsed())
}

fn repeat(
    began: Instant,
    given_up: &AtomicBool,
    doing: &'static str,
    mut call: impl FnMut() -> Result<(), Failure>,
) -> Result<(), Unfinished> {
    loop {
        match call() {
            Ok(()) => return Ok(()),
            Err(error) if error.transient && !given_up.load(Ordering::Acquire) && began.elapsed() < GIVE_UP => {
                // A call that fails at once must not spin.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(Unfinished::Refused(error, doing)),
        }
    }
}
