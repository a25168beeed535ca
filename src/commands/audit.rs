//! `fraud-scorer audit verify`: reads the topic of the audit to its end and says what is wrong with its chains. One line per
//! chain; exit 1 where an event is missing, changed or doubled.

use std::time::Duration;

use clap::ValueEnum;
use fraud_settings::KafkaArguments;

use super::Failure;
use super::check::print;
use crate::audit::verify::{Report, Verifier};
use crate::kafka::client;
use crate::kafka::look::Look;
use crate::kafka::startup::{Inquiry, StartupError};
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// How long one question to the broker may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long reading a partition may take: millions of events.
const READING: Duration = Duration::from_secs(10 * 60);

/// The group of the client that reads. It is never joined; a consumer needs a name.
const GROUP: &str = "fraud-scorer-audit";

/// What is to be done with the audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Verify the chains of events
    Verify,
}

/// Arguments of `audit`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// What to do
    #[arg(value_enum)]
    what: What,

    #[command(flatten)]
    kafka: KafkaArguments,

    /// Topic of the audit, as `run` has it
    #[arg(long, value_name = "TOPIC")]
    audit_topic: String,
}

/// Verifies.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let What::Verify = arguments.what;
    let (kafka, tokens) = super::kafka_client(&arguments.kafka)?;
    if !super::await_token(&tokens, &Readiness::default(), &Shutdown::default())? {
        return Ok(());
    }
    let topic = &arguments.audit_topic;
    let inquiry = Inquiry::new(&kafka).map_err(Failure::configuration)?;
    let partitions = match inquiry.partitions(topic, TIMEOUT) {
        Ok(Some(partitions)) => partitions,
        Ok(None) => {
            let (topic, brokers) = (topic.clone(), arguments.kafka.brokers().to_owned());
            return Err(Failure::configuration(StartupError::MissingTopic { topic, brokers }));
        }
        Err(StartupError::Unanswered(error)) => {
            let reason = format!("{error}: {}", inquiry.last_error());
            return Err(Failure::at_run_time(anyhow::anyhow!(
                "{} does not answer: {reason}",
                arguments.kafka.brokers()
            )));
        }
        Err(error) => return Err(Failure::configuration(error)),
    };
    let mut config = client::consumer_config(&kafka, GROUP, 0, 1);
    // What was aborted was not written by a worker.
    config.set("isolation.level", "read_committed");
    let look = Look::new(&config).map_err(|error| Failure::configuration(StartupError::Client(error)))?;
    let mut verifier = Verifier::default();
    for partition in 0..partitions {
        let (start, end) = look.bounds(topic, partition, TIMEOUT)?;
        if start > 0 {
            print(format_args!(
                "note  partition {partition}: its log starts at offset {start}; what stood before cannot be verified"
            ));
        }
        verifier.begin(partition, start);
        if start < end {
            look.read(topic, partition, start, READING, |seen| {
                let is_within = seen.offset < end;
                if is_within {
                    verifier.look(partition, seen.offset, &seen.value);
                }
                is_within && seen.offset + 1 < end
            })?;
        }
        verifier.end(partition, end);
    }
    conclude(&verifier.finish(), topic)
}

/// For a terminal, whatever stands on the topic.
fn shown(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// Prints what was found.
fn conclude(report: &Report, topic: &str) -> Result<(), Failure> {
    for fault in &report.listed {
        print(format_args!("FAIL  {}", shown(fault)));
    }
    if report.faults > report.listed.len() {
        print(format_args!("FAIL  and {} more", report.faults - report.listed.len()));
    }
    for chain in &report.chains {
        let sound = if chain.faults == 0 { "ok   " } else { "FAIL " };
        let note = chain.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
        let ((first, from), (last, to)) = (&chain.first, &chain.last);
        let line = format!(
            "{} chain {}: {} events, sequence {first} ({from}) to {last} ({to}){note}",
            chain.instance, chain.chain, chain.events
        );
        print(format_args!("{sound} {}", shown(&line)));
    }
    let (records, chains, faults) = (report.records, report.chains.len(), report.faults);
    if faults > 0 {
        let message = format!("{topic} is not whole: {faults} faults in {records} records of {chains} chains");
        return Err(Failure::at_run_time(anyhow::anyhow!(message)));
    }
    print(format_args!("ok    {topic}: {records} records of {chains} chains, nothing is missing, changed or doubled"));
    Ok(())
}
