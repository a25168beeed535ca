//! The command line, and the one boundary where it becomes a validated [`Job`].

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use fraud_settings::{KafkaArguments, LogFormat, SettingsError, exit_code, parse_duration};
use fraud_storage::Location;
use fraud_wire::reference::{Reference, ReferenceError};

use crate::archive::{ArchiveFormat, ArchiveSettings};
use crate::event_time::parse_moment;
use crate::job::Job;
use crate::labels::MOST_WAITING;
use crate::scenario::{self, Effect, Poison, Scenario, ScenarioKind, Span};
use crate::source::{
    CsvSource, Drift, DriftStart, EventTime, Format, JsonLinesSource, ProfileSource, Source, SourceError,
};

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

    /// A file laid out like creditcard.csv, plain or gzip, - for standard input; Class is sent as a label only
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

    /// What event_time says: send (when the record is due), file (the CSV's Time), or a clock as fast as 1440x (a day a minute)
    #[arg(long, value_name = "send|file|SPEEDx", default_value = "send", value_parser = EventTime::parse)]
    event_time: EventTime,

    /// Where event time starts with a SPEEDx: RFC 3339 or epoch milliseconds [default: now]
    #[arg(long, value_name = "MOMENT", value_parser = parse_moment, allow_negative_numbers = true)]
    event_start: Option<i64>,

    /// Send each transaction's label, fraud or not, to this topic, which must exist
    #[arg(long, value_name = "TOPIC")]
    label_topic: Option<String>,

    /// How long after its transaction a label becomes known, in event time (0s, 12h, 7d)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    label_delay: Duration,

    /// Let the profile move over event time: 0 not at all, 1 so far that its own model misses most fraud
    #[arg(long, value_name = "STRENGTH", default_value_t = 0.0, value_parser = parse_strength)]
    drift: f64,

    /// Event time in which the drift reaches its strength; then it stays
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = parse_duration)]
    drift_over: Duration,

    /// When the drift starts: so long after the first transaction (0s, 2d), or a moment as in --event-start
    #[arg(long, value_name = "DURATION|MOMENT", default_value = "0s", value_parser = parse_drift_start)]
    drift_start: DriftStart,

    /// Which way the drift goes; runs with the same one drift the same way, whatever their --seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    drift_seed: u64,

    /// Write the rows, with labels, as files by day of event time: to a folder, or to s3://BUCKET/PREFIX by the AWS_… variables
    #[arg(long, value_name = "FOLDER|S3_URL", value_parser = Location::parse)]
    archive: Option<Location>,

    /// How the archive's files are written
    #[arg(long, value_enum, default_value_t = ArchiveFormat::Parquet)]
    archive_format: ArchiveFormat,

    /// Fill the archive as fast as possible and send nothing: no broker is asked
    #[arg(long)]
    archive_only: bool,

    /// Let something go wrong on purpose: an incident for monitoring to find
    #[arg(long, value_enum, default_value_t = ScenarioKind::Normal)]
    scenario: ScenarioKind,

    /// When the scenario starts, after the first record is due (0s, 30s, 5m)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    scenario_after: Duration,

    /// How long it lasts; then all is as before [default: to the run's end]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    scenario_for: Option<Duration>,

    /// How bad it is: a share from 0 to 1 of fraud or poison, or standard deviations of a shift [default: 0.05, or 1]
    #[arg(long, value_name = "STRENGTH", value_parser = parse_scenario_strength)]
    scenario_strength: Option<f64>,

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
        let kind = self.source_kind()?;
        self.check_event_time(kind)?;
        self.check_labels(kind)?;
        self.check_archive(kind)?;
        self.check_scenario(kind)?;
        let source = self.open_source(kind, seed)?;
        let scenario = self.open_scenario(source.names(), seed)?;
        let mut job = Job::new(&self.kafka, &self.topic, source).rate(self.rate).seed(seed);
        job.count = self.count;
        job.duration = self.duration;
        if let EventTime::Speed(speed) = self.event_time {
            job = job.event_time(speed, self.event_start);
        }
        if let Some(topic) = &self.label_topic {
            job = job.labels(topic, self.label_delay);
            self.check_waiting_labels(job.limit())?;
        }
        if let Some(location) = &self.archive {
            job = job.archive(ArchiveSettings {
                location: location.clone(),
                format: self.archive_format,
                run: self.run_name(seed),
                label_delay: self.label_delay,
            });
        }
        if self.archive_only {
            job = job.archive_only();
        }
        if let Some(scenario) = scenario {
            job = job.scenario(scenario);
        }
        Ok(job)
    }

    /// What names the run in its archive: the seed decides what is drawn, and a file what is read.
    fn run_name(&self, seed: u64) -> String {
        let Some(csv) = &self.csv else { return seed.to_string() };
        let stem = csv.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let stem = stem.split('.').next().filter(|stem| !stem.is_empty() && *stem != "-").unwrap_or("stdin");
        stem.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' }).collect()
    }

    /// Whether labels are asked for at all.
    fn wants_labels(&self) -> bool {
        self.label_topic.is_some() || self.archive.is_some()
    }

    fn source_kind(&self) -> Result<SourceKind, ArgumentsError> {
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
        if self.drift > 0.0 && kind != SourceKind::Profile {
            return contradiction("--drift goes with --source profile only: a file's rows are what they are");
        }
        Ok(kind)
    }

    fn check_event_time(&self, kind: SourceKind) -> Result<(), ArgumentsError> {
        if self.event_time == EventTime::File && (kind != SourceKind::Csv || self.format == Format::Split) {
            return contradiction(
                "--event-time file needs --csv FILE and --format object: the split form has no event time",
            );
        }
        let is_own_clock = matches!(self.event_time, EventTime::Speed(_));
        if is_own_clock && (kind == SourceKind::Jsonl || self.format == Format::Split) {
            return contradiction(
                "--event-time with a speed needs --format object and --source profile or csv: lines are sent as they \
                 are, and the split form has no event time",
            );
        }
        if self.event_start.is_some() && !is_own_clock {
            return contradiction("--event-start needs --event-time with a speed, as in --event-time 1x");
        }
        Ok(())
    }

    fn check_labels(&self, kind: SourceKind) -> Result<(), ArgumentsError> {
        if self.label_topic.as_ref() == Some(&self.topic) {
            return contradiction("--label-topic must be another topic than --topic");
        }
        if self.wants_labels() && self.format == Format::Split {
            return contradiction(
                "--label-topic and --archive need --format object: the split form has no id to name a row by",
            );
        }
        if self.wants_labels() && kind == SourceKind::Jsonl {
            return contradiction("--label-topic and --archive need --source profile or csv: lines have no label");
        }
        if !self.label_delay.is_zero() && !self.wants_labels() {
            return contradiction("--label-delay needs --label-topic or --archive");
        }
        Ok(())
    }

    fn check_archive(&self, kind: SourceKind) -> Result<(), ArgumentsError> {
        if !self.archive_only {
            return Ok(());
        }
        if self.archive.is_none() {
            return contradiction("--archive-only needs --archive");
        }
        if self.label_topic.is_some() {
            return contradiction("--archive-only sends nothing: leave out --label-topic");
        }
        if self.rate == 0 && self.event_time != EventTime::File {
            return contradiction(
                "--archive-only needs --rate above 0: rows get their event time from the schedule, not from a clock",
            );
        }
        if kind == SourceKind::Profile && self.count.is_none() && self.duration.is_none() {
            return contradiction("--archive-only needs --count or --duration: a profile never ends");
        }
        Ok(())
    }

    fn check_scenario(&self, kind: SourceKind) -> Result<(), ArgumentsError> {
        let has_span = !self.scenario_after.is_zero() || self.scenario_for.is_some();
        match self.scenario {
            ScenarioKind::Normal if has_span || self.scenario_strength.is_some() => {
                return contradiction(
                    "--scenario-after, --scenario-for and --scenario-strength need a --scenario other than normal",
                );
            }
            ScenarioKind::Normal => return Ok(()),
            _ if self.archive_only => {
                return contradiction("--scenario changes what is sent, and --archive-only sends nothing: give one");
            }
            ScenarioKind::FraudSpike | ScenarioKind::DistributionShift if kind != SourceKind::Profile => {
                return contradiction(
                    "--scenario fraud-spike and distribution-shift go with --source profile only: a file's rows are \
                     what they are",
                );
            }
            ScenarioKind::FraudSpike | ScenarioKind::DistributionShift if self.drift > 0.0 => {
                return contradiction("--scenario fraud-spike and distribution-shift exclude --drift: give one");
            }
            ScenarioKind::Poison if kind == SourceKind::Jsonl => {
                return contradiction(
                    "--scenario poison goes with --source profile or csv: lines are sent byte for byte as they are",
                );
            }
            ScenarioKind::Stall => self.check_stall()?,
            ScenarioKind::FraudSpike | ScenarioKind::DistributionShift | ScenarioKind::Poison => {}
        }
        if self.scenario != ScenarioKind::DistributionShift && self.scenario_strength.is_some_and(|share| share > 1.0) {
            return contradiction(
                "--scenario-strength is a share from 0 to 1, except with --scenario distribution-shift",
            );
        }
        Ok(())
    }

    fn check_stall(&self) -> Result<(), ArgumentsError> {
        if self.scenario_strength.is_some() {
            return contradiction("--scenario stall has no strength: leave out --scenario-strength");
        }
        if self.rate == 0 {
            return contradiction("--scenario stall needs --rate above 0: without a schedule nothing is ever due");
        }
        let Some(length) = self.scenario_for else {
            return contradiction("--scenario stall needs --scenario-for: a run that never sends again never ends");
        };
        if self.duration.is_some_and(|duration| self.scenario_after.saturating_add(length) >= duration) {
            return contradiction(
                "--scenario stall must end before --duration does: what is held back could not be sent any more",
            );
        }
        Ok(())
    }

    /// Refuses what would fill the queue of waiting labels, hours before it is full.
    fn check_waiting_labels(&self, limit: Option<u64>) -> Result<(), ArgumentsError> {
        let speed = match self.event_time {
            EventTime::Send => 1.0,
            EventTime::Speed(speed) => speed,
            EventTime::File => return Ok(()),
        };
        let delayed = (self.label_delay.as_secs_f64() / speed * self.rate as f64) as u64;
        // Labels that become known only after the run do not wait.
        let waiting = limit.map_or(delayed, |limit| delayed.min(limit.saturating_sub(delayed)));
        if waiting > MOST_WAITING {
            return Err(ArgumentsError::Contradiction(format!(
                "{waiting} rows would wait for their label at once, and at most {MOST_WAITING} may: shorten \
                 --label-delay, lower --rate, or let event time run faster (--event-time)"
            )));
        }
        Ok(())
    }

    fn open_source(&self, kind: SourceKind, seed: u64) -> Result<Box<dyn Source>, ArgumentsError> {
        match (kind, &self.csv, &self.jsonl) {
            (SourceKind::Csv, Some(path), _) => {
                let source = CsvSource::open(path, self.format, self.event_time)?;
                Ok(Box::new(if self.wants_labels() { source.labelled()? } else { source }))
            }
            (SourceKind::Jsonl, _, Some(path)) => Ok(Box::new(JsonLinesSource::open(path)?)),
            _ => self.open_profile(self.reference()?, self.fraud_share, seed),
        }
    }

    /// What goes wrong in a run whose rows have these features, if anything does.
    fn open_scenario(&self, names: &[String], seed: u64) -> Result<Option<Scenario>, ArgumentsError> {
        let strength = self.scenario_strength.unwrap_or(self.scenario.default_strength());
        let another = scenario::another_seed(seed);
        let effect = match self.scenario {
            ScenarioKind::Normal => return Ok(None),
            ScenarioKind::FraudSpike => {
                Effect::Another(self.open_profile(self.reference()?, Some(strength), another)?)
            }
            ScenarioKind::DistributionShift => {
                let mut reference = self.reference()?;
                scenario::shift(&mut reference, strength);
                Effect::Another(self.open_profile(reference, self.fraud_share, another)?)
            }
            ScenarioKind::Poison => Effect::Poison(Box::new(Poison::new(strength, seed, names, self.format))),
            ScenarioKind::Stall => Effect::Stall,
        };
        let span = Span { start: self.scenario_after, length: self.scenario_for };
        Ok(Some(Scenario { span, effect }))
    }

    /// What the bundle says about its training data.
    fn reference(&self) -> Result<Reference, ArgumentsError> {
        let path = self.model.join("reference.json");
        Reference::read(&path).map_err(|source: ReferenceError| ArgumentsError::Profile {
            model: self.model.clone(),
            source: source.into(),
        })
    }

    fn open_profile(
        &self,
        reference: Reference,
        fraud_share: Option<f64>,
        seed: u64,
    ) -> Result<Box<dyn Source>, ArgumentsError> {
        let refused = |source| ArgumentsError::Profile { model: self.model.clone(), source };
        let drift =
            Drift { strength: self.drift, over: self.drift_over, start: self.drift_start, seed: self.drift_seed };
        let drift = (self.drift > 0.0).then_some(drift);
        let source = ProfileSource::drifting(&reference, fraud_share, self.format, seed, drift);
        Ok(Box::new(source.map_err(|error| refused(Box::new(error)))?))
    }
}

fn contradiction<T>(text: &str) -> Result<T, ArgumentsError> {
    Err(ArgumentsError::Contradiction(text.to_owned()))
}

fn parse_strength(text: &str) -> Result<f64, String> {
    parse_share(text).map_err(|_| "expected a strength from 0 to 1".to_owned())
}

fn parse_scenario_strength(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|strength| (0.0..=10.0).contains(strength))
        .ok_or_else(|| "expected a number from 0 to 10".to_owned())
}

fn parse_drift_start(text: &str) -> Result<DriftStart, String> {
    parse_duration(text).map(DriftStart::After).or_else(|_| parse_moment(text).map(DriftStart::At)).map_err(|_| {
        "expected a duration such as 0s or 2d, RFC 3339 such as 2026-01-31T00:00:00Z, or epoch milliseconds".to_owned()
    })
}

fn parse_share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a share from 0 to 1".to_owned())
}
