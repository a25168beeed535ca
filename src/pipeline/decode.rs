//! Decode: one record's bytes become feature rows, or a [`Rejection`] that names the field.
//!
//! ```text
//!  payload ──► written like an earlier one? ──────────────────┐
//!                │ no                                         ▼
//!                └─► parser ─┬─► object form ─┐   Rows { features: row-major f32, one RowMeta per row }
//!                            └─► split form  ─┴───────────────▲
//! ```
//!
//! Two paths, one judgement: the template path (`decode/template.rs`) reads what is written like an earlier message and
//! leaves everything else, every rejection included, to the parser. What was learned changes the time a message takes and
//! nothing else. A message is decoded whole or rejected whole: on a rejection the rows it had already added are taken back.
//! Nothing here allocates for a good record; ids stay byte ranges of the payload until the verdict is written.

use std::collections::HashMap;

use fraud_wire::dead_letter::{ErrorClass, Rejection};

mod fields;
mod rows;
mod seen;
mod split;
mod template;
#[cfg(test)]
mod tests;

pub use fields::MOST_ID_BYTES;
use fields::{event_time, transaction_id};
pub use rows::{EventTime, Feature, RESERVED_KEYS, RowMeta, Rows, TransactionId};
use seen::Seen;
use split::Columns;
use template::{Memory, Template};

use super::json::{Kind, MAX_DEPTH, NOT_NUMBERS, RawString, Reader, SyntaxError};

/// What may become of a message, in memory or in answers, is this many times the largest message.
const MOST_GROWTH: usize = 8;

/// Bytes that the answers to one message may have together, where messages of `max_bytes` are taken.
pub fn most_answer_bytes(max_bytes: usize) -> usize {
    max_bytes.saturating_mul(MOST_GROWTH)
}

/// Turns payloads into rows of one bundle's features.
#[derive(Debug)]
pub struct Decoder {
    features: Vec<Feature>,
    index: HashMap<String, usize>,
    max_bytes: usize,
    /// Features that one message may become. What it writes is at most half of it; the rest are defaults, which cost it
    /// nothing.
    most_features: usize,
    seen: Seen,
    columns: Columns,
    /// What a row holds before anything is read.
    defaults: Vec<f32>,
    memory: Memory,
}

impl Decoder {
    /// A decoder of `features`, in the model's column order; payloads over `max_bytes` are rejected unread.
    pub fn new(features: &[Feature], max_bytes: usize) -> Self {
        let index = features.iter().enumerate().map(|(i, feature)| (feature.name.clone(), i)).collect();
        Decoder {
            features: features.to_vec(),
            index,
            max_bytes,
            most_features: most_answer_bytes(max_bytes) / size_of::<f32>(),
            seen: Seen::new(features.len()),
            columns: Columns::new(features.len()),
            defaults: features.iter().map(|feature| feature.default.unwrap_or(f32::NAN)).collect(),
            memory: Memory::new(),
        }
    }

    /// Number of features a row has.
    pub fn width(&self) -> usize {
        self.features.len()
    }

    /// Bytes that the answers to one message may have together.
    pub fn most_answer_bytes(&self) -> usize {
        most_answer_bytes(self.max_bytes)
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
        let most_features = rows.features.len().saturating_add(self.most_features);
        if self.memory.read(bytes, record, &self.defaults, most_features, rows) {
            return Ok(());
        }
        let mut reader = Reader::new(bytes);
        match reader.kind() {
            Kind::Object => {
                let form = self.message(reader, record, rows)?;
                self.memory.learn(|| match form {
                    Form::Object => Template::of_object(bytes, &self.index),
                    Form::Split => Template::of_split(bytes, self.columns.list(), &self.index),
                });
                Ok(())
            }
            Kind::Nothing if reader.rest().is_empty() => reject(ErrorClass::MalformedJson, "the value is empty"),
            kind => {
                syntax(&mut reader, |reader| reader.skip(0).and_then(|()| reader.end()))?;
                reject(ErrorClass::UnknownSchema, format!("expected a JSON object, found {}", kind.describe()))
            }
        }
    }

    /// The outermost object. Whether it is the object form or the split form shows by its keys.
    fn message(&mut self, mut reader: Reader<'_>, record: u32, rows: &mut Rows) -> Result<Form, Rejection> {
        let mut message = Message { record, row_start: rows.features.len(), ..Message::default() };
        let meta_start = rows.meta.len();
        self.seen.forget();
        rows.features.extend_from_slice(&self.defaults);
        self.members(&mut reader, 0, &mut message, rows)?;
        syntax(&mut reader, |reader| reader.end())?;

        let form = message.form()?;
        match form {
            Form::Split if message.decoded => {}
            Form::Split => {
                self.split_rows(&mut message, rows)?;
            }
            Form::Object => {
                if let Some(missing) = self.seen.missing(&self.features) {
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
        let shared = RowMeta { record, row: 0, transaction_id: message.transaction_id, event_time: message.event_time };
        for meta in &mut rows.meta[meta_start..] {
            meta.inherit(&shared);
        }
        Ok(form)
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
                    if self.columns.text().is_empty() || !reader.eat_exactly(self.columns.text()) {
                        syntax(reader, |reader| reader.skip(depth + 1))?;
                    }
                }
                "data" => {
                    once(message.data.is_some(), "data")?;
                    message.data = Some((reader.clone(), depth));
                    if message.columns.is_some() {
                        // Now it is a split message, whatever follows, and its rows can be read in passing.
                        *reader = self.split_rows(message, rows)?;
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
        once(self.seen.is(feature), &self.features[feature].name)?;
        match self.number(reader, feature)? {
            Some(value) => {
                self.seen.add(feature, true);
                // Beside a split message's rows it means nothing, but is judged all the same.
                if !message.decoded {
                    rows.features[message.row_start + feature] = value;
                }
            }
            None => self.seen.add(feature, false),
        }
        Ok(())
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
        for literal in NOT_NUMBERS {
            if reader.at(from).rest().starts_with(literal.as_bytes()) {
                return reject(ErrorClass::NotANumber, format!("{name} is {literal}, which is no JSON number"));
            }
        }
        reject(ErrorClass::MalformedJson, format!("{name}: {} at byte {}", error.what, error.at))
    }
}

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
    /// And how many containers are open around the object that holds them.
    data: Option<(Reader<'a>, u32)>,
    /// The rows were read.
    decoded: bool,
}

/// Which of the two forms a message has.
#[derive(Clone, Copy)]
enum Form {
    Object,
    Split,
}

impl Message<'_> {
    fn form(&self) -> Result<Form, Rejection> {
        match (&self.columns, &self.data) {
            (Some(_), Some(_)) => Ok(Form::Split),
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
