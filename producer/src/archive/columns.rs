//! A part as the bytes of a Parquet or CSV file.
//!
//! ```text
//! transaction_id string │ event_time int64, epoch ms │ one double per feature │ label int8, 0 or 1 │ known_at int64, epoch ms
//! ```
//!
//! No value is ever missing. Rows are in the order in which they were sent.

use super::{Part, parquet_part};
use std::io::Write as _;

pub(super) const TRANSACTION: &str = "transaction_id";
pub(super) const EVENT_TIME: &str = "event_time";
pub(super) const LABEL: &str = "label";
pub(super) const KNOWN_AT: &str = "known_at";

/// How an archive's files are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ArchiveFormat {
    /// Apache Parquet, compressed with Snappy
    #[default]
    Parquet,
    /// Comma-separated values with a header
    Csv,
}

impl ArchiveFormat {
    pub(super) fn extension(self) -> &'static str {
        match self {
            ArchiveFormat::Parquet => "parquet",
            ArchiveFormat::Csv => "csv",
        }
    }
}

/// A whole file. `names` are the features'.
pub(super) fn encode(format: ArchiveFormat, names: &[String], part: &Part) -> Result<Vec<u8>, String> {
    match format {
        ArchiveFormat::Parquet => parquet_part::encode(names, part).map_err(|error| error.to_string()),
        ArchiveFormat::Csv => csv(names, part).map_err(|error| error.to_string()),
    }
}

fn csv(names: &[String], part: &Part) -> std::io::Result<Vec<u8>> {
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    let own = |name: &'static str| std::iter::once(name);
    let features = names.iter().map(String::as_str);
    writer.write_record(own(TRANSACTION).chain(own(EVENT_TIME)).chain(features).chain([LABEL, KNOWN_AT]))?;
    // Below the header there is nothing to quote: identifiers are uuids or row-N, all else is numbers.
    let mut bytes = writer.into_inner().map_err(|error| error.into_error())?;
    for (index, (features, known_at)) in part.features.chunks(names.len()).zip(part.known_at()).enumerate() {
        write!(bytes, "{},{}", part.transactions[index], part.event_times[index])?;
        for feature in features {
            write!(bytes, ",{feature}")?;
        }
        writeln!(bytes, ",{},{known_at}", part.labels[index])?;
    }
    Ok(bytes)
}
