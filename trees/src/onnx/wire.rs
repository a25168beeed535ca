//! Protocol Buffers, as far as ONNX files need them: fields of a message, borrowed, and a writer.
//!
//! Generated types would drop the fields they do not know; here every field keeps its bytes, so that a node can be
//! copied into another model whole. The format is described at <https://protobuf.dev/programming-guides/encoding/>.

use super::Unsupported;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// An integer, boolean or enumeration.
    Varint(u64),
    /// A 64-bit float or integer of fixed size.
    Fixed64(u64),
    /// A string, bytes, a message, or packed numbers.
    Bytes(&'a [u8]),
    /// A 32-bit float or integer of fixed size.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// Its number in the schema.
    pub number: u64,
    /// Its content.
    pub value: Value<'a>,
    /// All its bytes, with tag and length: to be copied into another message of the same type.
    pub raw: &'a [u8],
}

/// The fields of `message`, in the order of the file.
pub fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// Iterates over a message; ends behind the first error.
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Unsupported>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = read(self.rest).ok_or_else(|| Unsupported::new("the file is no valid protobuf"));
        self.rest = field.as_ref().map_or(&[], |field| &self.rest[field.raw.len()..]);
        Some(field)
    }
}

fn read(message: &[u8]) -> Option<Field<'_>> {
    let mut rest = message;
    let tag = varint(&mut rest)?;
    let value = match tag & 7 {
        0 => Value::Varint(varint(&mut rest)?),
        1 => Value::Fixed64(u64::from_le_bytes(*take(&mut rest, 8)?.first_chunk()?)),
        2 => {
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            Value::Bytes(take(&mut rest, length)?)
        }
        5 => Value::Fixed32(u32::from_le_bytes(*take(&mut rest, 4)?.first_chunk()?)),
        _ => return None,
    };
    Some(Field { number: tag >> 3, value, raw: &message[..message.len() - rest.len()] })
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

impl<'a> Value<'a> {
    /// A string or a message.
    pub fn bytes(self) -> Result<&'a [u8], Unsupported> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(wrong_type()),
        }
    }

    /// A string.
    pub fn text(self) -> Result<&'a str, Unsupported> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Unsupported::new("a name in the file is no UTF-8"))
    }

    /// An integer.
    pub fn integer(self) -> Result<i64, Unsupported> {
        match self {
            Value::Varint(value) => Ok(value as i64),
            _ => Err(wrong_type()),
        }
    }

    /// A 32-bit float.
    pub fn float(self) -> Result<f32, Unsupported> {
        match self {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(wrong_type()),
        }
    }

    /// Appends a repeated integer: one, or several packed.
    pub fn integers(self, into: &mut Vec<i64>) -> Result<(), Unsupported> {
        let mut rest = match self {
            Value::Bytes(packed) => packed,
            single => {
                into.push(single.integer()?);
                return Ok(());
            }
        };
        while !rest.is_empty() {
            into.push(varint(&mut rest).ok_or_else(wrong_type)? as i64);
        }
        Ok(())
    }

    /// Appends a repeated 32-bit float: one, or several packed.
    pub fn floats(self, into: &mut Vec<f32>) -> Result<(), Unsupported> {
        match self {
            Value::Fixed32(bits) => into.push(f32::from_bits(bits)),
            Value::Bytes(packed) => {
                let (floats, rest) = packed.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(wrong_type());
                }
                into.extend(floats.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            }
            _ => return Err(wrong_type()),
        }
        Ok(())
    }
}

fn wrong_type() -> Unsupported {
    Unsupported::new("a field of the file is of another type than ONNX says")
}

/// Builds a message.
#[derive(Clone, Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// An integer.
    pub fn integer(&mut self, number: u64, value: i64) -> &mut Self {
        self.varint(number << 3);
        self.varint(value as u64);
        self
    }

    /// A 32-bit float.
    pub fn float(&mut self, number: u64, value: f32) -> &mut Self {
        self.varint(number << 3 | 5);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A string or a message.
    pub fn bytes(&mut self, number: u64, value: &[u8]) -> &mut Self {
        self.varint(number << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message, written in place.
    pub fn message(&mut self, number: u64, write: impl FnOnce(&mut Writer)) -> &mut Self {
        let mut inner = Writer::default();
        write(&mut inner);
        self.bytes(number, &inner.0)
    }

    /// A field as it was read.
    pub fn raw(&mut self, field: &[u8]) -> &mut Self {
        self.0.extend_from_slice(field);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_with_its_bytes() {
        let mut writer = Writer::default();
        writer.integer(1, -1).bytes(2, b"text").message(300, |inner| {
            inner.integer(7, 1 << 40);
        });
        let read: Vec<Field<'_>> = fields(&writer.0).map(Result::unwrap).collect();
        assert_eq!(read[0].value.integer(), Ok(-1));
        assert_eq!((read[1].number, read[1].value.text()), (2, Ok("text")));
        let inner: Vec<Field<'_>> = fields(read[2].value.bytes().unwrap()).map(Result::unwrap).collect();
        assert_eq!((read[2].number, inner[0].value), (300, Value::Varint(1 << 40)));
        let copied: Vec<u8> = read.iter().flat_map(|field| field.raw.iter().copied()).collect();
        assert_eq!(copied, writer.0);
    }

    #[test]
    fn whatever_the_bytes_are_reading_ends() {
        let mut state = 1_u64;
        for length in 0..2_000 {
            let bytes: Vec<u8> = (0..length % 60)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 56) as u8
                })
                .collect();
            for field in fields(&bytes).flatten() {
                let _ = field.value.integers(&mut Vec::new());
                let _ = field.value.floats(&mut Vec::new());
            }
        }
        assert!(fields(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]).next().unwrap().is_err(), "longer than the file");
        assert!(fields(&[0xff; 11]).next().unwrap().is_err(), "a number without an end");
    }
}
