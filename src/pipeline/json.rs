//! A strict JSON reader (RFC 8259) over bytes that allocates nothing: the decode stage's eyes.
//!
//! ```text
//!  bytes ──► Reader::{object, array, string, number, skip}… ──► slices of the same bytes, or a SyntaxError
//! ```
//!
//! Why not serde_json here: a dead letter must name the field that is wrong (a NaN literal, 1e999, a repeated key),
//! numbers must round once, straight to f32, and unknown values must be skipped without a limit on their numbers but
//! with one on their depth. A property test holds this reader to serde_json's verdict on what is JSON.

mod lanes;
mod literal;
mod number;
mod plain;
#[cfg(test)]
mod tests;
mod text;

pub use literal::Literal;
use number::plain_decimal;
pub use plain::AHEAD;
pub use text::RawString;

/// Deepest nesting that is read. serde_json's default; far above any transaction, far below a stack's end.
pub const MAX_DEPTH: u32 = 128;

/// What is no JSON number, but is written where one belongs by those who do not know (Python's json, for one).
pub const NOT_NUMBERS: [&str; 8] = ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf", "-nan", "-NaN"];

/// Where and why the bytes are not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Byte position, from 0.
    pub at: usize,
    /// What was expected or found, in words.
    pub what: &'static str,
}

/// What kind of value begins at the reader's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or `-`
    Number,
    /// `t` or `f`
    Boolean,
    /// `n`
    Null,
    /// Anything else, the end included.
    Nothing,
}

impl Kind {
    /// The kind with its article, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "text",
            Kind::Number => "a number",
            Kind::Boolean => "a boolean",
            Kind::Null => "null",
            Kind::Nothing => "no JSON value",
        }
    }
}

