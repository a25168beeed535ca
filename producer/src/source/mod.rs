//! Where transactions come from. Every source writes its next row into a [`Row`] whose buffer is used again; the row's
//! numbers, which only an archive asks for, are had by [`Source::features`].

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use uuid::Uuid;

mod csv;
mod drift;
mod json_lines;
mod normal;
mod profile;

pub use crate::event_time::EventTime;
pub use csv::{CsvSource, FILE_EPOCH_MILLISECONDS};
pub use drift::{Drift, DriftStart};
pub use json_lines::JsonLinesSource;
pub use profile::ProfileSource;
pub(crate) use profile::random_uuid;

/// Large enough that reading a file costs few system calls, small enough to stay in the cache.
const BUFFER_BYTES: usize = 256 * 1024;

/// The two JSON forms of a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// `{"transaction_id":"…","event_time":…,"V1":…,…}`
    #[default]
    Object,
    /// `{"columns":["V1",…],"data":[[…]]}`: smaller to parse, without id and time
    Split,
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file, `-` for standard input.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file's header does not name the columns.
    #[error("{}: {reason}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A row that is no transaction. The run ends there: what a file holds is sent whole or not silently in part.
    #[error("{} line {line}: {reason}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1, the header included (blank lines just before it are not).
        line: u64,
        /// The column and what is wrong with it.
        reason: String,
    },
    /// The profile cannot be drawn from as asked.
    #[error("{0}")]
    Profile(String),
}

/// What a transaction is called, as it is printed in its JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionId {
    /// A drawn transaction's.
    Uuid(Uuid),
    /// `row-1`, `row-2`, …: a file's rows.
    Row(u64),
}

impl fmt::Display for TransactionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransactionId::Uuid(uuid) => uuid.as_hyphenated().fmt(formatter),
            TransactionId::Row(row) => write!(formatter, "row-{row}"),
        }
    }
}

/// One transaction and what the producer knows about it.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The record's value.
    pub value: Vec<u8>,
    /// `None` where the value alone says it, or nothing does.
    pub transaction: Option<TransactionId>,
    /// When it happened, in milliseconds since 1970-01-01 UTC.
    pub event_time: i64,
    /// 1 for fraud, 0 for legitimate, where the source knows; never part of the value.
    pub label: Option<u8>,
}

/// A stream of transactions.
pub trait Source: Send {
    /// Replaces `row` by the next transaction and says true, or says false when there are no more. `event_time` is the
    /// moment at which the transaction happens, in milliseconds since 1970-01-01 UTC, unless the source knows better.
    ///
    /// # Errors
    /// [`SourceError`] when the next transaction cannot be read; the source is of no use afterwards.
    fn next(&mut self, event_time: i64, row: &mut Row) -> Result<bool, SourceError>;

    /// Whether rows say themselves when they happened, whatever `next` is told.
    fn has_event_times(&self) -> bool {
        false
    }

    /// Names of the features, in the order of [`Source::features`]; none where rows are opaque.
    fn names(&self) -> &[String] {
        &[]
    }

    /// Appends the last row's features to `values`, one per name.
    fn features(&self, values: &mut Vec<f64>) {
        _ = values;
    }
}

/// Opens a file, or standard input for `-`, and unpacks it when it is gzip, whatever its name says.
fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, SourceError> {
    let unreadable = |source| SourceError::Unreadable { path: path.to_owned(), source };
    let raw: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(unreadable)?)
    };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, raw);
    if reader.fill_buf().map_err(unreadable)?.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(reader))));
    }
    Ok(Box::new(reader))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A file with this content, gzipped or not.
    pub(super) fn file(content: &[u8], gzip: bool) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(&mut file, flate2::Compression::fast());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        } else {
            file.write_all(content).unwrap();
        }
        file
    }

    /// Everything a source has, with the event times 1000, 1001, … where it has none of its own.
    pub(super) fn drain_rows(source: &mut dyn Source) -> Result<Vec<Row>, SourceError> {
        let mut rows = Vec::new();
        let mut row = Row { value: b"left over".to_vec(), label: Some(7), ..Row::default() };
        while source.next(1_000 + rows.len() as i64, &mut row)? {
            rows.push(row.clone());
        }
        Ok(rows)
    }

    /// The values of [`drain_rows`].
    pub(super) fn drain(source: &mut dyn Source) -> Result<Vec<String>, SourceError> {
        Ok(drain_rows(source)?.into_iter().map(|row| String::from_utf8(row.value).unwrap()).collect())
    }
}
