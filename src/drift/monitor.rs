//! The monitor: what all threads of a process counted of one model's traffic, since the start and within the window.
//!
//! ```text
//!             add (on commit)
//!                  ▼
//!  counts since the start, one atomic per slot ──► counters for the metrics
//!                  │ copied at the turn of a pane
//!                  ▼
//!  copies:  [t-10m] [t-9m] … [t-1m]          window = counts now - oldest copy
//! ```
//!
//! The window slides by a pane, a tenth of it: it reaches back between nine tenths of the window and all of it. A lock is
//! taken at the turn of a pane and when somebody reads; adding takes none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::baseline::{Baseline, Watched};
use super::{DRIFTED, DriftSettings, LEAST_ROWS, critical, psi};

/// Steps in which the window slides.
const PANES: u32 = 10;

/// Watches one model's traffic.
#[derive(Debug)]
pub struct DriftMonitor {
    model: String,
    baseline: Baseline,
    settings: DriftSettings,
    /// Since the start.
    counts: Vec<AtomicU64>,
    created: Instant,
    /// When the pane turns, milliseconds since `created`: looked at without the lock.
    turns_at: AtomicU64,
    panes: Mutex<Panes>,
}

/// Copies of the counts at the turns of panes, oldest first; never empty.
#[derive(Debug)]
struct Panes {
    copies: VecDeque<(Instant, Vec<u64>)>,
}

/// A histogram against its baseline.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stability {
    /// The population stability index over the window.
    pub psi: f64,
    /// It is beyond [`DRIFTED`] and beyond what chance makes of so many rows.
    pub drifted: bool,
}

/// What the window holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Rows that were looked at.
    pub rows: u64,
    /// One per feature in the model's order; none while there are fewer rows than [`LEAST_ROWS`].
    pub features: Vec<Stability>,
    /// The score's; `None` as long.
    pub score: Option<Stability>,
}

impl Reading {
    /// Share of the features that drifted, 0..=1; `None` while that cannot be said.
    pub fn share(&self) -> Option<f64> {
        let drifted = self.features.iter().filter(|feature| feature.drifted).count();
        (!self.features.is_empty()).then(|| drifted as f64 / self.features.len() as f64)
    }
}

impl DriftMonitor {
    /// A monitor of `model` (name@version) whose window begins now.
    pub fn new(model: String, baseline: Baseline, settings: DriftSettings, now: Instant) -> DriftMonitor {
        let nothing = vec![0; baseline.slots()];
        DriftMonitor {
            model,
            counts: (0..baseline.slots()).map(|_| AtomicU64::new(0)).collect(),
            turns_at: AtomicU64::new(milliseconds(settings.window / PANES)),
            panes: Mutex::new(Panes { copies: VecDeque::from([(now, nothing)]) }),
            created: now,
            baseline,
            settings,
        }
    }

    /// The model's name@version.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The bins and their shares.
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// How it watches.
    pub fn settings(&self) -> DriftSettings {
        self.settings
    }

    /// Counts since the start, one per slot of the baseline.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// Adds what a thread counted, and sets that to zero.
    pub(super) fn add(&self, counts: &mut [u32], now: Instant) {
        // Before the counts: what was there already belongs to the panes that are over.
        if self.is_turn(now) {
            drop(self.turn(now));
        }
        for (shared, count) in self.counts.iter().zip(counts).filter(|(_, count)| **count > 0) {
            shared.fetch_add(u64::from(std::mem::take(count)), Ordering::Relaxed);
        }
    }

