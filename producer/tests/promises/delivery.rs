//! Every record is accounted for: delivered, or failed with the reason and a non-zero exit.

use std::collections::HashSet;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fraud_producer::source::JsonLinesSource;
use fraud_producer::{Job, Report, run};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::{Broker, binary, ended, file, finish, start, wait_until};

fn lines(count: usize) -> tempfile::NamedTempFile {
    file(&(0..count).map(|index| format!("{{\"index\":{index}}}\n")).collect::<String>())
}

/// A job over the lines of a file, with more librdkafka properties.
fn job(broker: &Broker, lines: &tempfile::NamedTempFile, properties: &[&str]) -> Job {
    let mut words = vec!["test".to_owned(), "--brokers".to_owned(), broker.address.clone()];
    words.extend(properties.iter().flat_map(|property| ["-X".to_owned(), (*property).to_owned()]));
    #[derive(clap::Parser)]
    struct Kafka {
        #[command(flatten)]
        kafka: fraud_settings::KafkaArguments,
    }
    let kafka = <Kafka as clap::Parser>::parse_from(words).kafka;
    Job::new(&kafka, &broker.topic, Box::new(JsonLinesSource::open(lines.path()).unwrap()))
}

fn run_job(job: Job) -> Report {
    run(job, &AtomicBool::new(false), |_| {}).unwrap()
}

#[test]
fn a_drawn_run_is_delivered_and_says_so() {
    let broker = Broker::new(4);
    let (code, output, error) = finish(broker.producer(&["--count", "500", "--rate", "0", "--seed", "1"]));
    assert_eq!((code, output), (0, broker.closing_line(500, 500, 0)), "{error}");
    assert_eq!(broker.size(), 500);
    let records = broker.read(500);
    let keys: HashSet<_> = records.iter().map(|record| uuid::Uuid::parse_str(&record.key).unwrap()).collect();
    assert_eq!(keys.len(), 500);
    for record in records {
        let value = record.json();
        assert_eq!(value["event_time"], record.timestamp);
        assert_eq!(value.as_object().unwrap().len(), 31, "id, time, V1…V28, Amount: {value}");
        assert!(value["V14"].is_number() && value["Amount"].as_f64().unwrap() >= 0.0, "{value}");
    }
}

#[test]
fn the_split_form_is_one_row_per_record() {
    let broker = Broker::new(1);
    let (code, _, error) = finish(broker.producer(&["--count", "50", "--rate", "0", "--format", "split"]));
    assert_eq!(code, 0, "{error}");
    for record in broker.read(50) {
        let value = record.json();
        assert_eq!(value["columns"].as_array().unwrap().len(), 29);
        assert_eq!(value["data"].as_array().unwrap().len(), 1);
        assert_eq!(value["data"][0].as_array().unwrap().len(), 29);
    }
}

#[test]
fn a_csv_file_is_sent_whole_and_in_order() {
    let broker = Broker::new(1);
    let rows: String = (1..=1_000).map(|row| format!("{row},{row}.50,0\n")).collect();
    let csv = file(&format!("Time,Amount,Class\n{rows}"));
    let (code, output, error) = finish(broker.producer(&["--csv", csv.path().to_str().unwrap(), "--rate", "0"]));
    assert_eq!((code, output), (0, broker.closing_line(1_000, 1_000, 0)), "{error}");
    for (index, record) in broker.read(1_000).iter().enumerate() {
        let row = index + 1;
        assert!(record.value.starts_with(&format!("{{\"transaction_id\":\"row-{row}\",")), "{}", record.value);
        assert!(record.value.ends_with(&format!(",\"Amount\":{row}.50}}")), "{}", record.value);
    }
}

#[test]
fn a_malformed_row_ends_the_run_after_delivering_the_rows_before_it() {
    let broker = Broker::new(1);
    let csv = file("V1,V2\n1,2\n3,4\n5,six\n7,8\n");
    let (code, output, error) = finish(broker.producer(&["--csv", csv.path().to_str().unwrap(), "--rate", "0"]));
    assert_eq!((code, output), (1, broker.closing_line(2, 2, 0)));
    assert!(error.contains("line 4: column V2: \"six\" is not a number"), "{error}");
    assert_eq!(broker.size(), 2);
}

#[test]
fn lines_from_standard_input_arrive_byte_for_byte() {
    let broker = Broker::new(1);
    let mut command = broker.producer(&["--jsonl", "-", "--rate", "0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{ \"a\" : 1.00 }\n\nnot json\n").unwrap();
    let (code, output, error) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, output), (0, broker.closing_line(2, 2, 0)), "{error}");
    let values: Vec<_> = broker.read(2).into_iter().map(|record| record.value).collect();
    assert_eq!(values, ["{ \"a\" : 1.00 }", "not json"]);
}

