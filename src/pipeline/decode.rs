//! Decode: one record's bytes become feature rows, or a [`Rejection`] that names the field.
//!
//! ```text
//!  payload ──► object form ─┐
//!          └─► split form  ─┴─► Rows { features: row-major f32, one RowMeta per row }
//! ```
//!
//! A message is decoded whole or rejected whole: on a rejection the rows it had already added are taken back.
//! Nothing here allocates for a good record; ids stay byte ranges of the payload until the verdict is written.

use std::collections::HashMap;
use std::ops::Range;

use fraud_wire::dead_letter::{ErrorClass, Rejection};

mod fields;
mod split;
#[cfg(test)]
mod tests;

use fields::{event_time, transaction_id};
use split::Column;

use super::json::{Kind, MAX_DEPTH, RawString, Reader, SyntaxError};

/// A feature as the bundle's manifest lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    /// Its key in the transaction.
    pub name: String,
    /// Used where the transaction lacks it or has null; `None`: required.
    pub default: Option<f32>,
}

/// Keys of a transaction that mean something else than a feature.
pub const RESERVED_KEYS: [&str; 5] = ["transaction_id", "event_time", "columns", "data", "dataframe_split"];

/// Where a row's transaction id comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TransactionId {
    /// The transaction had none: `topic-partition-offset-row` takes its place.
    #[default]
    Absent,
    /// Bytes of the payload, valid as the inside of a JSON string.
    Payload(Range<u32>),
}

/// Where a row's event time comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventTime {
    /// The transaction had none: the record's Kafka timestamp takes its place.
    #[default]
    Absent,
    /// Epoch milliseconds.
    Milliseconds(i64),
}

/// What a verdict needs of a row beside its score.
#[derive(Clone, Debug)]
pub struct RowMeta {
    /// Index of the record in the batch.
    pub record: u32,
    /// Row within the message.
    pub row: u32,
    /// The transaction's id.
    pub transaction_id: TransactionId,
    /// The transaction's time.
    pub event_time: EventTime,
}

/// Decoded rows of a batch, in input order; reused from batch to batch.
#[derive(Debug, Default)]
pub struct Rows {
    /// Row-major, `width` features a row.
    pub features: Vec<f32>,
    /// One per row.
    pub meta: Vec<RowMeta>,
}

impl Rows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.meta.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.meta.is_empty()
    }

    /// Forgets the rows, keeps the memory.
    pub fn clear(&mut self) {
        self.features.clear();
        self.meta.clear();
    }
}

/// Turns payloads into rows of one bundle's features.
#[derive(Debug)]
pub struct Decoder {
    features: Vec<Feature>,
    index: HashMap<String, usize>,
    max_bytes: usize,
    /// `seen[i] == stamp`: feature `i` was read in this row (or column list).
    seen: Vec<u64>,
    stamp: u64,
    /// What the columns of the last split message held, and its bytes: writers repeat themselves, so the next message
    /// is compared with them before it is parsed.
    columns: Vec<Column>,
    columns_text: Vec<u8>,
}

impl Decoder {
    /// A decoder of `features`, in the model's column order; payloads over `max_bytes` are rejected unread.
    pub fn new(features: &[Feature], max_bytes: usize) -> Self {
        let index = features.iter().enumerate().map(|(i, feature)| (feature.name.clone(), i)).collect();
        Decoder {
            features: features.to_vec(),
            index,
            max_bytes,
            seen: vec![0; features.len()],
            stamp: 0,
            columns: Vec::new(),
            columns_text: Vec::new(),
        }
    }

    /// Number of features a row has.
    pub fn width(&self) -> usize {
        self.features.len()
    }

    /// Appends the rows of one record (the `record`-th of its batch) to `rows`; returns how many. `None` is a
    /// tombstone.
    pub fn decode(&mut self, payload: Option<&[u8]>, record: u32, rows: &mut Rows) -> Result<usize, Rejection> {
        let (features, meta) = (rows.features.len(), rows.meta.len());
        let outcome = self.decode_message(payload, record, rows);
        if outcome.is_err() {
            rows.features.truncate(features);
            rows.meta.truncate(meta);
        }
        outcome.map(|()| rows.meta.len() - meta)
    }

    fn decode_message(&mut self, payload: Option<&[u8]>, record: u32, rows: &mut Rows) -> Result<(), Rejection> {
        let Some(bytes) = payload else {
            return reject(ErrorClass::MalformedJson, "the record has no value (a tombstone)");
        };
        if bytes.len() > self.max_bytes {
            let message = format!("the value has {} bytes, the limit is {}", bytes.len(), self.max_bytes);
            return reject(ErrorClass::TooLarge, message);
        }
        let mut reader = Reader::new(bytes);
        match reader.kind() {
            Kind::Object => self.message(reader, record, rows),
            Kind::Nothing if reader.rest().is_empty() => reject(ErrorClass::MalformedJson, "the value is empty"),
            kind => {
                syntax(&mut reader, |reader| reader.skip(0).and_then(|()| reader.end()))?;
                reject(ErrorClass::UnknownSchema, format!("expected a JSON object, found {}", kind.describe()))
            }
        }
    }

