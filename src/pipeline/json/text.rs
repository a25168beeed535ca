//! Strings: validated in place, escapes left as they are.

use super::lanes::{LANES, text_stops};
use super::{Reader, SyntaxError};

/// The bytes between a string's quotes, escapes still in place.
#[derive(Clone, Copy, Debug)]
pub struct RawString<'a> {
    /// Valid UTF-8, escapes validated but not resolved: may be copied verbatim between quotes of other JSON.
    pub raw: &'a str,
    /// Whether `raw` holds a backslash.
    pub escaped: bool,
}

impl<'a> RawString<'a> {
    /// The text with escapes resolved, or `None` for half a surrogate pair (no such text exists).
    pub fn unescape(&self) -> Option<std::borrow::Cow<'a, str>> {
        if !self.escaped {
            return Some(self.raw.into());
        }
        // Rare and off the hot path: a library does it.
        let quoted = format!("\"{}\"", self.raw);
        serde_json::from_str::<String>(&quoted).ok().map(Into::into)
    }
}

impl<'a> Reader<'a> {
    /// Reads a string whose opening quote is here (after white space).
    #[inline]
    pub fn string(&mut self) -> Result<RawString<'a>, SyntaxError> {
        if !self.eat(b'"') {
            return self.error("expected text in double quotes");
        }
        let start = self.at;
        let mut escaped = false;
        loop {
            self.plain_text();
            match self.byte() {
                None => return self.error("the value ends within text"),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..=0x1f) => return self.error("a control character within text"),
                Some(_) => self.at += 1,
            }
        }
        let bytes = &self.bytes[start..self.at];
        let raw = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return Err(SyntaxError { at: start + error.valid_up_to(), what: "not valid UTF-8" }),
        };
        self.at += 1;
        Ok(RawString { raw, escaped })
    }

    /// Steps over text until a byte that needs a look: a quote, a backslash, a control character, or no ASCII.
    #[inline]
    pub(super) fn plain_text(&mut self) {
        while let Some(window) = self.window::<LANES>() {
            match text_stops(window) {
                0 => self.at += LANES,
                stops => {
                    self.at += stops.trailing_zeros() as usize;
                    return;
                }
            }
        }
        self.at += text_stops(&self.last_window()).trailing_zeros() as usize;
    }

    /// What follows a backslash. Half a surrogate pair is refused: it is no text (RFC 8259 section 8.2).
    fn escape(&mut self) -> Result<(), SyntaxError> {
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                match self.hex4()? {
                    0xD800..=0xDBFF => {
                        if !self.rest().starts_with(b"\\u") {
                            return self.error("half a surrogate pair in an escape");
                        }
                        self.at += 2;
                        match self.hex4()? {
                            0xDC00..=0xDFFF => Ok(()),
                            _ => self.error("half a surrogate pair in an escape"),
                        }
                    }
                    0xDC00..=0xDFFF => self.error("half a surrogate pair in an escape"),
                    _ => Ok(()),
                }
            }
            _ => self.error("an unknown escape within text"),
        }
    }

    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        let mut value = 0;
        for _ in 0..4 {
            let Some(digit) = self.byte().and_then(|byte| (byte as char).to_digit(16)) else {
                return self.error("expected four hexadecimal digits");
            };
            value = value * 16 + digit;
            self.at += 1;
        }
        Ok(value)
    }
}
