//! The log: one line per event on standard error, so that standard output stays free for results.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    #[default]
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Starts logging to standard error. `default_level` (`info`, or directives such as `info,librdkafka=warn`) holds
/// where the environment variable `RUST_LOG` is not set. Colours appear on a terminal only. A second call changes
/// nothing: whoever embeds both binaries' code in one process decides first.
pub fn initialise_logging(format: LogFormat, default_level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default_level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Whoever read our log may be gone (`… 2>&1 | head`): that must not panic the thread that logs.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    let outcome = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "logging was already set up");
    }
}