/// A cursor over the bytes of one value.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    /// The current byte position.
    pub fn position(&self) -> usize {
        self.at
    }

    /// A reader of the same bytes at an earlier position.
    pub fn at(&self, position: usize) -> Self {
        Reader { bytes: self.bytes, at: position }
    }

    /// The bytes from `start` to the current position.
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// What is left to read.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    fn error<T>(&self, what: &'static str) -> Result<T, SyntaxError> {
        Err(SyntaxError { at: self.at, what })
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips white space.
    #[inline]
    pub fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// The kind of the value that begins here (after white space).
    #[inline]
    pub fn kind(&mut self) -> Kind {
        self.space();
        match self.byte() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            Some(b't' | b'f') => Kind::Boolean,
            Some(b'n') => Kind::Null,
            _ => Kind::Nothing,
        }
    }

    /// Consumes `wanted` after white space, if it is there.
    #[inline]
    pub fn eat(&mut self, wanted: u8) -> bool {
        self.space();
        let found = self.byte() == Some(wanted);
        self.at += usize::from(found);
        found
    }

    /// Nothing but white space may be left.
    pub fn end(&mut self) -> Result<(), SyntaxError> {
        self.space();
        if self.at == self.bytes.len() { Ok(()) } else { self.error("something follows the value") }
    }

    /// Steps to the next key of an object whose `{` was eaten; `None` at its `}`. `first` says whether a key was
    /// read before.
    #[inline]
    pub fn key(&mut self, first: bool) -> Result<Option<RawString<'a>>, SyntaxError> {
        self.space();
        match self.byte() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(b',') if !first => {
                self.at += 1;
                self.space();
            }
            Some(b'"') if first => {}
            _ => return self.error(if first { "expected a key or '}'" } else { "expected ',' or '}'" }),
        }
        if self.byte() != Some(b'"') {
            return self.error("expected a key in double quotes");
        }
        let key = self.string()?;
        if !self.eat(b':') {
            return self.error("expected ':' after a key");
        }
        Ok(Some(key))
    }

    /// Steps to the next element of an array whose `[` was eaten; `false` at its `]`.
    #[inline]
    pub fn element(&mut self, first: bool) -> Result<bool, SyntaxError> {
        self.space();
        match self.byte() {
            Some(b']') => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                self.space();
                if self.byte() == Some(b']') { self.error("expected a value after ','") } else { Ok(true) }
            }
            Some(_) if first => Ok(true),
            _ => self.error("expected ',' or ']'"),
        }
    }

    /// Reads a number's text, checking the grammar only.
    pub fn number(&mut self) -> Result<&'a [u8], SyntaxError> {
        self.space();
        let start = self.at;
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.error("expected a digit"),
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if !self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.error("expected a digit after the decimal point");
            }
            self.digits();
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            if !self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
                return self.error("expected a digit in the exponent");
            }
            self.digits();
        }
        Ok(self.since(start))
    }

    #[inline]
    fn digits(&mut self) {
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Consumes `text` if it stands here, byte for byte.
    #[inline]
    pub fn eat_exactly(&mut self, text: &[u8]) -> bool {
        let found = self.rest().starts_with(text);
        self.at += if found { text.len() } else { 0 };
        found
    }

    /// Reads a number as the nearest f32 (rounded once); infinite where it is out of range.
    #[inline]
    pub fn float(&mut self) -> Result<f32, SyntaxError> {
        self.space();
        let plain = match self.window() {
            Some(window) => plain_decimal(window),
            None => plain_decimal(&self.last_window()),
        };
        match plain {
            Some((value, length)) if !matches!(self.bytes.get(self.at + length), Some(b'e' | b'E')) => {
                self.at += length;
                Ok(value)
            }
            _ => self.float_by_library(),
        }
    }

    /// Everything the window does not decide: faults, exponents, many digits, the middle between two floats.
    #[cold]
    fn float_by_library(&mut self) -> Result<f32, SyntaxError> {
        let text = self.number()?;
        // JSON's number grammar is a subset of what `f32::from_str` reads; out of range gives an infinity.
        Ok(std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(f32::NAN))
    }

    fn literal(&mut self, word: &'static str) -> Result<(), SyntaxError> {
        if self.rest().starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(())
        } else {
            self.error("expected a JSON value")
        }
    }

    /// Reads `null`.
    pub fn null(&mut self) -> Result<(), SyntaxError> {
        self.space();
        self.literal("null")
    }

    /// Reads any value and forgets it. `depth` is how many containers are open around it.
    pub fn skip(&mut self, depth: u32) -> Result<(), SyntaxError> {
        self.skip_value::<false>(depth)
    }

    /// As [`Reader::skip`], also over [`NOT_NUMBERS`]: for values whose reader names the field that is wrong.
    pub fn skip_loosely(&mut self, depth: u32) -> Result<(), SyntaxError> {
        self.skip_value::<true>(depth)
    }

    fn skip_value<const LOOSELY: bool>(&mut self, depth: u32) -> Result<(), SyntaxError> {
        let kind = self.kind();
        if LOOSELY && NOT_NUMBERS.iter().any(|text| self.eat_exactly(text.as_bytes())) {
            return Ok(());
        }
        if matches!(kind, Kind::Object | Kind::Array) && depth >= MAX_DEPTH {
            return self.error("nested deeper than 128 levels");
        }
        match kind {
            Kind::Object => {
                self.at += 1;
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    self.skip_value::<LOOSELY>(depth + 1)?;
                }
                Ok(())
            }
            Kind::Array => {
                self.at += 1;
                let mut first = true;
                while self.element(first)? {
                    first = false;
                    self.skip_value::<LOOSELY>(depth + 1)?;
                }
                Ok(())
            }
            Kind::String => self.string().map(drop),
            Kind::Number => self.number().map(drop),
            Kind::Boolean if self.byte() == Some(b't') => self.literal("true"),
            Kind::Boolean => self.literal("false"),
            Kind::Null => self.literal("null"),
            Kind::Nothing => self.error("expected a JSON value"),
        }
    }
}
