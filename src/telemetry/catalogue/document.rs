//! docs/METRICS.md from the definitions, with who reads each metric from the files that do.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::definitions::SECTIONS;
use super::{Kind, Metric, Values, all};

/// What stands above the tables.
const HEAD: &str = "# Metrics

<!-- Written by `make docs` from src/telemetry/catalogue/definitions.rs; a test fails where it is not what that says. -->

`GET /metrics` of a worker (port 9464 by default) answers in Prometheus' text format. Everything it says is defined once, in
`src/telemetry/catalogue/definitions.rs`, where this page comes from too; `tests/promises/metrics.rs` holds a running worker
against it, and `promtool check metrics` finds nothing to complain about.

Counters grow while the process lives and begin at 0 with it; use `rate` or `increase`. What one label's values can be is
said with the label, so series are bounded: some 1,250 for a model of 29 features, 970 of them drift's bins; each partition
adds 2, each broker 30. **Absent** says when a metric is not there, rather than 0: an alert that compares finds nothing then.

";

/// What stands below them.
const FOOT: &str = "## Reading them

Watch at least lag in seconds, dead letters by class, redos, and `/readyz`. Lag counts what was *read*: a worker that reads
the same records again and again has little of it, so watch redos as well. Alerts for these and more are in
`deploy/prometheus/alerts.yml`, each with its section of [RUNBOOK.md](RUNBOOK.md).

```promql
# Rows per second, all workers
sum(rate(fraud_scorer_transactions_total[1m]))
# Money declined in the last hour, and its share of all
increase(fraud_scorer_verdict_amount_total{decision=\"decline\"}[1h])
sum(increase(fraud_scorer_verdict_amount_total{decision=\"decline\"}[1h])) / sum(increase(fraud_scorer_verdict_amount_total[1h]))
# 99 of 100 verdicts are visible within
histogram_quantile(0.99, sum by (le) (rate(fraud_scorer_end_to_end_seconds_bucket[5m])))
# Cores spent by stage
sum by (stage) (rate(fraud_scorer_stage_seconds_sum[1m]))
# Mean round trip to each broker; a consumer's includes its wait for records
sum by (client, broker) (rate(fraud_scorer_kafka_round_trip_seconds_total[5m]))
  / sum by (client, broker) (rate(fraud_scorer_kafka_responses_total[5m]))
# Verdicts that share a request
sum(rate(fraud_scorer_kafka_messages_total{client=\"producer\"}[5m]))
  / sum(rate(fraud_scorer_kafka_requests_total{client=\"producer\"}[5m]))
```

## What they cost

A scoring thread counts in plain memory: per row an addition or two for each of decision, score, amount and timestamp; per
batch a few clock readings; per commit some dozens of atomic additions. Nothing is allocated, locked or sent per row. The
Kafka clients' statistics are read by the thread once a second (consumer) and every five (producers), some tens of
microseconds each. `make bench ARGS=metrics` measures what all of it takes of the hot path, and what drift takes beside it;
[PERFORMANCE.md](PERFORMANCE.md) has the figures. `-X statistics.interval.ms=0` turns the clients' statistics off, and lag
with them.

## Adding one

Define it in `src/telemetry/catalogue/definitions.rs`, list it in its section, take its instrument from there
(`Metric::counter`, `Metric::gauge`, `Histogram::of`, or `describe` and `sample` where it is rendered by hand), and run
`make docs`. The macros of the `metrics` crate are refused by clippy everywhere else.
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The file this is about.
pub(super) fn path() -> PathBuf {
    root().join("docs/METRICS.md")
}

/// Its contents.
pub(super) fn text() -> String {
    let readers = Readers::find();
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        let _ = writeln!(text, "## {}\n", section.title);
        if !section.text.is_empty() {
            let _ = writeln!(text, "{}\n", section.text);
        }
        let _ = writeln!(text, "| metric | type, unit | labels | meaning |\n|---|---|---|---|");
        for metric in section.metrics {
            let _ = writeln!(
                text,
                "| `{}` | {}, {} | {} | {} |",
                metric.name,
                metric.kind.as_str(),
                metric.unit,
                labels(metric),
                meaning(metric, &readers)
            );
        }
        text.push('\n');
    }
    text += "## Bounds of the histograms\n\n| metric | upper bounds |\n|---|---|\n";
    for metric in all() {
        if let Kind::Histogram(bounds) = metric.kind {
            let bounds: Vec<String> = bounds.iter().map(f64::to_string).collect();
            let _ = writeln!(text, "| `{}` | {} |", metric.name, bounds.join(", "));
        }
    }
    text + "\n" + FOOT
}

