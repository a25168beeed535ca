//! The archive: the rows that were sent, with their labels, as files by day of event time.
//!
//! ```text
//! row ─► Archive: a Part per day ─► [one part under way] ─► writer thread: encode ─► target: put whole
//!             └ all parts leave when a new day begins, when they hold 250,000 rows, and at the end
//! ```
//!
//! ```text
//! LOCATION/day=2026-01-31/part-RUN-0001.parquet      columns: transaction_id, event_time, features…, label, known_at
//! ```
//!
//! RUN is the seed (or the CSV file's name) and the first row's event time, so a run that is repeated replaces its own
//! files, and any other adds to them. A file appears whole or not at all: under its name in a folder only when it is
//! complete, in a bucket by one request.
//!
//! Encoding happens on a thread of its own, because the load must not pause for it. One part is filled while another is
//! written: at most 500,000 rows are in memory, 132 MB with 29 features. If writing is slower than the rows come, they wait.

#[cfg(not(feature = "archive"))]
mod absent;
mod columns;
#[cfg(feature = "archive")]
mod parquet_part;
#[cfg(feature = "archive")]
mod target;

use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::event_time::milliseconds;
use crate::source::{Row, Source, TransactionId};

#[cfg(not(feature = "archive"))]
use absent::{self as parquet_part, Target};
pub use columns::ArchiveFormat;
use fraud_storage::Location;
#[cfg(feature = "archive")]
use target::Target;

/// The most rows of a file: some 60 MB of Parquet with 29 features. A day of more is several files.
const PART_ROWS: usize = 250_000;

const DAY: i64 = 86_400_000;

/// Columns that every archive has; no feature may be called so.
const OWN_COLUMNS: [&str; 4] = [columns::TRANSACTION, columns::EVENT_TIME, columns::LABEL, columns::KNOWN_AT];

/// Why rows cannot be archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder or bucket does not take files, or the features do not fit an archive. Known before the first row.
    #[error("cannot write to --archive {location}: {reason}")]
    Unusable {
        /// As the user gave it.
        location: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be written during the run.
    #[error("--archive: {file} was not written: {reason}")]
    Unwritten {
        /// Path under the location.
        file: String,
        /// Why not.
        reason: String,
    },
    /// A row that has no place in an archive.
    #[error("--archive: {0}")]
    Row(String),
}

/// Where and how rows are archived.
#[derive(Clone, Debug)]
pub struct ArchiveSettings {
    /// A folder or bucket.
    pub location: Location,
    /// How files are written.
    pub format: ArchiveFormat,
    /// What names the run in its files' names, together with the first row's event time: letters, digits, `-` and `_`.
    pub run: String,
    /// Event time from a row to the moment at which its label is known.
    pub label_delay: Duration,
}

/// Rows of one day on their way into one file.
pub(crate) struct Part {
    transactions: Vec<TransactionId>,
    event_times: Vec<i64>,
    labels: Vec<u8>,
    /// Row after row.
    features: Vec<f64>,
    /// From event time to known_at, in milliseconds.
    label_delay: i64,
}

/// A part and the name of its file under the location.
struct Outgoing {
    file: String,
    part: Part,
}

/// An archive that rows are added to.
pub(crate) struct Archive {
    format: ArchiveFormat,
    location: Location,
    run: String,
    label_delay: i64,
    first_event_time: Option<i64>,
    /// The parts being filled, by day.
    parts: BTreeMap<i64, Part>,
    /// Rows in them together.
    waiting: usize,
    /// How many files a day has from this run.
    numbers: BTreeMap<i64, u32>,
    rows: u64,
    writer: Option<Writer>,
}

struct Writer {
    parts: SyncSender<Outgoing>,
    thread: JoinHandle<Result<(), ArchiveError>>,
}

/// What an archive came to.
pub(crate) struct Closed {
    /// Rows in whole files, when there is no error.
    pub(crate) rows: u64,
    pub(crate) error: Option<ArchiveError>,
}

