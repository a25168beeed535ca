//! Where transactions come from. Every source writes the next record's value into a buffer that is used again.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

mod csv;
mod json_lines;
mod normal;
mod profile;

pub use csv::{CsvSource, EventTime, FILE_EPOCH_MILLISECONDS};
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

/// A stream of transactions.
pub trait Source: Send {
    /// Replaces `value` by the next transaction's JSON and says true, or says false when there are no more.
    /// `send_time` is the moment the record is meant to be sent, in milliseconds since 1970-01-01 UTC.
    ///
    /// # Errors
    /// [`SourceError`] when the next transaction cannot be read; the source is of no use afterwards.
    fn next(&mut self, send_time: i64, value: &mut Vec<u8>) -> Result<bool, SourceError>;
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

    /// Everything a source has, with the send time 1000, 1001, …
    pub(super) fn drain(source: &mut dyn Source) -> Result<Vec<String>, SourceError> {
        let (mut values, mut value) = (Vec::new(), b"left over".to_vec());
        while source.next(1_000 + values.len() as i64, &mut value)? {
            values.push(String::from_utf8(value.clone()).unwrap());
        }
        Ok(values)
    }
}
