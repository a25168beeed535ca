//! Writing a transaction as the JSON of topic `transactions`, into a buffer that is used again and again.
//!
//! ```text
//! names of the features ─► Columns (escaped once) ─┬─ write_object ─► {"transaction_id":"…","event_time":…,"V1":…}
//! values, one per name  ───────────────────────────┴─ write_split  ─► {"columns":["V1",…],"data":[[…]]}
//! ```
//!
//! Values are floats, printed as the shortest text that reads back to the same number, or [`Number`]s: text that is
//! already a JSON number and stays as it is, so that a file's digits reach the topic unchanged.

use std::io::Write as _;

/// Something that can stand as a number in JSON.
pub trait Value {
    /// Appends the number to `buffer`.
    fn write(&self, buffer: &mut Vec<u8>);
}

impl Value for f64 {
    /// The shortest digits that read back to the same number; `null` for what JSON has no number for.
    fn write(&self, buffer: &mut Vec<u8>) {
        if self.is_finite() {
            buffer.extend_from_slice(ryu::Buffer::new().format_finite(*self).as_bytes());
        } else {
            buffer.extend_from_slice(b"null");
        }
    }
}

/// Text that is a JSON number, kept digit by digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a>(&'a [u8]);

impl<'a> Number<'a> {
    /// Accepts exactly JSON's number grammar: `-0.5`, `1e-7`; not `+1`, `.5`, `01`, `NaN`.
    pub fn new(text: &'a [u8]) -> Option<Number<'a>> {
        let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let mut rest = text.strip_prefix(b"-").unwrap_or(text);
        let whole = digits(rest);
        if whole == 0 || (whole > 1 && rest[0] == b'0') {
            return None;
        }
        rest = &rest[whole..];
        if let Some(fraction) = rest.strip_prefix(b".") {
            let count = digits(fraction);
            if count == 0 {
                return None;
            }
            rest = &fraction[count..];
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
            let count = digits(exponent);
            if count == 0 {
                return None;
            }
            rest = &exponent[count..];
        }
        rest.is_empty().then_some(Number(text))
    }
}

impl Value for Number<'_> {
    fn write(&self, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(self.0);
    }
}

/// The names of a transaction's features, escaped once for both forms.
#[derive(Clone, Debug)]
pub struct Columns {
    /// `,"V1":` per feature, ready to follow another field.
    keys: Vec<Vec<u8>>,
    /// `{"columns":["V1",…],"data":[[`
    split_head: Vec<u8>,
}

impl Columns {
    /// Takes the names in the order in which values will follow.
    pub fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Columns {
        let mut keys = Vec::new();
        let mut split_head = b"{\"columns\":[".to_vec();
        for name in names {
            let mut key = vec![b','];
            write_string(&mut key, name.as_ref());
            // The leading comma separates the columns as well, except before the first.
            split_head.extend_from_slice(&key[usize::from(keys.is_empty())..]);
            key.push(b':');
            keys.push(key);
        }
        split_head.extend_from_slice(b"],\"data\":[[");
        Columns { keys, split_head }
    }

    /// How many values a transaction has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no columns at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Appends the object form. `event_time` is in milliseconds since 1970-01-01 UTC; surplus values are ignored.
    pub fn write_object<V: Value>(
        &self,
        buffer: &mut Vec<u8>,
        transaction_id: &str,
        event_time: i64,
        values: impl IntoIterator<Item = V>,
    ) {
        buffer.extend_from_slice(b"{\"transaction_id\":");
        write_string(buffer, transaction_id);
        buffer.extend_from_slice(b",\"event_time\":");
        write_integer(buffer, event_time);
        for (key, value) in self.keys.iter().zip(values) {
            buffer.extend_from_slice(key);
            value.write(buffer);
        }
        buffer.push(b'}');
    }

