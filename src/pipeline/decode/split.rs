//! The split form: named columns and rows of values, as pandas and MLflow write them.

use fraud_wire::dead_letter::{ErrorClass, Rejection};

use super::fields::{event_time, transaction_id};
use super::{Decoder, EventTime, Message, RowMeta, Rows, TransactionId, reject, syntax, text_of};
use crate::pipeline::json::{Kind, Reader};

/// What a split message's column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Feature(usize),
    TransactionId,
    EventTime,
    Ignored,
}

impl Decoder {
    /// The rows of a split message whose columns are known.
    pub(super) fn split_rows(
        &mut self,
        data: &mut Reader<'_>,
        message: &Message<'_>,
        rows: &mut Rows,
    ) -> Result<(), Rejection> {
        rows.features.truncate(message.row_start);
        if data.kind() != Kind::Array {
            let found = data.kind().describe();
            return reject(ErrorClass::WrongShape, format!("data must be an array of rows, not {found}"));
        }
        data.eat(b'[');
        let mut number = 0;
        while syntax(data, |data| data.element(number == 0))? {
            if data.kind() != Kind::Array {
                let found = data.kind().describe();
                return reject(ErrorClass::WrongShape, format!("data[{number}] must be an array, not {found}"));
            }
            self.split_row(data, message.record, number, rows)?;
            number += 1;
        }
        if number == 0 { reject(ErrorClass::WrongShape, "data has no rows") } else { Ok(()) }
    }

    fn split_row(&mut self, data: &mut Reader<'_>, record: u32, number: u32, rows: &mut Rows) -> Result<(), Rejection> {
        let row_start = rows.features.len();
        rows.features.extend(self.features.iter().map(|feature| feature.default.unwrap_or(f32::NAN)));
        let mut meta =
            RowMeta { record, row: number, transaction_id: TransactionId::Absent, event_time: EventTime::Absent };
        data.eat(b'[');
        let mut width = 0;
        while syntax(data, |data| data.element(width == 0))? {
            match self.columns.get(width) {
                Some(&Column::Feature(feature)) => match self.number(data, feature)? {
                    Some(value) => rows.features[row_start + feature] = value,
                    None if self.features[feature].default.is_some() => {}
                    None => {
                        let message =
                            format!("{} is null in data[{number}] and has no default", self.features[feature].name);
                        return reject(ErrorClass::MissingFeature, message);
                    }
                },
                Some(Column::TransactionId) => meta.transaction_id = transaction_id(data)?,
                Some(Column::EventTime) => meta.event_time = event_time(data)?,
                Some(Column::Ignored) | None => syntax(data, |data| data.skip(3))?,
            }
            width += 1;
        }
        if width != self.columns.len() {
            let columns = self.columns.len();
            return reject(ErrorClass::WrongShape, format!("data[{number}] has {width} values, columns has {columns}"));
        }
        rows.meta.push(meta);
        Ok(())
    }

    /// Learns what each column of a split message holds.
    pub(super) fn columns(&mut self, mut reader: Reader<'_>) -> Result<(), Rejection> {
        self.stamp += 2;
        self.columns.clear();
        self.columns_text.clear();
        let start = reader.position();
        if reader.kind() != Kind::Array {
            let found = reader.kind().describe();
            return reject(ErrorClass::WrongShape, format!("columns must be an array of names, not {found}"));
        }
        reader.eat(b'[');
        while syntax(&mut reader, |reader| reader.element(self.columns.is_empty()))? {
            if reader.kind() != Kind::String {
                let (number, found) = (self.columns.len(), reader.kind().describe());
                return reject(ErrorClass::WrongShape, format!("columns[{number}] must be a name, not {found}"));
            }
            let name = text_of(syntax(&mut reader, |reader| reader.string())?)?;
            let column = match self.index.get(name.as_ref()) {
                Some(&feature) => {
                    if self.seen[feature] == self.stamp {
                        return reject(ErrorClass::WrongShape, format!("columns names {name} twice"));
                    }
                    self.seen[feature] = self.stamp;
                    Column::Feature(feature)
                }
                None if name == "transaction_id" => Column::TransactionId,
                None if name == "event_time" => Column::EventTime,
                None => Column::Ignored,
            };
            self.columns.push(column);
        }
        if let Some(missing) = self.missing_feature() {
            return reject(ErrorClass::MissingFeature, format!("columns lacks {missing}, which has no default"));
        }
        self.columns_text.extend_from_slice(reader.since(start));
        Ok(())
    }
}
