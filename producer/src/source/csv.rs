//! Transactions from a CSV file laid out like the public `creditcard.csv`: `Time,V1,…,V28,Amount,Class`.
//!
//! The header names the features. `Time` (seconds since the file's first transaction) may become the event time;
//! `Class` is the answer and is never sent with the row; it becomes the row's label. Any other column that is neither `V…` nor `Amount` is a feature when its
//! first value is a number, and is left out with a warning when it is text. From then on a field that is no number
//! is an error. Digits are passed through unchanged wherever they are a JSON number.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};
use fraud_wire::transaction::{Columns, Number, Value};

use super::{EventTime, Format, Row, Source, SourceError, TransactionId, open};

/// What a file's `Time` counts from with [`EventTime::File`]: 2013-09-01T00:00:00Z, the month in which the public
/// data set was recorded. In milliseconds since 1970-01-01 UTC.
pub const FILE_EPOCH_MILLISECONDS: i64 = 1_377_993_600_000;

const TIME: &str = "Time";
const CLASS: &str = "Class";

/// Sends the rows of a CSV file in their order, with `row-1`, `row-2`, … as transaction ids.
pub struct CsvSource {
    path: PathBuf,
    reader: Reader<Box<dyn BufRead + Send>>,
    record: ByteRecord,
    /// What reading the first row into `record` came to, until it is that row's turn.
    first: Option<::csv::Result<bool>>,
    rows: u64,
    header: Vec<String>,
    names: Vec<String>,
    /// Positions of the features in a row, in the order of `columns`.
    features: Vec<usize>,
    time: Option<usize>,
    class: Option<usize>,
    /// A row without a label is an error.
    is_labelled: bool,
    columns: Columns,
    format: Format,
    identifier: String,
}

/// A field of a row: its own text, or the number that an unusual spelling (`.5`, `+1`) stands for.
enum Field<'a> {
    Text(Number<'a>),
    Parsed(f64),
}

impl Value for Field<'_> {
    fn write(&self, buffer: &mut Vec<u8>) {
        match self {
            Field::Text(number) => number.write(buffer),
            Field::Parsed(number) => number.write(buffer),
        }
    }
}

impl CsvSource {
    /// Opens a file, plain or gzip, or standard input for `-`, and reads its header.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`]; [`SourceError::Header`] when there is no header, no feature, or no `Time` for
    /// [`EventTime::File`].
    pub fn open(path: &Path, format: Format, event_time: EventTime) -> Result<CsvSource, SourceError> {
        let mut reader = ReaderBuilder::new().has_headers(true).from_reader(open(path)?);
        let header_error = |reason: String| SourceError::Header { path: path.to_owned(), reason };
        let header = reader.headers().map_err(|error| header_error(format!("cannot read the header: {error}")))?;
        let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        if let Some(reason) = unreadable(&header) {
            return Err(header_error(reason));
        }
        if header.iter().any(|name| name.parse::<f64>().is_ok()) {
            return Err(header_error("the first line must name the columns, as in Time,V1,…,Amount,Class".to_owned()));
        }
        let mut record = ByteRecord::new();
        let first = reader.read_byte_record(&mut record);
        let has_row = matches!(first, Ok(true));
        let (mut features, mut texts) = (Vec::new(), Vec::new());
        for (index, name) in header.iter().enumerate() {
            if name == TIME || name == CLASS || name.is_empty() {
                continue;
            }
            if has_row && !is_card_feature(name) && field(&record[index]).is_none() {
                texts.push(name.as_str());
            } else {
                features.push(index);
            }
        }
        if !texts.is_empty() {
            tracing::warn!("left out of {}, because they hold text: columns {}", path.display(), texts.join(", "));
        }
        if features.is_empty() {
            return Err(header_error("there is no feature among the columns".to_owned()));
        }
        let time = match event_time {
            EventTime::Send | EventTime::Speed(_) => None,
            EventTime::File => Some(
                header
                    .iter()
                    .position(|name| name == TIME)
                    .ok_or_else(|| header_error("there is no column Time to take the event time from".to_owned()))?,
            ),
        };
        let names: Vec<String> = features.iter().map(|&index| header[index].clone()).collect();
        let columns = Columns::new(&names);
        let class = header.iter().position(|name| name == CLASS);
        Ok(CsvSource {
            path: path.to_owned(),
            reader,
            record,
            first: Some(first),
            rows: 0,
            header,
            names,
            features,
            time,
            class,
            is_labelled: false,
            columns,
            format,
            identifier: String::new(),
        })
    }

