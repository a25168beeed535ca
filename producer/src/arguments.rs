//! The command line, and the one boundary where it becomes a validated [`Job`].

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use fraud_settings::{KafkaArguments, LogFormat, SettingsError, exit_code, parse_duration};
use fraud_wire::reference::{Reference, ReferenceError};

use crate::job::Job;
use crate::source::{CsvSource, EventTime, Format, JsonLinesSource, ProfileSource, Source, SourceError};

/// Sends test traffic to Kafka: card transactions at a chosen rate, every delivery accounted for.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "fraud-producer", version)]
pub struct Arguments {
    #[command(flatten)]
    kafka: KafkaArguments,

    /// The topic to send to; it must exist
    #[arg(long, default_value = "transactions")]
    topic: String,

    /// Records per second, each due at start + i / rate however late the ones before it are; 0 for as fast as possible
    #[arg(long, value_name = "PER_SECOND", default_value_t = DEFAULT_RATE)]
    rate: u64,

    /// Stop after this many records
    #[arg(long)]
    count: Option<u64>,

    /// Stop after this time (500ms, 10s, 2m); without --count and --duration: at the file's end or at the first signal
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,

    /// Where transactions come from; implied by --csv and --jsonl [default: profile]
    #[arg(long)]
    source: Option<SourceKind>,

    /// A file laid out like creditcard.csv, plain or gzip, - for standard input; Class is never sent
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,

    /// A file with one record per line, sent byte for byte, plain or gzip, - for standard input
    #[arg(long, value_name = "FILE")]
    jsonl: Option<PathBuf>,

    /// The model bundle whose reference.json holds the profile to draw from
    #[arg(long, value_name = "DIR", default_value = "models/fraud")]
    model: PathBuf,

    /// Share of fraud among drawn transactions, 0 to 1 [default: the profile's]
    #[arg(long, value_name = "SHARE", value_parser = parse_share)]
    fraud_share: Option<f64>,

    /// How a transaction is written
    #[arg(long, value_enum, default_value_t = Format::Object)]
    format: Format,

    /// What event_time says for a CSV file
    #[arg(long, value_enum, default_value_t = EventTime::Send)]
    event_time: EventTime,

    /// Makes a run repeatable: same seed, same transactions, ids and keys [default: a new one each time, logged]
    #[arg(long)]
    seed: Option<u64>,

    /// No progress, only warnings and the closing line
    #[arg(long, short)]
    pub quiet: bool,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// A rate that any broker and worker bears, so that a first try is not a stress test.
const DEFAULT_RATE: u64 = 1_000;

/// Where transactions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    /// Drawn from the profile of a model bundle: look like the training data, never end
    Profile,
    /// The rows of --csv
    Csv,
    /// The lines of --jsonl
    Jsonl,
}

/// Why arguments do not make a job.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentsError {
    /// Flags that contradict each other or miss one another.
    #[error("{0}")]
    Contradiction(String),
    /// A librdkafka property.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The file that transactions come from.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The bundle whose profile was to be drawn from.
    #[error("cannot draw transactions from model {}: {source}; give --model DIR with a reference.json that has a profile, or --csv FILE", model.display())]
    Profile {
        /// The bundle.
        model: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ArgumentsError {
    /// The process exit code this error ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            ArgumentsError::Contradiction(_) => exit_code::USAGE,
            ArgumentsError::Settings(error) => error.exit_code(),
            ArgumentsError::Source(_) | ArgumentsError::Profile { .. } => exit_code::CONFIGURATION,
        }
    }
}

impl Arguments {
    /// Checks that the flags fit together, opens the source, and makes the job. Connects to nothing yet.
    ///
    /// # Errors
    /// [`ArgumentsError`], which tells what to change.
    pub fn job(self) -> Result<Job, ArgumentsError> {
        self.kafka.check()?;
        let seed = self.seed.unwrap_or_else(rand::random);
        if self.seed.is_none() {
            tracing::info!("--seed {seed} repeats this run");
        }
        let source = self.open_source(seed)?;
        let mut job = Job::new(&self.kafka, self.topic, source).rate(self.rate).seed(seed);
        job.count = self.count;
        job.duration = self.duration;
        Ok(job)
    }

    fn open_source(&self, seed: u64) -> Result<Box<dyn Source>, ArgumentsError> {
        let contradiction = |text: &str| Err(ArgumentsError::Contradiction(text.to_owned()));
        let kind = match (self.source, &self.csv, &self.jsonl) {
            (_, Some(_), Some(_)) => return contradiction("--csv and --jsonl exclude each other: give one"),
            (Some(SourceKind::Profile), Some(_), _) | (Some(SourceKind::Profile), _, Some(_)) => {
                return contradiction("--source profile reads no file: leave out --csv or --jsonl, or --source");
            }
            (Some(SourceKind::Csv), None, _) => return contradiction("--source csv needs --csv FILE"),
            (Some(SourceKind::Jsonl), _, None) => return contradiction("--source jsonl needs --jsonl FILE"),
            (Some(kind), _, _) => kind,
            (None, Some(_), None) => SourceKind::Csv,
            (None, None, Some(_)) => SourceKind::Jsonl,
            (None, None, None) => SourceKind::Profile,
        };
        if self.fraud_share.is_some() && kind != SourceKind::Profile {
            return contradiction("--fraud-share goes with --source profile only: a file has the fraud it has");
        }
        if self.event_time == EventTime::File && (kind != SourceKind::Csv || self.format == Format::Split) {
            return contradiction(
                "--event-time file needs --csv FILE and --format object: the split form has no event time",
            );
        }
        match (kind, &self.csv, &self.jsonl) {
            (SourceKind::Csv, Some(path), _) => Ok(Box::new(CsvSource::open(path, self.format, self.event_time)?)),
            (SourceKind::Jsonl, _, Some(path)) => Ok(Box::new(JsonLinesSource::open(path)?)),
            _ => self.open_profile(seed),
        }
    }

    fn open_profile(&self, seed: u64) -> Result<Box<dyn Source>, ArgumentsError> {
        let refused = |source| ArgumentsError::Profile { model: self.model.clone(), source };
        let path = self.model.join("reference.json");
        let reference = Reference::read(&path).map_err(|error: ReferenceError| refused(Box::new(error)))?;
        let source = ProfileSource::new(&reference, self.fraud_share, self.format, seed);
        Ok(Box::new(source.map_err(|error| refused(Box::new(error)))?))
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a share from 0 to 1".to_owned())
}