fn labels(metric: &Metric) -> String {
    let label = |label: &super::Label| match label.values {
        Values::These(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{}`: {}", label.name, values.join(", "))
        }
        Values::Of(sort) => format!("`{}`: {sort}", label.name),
    };
    metric.labels.iter().map(label).collect::<Vec<_>>().join("<br>")
}

fn meaning(metric: &Metric, readers: &Readers) -> String {
    let mut text = format!("{} {}", metric.help, metric.purpose);
    if let Some(absent) = metric.absent {
        let _ = write!(text, " **Absent:** {absent}.");
    }
    let readers = readers.of(metric);
    if !readers.is_empty() {
        let _ = write!(text, " *Read by:* {readers}.");
    }
    text
}

/// Who reads which metric, by the texts that name it.
struct Readers {
    alerts: BTreeMap<String, String>,
    dashboards: BTreeMap<String, String>,
    /// Recording rules: a name and its expression.
    records: BTreeMap<String, String>,
    console: String,
}

impl Readers {
    fn find() -> Readers {
        let read = |file: &Path| std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
        let (mut alerts, mut records) = (BTreeMap::new(), BTreeMap::new());
        for file in ["alerts.yml", "drift.rules.yml"] {
            rules(&read(&root().join("deploy/prometheus").join(file)), &mut alerts, &mut records);
        }
        let folder = root().join("deploy/grafana/dashboards");
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let dashboard = |file: PathBuf| {
            let board: serde_json::Value = serde_json::from_str(&read(&file)).expect("a dashboard is JSON");
            (board["title"].as_str().unwrap_or_default().to_owned(), board["panels"].to_string())
        };
        let dashboards = files.flatten().map(|file| dashboard(file.path())).collect();
        Readers { alerts, dashboards, records, console: read(&root().join("src/http/events.rs")) }
    }

    fn of(&self, metric: &Metric) -> String {
        let mut names = BTreeSet::from([metric.name.to_owned()]);
        if let Kind::Histogram(_) = metric.kind {
            names.extend(["_bucket", "_sum", "_count"].map(|suffix| format!("{}{suffix}", metric.name)));
        }
        // Rules of rules of rules, until nothing is new.
        loop {
            let reads = |text: &str| names.iter().any(|name| mentions(text, name));
            let known = names.len();
            let more: Vec<String> =
                self.records.iter().filter(|(_, text)| reads(text)).map(|(name, _)| name.clone()).collect();
            names.extend(more);
            if names.len() == known {
                break;
            }
        }
        let reads = |text: &str| names.iter().any(|name| mentions(text, name));
        let listed = |of: &BTreeMap<String, String>| -> Vec<String> {
            of.iter().filter(|(_, text)| reads(text)).map(|(name, _)| name.clone()).collect()
        };
        let (alerts, dashboards) = (listed(&self.alerts), listed(&self.dashboards));
        let mut parts = Vec::new();
        if !alerts.is_empty() {
            let linked = |alert: &String| format!("[{alert}](RUNBOOK.md#{})", alert.to_lowercase());
            parts.push(format!("alert {}", alerts.iter().map(linked).collect::<Vec<_>>().join(", ")));
        }
        if !dashboards.is_empty() {
            parts.push(format!("dashboard {}", dashboards.join(", ")));
        }
        if reads(&self.console) {
            parts.push("console".into());
        }
        parts.join("; ")
    }
}

/// Sorts the rules of a file into alerts and records, each with its text.
fn rules(text: &str, alerts: &mut BTreeMap<String, String>, records: &mut BTreeMap<String, String>) {
    let mut current: Option<&mut String> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(name) = trimmed.strip_prefix("- alert: ") {
            current = Some(alerts.entry(name.to_owned()).or_default());
        } else if let Some(name) = trimmed.strip_prefix("- record: ") {
            current = Some(records.entry(name.to_owned()).or_default());
        } else if let Some(current) = &mut current {
            current.push_str(line);
            current.push('\n');
        }
    }
}

/// Whether `text` has `name` as a whole name.
fn mentions(text: &str, name: &str) -> bool {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
}