#[test]
fn a_record_too_large_is_counted_and_does_not_stop_the_others() {
    let broker = Broker::new(1);
    let jsonl = file(&format!("\"first\"\n\"{}\"\n\"last\"\n", "x".repeat(5_000)));
    let arguments = ["--jsonl", jsonl.path().to_str().unwrap(), "--rate", "0", "-X", "message.max.bytes=2000"];
    let (code, output, error) = finish(broker.producer(&arguments));
    assert_eq!((code, output), (1, broker.closing_line(3, 2, 1)));
    assert!(error.contains("5002 bytes"), "{error}");
    assert_eq!(broker.size(), 2);
}

#[test]
fn a_full_queue_is_waited_for_and_nothing_is_dropped() {
    let broker = Broker::new(2);
    let report = run_job(job(&broker, &lines(2_000), &["queue.buffering.max.messages=10", "linger.ms=0"]));
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.sent, broker.size()), (2_000, 2_000));
}

#[test]
fn what_the_broker_refuses_is_reported_as_failed() {
    let broker = Broker::new(1);
    let refusals = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 100];
    broker.mock.request_errors(RDKafkaApiKey::Produce, &refusals);
    let jsonl = lines(20);
    let arguments = ["--jsonl", jsonl.path().to_str().unwrap(), "--rate", "0", "-X", "message.timeout.ms=3000"];
    let (code, output, error) = finish(broker.producer(&arguments));
    assert_eq!((code, output), (1, broker.closing_line(20, 0, 20)), "{error}");
    assert!(error.contains(&broker.topic), "the first error names the topic: {error}");
}

#[test]
fn a_broker_that_dies_for_good_fails_what_it_did_not_confirm() {
    let broker = Broker::new(1);
    let jsonl = lines(100_000);
    let job = job(&broker, &jsonl, &["message.timeout.ms=2000"]).rate(500);
    let stop = AtomicBool::new(false);
    let report = run(job, &stop, |progress| {
        if progress.delivered >= 50 {
            broker.mock.broker_down(1).unwrap();
        }
        // The broker is gone and records have timed out: nothing more to see.
        if progress.failed > 0 {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let report = report.unwrap();
    assert!(report.delivered >= 50 && report.failed > 0, "{report:?}");
    assert_eq!(report.sent, report.delivered + report.failed);
    assert!(report.first_error.as_ref().unwrap().contains(&broker.topic), "{report:?}");
    assert!(!report.is_complete());
}

#[test]
fn a_broker_that_comes_back_in_time_costs_nothing() {
    let broker = Broker::new(1);
    let job = job(&broker, &lines(300), &["reconnect.backoff.max.ms=200"]).rate(300);
    let mut went_down = None;
    let report = run(job, &AtomicBool::new(false), |progress| match went_down {
        None if progress.delivered > 0 => {
            broker.mock.broker_down(1).unwrap();
            went_down = Some(progress.elapsed);
        }
        Some(at) if progress.elapsed > at + Duration::from_millis(300) => broker.mock.broker_up(1).unwrap(),
        _ => {}
    });
    let report = report.unwrap();
    assert!(went_down.is_some() && report.is_complete(), "{report:?}");
    assert_eq!(broker.size(), 300, "idempotence: each record once");
}

#[test]
fn no_broker_at_all_is_waited_for_and_then_reported() {
    let mut command = binary();
    command.args(["--brokers", "127.0.0.1:1", "--count", "5", "-X", "message.timeout.ms=1000"]);
    let (code, output, error) = finish(command);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("no broker of 127.0.0.1:1 was ready within 1."), "{error}");
}

#[test]
fn an_unknown_topic_is_an_error_that_says_how_to_create_it() {
    let broker = Broker::new(1);
    broker.mock.topic_error(&broker.topic, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let (code, output, error) = finish(broker.producer(&["--count", "5"]));
    assert_eq!((code, output.as_str()), (1, ""));
    for part in [&broker.topic, "does not exist", "fraud-scorer run --create-topics", "kafka-topics --create"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn the_first_signal_ends_the_sending_but_not_the_accounting() {
    for signal in ["-INT", "-TERM"] {
        let broker = Broker::new(1);
        let child = start(broker.producer(&["--rate", "500"]));
        wait_until("records on the topic", || broker.size() >= 20);
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let (code, output, error) = ended(child.wait_with_output().unwrap());
        let size = broker.size();
        assert_eq!((code, output), (0, broker.closing_line(size, size, 0)), "{signal}: {error}");
    }
}

#[test]
fn the_second_signal_aborts() {
    let broker = Broker::new(1);
    let mut child = start(broker.producer(&["--rate", "0", "--quiet"]));
    wait_until("records on the topic", || broker.size() > 0);
    // From now on delivery reports take a minute, so that it cannot end by itself.
    broker.mock.broker_round_trip_time(1, Duration::from_secs(60)).unwrap();
    wait_until("an abort", || {
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        child.try_wait().unwrap().is_some()
    });
    let (code, output, _) = ended(child.wait_with_output().unwrap());
    assert_eq!((code, output.as_str()), (1, ""));
}
