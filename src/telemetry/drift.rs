//! Drift for `/metrics`: the serving model's monitor, in Prometheus' text format.
//!
//! Two views of the same counts:
//!
//! - `drift_psi`, `drift_share` and their like: this worker's own window, ready to be read;
//! - `drift_observations_total` and `drift_reference_share`, by bin: counters that add up over workers and over any
//!   window, so that PromQL computes the index of all of them together (docs/OPERATIONS.md has the expression).
//!
//! What cannot be said yet is left out rather than shown as NaN: an alert rule that compares finds nothing then, and an
//! average over workers is not spoilt.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::catalogue::Metric;
use super::catalogue::definitions::{
    DRIFT_OBSERVATIONS, DRIFT_PSI, DRIFT_REFERENCE, DRIFT_SCORE_OBSERVATIONS, DRIFT_SCORE_PSI, DRIFT_SCORE_REFERENCE,
    DRIFT_SHARE, DRIFT_WINDOW_ROWS,
};
use crate::drift::{DriftMonitor, Watched};

/// The monitor of the model that serves.
static SHOWN: Mutex<Option<Arc<DriftMonitor>>> = Mutex::new(None);

/// Shows this monitor from now on; `None` shows nothing.
pub fn show(monitor: Option<Arc<DriftMonitor>>) {
    *SHOWN.lock().unwrap_or_else(PoisonError::into_inner) = monitor;
}

/// Appends the shown monitor's metrics.
pub(super) fn render(text: &mut String) {
    let shown = SHOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(monitor) = shown {
        render_monitor(&monitor, Instant::now(), text);
    }
}

/// Appends one monitor's metrics, its window read at `now`.
pub fn render_monitor(monitor: &DriftMonitor, now: Instant, text: &mut String) {
    let reading = monitor.read(now);
    let (features, score) = (monitor.baseline().features(), monitor.baseline().score());

    DRIFT_WINDOW_ROWS.describe(text);
    DRIFT_WINDOW_ROWS.sample(text, &[], reading.rows);
    if let (Some(share), Some(of_score)) = (reading.share(), reading.score) {
        DRIFT_PSI.describe(text);
        for (watched, stability) in features.iter().zip(&reading.features) {
            DRIFT_PSI.sample(text, &[name(watched)], stability.psi);
        }
        DRIFT_SCORE_PSI.describe(text);
        DRIFT_SCORE_PSI.sample(text, &[], of_score.psi);
        DRIFT_SHARE.describe(text);
        DRIFT_SHARE.sample(text, &[], share);
    }

    let counts = monitor.counts();
    let of_bins = |text: &mut String, metric: &Metric, watched: &Watched, values: &[String]| {
        for (bin, value) in watched.labels.iter().zip(values) {
            match &watched.feature {
                Some(feature) => metric.sample(text, &[monitor.model(), feature, bin], value),
                None => metric.sample(text, &[monitor.model(), bin], value),
            }
        }
    };
    let seen =
        |watched: &Watched| -> Vec<String> { counts[watched.slots.clone()].iter().map(ToString::to_string).collect() };
    let trained = |watched: &Watched| -> Vec<String> { watched.shares.iter().map(ToString::to_string).collect() };
    DRIFT_OBSERVATIONS.describe(text);
    for watched in features {
        of_bins(text, &DRIFT_OBSERVATIONS, watched, &seen(watched));
    }
    DRIFT_REFERENCE.describe(text);
    for watched in features {
        of_bins(text, &DRIFT_REFERENCE, watched, &trained(watched));
    }
    DRIFT_SCORE_OBSERVATIONS.describe(text);
    of_bins(text, &DRIFT_SCORE_OBSERVATIONS, score, &seen(score));
    DRIFT_SCORE_REFERENCE.describe(text);
    of_bins(text, &DRIFT_SCORE_REFERENCE, score, &trained(score));
}

fn name(watched: &Watched) -> &str {
    watched.feature.as_deref().unwrap_or_default()
}
