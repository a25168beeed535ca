//! `fraud-scorer broker`: only the embedded development broker.

use anyhow::Context;

use super::Failure;
use crate::kafka::embedded::EmbeddedBroker;
use crate::signals::Signals;

/// Arguments of `broker`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Topics to create
    #[arg(long = "topic", value_name = "TOPIC", default_values = ["transactions", "verdicts", "transactions.dlq"])]
    topics: Vec<String>,

    /// Partitions of each
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
}

/// Runs the broker until a signal ends it.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let topics: Vec<&str> = arguments.topics.iter().map(String::as_str).collect();
    let broker = EmbeddedBroker::start(&topics, arguments.partitions).context("cannot start the embedded broker")?;
    println!("{}", broker.address());
    eprintln!(
        "embedded broker on {} with topics {} of {} partitions; in memory, about 5 MB each, oldest forgotten. Ctrl-C ends it",
        broker.address(),
        topics.join(", "),
        arguments.partitions
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        Signals::listen()?.next().await;
        Ok(())
    })
}
