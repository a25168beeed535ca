//! When the end of a transaction begins: soon, where that costs the broker little, and always early enough that its
//! verdicts are visible when the interval is over. Pure.
//!
//! ```text
//!  first record ─┬──────────────────────── interval, an upper bound ────────────────────────┐
//!                └─ grows: 14 ms, 2.7 × an end ─┬─ deliver, commit ─┤ visible
//!                └─ quiet: 0.8 × an end ─┬─ deliver, commit ─┤ visible
//!                └─ grows at most ──────────────────────────────────────┬─ lead ────────────┤ visible
//! ```
//!
//! A transaction grows for 14 ms, or in proportion to what ends have taken lately: a broker with time to spare ends one in a
//! few milliseconds and gets the next soon; one that is busy, also with the transactions of others, takes longer and is asked
//! less often (ADR 0014). Where no record comes for most of such an end, waiting for more is in vain. The lead is the mean end
//! and a margin for how much they vary, smoothed as TCP smooths round trips (RFC 6298). It is at most half the interval: a
//! broker that needs longer is not helped by more transactions.

use std::time::Duration;

/// Weights of the latest end, in the mean and in the deviation.
const MEAN_WEIGHT: f64 = 1.0 / 8.0;
const DEVIATION_WEIGHT: f64 = 1.0 / 4.0;

/// Deviations between the mean and the lead: few ends take longer, and no record waits much less than it may.
const MARGIN: f64 = 2.0;

/// Growth of a transaction, in mean ends.
const GROWTH: f64 = 2.7;

/// And at least this: shorter ones cost a broker with time to spare more than half as much again as ones of 100 ms.
const SHORTEST: Duration = Duration::from_millis(14);

/// How long nothing may come before a transaction ends, in mean ends.
const QUIET: f64 = 0.8;

/// How long a transaction may grow before its end begins.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    interval: Duration,
    least: Duration,
    /// Mean and mean deviation of what ends took, seconds; none before the first.
    ends: Option<(f64, f64)>,
}

impl Timing {
    /// Nothing measured yet: the end begins when the interval is over. A transaction grows for `least` at least, as far as
    /// the interval allows.
    pub(super) fn new(interval: Duration, least: Duration) -> Timing {
        Timing { interval, least, ends: None }
    }

    /// An end took this long, from its beginning until the verdicts were visible.
    pub(super) fn ended(&mut self, took: Duration) {
        // One that took seconds says nothing of the next; it must not be felt for many.
        let took = took.min(self.longest_lead()).as_secs_f64();
        self.ends = Some(match self.ends {
            None => (took, took / 2.0),
            Some((mean, deviation)) => {
                let deviation = deviation + DEVIATION_WEIGHT * ((took - mean).abs() - deviation);
                (mean + MEAN_WEIGHT * (took - mean), deviation)
            }
        });
    }

    /// How long a transaction grows. A thread that is `behind` has more records waiting than it takes at once: their
    /// latency is the backlog's, and the fewer transactions, the sooner that is worked off.
    pub(super) fn growth(&self, behind: bool) -> Duration {
        if behind {
            return self.interval;
        }
        let soon = self.ends.map_or(self.interval, |(mean, _)| Duration::from_secs_f64(mean * GROWTH));
        soon.max(SHORTEST).max(self.least).min(self.interval - self.lead())
    }

    /// How long to wait for a further record before the transaction ends, however long it has grown.
    pub(super) fn quiet(&self) -> Duration {
        match self.ends {
            Some((mean, _)) if self.least.is_zero() => Duration::from_secs_f64(mean * QUIET),
            _ => self.interval,
        }
    }

    fn lead(&self) -> Duration {
        let seconds = self.ends.map_or(0.0, |(mean, deviation)| mean + MARGIN * deviation);
        Duration::from_secs_f64(seconds).min(self.longest_lead())
    }

    fn longest_lead(&self) -> Duration {
        self.interval / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    fn after(ends: impl IntoIterator<Item = u64>) -> Timing {
        let mut timing = Timing::new(INTERVAL, Duration::ZERO);
        ends.into_iter().for_each(|milliseconds| timing.ended(Duration::from_millis(milliseconds)));
        timing
    }

    /// Of a growth that is not `soon`.
    fn lead(timing: &Timing) -> f64 {
        timing.lead().as_secs_f64() * 1000.0
    }

    #[test]
    fn without_experience_the_interval_is_waited_for() {
        assert_eq!(after([]).growth(false), INTERVAL);
    }

    #[test]
    fn a_transaction_grows_in_proportion_to_what_ends_take() {
        for (end, growth, quiet) in [(2, 14.0, 1.6), (4, 14.0, 3.2), (8, 21.6, 6.4), (20, 54.0, 16.0)] {
            let timing = after([end; 100]);
            let [grows, rests] = [timing.growth(false), timing.quiet()].map(|time| time.as_secs_f64() * 1000.0);
            assert!((grows - growth).abs() < 0.01 && (rests - quiet).abs() < 0.01, "{end} ms: {grows}, {rests}");
        }
        assert_eq!(after([4; 100]).growth(true), INTERVAL, "a backlog is worked off in full transactions");
    }

    #[test]
    fn brokers_are_spared_as_far_as_the_interval_allows() {
        for (least, growth) in [(1, 14.0), (20, 20.0), (100, 96.0)] {
            let mut timing = after([4; 200]);
            timing.least = Duration::from_millis(least);
            let grows = timing.growth(false).as_secs_f64() * 1000.0;
            assert!((grows - growth).abs() < 0.01, "at least {least} ms: {grows}");
            assert_eq!(timing.quiet(), INTERVAL);
        }
    }

    #[test]
    fn the_interval_bounds_growth_and_end_together() {
        for end in [1, 10, 30, 45, 60, 200] {
            let timing = after([end; 100]);
            let visible = timing.growth(false) + timing.lead();
            assert!(visible <= INTERVAL + Duration::from_micros(1), "ends of {end} ms: {visible:?}");
        }
    }

    #[test]
    fn nine_of_ten_varying_ends_fit_into_the_lead() {
        let ends: Vec<u64> = (0..1_000).map(|number| 6 + number * 7 % 10).collect();
        let mut timing = Timing::new(INTERVAL, Duration::ZERO);
        let fits = ends.iter().filter(|&&end| {
            let fits = lead(&timing) >= end as f64;
            timing.ended(Duration::from_millis(end));
            fits
        });
        let fits = fits.count();
        assert!((900..=1_000).contains(&fits), "{fits}");
        assert!(lead(&timing) < 20.0, "and not by waiting for nobody: {}", lead(&timing));
    }

    #[test]
    fn the_lead_is_at_most_half_the_interval_and_an_accident_is_soon_forgotten() {
        assert_eq!(lead(&after([80; 50])), 50.0);
        let ends = [10; 50].into_iter().chain([30_000]).chain([10; 20]);
        assert!(lead(&after(ends)) < 15.0);
    }

    #[test]
    fn an_interval_of_nothing_stays_nothing() {
        let mut timing = Timing::new(Duration::ZERO, Duration::ZERO);
        timing.ended(Duration::from_millis(5));
        assert_eq!(timing.growth(false), Duration::ZERO);
    }
}
