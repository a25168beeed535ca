//! `fraud-scorer archive`: verdicts with their inputs' features as Parquet files. Raw arguments become
//! [`ArchiveSettings`] here.

pub mod erase;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow};

use fraud_settings::{KafkaArguments, parse_duration};
use fraud_storage::Location;

use super::Failure;
use super::http::HttpArguments;
use super::run::end_in_time;
use crate::archive::archiver::{Archiver, Ended};
use crate::archive::columns::Layout;
use crate::archive::cut::CutPolicy;
use crate::archive::store::{Refused, Store};
use crate::archive::{ArchiveError, ArchiveSettings, telemetry};
use crate::audit::Audit;
use crate::http;
use crate::kafka::startup::{Inquiry, StartupError};
use crate::log_events::archive as events;
use crate::model::manifest::Manifest;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::telemetry::readiness::Readiness;

/// Where the metrics are unless told otherwise: beside the worker's.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);

/// Most hours of event time that a partition keeps files for: two days, so that late rows seldom end a cut.
const FILES: usize = 48;

/// Beyond the drain: how long leaving the group may take before the process ends regardless.
const LEAVE_GRACE: Duration = Duration::from_secs(10);

/// Pause between questions to a destination that does not answer.
const PROBE_PAUSE: Duration = Duration::from_secs(2);

/// What else there is to do with an archive.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Take the rows of some transactions out of all files, for those who ask to be forgotten
    Erase(erase::Arguments),
}

/// Arguments of `archive`.
#[derive(Clone, Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    /// Instead of archiving.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArguments,

    /// Where files go: a folder, or s3://BUCKET/PREFIX with endpoint and credentials from AWS_ENDPOINT_URL, AWS_REGION,
    /// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    #[arg(long, value_name = "LOCATION", value_parser = Location::parse, required = true)]
    pub to: Option<Location>,

    /// Consumer group; members of one group share the partitions. Each group writes all verdicts: it needs a location of
    /// its own
    #[arg(long, value_name = "GROUP", default_value = "fraud-scorer-archive")]
    pub archive_group: String,

    /// Topic of the verdicts
    #[arg(long, value_name = "TOPIC", default_value = "verdicts")]
    pub output_topic: String,

    /// Topic of the transactions that the verdicts name
    #[arg(long, value_name = "TOPIC", default_value = "transactions")]
    pub input_topic: String,

    /// Directory of a model bundle: its manifest names the features, which are the columns
    #[arg(long, value_name = "DIR", default_value = "models/fraud")]
    pub model: PathBuf,

    /// Verdicts of a partition that go into files together, at most
    #[arg(long, value_name = "ROWS", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub file_rows: u64,

    /// Time that the verdicts of such files span, at most; and how long the last ones wait for more
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_file_every)]
    pub file_every: Duration,

    /// Folder on a local disk where files are gathered [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub spool: Option<PathBuf>,

    /// Stop when everything that was there at the start is archived
    #[arg(long)]
    pub until_caught_up: bool,

    /// How long a stop may wait for the last files
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Largest transaction that is parsed: no less than the workers' own
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub max_message_bytes: u32,

    /// The HTTP edge: /metrics, /livez and /readyz.
    #[command(flatten)]
    pub http: HttpArguments,
}

fn parse_file_every(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(7 * 24 * 3600)).contains(&time) {
        Ok(time)
    } else {
        Err("expected 100ms to 168h".into())
    }
}

impl Arguments {
    /// The validated settings, and the columns of the files.
    fn settings(&self) -> Result<(ArchiveSettings, Layout), Failure> {
        let (client, tokens) = super::kafka_client(&self.kafka)?;
        if self.input_topic == self.output_topic {
            let message = format!("--input-topic and --output-topic are both {}", self.input_topic);
            return Err(Failure::configuration(anyhow!("{message}: verdicts and transactions are different topics")));
        }
        let manifest = Manifest::read(&self.model.join("manifest.toml"))
            .with_context(|| format!("--model {}", self.model.display()))
            .map_err(Failure::configuration)?;
        let names: Vec<String> = manifest.features.iter().map(|feature| feature.name.clone()).collect();
        let layout = Layout::new(&names).map_err(|reason| anyhow!("--model {}: {reason}", self.model.display()));
        let layout = layout.map_err(Failure::configuration)?;
        let spool = spool(self.spool.as_ref())?;
        let settings = ArchiveSettings {
            kafka: client,
            tokens,
            group: self.archive_group.clone(),
            verdicts: self.output_topic.clone(),
            inputs: self.input_topic.clone(),
            features: manifest.features,
            max_message_bytes: self.max_message_bytes as usize,
            policy: CutPolicy { rows: self.file_rows, time: self.file_every, files: FILES },
            spool,
            drain_timeout: self.drain_timeout,
            until_caught_up: self.until_caught_up,
        };
        Ok((settings, layout))
    }
}

