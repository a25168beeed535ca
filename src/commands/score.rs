//! `fraud-scorer score`: the worker's decode, model and encode over a file of JSON lines, in order.
//!
//! Every line gives one line per row: a verdict whose source is the file (`partition` 0, `offset` the line from 0), or,
//! for a line that cannot be scored, `{"error":{"class":…,"message":…},"source":{…}}` in its place.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Failure;
use crate::model::bundle::Bundle;
use crate::model::choice::KernelChoice;
use crate::model::trust::{Demands, ModelKey};
use crate::pipeline::decode::EventTime;
use crate::pipeline::encode::{Encoder, RowSource};
use crate::pipeline::engine::{Engine, Outcome};

/// Lines scored together.
const BATCH: usize = 4096;

/// Longest line that is parsed, bytes.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Arguments of `score`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Directory of the model bundle
    #[arg(long, value_name = "DIR", default_value = "models/fraud")]
    model: PathBuf,

    /// What computes the model
    #[arg(long, value_enum, default_value_t = KernelChoice::Auto)]
    kernel: KernelChoice,

    /// minisign public key, or its file: the bundle must be signed by it
    #[arg(long, value_name = "KEY")]
    model_key: Option<ModelKey>,

    /// JSON lines to score, - for standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    input: PathBuf,

    /// Where verdicts go, - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

/// Scores the file.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let demands = Demands { key: arguments.model_key, is_registered: false };
    let bundle = Bundle::load_as(&arguments.model, arguments.kernel, &demands).map_err(Failure::configuration)?;
    let mut engine = Engine::new(&bundle, MAX_LINE_BYTES).map_err(Failure::configuration)?;
    let name = arguments.input.file_name().unwrap_or(arguments.input.as_os_str()).to_string_lossy().into_owned();
    let encoder = Encoder::new(&bundle.manifest.name, &bundle.manifest.version, &name);

    let mut input: Box<dyn BufRead> = match is_standard(&arguments.input) {
        true => Box::new(io::stdin().lock()),
        false => {
            let file =
                File::open(&arguments.input).with_context(|| format!("cannot read {}", arguments.input.display()))?;
            Box::new(BufReader::with_capacity(1 << 18, file))
        }
    };
    let output: Box<dyn Write> = match is_standard(&arguments.output) {
        true => Box::new(io::stdout().lock()),
        false => {
            let path = &arguments.output;
            Box::new(File::create(path).with_context(|| format!("cannot write {}", path.display()))?)
        }
    };
    let mut output = BufWriter::with_capacity(1 << 18, output);
    let mut counts = Counts::default();
    match score_all(&mut engine, &encoder, &mut *input, &mut output, &mut counts) {
        // Whoever reads our output has seen enough: `… | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        outcome => outcome.context("reading or writing")?,
    }
    let Counts { rows, lines, rejected } = counts;
    super::tell(&format!("scored {rows} rows of {lines} lines, {rejected} lines rejected"));
    Ok(())
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[derive(Default)]
struct Counts {
    lines: i64,
    rows: u64,
    rejected: u64,
}

fn score_all(
    engine: &mut Engine,
    encoder: &Encoder,
    input: &mut dyn BufRead,
    output: &mut impl Write,
    counts: &mut Counts,
) -> io::Result<()> {
    let (mut text, mut ends, mut verdict) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        text.clear();
        ends.clear();
        while ends.len() < BATCH && input.read_until(b'\n', &mut text)? > 0 {
            ends.push(text.len());
        }
        if ends.is_empty() {
            return output.flush();
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let lines: Vec<&[u8]> = starts.zip(&ends).map(|(start, &end)| text[start..end].trim_ascii_end()).collect();
        engine.run(lines.iter().map(|line| Some(*line)));
        for (line, outcome) in lines.iter().zip(engine.outcomes()) {
            let source = |row| RowSource { partition: 0, offset: counts.lines, row };
            match outcome {
                Outcome::Scored(rows) => {
                    for row in engine.rows(rows.clone()) {
                        let event_time = match row.meta.event_time {
                            EventTime::Milliseconds(time) => time,
                            EventTime::Absent => 0,
                        };
                        verdict.clear();
                        encoder.verdict(&mut verdict, line, &row, event_time, source(row.meta.row));
                        verdict.push(b'\n');
                        output.write_all(&verdict)?;
                        counts.rows += 1;
                    }
                }
                Outcome::Rejected(rejection) => {
                    let error = serde_json::json!({
                        "error": {"class": rejection.class.as_str(), "message": rejection.message},
                        "source": {"topic": encoder.topic(), "partition": 0, "offset": counts.lines, "row": 0},
                    });
                    writeln!(output, "{error}")?;
                    counts.rejected += 1;
                }
            }
            counts.lines += 1;
        }
    }
}
