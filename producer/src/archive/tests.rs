#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;

use super::*;
use crate::source::SourceError;

const HOUR: i64 = 3_600_000;

/// A source whose rows say when they happened: hours since 1970-01-01.
struct Hours(Vec<i64>, usize, Vec<String>);

impl Source for Hours {
    fn next(&mut self, _event_time: i64, row: &mut Row) -> Result<bool, SourceError> {
        let Some(hour) = self.0.get(self.1) else { return Ok(false) };
        self.1 += 1;
        row.transaction = Some(TransactionId::Row(self.1 as u64));
        row.event_time = hour * HOUR;
        row.label = Some((self.1 % 2) as u8);
        Ok(true)
    }

    fn names(&self) -> &[String] {
        &self.2
    }

    fn features(&self, values: &mut Vec<f64>) {
        values.extend([self.1 as f64, 0.1 * self.1 as f64]);
    }
}

fn settings(folder: &Path, format: ArchiveFormat) -> ArchiveSettings {
    let location = Location::Folder(folder.to_owned());
    ArchiveSettings { location, format, run: "7".to_owned(), label_delay: Duration::from_secs(86_400) }
}

/// Archives one row per hour given, and says how that went.
fn fill(settings: &ArchiveSettings, hours: &[i64]) -> Result<Closed, ArchiveError> {
    let mut source = Hours(hours.to_vec(), 0, vec!["V1".to_owned(), "Amount".to_owned()]);
    let mut archive = Archive::open(settings, source.names())?;
    let mut row = Row::default();
    while source.next(0, &mut row).unwrap() {
        archive.add(&row, &source)?;
    }
    Ok(archive.close())
}

/// All files under a folder, by their paths in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path.strip_prefix(folder).unwrap().to_owned()) }
        }
    }
    found.sort();
    found
}

fn names(files: &[PathBuf]) -> Vec<&str> {
    files.iter().map(|file| file.to_str().unwrap()).collect()
}

#[test]
fn rows_go_to_their_days_as_csv() {
    let folder = tempfile::tempdir().unwrap();
    // Made where it is missing.
    let folder = folder.path().join("new/archive");
    let closed = fill(&settings(&folder, ArchiveFormat::Csv), &[22, 23, 24, 50]).unwrap();
    assert!(closed.rows == 4 && closed.error.is_none());
    let found = files(&folder);
    assert_eq!(
        names(&found),
        [
            "day=1970-01-01/part-7-79200000-0001.csv",
            "day=1970-01-02/part-7-79200000-0001.csv",
            "day=1970-01-03/part-7-79200000-0001.csv"
        ]
    );
    assert_eq!(
        std::fs::read_to_string(folder.join(&found[0])).unwrap(),
        "transaction_id,event_time,V1,Amount,label,known_at\n\
         row-1,79200000,1,0.1,1,165600000\n\
         row-2,82800000,2,0.2,0,169200000\n"
    );
}

#[test]
fn parquet_has_the_contracts_columns_and_the_same_values() {
    let folder = tempfile::tempdir().unwrap();
    fill(&settings(folder.path(), ArchiveFormat::Parquet), &[0, 1, 2]).unwrap();
    let found = files(folder.path());
    assert_eq!(names(&found), ["day=1970-01-01/part-7-0-0001.parquet"]);
    let reader = SerializedFileReader::new(std::fs::File::open(folder.path().join(&found[0])).unwrap()).unwrap();
    let rows: Vec<Vec<(String, Field)>> =
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect();
    let day = 24 * HOUR;
    for (index, row) in rows.iter().enumerate() {
        let (number, time) = (index as f64 + 1.0, index as i64 * HOUR);
        let expected = [
            ("transaction_id", Field::Str(format!("row-{number}"))),
            ("event_time", Field::Long(time)),
            ("V1", Field::Double(number)),
            ("Amount", Field::Double(0.1 * number)),
            ("label", Field::Byte(((index + 1) % 2) as i8)),
            ("known_at", Field::Long(time + day)),
        ];
        assert_eq!(*row, expected.map(|(name, field)| (name.to_owned(), field)));
    }
    assert_eq!(rows.len(), 3);
}

#[test]
fn a_repeated_run_replaces_its_files_and_another_adds_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let mine = settings(folder.path(), ArchiveFormat::Csv);
    for _ in 0..2 {
        fill(&mine, &[0, 1]).unwrap();
    }
    assert_eq!(files(folder.path()).len(), 1);
    fill(&mine, &[5, 6]).unwrap();
    fill(&ArchiveSettings { run: "8".to_owned(), ..mine }, &[0, 1]).unwrap();
    assert_eq!(files(folder.path()).len(), 3, "a later start and another seed are other rows of the same day");
}

#[test]
fn rows_out_of_order_still_go_to_their_days_without_a_file_for_each() {
    let folder = tempfile::tempdir().unwrap();
    let hours: Vec<i64> = [30, 0, 31, 1, 32, 2].to_vec();
    fill(&settings(folder.path(), ArchiveFormat::Csv), &hours).unwrap();
    let found = files(folder.path());
    assert_eq!(found.len(), 2, "{found:?}");
    let text = std::fs::read_to_string(folder.path().join(&found[0])).unwrap();
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_large_day_is_several_files() {
    let folder = tempfile::tempdir().unwrap();
    let hours = vec![3; PART_ROWS + 1];
    let closed = fill(&settings(folder.path(), ArchiveFormat::Parquet), &hours).unwrap();
    assert!(closed.error.is_none() && closed.rows == PART_ROWS as u64 + 1);
    let found = files(folder.path());
    let rows = found.iter().map(|file| {
        let reader = SerializedFileReader::new(std::fs::File::open(folder.path().join(file)).unwrap()).unwrap();
        reader.metadata().file_metadata().num_rows()
    });
    assert_eq!(rows.collect::<Vec<_>>(), [PART_ROWS as i64, 1], "{found:?}");
}

#[test]
fn what_cannot_be_written_to_is_refused_before_the_first_row() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = fill(&settings(file.path(), ArchiveFormat::Csv), &[0]).err().unwrap();
    assert!(matches!(error, ArchiveError::Unusable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("--archive") && text.contains(file.path().to_str().unwrap()), "{text}");

    let folder = tempfile::tempdir().unwrap();
    let error = Archive::open(&settings(folder.path(), ArchiveFormat::Csv), &["label".to_owned()]).err().unwrap();
    assert!(error.to_string().contains("a feature is called label"), "{error}");
    assert!(files(folder.path()).is_empty(), "the probe leaves nothing");
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_the_run_told() {
    let folder = tempfile::tempdir().unwrap();
    // A file in the place of the second day's folder.
    std::fs::write(folder.path().join("day=1970-01-02"), "").unwrap();
    // Told by the close at the latest, or when the writer is seen to be gone.
    let outcome = fill(&settings(folder.path(), ArchiveFormat::Csv), &[0, 24, 48, 72, 96]);
    let error = outcome.map_or_else(|error| error, |closed| closed.error.unwrap());
    let text = error.to_string();
    assert!(text.contains("day=1970-01-02/part-7-0-0001.csv") && text.contains("--archive"), "{text}");
    assert!(folder.path().join("day=1970-01-01/part-7-0-0001.csv").exists());
    assert!(!folder.path().join("day=1970-01-03").exists(), "nothing after the failure");
}