    /// Makes a label a must: a row whose `Class` is neither 0 nor 1 ends the run.
    ///
    /// # Errors
    /// [`SourceError::Header`] when there is no column `Class`.
    pub fn labelled(mut self) -> Result<CsvSource, SourceError> {
        if self.class.is_none() {
            let reason = "there is no column Class to take the labels from".to_owned();
            return Err(SourceError::Header { path: self.path, reason });
        }
        self.is_labelled = true;
        Ok(self)
    }

    /// The row's class; `None` where it is neither 0 nor 1, unless labels are a must.
    fn label(&self) -> Result<Option<u8>, SourceError> {
        let Some(index) = self.class else { return Ok(None) };
        match number(&self.record[index]) {
            Some(0.0) => Ok(Some(0)),
            Some(1.0) => Ok(Some(1)),
            _ if self.is_labelled => {
                let text = String::from_utf8_lossy(&self.record[index]).into_owned();
                Err(self.row_error(format!("column {CLASS}: {text:?} is neither 0 nor 1")))
            }
            _ => Ok(None),
        }
    }

    fn row_error(&self, reason: String) -> SourceError {
        let line = self.record.position().map_or(0, ::csv::Position::line);
        SourceError::Row { path: self.path.clone(), line, reason }
    }

    fn reading_error(&self, error: ::csv::Error) -> SourceError {
        let line = error.position().map_or(0, ::csv::Position::line);
        match error.into_kind() {
            ErrorKind::Io(source) => SourceError::Unreadable { path: self.path.clone(), source },
            ErrorKind::UnequalLengths { expected_len, len, .. } => SourceError::Row {
                path: self.path.clone(),
                line,
                reason: format!("{len} fields where the header has {expected_len}"),
            },
            other => SourceError::Row { path: self.path.clone(), line, reason: format!("{other:?}") },
        }
    }

    fn not_a_number(&self, index: usize) -> SourceError {
        let text = String::from_utf8_lossy(&self.record[index]).into_owned();
        self.row_error(format!("column {}: {text:?} is not a number", self.header[index]))
    }
}

impl Source for CsvSource {
    fn next(&mut self, event_time: i64, row: &mut Row) -> Result<bool, SourceError> {
        match self.first.take().unwrap_or_else(|| self.reader.read_byte_record(&mut self.record)) {
            Ok(true) => self.rows += 1,
            Ok(false) => return Ok(false),
            Err(error) => return Err(self.reading_error(error)),
        }
        let event_time = match self.time {
            None => event_time,
            Some(index) => {
                let seconds = number(&self.record[index]).ok_or_else(|| self.not_a_number(index))?;
                FILE_EPOCH_MILLISECONDS + (seconds * 1_000.0).round() as i64
            }
        };
        let transaction = TransactionId::Row(self.rows);
        (row.transaction, row.event_time, row.label) = (Some(transaction), event_time, self.label()?);
        let value = &mut row.value;
        // A field that is no number is noted while the row is written; the row is then thrown away as a whole.
        let mut refused = None;
        let record = &self.record;
        let fields = self.features.iter().map(|&index| {
            field(&record[index]).unwrap_or_else(|| {
                refused.get_or_insert(index);
                Field::Parsed(0.0)
            })
        });
        value.clear();
        match self.format {
            Format::Object => {
                use std::fmt::Write as _;
                self.identifier.clear();
                // Writing to a String cannot fail.
                _ = write!(self.identifier, "{transaction}");
                self.columns.write_object(value, &self.identifier, event_time, fields);
            }
            Format::Split => self.columns.write_split(value, fields),
        }
        refused.map_or(Ok(true), |index| Err(self.not_a_number(index)))
    }

