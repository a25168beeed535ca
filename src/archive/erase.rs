//! Rows of some transactions are taken out of an archive again: what `fraud-scorer archive erase` does.
//!
//! ```text
//!  list ─► file, not seen in this version ─► fetch ─► ids looked at ─┬ none of them: left alone
//!    ▲                                                               └ some: the other rows, in the spool ─► put
//!    └──────────────── again, until a list shows nothing new ◄──────────────────────────────────────────────┘
//! ```
//!
//! A file keeps its name, and its other rows their order, values and row groups. It takes the old one's place whole or
//! not at all, so a process that dies at any moment leaves whole files, each with all of its rows or without the erased
//! ones; the next run does the rest. A file whose rows all go stays, without rows: its name is a place in the topic.
//!
//! **Beside an archiver** that runs, files are added meanwhile. So the list is read again until it shows none that is new
//! or was written again; by this, each file that was rewritten here is read once more. Where an archiver goes on is the
//! group's committed offset. It never reads files, but for those of a cut that it has not committed: that cut it makes
//! again from the topic, with the erased rows, as long as the topic holds them.
//!
//! Memory: one column of one row group, and some bytes for each file.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use object_store::ObjectMeta;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader as _, RowGroupReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use tokio::runtime::Handle;

use super::columns::{self, Spooled};
use super::store::Store;
use crate::log_events::archive as events;

/// The column that is compared.
const ID: &str = "transaction_id";

/// Transaction ids whose rows go, as UTF-8.
pub type Ids = HashSet<Box<[u8]>>;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files that were looked through.
    pub files: u64,
    /// Files that were written again, or would be.
    pub rewritten: u64,
    /// Rows that are gone, or would be.
    pub rows: u64,
    /// Files that could not be read or written, lists included.
    pub failed: u64,
}

/// Takes rows out of the files of a store.
pub struct Eraser<'a> {
    /// The archive.
    pub store: &'a Store,
    /// Runs the store's calls; this thread is not one of its own.
    pub runtime: &'a Handle,
    /// Folder on a local disk for copies of files.
    pub spool: &'a Path,
    /// Whose rows go.
    pub ids: &'a Ids,
    /// Counts, and writes nothing.
    pub dry_run: bool,
}

impl Eraser<'_> {
    /// Looks through all files. What fails is logged and counted, and the others are dealt with.
    pub fn run(&self) -> Summary {
        let mut summary = Summary::default();
        // Hashes of path and version: an archive may have millions of files.
        let mut seen: HashMap<u64, u64> = HashMap::new();
        loop {
            let (mut list, mut is_new) = (self.store.list(), false);
            while let Some(object) = self.runtime.block_on(list.next()) {
                let object = match object {
                    Ok(object) => object,
                    Err(reason) => {
                        summary.failed += 1;
                        events::NotErased { file: "(the list)", reason: &reason }.log();
                        return summary;
                    }
                };
                let version = version(&object);
                let before = seen.insert(hash(&object.location), version);
                if before == Some(version) {
                    continue;
                }
                is_new = true;
                match self.file(&object) {
                    Ok(rows) => {
                        summary.files += u64::from(before.is_none());
                        summary.rewritten += u64::from(rows > 0);
                        summary.rows += rows;
                    }
                    Err(reason) => {
                        summary.failed += 1;
                        events::NotErased { file: object.location.as_ref(), reason: &reason }.log();
                    }
                }
            }
            if !is_new {
                return summary;
            }
        }
    }

    /// Deals with one file; the rows that were taken out.
    fn file(&self, object: &ObjectMeta) -> Result<u64, String> {
        let path = &object.location;
        // One that is gone meanwhile holds nothing.
        let Some(file) = self.runtime.block_on(self.store.fetch(path, self.spool))? else { return Ok(0) };
        match without(file, self.ids, self.spool).map_err(|error| error.to_string())? {
            None => Ok(0),
            Some((_, removed)) if self.dry_run => Ok(removed),
            Some((spooled, removed)) => {
                self.runtime.block_on(self.store.put(path, &spooled))?;
                Ok(removed)
            }
        }
    }
}

