//! The rules that the guarantees rest on, by name. Tests take one away at a time, and see what goes wrong without it.

/// A rule of the commit protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A transaction is submitted only when all its messages are settled: the next one's cannot overtake them in a partition.
    SettledBeforeSubmit,
    /// Nothing is committed unless failures were looked at after the deliveries it rests on.
    FailuresAfterDeliveries,
    /// One transaction ends at a time: offsets advance in order.
    OneCommitAtATime,
    /// A failure throws away all that is not committed, of both producers.
    FailureTakesAll,
    /// Partitions are released when what was done for them is committed or thrown away.
    CommitBeforeRelease,
    /// After work was thrown away, the group's offset says where a partition goes on.
    RewindToCommitted,
    /// Nothing is processed twice within one assignment.
    NothingTwice,
    /// An offset of another topic than the one that has the name now says nothing.
    OffsetsOfThisTopic,
    /// A record below what was read, of a later leader than that, is of a log that was cut short (KIP-320).
    EpochsAreCompared,
    /// A roll-back that follows another makes the worker not ready until something is committed.
    LoopsAreNotReady,
    /// A partition that cannot go on stops alone.
    PartitionsStopAlone,
    /// A drain that threw work away is not called complete.
    DrainedMeansCommitted,
}

/// Which rules hold: all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    #[cfg(test)]
    pub(crate) without: Option<Rule>,
}

impl Rules {
    /// Whether a rule holds.
    #[inline]
    pub fn hold(self, rule: Rule) -> bool {
        #[cfg(test)]
        return self.without != Some(rule);
        #[cfg(not(test))]
        {
            let _ = rule;
            true
        }
    }
}
