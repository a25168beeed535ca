//! Where a partition goes on when the log does not have what comes next. Pure.
//!
//! librdkafka's own reset (`auto.offset.reset`) goes on somewhere in silence. This finds out what is missing between a
//! position and the log: every record that the log holds is scored, and what is gone is said.

use rdkafka::ClientConfig;

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

    /// What librdkafka is told: never to stop in the middle, where it could not be moved on any more.
    pub fn property(self) -> &'static str {
        if self == Reset::Latest { "latest" } else { "earliest" }
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
    /// The log ends before the position: it was cut short, or the topic was made anew.
    Truncated,
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
        }
    }
}

/// Where a partition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The next offset to read.
    pub offset: i64,
    /// What is gone, if anything is.
    pub gone: Option<Gone>,
}

/// Where a partition goes on whose log holds the offsets from `low` up to, and without, `high`. `position` is the next
/// offset to read, or the group's commit; `None` where there never was one.
pub fn restart(position: Option<i64>, (low, high): (i64, i64), reset: Reset) -> Restart {
    match position {
        None if reset == Reset::Latest => Restart { offset: high, gone: None },
        None => Restart { offset: low, gone: None },
        Some(position) if position < low => {
            Restart { offset: low, gone: Some(Gone::Deleted { records: low - position }) }
        }
        Some(position) if position > high => Restart { offset: low, gone: Some(Gone::Truncated) },
        Some(position) => Restart { offset: position, gone: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_that_the_log_holds_is_read_and_what_is_gone_is_said() {
        let log = (100, 200);
        for (position, reset, offset, gone) in [
            (None, Reset::Earliest, 100, None),
            (None, Reset::Error, 100, None),
            (None, Reset::Latest, 200, None),
            (Some(150), Reset::Latest, 150, None),
            (Some(100), Reset::Earliest, 100, None),
            (Some(200), Reset::Earliest, 200, None),
            (Some(40), Reset::Earliest, 100, Some(Gone::Deleted { records: 60 })),
            (Some(40), Reset::Latest, 100, Some(Gone::Deleted { records: 60 })),
            (Some(201), Reset::Earliest, 100, Some(Gone::Truncated)),
            (Some(201), Reset::Latest, 100, Some(Gone::Truncated)),
        ] {
            assert_eq!(restart(position, log, reset), Restart { offset, gone }, "{position:?} {reset:?}");
        }
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
}