    /// Appends the split form with one row. It has no place for an id or a time: the worker takes both from the
    /// record (topic, partition, offset, row; timestamp).
    pub fn write_split<V: Value>(&self, buffer: &mut Vec<u8>, values: impl IntoIterator<Item = V>) {
        buffer.extend_from_slice(&self.split_head);
        for (index, value) in values.into_iter().take(self.len()).enumerate() {
            if index > 0 {
                buffer.push(b',');
            }
            value.write(buffer);
        }
        buffer.extend_from_slice(b"]]}");
    }
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_string(buffer: &mut Vec<u8>, text: &str) {
    buffer.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (index, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        buffer.extend_from_slice(&bytes[written..index]);
        written = index + 1;
        match byte {
            b'"' | b'\\' => buffer.extend_from_slice(&[b'\\', byte]),
            b'\n' => buffer.extend_from_slice(b"\\n"),
            b'\r' => buffer.extend_from_slice(b"\\r"),
            b'\t' => buffer.extend_from_slice(b"\\t"),
            // Writing to a Vec cannot fail.
            _ => _ = write!(buffer, "\\u{byte:04x}"),
        }
    }
    buffer.extend_from_slice(&bytes[written..]);
    buffer.push(b'"');
}

fn write_integer(buffer: &mut Vec<u8>, value: i64) {
    // Writing to a Vec cannot fail.
    _ = write!(buffer, "{value}");
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_object_form_is_the_contracts() {
        let mut buffer = Vec::new();
        Columns::new(["V1", "Amount"]).write_object(&mut buffer, "a", 1_700_000_000_000, [-1.36, 149.62]);
        let expected = r#"{"transaction_id":"a","event_time":1700000000000,"V1":-1.36,"Amount":149.62}"#;
        assert_eq!(String::from_utf8(buffer).unwrap(), expected);
    }

    #[test]
    fn the_split_form_is_the_contracts() {
        let mut buffer = Vec::new();
        Columns::new(["V1", "Amount"]).write_split(&mut buffer, [-1.36, 149.62]);
        assert_eq!(buffer, br#"{"columns":["V1","Amount"],"data":[[-1.36,149.62]]}"#);
    }

    #[test]
    fn every_name_and_id_survives_json() {
        let names = ["plain", "quo\"te", "back\\slash", "tab\tline\nreturn\r", "nul\0unit\u{1f}", "é漢😀", "\u{7f}"];
        for id in names {
            let mut buffer = Vec::new();
            Columns::new(names).write_object(&mut buffer, id, -5, vec![1.0; names.len()]);
            let read: serde_json::Value = serde_json::from_slice(&buffer).unwrap();
            assert_eq!(read["transaction_id"], id);
            assert_eq!(read["event_time"], -5);
            for name in names {
                assert_eq!(read[name], 1.0);
            }
            let mut buffer = Vec::new();
            Columns::new(names).write_split(&mut buffer, vec![1.0; names.len()]);
            let read: serde_json::Value = serde_json::from_slice(&buffer).unwrap();
            assert_eq!(read["columns"], serde_json::json!(names));
        }
    }

    #[test]
    fn floats_read_back_to_the_same_bits() {
        let mut value = 1.0_f64;
        let mut values = vec![0.0, -0.0, f64::MIN_POSITIVE, f64::MAX, 5e-324, 0.1 + 0.2, 1e16, 123_456_789.0];
        for _ in 0..2_000 {
            value *= -1.618_033_988_749_895e-1;
            values.extend([value, 1.0 / value].into_iter().filter(|value| value.is_finite()));
        }
        for value in values {
            let mut buffer = Vec::new();
            value.write(&mut buffer);
            let read: f64 = serde_json::from_slice(&buffer).unwrap();
            assert_eq!(read.to_bits(), value.to_bits(), "{}", String::from_utf8_lossy(&buffer));
        }
        let mut buffer = Vec::new();
        f64::NAN.write(&mut buffer);
        assert_eq!(buffer, b"null");
    }

    #[test]
    fn numbers_are_exactly_jsons() {
        let candidates = [
            "0", "-0", "1", "-1.5", "0.10", "1e5", "1E+05", "1.5e-7", "10", "01", "-01", "+1", ".5", "5.", "1e", "1e+",
            "-", "", "NaN", "inf", "1 ", " 1", "0x1", "1_000", "1.2.3", "1e5.0", "--1", "00", "0.0e0", "1,5",
        ];
        for text in candidates {
            let parsed: Result<serde_json::Number, _> = serde_json::from_str(text);
            // serde_json forgives white space around a document; a field's text must be the number alone.
            let expected = parsed.is_ok() && text.trim() == text;
            assert_eq!(Number::new(text.as_bytes()).is_some(), expected, "{text:?}");
        }
        let mut buffer = Vec::new();
        Number::new(b"-1.35980713367380000").unwrap().write(&mut buffer);
        assert_eq!(buffer, b"-1.35980713367380000");
    }
}
