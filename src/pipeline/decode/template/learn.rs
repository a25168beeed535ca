//! Learning a template: a second walk through a message that the parser accepted, to note where its values stand.
//!
//! Nothing is judged here. Where a message is of a kind that a template cannot hold, none is learned (`None`).

use std::collections::HashMap;
use std::ops::Range;

use super::{Slot, Template, Value};
use crate::pipeline::decode::RESERVED_KEYS;
use crate::pipeline::decode::split::Column;
use crate::pipeline::json::{Kind, Literal, Reader};

/// Where a value stands in the message.
struct Place {
    value: Value,
    bytes: Range<usize>,
}

/// What stands where in a message.
#[derive(Default)]
struct Places {
    opening: Vec<Place>,
    /// The first row's.
    row: Vec<Place>,
    /// Where the second row's first value begins.
    second_row: Option<usize>,
    /// Where the last row's last value ends.
    rows_end: usize,
    closing: Vec<Place>,
}

impl Template {
    /// The template of an accepted message in the object form.
    pub(in crate::pipeline::decode) fn of_object(bytes: &[u8], index: &HashMap<String, usize>) -> Option<Template> {
        no_reserved(index)?;
        let mut reader = Reader::new(bytes);
        let mut row = Vec::new();
        reader.eat(b'{');
        while let Some(key) = reader.key(row.is_empty()).ok()? {
            let value = match key.unescape()?.as_ref() {
                "transaction_id" => Value::TransactionId,
                "event_time" => Value::EventTime,
                "columns" | "data" | "dataframe_split" => return None,
                other => index.get(other).map_or(Value::Ignored(1), |feature| Value::Feature(*feature)),
            };
            row.push(Place { value, bytes: skipped(&mut reader, 1)? });
        }
        let rows_end = row.last()?.bytes.end;
        Template::new(bytes, &Places { row, rows_end, ..Places::default() })
    }

    /// The template of an accepted message in the split form, whose columns hold what `columns` says.
    pub(in crate::pipeline::decode) fn of_split(
        bytes: &[u8],
        columns: &[Column],
        index: &HashMap<String, usize>,
    ) -> Option<Template> {
        no_reserved(index)?;
        let mut places = Places::default();
        places.members(&mut Reader::new(bytes), 0, columns, index)?;
        Template::new(bytes, &places)
    }

    fn new(bytes: &[u8], places: &Places) -> Option<Template> {
        let (first, last) = (places.row.first()?, places.row.last()?);
        let row_start = first.bytes.start;
        let between = places.second_row.map(|start| &bytes[last.bytes.end..start]);
        let closing = places.closing.first().map_or(bytes.len(), |place| place.bytes.start);
        let tail = &bytes[places.rows_end..closing];
        // Behind a row's last value, the byte that is the same whatever follows: it shows that the value ends there.
        let same = usize::from(between.is_none_or(|between| between.first() == tail.first()));
        Some(Template {
            head: Literal::new(&bytes[..places.opening.first().map_or(row_start, |place| place.bytes.start)]),
            opening: slots(bytes, &places.opening, row_start),
            row: slots(bytes, &places.row, last.bytes.end + same),
            between: between.map(|between| Literal::new(&between[same..])),
            tail: Literal::new(&tail[same..]),
            closing: slots(bytes, &places.closing, bytes.len()),
        })
    }
}

/// The parser asks for the feature it expects before it asks for reserved keys: a template asks for neither.
fn no_reserved(index: &HashMap<String, usize>) -> Option<()> {
    RESERVED_KEYS.iter().all(|key| !index.contains_key(*key)).then_some(())
}

impl Places {
    /// The members of a split message, or of its `dataframe_split`.
    fn members(
        &mut self,
        reader: &mut Reader<'_>,
        depth: u32,
        columns: &[Column],
        index: &HashMap<String, usize>,
    ) -> Option<()> {
        reader.eat(b'{');
        let mut first = true;
        while let Some(key) = reader.key(first).ok()? {
            first = false;
            let name = key.unescape()?;
            let value = match name.as_ref() {
                "transaction_id" => Value::TransactionId,
                "event_time" => Value::EventTime,
                "data" => {
                    self.rows(reader, depth, columns)?;
                    continue;
                }
                "dataframe_split" if depth == 0 && reader.kind() == Kind::Object => {
                    self.members(reader, 1, columns, index)?;
                    continue;
                }
                // Whether such a value is there, or what it says, changes what the message means.
                steering if steering == "columns" || steering == "dataframe_split" || index.contains_key(steering) => {
                    reader.skip(depth + 1).ok()?;
                    continue;
                }
                _ => Value::Ignored(depth + 1),
            };
            let places = if self.row.is_empty() { &mut self.opening } else { &mut self.closing };
            places.push(Place { value, bytes: skipped(reader, depth + 1)? });
        }
        Some(())
    }

    fn rows(&mut self, reader: &mut Reader<'_>, depth: u32, columns: &[Column]) -> Option<()> {
        let mut row = 0;
        reader.eat(b'[');
        while reader.element(row == 0).ok()? {
            reader.eat(b'[');
            let mut column = 0;
            while reader.element(column == 0).ok()? {
                let bytes = skipped(reader, depth + 3)?;
                self.rows_end = bytes.end;
                match (row, column) {
                    (0, _) => self.row.push(Place { value: value_of(*columns.get(column)?, depth), bytes }),
                    (1, 0) => self.second_row = Some(bytes.start),
                    _ => {}
                }
                column += 1;
            }
            row += 1;
        }
        // A message whose rows are empty has nothing to read.
        (!self.row.is_empty()).then_some(())
    }
}

/// The places as slots; the last one's text reaches to `end`.
fn slots(bytes: &[u8], places: &[Place], end: usize) -> Vec<Slot> {
    let next = places.iter().skip(1).map(|place| place.bytes.start).chain([end]);
    let slot = |(place, next): (&Place, usize)| Slot {
        value: place.value,
        after: Literal::new(&bytes[place.bytes.end..next]),
    };
    places.iter().zip(next).map(slot).collect()
}

fn value_of(column: Column, depth: u32) -> Value {
    match column {
        Column::Feature(feature) => Value::Feature(feature),
        Column::TransactionId => Value::TransactionId,
        Column::EventTime => Value::EventTime,
        // The object, data and the row are open around it.
        Column::Ignored => Value::Ignored(depth + 3),
    }
}

/// Steps over a value; where it stood.
fn skipped(reader: &mut Reader<'_>, depth: u32) -> Option<Range<usize>> {
    reader.space();
    let start = reader.position();
    reader.skip(depth).ok()?;
    Some(start..reader.position())
}
