//! Reading files that others write: whole, or not at all where they are larger than they may be.

use std::io::{Error, ErrorKind, Read, Result};

/// All of `source`.
///
/// # Errors
/// It has more than `most` bytes ([`ErrorKind::FileTooLarge`]), or cannot be read.
pub fn read(source: impl Read, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// As [`read`], of UTF-8.
///
/// # Errors
/// Those of [`read`], and bytes that are no UTF-8 ([`ErrorKind::InvalidData`]).
pub fn read_text(source: impl Read, most: u64) -> Result<String> {
    String::from_utf8(read(source, most)?).map_err(|error| Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_larger_is_refused_and_never_cut_off() {
        assert_eq!(read(&b"abc"[..], 3).expect("all"), b"abc");
        assert_eq!(read(&b"abcd"[..], 3).expect_err("too large").kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_text(&b"abc"[..], 3).expect("all"), "abc");
        assert_eq!(read_text(&b"a\xff"[..], 3).expect_err("no text").kind(), ErrorKind::InvalidData);
    }
}
