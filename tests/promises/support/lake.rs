//! What an archive wrote: files of a folder read back, and held against the topics.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use axum::body::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::Value;

use super::topics::Topics;

/// A row of an archive's file.
#[derive(Clone, Debug, PartialEq)]
pub struct Archived {
    /// Path of its file below the archive.
    pub file: String,
    pub columns: HashMap<String, Field>,
}

impl Archived {
    pub fn long(&self, column: &str) -> i64 {
        match self.columns[column] {
            Field::Long(value) => value,
            Field::Int(value) => value.into(),
            ref other => panic!("{column} is {other:?}"),
        }
    }

    pub fn text(&self, column: &str) -> &str {
        let Field::Str(text) = &self.columns[column] else { panic!("{column}") };
        text
    }

    /// Verdict partition and offset.
    pub fn place(&self) -> (i32, i64) {
        (self.long("verdict_partition") as i32, self.long("verdict_offset"))
    }

    /// `None` where all are null; panics where only some are.
    pub fn features(&self) -> Option<Vec<f64>> {
        let values: Vec<Option<f64>> = names()
            .iter()
            .map(|name| match self.columns[name] {
                Field::Double(value) => Some(value),
                Field::Null => None,
                ref other => panic!("{name} is {other:?}"),
            })
            .collect();
        if values.iter().all(Option::is_none) { None } else { Some(values.into_iter().map(Option::unwrap).collect()) }
    }
}

/// The card data's features.
pub fn names() -> Vec<String> {
    (1..=28).map(|number| format!("V{number}")).chain(["Amount".to_owned()]).collect()
}

/// Paths of a folder's Parquet files, sorted, relative to it. Files whose names begin with a dot or an underscore, or
/// do not end in .parquet, are what readers leave out.
pub fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).into_iter().flatten() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".parquet") && !name.starts_with(['.', '_']) {
                found.push(path.strip_prefix(folder).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// How many rows a folder has, by its files' footers.
pub fn count(folder: &Path) -> usize {
    let rows = |file: String| {
        let file = fs::File::open(folder.join(file)).unwrap();
        SerializedFileReader::new(file).unwrap().metadata().file_metadata().num_rows() as usize
    };
    files(folder).into_iter().map(rows).sum()
}

/// All rows of a folder.
pub fn rows(folder: &Path) -> Vec<Archived> {
    let read = |file: String| {
        let bytes = fs::read(folder.join(&file)).unwrap();
        rows_of(&file, bytes.into())
    };
    files(folder).into_iter().flat_map(read).collect()
}

/// The rows of one file.
pub fn rows_of(file: &str, bytes: Bytes) -> Vec<Archived> {
    let reader = SerializedFileReader::new(bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let columns = |row: Row| row.into_columns().into_iter().collect();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| Archived { file: file.to_owned(), columns: columns(row.unwrap()) }).collect()
}

/// Asserts that the rows are exactly the verdicts of the topic, each once, with all columns, each in the folder of its
/// hour, and with its input's features (`None` for those of `missing` source offsets).
pub fn assert_complete(topics: &Topics, rows: &[Archived], missing: &dyn Fn(i32, i64) -> bool) {
    let mut by_place: BTreeMap<(i32, i64), &Archived> = BTreeMap::new();
    for row in rows {
        if let Some(other) = by_place.insert(row.place(), row) {
            panic!("verdict {:?} is in {} and in {}", row.place(), other.file, row.file);
        }
    }
    let inputs: HashMap<(i32, i64), Value> = topics
        .read(&topics.input)
        .into_iter()
        .map(|record| {
            ((record.partition, record.offset), serde_json::from_slice(record.value.as_deref().unwrap()).unwrap())
        })
        .collect();
    let verdicts = topics.read(&topics.output);
    let mut count = 0;
    for message in &verdicts {
        let value = message.value.as_deref().unwrap_or_default();
        let Ok(verdict) = serde_json::from_slice::<fraud_wire::verdict::Verdict>(value) else { continue };
        count += 1;
        let place = (message.partition, message.offset);
        let row = by_place.get(&place).unwrap_or_else(|| panic!("verdict {place:?} is in no file"));
        assert_eq!(row.text("transaction_id"), verdict.transaction_id);
        assert_eq!(row.text("decision"), verdict.decision.as_str());
        assert_eq!((row.text("model_name"), row.text("model_version")), ("fraud", verdict.model.version.as_str()));
        assert_eq!(row.columns["score"], Field::Float(verdict.score));
        assert_eq!(row.columns["label"], Field::Byte(verdict.label as i8));
        assert_eq!(row.long("event_time"), verdict.event_time);
        let source = (row.long("source_partition") as i32, row.long("source_offset"));
        assert_eq!(source, (verdict.source.partition, verdict.source.offset));
        let hour = verdict.event_time.div_euclid(3_600_000).rem_euclid(24);
        assert!(row.file.contains(&format!("/hour={hour:02}/{}-{:05}-", topics.output, message.partition)), "{row:?}");
        if missing(source.0, source.1) {
            assert_eq!(row.features(), None, "{row:?}");
            continue;
        }
        let found = row.features().unwrap_or_else(|| panic!("no features: {row:?}"));
        let expected = features(&inputs[&source], verdict.source.row as usize);
        for ((found, expected), name) in found.iter().zip(&expected).zip(names()) {
            assert!((found - expected).abs() <= 1e-6 * expected.abs().max(1e-3), "{name}: {found} {expected}");
        }
    }
    assert_eq!(by_place.len(), count, "rows that no verdict asks for");
}

/// The features of a transaction in either form.
fn features(transaction: &Value, row: usize) -> Vec<f64> {
    match transaction["columns"].as_array() {
        None => names().iter().map(|name| transaction[name].as_f64().unwrap()).collect(),
        Some(columns) => {
            let place = |name: &String| columns.iter().position(|column| column == name.as_str()).unwrap();
            names().iter().map(|name| transaction["data"][row][place(name)].as_f64().unwrap()).collect()
        }
    }
}