    fn has_event_times(&self) -> bool {
        self.time.is_some()
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn features(&self, values: &mut Vec<f64>) {
        // `next` has refused what is no number; what is too large for a double is infinite, as its text says.
        let parse = |text: &[u8]| std::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
        values.extend(self.features.iter().map(|&index| parse(&self.record[index]).unwrap_or(f64::NAN)));
    }
}

/// Why rows under this header cannot be told apart.
fn unreadable(header: &[String]) -> Option<String> {
    const FIX: &str = "save the file with commas between columns and points in numbers";
    let first = header.first()?;
    if first.to_ascii_lowercase().starts_with("sep=") {
        return Some(format!("the first line is {first:?}, a note to Excel: delete that line, and {FIX}"));
    }
    if let (1, Some(separator)) = (header.len(), first.chars().find(|byte| matches!(byte, ';' | '\t' | '|'))) {
        return Some(format!("its columns are separated by {separator:?}: {FIX}"));
    }
    let named = || header.iter().enumerate().filter(|(_, name)| !name.is_empty());
    named().find_map(|(index, name)| {
        let (earlier, _) = named().take_while(|(earlier, _)| *earlier < index).find(|(_, other)| *other == name)?;
        let (earlier, later) = (earlier + 1, index + 1);
        Some(format!("columns {earlier} and {later} are both named {name}: rename one, or delete it"))
    })
}

/// Whether the name is one of the public data set's features, whose values must be numbers from the first row on.
fn is_card_feature(name: &str) -> bool {
    let is_component = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    name == "Amount" || name.strip_prefix('V').is_some_and(is_component)
}

fn field(text: &[u8]) -> Option<Field<'_>> {
    let text = text.trim_ascii();
    Number::new(text).map(Field::Text).or_else(|| number(text).map(Field::Parsed))
}

