//! Cuts: which verdicts of a partition go into files together, and what those files are called. Pure: no clock, no I/O.
//!
//! A cut is a range of verdict offsets of one partition, from the committed offset to another. Where it ends is written
//! down (as the note beside the committed offset) before its first file is, so a cut that was begun and not finished
//! has the same rows, and therefore the same files, whoever does it again.

use std::time::Duration;

/// The hours whose folders can be named: of the years 1 to 9999.
const FIRST_HOUR: i64 = -62_135_596_800 / 3600;
const LAST_HOUR: i64 = 253_402_300_799 / 3600;

const HOUR_MILLISECONDS: i64 = 3_600_000;

/// What the note beside a committed offset begins with.
const NOTE: &str = "archive until ";

/// When a cut is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutPolicy {
    /// At so many verdicts.
    pub rows: u64,
    /// When its verdicts span so much time, by their records' timestamps.
    pub time: Duration,
    /// At so many files: traffic whose event times are all over the calendar would otherwise keep one per hour open.
    pub files: usize,
}

/// The verdicts of a cut so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first.
    pub first: i64,
    /// Offset behind the last.
    pub next: i64,
    /// How many, those that are no verdicts included.
    pub records: u64,
    /// Earliest and latest of their records' timestamps, epoch milliseconds.
    earliest: i64,
    latest: i64,
}

impl Span {
    /// A span of one record.
    pub fn of(offset: i64, timestamp: i64) -> Span {
        Span { first: offset, next: offset + 1, records: 1, earliest: timestamp, latest: timestamp }
    }

    /// Takes the next record in.
    pub fn add(&mut self, offset: i64, timestamp: i64) {
        self.next = offset + 1;
        self.records += 1;
        self.earliest = self.earliest.min(timestamp);
        self.latest = self.latest.max(timestamp);
    }

    /// Epoch milliseconds of its earliest record.
    pub fn earliest(&self) -> i64 {
        self.earliest
    }
}

/// The rest of the world at the moment of the question.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Epoch milliseconds.
    pub now: i64,
    /// How long this process has had the cut open.
    pub open_for: Duration,
    /// Everything that is on the topic has been read.
    pub caught_up: bool,
}

impl CutPolicy {
    /// Whether the cut is closed before it takes another record.
    ///
    /// Behind a backlog time is that of the verdicts and not the clock's: an hour's verdicts make as many files when
    /// they are read in a minute. The clock only closes what would else wait for traffic that does not come.
    pub fn is_due(&self, span: &Span, files: usize, moment: Option<Moment>) -> bool {
        let limit = i64::try_from(self.time.as_millis()).unwrap_or(i64::MAX);
        span.records >= self.rows
            || files >= self.files
            || span.latest.saturating_sub(span.earliest) >= limit
            || moment.is_some_and(|moment| {
                let age = moment.now.saturating_sub(span.earliest);
                moment.open_for >= self.time || (moment.caught_up && age >= limit)
            })
    }
}

/// A cut that was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Offset behind its last verdict.
    pub until: i64,
    /// Rows of its files together; `None` where an earlier version wrote it down.
    pub rows: Option<u64>,
}

/// The note that plans a cut.
pub fn plan(until: i64, rows: u64) -> String {
    format!("{NOTE}{until} rows {rows}")
}

/// The cut that the note plans from `first` on, if it does.
pub fn planned(note: &str, first: i64) -> Option<Plan> {
    let (until, rows) = match note.strip_prefix(NOTE)?.split_once(" rows ") {
        Some((until, rows)) => (until, Some(rows.parse().ok()?)),
        None => (note.strip_prefix(NOTE)?, None),
    };
    until.parse().ok().filter(|until| *until > first).map(|until| Plan { until, rows })
}

/// The hour of an event time, in hours since 1970. Times beyond the calendar go to its first or last hour, so that no
/// verdict is without a place.
pub fn hour(event_time: i64) -> i64 {
    event_time.div_euclid(HOUR_MILLISECONDS).clamp(FIRST_HOUR, LAST_HOUR)
}

/// Path of a file below the archive's location.
pub fn path(hour: i64, topic: &str, partition: i32, first_offset: i64) -> String {
    format!("{}/{}{first_offset:020}{EXTENSION}", folder(hour), stem(topic, partition))
}

/// What a file's name ends with.
const EXTENSION: &str = ".parquet";

