//! The commit thread: ends a scoring thread's transactions while that goes on with the next one.
//!
//! ```text
//!  scoring thread   ── transaction A ──┬── transaction B ──┬── transaction A ──►
//!                                   submit              submit
//!  commit thread                       └─ offsets, commit A ─┴─ offsets, commit B ─►
//! ```
//!
//! The end of a transaction is several round trips to the broker during which the scoring thread would stand still; with
//! two producers it need not. When one may be submitted, [`super::exactly_once`] decides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;

use super::{ATTEMPT, GIVE_UP, Interruption, NO_RETURN};
use crate::kafka::failure::Failure;
use crate::kafka::outbox::{GroupMetadata, Outbox};

/// A transaction to be ended.
pub(super) struct PendingTransaction {
    /// Its producer; all its messages are delivered.
    pub(super) outbox: Arc<Outbox>,
    /// Next offsets to read.
    pub(super) offsets: TopicPartitionList,
    /// The member whose offsets they are (KIP-447).
    pub(super) group: GroupMetadata,
}

/// How a transaction ended: the time that took, or why the work must be done again.
pub(super) type Outcome = Result<Duration, CommitError>;

/// Why a transaction is not committed.
pub(super) enum CommitError {
    /// The broker refused it; what was being done.
    Refused(Failure, &'static str),
    /// The thread is gone.
    Gone,
}

/// What the scoring thread and its commit thread know of each other.
#[derive(Default)]
struct Shared {
    /// The present transaction is not to be repeated any more.
    given_up: AtomicBool,
    /// When the present call to librdkafka began.
    call_began: Mutex<Option<Instant>>,
}

/// A thread of its own that ends one transaction at a time.
pub(super) struct CommitThread {
    pending: Sender<PendingTransaction>,
    outcomes: Receiver<Outcome>,
    shared: Arc<Shared>,
    /// Since when a transaction is being ended.
    busy_since: Option<Instant>,
}

impl CommitThread {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(name: &str) -> Result<CommitThread, Interruption> {
        let (pending, inbox) = channel::<PendingTransaction>();
        let (outbox, outcomes) = channel();
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let work = move || {
            while let Ok(transaction) = inbox.recv() {
                if outbox.send(end(&transaction, &seen)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("{name}-commit")).spawn(work);
        thread.map_err(|error| Interruption::Fatal(format!("cannot start a thread: {error}")))?;
        Ok(CommitThread { pending, outcomes, shared, busy_since: None })
    }

    /// Since when a transaction is being ended; `None`: the next may be submitted.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.busy_since
    }

    /// For how long the present call to librdkafka has not returned.
    pub(super) fn in_call(&self) -> Duration {
        let began = self.shared.call_began.lock().ok().and_then(|began| *began);
        began.map_or(Duration::ZERO, |began| began.elapsed())
    }

    /// Submits a transaction; the one before must have ended.
    pub(super) fn submit(&mut self, transaction: PendingTransaction) -> Result<(), Interruption> {
        self.busy_since = Some(Instant::now());
        self.pending.send(transaction).map_err(|_| Interruption::Fatal("the commit thread is gone".into()))
    }

    /// How the submitted transaction ended, if it does within `wait`.
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
                Some(Err(CommitError::Gone))
            }
        }
    }

    /// Asks for the end of the submitted transaction, done or not, and waits for it where that `is_waited_for`.
    pub(super) fn give_up(&mut self, is_waited_for: bool) -> Option<Outcome> {
        self.shared.given_up.store(true, Ordering::Release);
        // Two calls may be under way, one after the other; one that should have returned long ago is not waited for.
        let limit = ATTEMPT * 2 + Duration::from_secs(1);
        let is_waited_for = is_waited_for && self.in_call() <= NO_RETURN;
        let outcome = self.outcome(if is_waited_for { limit } else { Duration::ZERO });
        self.shared.given_up.store(false, Ordering::Release);
        outcome
    }
}

fn end(transaction: &PendingTransaction, shared: &Shared) -> Outcome {
    let began = Instant::now();
    let PendingTransaction { outbox, offsets, group } = transaction;
    repeat(began, shared, "committing offsets", || outbox.send_offsets(offsets, group, ATTEMPT))?;
    repeat(began, shared, "committing the transaction", || outbox.commit_transaction(ATTEMPT))?;
    Ok(began.elapsed())
}

fn repeat(
    began: Instant,
    shared: &Shared,
    doing: &'static str,
    mut call: impl FnMut() -> Result<(), Failure>,
) -> Result<(), CommitError> {
    let note = |began| {
        if let Ok(mut call_began) = shared.call_began.lock() {
            *call_began = began;
        }
    };
    loop {
        note(Some(Instant::now()));
        let answer = call();
        note(None);
        match answer {
            Ok(()) => return Ok(()),
            Err(error) if error.transient && !shared.given_up.load(Ordering::Acquire) && began.elapsed() < GIVE_UP => {
                // A call that fails at once must not spin.
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(CommitError::Refused(error, doing)),
        }
    }
}
