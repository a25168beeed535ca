//! One Parquet file under way: rows are gathered by column and leave as row groups into a spool file on the local disk.
//!
//! ```text
//! transaction_id string │ event_time int64, epoch ms │ a nullable double per feature │ score float │ decision string
//! │ label int8 model_name, model_version string │ verdict_partition int32 │ verdict_offset int64 │ source_partition
//! int32 │ source_offset int64
//! ```
//!
//! Features are null, all of a row together, where its input could not be read any more. Else they are the 32-bit
//! numbers that the model was given (defaults included), as doubles.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use fraud_wire::verdict::Verdict;
use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr};
use parquet::file::reader::{ChunkReader, FileReader as _, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, Type, TypePtr};

/// Rows of a row group: some 15 MB in memory with 29 features.
pub const GROUP_ROWS: usize = 65_536;

/// Rows of a finished file.
///
/// # Errors
/// It is no Parquet file.
pub fn rows(file: impl ChunkReader + 'static) -> Result<u64, ParquetError> {
    let rows = SerializedFileReader::new(file)?.metadata().file_metadata().num_rows();
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// Columns beside the features; no feature may be called so.
pub const OWN_COLUMNS: [&str; 12] = [
    "transaction_id",
    "event_time",
    "score",
    "decision",
    "label",
    "model_name",
    "model_version",
    "verdict_partition",
    "verdict_offset",
    "source_partition",
    "source_offset",
    // Not ours, but every reader of the layout gets them from the folders' names.
    "date",
];

/// What all files of an archive have in common.
#[derive(Clone)]
pub struct Layout {
    features: usize,
    schema: TypePtr,
    properties: WriterPropertiesPtr,
}

impl Layout {
    /// Files with these features' columns, in this order.
    ///
    /// # Errors
    /// A sentence, where a feature has the name of another column.
    pub fn new(features: &[String]) -> Result<Layout, String> {
        if let Some(name) = features.iter().find(|name| OWN_COLUMNS.contains(&name.as_str()) || *name == "hour") {
            return Err(format!("a feature is called {name}, as one of the archive's own columns"));
        }
        let schema = schema(features).map_err(|error| error.to_string())?;
        Ok(Layout { features: features.len(), schema, properties: Arc::new(properties().build()) })
    }
}

/// How files are written.
pub(super) fn properties() -> WriterPropertiesBuilder {
    // Doubles hardly repeat: a dictionary would be built only to be given up. These few words do.
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_created_by(concat!("fraud-scorer ", env!("CARGO_PKG_VERSION")).to_owned());
    for column in ["decision", "model_name", "model_version", "verdict_partition", "source_partition"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column), true);
    }
    properties
}

fn schema(features: &[String]) -> Result<TypePtr, ParquetError> {
    let column = |name: &str, physical: Physical, logical: Option<LogicalType>, repetition: Repetition| {
        let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let text = |name| column(name, Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::REQUIRED);
    let number = |name, physical| column(name, physical, None, Repetition::REQUIRED);
    let mut columns = vec![text("transaction_id")?, number("event_time", Physical::INT64)?];
    for name in features {
        columns.push(column(name, Physical::DOUBLE, None, Repetition::OPTIONAL)?);
    }
    columns.push(number("score", Physical::FLOAT)?);
    columns.push(text("decision")?);
    columns.push(column("label", Physical::INT32, Some(LogicalType::integer(8, true)), Repetition::REQUIRED)?);
    columns.extend([text("model_name")?, text("model_version")?]);
    columns.extend([number("verdict_partition", Physical::INT32)?, number("verdict_offset", Physical::INT64)?]);
    columns.extend([number("source_partition", Physical::INT32)?, number("source_offset", Physical::INT64)?]);
    Type::group_type_builder("verdicts").with_fields(columns).build().map(Arc::new)
}

/// A verdict's place on its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Partition of the verdicts' topic.
    pub partition: i32,
    /// Offset in it.
    pub offset: i64,
}

/// Rows that wait for their row group, by column.
#[derive(Default)]
struct Gathered {
    ids: Vec<ByteArray>,
    event_times: Vec<i64>,
    /// Row after row, of those rows that have features.
    features: Vec<f32>,
    /// Per row 1 where it has features: Parquet's definition level.
    present: Vec<i16>,
    scores: Vec<f32>,
    decisions: Vec<ByteArray>,
    labels: Vec<i32>,
    model_names: Vec<ByteArray>,
    model_versions: Vec<ByteArray>,
    verdict_partitions: Vec<i32>,
    verdict_offsets: Vec<i64>,
    source_partitions: Vec<i32>,
    source_offsets: Vec<i64>,
}

