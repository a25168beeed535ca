//! Commits: the two guarantees. Offsets advance only on confirmed output.
//!
//! ```text
//!  exactly once    begin ─ send… ─ [nearly due] ─ all settled, none failed ─ submit ─► commit thread: offsets, commit
//!                                                    └─ begin with the other producer ─ send… ─
//!  at least once   send… ─ batches settled, none failed ─ [due] ─ commit offsets
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`exactly_once`], [`at_least_once`] | what decides, without any clock or client: [`Uncommitted`] is their one face |
//! | [`rules`] | what the decisions rest on |
//! | [`committer`] | what acts: producers, the commit thread, waiting |
//! | `severity`, `refusals`, `size_limits`, `timing`, [`pause`] | what failures mean, and how long to wait |
//!
//! What cannot be completed ends as an [`Interruption`]: the work since the last commit is thrown away
//! ([`committer::Committer::start_over`]) and read again. There is one such path for every failure, fencing and time-outs
//! included: a new producer under the same transactional id, which makes the broker abort what the old one left open.

pub mod at_least_once;
mod commit_thread;
pub mod committer;
pub mod exactly_once;
pub mod pause;
mod refusals;
pub mod rules;
mod sending;
mod severity;
mod size_limits;
mod timing;
mod waiting;

use std::time::Duration;

use self::at_least_once::Deliveries;
use self::exactly_once::Transactions;
use self::rules::Rules;
pub use self::severity::severity;
use crate::kafka::position::Offsets;

/// One attempt of a call to the broker; between attempts shutdown is looked at. Long enough for the several round trips
/// of a transaction's end, coordinator look-ups with their back-off included: an attempt that times out begins again, and
/// too short a one would never end.
const ATTEMPT: Duration = Duration::from_secs(5);

/// After this long the broker has aborted the transaction (transaction.timeout.ms) and repeating its end is in vain.
const GIVE_UP: Duration = Duration::from_secs(30);

/// A single call that has not returned by then is not waited for. librdkafka 2.12 never checks the time limit of a request
/// to a group's coordinator (`creq_ts_timeout` in `rdkafka_coord.c`): when the look-up of the coordinator is lost, the request
/// waits for the next broker that comes or goes, and [`Outbox::send_offsets`](crate::kafka::outbox::Outbox) with it.
const NO_RETURN: Duration = Duration::from_secs(2 * ATTEMPT.as_secs());

/// Why clients are replaced that were told of no broker.
pub const LOST: &str = "the cluster named no broker for a while: going on with new clients";

/// What a subscriber may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Guarantee {
    /// Verdicts, dead letters and offsets in one transaction: each row's verdict exactly once for `read_committed`.
    ExactlyOnce,
    /// Offsets after delivery reports: lowest latency, verdicts may be repeated after a crash.
    AtLeastOnce,
}

/// Why a turn of the scoring loop ended early.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    /// Throw away the work since the last commit and read it again.
    #[error("{0}")]
    RollBack(String),
    /// One partition cannot go on: throw away the work since the last commit, and go on with the others.
    #[error("partition {partition}: {reason}")]
    Partition {
        /// Of the input topic.
        partition: i32,
        /// What is in its way.
        reason: String,
    },
    /// The process cannot go on.
    #[error("{0}")]
    Fatal(String),
    /// Shutdown does not wait any longer.
    #[error("stopped before the work was committed; it is read again at the next start")]
    Aborted,
}

/// What is to be done next, for work to be committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Begin a transaction with this producer, which takes messages from now on.
    Begin {
        /// Of two.
        producer: usize,
    },
    /// Wait until the open transaction's messages, or the oldest batch's, are settled.
    AwaitSettled,
    /// See whether a message failed.
    CheckFailures,
    /// Pass the open transaction to the commit thread.
    Submit {
        /// Whose it is.
        producer: usize,
        /// Next offsets to read behind it.
        offsets: Offsets,
    },
    /// Wait for the transaction that is being ended.
    AwaitCommit,
    /// Commit offsets outside of a transaction.
    CommitOffsets {
        /// Next offsets to read.
        offsets: Offsets,
        /// Until the broker has answered.
        wait: bool,
        /// Nothing else waits for a commit.
        is_last: bool,
    },
    /// What was counted since the last time belongs to the commit that has begun.
    CountsSubmitted,
    /// That commit is done.
    CountsCommitted,
    /// Everything that was counted is committed.
    AllCommitted,
}

/// The work of one thread that is not committed yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Uncommitted {
    /// In transactions.
    ExactlyOnce(Transactions),
    /// In batches that are on their way.
    AtLeastOnce(Deliveries),
}

impl Uncommitted {
    /// No work yet.
    pub fn new(guarantee: Guarantee, rules: Rules) -> Uncommitted {
        match guarantee {
            Guarantee::ExactlyOnce => Uncommitted::ExactlyOnce(Transactions::with(rules)),
            Guarantee::AtLeastOnce => Uncommitted::AtLeastOnce(Deliveries::with(rules)),
        }
    }

    /// A batch begins.
    pub fn begin(&mut self) -> Option<Step> {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.begin(),
            Uncommitted::AtLeastOnce(_) => None,
        }
    }

    /// The messages of a batch are queued; `next` are the offsets behind it.
    pub fn queued(&mut self, batch: usize, next: &Offsets) {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.queued(next),
            Uncommitted::AtLeastOnce(deliveries) => deliveries.queued(batch, next),
        }
    }

    /// The open transaction's messages, or the oldest batch's, are settled.
    pub fn settled(&mut self) {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.settled(),
            Uncommitted::AtLeastOnce(deliveries) => deliveries.settled(),
        }
    }

    /// Failures were looked at, and there was none.
    pub fn confirmed(&mut self) {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.confirmed(),
            Uncommitted::AtLeastOnce(deliveries) => deliveries.confirmed(),
        }
    }

    /// The next step until what was queued is on its way to be committed, or until `all` is. `None`: it is so.
    pub fn next_step(&mut self, all: bool) -> Option<Step> {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.next_step(all),
            Uncommitted::AtLeastOnce(deliveries) => deliveries.next_step(),
        }
    }

    /// A transaction is being ended.
    pub fn is_pending(&self) -> bool {
        matches!(self, Uncommitted::ExactlyOnce(transactions) if transactions.is_pending())
    }

    /// Nothing is uncommitted.
    pub fn is_empty(&self) -> bool {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.is_empty(),
            Uncommitted::AtLeastOnce(deliveries) => deliveries.is_empty(),
        }
    }

    /// The pending transaction ended.
    pub fn ended(&mut self) {
        if let Uncommitted::ExactlyOnce(transactions) = self {
            transactions.ended();
        }
    }

    /// At least once: the oldest batch that is on its way, and how many there are.
    pub fn on_their_way(&self) -> Option<(usize, usize)> {
        match self {
            Uncommitted::ExactlyOnce(_) => None,
            Uncommitted::AtLeastOnce(deliveries) => deliveries.oldest().map(|oldest| (oldest, deliveries.len())),
        }
    }

    /// Forgets all: it is thrown away.
    pub fn throw_away(&mut self) {
        match self {
            Uncommitted::ExactlyOnce(transactions) => transactions.throw_away(),
            Uncommitted::AtLeastOnce(deliveries) => deliveries.throw_away(),
        }
    }
}
