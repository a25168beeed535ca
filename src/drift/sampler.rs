//! Which rows are looked at, and the counts of those that are not committed yet.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::monitor::DriftMonitor;
use crate::model::probability::is_probability;

/// How often the pace is set anew.
const PACE_INTERVAL: Duration = Duration::from_secs(1);

/// Looks at some of a scoring thread's rows.
#[derive(Debug)]
pub struct Sampler {
    monitor: Arc<DriftMonitor>,
    pace: Pace,
}

impl Sampler {
    /// A thread's sampler for `monitor`.
    pub fn new(monitor: Arc<DriftMonitor>, now: Instant) -> Sampler {
        let pace = Pace::new(monitor.settings().rows_per_second, now);
        Sampler { monitor, pace }
    }

    /// Looks at a batch: `features` row after row, and a score per row. Rows without a probability are dead letters and
    /// count for nothing.
    #[inline]
    pub fn observe(&mut self, features: &[f32], scores: &[f32], now: Instant, pending: &mut Pending) {
        let (baseline, width) = (self.monitor.baseline(), self.monitor.baseline().width());
        if features.len() != scores.len() * width {
            return;
        }
        self.pace.begin(now);
        let mut next = self.pace.first(scores.len());
        if next.is_none() {
            return;
        }
        let counts = pending.counts_of(&self.monitor);
        while let Some(row) = next {
            let score = scores[row];
            if is_probability(score) {
                baseline.count(&features[row * width..(row + 1) * width], score, counts);
            }
            next = self.pace.after(row, scores.len());
        }
    }
}

/// Which rows to take, so that they are spread over a second and no more than a limit.
///
/// A row in so many is taken, by the traffic of the last second. How many are passed over varies at random around that:
/// traffic that repeats itself every so many rows must not be seen at one phase only.
#[derive(Debug)]
struct Pace {
    limit: u32,
    /// One row in so many is taken.
    stride: u64,
    /// Rows of coming batches that are passed over before the next is taken.
    skip: u64,
    /// Rows since the pace was set, and those taken.
    seen: u64,
    taken: u32,
    since: Instant,
    random: u64,
}

impl Pace {
    fn new(limit: u32, now: Instant) -> Pace {
        Pace { limit, stride: 1, skip: 0, seen: 0, taken: 0, since: now, random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// A batch has come: sets the pace anew if it is time.
    #[inline]
    fn begin(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= PACE_INTERVAL {
            let rate = self.seen as f64 / elapsed.as_secs_f64();
            self.stride = ((rate / f64::from(self.limit.max(1))).ceil() as u64).max(1);
            (self.seen, self.taken, self.since) = (0, 0, now);
        }
    }

    /// The first row to take of a batch of `rows`.
    #[inline]
    fn first(&mut self, rows: usize) -> Option<usize> {
        self.seen += rows as u64;
        self.take(self.skip, rows)
    }

    /// The row to take after this one.
    #[inline]
    fn after(&mut self, row: usize, rows: usize) -> Option<usize> {
        let jump = self.jump();
        self.take(row as u64 + 1 + jump, rows)
    }

    #[inline]
    fn take(&mut self, row: u64, rows: usize) -> Option<usize> {
        if self.taken >= self.limit {
            self.skip = 0;
            return None;
        }
        if row >= rows as u64 {
            self.skip = row - rows as u64;
            return None;
        }
        self.taken += 1;
        Some(row as usize)
    }

    /// Rows to pass over: 0 to 2 (stride - 1), all as likely.
    #[inline]
    fn jump(&mut self) -> u64 {
        if self.stride == 1 {
            return 0;
        }
        // Marsaglia's xorshift (2003): three shifts, and no state but this.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % (2 * self.stride - 1)
    }
}

/// What was seen since the last commit; a part of [`crate::telemetry::metrics::Tally`].
#[derive(Debug, Default)]
pub struct Pending {
    /// Whose bins they are.
    monitor: Option<Arc<DriftMonitor>>,
    counts: Vec<u32>,
    /// Something was counted since the last commit.
    filled: bool,
}

impl Pending {
    /// The counts for a monitor. Those for another one, whose model served before this one, are dropped: a commit
    /// interval's worth.
    #[inline]
    fn counts_of(&mut self, monitor: &Arc<DriftMonitor>) -> &mut [u32] {
        if !self.monitor.as_ref().is_some_and(|mine| Arc::ptr_eq(mine, monitor)) {
            self.take_up(monitor);
        }
        self.filled = true;
        &mut self.counts
    }

    #[cold]
    fn take_up(&mut self, monitor: &Arc<DriftMonitor>) {
        self.counts.clear();
        self.counts.resize(monitor.baseline().slots(), 0);
        self.monitor = Some(monitor.clone());
    }

    /// The work was committed: adds it to the monitor's counts and forgets it.
    pub fn publish(&mut self, now: Instant) {
        if let (Some(monitor), true) = (&self.monitor, std::mem::take(&mut self.filled)) {
            monitor.add(&mut self.counts, now);
        }
    }

    /// The work was thrown away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.filled) {
            self.counts.fill(0);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Rows taken in each second of traffic of so many rows a second in batches.
    fn taken(pace: &mut Pace, start: Instant, seconds: u64, rate: u64, batch: usize) -> Vec<Vec<u64>> {
        let mut number = 0;
        let second = |second: u64| {
            let mut rows = Vec::new();
            for index in 0..rate / batch as u64 {
                let part = Duration::from_secs_f64(index as f64 * batch as f64 / rate as f64);
                pace.begin(start + Duration::from_secs(second) + part);
                let mut next = pace.first(batch);
                while let Some(row) = next {
                    rows.push(number + row as u64);
                    next = pace.after(row, batch);
                }
                number += batch as u64;
            }
            rows
        };
        (0..seconds).map(second).collect()
    }

    #[test]
    fn slow_traffic_is_seen_whole() {
        let start = Instant::now();
        let seconds = taken(&mut Pace::new(1_000, start), start, 5, 900, 1);
        assert!(seconds.iter().all(|rows| rows.len() == 900));
    }

    #[test]
    fn fast_traffic_is_sampled_evenly_and_never_beyond_the_limit() {
        let start = Instant::now();
        let mut pace = Pace::new(1_000, start);
        let seconds = taken(&mut pace, start, 20, 512_000, 512);
        assert!(seconds.iter().all(|rows| rows.len() <= 1_000));
        for rows in &seconds[2..] {
            assert!(rows.len() > 900, "{}", rows.len());
            let halves = rows.iter().filter(|row| **row % 512_000 < 256_000).count() as f64 / rows.len() as f64;
            assert!((0.45..0.57).contains(&halves), "{halves} of them in the first half of the second");
            // Traffic with a period is seen at every phase.
            for phase in 0..4 {
                let share = rows.iter().filter(|row| **row % 4 == phase).count() as f64 / rows.len() as f64;
                assert!((0.18..0.32).contains(&share), "phase {phase}: {share}");
            }
        }
        let slower = taken(&mut pace, start + Duration::from_secs(20), 3, 2_000, 100);
        assert!((900..=1_000).contains(&slower[2].len()), "the pace follows the traffic: {}", slower[2].len());
    }

    #[test]
    fn a_burst_after_silence_is_cut_off_at_the_limit() {
        let start = Instant::now();
        let mut pace = Pace::new(100, start);
        let first = taken(&mut pace, start, 1, 10_000, 1_000);
        assert_eq!(first[0].len(), 100);
    }
}
