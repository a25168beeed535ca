//! What is explored: how large the cluster is, and what may happen to it.

use crate::transaction::Guarantee;
use crate::transaction::rules::Rule;

/// A rule of the broker, or of how the worker asks it, that is not the protocol's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Around {
    /// Offsets are taken of members of the present generation only (KIP-447).
    GenerationIsChecked,
    /// Offsets are not shown while a transaction may still commit others.
    OffsetsAreStable,
    /// Of two transactions' offsets those win that were added later, whichever marker is written last.
    LaterOffsetsWin,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub guarantee: Guarantee,
    /// Records of each partition, of which there are one or two.
    pub records: &'static [i64],
    /// The group has no offsets yet.
    pub is_group_new: bool,
    /// How often partitions move: asked for, or because a member is silent.
    pub moves: u8,
    /// Workers that are killed.
    pub crashes: u8,
    /// Lost answers, failed messages and calls.
    pub faults: u8,
    /// Transactions that time out.
    pub timeouts: u8,
    /// The verdict on this record of partition 0 is refused; its dead letter is not.
    pub refused: Option<i64>,
    /// The output has no partition 1.
    pub is_partition_missing: bool,
    /// The input topic is deleted and made again.
    pub is_recreated: bool,
    /// The log's start moves by one record.
    pub is_start_moved: bool,
    /// Another leader takes over whose log lacks the last record of partition 0, and writes another in its place.
    pub is_cut_short: bool,
    /// A record that was fetched before a seek is delivered after it.
    pub is_stale_delivered: bool,
    /// Worker 0 is asked to stop.
    pub is_stopped: bool,
    /// A rule that does not hold.
    pub without: Option<Rule>,
    pub without_around: Option<Around>,
}

impl Scenario {
    pub(super) fn holds(&self, rule: Around) -> bool {
        self.without_around != Some(rule)
    }

    pub(super) fn in_transactions(&self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }
}