fn hash(value: impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Another number for another version of a file.
fn version(object: &ObjectMeta) -> u64 {
    hash((&object.e_tag, object.last_modified, object.size))
}

/// The file without the rows of these transactions, and how many those are; `None` where it has none of them.
fn without(file: File, ids: &Ids, spool: &Path) -> Result<Option<(Spooled, u64)>, ParquetError> {
    let reader = SerializedFileReader::new(file)?;
    let metadata = reader.metadata().file_metadata();
    let schema = metadata.schema_descr();
    let column = id_column(&reader)?;
    let mut is_concerned = false;
    for number in 0..reader.num_row_groups() {
        if kept(&*reader.get_row_group(number)?, column, ids)?.contains(&false) {
            is_concerned = true;
            break;
        }
    }
    if !is_concerned {
        return Ok(None);
    }
    let properties = columns::properties().set_key_value_metadata(metadata.key_value_metadata().cloned()).build();
    let spooled = tempfile::tempfile_in(spool)?;
    let mut writer = SerializedFileWriter::new(spooled, schema.root_schema_ptr(), Arc::new(properties))?;
    let (mut rows, mut removed) = (0, 0);
    for number in 0..reader.num_row_groups() {
        let group = reader.get_row_group(number)?;
        let kept = kept(&*group, column, ids)?;
        let left = kept.iter().filter(|kept| **kept).count();
        rows += left as u64;
        removed += (kept.len() - left) as u64;
        if left > 0 {
            let mut target = writer.next_row_group()?;
            for column in 0..group.num_columns() {
                copy(group.get_column_reader(column)?, &kept, &mut target)?;
            }
            target.close()?;
        }
    }
    let file = writer.into_inner()?;
    let size = file.metadata()?.len();
    Ok(Some((Spooled { file, size, rows }, removed)))
}

/// Place of the ids' column, in a file of plain columns.
fn id_column(reader: &SerializedFileReader<File>) -> Result<usize, ParquetError> {
    let schema = reader.metadata().file_metadata().schema_descr();
    if let Some(nested) =
        schema.columns().iter().find(|column| column.path().parts().len() > 1 || column.max_rep_level() > 0)
    {
        return Err(ParquetError::General(format!("its column {} is nested: no archive writes such", nested.path())));
    }
    let place = schema.columns().iter().position(|column| column.name() == ID);
    place.ok_or_else(|| ParquetError::General(format!("it has no column {ID}: is it a file of an archive?")))
}

/// For each row of a row group whether it stays.
fn kept(group: &dyn RowGroupReader, column: usize, ids: &Ids) -> Result<Vec<bool>, ParquetError> {
    let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
    let ColumnReader::ByteArrayColumnReader(reader) = group.get_column_reader(column)? else {
        return Err(ParquetError::General(format!("its column {ID} is no text")));
    };
    let (values, present) = read(reader, rows)?;
    let mut values = values.iter();
    let mut stays = |present: bool| !(present && values.next().is_some_and(|id| ids.contains(id.data())));
    Ok((0..rows).map(|row| stays(is_present(&present, row))).collect())
}

/// The values of a column's rows, without nulls; and per row 1 where it has one, nothing where all have.
fn read<T: DataType>(mut reader: ColumnReaderImpl<T>, rows: usize) -> Result<(Vec<T::T>, Vec<i16>), ParquetError> {
    let (mut values, mut present, mut done) = (Vec::with_capacity(rows), Vec::new(), 0);
    while done < rows {
        let (records, ..) = reader.read_records(rows - done, Some(&mut present), None, &mut values)?;
        if records == 0 {
            return Err(ParquetError::General(format!("a column ends after {done} of {rows} rows")));
        }
        done += records;
    }
    Ok((values, present))
}

fn is_present(present: &[i16], row: usize) -> bool {
    present.get(row).is_none_or(|level| *level > 0)
}

/// Writes what is kept of a column.
fn copy(
    column: ColumnReader,
    kept: &[bool],
    target: &mut SerializedRowGroupWriter<'_, File>,
) -> Result<(), ParquetError> {
    match column {
        ColumnReader::BoolColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::Int32ColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::Int64ColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::Int96ColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::FloatColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::DoubleColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::ByteArrayColumnReader(column) => copy_typed(column, kept, target),
        ColumnReader::FixedLenByteArrayColumnReader(column) => copy_typed(column, kept, target),
    }
}

fn copy_typed<T: DataType>(
    column: ColumnReaderImpl<T>,
    kept: &[bool],
    target: &mut SerializedRowGroupWriter<'_, File>,
) -> Result<(), ParquetError> {
    let (values, present) = read(column, kept.len())?;
    let mut values = values.into_iter();
    let (mut left, mut levels) = (Vec::with_capacity(kept.len()), Vec::new());
    for (row, kept) in kept.iter().enumerate() {
        let value = if is_present(&present, row) { values.next() } else { None };
        if *kept {
            left.extend(value);
            levels.extend(present.get(row));
        }
    }
    columns::write::<T>(target, &left, (!present.is_empty()).then_some(levels.as_slice()))
}

#[cfg(test)]
#[path = "erase_tests.rs"]
mod tests;
