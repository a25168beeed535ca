//! Scoring requests over HTTP: how many, how they were answered, how long they took.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::counter;

use super::histogram::Histogram;

/// Upper bounds of a request's time, seconds: a tenth of a millisecond to the time limits.
const BOUNDS: &[f64] = &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0];

const NAME: &str = "fraud_scorer_http_request_seconds";

const HELP: &str = "From a scoring request's head to its answer, the arrival of its body included, seconds.";

/// A path that scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/v1/score`
    Score,
    /// `/invocations`
    Invocations,
}

fn histograms() -> &'static [Histogram; 2] {
    static HISTOGRAMS: OnceLock<[Histogram; 2]> = OnceLock::new();
    let histogram = |label| Histogram::new(NAME, HELP, label, BOUNDS);
    HISTOGRAMS.get_or_init(|| [histogram("path=\"/v1/score\""), histogram("path=\"/invocations\"")])
}

/// A request was answered with `status`.
pub fn answered(path: Path, status: u16, time: Duration) {
    let name = match path {
        Path::Score => "/v1/score",
        Path::Invocations => "/invocations",
    };
    counter!("fraud_scorer_http_requests_total", "path" => name, "status" => status.to_string()).increment(1);
    histograms()[path as usize].record(time.as_secs_f64());
}

/// Prometheus text format of what is no counter.
pub(super) fn render(text: &mut String) {
    for (index, histogram) in histograms().iter().enumerate() {
        histogram.render(text, index == 0);
    }
}
