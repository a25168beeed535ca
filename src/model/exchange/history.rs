//! What happened to the serving model: the latest events, for `GET /model`.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

/// Events kept.
const KEPT: usize = 50;

/// What became of an offer, or of a request to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Happened {
    Swapped,
    Refused,
    RolledBack,
    ChallengerChanged,
    ChallengerRefused,
}

/// One event.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Event {
    /// RFC 3339, UTC.
    time: String,
    result: Happened,
    /// What served.
    from: String,
    /// What serves since, or was refused.
    to: String,
    reason: String,
    /// Until threads could take it up, or it was refused.
    took_seconds: f64,
}

/// The latest events.
#[derive(Debug, Default)]
pub(super) struct History {
    events: VecDeque<Event>,
}

impl History {
    pub(super) fn add(&mut self, result: Happened, from: String, to: String, reason: String, took: Duration) {
        self.events.truncate(KEPT - 1);
        let time = jiff::Timestamp::now().to_string();
        self.events.push_front(Event { time, result, from, to, reason, took_seconds: took.as_secs_f64() });
    }

    /// Latest first.
    pub(super) fn latest(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }
}
