//! What an archive shows of itself: its metrics, from one table.

use metrics::{counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::inputs::Missing;
use super::verdicts::Reason;
use crate::kafka::subscription::PartitionLag;

/// Counters and what they count.
const COUNTERS: [(&str, &str); 7] = [
    (ROWS, "Verdicts in committed files, by whether their input was found"),
    (FILES, "Files in committed cuts"),
    (BYTES, "Bytes of files in committed cuts"),
    (MISSING, "Verdicts archived without their input's features, by reason"),
    (SKIPPED, "Records of the verdicts' topic that are no verdicts and are in no file, by reason"),
    (FAILURES, "Times the destination did not take a file; each is tried again"),
    (LOST, "Verdicts that their topic no longer held when they were to be archived"),
];

const ROWS: &str = "fraud_scorer_archive_rows_total";
const FILES: &str = "fraud_scorer_archive_files_total";
const BYTES: &str = "fraud_scorer_archive_bytes_total";
const MISSING: &str = "fraud_scorer_archive_inputs_missing_total";
const SKIPPED: &str = "fraud_scorer_archive_skipped_total";
const FAILURES: &str = "fraud_scorer_archive_write_failures_total";
const LOST: &str = "fraud_scorer_archive_lost_total";

/// Gauges and what they show.
const GAUGES: [(&str, &str); 4] = [
    (LAG, "Verdicts of a partition that were not yet read"),
    (AGE, "Age of the oldest verdict that was read and is in no committed file, else 0"),
    (GATHERED, "Rows in memory"),
    (OPEN, "Files under way"),
];

const LAG: &str = "fraud_scorer_archive_lag";
const AGE: &str = "fraud_scorer_archive_unarchived_seconds";
const GATHERED: &str = "fraud_scorer_archive_gathered_rows";
const OPEN: &str = "fraud_scorer_archive_open_files";

/// Installs the process's recorder.
///
/// # Errors
/// There is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    for (name, help) in COUNTERS {
        describe_counter!(name, help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(name, help);
    }
    // Known from the start, so that a first increase is seen as one.
    for name in [FILES, BYTES, FAILURES, LOST] {
        counter!(name).absolute(0);
    }
    for input in ["found", "missing"] {
        counter!(ROWS, "input" => input).absolute(0);
    }
    for reason in Missing::ALL {
        counter!(MISSING, "reason" => reason.as_str()).absolute(0);
    }
    for reason in Reason::ALL {
        counter!(SKIPPED, "reason" => reason.to_string()).absolute(0);
    }
    Ok(handle)
}

/// What a cut holds; counted when it is committed, so that what is done twice counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Verdicts with their input.
    pub found: u64,
    /// Verdicts without, by [`Missing::ALL`].
    pub missing: [u64; Missing::ALL.len()],
    /// Records that are no verdicts, by [`Reason::ALL`].
    pub skipped: [u64; Reason::ALL.len()],
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    /// Adds it to the metrics.
    pub fn publish(&self) {
        counter!(ROWS, "input" => "found").increment(self.found);
        counter!(ROWS, "input" => "missing").increment(self.missing.iter().sum());
        for (reason, count) in Missing::ALL.iter().zip(self.missing) {
            counter!(MISSING, "reason" => reason.as_str()).increment(count);
        }
        for (reason, count) in Reason::ALL.iter().zip(self.skipped) {
            counter!(SKIPPED, "reason" => reason.to_string()).increment(count);
        }
        counter!(FILES).increment(self.files);
        counter!(BYTES).increment(self.bytes);
    }
}

/// The destination did not take a file.
pub fn write_failed() {
    counter!(FAILURES).increment(1);
}

/// Verdicts were gone before they were read.
pub fn lost(verdicts: u64) {
    counter!(LOST).increment(verdicts);
}

/// What stands between the topic and the files now.
pub fn show(lag: &[PartitionLag], unarchived_seconds: f64, gathered: usize, open: usize) {
    for lag in lag {
        gauge!(LAG, "partition" => lag.partition.to_string()).set(lag.records as f64);
    }
    gauge!(AGE).set(unarchived_seconds);
    gauge!(GATHERED).set(gathered as f64);
    gauge!(OPEN).set(open as f64);
}

/// A partition is another member's now.
pub fn forget(partition: i32) {
    gauge!(LAG, "partition" => partition.to_string()).set(0.0);
}
