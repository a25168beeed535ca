//! The fast path: a message that is written like an earlier one is compared with it, not parsed.
//!
//! ```text
//!  learned:  {"transaction_id": "…", "event_time": …, "V1": …, "V2": …}
//!            └────── head ─────┘id └─── after ───┘time└after┘V1└after┘V2└ tail
//!  split:    {"index": …, "columns": ["V1", "V2"], "data": [[…, …], […, …]], "sent": …}
//!            └─ head ─┘└──────────── after ──────────────┘  └after ┘        └─ tail ┘ └after
//!                                                             between: ], [
//! ```
//!
//! A writer repeats itself: keys, their order and the white space stay, values change. So a [`Template`] keeps every byte
//! of a message that the parser accepted except its values, and reading the next one is a comparison, a value, a
//! comparison, a value. Any difference, at whatever byte, means that the parser reads the message from its beginning:
//! the template rejects nothing and explains nothing.
//!
//! # Why it accepts nothing that the parser refuses, nor values it otherwise
//!
//! The parser reads a message from left to right; what it does next depends on the bytes ahead and on what it has
//! gathered so far. Let `M` be the message that a template was learned from and `N` one that the template accepts.
//!
//! 1. *The same bytes between values.* All of `N` outside its values equals `M` outside its values (but for white space
//!    in front of a value, which both skip), so `N` has the same keys in the same order (hence none twice), the same
//!    columns, the same brackets, and nothing behind the end. The zeros behind the padded copy are no part of JSON, so
//!    neither a value nor a text between can reach into them.
//! 2. *The same reader for values.* Each value is read by the function that the parser calls at that key, at that depth,
//!    or by one that accepts a part of what that function does and means the same by it (`Reader::plain_float`,
//!    `Reader::plain_string`). A value that would end in a rejection makes the template give up.
//! 3. *Values end where the parser ends them.* What follows a value in `N` is what followed one in `M`, where the parser
//!    ended it: white space, `,`, `]` or `}`, none of which can continue a value that its reader has read to the end.
//! 4. *No value steers the parser* beyond its own meaning: it decides by keys, and by whether a feature is there. The
//!    template takes null for a feature only where a default stands in for it. Values that do steer (of `columns`,
//!    `data`, `dataframe_split`, and of features beside a split message's rows) are never values of a template: they are
//!    part of the bytes between, or nothing is learned.
//! 5. *Rows repeat.* Between two rows of a split message stands what stood between two rows of `M`; the parser is in the
//!    same state before each of them.
//!
//! So the parser, given `N`, takes the same steps as on `M`, and ends with the values that the template read. The tests
//! and `fuzz/` compare the two on messages made to differ in every way we could think of.

use super::fields::{MOST_ID_BYTES, event_time, transaction_id};
use super::{EventTime, RowMeta, Rows, TransactionId};
use crate::pipeline::json::{Kind, Literal, Reader};

mod learn;
mod memory;
#[cfg(test)]
mod tests;

pub(super) use memory::Memory;

/// A message's bytes without its values.
#[derive(Clone, Debug)]
pub(super) struct Template {
    /// From the first byte to the first value.
    head: Literal,
    /// Values of a split message that stand in front of its rows.
    opening: Vec<Slot>,
    /// The values of a row, in the order in which they are written.
    row: Vec<Slot>,
    /// From behind a row's last slot to the next row's first value; `None` where no second row was seen.
    between: Option<Literal>,
    /// From behind the last row's last slot to the next value, or to the end.
    tail: Literal,
    /// Values of a split message that stand behind its rows.
    closing: Vec<Slot>,
}

/// A value's place.
#[derive(Clone, Debug)]
struct Slot {
    value: Value,
    /// What stands between it and the next value, or the end. Behind a row's last one: the byte that follows in any case.
    after: Literal,
}

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Feature(usize),
    TransactionId,
    EventTime,
    /// Nothing, with this many containers open around it.
    Ignored(u32),
}

impl Template {
    /// Whether a message begins as this one does.
    #[inline]
    fn begins(&self, bytes: &[u8]) -> bool {
        bytes.starts_with(self.head.text())
    }

