//! A part as the bytes of a Parquet file.

use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::Part;
use super::columns::{EVENT_TIME, KNOWN_AT, LABEL, TRANSACTION};

/// A whole file. `names` are the features'.
pub(super) fn encode(names: &[String], part: &Part) -> Result<Vec<u8>, ParquetError> {
    // The doubles hardly repeat: dictionaries would be built only to be given up.
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_created_by(concat!("fraud-producer ", env!("CARGO_PKG_VERSION")).to_owned());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema(names)?, Arc::new(properties.build()))?;
    let mut rows = writer.next_row_group()?;

    let mut identifiers = Vec::with_capacity(part.transactions.len());
    for transaction in &part.transactions {
        identifiers.push(ByteArray::from(transaction.to_string().into_bytes()));
    }
    write::<ByteArrayType>(&mut rows, &identifiers)?;
    write::<Int64Type>(&mut rows, &part.event_times)?;
    let mut column = Vec::with_capacity(part.transactions.len());
    for feature in 0..names.len() {
        column.clear();
        column.extend(part.features.iter().skip(feature).step_by(names.len()));
        write::<DoubleType>(&mut rows, &column)?;
    }
    let labels: Vec<i32> = part.labels.iter().map(|&label| label.into()).collect();
    write::<Int32Type>(&mut rows, &labels)?;
    let known_at: Vec<i64> = part.known_at().collect();
    write::<Int64Type>(&mut rows, &known_at)?;
    rows.close()?;
    writer.into_inner()
}

/// Writes the next column of the row group.
fn write<T: parquet::data_type::DataType>(
    rows: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
) -> Result<(), ParquetError> {
    let mut column =
        rows.next_column()?.ok_or_else(|| ParquetError::General("more columns than the schema has".to_owned()))?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

fn schema(names: &[String]) -> Result<TypePtr, ParquetError> {
    let column = |name: &str, physical: Physical, logical: Option<LogicalType>| {
        let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let mut columns = vec![
        column(TRANSACTION, Physical::BYTE_ARRAY, Some(LogicalType::String))?,
        column(EVENT_TIME, Physical::INT64, None)?,
    ];
    for name in names {
        columns.push(column(name, Physical::DOUBLE, None)?);
    }
    columns.push(column(LABEL, Physical::INT32, Some(LogicalType::integer(8, true)))?);
    columns.push(column(KNOWN_AT, Physical::INT64, None)?);
    Type::group_type_builder("transactions").with_fields(columns).build().map(Arc::new)
}
