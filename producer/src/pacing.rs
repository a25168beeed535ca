//! When each record is due. Pure: time comes in as "elapsed since the start", so every rate can be tested exactly.
//!
//! Sleeping for every record would cost more than sending it, so the caller sleeps at least [`SHORTEST_PAUSE`] and
//! then sends everything that has become due: one record per wake-up at 1,000 a second, 200 at 1,000,000.

use std::time::Duration;

/// No pause is shorter: below this the kernel's timer slack (50 µs) and the wake-up itself dominate.
pub const SHORTEST_PAUSE: Duration = Duration::from_micros(200);

/// No pause is longer, so that a request to stop is noticed at once even at one record per hour.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(50);

const NANOSECONDS: u128 = 1_000_000_000;

/// A constant rate in records per second; 0 is as fast as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    rate: u64,
}

impl Schedule {
    /// `rate` is in records per second; 0 means that everything is due at once.
    pub fn new(rate: u64) -> Schedule {
        Schedule { rate }
    }

    /// Records per second; 0 is as fast as possible.
    pub fn rate(self) -> u64 {
        self.rate
    }

    /// When record `index` (from 0) is due after the start: rounded up to the nanosecond, so that it is due exactly
    /// when [`Schedule::due_by`] counts it. At rate 0 there is no such moment.
    pub fn due(self, index: u64) -> Option<Duration> {
        if self.rate == 0 {
            return None;
        }
        let nanoseconds = (u128::from(index) * NANOSECONDS).div_ceil(u128::from(self.rate));
        let seconds = u64::try_from(nanoseconds / NANOSECONDS).unwrap_or(u64::MAX);
        Some(Duration::new(seconds, (nanoseconds % NANOSECONDS) as u32))
    }

    /// How many records are due once `elapsed` has passed; the first one is due at the start.
    pub fn due_by(self, elapsed: Duration) -> u64 {
        if self.rate == 0 {
            return u64::MAX;
        }
        u64::try_from(elapsed.as_nanos().saturating_mul(u128::from(self.rate)) / NANOSECONDS + 1).unwrap_or(u64::MAX)
    }

    /// How many records are due strictly before `duration` has passed: what a run of that length sends. `None` at
    /// rate 0.
    pub fn within(self, duration: Duration) -> Option<u64> {
        let count = duration.as_nanos().saturating_mul(u128::from(self.rate)).div_ceil(NANOSECONDS);
        (self.rate > 0).then(|| u64::try_from(count).unwrap_or(u64::MAX))
    }

    /// How long to sleep when `elapsed` has passed and records up to `next` (exclusive) have been sent; `None` when
    /// record `next` is already due.
    pub fn pause(self, elapsed: Duration, next: u64) -> Option<Duration> {
        let due = self.due(next)?;
        (due > elapsed).then(|| (due - elapsed).clamp(SHORTEST_PAUSE, LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u64; 10] = [1, 2, 3, 7, 999, 1_000, 1_001, 60_000, 333_333, 1_000_000];

    #[test]
    fn a_record_is_due_exactly_when_it_is_counted() {
        for rate in RATES {
            let schedule = Schedule::new(rate);
            for index in (0..2_000).chain([rate - 1, rate, rate + 1, 86_400 * rate, u64::from(u32::MAX)]) {
                let due = schedule.due(index).unwrap_or_default();
                assert_eq!(schedule.due_by(due), index + 1, "rate {rate}, record {index}");
                if index > 0 {
                    assert_eq!(schedule.due_by(due - Duration::from_nanos(1)), index, "rate {rate}, record {index}");
                }
            }
        }
    }

    #[test]
    fn a_second_holds_exactly_the_rate() {
        for rate in RATES {
            let schedule = Schedule::new(rate);
            assert_eq!(schedule.within(Duration::from_secs(1)), Some(rate));
            assert_eq!(schedule.within(Duration::from_secs(3_600)), Some(3_600 * rate));
            assert_eq!(schedule.within(Duration::ZERO), Some(0));
            assert_eq!(schedule.within(Duration::from_nanos(1)), Some(1), "the first record is due at the start");
            assert_eq!(schedule.due(rate), Some(Duration::from_secs(1)));
        }
    }

    #[test]
    fn pauses_end_when_the_next_record_is_due_within_their_bounds() {
        for rate in RATES {
            let schedule = Schedule::new(rate);
            let (mut elapsed, mut sent) = (Duration::ZERO, 0);
            for _ in 0..500 {
                sent = schedule.due_by(elapsed);
                let pause = schedule.pause(elapsed, sent).unwrap_or_default();
                assert!((SHORTEST_PAUSE..=LONGEST_PAUSE).contains(&pause), "rate {rate}: {pause:?}");
                elapsed += pause;
            }
            let expected = elapsed.as_secs_f64() * rate as f64;
            let bound = 1.0 + rate as f64 * SHORTEST_PAUSE.as_secs_f64();
            assert!((sent as f64 - expected).abs() <= bound, "rate {rate}: {sent} sent, {expected} due");
        }
    }

    #[test]
    fn a_late_sender_catches_up_instead_of_shifting_the_schedule() {
        let schedule = Schedule::new(1_000);
        let stalled = Duration::from_millis(500);
        assert_eq!(schedule.pause(stalled, 3), None, "record 3 has been due for 497 ms");
        assert_eq!(schedule.due_by(stalled) - 3, 498);
        assert_eq!(schedule.due(3), Some(Duration::from_millis(3)), "its intended time stays");
    }

    #[test]
    fn rate_zero_never_waits() {
        let schedule = Schedule::new(0);
        assert_eq!(schedule.due_by(Duration::ZERO), u64::MAX);
        assert_eq!(schedule.pause(Duration::ZERO, 1_000_000), None);
        assert_eq!(schedule.within(Duration::from_secs(1)), None);
        assert_eq!(schedule.due(1), None);
    }

    #[test]
    fn a_year_at_the_highest_rate_does_not_overflow() {
        let schedule = Schedule::new(1_000_000);
        let year = Duration::from_secs(365 * 86_400);
        assert_eq!(schedule.within(year), Some(365 * 86_400 * 1_000_000));
        assert_eq!(Schedule::new(u64::MAX).due_by(Duration::MAX), u64::MAX);
    }
}