    /// Appends the rows of a message that [begins](Template::begins) as this one does, each `defaults` overwritten by
    /// what the row says, up to `most_features` in all. Behind the message's `length` bytes stand zeros, so that looking ahead
    /// needs no care at its end. `None`: the message differs from the template; `rows` then holds anything from its first row on.
    #[inline]
    fn read(
        &self,
        padded: &[u8],
        length: usize,
        record: u32,
        (defaults, most_features): (&[f32], usize),
        rows: &mut Rows,
    ) -> Option<()> {
        let mut reader = Reader::new(padded).at(self.head.text().len());
        let first = rows.meta.len();
        let mut shared =
            RowMeta { record, row: 0, transaction_id: TransactionId::Absent, event_time: EventTime::Absent };
        for slot in &self.opening {
            aside(&mut reader, &slot.after, |reader| other_value(reader, slot.value, &mut shared))?;
        }
        let mut row = 0;
        loop {
            self.row(&mut reader, record, row, defaults, rows)?;
            if rows.features.len() > most_features {
                return None;
            }
            // Behind the rows' closing bracket there is no way back to a row.
            if reader.eat_literal(&self.tail) {
                break;
            }
            if !reader.eat_literal(self.between.as_ref()?) {
                return None;
            }
            row += 1;
        }
        for slot in &self.closing {
            aside(&mut reader, &slot.after, |reader| other_value(reader, slot.value, &mut shared))?;
        }
        for meta in &mut rows.meta[first..] {
            meta.inherit(&shared);
        }
        (reader.position() == length).then_some(())
    }

    #[inline(always)]
    fn row(&self, reader: &mut Reader<'_>, record: u32, row: u32, defaults: &[f32], rows: &mut Rows) -> Option<()> {
        let mut meta = RowMeta { record, row, transaction_id: TransactionId::Absent, event_time: EventTime::Absent };
        let start = rows.features.len();
        rows.features.extend_from_slice(defaults);
        let features = &mut rows.features[start..];
        for slot in &self.row {
            if let Value::Feature(feature) = slot.value {
                let feature = &mut features[feature];
                match reader.plain_float(&slot.after) {
                    Some(value) => *feature = value,
                    None => aside(reader, &slot.after, |reader| other_number(reader, feature))?,
                }
            } else {
                aside(reader, &slot.after, |reader| other_value(reader, slot.value, &mut meta))?;
            }
        }
        rows.meta.push(meta);
        Some(())
    }
}

/// Reads a value and what stands after it, with a reader of its own so that the loop's stays in registers.
#[inline(always)]
fn aside<'a>(reader: &mut Reader<'a>, after: &Literal, read: impl FnOnce(&mut Reader<'a>) -> Option<()>) -> Option<()> {
    let mut own = reader.clone();
    read(&mut own)?;
    if !own.eat_literal(after) {
        return None;
    }
    *reader = own;
    Some(())
}

/// A value that is no feature.
fn other_value(reader: &mut Reader<'_>, value: Value, meta: &mut RowMeta) -> Option<()> {
    match value {
        Value::TransactionId => {
            meta.transaction_id = match reader.plain_string() {
                Some(text) if text.len() <= MOST_ID_BYTES => TransactionId::Payload(text.start as u32..text.end as u32),
                Some(_) => return None,
                None => transaction_id(reader).ok()?,
            }
        }
        Value::EventTime => {
            meta.event_time = match reader.plain_integer() {
                Some(milliseconds) => EventTime::Milliseconds(milliseconds),
                None => event_time(reader).ok()?,
            }
        }
        Value::Ignored(depth) => reader.skip(depth).ok()?,
        Value::Feature(_) => return None,
    }
    Some(())
}

/// A feature's number that is no plain decimal, or null where a default stands in for it (none is NaN in `feature`).
#[cold]
fn other_number(reader: &mut Reader<'_>, feature: &mut f32) -> Option<()> {
    match reader.kind() {
        Kind::Number => {
            *feature = reader.float().ok().filter(|value| value.is_finite())?;
            Some(())
        }
        Kind::Null if !feature.is_nan() => reader.null().ok(),
        _ => None,
    }
}