    /// The outermost object. Whether it is the object form or the split form shows by its keys.
    fn message(&mut self, mut reader: Reader<'_>, record: u32, rows: &mut Rows) -> Result<(), Rejection> {
        let mut message = Message { record, row_start: rows.features.len(), ..Message::default() };
        let meta_start = rows.meta.len();
        self.stamp += 2;
        rows.features.extend(self.features.iter().map(|feature| feature.default.unwrap_or(f32::NAN)));
        self.members(&mut reader, 0, &mut message, rows)?;
        syntax(&mut reader, |reader| reader.end())?;

        match message.form()? {
            Form::Split { decoded: true, .. } => {}
            Form::Split { columns, mut data, .. } => {
                self.columns(columns)?;
                self.split_rows(&mut data, &message, rows)?;
            }
            Form::Object => {
                if let Some(missing) = self.missing_feature() {
                    let message = format!("{missing} is missing or null and has no default");
                    return reject(ErrorClass::MissingFeature, message);
                }
                rows.meta.push(RowMeta {
                    record,
                    row: 0,
                    transaction_id: TransactionId::Absent,
                    event_time: EventTime::Absent,
                });
            }
        }
        // What the message says holds for the rows that do not say it themselves.
        for meta in &mut rows.meta[meta_start..] {
            if meta.transaction_id == TransactionId::Absent {
                meta.transaction_id = message.transaction_id.clone();
            }
            if meta.event_time == EventTime::Absent {
                meta.event_time = message.event_time;
            }
        }
        Ok(())
    }

    /// The members of the outermost object, or (at depth 1) of its `dataframe_split`.
    fn members<'a>(
        &mut self,
        reader: &mut Reader<'a>,
        depth: u32,
        message: &mut Message<'a>,
        rows: &mut Rows,
    ) -> Result<(), Rejection> {
        reader.eat(b'{');
        let mut first = true;
        // Keys usually come in the model's own order: look at the expected one before searching.
        let mut expected = 0;
        while let Some(key) = syntax(reader, |reader| reader.key(first))? {
            first = false;
            let name = text_of(key)?;
            if self.features.get(expected).is_some_and(|feature| feature.name == name) {
                self.feature(reader, expected, message, rows)?;
                expected += 1;
                continue;
            }
            match name.as_ref() {
                "transaction_id" => {
                    once(message.id_seen, "transaction_id")?;
                    message.id_seen = true;
                    message.transaction_id = transaction_id(reader)?;
                }
                "event_time" => {
                    once(message.time_seen, "event_time")?;
                    message.time_seen = true;
                    message.event_time = event_time(reader)?;
                }
                "columns" => {
                    once(message.columns.is_some(), "columns")?;
                    reader.space();
                    message.columns = Some(reader.clone());
                    message.columns_known = !self.columns_text.is_empty() && reader.eat_exactly(&self.columns_text);
                    if !message.columns_known {
                        syntax(reader, |reader| reader.skip(depth + 1))?;
                    }
                }
                "data" => {
                    once(message.data.is_some(), "data")?;
                    message.data = Some(reader.clone());
                    if message.columns_known {
                        // The usual split message: its rows can be read in passing.
                        self.split_rows(reader, message, rows)?;
                        message.decoded = true;
                    } else {
                        syntax(reader, |reader| reader.skip(depth + 1))?;
                    }
                }
                "dataframe_split" if depth == 0 => {
                    once(message.wrapped, "dataframe_split")?;
                    message.wrapped = true;
                    if reader.kind() == Kind::Object {
                        self.members(reader, 1, message, rows)?;
                    } else {
                        syntax(reader, |reader| reader.skip(depth + 1))?;
                    }
                }
                other => match self.index.get(other).copied() {
                    Some(feature) => {
                        self.feature(reader, feature, message, rows)?;
                        expected = feature + 1;
                    }
                    None => syntax(reader, |reader| reader.skip(depth + 1))?,
                },
            }
        }
        Ok(())
    }

    /// The value of a feature's key in the object form.
    #[inline]
    fn feature(
        &mut self,
        reader: &mut Reader<'_>,
        feature: usize,
        message: &Message<'_>,
        rows: &mut Rows,
    ) -> Result<(), Rejection> {
        let twice = self.seen[feature] == self.stamp || self.seen[feature] == self.stamp + NULL;
        once(twice, &self.features[feature].name)?;
        self.seen[feature] = self.stamp;
        match self.number(reader, feature)? {
            // Beside a split message's rows it means nothing, but is judged all the same.
            Some(_) if message.decoded => {}
            Some(value) => rows.features[message.row_start + feature] = value,
            None => self.seen[feature] = self.stamp + NULL,
        }
        Ok(())
    }

    /// The first required feature that was not read in this row or column list.
    fn missing_feature(&self) -> Option<&str> {
        let missing = |(feature, seen): &(&Feature, &u64)| feature.default.is_none() && **seen != self.stamp;
        self.features.iter().zip(&self.seen).find(missing).map(|(feature, _)| feature.name.as_str())
    }

    /// A feature's value; `None` for null.
    fn number(&self, reader: &mut Reader<'_>, feature: usize) -> Result<Option<f32>, Rejection> {
        let name = || &self.features[feature].name;
        match reader.kind() {
            Kind::Number => {
                let value = match reader.float() {
                    Ok(value) => value,
                    Err(error) => return self.bad_number(reader, error, feature),
                };
                if value.is_finite() {
                    return Ok(Some(value));
                }
                reject(ErrorClass::NotANumber, format!("{} is out of a 32-bit float's range", name()))
            }
            Kind::Null => {
                if let Err(error) = reader.null() {
                    return self.bad_number(reader, error, feature);
                }
                Ok(None)
            }
            Kind::Nothing => {
                self.bad_number(reader, SyntaxError { at: reader.position(), what: "expected a number" }, feature)
            }
            kind => {
                syntax(reader, |reader| reader.skip(2))?;
                reject(ErrorClass::NotANumber, format!("{} must be a number, not {}", name(), kind.describe()))
            }
        }
    }

    /// NaN and the infinities are no JSON, but writers (Python's json, for one) do write them: name the field.
    #[cold]
    fn bad_number(&self, reader: &Reader<'_>, error: SyntaxError, feature: usize) -> Result<Option<f32>, Rejection> {
        let name = &self.features[feature].name;
        // The reader may have stepped over a leading '-' before it found no digit.
        let from = reader.position()
            - usize::from(reader.position() > 0 && reader.at(reader.position() - 1).rest()[0] == b'-');
        for literal in ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf", "-nan", "-NaN"] {
            if reader.at(from).rest().starts_with(literal.as_bytes()) {
                return reject(ErrorClass::NotANumber, format!("{name} is {literal}, which is no JSON number"));
            }
        }
        reject(ErrorClass::MalformedJson, format!("{name}: {} at byte {}", error.what, error.at))
    }
}