    /// Compares the window with the baseline.
    pub fn read(&self, now: Instant) -> Reading {
        let panes = if self.is_turn(now) { self.turn(now) } else { self.panes() };
        let window: Vec<u64> = match panes.copies.front() {
            Some((_, then)) => self.counts().iter().zip(then).map(|(now, then)| now.saturating_sub(*then)).collect(),
            None => self.counts(),
        };
        drop(panes);
        // Every row counts once in the score's histogram, as in each other.
        let rows = window[self.baseline.score().slots.clone()].iter().sum();
        if rows < LEAST_ROWS {
            return Reading { rows, features: Vec::new(), score: None };
        }
        let compare = |watched: &Watched| {
            let psi = psi(&window[watched.slots.clone()], &watched.shares).unwrap_or(0.0);
            let by_chance = critical(watched.degrees_of_freedom, rows, self.baseline.reference_rows());
            Stability { psi, drifted: psi > DRIFTED.max(by_chance) }
        };
        Reading {
            rows,
            features: self.baseline.features().iter().map(compare).collect(),
            score: Some(compare(self.baseline.score())),
        }
    }

    fn is_turn(&self, now: Instant) -> bool {
        milliseconds(now.saturating_duration_since(self.created)) >= self.turns_at.load(Ordering::Relaxed)
    }

