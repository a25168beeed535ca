//! Incidents on demand begin and end when they should, and are of the kind that was asked for.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use fraud_producer::scenario::{Effect, Scenario, Span};
use fraud_producer::source::{Format, ProfileSource};
use fraud_producer::{Job, run};
use fraud_wire::reference::Reference;

use crate::support::{Broker, Record, finish};

/// Records per second; with them, seconds 1 and 2 of a run are records 1,000 to 2,999.
const RATE: usize = 1_000;

/// What a run of four seconds sends, in order, with the incident in the two in the middle.
fn play(more: &[&str]) -> Vec<Record> {
    let broker = Broker::new(1);
    let count = (4 * RATE).to_string();
    let fixed = ["--rate", "1000", "--count", &count, "--seed", "7", "--scenario-after", "1s", "--scenario-for", "2s"];
    let (code, output, error) = finish(broker.producer(&[&fixed, more].concat()));
    assert_eq!((code, output), (0, broker.closing_line(4_000, 4_000, 0)), "{error}");
    broker.read(4 * RATE)
}

fn is_in_incident(index: usize) -> bool {
    (RATE..3 * RATE).contains(&index)
}

#[test]
fn poison_is_sent_within_its_span_alone() {
    let records = play(&["--scenario", "poison", "--scenario-strength", "0.5"]);
    let expected = ["V1", "Amount"];
    let is_sound = |record: &Record| {
        let value: Result<serde_json::Value, _> = serde_json::from_str(&record.value);
        value.is_ok_and(|value| expected.iter().all(|name| value[name].is_number()))
    };
    let spoiled: Vec<usize> = (0..records.len()).filter(|&index| !is_sound(&records[index])).collect();
    assert!(spoiled.iter().all(|&index| is_in_incident(index)), "{spoiled:?}");
    // Half of 2,000, and five standard errors.
    assert!((888..=1_112).contains(&spoiled.len()), "{} records are spoiled", spoiled.len());
}

#[test]
fn a_distribution_shift_moves_the_features_and_leaves_no_id_twice() {
    let records = play(&["--scenario", "distribution-shift", "--scenario-strength", "5"]);
    let mean = |wanted: bool| {
        let rows = records.iter().enumerate().filter(|(index, _)| is_in_incident(*index) == wanted);
        rows.map(|(_, record)| record.json()["V5"].as_f64().unwrap()).sum::<f64>() / (2 * RATE) as f64
    };
    assert!(mean(true) > mean(false) + 2.0, "{} after {}", mean(true), mean(false));
    let ids: std::collections::HashSet<String> =
        records.iter().map(|record| record.json()["transaction_id"].to_string()).collect();
    assert_eq!(ids.len(), records.len());
}

#[test]
fn a_fraud_spike_sends_its_share_of_fraud_as_the_labels_tell() {
    let broker = Broker::new(1);
    let labels = broker.another_topic();
    let more = ["--rate", "1000", "--count", "3000", "--fraud-share", "0", "--label-topic", &labels];
    let scenario = ["--scenario", "fraud-spike", "--scenario-strength", "1", "--scenario-after", "2s"];
    let (code, output, error) = finish(broker.producer(&[&more[..], &scenario].concat()));
    assert_eq!(code, 0, "{error}");
    assert!(output.starts_with("labels: 3000 sent"), "{output}");
    let fraud: Vec<bool> = broker.read_topic(&labels, 3_000).iter().map(|label| label.json()["label"] == 1).collect();
    assert!(!fraud[..2_000].contains(&true), "before the spike");
    assert!(!fraud[2_000..].contains(&false), "within it");
}

#[test]
fn a_stall_sends_nothing_and_then_everything_that_was_due() {
    let broker = Broker::new(1);
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fraud/reference.json"));
    let source = ProfileSource::new(&Reference::read(path).unwrap(), None, Format::Object, 1).unwrap();
    let span = Span { start: Duration::from_millis(500), length: Some(Duration::from_secs(1)) };
    let job = Job::new(&broker.kafka(), &broker.topic, Box::new(source)).rate(1_000).count(2_000);
    let job = job.scenario(Scenario { span, effect: Effect::Stall });
    let mut seen = Vec::new();
    let report = run(job, &AtomicBool::new(false), |progress| seen.push(*progress)).unwrap();
    assert!(report.is_complete() && report.sent == 2_000, "{report:?}");
    let within = |from: u64, to: u64| {
        let span = Duration::from_millis(from)..Duration::from_millis(to);
        seen.iter().filter(move |progress| span.contains(&progress.elapsed)).map(|progress| progress.sent)
    };
    assert!(within(500, 1_500).all(|sent| sent <= 500), "{seen:?}");
    assert!(within(1_000, 1_500).all(|sent| sent == 500), "{seen:?}");
    // The intended times stay: what waited is late, not later.
    let times: Vec<i64> =
        broker.read(2_000).iter().map(|record| record.json()["event_time"].as_i64().unwrap()).collect();
    assert!(times.is_sorted() && times[1_999] - times[0] == 1_999, "{} to {}", times[0], times[1_999]);
}