impl Archive {
    /// Opens the location and makes sure that it takes files.
    pub(crate) fn open(settings: &ArchiveSettings, names: &[String]) -> Result<Archive, ArchiveError> {
        let unusable = |reason: String| ArchiveError::Unusable { location: settings.location.to_string(), reason };
        if let Some(name) = names.iter().find(|name| OWN_COLUMNS.contains(&name.as_str())) {
            return Err(unusable(format!(
                "a feature is called {name}, as one of the archive's own columns: rename it"
            )));
        }
        if names.is_empty() {
            return Err(unusable("the source's rows have no features: archive profile or csv rows".to_owned()));
        }
        let target = Target::open(&settings.location).map_err(unusable)?;
        target.probe(&settings.run).map_err(unusable)?;
        let (format, names) = (settings.format, names.to_vec());
        // No part waits in the channel: the one being written and those being filled are all there is.
        let (parts, outgoing) = sync_channel::<Outgoing>(0);
        let write = move || {
            for Outgoing { file, part } in outgoing {
                let written = columns::encode(format, &names, &part).and_then(|bytes| target.put(&file, bytes));
                written.map_err(|reason| ArchiveError::Unwritten { file, reason })?;
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(write);
        let thread = thread.map_err(|error| unusable(format!("no thread to write from: {error}")))?;
        Ok(Archive {
            format: settings.format,
            location: settings.location.clone(),
            run: settings.run.clone(),
            label_delay: milliseconds(settings.label_delay),
            first_event_time: None,
            parts: BTreeMap::new(),
            waiting: 0,
            numbers: BTreeMap::new(),
            rows: 0,
            writer: Some(Writer { parts, thread }),
        })
    }

    /// Where it is, for messages.
    pub(crate) fn location(&self) -> String {
        self.location.to_string()
    }

    /// Adds the row that the source has just given.
    pub(crate) fn add(&mut self, row: &Row, source: &dyn Source) -> Result<(), ArchiveError> {
        let (Some(transaction), Some(label)) = (row.transaction, row.label) else {
            return Err(ArchiveError::Row("the source has no labels: leave out --archive".to_owned()));
        };
        let day = row.event_time.div_euclid(DAY);
        self.first_event_time.get_or_insert(row.event_time);
        let is_new_day = self.parts.last_key_value().is_some_and(|(&latest, _)| day > latest);
        if is_new_day || self.waiting >= PART_ROWS {
            self.flush()?;
        }
        let label_delay = self.label_delay;
        let part = self.parts.entry(day).or_insert_with(|| Part::new(label_delay));
        part.transactions.push(transaction);
        part.event_times.push(row.event_time);
        part.labels.push(label);
        source.features(&mut part.features);
        self.waiting += 1;
        self.rows += 1;
        Ok(())
    }

    /// Writes what is left and waits until all of it is written.
    pub(crate) fn close(mut self) -> Closed {
        let flushed = self.flush();
        let finished = self.finish();
        Closed { rows: self.rows, error: flushed.and(finished).err() }
    }

    /// Hands all parts to the writer, the earliest day first.
    fn flush(&mut self) -> Result<(), ArchiveError> {
        self.waiting = 0;
        while let Some((day, part)) = self.parts.pop_first() {
            let number = self.numbers.entry(day).or_default();
            *number += 1;
            let date =
                date(day).ok_or_else(|| ArchiveError::Row(format!("event time is on no calendar: day {day}")))?;
            let (run, start) = (&self.run, self.first_event_time.unwrap_or_default());
            let file = format!("day={date}/part-{run}-{start}-{number:04}.{}", self.format.extension());
            let Some(writer) = &self.writer else { return Ok(()) };
            if writer.parts.send(Outgoing { file, part }).is_err() {
                // The writer ends early only with an error.
                return self.finish();
            }
        }
        Ok(())
    }

    /// Lets the writer end, and says how it did.
    fn finish(&mut self) -> Result<(), ArchiveError> {
        let Some(Writer { parts, thread }) = self.writer.take() else { return Ok(()) };
        drop(parts);
        thread.join().unwrap_or_else(|_| Err(ArchiveError::Row("the writer's thread panicked".to_owned())))
    }
}

impl Part {
    fn new(label_delay: i64) -> Part {
        Part {
            transactions: Vec::new(),
            event_times: Vec::new(),
            labels: Vec::new(),
            features: Vec::new(),
            label_delay,
        }
    }

    /// When each row's label becomes known, in milliseconds since 1970-01-01 UTC.
    fn known_at(&self) -> impl Iterator<Item = i64> {
        self.event_times.iter().map(|time| time.saturating_add(self.label_delay))
    }
}

/// `2026-01-31` for a number of days since 1970-01-01; `None` outside the years -9999 to 9999.
fn date(day: i64) -> Option<String> {
    let midnight = jiff::Timestamp::from_millisecond(day.checked_mul(DAY)?).ok()?;
    Some(midnight.to_zoned(jiff::tz::TimeZone::UTC).date().to_string())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
