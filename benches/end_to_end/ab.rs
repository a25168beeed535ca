//! One fraud-scorer program against another: the ratio of what they do per CPU-second, over pairs of runs.
//!
//! ```text
//!  pair 1: OLD NEW ─► pair 2: NEW OLD ─► pair 3: OLD NEW …   each pair ─► one ratio ─► their median and its interval
//! ```
//!
//! The two runs of a pair are neighbours in time, and each program is first as often as the other, so that neither slow
//! changes of the machine nor the order favours one. `score` is measured by the CPU time of the whole process over a long
//! file, without what it takes over a file of one line: with trees, the start takes as long as hundreds of thousands of rows.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::contender::{Contender, Guarantee, onnxruntime_library};
use crate::interval;
use crate::machine::cores;
use crate::measure::Bench;
use crate::options::Options;
use crate::processes::{ended_children_cpu, machine_busy, own_cpu};
use crate::reaper;
use crate::report::{Spread, table, warn_of_shares};
use crate::root;
use crate::workload::{Model, Records};

/// The lowest ratio of records per CPU-second that a change may have.
const GOAL: f64 = 0.98;

/// Rows that `score` reads in one run.
const SCORED: u64 = 2_000_000;

/// What is compared, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(mut_args(fitting))]
pub struct Arguments {
    /// A fraud-scorer program, from the checkout
    #[arg(value_parser = Binary::of)]
    old: Binary,

    /// The one that is compared with it
    #[arg(value_parser = Binary::of)]
    new: Binary,

    /// Each program runs once in each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(10..=1000))]
    pairs: u64,

    /// What is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [What::Worker, What::Score])]
    what: Vec<What>,

    /// Exit with 1 where a median ratio is lower [default: compare with 0.98 and exit with 0]
    #[arg(long, value_name = "RATIO")]
    at_least: Option<f64>,

    #[command(flatten)]
    options: Options,
}

/// The harness's options as they make sense here: shorter runs, since there are many, and none that would do nothing.
fn fitting(argument: clap::Arg) -> clap::Arg {
    match argument.get_id().as_str() {
        "seconds" => argument.default_value("3"),
        "records" => argument.default_value("4000000"),
        "old" | "new" | "pairs" | "what" | "at_least" | "models" | "worker" | "broker_directory" => argument,
        _ => argument.hide(true),
    }
}

/// Parts of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// `fraud-scorer run` over the loaded topic, one scoring thread
    Worker,
    /// `fraud-scorer score` over a file, without Kafka
    Score,
}

/// A program that can be started.
#[derive(Clone, Debug)]
pub struct Binary {
    path: PathBuf,
    version: String,
}

impl Binary {
    /// The program at a path from the checkout, where it is one.
    fn of(path: &str) -> Result<Binary, String> {
        let path = root().join(path);
        let said = Command::new(&path).arg("--version").output().map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let version = said.strip_prefix("fraud-scorer ").ok_or("it does not say that it is fraud-scorer")?;
        Ok(Binary { version: version.to_owned(), path })
    }
}

impl Arguments {
    /// The checkout's own program against itself, in one pair.
    pub fn smoke(options: Options) -> Arguments {
        let itself = Binary::of(env!("CARGO_BIN_EXE_fraud-scorer")).unwrap();
        let what = vec![What::Worker, What::Score];
        Arguments { old: itself.clone(), new: itself, pairs: 1, what, at_least: None, options }
    }

    /// Rows of `score`'s file; fewer where the topic, too, is smaller than a measurement needs.
    fn scored(&self) -> u64 {
        SCORED.min(self.options.records)
    }
}

/// Measures and prints it, on a broker of its own where one is needed; whether what was asked for is reached.
pub fn run(arguments: &Arguments) -> bool {
    let options = &arguments.options;
    let bench = arguments.what.contains(&What::Worker).then(|| Bench::start(options.clone(), options.records));
    compare(bench.as_ref(), arguments)
}

/// The same, on a broker that is there.
pub fn compare(bench: Option<&Bench>, arguments: &Arguments) -> bool {
    let file = arguments.what.contains(&What::Score).then(|| InputFile::write(&arguments.options, arguments.scored()));
    let mut lines = Vec::new();
    for &model in &arguments.options.models {
        if let Some(bench) = bench {
            let of = |guarantee| Line::new(Subject::Worker { bench, model, guarantee });
            lines.extend(Guarantee::ALL.map(of));
        }
        lines.extend(file.as_ref().map(|file| Line::new(Subject::Score { file, model })));
    }
    let (old, new) = (("OLD", &arguments.old), ("NEW", &arguments.new));
    let mut others = Vec::new();
    for pair in 1..=arguments.pairs {
        eprintln!("  ab, pair {pair} of {}", arguments.pairs);
        for line in &mut lines {
            let mut of = |(name, binary)| line.subject.per_cpu_second(name, binary, &mut others);
            let ratio = if pair % 2 == 1 {
                let before = of(old);
                of(new) / before
            } else {
                let after = of(new);
                after / of(old)
            };
            line.ratios.push(ratio);
        }
    }
    println!();
    for (name, Binary { path, version }) in [old, new] {
        println!("{name}: {}, version {version}", path.strip_prefix(root()).unwrap_or(path).display());
    }
    println!("\nRecords per CPU-second, NEW / OLD\n");
    let goal = arguments.at_least.unwrap_or(GOAL);
    let (rows, reached): (Vec<_>, Vec<_>) = lines.iter().map(|line| line.row(goal)).unzip();
    let asked = format!("at least {goal}");
    println!("{}", table(&["", "pairs", "median", "its interval", "lowest", "highest", &asked], rows));
    warn_of_shares(others);
    arguments.at_least.is_none() || reached.into_iter().all(|reached| reached)
}

