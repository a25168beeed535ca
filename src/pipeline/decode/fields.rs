//! The fields of a transaction that are no features: its id and its time.

use fraud_wire::dead_letter::{ErrorClass, Rejection};

use super::{EventTime, TransactionId, reject, syntax, text_of};
use crate::pipeline::json::{Kind, Reader};

/// A transaction's id: text, or a number that is printed as text.
pub(super) fn transaction_id(reader: &mut Reader<'_>) -> Result<TransactionId, Rejection> {
    match reader.kind() {
        Kind::String => {
            let id = syntax(reader, |reader| reader.string())?;
            let end = reader.position() - 1;
            Ok(TransactionId::Payload((end - id.raw.len()) as u32..end as u32))
        }
        // Ids that are numbers are common enough to be printed as text.
        Kind::Number => {
            let text = syntax(reader, |reader| reader.number())?;
            let end = reader.position();
            Ok(TransactionId::Payload((end - text.len()) as u32..end as u32))
        }
        Kind::Null => syntax(reader, |reader| reader.null()).map(|()| TransactionId::Absent),
        kind => {
            syntax(reader, |reader| reader.skip(2))?;
            reject(ErrorClass::UnknownSchema, format!("transaction_id must be text, not {}", kind.describe()))
        }
    }
}

/// A transaction's time: epoch milliseconds or RFC 3339.
pub(super) fn event_time(reader: &mut Reader<'_>) -> Result<EventTime, Rejection> {
    let kind = reader.kind();
    let start = reader.position();
    let milliseconds = match kind {
        Kind::Null => return syntax(reader, |reader| reader.null()).map(|()| EventTime::Absent),
        Kind::Number => {
            let text = syntax(reader, |reader| reader.number())?;
            integer(text)
        }
        Kind::String => {
            let text = text_of(syntax(reader, |reader| reader.string())?)?;
            text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond())
        }
        _ => {
            syntax(reader, |reader| reader.skip(2))?;
            None
        }
    };
    match milliseconds {
        Some(milliseconds) => Ok(EventTime::Milliseconds(milliseconds)),
        None => {
            let found: String = String::from_utf8_lossy(reader.since(start)).chars().take(40).collect();
            reject(
                ErrorClass::InvalidEventTime,
                format!("event_time must be epoch milliseconds or RFC 3339, not {found}"),
            )
        }
    }
}

/// A number's text as an integer: digits, or digits followed by a fraction of zeros (a float column's integer).
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.parse().ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}
