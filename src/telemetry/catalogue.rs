//! Every metric of the worker, defined once: name, kind, unit, labels with their values, help, what it is good for.
//!
//! ```text
//!  definitions.rs ─┬─► Metric::counter, gauge ─► the exporter's instruments ─┐
//!                  ├─► Histogram::of ─────────────────────────────────────────┼─► /metrics
//!                  ├─► Metric::describe, sample ─► families rendered by hand ──┘
//!                  └─► docs/METRICS.md (make docs)
//! ```
//!
//! There is no other way to an instrument: the macros of the `metrics` crate are refused elsewhere (`clippy.toml`), and
//! what is rendered by hand takes names, types and label names from here. So nothing is exposed that is not defined; that
//! everything defined is exposed is held by `tests/promises/metrics.rs`, against a running worker.

pub mod definitions;

#[cfg(test)]
mod document;
#[cfg(test)]
mod tests;

use std::fmt::{Display, Write};

use metrics::{Counter, Gauge, Label as ExporterLabel};

/// What a metric is; Prometheus' types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of values below ascending upper bounds, the one without a bound left out.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As `# TYPE` names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// What a label may say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// One of these.
    These(&'static [&'static str]),
    /// Anything, of this sort; how many there can be is said with it.
    Of(&'static str),
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

impl Label {
    /// One of `values`.
    pub const fn these(name: &'static str, values: &'static [&'static str]) -> Label {
        Label { name, values: Values::These(values) }
    }

    /// Whatever `sort` of thing it names.
    pub const fn of(name: &'static str, sort: &'static str) -> Label {
        Label { name, values: Values::Of(sort) }
    }
}

/// A metric's definition.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// As exposed; a histogram's series have a suffix.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Of its values, or of what it counts.
    pub unit: &'static str,
    /// In the order in which they are written.
    pub labels: &'static [Label],
    /// One sentence, as `# HELP` has it.
    pub help: &'static str,
    /// What to read from it.
    pub purpose: &'static str,
    /// Why it may be missing; `None`: it is there from the first scrape of a worker that has a model.
    pub absent: Option<&'static str>,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, unit: &'static str, help: &'static str) -> Metric {
        Metric { name, kind, unit, labels: &[], help, purpose: "", absent: None }
    }

    /// A counter of `unit`.
    pub const fn counted(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
        Metric::new(name, Kind::Counter, unit, help)
    }

    /// A gauge in `unit`.
    pub const fn gauged(name: &'static str, unit: &'static str, help: &'static str) -> Metric {
        Metric::new(name, Kind::Gauge, unit, help)
    }

    /// A histogram of values in `unit`.
    pub const fn distributed(
        name: &'static str,
        bounds: &'static [f64],
        unit: &'static str,
        help: &'static str,
    ) -> Metric {
        Metric::new(name, Kind::Histogram(bounds), unit, help)
    }

    /// With labels.
    pub const fn by(self, labels: &'static [Label]) -> Metric {
        Metric { labels, ..self }
    }

    /// What to read from it.
    pub const fn tells(self, purpose: &'static str) -> Metric {
        Metric { purpose, ..self }
    }

    /// It may be missing, and why.
    pub const fn absent(self, why: &'static str) -> Metric {
        Metric { absent: Some(why), ..self }
    }

    /// The exporter's counter with these values of the labels, in their order.
    #[allow(clippy::disallowed_macros)] // the one place that may
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.kind, Kind::Counter, "{}", self.name);
        metrics::counter!(self.name, self.exporter_labels(values))
    }

    /// The exporter's gauge with these values of the labels, in their order.
    #[allow(clippy::disallowed_macros)] // likewise
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge, "{}", self.name);
        metrics::gauge!(self.name, self.exporter_labels(values))
    }

    fn exporter_labels(&self, values: &[&str]) -> Vec<ExporterLabel> {
        self.check(values);
        let label = |(label, value): (&Label, &&str)| ExporterLabel::new(label.name, (*value).to_owned());
        self.labels.iter().zip(values).map(label).collect()
    }

    fn check(&self, values: &[&str]) {
        debug_assert_eq!(self.labels.len(), values.len(), "{}: {values:?}", self.name);
        for (label, value) in self.labels.iter().zip(values) {
            if let Values::These(allowed) = label.values {
                debug_assert!(allowed.contains(value), "{}: {}={value:?} is not defined", self.name, label.name);
            }
        }
    }

    /// Upper bounds of a histogram; none of anything else.
    pub fn bounds(&self) -> &'static [f64] {
        match self.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        }
    }

    /// Appends `# HELP` and `# TYPE`; once per exposition, before the first series.
    pub fn describe(&self, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {2}", self.name, self.help, self.kind.as_str());
    }

    /// Appends one series of a counter or gauge, with these values of the labels, in their order.
    pub fn sample(&self, text: &mut String, values: &[&str], value: impl Display) {
        text.push_str(self.name);
        let labels = self.rendered_labels(values);
        if labels.is_empty() {
            let _ = writeln!(text, " {value}");
        } else {
            let _ = writeln!(text, "{{{labels}}} {value}");
        }
    }

    /// `stage="decode",…`, without braces.
    pub(super) fn rendered_labels(&self, values: &[&str]) -> String {
        self.check(values);
        let label = |(label, value): (&Label, &&str)| format!("{}=\"{}\"", label.name, escaped(value));
        self.labels.iter().zip(values).map(label).collect::<Vec<_>>().join(",")
    }
}

/// A label's value as the text format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Metrics that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Heading in docs/METRICS.md.
    pub title: &'static str,
    /// What is said of all of them, in Markdown.
    pub text: &'static str,
    /// The metrics.
    pub metrics: &'static [&'static Metric],
}

/// Every metric there is.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    definitions::SECTIONS.iter().flat_map(|section| section.metrics.iter().copied())
}

/// Gives the exporter the words for what it renders.
#[allow(clippy::disallowed_macros)] // the one place that may
pub fn describe_all() {
    for metric in all() {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
            Kind::Histogram(_) => {}
        }
    }
}
