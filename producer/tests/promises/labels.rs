//! Labels follow their transactions once event time has passed the delay, and event time runs as it was told.

use std::collections::HashMap;

use fraud_wire::label::Label;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::support::{Broker, Record, binary, file, finish};

/// Event times, ids and keys of transactions, by id.
fn by_id(records: &[Record]) -> HashMap<String, (i64, String)> {
    let entry = |record: &Record| {
        let value = record.json();
        let id = value["transaction_id"].as_str().unwrap().to_owned();
        (id, (value["event_time"].as_i64().unwrap(), record.key.clone()))
    };
    records.iter().map(entry).collect()
}

fn label(record: &Record) -> Label {
    serde_json::from_str(&record.value).unwrap()
}

#[test]
fn labels_become_known_after_the_delay_of_event_time_and_the_rest_is_counted() {
    let broker = Broker::new(2);
    let labels = broker.another_topic();
    // 2,000 rows at 2,000 a second, an hour per second: the last row is at 59 min 58.2 s.
    let arguments = [
        "--rate",
        "2000",
        "--count",
        "2000",
        "--seed",
        "1",
        "--fraud-share",
        "0.3",
        "--event-time",
        "3600x",
        "--event-start",
        "2026-01-01T00:00:00Z",
        "--label-topic",
        &labels,
        "--label-delay",
        "30m",
    ];
    let (code, output, error) = finish(broker.producer(&arguments));
    let closing = format!("labels: 1000 sent, 1000 not yet known\n{}", broker.closing_line(2_000, 2_000, 0));
    // Row i is at 1.8 · i seconds, so the labels of rows 0 to 999 are known by 3,598.2 s.
    assert_eq!((code, output), (0, closing), "{error}");
    let (transactions, sent) = (by_id(&broker.read(2_000)), broker.read_topic(&labels, 1_000));
    assert_eq!(broker.size_of(&labels), 1_000);
    let start = 1_767_225_600_000;
    let mut frauds = 0;
    for record in &sent {
        let label = label(record);
        let (event_time, key) = &transactions[&label.transaction_id];
        assert_eq!(label.known_at, event_time + 1_800_000);
        assert!((start..start + 1_800_000).contains(event_time), "{event_time}");
        assert_eq!(record.key, *key, "a label has its transaction's key");
        frauds += usize::from(label.label);
    }
    assert!((220..380).contains(&frauds), "{frauds} of 1000 labels say fraud, at a share of 0.3");
    let mut times: Vec<i64> = transactions.values().map(|transaction| transaction.0).collect();
    times.sort();
    assert_eq!(times, (0..2_000).map(|row| start + row * 1_800).collect::<Vec<_>>(), "event time follows the schedule");
}

#[test]
fn a_csv_files_class_is_its_label_and_never_in_the_row() {
    let broker = Broker::new(1);
    let labels = broker.another_topic();
    let csv = file("Time,V1,Class\n0,1,0\n60,2,1\n120,3,\"0\"\n");
    let arguments = [
        "--csv",
        csv.path().to_str().unwrap(),
        "--rate",
        "0",
        "--event-time",
        "file",
        "--label-topic",
        &labels,
        "--label-delay",
        "60s",
    ];
    let (code, output, error) = finish(broker.producer(&arguments));
    let closing = format!("labels: 2 sent, 1 not yet known\n{}", broker.closing_line(3, 3, 0));
    assert_eq!((code, output), (0, closing), "{error}");
    let sent: Vec<_> = broker.read_topic(&labels, 2).iter().map(label).collect();
    let epoch = 1_377_993_600_000;
    let expected = |id: &str, label: u8, seconds: i64| Label {
        transaction_id: id.to_owned(),
        label,
        known_at: epoch + seconds * 1_000,
    };
    assert_eq!(sent, [expected("row-1", 0, 60), expected("row-2", 1, 120)]);
    assert!(broker.read(3).iter().all(|record| !record.value.contains("Class")));
}

#[test]
fn labels_that_were_not_delivered_fail_the_run() {
    let broker = Broker::new(1);
    let labels = broker.another_topic();
    broker
        .mock
        .request_errors(RDKafkaApiKey::Produce, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 100]);
    let arguments = ["--rate", "0", "--count", "5", "--label-topic", &labels, "-X", "message.timeout.ms=3000"];
    let (code, output, _) = finish(broker.producer(&arguments));
    assert_eq!(code, 1);
    assert!(output.starts_with("labels: 5 sent, 0 not yet known, 5 failed\n"), "{output}");
}

#[test]
fn a_missing_topic_for_labels_is_named() {
    let broker = Broker::new(1);
    let labels = broker.another_topic();
    broker.mock.topic_error(&labels, RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let (code, output, error) = finish(broker.producer(&["--count", "5", "--label-topic", &labels]));
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains(&format!("topic {labels} does not exist")), "{error}");
    assert!(!error.contains("fraud-scorer run"), "the worker creates no topic for labels: {error}");
    assert_eq!(broker.size(), 0);
}

#[test]
fn more_labels_than_may_wait_are_refused_at_the_start() {
    let mut command = binary();
    command.args(["--brokers", "127.0.0.1:1", "--rate", "1000", "--label-topic", "labels", "--label-delay", "7d"]);
    let (code, output, error) = finish(command);
    assert_eq!((code, output.as_str()), (2, ""));
    assert!(error.contains("604800000 rows would wait") && error.contains("--label-delay"), "{error}");
}

#[test]
fn a_seed_and_a_start_repeat_a_drifting_run() {
    let sent = |seed: &str| {
        let broker = Broker::new(1);
        let arguments = [
            "--rate",
            "5000",
            "--count",
            "500",
            "--seed",
            seed,
            "--event-time",
            "86400x",
            "--event-start",
            "0",
            "--drift",
            "1",
            "--drift-over",
            "1h",
        ];
        let (code, _, error) = finish(broker.producer(&arguments));
        assert_eq!(code, 0, "{error}");
        broker.read(500).into_iter().map(|record| (record.key, record.value)).collect::<Vec<_>>()
    };
    let first = sent("1");
    assert_eq!(first, sent("1"));
    assert_ne!(first, sent("2"));
}
