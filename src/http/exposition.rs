//! Reads Prometheus' text back: the console shows what monitoring sees, whichever part of the worker wrote it. Pure.
//!
//! Only what our own exposition writes needs to be understood; a line of another kind is skipped.

use std::collections::HashMap;

/// Values of one moment.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_name: HashMap<String, Vec<Sample>>,
}

/// A value with its labels.
#[derive(Debug, PartialEq)]
pub(super) struct Sample {
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Sample {
    /// A label's value, or nothing.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

impl Samples {
    /// Reads `text`.
    pub fn read(text: &str) -> Samples {
        let mut samples = Samples::default();
        for (name, sample) in text.lines().filter_map(line) {
            samples.by_name.entry(name.to_owned()).or_default().push(sample);
        }
        samples
    }

    /// Every series of a metric.
    pub fn all(&self, name: &str) -> &[Sample] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The value of a metric without labels, where there is one.
    pub fn only(&self, name: &str) -> Option<f64> {
        self.all(name).first().map(|sample| sample.value)
    }

    /// The sum of a metric's series; 0 where there is none.
    pub fn sum(&self, name: &str) -> f64 {
        self.all(name).iter().fold(0.0, |sum, sample| sum + sample.value)
    }

    /// A metric's series by one of their labels, in order.
    pub fn by_label(&self, name: &str, label: &str) -> Vec<(String, f64)> {
        self.all(name).iter().map(|sample| (sample.label(label).to_owned(), sample.value)).collect()
    }

    /// A histogram's upper bounds and the counts between them, the last without a bound. Several series are not added up:
    /// ours have none.
    pub fn histogram(&self, name: &str) -> (Vec<f64>, Vec<f64>) {
        let buckets = self.all(&format!("{name}_bucket"));
        let bounds =
            buckets.iter().filter_map(|bucket| bucket.label("le").parse().ok()).filter(|le: &f64| le.is_finite());
        let mut below = 0.0;
        let counts = buckets.iter().map(|bucket| bucket.value - std::mem::replace(&mut below, bucket.value));
        (bounds.collect(), counts.collect())
    }
}

/// `name{label="value",…} 1.5`
fn line(line: &str) -> Option<(&str, Sample)> {
    if line.starts_with('#') {
        return None;
    }
    let Some((name, rest)) = line.split_once('{') else {
        let (name, value) = line.split_once(' ')?;
        return Some((name, Sample { labels: Vec::new(), value: value.trim().parse().ok()? }));
    };
    let (labels, rest) = labels(rest)?;
    Some((name, Sample { labels, value: rest.trim().parse().ok()? }))
}

/// Labels up to the closing brace, and what follows it. A value may hold braces, commas and escaped quotes.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        rest = loop {
            match characters.next()? {
                (at, '"') => break &quoted[at + 1..],
                (_, '\\') => value.push(match characters.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_labels_and_values_read_back() {
        let samples = Samples::read(
            "# HELP a Words.\n# TYPE a counter\na{x=\"1\",y=\"q\\\"}, \\\\ \\n\"} 2\na{x=\"3\"} 4.5\nb 1e3\nnonsense\nc{x=\"\n\n",
        );
        assert_eq!(samples.sum("a"), 6.5);
        assert_eq!(samples.all("a")[0].label("y"), "q\"}, \\ \n");
        assert_eq!(samples.by_label("a", "x"), [("1".to_owned(), 2.0), ("3".to_owned(), 4.5)]);
        assert_eq!(samples.sum("b"), 1000.0);
        assert_eq!(samples.sum("c"), 0.0);
    }

    #[test]
    fn a_histogram_of_ours_reads_back() {
        use crate::telemetry::catalogue::Metric;
        use crate::telemetry::histogram::Histogram;
        static SECONDS: Metric = Metric::distributed("seconds", &[0.1, 1.0], "seconds", "A test.");
        let histogram = Histogram::of(&SECONDS, &[]);
        for value in [0.05, 0.5, 0.5, 7.0] {
            histogram.record(value);
        }
        let mut text = String::new();
        histogram.render(&mut text, true);
        assert_eq!(Samples::read(&text).histogram("seconds"), (vec![0.1, 1.0], vec![1.0, 2.0, 1.0]));
    }
}
