//! The archive of the verdicts as a process, and what it wrote.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::faults::wait;
use super::fleet::get;
use super::support::lake::files;
use super::support::process::{Running, finish, scorer};
use super::support::topics::Topics;

pub struct Archiver {
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    running: Option<Running>,
    address: String,
}

impl Archiver {
    pub fn new(topics: &Topics, proxied: &str) -> Archiver {
        let arguments = ["archive", "--brokers", proxied, "--archive-group", &format!("{}-archive", topics.group)];
        let topics = ["--output-topic", &topics.output, "--input-topic", &topics.input];
        let more = ["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=1000"];
        let refresh = ["-X", "topic.metadata.refresh.interval.ms=2000", "--http", "127.0.0.1:0"];
        // One that is killed reads again what is in no file yet: by default, the verdicts of ten minutes.
        let files = ["--file-every", "20s"];
        let all = [arguments.as_slice(), &topics, &more, &refresh, &files].concat();
        Archiver {
            arguments: all.into_iter().map(str::to_owned).collect(),
            folder: tempfile::tempdir().unwrap(),
            running: None,
            address: String::new(),
        }
    }

    fn command(&self) -> Command {
        let mut command = scorer();
        command.args(&self.arguments).arg("--to").arg(self.folder.path());
        command
    }

    pub fn start(&mut self) {
        let running = self.running.insert(Running::start(self.command()));
        self.address = running.http_address();
    }

    /// Waits until at most so many verdicts are unread. A topic keeps only so much: what it deletes first is in no file.
    pub fn catch_up(&self, most: f64) -> Result<(), String> {
        let unread = || -> Option<f64> {
            let (_, metrics) = get(&self.address, "/metrics")?;
            let lag = metrics.lines().filter(|line| line.starts_with("fraud_scorer_archive_lag{"));
            Some(lag.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
        };
        let catches_up = || unread().is_some_and(|unread| unread <= most);
        wait("the archive catches up", Duration::from_secs(300), catches_up)
            .map_err(|error| format!("{error}: {:?} verdicts are unread", unread()))
    }

    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Archives to the end; returns what is wrong with the files, of which there should be one row per verdict.
    pub fn check(&mut self, verdicts: usize, limit: Duration) -> Vec<String> {
        self.kill();
        let mut command = self.command();
        command.arg("--until-caught-up");
        let output = finish(command, limit);
        let mut faults = Vec::new();
        if output.status.code() != Some(0) {
            let log = String::from_utf8_lossy(&output.stderr).into_owned();
            faults.push(format!("the archive ended with {:?}:\n{log}", output.status.code()));
        }
        let (rows, distinct) = rows(self.folder.path());
        if rows != verdicts || distinct != verdicts {
            faults.push(format!("the archive has {rows} rows of {distinct} verdicts; the topic has {verdicts}"));
        }
        faults
    }
}

/// Rows of all files, and how many verdicts they are of.
fn rows(folder: &Path) -> (usize, usize) {
    let (mut rows, mut places) = (0, HashSet::new());
    for file in files(folder) {
        let reader = SerializedFileReader::new(fs::File::open(folder.join(file)).unwrap()).unwrap();
        let schema = reader.metadata().file_metadata().schema().clone();
        let wanted = schema.get_fields().iter().filter(|field| field.name().starts_with("verdict_")).cloned();
        let projection = Type::group_type_builder(schema.name()).with_fields(wanted.collect()).build().unwrap();
        for row in reader.get_row_iter(Some(projection)).unwrap() {
            let row = row.unwrap();
            let number = |name: &str| -> i64 {
                let (_, field) = row.get_column_iter().find(|(column, _)| *column == name).unwrap();
                match field {
                    Field::Long(value) => *value,
                    Field::Int(value) => i64::from(*value),
                    other => panic!("{name} is {other:?}"),
                }
            };
            rows += 1;
            places.insert((number("verdict_partition"), number("verdict_offset")));
        }
    }
    (rows, places.len())
}
