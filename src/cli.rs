//! The command line, declared once. Each command's arguments live with the command.

use clap::{Parser, Subcommand};
use fraud_settings::LogFormat;

use crate::commands::{archive, audit, broker, check, demo, run, score, verify};

/// Scores card transactions for fraud where they flow: in Kafka.
#[derive(Debug, Parser)]
#[command(name = "fraud-scorer", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    pub log_format: LogFormat,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The worker: join the consumer group and score until SIGTERM or SIGINT
    #[command(args_override_self = true)]
    Run(run::Arguments),
    /// Everything in one process on an embedded broker: topics, producer, worker; prints a closing table
    #[command(args_override_self = true)]
    Demo(demo::Arguments),
    /// Only the embedded development broker; prints its bootstrap address
    #[command(args_override_self = true)]
    Broker(broker::Arguments),
    /// Write verdicts with their transactions' features to Parquet files in a folder or on S3
    #[command(args_override_self = true)]
    Archive(archive::Arguments),
    /// Score a file of JSON lines, in order
    #[command(args_override_self = true)]
    Score(score::Arguments),
    /// Doctor: bundle, ONNX Runtime, broker, topics and settings, one line each; exit 1 on any failure
    #[command(args_override_self = true)]
    Check(check::Arguments),
    /// Verify the topic of the audit: that no event is missing, changed or doubled; exit 1 where one is
    #[command(args_override_self = true)]
    Audit(audit::Arguments),
    /// What run and check start to verify a bundle
    #[command(args_override_self = true, hide = true)]
    Verify(verify::Arguments),
}