/// A line of the table.
struct Line<'a> {
    subject: Subject<'a>,
    ratios: Vec<f64>,
}

/// What a line is about.
enum Subject<'a> {
    Worker { bench: &'a Bench, model: Model, guarantee: Guarantee },
    Score { file: &'a InputFile, model: Model },
}

impl<'a> Line<'a> {
    fn new(subject: Subject<'a>) -> Line<'a> {
        Line { subject, ratios: Vec::new() }
    }

    /// Its cells, and whether the median is `goal` at least.
    fn row(&self, goal: f64) -> (Vec<String>, bool) {
        let spread = Spread::of(self.ratios.iter().copied()).unwrap();
        let interval = interval::of_median(&self.ratios).map_or("too few pairs".into(), |found| {
            format!("{:.3}–{:.3} ({:.1} %)", found.low, found.high, found.coverage * 100.0)
        });
        let reached = spread.median >= goal;
        let mut cells = vec![self.subject.label(), self.ratios.len().to_string()];
        cells.extend([format!("{:.3}", spread.median), interval]);
        cells.extend([spread.min, spread.max].map(|ratio| format!("{ratio:.3}")));
        cells.push(if reached { "yes".into() } else { "no".into() });
        (cells, reached)
    }
}

impl Subject<'_> {
    fn label(&self) -> String {
        match self {
            Subject::Worker { model, guarantee, .. } => format!("worker, {}, {}", model.name(), guarantee.name()),
            Subject::Score { model, .. } => format!("score, {}", model.name()),
        }
    }

    /// One run of a program; a failure ends everything. `others` gets the share of the machine that others had.
    fn per_cpu_second(&self, name: &str, binary: &Binary, others: &mut Vec<f64>) -> f64 {
        match self {
            Subject::Worker { bench, model, guarantee } => {
                let contender = Contender {
                    name: name.into(),
                    version: binary.version.clone(),
                    worker: binary.path.clone(),
                    ..bench.worker(*model, *guarantee, 1)
                };
                let measured = bench.throughput(&contender).unwrap_or_else(|error| panic!("{error}"));
                others.push(measured.others_share);
                measured.per_cpu_second()
            }
            Subject::Score { file, model } => {
                let (began, before) = (Instant::now(), foreign_cpu());
                let found = file.score(*model, &binary.path);
                let foreign = foreign_cpu().saturating_sub(before);
                others.push(foreign.as_secs_f64() / began.elapsed().as_secs_f64() / cores() as f64);
                eprintln!("    {:<52} {found:>9.0}/CPU-s", format!("{name}, score, {}", model.name()));
                found
            }
        }
    }
}

/// What `score` reads: lies where the broker's data does, so that no disk is in the figure.
struct InputFile {
    folder: tempfile::TempDir,
    rows: u64,
}

impl InputFile {
    fn write(options: &Options, rows: u64) -> InputFile {
        let folder = tempfile::tempdir_in(options.clone().broker_directory()).unwrap();
        reaper::remove_at_end(folder.path());
        let (records, file) = (Records::read(), InputFile { folder, rows });
        records.write(&file.all(), rows);
        records.write(&file.first(), 1);
        file
    }

    fn all(&self) -> PathBuf {
        self.folder.path().join("all.jsonl")
    }

    /// The first row alone: what a run over it takes is the program's start.
    fn first(&self) -> PathBuf {
        self.folder.path().join("first.jsonl")
    }

    /// Rows per CPU-second, without the start.
    fn score(&self, model: Model, binary: &Path) -> f64 {
        let start = score(model, binary, &self.first());
        (self.rows - 1) as f64 / (score(model, binary, &self.all()) - start).as_secs_f64()
    }
}

/// CPU time of all that is neither this program nor one of its ended children, so far.
fn foreign_cpu() -> Duration {
    machine_busy().saturating_sub(own_cpu() + ended_children_cpu())
}

/// CPU time of the whole process.
fn score(model: Model, binary: &Path, input: &Path) -> Duration {
    let mut command = Command::new(binary);
    command.args(["score", "--output", "/dev/null", "--input"]).arg(input);
    command.arg("--model").arg(model.bundle());
    command.env("ORT_DYLIB_PATH", onnxruntime_library()).env_remove("RUST_LOG").stdin(Stdio::null());
    let before = ended_children_cpu();
    let ended = command.output().unwrap();
    let taken = ended_children_cpu() - before;
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{} score, {}: {said}", binary.display(), ended.status);
    taken
}