/// A file under way.
pub struct FileUnderWay {
    layout: Layout,
    /// Offset of its first verdict.
    pub first_offset: i64,
    /// Rows in it, those not yet spooled included.
    pub rows: u64,
    gathered: Gathered,
    writer: Option<SerializedFileWriter<File>>,
}

/// A finished file in the spool, without a name: it is gone when it is closed, however the process ends.
#[derive(Debug)]
pub struct Spooled {
    /// Its bytes, from the beginning.
    pub file: File,
    /// How many bytes.
    pub size: u64,
    /// Rows in it.
    pub rows: u64,
}

impl FileUnderWay {
    /// An empty file whose first verdict will be the one at `first_offset`. Takes no space on the disk yet.
    pub fn new(layout: &Layout, first_offset: i64) -> FileUnderWay {
        let gathered = Gathered::default();
        FileUnderWay { layout: layout.clone(), first_offset, rows: 0, gathered, writer: None }
    }

    /// Rows in memory.
    pub fn gathered(&self) -> usize {
        self.gathered.present.len()
    }

    /// Adds a row. `features` is `None` where the input is missing.
    pub fn add(&mut self, place: Place, verdict: &Verdict, features: Option<&[f32]>) {
        let rows = &mut self.gathered;
        rows.ids.push(verdict.transaction_id.as_str().into());
        rows.event_times.push(verdict.event_time);
        rows.present.push(i16::from(features.is_some()));
        rows.features.extend_from_slice(features.unwrap_or_default());
        rows.scores.push(verdict.score);
        repeat(&mut rows.decisions, verdict.decision.as_str());
        rows.labels.push(i32::from(verdict.label));
        repeat(&mut rows.model_names, &verdict.model.name);
        repeat(&mut rows.model_versions, &verdict.model.version);
        rows.verdict_partitions.push(place.partition);
        rows.verdict_offsets.push(place.offset);
        rows.source_partitions.push(verdict.source.partition);
        rows.source_offsets.push(verdict.source.offset);
        self.rows += 1;
    }

    /// Writes the gathered rows as a row group into the spool.
    ///
    /// # Errors
    /// The spool's disk is full, above all.
    pub fn flush(&mut self, spool: &Path) -> Result<(), ParquetError> {
        if self.gathered.present.is_empty() {
            return Ok(());
        }
        if self.writer.is_none() {
            let (schema, properties) = (self.layout.schema.clone(), self.layout.properties.clone());
            self.writer = Some(SerializedFileWriter::new(tempfile::tempfile_in(spool)?, schema, properties)?);
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let rows = std::mem::take(&mut self.gathered);
        let mut group = writer.next_row_group()?;
        write::<ByteArrayType>(&mut group, &rows.ids, None)?;
        write::<Int64Type>(&mut group, &rows.event_times, None)?;
        let mut column: Vec<f64> = Vec::with_capacity(rows.present.len());
        for feature in 0..self.layout.features {
            column.clear();
            column.extend(rows.features.iter().skip(feature).step_by(self.layout.features).copied().map(f64::from));
            write::<DoubleType>(&mut group, &column, Some(&rows.present))?;
        }
        write::<FloatType>(&mut group, &rows.scores, None)?;
        write::<ByteArrayType>(&mut group, &rows.decisions, None)?;
        write::<Int32Type>(&mut group, &rows.labels, None)?;
        write::<ByteArrayType>(&mut group, &rows.model_names, None)?;
        write::<ByteArrayType>(&mut group, &rows.model_versions, None)?;
        write::<Int32Type>(&mut group, &rows.verdict_partitions, None)?;
        write::<Int64Type>(&mut group, &rows.verdict_offsets, None)?;
        write::<Int32Type>(&mut group, &rows.source_partitions, None)?;
        write::<Int64Type>(&mut group, &rows.source_offsets, None)?;
        group.close().map(|_| ())
    }

    /// The file, whole.
    pub fn finish(mut self, spool: &Path) -> Result<Spooled, ParquetError> {
        self.flush(spool)?;
        let Some(writer) = self.writer else {
            return Err(ParquetError::General("a file without rows".to_owned()));
        };
        let file = writer.into_inner()?;
        let size = file.metadata()?.len();
        Ok(Spooled { file, size, rows: self.rows })
    }
}

/// Adds a value that is usually the one before: then they share memory.
fn repeat(column: &mut Vec<ByteArray>, value: &str) {
    let shared = column.last().filter(|last| last.data() == value.as_bytes()).cloned();
    column.push(shared.unwrap_or_else(|| value.into()));
}

/// Writes the next column of the row group.
pub(super) fn write<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[T::T],
    present: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let more = || ParquetError::General("more columns than the schema has".to_owned());
    let mut column = group.next_column()?.ok_or_else(more)?;
    column.typed::<T>().write_batch(values, present, None)?;
    column.close()
}

#[cfg(test)]
#[path = "columns_tests.rs"]
pub(super) mod tests;
