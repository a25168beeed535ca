//! Histograms that cost the same whether anyone looks or not.
//!
//! The Prometheus exporter's own histograms keep every sample until they are drained and take a value at a time, time
//! stamp included: at a million rows a second that is memory without bound while nobody scrapes, and a tenth of the
//! hot path. Here a scoring thread counts into plain [`Buckets`], and adds them to the shared [`Histogram`] once per
//! commit: a handful of atomic additions, exact counts and an exact sum.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::catalogue::Metric;

/// Counts of values between ascending upper bounds, in plain memory.
#[derive(Clone, Debug)]
pub struct Buckets {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Buckets {
    /// Empty buckets of a histogram: one per bound (inclusive, as Prometheus means `le`) and one beyond.
    pub fn of(metric: &'static Metric) -> Self {
        let bounds = metric.bounds();
        Buckets { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Counts one value so many times.
    #[inline]
    pub fn add_times(&mut self, value: f64, times: u64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += times;
        self.sum += value * times as f64;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.sum = 0.0;
    }
}

/// Even cells of the interval from 0 to 1; a power of two, so that finding one rounds nothing.
const CELLS: usize = 256;

/// Buckets of values between 0 and 1, for what is counted by row: the bucket is looked up instead of searched for, with the
/// same result.
#[derive(Clone, Debug)]
pub struct UnitBuckets {
    buckets: Buckets,
    /// By cell: the first bound in it or above it.
    first: Box<[u8; CELLS]>,
    /// The bounds, and one that nothing is beyond.
    uppers: Vec<f64>,
}

impl UnitBuckets {
    /// Empty buckets of a histogram.
    pub fn of(metric: &'static Metric) -> Self {
        let bounds = metric.bounds();
        debug_assert!(bounds.len() < usize::from(u8::MAX) && bounds.iter().all(|bound| (0.0..=1.0).contains(bound)));
        let mut first = Box::new([0; CELLS]);
        for (cell, first) in first.iter_mut().enumerate() {
            *first = bounds.partition_point(|bound| cell_of(*bound) < cell) as u8;
        }
        let uppers = bounds.iter().copied().chain([f64::INFINITY]).collect();
        UnitBuckets { buckets: Buckets::of(metric), first, uppers }
    }

    /// Counts one value.
    #[inline]
    pub fn add(&mut self, value: f32) {
        let value = f64::from(value);
        let mut index = usize::from(self.first[cell_of(value)]);
        // At most as often as bounds share a cell.
        while self.uppers[index] < value {
            index += 1;
        }
        self.buckets.counts[index] += 1;
        self.buckets.sum += value;
    }

    /// What was counted.
    pub fn counted(&mut self) -> &mut Buckets {
        &mut self.buckets
    }
}

#[inline]
fn cell_of(value: f64) -> usize {
    ((value * CELLS as f64) as usize).min(CELLS - 1)
}

/// A histogram of the process: one series of its metric.
#[derive(Debug)]
pub struct Histogram {
    metric: &'static Metric,
    /// `stage="decode"`, or empty.
    label: String,
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
    /// Added to a few times a second and thread: no need to do without a lock.
    sum: Mutex<f64>,
}

impl Histogram {
    /// An empty histogram with these values of the metric's labels; those of one metric are rendered next to each other.
    pub fn of(metric: &'static Metric, values: &[&str]) -> Self {
        let bounds = metric.bounds();
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { metric, label: metric.rendered_labels(values), bounds, counts, sum: Mutex::new(0.0) }
    }

    /// Counts one value; for what happens once per batch.
    pub fn record(&self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)].fetch_add(1, Ordering::Relaxed);
        self.add_sum(value);
    }

    /// Adds what a thread counted and empties it.
    pub fn drain(&self, buckets: &mut Buckets) {
        debug_assert_eq!(self.bounds, buckets.bounds);
        for (shared, count) in self.counts.iter().zip(&buckets.counts).filter(|(_, count)| **count > 0) {
            shared.fetch_add(*count, Ordering::Relaxed);
        }
        self.add_sum(buckets.sum);
        buckets.clear();
    }

    fn add_sum(&self, value: f64) {
        *self.sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += value;
    }

    /// Prometheus text format. `first` of its name writes the description.
    pub fn render(&self, text: &mut String, first: bool) {
        let Histogram { metric, label, .. } = self;
        let name = metric.name;
        if first {
            metric.describe(text);
        }
        let separator = if label.is_empty() { "" } else { "," };
        let mut total = 0;
        for (index, count) in self.counts.iter().enumerate() {
            total += count.load(Ordering::Relaxed);
            let bound = self.bounds.get(index).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(text, "{name}_bucket{{{label}{separator}le=\"{bound}\"}} {total}");
        }
        let braces = if label.is_empty() { String::new() } else { format!("{{{label}}}") };
        let sum = *self.sum.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let _ = writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {total}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::catalogue::Label;
    use crate::telemetry::catalogue::definitions::SCORE;

    #[test]
    fn a_value_on_a_bound_counts_below_it_and_counts_add_up() {
        static SECONDS: Metric =
            Metric::distributed("seconds", &[0.1, 1.0], "seconds", "A test.").by(&[Label::these("stage", &["x"])]);
        let histogram = Histogram::of(&SECONDS, &["x"]);
        let mut buckets = Buckets::of(&SECONDS);
        for value in [0.1, 0.5, 2.0] {
            buckets.add(value);
        }
        histogram.drain(&mut buckets);
        histogram.drain(&mut buckets);
        histogram.record(1.0);
        let mut text = String::new();
        histogram.render(&mut text, true);
        assert_eq!(
            text,
            "# HELP seconds A test.\n# TYPE seconds histogram\nseconds_bucket{stage=\"x\",le=\"0.1\"} 1\n\
             seconds_bucket{stage=\"x\",le=\"1\"} 3\nseconds_bucket{stage=\"x\",le=\"+Inf\"} 4\n\
             seconds_sum{stage=\"x\"} 3.6\nseconds_count{stage=\"x\"} 4\n"
        );
    }

    #[test]
    fn looking_a_bucket_up_finds_the_one_that_a_search_does() {
        static UNIT: Metric =
            Metric::distributed("unit", &[0.0, 0.001, 0.0012, 0.25, 0.250_1, 0.9, 0.999, 1.0], "1", "A test.");
        for metric in [&SCORE, &UNIT] {
            let near = |value: f64| {
                let bits = (value as f32).to_bits();
                (bits.saturating_sub(3)..=bits + 3).map(f32::from_bits)
            };
            let edges = (0..=CELLS).map(|cell| cell as f64 / CELLS as f64);
            let mut values: Vec<f32> = metric.bounds().iter().copied().chain(edges).flat_map(near).collect();
            values.extend((0..100_000).map(|step| step as f32 / 99_999.0));
            values.retain(|value| (0.0..=1.0).contains(value));
            let (mut looked_up, mut searched) = (UnitBuckets::of(metric), Buckets::of(metric));
            for value in values {
                looked_up.add(value);
                searched.add(f64::from(value));
                assert_eq!(looked_up.counted().counts, searched.counts, "{value}");
            }
            assert_eq!(looked_up.counted().sum, searched.sum);
        }
    }
}