/// What the names of a partition's files begin with.
fn stem(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition:05}-")
}

/// Offset of the first verdict in a file of this name, if it is one of the partition's.
pub fn first_offset(name: &str, topic: &str, partition: i32) -> Option<i64> {
    name.strip_prefix(&stem(topic, partition))?.strip_suffix(EXTENSION)?.parse().ok()
}

/// Whether a file of this name is one of an archive. While it is written, it has another one.
pub fn is_finished(name: &str) -> bool {
    name.ends_with(EXTENSION)
}

/// Folder of an hour's files, below the archive's location.
pub fn folder(hour: i64) -> String {
    let of_day = hour.rem_euclid(24);
    // Within the calendar by `hour`; the default is never seen.
    let days = jiff::Span::new().try_days(hour.div_euclid(24));
    let date = days.and_then(|days| jiff::civil::date(1970, 1, 1).checked_add(days)).unwrap_or_default();
    format!("date={date}/hour={of_day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: CutPolicy = CutPolicy { rows: 3, time: Duration::from_secs(60), files: 4 };

    fn moment(now: i64, open_for: u64, caught_up: bool) -> Option<Moment> {
        Some(Moment { now, open_for: Duration::from_secs(open_for), caught_up })
    }

    #[test]
    fn a_cut_is_closed_by_its_rows_its_files_or_the_time_of_its_verdicts() {
        let mut span = Span::of(10, 1_000);
        assert!(!POLICY.is_due(&span, 1, None));
        assert!(POLICY.is_due(&span, 4, None), "too many files");
        span.add(15, 60_999);
        assert!(!POLICY.is_due(&span, 1, None));
        assert_eq!((span.first, span.next, span.records), (10, 16, 2));
        let mut wide = span;
        wide.add(16, 61_000);
        assert!(CutPolicy { rows: 100, ..POLICY }.is_due(&wide, 1, None), "a minute of verdicts");
        span.add(16, 500);
        assert!(POLICY.is_due(&span, 1, None), "three records");
    }

    #[test]
    fn the_clock_closes_only_what_nothing_is_added_to() {
        let span = Span::of(0, 1_000);
        assert!(!POLICY.is_due(&span, 1, moment(60_999, 1, true)));
        assert!(POLICY.is_due(&span, 1, moment(61_000, 1, true)));
        assert!(!POLICY.is_due(&span, 1, moment(9_000_000, 1, false)), "behind a backlog the verdicts' time counts");
        assert!(POLICY.is_due(&span, 1, moment(0, 60, false)), "whatever the clocks of others say");
        assert!(!POLICY.is_due(&Span::of(0, i64::MAX), 1, moment(i64::MIN, 1, true)), "no overflow");
    }

    #[test]
    fn a_plan_reads_back_and_nothing_else_is_one() {
        assert_eq!(planned(&plan(917, 20), 916), Some(Plan { until: 917, rows: Some(20) }));
        assert_eq!(planned("archive until 917", 916), Some(Plan { until: 917, rows: None }));
        let (over, half) = (plan(5, 1), "archive until 9 rows x");
        for (note, first) in
            [("", 0), ("917", 0), ("archive until ", 0), ("archive until x", 0), (half, 0), (over.as_str(), 5)]
        {
            assert_eq!(planned(note, first), None, "{note:?}");
        }
    }

    #[test]
    fn files_are_named_by_hour_topic_partition_and_first_offset() {
        let path = |time| path(hour(time), "verdicts", 3, 917);
        let name = "verdicts-00003-00000000000000000917.parquet";
        assert_eq!(first_offset(name, "verdicts", 3), Some(917));
        for (topic, partition) in [("verdicts", 2), ("verdict", 3), ("verdicts-00003", 3)] {
            assert_eq!(first_offset(name, topic, partition), None);
        }
        assert_eq!(path(1_700_000_000_000), format!("date=2023-11-14/hour=22/{name}"));
        assert_eq!(path(0), format!("date=1970-01-01/hour=00/{name}"));
        assert_eq!(path(-1), format!("date=1969-12-31/hour=23/{name}"));
        assert_eq!(path(i64::MAX), format!("date=9999-12-31/hour=23/{name}"));
        assert_eq!(path(i64::MIN), format!("date=0001-01-01/hour=00/{name}"));
    }
}
