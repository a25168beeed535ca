//! An archive holds the rows that were sent, and can be filled without a broker.

use std::path::Path;

use crate::support::{Broker, binary, file, finish};

/// The lines of all CSV files below a folder, without their headers, in the order of their paths.
fn lines(folder: &Path) -> Vec<String> {
    let mut days: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    days.sort();
    let mut lines = Vec::new();
    for day in days {
        let mut parts: Vec<_> = std::fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path()).collect();
        parts.sort();
        for part in parts {
            lines.extend(std::fs::read_to_string(part).unwrap().lines().skip(1).map(str::to_owned));
        }
    }
    lines
}

const RUN: [&str; 8] =
    ["--seed", "3", "--event-time", "86400x", "--event-start", "2026-01-01T00:00:00Z", "--rate", "400"];

#[test]
fn the_archive_holds_what_was_sent_and_archive_only_the_same_without_a_broker() {
    let broker = Broker::new(1);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [sent, alone] = folders.each_ref().map(|folder| folder.path());
    let arguments = ["--count", "600", "--archive-format", "csv", "--label-delay", "1d", "--archive"];
    let mut command = broker.producer(&RUN);
    command.args(arguments).arg(sent);
    let (code, output, error) = finish(command);
    let archived = |folder: &Path| format!("archived 600 rows to {}\n", folder.display());
    assert_eq!((code, output), (0, archived(sent) + &broker.closing_line(600, 600, 0)), "{error}");

    let mut command = binary();
    command.args(["--brokers", "127.0.0.1:1", "--archive-only"]).args(RUN).args(arguments).arg(alone);
    let (code, output, error) = finish(command);
    assert_eq!((code, output), (0, archived(alone)), "{error}");

    let rows = lines(sent);
    assert_eq!(rows, lines(alone));
    // A day a second: rows 0 to 399 are of the first day.
    let days: Vec<_> = std::fs::read_dir(sent).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(days.len() == 2 && sent.join("day=2026-01-02/part-3-1767225600000-0001.csv").exists(), "{days:?}");
    for (record, line) in broker.read(600).iter().zip(&rows) {
        let (value, fields) = (record.json(), line.split(',').collect::<Vec<_>>());
        assert_eq!(value["transaction_id"], fields[0]);
        let time: i64 = fields[1].parse().unwrap();
        assert_eq!(value["event_time"], time);
        assert_eq!(value["V14"].as_f64().unwrap(), fields[15].parse::<f64>().unwrap());
        assert_eq!(value["Amount"].as_f64().unwrap(), fields[30].parse::<f64>().unwrap());
        assert!(["0", "1"].contains(&fields[31]));
        assert_eq!(fields[32].parse::<i64>().unwrap(), time + 86_400_000);
    }
}

#[test]
fn a_card_file_is_archived_by_its_own_days() {
    let folder = tempfile::tempdir().unwrap();
    let csv = file("Time,V1,Amount,Class\n0,1.5,10,0\n86399,2.5,20,1\n86400,3.5,30,0\n");
    let mut command = binary();
    command.args(["--archive-only", "--event-time", "file", "--archive-format", "csv", "--csv"]).arg(csv.path());
    command.arg("--archive").arg(folder.path());
    let (code, output, error) = finish(command);
    assert_eq!((code, output), (0, format!("archived 3 rows to {}\n", folder.path().display())), "{error}");
    let start = 1_377_993_600_000_i64;
    let expected = [(1, 0, "1.5,10,0"), (2, 86_399_000, "2.5,20,1"), (3, 86_400_000, "3.5,30,0")]
        .map(|(row, offset, values)| format!("row-{row},{0},{values},{0}", start + offset));
    assert_eq!(lines(folder.path()), expected);
}

#[test]
fn an_archive_that_cannot_be_written_to_ends_the_run_before_it_begins() {
    let broker = Broker::new(1);
    let occupied = file("not a folder");
    let mut command = broker.producer(&["--count", "5", "--rate", "0", "--archive"]);
    command.arg(occupied.path());
    let (code, output, error) = finish(command);
    assert_eq!((code, output.as_str()), (64, ""));
    assert!(error.contains(&format!("cannot write to --archive {}", occupied.path().display())), "{error}");
    assert_eq!(broker.size(), 0);
    assert_eq!(std::fs::read_to_string(occupied.path()).unwrap(), "not a folder");
}

#[test]
fn a_bucket_that_does_not_answer_is_named() {
    let mut command = binary();
    command.args(["--archive-only", "--count", "5", "--archive", "s3://lake/rows"]);
    command.envs([("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "hunter2"), ("AWS_REGION", "us-east-1")]);
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let (code, output, error) = finish(command);
    assert_eq!((code, output.as_str()), (64, ""));
    assert!(error.contains("cannot write to --archive s3://lake/rows") && !error.contains("hunter2"), "{error}");
}
