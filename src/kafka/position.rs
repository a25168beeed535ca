//! Where a partition goes on, also when its log does not have what comes next. Pure.
//!
//! librdkafka's own reset (`auto.offset.reset`) goes on somewhere in silence. This finds out what is missing between a
//! position and the log: every record that the log holds is scored, and what is gone is said.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

/// The next offset to read of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Next {
    /// Offset of the next record.
    pub offset: i64,
    /// Leader epoch of the record before it (KIP-320): by it the broker tells whether its log still is the one that was
    /// read. [`NO_EPOCH`] where none was read, or the broker names none.
    pub epoch: i32,
}

/// No leader epoch is known.
pub const NO_EPOCH: i32 = -1;

/// The next offsets to read, by partition.
pub type Offsets = BTreeMap<i32, Next>;

/// Adds `next` to `into`, the later offset winning.
pub fn merge(into: &mut Offsets, next: &Offsets) {
    for (&partition, &next) in next {
        let slot = into.entry(partition).or_insert(next);
        *slot = next.max(*slot);
    }
}

impl Next {
    /// An offset that no record was read before.
    pub fn at(offset: i64) -> Next {
        Next { offset, epoch: NO_EPOCH }
    }
}

/// What the user wants of a partition that the group has no offset of, or whose next record is gone: `auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// A partition without a commit begins at its start.
    Earliest,
    /// A partition without a commit begins with what comes from now on.
    Latest,
    /// A partition without a commit begins at its start; one whose records are gone ends the process.
    Error,
}

impl Reset {
    /// That of `base`; librdkafka has checked the value.
    pub fn of(base: &ClientConfig) -> Reset {
        match base.get("auto.offset.reset").map(str::trim) {
            Some("latest" | "largest" | "end") => Reset::Latest,
            Some("error") => Reset::Error,
            _ => Reset::Earliest,
        }
    }
}

/// Why records are missing between a position and where it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The log begins behind the position: retention (or a deletion) was faster.
    Deleted {
        /// How many offsets were not read.
        records: i64,
    },
    /// The log ends before the position, or another leader wrote it anew from before the position.
    Truncated,
    /// The topic was deleted, and another one has its name.
    Recreated,
}

impl Gone {
    /// How many records; 1 for a log that was cut short, where the number is unknown.
    pub fn records(self) -> u64 {
        if let Gone::Deleted { records } = self { records.unsigned_abs() } else { 1 }
    }

    /// For metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Gone::Deleted { .. } => "deleted",
            Gone::Truncated => "truncated",
            Gone::Recreated => "recreated",
        }
    }
}

/// What the group has committed of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub next: Next,
    /// It was committed of the topic that has this name now, as far as is known.
    pub is_of_this_topic: bool,
}

/// Where a partition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The next offset to read. With an epoch, the broker is asked whether its log still is the one that was read, and
    /// reading goes on where it is not.
    pub next: Next,
    /// What is gone, if anything is.
    pub gone: Option<Gone>,
}

/// Where a partition goes on whose log holds the offsets from `low` up to, and without, `high`. `committed` is `None`
/// where the group has no offset of it.
pub fn restart(committed: Option<Committed>, (low, high): (i64, i64), reset: Reset) -> Restart {
    let (next, gone) = match committed {
        None if reset == Reset::Latest => (Next::at(high), None),
        None => (Next::at(low), None),
        Some(Committed { is_of_this_topic: false, .. }) => (Next::at(low), Some(Gone::Recreated)),
        Some(Committed { next: Next { offset, .. }, .. }) if offset < low => {
            (Next::at(low), Some(Gone::Deleted { records: low - offset }))
        }
        Some(Committed { next: Next { offset, epoch: NO_EPOCH }, .. }) if offset > high => {
            (Next::at(low), Some(Gone::Truncated))
        }
        Some(Committed { next, .. }) => (next, None),
    };
    Restart { next, gone }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_that_the_log_holds_is_read_and_what_is_gone_is_said() {
        let log = (100, 200);
        for (offset, is_of_this_topic, reset, next, gone) in [
            (None, true, Reset::Earliest, 100, None),
            (None, true, Reset::Error, 100, None),
            (None, true, Reset::Latest, 200, None),
            (Some(150), true, Reset::Latest, 150, None),
            (Some(100), true, Reset::Earliest, 100, None),
            (Some(200), true, Reset::Earliest, 200, None),
            (Some(40), true, Reset::Earliest, 100, Some(Gone::Deleted { records: 60 })),
            (Some(40), true, Reset::Latest, 100, Some(Gone::Deleted { records: 60 })),
            (Some(201), true, Reset::Earliest, 100, Some(Gone::Truncated)),
            (Some(201), true, Reset::Latest, 100, Some(Gone::Truncated)),
            (Some(150), false, Reset::Earliest, 100, Some(Gone::Recreated)),
            (Some(40), false, Reset::Latest, 100, Some(Gone::Recreated)),
        ] {
            let committed = offset.map(|offset| Committed { next: Next::at(offset), is_of_this_topic });
            assert_eq!(
                restart(committed, log, reset),
                Restart { next: Next::at(next), gone },
                "{committed:?} {reset:?}"
            );
        }
        // The broker says where its log parts from the one that was read.
        let next = Next { offset: 201, epoch: 3 };
        let committed = Some(Committed { next, is_of_this_topic: true });
        assert_eq!(restart(committed, log, Reset::Latest), Restart { next, gone: None });
    }

    #[test]
    fn the_users_wish_is_read_in_all_its_spellings() {
        for (value, reset) in [
            ("smallest", Reset::Earliest),
            ("beginning", Reset::Earliest),
            ("end", Reset::Latest),
            ("error", Reset::Error),
        ] {
            assert_eq!(Reset::of(ClientConfig::new().set("auto.offset.reset", value)), reset);
        }
        assert_eq!(Reset::of(&ClientConfig::new()), Reset::Earliest);
    }

    #[test]
    fn offsets_only_advance() {
        let offsets =
            |all: [(i32, i64); 3]| all.map(|(partition, offset)| (partition, Next { offset, epoch: 2 })).into();
        let mut ready: Offsets = offsets([(0, 10), (1, 5), (2, 0)]);
        merge(&mut ready, &offsets([(0, 8), (1, 6), (2, 1)]));
        assert_eq!(ready, offsets([(0, 10), (1, 6), (2, 1)]));
        let later = Next { offset: 10, epoch: 3 };
        merge(&mut ready, &Offsets::from([(0, later)]));
        assert_eq!(ready[&0], later, "the same place, of a later leader");
    }
}
