//! Scoring requests over HTTP: how many, how they were answered, how long they took.

use std::sync::OnceLock;
use std::time::Duration;

use super::catalogue::definitions::{HTTP_REQUESTS, HTTP_SECONDS};
use super::histogram::Histogram;

/// A path that scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// `/v1/score`
    Score,
    /// `/invocations`
    Invocations,
}

impl Path {
    const ALL: [Path; 2] = [Path::Score, Path::Invocations];

    /// As the label `path` names it.
    fn as_str(self) -> &'static str {
        match self {
            Path::Score => "/v1/score",
            Path::Invocations => "/invocations",
        }
    }
}

fn histograms() -> &'static [Histogram; 2] {
    static HISTOGRAMS: OnceLock<[Histogram; 2]> = OnceLock::new();
    HISTOGRAMS.get_or_init(|| Path::ALL.map(|path| Histogram::of(&HTTP_SECONDS, &[path.as_str()])))
}

/// A request was answered with `status`.
pub fn answered(path: Path, status: u16, time: Duration) {
    HTTP_REQUESTS.counter(&[path.as_str(), &status.to_string()]).increment(1);
    histograms()[path as usize].record(time.as_secs_f64());
}

/// Prometheus text format of what is no counter.
pub(super) fn render(text: &mut String) {
    for (index, histogram) in histograms().iter().enumerate() {
        histogram.render(text, index == 0);
    }
}
