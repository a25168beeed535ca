//! What happens to a scoring thread, and what it is to do.

use crate::kafka::position::{Next, Offsets};
use crate::transaction::Step;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Partitions are now this member's.
    Assigned(Vec<i32>),
    /// Partitions are to be given up; what was done for them may still be committed.
    Revoked(Vec<i32>),
    /// Partitions have another owner: nothing may be committed.
    Lost(Vec<i32>),
    /// A partition delivers records from here on.
    Begun {
        /// Which.
        partition: i32,
        /// Its next offset.
        next: Next,
        /// The group has no such offset: it is to be committed.
        commit: bool,
    },
    /// A batch is about to be queued.
    BatchBegins,
    /// Its messages are queued; the offsets behind it.
    Queued(&'a Offsets),
    /// A partition holds nothing to score up to an offset.
    Passed {
        /// Which.
        partition: i32,
        /// Up to, and without.
        offset: i64,
    },
    /// It is time to commit.
    Due,
    /// The open transaction's messages, or the oldest batch's, are settled: delivered or failed.
    Settled,
    /// Failures were looked at: there was none.
    NoFailure,
    /// The transaction is with the commit thread.
    Submitted,
    /// The submitted transaction, or the last offsets, are committed.
    Committed,
    /// Something failed for good.
    Failed(Failed),
    /// Partitions go on here, after work was thrown away.
    Rewound(&'a Offsets),
    /// Logs were cut short below what was read: partitions, and where to go on as far as is known.
    Cut(Vec<(i32, Option<i64>)>),
    /// This member cannot go on with what it knows of the topic: another one has its name, or it finds no way back to the last
    /// commit.
    Outdated,
    /// What comes next in a partition cannot be read; what came before is good.
    Unreadable(i32),
    /// A partition that was left alone goes on here.
    Resumed(&'a Offsets),
    /// Every partition that delivers records was read to its end.
    CaughtUp,
    /// The thread is to end.
    Stop,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The work since the last commit must be done again.
    Work,
    /// It must, and this partition cannot go on.
    Partition(i32),
    /// Nothing is waited for any longer: the thread ends.
    Timeout,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Take partitions; they deliver nothing before they have begun.
    Accept(Vec<i32>),
    /// Give partitions up.
    Release(Vec<i32>),
    /// A step towards a commit.
    Commit(Step),
    /// Leave the group, and join it as one that knows nothing of the topic that is gone: the group assigns partitions again.
    Rejoin {
        /// Where partitions stood in the topic that is gone.
        left: Offsets,
    },
    /// Find out where a partition goes on whose log does not have what comes next.
    Restart {
        /// Which.
        partition: i32,
        /// What would have come next.
        before: Option<Next>,
        /// Where to go on, as far as is known.
        at: Option<i64>,
    },
    /// Throw away what is not committed and go back to the last commit. `number` counts those in a row.
    RollBack {
        /// 1 for the first.
        number: u32,
    },
    /// Leave a partition alone for a while.
    Pause(i32),
    /// Not ready: work is thrown away again and again.
    HoldReadiness,
    /// It is not any more.
    ClearReadiness,
    /// The thread ends; whether everything read is committed.
    End {
        /// All of it.
        drained: bool,
    },
}
