//! The split form: named columns and rows of values, as pandas and MLflow write them.

use std::collections::HashMap;

use fraud_wire::dead_letter::{ErrorClass, Rejection};

use super::fields::{event_time, transaction_id};
use super::seen::Seen;
use super::{Decoder, EventTime, Feature, Message, RowMeta, Rows, TransactionId, reject, syntax, text_of};
use crate::pipeline::json::{Kind, Reader};

/// What a split message's column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Feature(usize),
    TransactionId,
    EventTime,
    Ignored,
}

/// The columns of the last split message, and their bytes: writers repeat themselves, so the next message's are compared
/// with them before they are parsed.
#[derive(Debug)]
pub(super) struct Columns {
    list: Vec<Column>,
    /// Empty, or exactly one JSON value.
    text: Vec<u8>,
    seen: Seen,
}

impl Columns {
    /// No columns yet, of `features` features.
    pub(super) fn new(features: usize) -> Self {
        Columns { list: Vec::new(), text: Vec::new(), seen: Seen::new(features) }
    }

    /// What each column holds.
    pub(super) fn list(&self) -> &[Column] {
        &self.list
    }

    /// Their bytes, as the last message spelled them.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// Learns what each column of a split message holds.
    fn read(
        &mut self,
        reader: &mut Reader<'_>,
        features: &[Feature],
        index: &HashMap<String, usize>,
    ) -> Result<(), Rejection> {
        if !self.text.is_empty() && reader.eat_exactly(&self.text) {
            return Ok(());
        }
        self.seen.forget();
        self.list.clear();
        self.text.clear();
        let start = reader.position();
        if reader.kind() != Kind::Array {
            let found = reader.kind().describe();
            return reject(ErrorClass::WrongShape, format!("columns must be an array of names, not {found}"));
        }
        reader.eat(b'[');
        while syntax(reader, |reader| reader.element(self.list.is_empty()))? {
            if reader.kind() != Kind::String {
                let (number, found) = (self.list.len(), reader.kind().describe());
                return reject(ErrorClass::WrongShape, format!("columns[{number}] must be a name, not {found}"));
            }
            let name = text_of(syntax(reader, |reader| reader.string())?)?;
            let column = match index.get(name.as_ref()) {
                Some(&feature) => {
                    if self.seen.is(feature) {
                        return reject(ErrorClass::WrongShape, format!("columns names {name} twice"));
                    }
                    self.seen.add(feature, true);
                    Column::Feature(feature)
                }
                None if name == "transaction_id" => Column::TransactionId,
                None if name == "event_time" => Column::EventTime,
                None => Column::Ignored,
            };
            self.list.push(column);
        }
        if let Some(missing) = self.seen.missing(features) {
            return reject(ErrorClass::MissingFeature, format!("columns lacks {missing}, which has no default"));
        }
        self.text.extend_from_slice(reader.since(start));
        Ok(())
    }
}

impl Decoder {
    /// The rows of a message that has both columns and data; returns a reader behind them.
    pub(super) fn split_rows<'a>(
        &mut self,
        message: &mut Message<'a>,
        rows: &mut Rows,
    ) -> Result<Reader<'a>, Rejection> {
        let (Some(columns), Some((data, depth))) = (&mut message.columns, &message.data) else {
            return reject(ErrorClass::UnknownSchema, "a split message must hold columns and data");
        };
        self.columns.read(columns, &self.features, &self.index)?;
        let (mut data, depth) = (data.clone(), *depth);
        message.decoded = true;
        rows.features.truncate(message.row_start);
        if data.kind() != Kind::Array {
            let found = data.kind().describe();
            return reject(ErrorClass::WrongShape, format!("data must be an array of rows, not {found}"));
        }
        data.eat(b'[');
        let mut number = 0;
        while syntax(&mut data, |data| data.element(number == 0))? {
            if data.kind() != Kind::Array {
                let found = data.kind().describe();
                return reject(ErrorClass::WrongShape, format!("data[{number}] must be an array, not {found}"));
            }
            let meta = RowMeta {
                record: message.record,
                row: number,
                transaction_id: TransactionId::Absent,
                event_time: EventTime::Absent,
            };
            self.split_row(&mut data, depth, meta, rows)?;
            number += 1;
            if rows.features.len() - message.row_start > self.most_features {
                let bytes = self.most_features * size_of::<f32>();
                let message = format!("data has rows of more than {bytes} bytes of features; send it in parts");
                return reject(ErrorClass::TooLarge, message);
            }
        }
        if number == 0 { reject(ErrorClass::WrongShape, "data has no rows") } else { Ok(data) }
    }

    fn split_row(
        &self,
        data: &mut Reader<'_>,
        depth: u32,
        mut meta: RowMeta,
        rows: &mut Rows,
    ) -> Result<(), Rejection> {
        let row_start = rows.features.len();
        rows.features.extend_from_slice(&self.defaults);
        let columns = self.columns.list();
        data.eat(b'[');
        let mut width = 0;
        while syntax(data, |data| data.element(width == 0))? {
            match columns.get(width) {
                Some(&Column::Feature(feature)) => match self.number(data, feature)? {
                    Some(value) => rows.features[row_start + feature] = value,
                    None if self.features[feature].default.is_some() => {}
                    None => {
                        let message =
                            format!("{} is null in data[{}] and has no default", self.features[feature].name, meta.row);
                        return reject(ErrorClass::MissingFeature, message);
                    }
                },
                Some(Column::TransactionId) => meta.transaction_id = transaction_id(data)?,
                Some(Column::EventTime) => meta.event_time = event_time(data)?,
                // The object, data and the row are open around it.
                Some(Column::Ignored) | None => syntax(data, |data| data.skip(depth + 3))?,
            }
            width += 1;
        }
        if width != columns.len() {
            let message = format!("data[{}] has {width} values, columns has {}", meta.row, columns.len());
            return reject(ErrorClass::WrongShape, message);
        }
        rows.meta.push(meta);
        Ok(())
    }
}
