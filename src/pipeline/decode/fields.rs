//! The fields of a transaction that are no features: its id and its time.

use fraud_wire::dead_letter::{ErrorClass, Rejection};

use super::{EventTime, TransactionId, reject, syntax, text_of};
use crate::pipeline::json::{Kind, Reader};

/// Longest id, bytes of its text: every verdict on a row of its message repeats it. The schema's 256 characters always fit.
pub const MOST_ID_BYTES: usize = 1024;

/// A transaction's id: text, or a number that is printed as text.
pub(super) fn transaction_id(reader: &mut Reader<'_>) -> Result<TransactionId, Rejection> {
    match reader.kind() {
        Kind::String => {
            let id = syntax(reader, |reader| reader.string())?;
            let end = reader.position() - 1;
            if id.raw.len() > MOST_ID_BYTES {
                // An escape is longer than what it stands for.
                check_length(text_of(id)?.len())?;
            }
            Ok(TransactionId::Payload((end - id.raw.len()) as u32..end as u32))
        }
        // Ids that are numbers are common enough to be printed as text.
        Kind::Number => {
            let text = syntax(reader, |reader| reader.number())?;
            check_length(text.len())?;
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

fn check_length(bytes: usize) -> Result<(), Rejection> {
    if bytes <= MOST_ID_BYTES {
        return Ok(());
    }
    reject(ErrorClass::TooLarge, format!("transaction_id has {bytes} bytes, the limit is {MOST_ID_BYTES}"))
}

/// A transaction's time: epoch milliseconds or RFC 3339.
pub(super) fn event_time(reader: &mut Reader<'_>) -> Result<EventTime, Rejection> {
    let kind = reader.kind();
    let milliseconds = match kind {
        Kind::Null => return syntax(reader, |reader| reader.null()).map(|()| EventTime::Absent),
        Kind::Number => {
            let text = syntax(reader, |reader| reader.number())?;
            integer(text)
        }
        Kind::String => {
            let text = text_of(syntax(reader, |reader| reader.string())?)?;
            text.parse::<jiff::Timestamp>().ok().map(|time| time.as_millisecond()).or_else(|| edge_of_calendar(&text))
        }
        _ => {
            syntax(reader, |reader| reader.skip(2))?;
            None
        }
    };
    match milliseconds {
        Some(milliseconds) => Ok(EventTime::Milliseconds(milliseconds)),
        None => {
            // The value is not quoted: this sentence goes to the log, too, and anything may stand there.
            let message = format!("event_time is {}, but neither epoch milliseconds nor RFC 3339", kind.describe());
            reject(ErrorClass::InvalidEventTime, message)
        }
    }
}

/// RFC 3339 to its ends: [`jiff::Timestamp`] leaves out the last day of year 9999, so that it has a local time everywhere.
fn edge_of_calendar(text: &str) -> Option<i64> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    let offset = pieces.to_numeric_offset()?;
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let local = pieces.date().to_datetime(pieces.time()?).duration_since(epoch);
    i64::try_from(local.as_millis()).ok()?.checked_sub(i64::from(offset.seconds()) * 1000)
}

/// A number's text as an integer, as JSON Schema means it: what has no fraction (`1700000000000.0`, `1.7E12`).
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (digits, exponent) = match text.split_once(['e', 'E']) {
        Some((digits, exponent)) => (digits, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits: i64 = if fraction.is_empty() { whole.parse() } else { format!("{whole}{fraction}").parse() }.ok()?;
    let scale = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if digits == 0 {
        return Some(0);
    }
    let power = 10_i64.checked_pow(scale.unsigned_abs())?;
    if scale >= 0 { digits.checked_mul(power) } else { (digits % power == 0).then(|| digits / power) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(json: &str) -> Option<i64> {
        match event_time(&mut Reader::new(json.as_bytes())) {
            Ok(EventTime::Milliseconds(time)) => Some(time),
            Ok(EventTime::Absent) => panic!("{json} is a time"),
            Err(_) => None,
        }
    }

    #[test]
    fn every_time_that_the_schema_allows_is_read() {
        for (json, milliseconds) in [
            ("1700000000000", 1_700_000_000_000),
            ("1700000000000.000", 1_700_000_000_000),
            ("1.618540600943E12", 1_618_540_600_943),
            ("1.7e+12", 1_700_000_000_000),
            ("17000000000000e-1", 1_700_000_000_000),
            ("-1E3", -1000),
            ("0.0e-7", 0),
            ("0E99", 0),
            ("-0", 0),
            (r#""2023-11-14T22:13:20Z""#, 1_700_000_000_000),
            (r#""9999-12-31T23:59:59Z""#, 253_402_300_799_000),
            (r#""9999-12-31T23:59:59.999+00:00""#, 253_402_300_799_999),
            (r#""9999-12-31T23:59:59-14:00""#, 253_402_351_199_000),
            (r#""0000-01-01T00:00:00Z""#, -62_167_219_200_000),
            (r#""0000-01-01T00:00:00+14:00""#, -62_167_269_600_000),
        ] {
            assert_eq!(time(json), Some(milliseconds), "{json}");
        }
        for json in [
            "1.5",
            "1.75e1",
            "15e-1",
            "1e19",
            "9223372036854775808",
            "1e99999999999",
            "1e-2147483648",
            "{}",
            "true",
            r#""10000-01-01T00:00:00Z""#,
            r#""9999-12-31""#,
            r#""9999-12-31T23:59:59""#,
            r#""soon""#,
        ] {
            assert_eq!(time(json), None, "{json}");
        }
    }
}
