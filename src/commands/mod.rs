//! One module per command of the command line: its arguments, and what it does with the library. `model` and `otlp` are
//! groups of arguments.

#[cfg_attr(not(feature = "archive"), path = "no_archive.rs")]
pub mod archive;
pub mod audit;
pub mod broker;
pub mod check;
pub mod demo;
pub mod http;
pub mod model;
pub mod otlp;
pub mod run;
pub mod score;
pub mod verify;

use std::io::Write;
use std::process::ExitCode;

use fraud_settings::{KafkaArguments, check_properties, exit_code};
use rdkafka::ClientConfig;

use crate::cli::{Cli, Command};
use crate::kafka::oauth;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// Runs the command; the exit code is decided here and nowhere else.
pub fn execute(cli: Cli) -> ExitCode {
    let level =
        if matches!(cli.command, Command::Demo(_) | Command::Check(_) | Command::Audit(_)) { "warn" } else { "info" };
    fraud_settings::initialise_logging(cli.log_format, level);
    let outcome = match cli.command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Demo(arguments) => demo::execute(arguments),
        Command::Broker(arguments) => broker::execute(arguments),
        Command::Archive(arguments) => archive::execute(arguments),
        Command::Score(arguments) => score::execute(arguments),
        Command::Check(arguments) => check::execute(arguments),
        Command::Audit(arguments) => audit::execute(arguments),
        Command::Verify(arguments) => verify::execute(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::from(exit_code::DONE),
        Err(failure) => {
            // A log line for those who read logs, the same sentence for those who read a terminal.
            tell(&format!("error: {:#}", failure.reason));
            ExitCode::from(failure.code)
        }
    }
}

/// The checked properties of the clients, and how these get tokens where they log in by such.
fn kafka_client(kafka: &KafkaArguments) -> Result<(ClientConfig, Option<oauth::Method>), Failure> {
    let mut client = kafka.client_config();
    let tokens = oauth::Method::take(&mut client).map_err(|reason| Failure::configuration(anyhow::anyhow!(reason)))?;
    check_properties(&client).map_err(Failure::configuration)?;
    Ok((client, tokens))
}

/// Where clients log in by tokens, waits for the first one. `false`: asked to stop.
fn await_token(tokens: &Option<oauth::Method>, readiness: &Readiness, shutdown: &Shutdown) -> Result<bool, Failure> {
    let Some(tokens) = tokens.clone() else { return Ok(true) };
    oauth::start(tokens, readiness, shutdown).map_err(|reason| Failure::configuration(anyhow::anyhow!(reason)))
}

/// A line for the user on standard error; one who is gone is no reason to panic.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Why a command failed, and the process's exit code for it.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    reason: anyhow::Error,
}

impl Failure {
    /// The configuration is wrong: starting again will not help.
    pub fn configuration(reason: impl Into<anyhow::Error>) -> Self {
        Failure { code: exit_code::CONFIGURATION, reason: reason.into() }
    }

    /// Something failed at run time.
    pub fn at_run_time(reason: impl Into<anyhow::Error>) -> Self {
        Failure { code: exit_code::FAILED, reason: reason.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(reason: E) -> Self {
        Failure::at_run_time(reason)
    }
}
