//! Histograms that cost the same whether anyone looks or not.
//!
//! The Prometheus exporter's own histograms keep every sample until they are drained and take a value at a time, time
//! stamp included: at a million rows a second that is memory without bound while nobody scrapes, and a tenth of the
//! hot path. Here a scoring thread counts into plain [`Buckets`], and adds them to the shared [`Histogram`] once per
//! commit: a handful of atomic additions, exact counts and an exact sum.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of values between ascending upper bounds, in plain memory.
#[derive(Clone, Debug)]
pub struct Buckets {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Buckets {
    /// Empty buckets: one per bound (inclusive, as Prometheus means `le`) and one beyond.
    pub fn new(bounds: &'static [f64]) -> Self {
        Buckets { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts one value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.counts.fill(0);
        self.sum = 0.0;
    }
}

/// A histogram of the process.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    help: &'static str,
    /// `stage="decode"`, or empty.
    label: &'static str,
    bounds: &'static [f64],
    counts: Vec<AtomicU64>,
    /// Added to a few times a second and thread: no need to do without a lock.
    sum: Mutex<f64>,
}

impl Histogram {
    /// An empty histogram. `label` is `key="value"`, or empty; histograms of one name stand next to each other.
    pub fn new(name: &'static str, help: &'static str, label: &'static str, bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { name, help, label, bounds, counts, sum: Mutex::new(0.0) }
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
        let Histogram { name, help, label, .. } = self;
        if first {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
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

    #[test]
    fn a_value_on_a_bound_counts_below_it_and_counts_add_up() {
        let histogram = Histogram::new("seconds", "A test.", "stage=\"x\"", &[0.1, 1.0]);
        let mut buckets = Buckets::new(&[0.1, 1.0]);
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
}
