//! Drift: whether what is scored still looks like what the model was trained on.
//!
//! ```text
//!  scored batch ─► Sampler: some of its rows ─► Pending: plain counts per bin ─[commit]─► DriftMonitor: shared counts
//!  (per thread)                                   └─[redo]─► forgotten                     ├─► since the start: counters
//!                                                                                           └─► sliding window ─► PSI
//! ```
//!
//! The baseline is the bundle's `reference.json`: a histogram per feature and one of the score. Rows that the worker
//! scores are counted into the same bins, and the two are compared by the population stability index, `Σ (p - q) ln(p / q)`
//! over the bins' shares `p` (seen) and `q` (trained on).
//!
//! Counts per fixed bin are the mergeable sketch: those of several threads, workers or minutes add up to exactly what one
//! would have counted. Within a process they are added here; between workers, by whoever reads the counters
//! ([`crate::telemetry::drift`]).
//!
//! What bounds it: rows are sampled, at most so many a second and thread ([`DriftSettings::rows_per_second`]); memory is a
//! number per bin, a few times over, whatever the traffic. What is counted follows what is committed, so that a batch that
//! is read again and again while a broker is away is not mistaken for a change of the traffic.

mod baseline;
mod monitor;
mod psi;
mod sampler;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fraud_wire::reference::Reference;

pub use self::baseline::{Baseline, BaselineError, Watched};
pub use self::monitor::{DriftMonitor, Reading, Stability};
pub use self::psi::{critical, psi};
pub use self::sampler::{Pending, Sampler};
use crate::log_events;
use crate::model::manifest::Manifest;

/// From this index on a feature counts as drifted: where the usual reading of the index ("below 0.1 no change, to 0.25
/// some, beyond that much") sees the first change. 0.2, also in use, would never see a variance that doubled (0.17 in
/// sixteen bins).
pub const DRIFTED: f64 = 0.1;

/// With fewer rows in the window no index is given. Without any drift its expectation is (bins - 1) / rows, here 0.015, and
/// chance alone does not take it to [`DRIFTED`].
pub const LEAST_ROWS: u64 = 1_000;

/// Probability that a feature without drift counts as drifted at one look, by the χ² distribution that the index then
/// follows: matters where the window, or the reference, is small; otherwise [`DRIFTED`] is far beyond it.
pub const FALSE_ALARM: f64 = 1e-4;

/// How drift is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftSettings {
    /// How far back the window reaches.
    pub window: Duration,
    /// Rows that are looked at, at most, per second and scoring thread; 0 watches nothing.
    pub rows_per_second: u32,
}

impl Default for DriftSettings {
    fn default() -> Self {
        DriftSettings { window: Duration::from_secs(600), rows_per_second: 1_000 }
    }
}

/// The baseline in a bundle's directory; `None` where the bundle has no reference, which it need not have.
///
/// # Errors
/// Why its reference.json cannot be used.
pub fn baseline(directory: &Path, manifest: &Manifest) -> Result<Option<Baseline>, String> {
    let path = directory.join("reference.json");
    if !path.exists() {
        return Ok(None);
    }
    let reference = Reference::read(&path).map_err(|error| error.to_string())?;
    let baseline = Baseline::new(&reference, &manifest.features);
    baseline.map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// The monitor of a bundle, or `None` (with a log line) where there is nothing to compare with: what cannot be watched is
/// scored all the same.
pub fn open(directory: &Path, manifest: &Manifest, settings: DriftSettings) -> Option<Arc<DriftMonitor>> {
    let model = manifest.id();
    if settings.rows_per_second == 0 {
        log_events::drift::Off { model: &model }.log();
        return None;
    }
    match baseline(directory, manifest) {
        Ok(Some(baseline)) => Some(Arc::new(DriftMonitor::new(model, baseline, settings, Instant::now()))),
        Ok(None) => {
            log_events::drift::WithoutReference { model: &model }.log();
            None
        }
        Err(reason) => {
            log_events::drift::ReferenceUnusable { model: &model, reason: &reason }.log();
            None
        }
    }
}
