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

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
    let model = escaped(monitor.model());

    describe(text, "window_rows", "gauge", "Rows that were looked at within the drift window.");
    let _ = writeln!(text, "fraud_scorer_drift_window_rows {}", reading.rows);
    if let (Some(share), Some(of_score)) = (reading.share(), reading.score) {
        describe(text, "psi", "gauge", "Population stability index of a feature within the window.");
        for (watched, stability) in features.iter().zip(&reading.features) {
            let _ = writeln!(text, "fraud_scorer_drift_psi{{feature=\"{}\"}} {}", name(watched), stability.psi);
        }
        describe(text, "score_psi", "gauge", "Population stability index of the model's score within the window.");
        let _ = writeln!(text, "fraud_scorer_drift_score_psi {}", of_score.psi);
        describe(text, "share", "gauge", "Share of the features that drifted within the window, 0 to 1.");
        let _ = writeln!(text, "fraud_scorer_drift_share {share}");
    }

    let counts = monitor.counts();
    let of_slot = |text: &mut String, metric: &str, watched: &Watched, values: &[String]| {
        let feature = watched.feature.as_ref().map_or_else(String::new, |_| format!("feature=\"{}\",", name(watched)));
        for (label, value) in watched.labels.iter().zip(values) {
            let _ = writeln!(text, "fraud_scorer_drift_{metric}{{model=\"{model}\",{feature}bin=\"{label}\"}} {value}");
        }
    };
    let of_counts =
        |watched: &Watched| -> Vec<String> { counts[watched.slots.clone()].iter().map(ToString::to_string).collect() };
    let of_shares = |watched: &Watched| -> Vec<String> { watched.shares.iter().map(ToString::to_string).collect() };
    describe(text, "observations_total", "counter", "Rows looked at, by feature and bin (its upper edge).");
    for watched in features {
        of_slot(text, "observations_total", watched, &of_counts(watched));
    }
    describe(text, "reference_share", "gauge", "Share of the training data in a feature's bin.");
    for watched in features {
        of_slot(text, "reference_share", watched, &of_shares(watched));
    }
    describe(text, "score_observations_total", "counter", "Rows looked at, by bin of the score (its upper edge).");
    of_slot(text, "score_observations_total", score, &of_counts(score));
    describe(text, "score_reference_share", "gauge", "Share of the training data in a bin of the score.");
    of_slot(text, "score_reference_share", score, &of_shares(score));
}

fn describe(text: &mut String, metric: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP fraud_scorer_drift_{metric} {help}\n# TYPE fraud_scorer_drift_{metric} {kind}");
}

fn name(watched: &Watched) -> String {
    watched.feature.as_deref().map_or_else(String::new, escaped)
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n")
}
