//! What an archive shows of itself.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::inputs::Missing;
use super::verdicts::Reason;
use crate::kafka::subscription::PartitionLag;
use crate::telemetry::catalogue;
use crate::telemetry::catalogue::definitions::{
    ARCHIVE_AGE as AGE, ARCHIVE_BYTES as BYTES, ARCHIVE_FAILURES as FAILURES, ARCHIVE_FILES as FILES,
    ARCHIVE_GATHERED as GATHERED, ARCHIVE_LAG as LAG, ARCHIVE_LOST as LOST, ARCHIVE_MISSING as MISSING,
    ARCHIVE_OPEN as OPEN, ARCHIVE_ROWS as ROWS, ARCHIVE_SKIPPED as SKIPPED,
};

/// Installs the process's recorder.
///
/// # Errors
/// There is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new().install_recorder()?;
    catalogue::describe_all();
    // Known from the start, so that a first increase is seen as one.
    Tally::default().publish();
    FAILURES.counter(&[]).absolute(0);
    LOST.counter(&[]).absolute(0);
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
    /// Verdicts that were planned for it and are gone.
    pub lost: u64,
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Tally {
    /// Adds it to the metrics.
    pub fn publish(&self) {
        ROWS.counter(&["found"]).increment(self.found);
        ROWS.counter(&["missing"]).increment(self.missing.iter().sum());
        for (reason, count) in Missing::ALL.iter().zip(self.missing) {
            MISSING.counter(&[reason.as_str()]).increment(count);
        }
        for (reason, count) in Reason::ALL.iter().zip(self.skipped) {
            SKIPPED.counter(&[&reason.to_string()]).increment(count);
        }
        LOST.counter(&[]).increment(self.lost);
        FILES.counter(&[]).increment(self.files);
        BYTES.counter(&[]).increment(self.bytes);
    }
}

/// The destination did not take a file.
pub fn write_failed() {
    FAILURES.counter(&[]).increment(1);
}

/// Verdicts were gone before they were read.
pub fn lost(verdicts: u64) {
    LOST.counter(&[]).increment(verdicts);
}

/// What stands between the topic and the files now.
pub fn show(lag: &[PartitionLag], unarchived_seconds: f64, gathered: usize, open: usize) {
    for lag in lag {
        LAG.gauge(&[&lag.partition.to_string()]).set(lag.records as f64);
    }
    AGE.gauge(&[]).set(unarchived_seconds);
    GATHERED.gauge(&[]).set(gathered as f64);
    OPEN.gauge(&[]).set(open as f64);
}

/// A partition is another member's now.
pub fn forget(partition: i32) {
    LAG.gauge(&[&partition.to_string()]).set(0.0);
}
