#![allow(clippy::unwrap_used)]

use fraud_wire::verdict::{Decision, ModelVersion, Source};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;

use super::*;

/// One of each decision in turn, and another version every four.
pub(in crate::archive) fn verdict(number: i64) -> Verdict {
    let decision = Decision::ALL[(number % 3) as usize];
    Verdict {
        transaction_id: format!("t{number}"),
        score: 0.1 * number as f32,
        decision,
        label: decision.label(),
        model: ModelVersion { name: "fraud".to_owned(), version: (number / 4).to_string() },
        event_time: 1_000 + number,
        source: Source { topic: "transactions".to_owned(), partition: 7, offset: 100 + number, row: 0 },
    }
}

#[test]
fn rows_read_back_with_the_contracts_columns_and_missing_inputs_are_null() {
    let spool = tempfile::tempdir().unwrap();
    let layout = Layout::new(&["V1".to_owned(), "Amount".to_owned()]).unwrap();
    let mut file = FileUnderWay::new(&layout, 40);
    for number in 0..9_i64 {
        let features = [number as f32, 149.62];
        let place = Place { partition: 7, offset: 40 + number };
        file.add(place, &verdict(number), (number != 4).then_some(features.as_slice()));
        if number == 2 || number == 4 {
            file.flush(spool.path()).unwrap();
            assert_eq!(file.gathered(), 0);
        }
    }
    assert_eq!((file.rows, file.gathered()), (9, 4));
    let spooled = file.finish(spool.path()).unwrap();
    assert_eq!(spooled.rows, 9);
    assert_eq!(spooled.size, spooled.file.metadata().unwrap().len());
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "spool files have no names");

    let reader = SerializedFileReader::new(spooled.file).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 3);
    let rows: Vec<Vec<(String, Field)>> =
        reader.get_row_iter(None).unwrap().map(|row| row.unwrap().into_columns()).collect();
    assert_eq!(rows.len(), 9);
    for (row, number) in rows.iter().zip(0_i64..) {
        let verdict = verdict(number);
        let feature = |value: f32| if number == 4 { Field::Null } else { Field::Double(f64::from(value)) };
        let expected = [
            ("transaction_id", Field::Str(verdict.transaction_id)),
            ("event_time", Field::Long(1_000 + number)),
            ("V1", feature(number as f32)),
            ("Amount", feature(149.62)),
            ("score", Field::Float(verdict.score)),
            ("decision", Field::Str(verdict.decision.as_str().to_owned())),
            ("label", Field::Byte(verdict.label as i8)),
            ("model_name", Field::Str("fraud".to_owned())),
            ("model_version", Field::Str(verdict.model.version)),
            ("verdict_partition", Field::Int(7)),
            ("verdict_offset", Field::Long(40 + number)),
            ("source_partition", Field::Int(7)),
            ("source_offset", Field::Long(100 + number)),
        ];
        assert_eq!(*row, expected.map(|(name, field)| (name.to_owned(), field)));
    }
}

#[test]
fn a_feature_named_like_a_column_is_refused() {
    for name in ["score", "label", "hour", "source_offset"] {
        let error = Layout::new(&["V1".to_owned(), name.to_owned()]).err().unwrap();
        assert!(error.contains(name), "{error}");
    }
}