/// A finite number in any spelling Rust knows.
fn number(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::tests::{drain, drain_rows, file};
    use super::*;

    const SMALL: &str = "\"Time\",\"V1\",\"V2\",\"Amount\",\"Class\"\n0,-1.3598071336738000,1e-05,149.62,\"0\"\n1.5,2, -0.50 ,.5,\"1\"\n";

    fn open(content: &str, gzip: bool, format: Format, event_time: EventTime) -> Result<Vec<String>, SourceError> {
        let file = file(content.as_bytes(), gzip);
        drain(&mut CsvSource::open(file.path(), format, event_time)?)
    }

    #[test]
    fn rows_become_transactions_with_their_own_digits() {
        for gzip in [false, true] {
            let rows = open(SMALL, gzip, Format::Object, EventTime::Send).unwrap();
            assert_eq!(
                rows,
                [
                    r#"{"transaction_id":"row-1","event_time":1000,"V1":-1.3598071336738000,"V2":1e-05,"Amount":149.62}"#,
                    r#"{"transaction_id":"row-2","event_time":1001,"V1":2,"V2":-0.50,"Amount":0.5}"#,
                ],
                "gzip {gzip}"
            );
        }
    }

    #[test]
    fn the_split_form_holds_columns_and_data_alone() {
        let rows = open(SMALL, false, Format::Split, EventTime::Send).unwrap();
        assert_eq!(rows[1], r#"{"columns":["V1","V2","Amount"],"data":[[2,-0.50,0.5]]}"#);
    }

    #[test]
    fn event_time_may_come_from_the_file() {
        let rows = open(SMALL, false, Format::Object, EventTime::File).unwrap();
        assert!(rows[0].contains("\"event_time\":1377993600000,"), "{}", rows[0]);
        assert!(rows[1].contains("\"event_time\":1377993601500,"), "{}", rows[1]);
    }

    #[test]
    fn the_class_becomes_the_label_and_features_come_as_numbers() {
        let content = file(SMALL.as_bytes(), false);
        let open = || CsvSource::open(content.path(), Format::Object, EventTime::File).unwrap().labelled().unwrap();
        let rows = drain_rows(&mut open()).unwrap();
        let seen: Vec<_> = rows.iter().map(|row| (row.transaction, row.event_time, row.label)).collect();
        assert_eq!(
            seen,
            [
                (Some(TransactionId::Row(1)), FILE_EPOCH_MILLISECONDS, Some(0)),
                (Some(TransactionId::Row(2)), FILE_EPOCH_MILLISECONDS + 1_500, Some(1)),
            ]
        );
        let (mut source, mut values) = (open(), Vec::new());
        assert!(source.next(0, &mut Row::default()).unwrap());
        source.features(&mut values);
        assert_eq!(source.names(), ["V1", "V2", "Amount"]);
        assert_eq!(values, [-1.3598071336738, 1e-5, 149.62]);
    }

    #[test]
    fn labels_that_are_a_must_are_refused_where_they_are_missing() {
        let labelled = |content: &str| {
            let file = file(content.as_bytes(), false);
            let source = CsvSource::open(file.path(), Format::Object, EventTime::Send)?.labelled();
            drain_rows(&mut source?)
        };
        let error = labelled("V1\n1\n").unwrap_err().to_string();
        assert!(error.contains("no column Class"), "{error}");
        let error = labelled("V1,Class\n1,0\n2,maybe\n").unwrap_err().to_string();
        assert!(error.contains("line 3: column Class: \"maybe\" is neither 0 nor 1"), "{error}");
        let rows = file(b"V1,Class\n1,maybe\n", false);
        let mut source = CsvSource::open(rows.path(), Format::Object, EventTime::Send).unwrap();
        assert_eq!(drain_rows(&mut source).unwrap()[0].label, None, "nobody asked");
    }

    #[test]
    fn malformed_rows_end_the_stream_and_name_line_and_column() {
        let cases = [
            ("V1,V2\n1,2\n3\n", "line 3", "1 fields where the header has 2"),
            ("V1,V2\n1,2\n3,4,5\n", "line 3", "3 fields where the header has 2"),
            ("V1,V2\n1,2\n3,x\n", "line 3", "column V2: \"x\" is not a number"),
            ("V1,V2\n,2\n", "line 2", "column V1: \"\" is not a number"),
            ("V1,V2\nNaN,2\n", "line 2", "column V1: \"NaN\" is not a number"),
            ("Time,V1\nsoon,2\n", "line 2", "column Time: \"soon\" is not a number"),
        ];
        for (content, line, reason) in cases {
            let event_time = if content.starts_with(TIME) { EventTime::File } else { EventTime::Send };
            let error = open(content, false, Format::Object, event_time).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(reason), "{content:?}: {error}");
        }
    }

    #[test]
    fn text_columns_are_no_features_unless_they_turn_up_late() {
        let rows = open("V1,sampling,risk\n1,head,0.5\n2,tail,0.25\n", false, Format::Split, EventTime::Send).unwrap();
        assert_eq!(
            rows,
            [r#"{"columns":["V1","risk"],"data":[[1,0.5]]}"#, r#"{"columns":["V1","risk"],"data":[[2,0.25]]}"#]
        );
        let error = open("V1,risk\n1,0.5\n2,high\n", false, Format::Split, EventTime::Send).unwrap_err().to_string();
        assert!(error.contains("line 3: column risk: \"high\" is not a number"), "{error}");
    }

    #[test]
    fn a_header_that_cannot_be_is_refused() {
        let cases = [
            ("0.5,1.5\n1,2\n", EventTime::Send, "must name the columns"),
            ("Time,Class\n1,2\n", EventTime::Send, "no feature"),
            ("colour\nred\n", EventTime::Send, "no feature"),
            ("", EventTime::Send, "no feature"),
            ("V1\n1\n", EventTime::File, "no column Time"),
            ("Time,V1,V2,V1,Class\n0,1,2,3,0\n", EventTime::Send, "columns 2 and 4 are both named V1"),
            ("V1,Class, Class\n1,0,0\n", EventTime::Send, "columns 2 and 3 are both named Class"),
            ("Time;V1;V2\n0;1.5;2\n", EventTime::Send, "separated by ';': save the file with commas"),
            ("Time;V1;V2\n0;1,5;2\n", EventTime::Send, "separated by ';': save the file with commas"),
            ("Time\tV1\n0\t1\n", EventTime::Send, "separated by '\\t'"),
            ("sep=,\nTime,V1\n0,1\n", EventTime::Send, "the first line is \"sep=\""),
            ("sep=;\nTime;V1\n0;1\n", EventTime::Send, "the first line is \"sep=;\""),
        ];
        for (content, event_time, reason) in cases {
            let error = open(content, false, Format::Object, event_time).unwrap_err().to_string();
            assert!(error.contains(reason), "{content:?}: {error}");
        }
    }
}
