//! W3C Trace Context (<https://www.w3.org/TR/trace-context-2/>): which trace a message or a request belongs to.
//!
//! ```text
//!  traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01
//!               version  trace id                   span of the sender  flags
//!  tracestate:  vendor=opaque,other=opaque
//! ```
//!
//! What is not valid is as good as absent: nobody could follow it, and it may be of any size. `tracestate` means something
//! only beside a valid `traceparent`.

/// Header with the trace and the sender's span.
pub const TRACEPARENT_HEADER: &str = "traceparent";

/// Header with what tracing systems add to it for themselves.
pub const TRACESTATE_HEADER: &str = "tracestate";

/// Bytes of a `traceparent` of version 00.
pub const TRACEPARENT_BYTES: usize = 55;

/// Longest `tracestate` that is passed on, bytes: what the recommendation asks for at least.
pub const MOST_TRACESTATE_BYTES: usize = 512;

/// Most entries of a `tracestate`.
const MOST_ENTRIES: usize = 32;

/// Flag: the sender records this trace.
const SAMPLED: u8 = 1;

/// Flag (level 2): the trace id is random.
const RANDOM: u8 = 2;

/// What a valid `traceparent` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The sender's span; not all zero.
    pub parent_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` where it is not valid. Of a version after 00 the part that will not change is read.
    pub fn parse(header: &[u8]) -> Option<TraceContext> {
        let known: &[u8; TRACEPARENT_BYTES] = header.first_chunk()?;
        let dashes = [2, 35, 52].iter().all(|&index| known[index] == b'-');
        let version: [u8; 1] = hexadecimal(&known[..2])?;
        let ends = match version[0] {
            0 => header.len() == TRACEPARENT_BYTES,
            0xff => false,
            _ => matches!(header.get(TRACEPARENT_BYTES), None | Some(b'-')),
        };
        let (trace_id, parent_id) = (hexadecimal(&known[3..35])?, hexadecimal(&known[36..52])?);
        let flags: [u8; 1] = hexadecimal(&known[53..])?;
        let names_something = trace_id != [0; 16] && parent_id != [0; 8];
        (dashes && ends && names_something).then_some(TraceContext { trace_id, parent_id, flags: flags[0] })
    }

    /// Whether the sender records this trace, so that those who follow should too.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags that this version knows.
    pub fn flags(&self) -> u8 {
        self.flags & (SAMPLED | RANDOM)
    }

    /// The `traceparent`, of version 00, of what `span` sends within this trace.
    pub fn sent_by(&self, span: [u8; 8]) -> [u8; TRACEPARENT_BYTES] {
        let mut header = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hexadecimal(&mut header[3..35], &self.trace_id);
        write_hexadecimal(&mut header[36..52], &span);
        write_hexadecimal(&mut header[53..], &[self.flags()]);
        header
    }
}

/// The `tracestate`, if it is valid and not too long to be passed on.
pub fn tracestate(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= MOST_TRACESTATE_BYTES)?;
    let entries = || text.split(',').map(|entry| entry.trim_matches([' ', '\t'])).filter(|entry| !entry.is_empty());
    let count = entries().take(MOST_ENTRIES + 1).count();
    ((1..=MOST_ENTRIES).contains(&count) && entries().all(is_entry)).then_some(text)
}

/// `key=value`, as the recommendation's second level has it.
fn is_entry(entry: &str) -> bool {
    let Some((key, value)) = entry.split_once('=') else { return false };
    let begins = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let key_character = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*' | b'/' | b'@')
    };
    let value_character = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'=';
    begins
        && key.len() <= 256
        && key.bytes().all(key_character)
        && (1..=256).contains(&value.len())
        && value.bytes().all(value_character)
}

/// Reads `2 * N` lower-case hexadecimal digits.
fn hexadecimal<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

fn write_hexadecimal(digits: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_valid_header_is_read_and_written_back() {
        let context = TraceContext::parse(VALID).expect("valid");
        assert!(context.is_sampled());
        assert_eq!(context.trace_id[..3], [0x0a, 0xf7, 0x65]);
        assert_eq!(context.sent_by(context.parent_id), VALID);
        let own = context.sent_by([0, 0, 0, 0, 0, 0, 0, 0xfe]);
        assert_eq!(own.as_slice(), b"00-0af7651916cd43dd8448eb211c80319c-00000000000000fe-01");
    }

    #[test]
    fn flags_are_kept_as_far_as_they_are_known() {
        for (flags, sampled, kept) in
            [("00", false, 0), ("01", true, 1), ("03", true, 3), ("ff", true, 3), ("fe", false, 2)]
        {
            let header = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            let context = TraceContext::parse(header.as_bytes()).expect("valid");
            assert_eq!((context.is_sampled(), context.flags()), (sampled, kept), "{flags}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_will_not_change() {
        for header in [
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-may-come",
        ] {
            let context = TraceContext::parse(header.as_bytes()).expect("valid");
            assert_eq!(context.sent_by(context.parent_id), VALID, "written as the version that is known");
        }
    }

    #[test]
    fn what_is_not_valid_is_as_good_as_absent() {
        for header in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 ",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "0x-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x",
        ] {
            assert_eq!(TraceContext::parse(header.as_bytes()), None, "{header:?}");
        }
    }

    #[test]
    fn a_tracestate_is_a_short_list_of_keys_with_values() {
        for valid in
            ["a=1", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "a=1, b=2\t,,c=3", "tenant@vendor=x y", "0a_-*/=!\"~"]
        {
            assert_eq!(tracestate(valid.as_bytes()), Some(valid));
        }
        let long = format!("a={}", "x".repeat(256));
        assert_eq!(tracestate(long.as_bytes()), Some(long.as_str()));
        let most = (0..32).map(|key| format!("k{key}=v")).collect::<Vec<_>>().join(",");
        assert_eq!(tracestate(most.as_bytes()), Some(most.as_str()));
        let too_many = format!("{most},one=more");
        let too_long = format!("a={0},b={0}", "x".repeat(256));
        let value_too_long = format!("a={}", "x".repeat(257));
        for not in [
            "",
            " ",
            ",",
            "a",
            "=1",
            "a=",
            "A=1",
            "@a=1",
            "a b=1",
            "a=1=2",
            "a=ü",
            "a=\u{7f}",
            &too_many,
            &too_long,
            &value_too_long,
        ] {
            assert_eq!(tracestate(not.as_bytes()), None, "{not:?}");
        }
        assert_eq!(tracestate(&[b'a', b'=', 0xff]), None);
    }
}
