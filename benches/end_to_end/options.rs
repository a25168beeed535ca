//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::ab;
use crate::machine::scratch_memory;
use crate::workload::Model;

/// The measurements of fraud-scorer, on a real broker that is started and removed; see benches/README.md.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "end_to_end")]
pub struct CommandLine {
    #[command(subcommand)]
    pub command: Command,

    /// Cargo says so to every benchmark
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

/// What to measure.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Throughput, latency and scaling
    All(Options),
    /// The worker against pass-through and ONNX Runtime alone
    Throughput(Options),
    /// From send to receipt, against an echo
    Latency(Options),
    /// Threads, processes, and what the capacity model says of them
    Scaling(Options),
    /// The contenders of benches/peers/contenders.toml against the worker, and then what `http` measures
    Peers(Options),
    /// Scoring over HTTP: the services of benches/peers/http/services.toml against the worker
    Http(Options),
    /// Memory at full load
    Soak(Options),
    /// One model for another under load, again and again: verdicts, their versions, and memory
    Swap(Options),
    /// What a challenger in the shadow costs
    Shadow(Options),
    /// What librdkafka's statistics cost
    Statistics(Options),
    /// A flame graph of the worker at full load (needs perf)
    Profile(Options),
    /// One fraud-scorer program against another, per CPU-second
    Ab(ab::Arguments),
    /// A little of everything, to see that it runs; writes no results
    Smoke(Options),
    /// One of the references, as a process of its own
    #[command(hide = true)]
    Reference {
        /// Which
        name: String,
    },
}

/// How to measure it.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Every contender runs once in each
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,

    /// Records loaded into the topic
    #[arg(long, default_value_t = 6_000_000, value_parser = clap::value_parser!(u64).range(1000..))]
    pub records: u64,

    /// Longest window of a run, seconds
    #[arg(long, default_value_t = 8.0)]
    pub seconds: f64,

    /// Models
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Model::ALL)]
    pub models: Vec<Model>,

    /// Latency: records per second
    #[arg(long, value_delimiter = ',', default_values_t = [200, 2_000, 20_000])]
    pub rates: Vec<u64>,

    /// Latency: how long each run is measured, seconds
    #[arg(long, default_value_t = 8.0)]
    pub latency_seconds: f64,

    /// Scaling: most threads and most processes [default: as many as there are cores, at most one per partition]
    #[arg(long)]
    pub up_to: Option<usize>,

    /// Peers and http: only those whose name contains this
    #[arg(long)]
    pub only: Option<String>,

    /// Peers: the list of contenders
    #[arg(long, default_value = "benches/peers/contenders.toml")]
    pub peers: PathBuf,

    /// Http: the list of services
    #[arg(long, default_value = "benches/peers/http/services.toml")]
    pub services: PathBuf,

    /// Http: how long each run is measured, seconds; those at a low rate take longer
    #[arg(long, default_value_t = 1.0)]
    pub http_seconds: f64,

    /// Http: requests per second of the open loops
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    pub http_rates: Vec<u64>,

    /// Soak: how long
    #[arg(long, default_value = "10m", value_parser = fraud_settings::parse_duration)]
    pub duration: Duration,

    /// Swap: how often
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(4..))]
    pub swaps: u32,

    /// Swap: records per second
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub swap_rate: u64,

    /// Soak and swap: largest growth of resident memory from the first quarter to the last, percent
    #[arg(long, default_value_t = 5.0)]
    pub growth: f64,

    /// Soak: largest resident memory, MB
    #[arg(long, default_value_t = 150)]
    pub most_memory: u64,

    /// A further argument of the worker, such as --worker=--kernel=onnx; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pub worker: Vec<String>,

    /// Where the broker keeps its data while it runs [default: in memory (/dev/shm) where 10 GB of it are free, so that
    /// the disk is in no figure; else below target/]
    #[arg(long)]
    pub broker_directory: Option<PathBuf>,

    /// Where results go, from the checkout
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
}

impl Options {
    /// Where the broker keeps its data; decided once.
    pub fn broker_directory(&mut self) -> PathBuf {
        let place = || scratch_memory().unwrap_or(env!("CARGO_TARGET_TMPDIR")).into();
        self.broker_directory.get_or_insert_with(place).clone()
    }

    /// Longest window of a run.
    pub fn window(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// How long each run over HTTP is measured.
    pub fn http_window(&self) -> Duration {
        Duration::from_secs_f64(self.http_seconds)
    }
}
