//! Event time: when a transaction is said to have happened, which need not be when it is sent. Pure: no clock is read.
//!
//! ```text
//! send    event time = the moment at which the record is due
//! 1440x   event time = event start + 1440 · (due moment - run's start): a day per minute
//! file    event time = what the file says; the clock here is only a stand-in until the row is read
//! ```
//!
//! Due moments come from the schedule, not from a look at the clock, so with a fixed rate and `--event-start` every
//! run has the same event times. Times are in milliseconds since 1970-01-01 UTC throughout.

use std::time::Duration;

/// Faster than this, one millisecond of schedule is more than a quarter of an hour of event time.
const HIGHEST_SPEED: f64 = 1e6;

/// What a transaction's `event_time` says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum EventTime {
    /// The moment at which the record is due: right for measuring latency.
    #[default]
    Send,
    /// 2013-09-01T00:00:00Z plus the file's column Time in seconds: right for replaying history.
    File,
    /// A clock of its own that runs this many times as fast as the schedule: days in minutes.
    Speed(f64),
}

impl EventTime {
    /// Parses `send`, `file` or a speed such as `1440x`. For clap's `value_parser`.
    ///
    /// # Errors
    /// A sentence with examples.
    pub fn parse(text: &str) -> Result<EventTime, String> {
        match text {
            "send" => return Ok(EventTime::Send),
            "file" => return Ok(EventTime::File),
            _ => {}
        }
        let speed = text.strip_suffix('x').and_then(|number| number.parse().ok());
        speed.filter(|speed| *speed > 0.0 && *speed <= HIGHEST_SPEED).map(EventTime::Speed).ok_or_else(|| {
            format!("expected send, file, or a speed above 0x and up to {HIGHEST_SPEED}x, as in 1440x (a day a minute)")
        })
    }
}

/// Parses a moment in event time: RFC 3339 (`2026-01-31T00:00:00Z`) or milliseconds since 1970-01-01 UTC. For clap's
/// `value_parser`.
///
/// # Errors
/// A sentence with examples.
pub fn parse_moment(text: &str) -> Result<i64, String> {
    let text = text.trim();
    text.parse()
        .or_else(|_| text.parse::<jiff::Timestamp>().map(|moment| moment.as_millisecond()))
        .map_err(|_| "expected RFC 3339 such as 2026-01-31T00:00:00Z, or milliseconds since 1970-01-01 UTC".to_owned())
}

/// Turns due moments into event times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventClock {
    /// Event time of the run's start.
    start: i64,
    speed: f64,
}

impl EventClock {
    /// `start` is the event time at which the first record is due.
    pub(crate) fn new(start: i64, speed: f64) -> EventClock {
        EventClock { start, speed }
    }

    /// The event time of what is due this long after the run's start.
    pub(crate) fn at(self, due: Duration) -> i64 {
        // A double counts whole milliseconds exactly for 285,000 years.
        self.start.saturating_add((due.as_nanos() as f64 * self.speed / 1e6) as i64)
    }
}

/// A span of event time in whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_understood_and_others_are_refused_with_an_example() {
        assert_eq!(EventTime::parse("send"), Ok(EventTime::Send));
        assert_eq!(EventTime::parse("file"), Ok(EventTime::File));
        assert_eq!(EventTime::parse("1440x"), Ok(EventTime::Speed(1440.0)));
        assert_eq!(EventTime::parse("0.5x"), Ok(EventTime::Speed(0.5)));
        for text in ["", "x", "0x", "-1x", "NaNx", "infx", "1e7x", "1440", "fast"] {
            assert!(EventTime::parse(text).unwrap_err().contains("1440x"), "{text}");
        }
    }

    #[test]
    fn moments_are_rfc_3339_or_milliseconds() {
        for text in ["1767225600000", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"] {
            assert_eq!(parse_moment(text), Ok(1_767_225_600_000), "{text}");
        }
        for text in ["", "yesterday", "2026-01-01", "1.5"] {
            assert!(parse_moment(text).unwrap_err().contains("RFC 3339"), "{text}");
        }
    }

    #[test]
    fn the_clock_runs_at_its_speed_from_its_start() {
        let clock = EventClock::new(1_000, 1440.0);
        assert_eq!(clock.at(Duration::ZERO), 1_000);
        assert_eq!(clock.at(Duration::from_secs(60)), 1_000 + 86_400_000);
        assert_eq!(clock.at(Duration::from_micros(500)), 1_000 + 720);
        assert_eq!(EventClock::new(5, 0.5).at(Duration::from_millis(3)), 6, "whole milliseconds, rounded down");
        assert_eq!(EventClock::new(i64::MAX, 1e6).at(Duration::MAX), i64::MAX);
    }
}
