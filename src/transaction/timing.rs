//! When the end of a transaction begins: early enough that its verdicts are visible when the interval is over. Pure.
//!
//! ```text
//!  first record ─┬────────────── interval ──────────────┐
//!                └─ transaction grows ─┬─ lead ─────────┤ visible
//!                                      └ deliver, commit┘
//! ```
//!
//! The lead is what ends have taken lately and a margin for how much they vary, smoothed as TCP smooths round trips
//! (RFC 6298). It is at most half the interval: a broker that needs longer is not helped by more transactions.

use std::time::Duration;

/// Weights of the latest end, in the mean and in the deviation.
const MEAN_WEIGHT: f64 = 1.0 / 8.0;
const DEVIATION_WEIGHT: f64 = 1.0 / 4.0;

/// Deviations between the mean and the lead: few ends take longer, and no record waits much less than it may.
const MARGIN: f64 = 2.0;

/// How long a transaction may grow before its end begins.
#[derive(Clone, Debug)]
pub(super) struct Timing {
    interval: Duration,
    /// Mean and mean deviation of what ends took, seconds; none before the first.
    ends: Option<(f64, f64)>,
}

impl Timing {
    /// Nothing measured yet: the end begins when the interval is over.
    pub(super) fn new(interval: Duration) -> Timing {
        Timing { interval, ends: None }
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
        if behind { self.interval } else { self.interval - self.lead() }
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
        let mut timing = Timing::new(INTERVAL);
        ends.into_iter().for_each(|milliseconds| timing.ended(Duration::from_millis(milliseconds)));
        timing
    }

    fn lead(timing: &Timing) -> f64 {
        (INTERVAL - timing.growth(false)).as_secs_f64() * 1000.0
    }

    #[test]
    fn without_experience_the_interval_is_waited_for() {
        assert_eq!(after([]).growth(false), INTERVAL);
    }

    #[test]
    fn steady_ends_begin_as_much_earlier_as_they_take() {
        let steady = after([10; 100]);
        assert!((10.0..10.1).contains(&lead(&steady)), "{}", lead(&steady));
        assert_eq!(steady.growth(true), INTERVAL, "a backlog is worked off in full transactions");
    }

    #[test]
    fn nine_of_ten_varying_ends_fit_into_the_lead() {
        let ends: Vec<u64> = (0..1_000).map(|number| 6 + number * 7 % 10).collect();
        let mut timing = Timing::new(INTERVAL);
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
        let mut timing = Timing::new(Duration::ZERO);
        timing.ended(Duration::from_millis(5));
        assert_eq!(timing.growth(false), Duration::ZERO);
    }
}