/// The folder of `--spool`, which takes files.
fn spool(given: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    let spool = given.cloned().unwrap_or_else(std::env::temp_dir);
    let usable = tempfile::tempfile_in(&spool).with_context(|| format!("--spool {}", spool.display()));
    usable.map(|_| spool).map_err(Failure::configuration)
}

/// Archives until a signal ends it, or until caught up.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    // The files hold what people did: not for everyone on this machine.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    if let Some(Command::Erase(arguments)) = &arguments.command {
        return erase::execute(arguments);
    }
    let to = arguments.to.clone().context("--to is missing").map_err(Failure::configuration)?;
    let (settings, layout) = arguments.settings()?;
    let metrics = telemetry::install().context("metrics recorder")?;
    let (readiness, shutdown) = (Readiness::default(), Shutdown::default());
    readiness.hold("start", "starting");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let door = arguments.http.open(DEFAULT_ADDRESS, &Audit::default(), &runtime)?;
    runtime.spawn(http::serve_metrics(door, move || metrics.render(), readiness.clone()));
    {
        let _guard = runtime.enter();
        runtime.spawn(Signals::listen()?.request(shutdown.clone()));
    }
    end_in_time(arguments.drain_timeout + LEAVE_GRACE, &shutdown);

    let store = Store::open(&to);
    let store = store.map_err(|reason| Failure::configuration(unusable(&to, &reason)))?;
    if !reach(&store, &to, &runtime, &readiness, &shutdown)? {
        events::StoppedEarly {}.log();
        return Ok(());
    }
    if !super::await_token(&settings.tokens, &readiness, &shutdown)? {
        events::StoppedEarly {}.log();
        return Ok(());
    }
    let input_partitions = match check_topics(&settings, &shutdown) {
        Ok(partitions) => partitions,
        Err(StartupError::Stopped) => {
            events::StoppedEarly {}.log();
            return Ok(());
        }
        Err(error @ (StartupError::Client(_) | StartupError::Unanswered(_))) => {
            return Err(Failure::at_run_time(error));
        }
        Err(error) => return Err(Failure::configuration(error)),
    };
    let handle = runtime.handle().clone();
    let archiver =
        Archiver::join(settings, layout, store, input_partitions, handle, readiness.clone(), shutdown.clone())?;
    readiness.clear("start");
    let outcome = archiver.run();
    // An upload that hangs is not waited for.
    runtime.shutdown_background();
    match outcome {
        Ok(Ended::Drained) => {
            events::Drained {}.log();
            Ok(())
        }
        Ok(Ended::Undrained) => {
            let message = "stopped before everything read was archived; it is read again at the next start";
            Err(Failure::at_run_time(anyhow!(message)))
        }
        Err(error @ (ArchiveError::Forbidden(_) | ArchiveError::Anew { .. })) => Err(Failure::configuration(error)),
        Err(error) => Err(Failure::at_run_time(error)),
    }
}

/// Makes sure that the destination takes files; one that does not answer is waited for. False when told to stop.
fn reach(
    store: &Store,
    location: &Location,
    runtime: &tokio::runtime::Runtime,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<bool, Failure> {
    let mut told = false;
    loop {
        match runtime.block_on(store.probe()) {
            Ok(()) => {
                readiness.clear("destination");
                return Ok(true);
            }
            Err(Refused::ForGood(reason)) => return Err(Failure::configuration(unusable(location, &reason))),
            Err(Refused::ForNow(reason)) => {
                readiness.hold("destination", reason.as_str());
                if !told {
                    events::WaitingForDestination { location, reason: &reason }.log();
                    told = true;
                }
            }
        }
        if shutdown.wait(PROBE_PAUSE) {
            return Ok(false);
        }
    }
}

fn unusable(location: &Location, reason: &str) -> anyhow::Error {
    anyhow!("cannot write to --to {location}: {reason}")
}

/// Both topics are there; gives the inputs' partitions.
fn check_topics(settings: &ArchiveSettings, shutdown: &Shutdown) -> Result<i32, StartupError> {
    let inquiry = Inquiry::new(&settings.kafka)?;
    inquiry.require(&settings.verdicts, shutdown)?;
    inquiry.require(&settings.inputs, shutdown)
}
