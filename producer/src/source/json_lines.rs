//! Records exactly as a file holds them: one per line, byte for byte, whether they are valid JSON or not.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::{Row, Source, SourceError, open};

/// Sends each non-empty line of a file, without its line ending (`\n` or `\r\n`).
pub struct JsonLinesSource {
    path: PathBuf,
    reader: Box<dyn BufRead + Send>,
}

impl JsonLinesSource {
    /// Opens a file, plain or gzip, or standard input for `-`.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`].
    pub fn open(path: &Path) -> Result<JsonLinesSource, SourceError> {
        Ok(JsonLinesSource { path: path.to_owned(), reader: open(path)? })
    }
}

impl Source for JsonLinesSource {
    fn next(&mut self, event_time: i64, row: &mut Row) -> Result<bool, SourceError> {
        (row.transaction, row.event_time, row.label) = (None, event_time, None);
        let value = &mut row.value;
        loop {
            value.clear();
            let read = self.reader.read_until(b'\n', value);
            if read.map_err(|source| SourceError::Unreadable { path: self.path.clone(), source })? == 0 {
                return Ok(false);
            }
            if value.last() == Some(&b'\n') {
                value.pop();
                if value.last() == Some(&b'\r') {
                    value.pop();
                }
            }
            if !value.is_empty() {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{drain, file};
    use super::*;

    #[test]
    fn lines_are_sent_byte_for_byte() {
        let content = b"{\"a\": 1}\r\n\n  {\"b\":2.50} \nnot json\n\r\n\"last\"";
        for gzip in [false, true] {
            let file = file(content, gzip);
            let mut source = JsonLinesSource::open(file.path()).unwrap();
            let expected = ["{\"a\": 1}", "  {\"b\":2.50} ", "not json", "\"last\""];
            assert_eq!(drain(&mut source).unwrap(), expected, "gzip {gzip}");
        }
    }

    #[test]
    fn a_truncated_gzip_file_is_an_error_not_an_end() {
        let whole = file(&b"{\"a\":1}\n".repeat(10_000), true);
        let bytes = std::fs::read(whole.path()).unwrap();
        let cut = file(&bytes[..bytes.len() / 2], false);
        let mut source = JsonLinesSource::open(cut.path()).unwrap();
        assert!(matches!(drain(&mut source), Err(SourceError::Unreadable { .. })));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = JsonLinesSource::open(Path::new("/nowhere.jsonl")).err().unwrap();
        assert!(error.to_string().contains("/nowhere.jsonl"), "{error}");
    }
}
