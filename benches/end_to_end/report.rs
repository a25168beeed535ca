//! Numbers of several rounds, as text tables and as files.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use crate::contender::Contender;
use crate::machine::{self, in_memory};
use crate::measure::Measured;
use crate::options::Options;
use crate::root;

/// The share of the machine that others may have on a quiet one.
const QUIET: f64 = 0.03;

/// Lowest, middle and highest of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        Some(Spread { min, median, max })
    }

    /// All three times `factor`.
    pub fn scaled(self, factor: f64) -> Spread {
        Spread { min: self.min * factor, median: self.median * factor, max: self.max * factor }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits that count, unless more are asked for.
        let digits = formatter.precision().unwrap_or(match self.median.abs() {
            large if large >= 100.0 => 0,
            middling if middling >= 10.0 => 1,
            _ => 2,
        });
        write!(formatter, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.min, self.max)
    }
}

/// One run of a contender in a round.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: u64,
    /// Tells lines apart.
    pub label: String,
    pub name: String,
    pub version: String,
    pub model: Option<&'static str>,
    pub guarantee: Option<&'static str>,
    pub threads: usize,
    pub processes: usize,
    pub per_second: f64,
    pub per_cpu_second: f64,
    #[serde(flatten)]
    pub measured: Measured,
}

impl Run {
    pub fn new(round: u64, contender: &Contender, measured: Measured) -> Run {
        Run {
            round,
            label: contender.label(),
            name: contender.name.clone(),
            version: contender.version.clone(),
            model: contender.model.map(|model| model.name()),
            guarantee: contender.guarantee.map(|guarantee| guarantee.name()),
            threads: contender.threads,
            processes: contender.processes,
            per_second: measured.per_second(),
            per_cpu_second: measured.per_cpu_second(),
            measured,
        }
    }
}

/// The runs of one label, over the rounds.
pub fn spread(runs: &[Run], label: &str, value: impl Fn(&Run) -> f64) -> Option<Spread> {
    Spread::of(runs.iter().filter(|run| run.label == label).map(value))
}

/// Labels in the order of their first run.
pub fn labels(runs: &[Run]) -> Vec<&str> {
    let mut labels: Vec<&str> = Vec::new();
    for run in runs {
        if !labels.contains(&run.label.as_str()) {
            labels.push(&run.label);
        }
    }
    labels
}

/// Ratios of two labels, each within its round.
pub fn ratio(runs: &[Run], of: &str, to: &str, value: impl Fn(&Run) -> f64) -> Option<Spread> {
    let rounds = runs.iter().filter(|run| run.label == of);
    Spread::of(rounds.filter_map(|run| {
        let other = runs.iter().find(|other| other.label == to && other.round == run.round)?;
        Some(value(run) / value(other))
    }))
}

/// What stands under a table when the machine was not the bench's own.
pub fn warn_of_others(runs: &[Run]) {
    warn_of_shares(runs.iter().map(|run| run.measured.others_share));
}

/// The same, of the shares that others had.
pub fn warn_of_shares(shares: impl IntoIterator<Item = f64>) {
    let others = Spread::of(shares).map_or(0.0, |found| found.median);
    if others > QUIET {
        println!(
            "Other processes took {:.0} % of the machine: do not trust the wall, and ratios only roughly.\n",
            others * 100.0
        );
    }
}

/// A ratio, and what it should be.
#[derive(Clone, Debug, Serialize)]
pub struct Claim {
    pub what: String,
    pub ratio: Spread,
    pub goal: String,
    pub reached: bool,
}

impl Claim {
    /// A ratio that should be `goal` at least.
    pub fn at_least(what: impl Into<String>, ratio: Spread, goal: f64) -> Claim {
        Claim { what: what.into(), ratio, goal: format!("≥ {goal}"), reached: ratio.median >= goal }
    }

    /// A value that should be `goal` at most.
    pub fn at_most(what: impl Into<String>, ratio: Spread, goal: f64) -> Claim {
        Claim { what: what.into(), ratio, goal: format!("≤ {goal}"), reached: ratio.median <= goal }
    }
}

/// The claims as a table.
pub fn claims_table(claims: &[Claim]) -> String {
    let rows = claims.iter().map(|claim| {
        let reached = if claim.reached { "yes" } else { "no" };
        vec![claim.what.clone(), claim.ratio.to_string(), claim.goal.clone(), reached.into()]
    });
    table(&["ratio", "median (min–max)", "goal", "reached"], rows.collect())
}

/// A Markdown table whose columns also line up as plain text; the first is of words, the others of numbers.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0).max(3)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| match column {
            0 => format!(" {cell:<width$} "),
            _ => format!(" {cell:>width$} "),
        });
        format!("|{}|\n", cells.collect::<Vec<_>>().join("|"))
    };
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, width)| if column == 0 { "-".repeat(width + 2) } else { "-".repeat(width + 1) + ":" })
        .collect();
    let body: String = rows.iter().map(line).collect();
    format!("{}|{}|\n{body}", line(&head), rule.join("|"))
}

/// Writes a results file; says so.
pub fn write(options: &Options, name: &str, content: &str) {
    let folder: PathBuf = root().join(&options.results);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), content).unwrap();
    println!("written: {}", options.results.join(name).display());
}

/// Writes results as JSON, with what they were made on.
pub fn write_json(options: &Options, name: &str, results: Value) {
    let mut content = json!({
        "day": jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        "machine": machine::facts(),
        "options": {
            "rounds": options.rounds, "records": options.records, "seconds": options.seconds,
            "worker": options.worker,
            "broker_data": options.broker_directory.as_deref().map(|place| if in_memory(place) { "memory" } else { "disk" }),
        },
    });
    content.as_object_mut().unwrap().extend(results.as_object().unwrap().clone());
    write(options, name, &(serde_json::to_string_pretty(&content).unwrap() + "\n"));
}
