//! `make bench`: the whole worker against references and other contenders, on a real broker.
//!
//! ```text
//!  options ─► broker ─► load the topic once ─► round 1: each contender in turn ─► round 2 … ─► tables, JSON, charts
//!                                                       │
//!              contender (command and contract) ─► process group ─► measured from outside: end offsets, /proc
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | `options` | the command line |
//! | `broker`, `topics`, `workload` | the broker, its topics, models and records |
//! | `contender`, `reference` | what is measured: the contract, and the yardsticks that keep it |
//! | `reaper`, `processes`, `measure` | how: process groups, /proc, one run over the loaded topic |
//! | `throughput`, `latency`, `scaling`, `peers`, `http`, `soak`, `swap`, `shadow`, `statistics`, `profile`, `ab` | one file per command |
//! | `report`, `interval`, `chart`, `flame`, `machine` | what comes out |
//!
//! Machines are noisy: a claim is a ratio of two contenders of the same round, never a figure of its own. The method,
//! and the contract for contenders, are in benches/README.md.
#![allow(clippy::unwrap_used, missing_docs)]

mod ab;
mod broker;
mod capacity;
mod chart;
mod contender;
mod flame;
mod http;
mod interval;
mod latency;
mod machine;
mod measure;
mod options;
mod peers;
mod processes;
mod profile;
mod reaper;
mod reference;
mod report;
mod scaling;
mod shadow;
mod soak;
mod statistics;
mod swap;
mod throughput;
mod topics;
mod workload;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use measure::Bench;
use options::{Command, CommandLine, Options};

/// The checkout.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn main() -> ExitCode {
    match CommandLine::parse().command {
        Command::Reference { name } => reference::main(&name),
        Command::All(options) => {
            let bench = loaded(options);
            throughput::run(&bench);
            latency::run(&bench);
            scaling::run(&bench);
        }
        Command::Throughput(options) => throughput::run(&loaded(options)),
        Command::Latency(options) => latency::run(&Bench::start(options, 0)),
        Command::Scaling(options) => scaling::run(&loaded(options)),
        Command::Peers(options) => return code(peers(options)),
        Command::Http(options) => return code(http::run(&Bench::start(options, 0))),
        Command::Soak(options) => return code(soak::run(&Bench::start(options, 0))),
        Command::Swap(options) => return code(swap::run(&Bench::start(options, 0))),
        Command::Shadow(options) => shadow::run(&loaded(options)),
        Command::Statistics(options) => statistics::run(&loaded(options)),
        Command::Profile(options) => profile::run(&loaded(options)),
        Command::Ab(arguments) => return code(ab::run(&arguments)),
        Command::Smoke(options) => return code(smoke(options)),
    }
    ExitCode::SUCCESS
}

/// Whoever does the same job: over Kafka, and over HTTP.
fn peers(options: Options) -> bool {
    let bench = loaded(options);
    // --only may name a contender of one list alone: the other's results stay as they are.
    let streamed = !peers::is_wanted(&bench.options) || peers::run(&bench);
    let asked = !http::is_wanted(&bench.options) || http::run(&bench);
    streamed && asked
}

fn loaded(options: Options) -> Bench {
    let records = options.records;
    Bench::start(options, records)
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything once and briefly; what it finds is thrown away.
fn smoke(options: Options) -> bool {
    let results = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("smoke");
    let options = Options {
        rounds: 1,
        records: 600_000,
        seconds: 1.0,
        rates: vec![2_000],
        latency_seconds: 1.0,
        duration: std::time::Duration::from_secs(8),
        // So short a run says nothing about growth.
        growth: 1000.0,
        swaps: 12,
        http_seconds: 1.0,
        http_rates: vec![100],
        // Of the peers none: they would have to be built first.
        only: Some("fraud-scorer".into()),
        results,
        ..options
    };
    let bench = loaded(options);
    throughput::run(&bench);
    latency::run(&bench);
    scaling::run(&bench);
    shadow::run(&bench);
    ab::compare(Some(&bench), &ab::Arguments::smoke(bench.options.clone()));
    let asked = http::run(&bench);
    let swapped = swap::run(&bench);
    soak::run(&bench) && swapped && asked
}