/// Added to the row's stamp where a feature was null: seen, but not there. Stamps step by two.
const NULL: u64 = 1;

/// What the outermost object said.
#[derive(Default)]
struct Message<'a> {
    record: u32,
    /// Where the message's first row begins among the batch's features.
    row_start: usize,
    transaction_id: TransactionId,
    event_time: EventTime,
    id_seen: bool,
    time_seen: bool,
    wrapped: bool,
    columns: Option<Reader<'a>>,
    /// The columns are those of the last split message.
    columns_known: bool,
    data: Option<Reader<'a>>,
    /// The rows were read in passing.
    decoded: bool,
}

/// Which of the two forms a message has.
enum Form<'a> {
    Object,
    Split { columns: Reader<'a>, data: Reader<'a>, decoded: bool },
}

impl<'a> Message<'a> {
    fn form(&self) -> Result<Form<'a>, Rejection> {
        match (&self.columns, &self.data) {
            (Some(columns), Some(data)) => {
                Ok(Form::Split { columns: columns.clone(), data: data.clone(), decoded: self.decoded })
            }
            _ if self.wrapped => reject(ErrorClass::UnknownSchema, "dataframe_split must hold columns and data"),
            // An object may have a field of its own named "columns" or "data": only both make the split form.
            _ => Ok(Form::Object),
        }
    }
}

fn text_of(key: RawString<'_>) -> Result<std::borrow::Cow<'_, str>, Rejection> {
    if key.escaped {
        key.unescape().ok_or_else(|| Rejection::new(ErrorClass::MalformedJson, "text holds half a surrogate pair"))
    } else {
        Ok(key.raw.into())
    }
}

fn once(seen: bool, name: &str) -> Result<(), Rejection> {
    if seen { reject(ErrorClass::MalformedJson, format!("the key {name} appears twice")) } else { Ok(()) }
}

fn reject<T>(class: ErrorClass, message: impl Into<String>) -> Result<T, Rejection> {
    Err(Rejection::new(class, message))
}

#[inline]
fn syntax<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Result<T, SyntaxError>,
) -> Result<T, Rejection> {
    read(reader).map_err(malformed)
}

#[cold]
fn malformed(error: SyntaxError) -> Rejection {
    Rejection::new(ErrorClass::MalformedJson, format!("{} at byte {}", error.what, error.at))
}

// The depth a feature's, id's or time's value is skipped at: object (1) or data, row (2) are open around it.
const _: () = assert!(MAX_DEPTH > 3);