    /// Ends the pane: copies the counts, and forgets copies that the window has passed.
    #[cold]
    fn turn(&self, now: Instant) -> MutexGuard<'_, Panes> {
        let mut panes = self.panes();
        // Another thread may have been here while this one waited for the lock.
        if !self.is_turn(now) {
            return panes;
        }
        let is_past = |copied: Instant| now.saturating_duration_since(copied) >= self.settings.window;
        let mut spare = None;
        while panes.copies.front().is_some_and(|(copied, _)| is_past(*copied)) {
            spare = panes.copies.pop_front();
        }
        let mut copy = spare.map_or_else(Vec::new, |(_, copy)| copy);
        copy.clear();
        copy.extend(self.counts.iter().map(|count| count.load(Ordering::Relaxed)));
        panes.copies.push_back((now, copy));
        let next = milliseconds((now + self.settings.window / PANES).saturating_duration_since(self.created));
        self.turns_at.store(next, Ordering::Relaxed);
        panes
    }

    fn panes(&self) -> MutexGuard<'_, Panes> {
        self.panes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::super::{Pending, Sampler};
    use super::*;
    use crate::pipeline::decode::Feature;

    const MINUTE: Duration = Duration::from_secs(60);

    /// One feature with two bins, half of the reference in each.
    fn monitor(now: Instant) -> Arc<DriftMonitor> {
        let reference = serde_json::from_value(json!({
            "schema": 1, "rows": 100_000, "weighted_rows": 1e5, "fraud_share": 0.01,
            "features": [{"name": "a", "cuts": [0.0], "shares": [0.5, 0.5]}],
            "score": {"cuts": [0.5], "shares": [0.9, 0.1]},
        }));
        let baseline = Baseline::new(&reference.unwrap(), &[Feature { name: "a".into(), default: None }]).unwrap();
        let settings = DriftSettings { rows_per_second: 1_000_000, ..DriftSettings::default() };
        Arc::new(DriftMonitor::new("test@1".into(), baseline, settings, now))
    }

    /// A thread that scores `rows` rows at `now` and commits them: every second row of a positive value unless `drifted`.
    fn commit(monitor: &Arc<DriftMonitor>, rows: usize, drifted: bool, now: Instant) {
        let (mut sampler, mut pending) = (Sampler::new(monitor.clone(), now), Pending::default());
        let value = |row: usize| if drifted || row.is_multiple_of(2) { 1.0 } else { -1.0 };
        let features: Vec<f32> = (0..rows).map(value).collect();
        let scores: Vec<f32> = (0..rows).map(|row| if row.is_multiple_of(10) { 0.9 } else { 0.1 }).collect();
        sampler.observe(&features, &scores, now, &mut pending);
        pending.publish(now);
    }

    #[test]
    fn too_few_rows_say_nothing() {
        let start = Instant::now();
        let monitor = monitor(start);
        commit(&monitor, LEAST_ROWS as usize - 1, true, start);
        let reading = monitor.read(start);
        assert_eq!((reading.rows, reading.share(), reading.score), (LEAST_ROWS - 1, None, None));
        commit(&monitor, 1, true, start);
        assert_eq!(monitor.read(start).share(), Some(1.0));
    }

    #[test]
    fn the_window_forgets_what_is_over() {
        let start = Instant::now();
        let monitor = monitor(start);
        commit(&monitor, 1_000, true, start);
        for minute in 1..=30 {
            let now = start + minute * MINUTE;
            commit(&monitor, 1_000, false, now);
            let reading = monitor.read(now + MINUTE / 2);
            // The drifted thousand leaves with the pane that it was counted in; ten thousand rows are within.
            assert_eq!(reading.features[0].drifted, minute < 3, "minute {minute}: {reading:?}");
            assert_eq!(reading.features[0].psi > 0.001, minute < 10, "minute {minute}: {reading:?}");
            assert_eq!(reading.rows, 1_000 * u64::from(minute + 1).min(10), "minute {minute}");
            assert!(monitor.panes().copies.len() <= 11, "memory is bounded");
        }
        let after_silence = start + 120 * MINUTE;
        assert_eq!(monitor.read(after_silence).rows, 0);
        commit(&monitor, 1_000, true, after_silence + MINUTE);
        assert_eq!(monitor.read(after_silence + MINUTE).share(), Some(1.0));
        assert_eq!(monitor.counts().iter().sum::<u64>(), 2 * 32_000, "counters never go back");
    }

    #[test]
    fn silence_ends_the_window_even_if_nobody_reads() {
        let start = Instant::now();
        let monitor = monitor(start);
        commit(&monitor, 1_000, true, start);
        let later = start + 60 * MINUTE;
        commit(&monitor, 1_000, false, later);
        let reading = monitor.read(later);
        assert_eq!((reading.rows, reading.share()), (1_000, Some(0.0)));
    }

    #[test]
    fn what_is_thrown_away_is_not_counted() {
        let now = Instant::now();
        let monitor = monitor(now);
        let (mut sampler, mut pending) = (Sampler::new(monitor.clone(), now), Pending::default());
        sampler.observe(&[1.0; 800], &[0.1; 800], now, &mut pending);
        pending.clear();
        pending.publish(now);
        assert_eq!(monitor.read(now).rows, 0);
        sampler.observe(&[1.0; 800], &[0.1; 800], now, &mut pending);
        pending.publish(now);
        pending.publish(now);
        assert_eq!(monitor.read(now).rows, 800);
    }

    #[test]
    fn after_a_swap_counts_go_to_the_new_model_only() {
        let now = Instant::now();
        let (old, new) = (monitor(now), monitor(now));
        let mut pending = Pending::default();
        Sampler::new(old.clone(), now).observe(&[1.0; 700], &[0.1; 700], now, &mut pending);
        Sampler::new(new.clone(), now).observe(&[1.0; 800], &[0.1; 800], now, &mut pending);
        pending.publish(now);
        assert_eq!((old.read(now).rows, new.read(now).rows), (0, 800));
    }

    #[test]
    fn rows_that_have_no_probability_do_not_count() {
        let now = Instant::now();
        let monitor = monitor(now);
        let mut pending = Pending::default();
        let mut sampler = Sampler::new(monitor.clone(), now);
        sampler.observe(&[1.0; 4], &[0.5, f32::NAN, 1.5, 0.2], now, &mut pending);
        // The model failed on the whole batch: there are no scores.
        sampler.observe(&[1.0; 4], &[], now, &mut pending);
        pending.publish(now);
        assert_eq!(monitor.read(now).rows, 2);
    }

    #[test]
    fn threads_add_up() {
        let now = Instant::now();
        let monitor = monitor(now);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50).for_each(|_| commit(&monitor, 100, false, now)));
            }
        });
        assert_eq!(monitor.counts()[..2], [10_000, 10_000]);
    }
}
