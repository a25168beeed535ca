//! A strict JSON reader (RFC 8259) over bytes that allocates nothing: the decode stage's eyes.
//!
//! ```text
//!  bytes ──► Reader::{object, array, string, number, skip}… ──► slices of the same bytes, or a SyntaxError
//! ```
//!
//! Why not serde_json here: a dead letter must name the field that is wrong (a NaN literal, 1e999, a repeated key),
//! numbers must round once, straight to f32, and unknown values must be skipped without a limit on their numbers but
//! with one on their depth. A property test holds this reader to serde_json's verdict on what is JSON.

/// Deepest nesting that is read. serde_json's default; far above any transaction, far below a stack's end.
pub const MAX_DEPTH: u32 = 128;

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

    /// Reads a string whose opening quote is here (after white space).
    #[inline]
    pub fn string(&mut self) -> Result<RawString<'a>, SyntaxError> {
        if !self.eat(b'"') {
            return self.error("expected text in double quotes");
        }
        let start = self.at;
        let (mut escaped, mut ascii) = (false, true);
        loop {
            match self.byte() {
                None => return self.error("the value ends within text"),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 1;
                    self.escape()?;
                }
                Some(0..=0x1f) => return self.error("a control character within text"),
                Some(byte) => {
                    ascii &= byte < 0x80;
                    self.at += 1;
                }
            }
        }
        let bytes = &self.bytes[start..self.at];
        let raw = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => return Err(SyntaxError { at: start + error.valid_up_to(), what: "not valid UTF-8" }),
        };
        debug_assert!(!ascii || raw.is_ascii());
        self.at += 1;
        Ok(RawString { raw, escaped })
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
    ///
    /// Grammar and value in one pass for plain decimals of up to 19 digits, which is nearly all of them.
    #[inline]
    pub fn float(&mut self) -> Result<f32, SyntaxError> {
        self.space();
        let (start, bytes) = (self.at, self.bytes);
        let mut at = start + usize::from(self.byte() == Some(b'-'));
        let negative = at > start;
        let digit = |at: usize| bytes.get(at).map_or(10, |byte| byte.wrapping_sub(b'0'));
        let (whole_start, mut mantissa) = (at, 0u64);
        while digit(at) < 10 {
            mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit(at)));
            at += 1;
        }
        let mut digits = at - whole_start;
        let leading_zero = digits > 1 && bytes[whole_start] == b'0';
        let mut fraction = 0;
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            let fraction_start = at;
            while let Some(eight) = bytes.get(at..at + 8).and_then(eight_digits) {
                mantissa = mantissa.wrapping_mul(100_000_000).wrapping_add(eight);
                at += 8;
            }
            while digit(at) < 10 {
                mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit(at)));
                at += 1;
            }
            fraction = at - fraction_start;
            if fraction == 0 {
                return self.float_by_library();
            }
            digits += fraction;
        }
        let exponent = matches!(bytes.get(at), Some(b'e' | b'E'));
        if digits == fraction || leading_zero || exponent || digits > 19 {
            return self.float_by_library();
        }
        match nearest_f32(negative, mantissa, fraction) {
            Some(value) => {
                self.at = at;
                Ok(value)
            }
            None => self.float_by_library(),
        }
    }

    /// Everything the one pass does not decide: faults, exponents, many digits, the middle between two floats.
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
        let kind = self.kind();
        if matches!(kind, Kind::Object | Kind::Array) && depth >= MAX_DEPTH {
            return self.error("nested deeper than 128 levels");
        }
        match kind {
            Kind::Object => {
                self.at += 1;
                let mut first = true;
                while self.key(first)?.is_some() {
                    first = false;
                    self.skip(depth + 1)?;
                }
                Ok(())
            }
            Kind::Array => {
                self.at += 1;
                let mut first = true;
                while self.element(first)? {
                    first = false;
                    self.skip(depth + 1)?;
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

/// Powers of ten that an f64 holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The value of eight ASCII digits, all at once (Lemire, "Quickly parsing eight digits", 2018): pairs, then fours, then
/// all eight are joined by one multiplication each.
#[inline]
fn eight_digits(text: &[u8]) -> Option<u64> {
    let chunk = u64::from_le_bytes(text.try_into().ok()?);
    // Each byte is a digit if its high nibble is 3, before and after adding 6 (which takes ':' and beyond to 4).
    let high = 0xf0f0_f0f0_f0f0_f0f0;
    if chunk & high != 0x3030_3030_3030_3030
        || chunk.wrapping_add(0x0606_0606_0606_0606) & high != 0x3030_3030_3030_3030
    {
        return None;
    }
    let digits = chunk & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff)
}

/// The f32 nearest to `mantissa / 10^fraction`, ties to even; `None` where this arithmetic cannot tell.
///
/// The mantissa as f64 and the division by an exact power of ten are each off by half a unit in the last place at most
/// (Clinger's fast path, a mantissa above 2^53 included), so the quotient is within two units of the true value.
/// Rounding it to f32 goes wrong only where it lies that close to the middle between two f32: a handful of 2^29 values.
#[inline]
fn nearest_f32(negative: bool, mantissa: u64, fraction: usize) -> Option<f32> {
    let wide = mantissa as f64 / POWERS_OF_TEN.get(fraction)?;
    // An f32 keeps 23 of an f64's 52 fraction bits: the middle between two f32 has 0x1000_0000 in the other 29.
    let dropped = wide.to_bits() & 0x1fff_ffff;
    if (0x0fff_fffc..=0x1000_0004).contains(&dropped) || (wide < f64::from(f32::MIN_POSITIVE) && mantissa != 0) {
        return None;
    }
    let narrow = wide as f32;
    Some(if negative { -narrow } else { narrow })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn accepts(bytes: &[u8]) -> bool {
        let mut reader = Reader::new(bytes);
        reader.skip(0).and_then(|()| reader.end()).is_ok()
    }

    /// The value of `text`, which must be a number and nothing else.
    fn float(text: &str) -> f32 {
        let mut reader = Reader::new(text.as_bytes());
        let value = reader.float().expect("a number");
        reader.end().expect("nothing else");
        value
    }

    fn serde_accepts(bytes: &[u8]) -> bool {
        // RawValue: serde_json checks syntax without converting numbers, as `skip` does.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok() && std::str::from_utf8(bytes).is_ok()
    }

    #[test]
    fn odd_documents_are_judged_as_serde_json_judges_them() {
        for text in [
            "",
            " ",
            "{}",
            "[]",
            "{",
            "[",
            "}",
            "[1,]",
            "{\"a\":1,}",
            "{,}",
            "[,]",
            "01",
            "-",
            "-0",
            "1.",
            ".5",
            "1e",
            "1e+",
            "1E-7",
            "1e999",
            "nul",
            "null",
            "true",
            "tru",
            "NaN",
            "Infinity",
            "\"\\u12\"",
            "\"\\x\"",
            "\"a",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{'a':1}",
            "[1 2]",
            "1 2",
            "\"\t\"",
            "\u{feff}{}",
            "{\"a\":1}x",
            "[1,2,[3,{\"b\":[]}]]",
        ] {
            assert_eq!(accepts(text.as_bytes()), serde_accepts(text.as_bytes()), "{text:?}");
        }
        assert!(!accepts(b"\"\xff\""), "invalid UTF-8");
        assert!(!accepts(b"\"\xe2\x82\""), "truncated UTF-8");
        assert!(!accepts(br#""\ud800""#), "half a surrogate pair");
        assert!(accepts(br#""\ud83d\ude00""#), "a whole surrogate pair");
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(nested(MAX_DEPTH as usize).as_bytes()));
        assert!(!accepts(nested(MAX_DEPTH as usize + 1).as_bytes()));
        assert!(!accepts("[".repeat(5_000_000).as_bytes()), "no stack overflow");
    }

    #[test]
    fn numbers_next_to_the_middle_between_two_floats_round_once() {
        for text in [
            "0.1",
            "-0.0",
            "0",
            "149.62",
            "16777217",
            "16777217.0000001",
            "16777216.9999999",
            "1.00000017881393432617187499",
            "1.17549435e-38",
            "0.000000000000000000000000000000000000011754943",
            "340282350000000000000000000000000000000",
            "9007199254740993",
            "0.30000001192092896",
            "7.038531e-26",
            "123456789012345678901234567890",
        ] {
            let expected: f32 = text.parse().expect("a number");
            assert_eq!(float(text).to_bits(), expected.to_bits(), "{text}");
        }
        assert!(float("1e999").is_infinite());
        assert!(float("1e39").is_infinite());
    }

    #[test]
    fn eight_digits_are_read_as_one_by_one() {
        for text in ["00000000", "12345678", "99999999", "10000001", "09080706"] {
            assert_eq!(eight_digits(text.as_bytes()), text.parse().ok(), "{text}");
        }
        for position in 0..8 {
            for byte in (0..=255u8).filter(|byte| !byte.is_ascii_digit()) {
                let mut text = *b"12345678";
                text[position] = byte;
                assert_eq!(eight_digits(&text), None, "{byte} at {position}");
            }
        }
    }

    /// Decimals built around the middle between two neighbouring floats: where a second rounding would show.
    #[test]
    fn decimals_around_every_kind_of_middle_round_once() {
        for bits in (0x0080_0000..0x7f00_0000u32).step_by(7_654_321) {
            let (low, high) = (f32::from_bits(bits), f32::from_bits(bits + 1));
            let middle = (f64::from(low) + f64::from(high)) / 2.0;
            for precision in [0, 5, 9, 12, 15, 17, 18] {
                for offset in [-2i64, -1, 0, 1, 2] {
                    let near = f64::from_bits((middle.to_bits() as i64 + offset) as u64);
                    let text = format!("{near:.precision$}");
                    let expected: f32 = text.parse().expect("a number");
                    assert_eq!(float(&text).to_bits(), expected.to_bits(), "{text}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn float_accepts_what_number_accepts(text in r"[\-+]?[0-9]{0,3}(\.[0-9]{0,3})?([eE][+\-]?[0-9]{0,2})?") {
            let (mut one, mut other) = (Reader::new(text.as_bytes()), Reader::new(text.as_bytes()));
            let (value, text_of) = (one.float(), other.number().map(<[u8]>::len));
            prop_assert_eq!(value.is_ok(), text_of.is_ok(), "{}", text);
            if value.is_ok() {
                prop_assert_eq!(one.position(), other.position(), "{}", text);
            }
        }

        #[test]
        fn any_bytes_are_judged_as_serde_json_judges_them(text in r#"[\{\}\[\],:"a1\.\-eE\+ \\untrfls0]{0,24}"#) {
            prop_assume!(!text.contains("\\u")); // serde_json's IgnoredAny does not check surrogate pairs
            prop_assert_eq!(accepts(text.as_bytes()), serde_accepts(text.as_bytes()));
        }

        #[test]
        fn any_json_value_is_accepted(value in arbitrary_json()) {
            let text = serde_json::to_vec(&value).expect("serialises");
            prop_assert!(accepts(&text));
            let pretty = serde_json::to_vec_pretty(&value).expect("serialises");
            prop_assert!(accepts(&pretty));
            for cut in 0..text.len() {
                prop_assert_eq!(accepts(&text[..cut]), serde_accepts(&text[..cut]));
            }
        }

        #[test]
        fn any_decimal_rounds_to_the_nearest_f32(mantissa in any::<i64>(), point in 0usize..20, exponent in -60i32..45) {
            let digits = mantissa.unsigned_abs().to_string();
            let digits = format!("{digits:0>width$}", width = point + 1);
            let (whole, fraction) = digits.split_at(digits.len() - point);
            let sign = if mantissa < 0 { "-" } else { "" };
            let plain = if point == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            let scientific = format!("{plain}e{exponent}");
            for text in [plain, scientific] {
                let expected: f32 = text.parse().expect("a number");
                prop_assert_eq!(float(&text).to_bits(), expected.to_bits(), "{}", text);
            }
        }

        #[test]
        fn any_float_reads_back(bits in any::<u32>()) {
            let value = f32::from_bits(bits);
            prop_assume!(value.is_finite());
            prop_assert_eq!(float(&format!("{value}")).to_bits(), bits);
            let mut buffer = ryu::Buffer::new();
            prop_assert_eq!(float(buffer.format(value)).to_bits(), bits);
        }
    }

    fn arbitrary_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".*".prop_map(|text: String| serde_json::Value::from(text)),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((".*", inner), 0..6)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }
}
