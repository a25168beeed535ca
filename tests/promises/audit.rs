//! Who changed what stands on a topic, as a chain of each process: a change waits for no topic, and what is missing is named.

use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::support::broker::{Broker, shared};
use super::support::bundles::Shelf;
use super::support::process::{Running, finish, scorer};
use super::support::topics::{Received, Record, Topics};
use super::support::{unique, wait_for};

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

/// Tries with a wrong token.
const TRIES: usize = 51;

fn start(topics: &Topics, shelf: &Shelf, audit: &str) -> Running {
    let path = shelf.path();
    let arguments = ["--model", path.to_str().unwrap(), "--audit-topic", audit, "--create-topics"];
    topics.start_worker(&[&arguments[..], &["--instance-id", "pod-0"]].concat())
}

fn end(worker: Running) -> String {
    worker.terminate();
    let output = worker.finish(LIMIT);
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    log
}

/// `audit verify`: exit code and what it says.
fn verify(topics: &Topics, audit: &str) -> (Option<i32>, String) {
    let mut command = scorer();
    command.args(["audit", "verify", "--brokers", &topics.brokers, "--audit-topic", audit]);
    let output = finish(command, LIMIT);
    (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
}

/// Events of the topic; each keeps to the schema.
fn events(records: &[Received]) -> Vec<Value> {
    let schema = serde_json::from_str(include_str!("../../docs/schemas/audit.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let event = |record: &Received| {
        assert_eq!((record.partition, &record.key), (0, &None));
        let event: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
        validator.validate(&event).unwrap_or_else(|error| panic!("{event}: {error}"));
        event
    };
    records.iter().map(event).collect()
}

/// Action, outcome and role of each, the anchor left out: it may come at any moment after the start.
fn told(events: &[Value]) -> Vec<(&str, &str, &str)> {
    let texts = events.iter().map(|event| {
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap();
        (text("/action"), text("/outcome"), text("/actor/role"))
    });
    texts.filter(|(action, _, _)| *action != "anchor").collect()
}

/// Verifies a topic of these values.
fn verify_copy(values: &[&[u8]]) -> (Option<i32>, String) {
    let copy = Topics::create(shared(), 1);
    let records = values.iter().map(|value| Record { value: Some(*value), ..Record::default() });
    copy.send(&records.collect::<Vec<_>>());
    verify(&copy, &copy.input)
}

#[test]
fn every_change_and_denied_try_is_on_the_topic_and_what_is_missing_there_is_named() {
    let topics = Topics::create(shared(), 1);
    let (audit, shelf) = (unique("audit"), Shelf::with("fraud", "1"));
    let mut worker = start(&topics, &shelf, &audit);
    for _ in 0..TRIES {
        assert_eq!(worker.post("/admin/rollback", &[("Authorization", "Bearer of-bad-news-and-no-more")]).0, 401);
    }
    assert_eq!(worker.administer("/admin/rollback").0, 409);
    shelf.put("fraud-lr", "2");
    assert_eq!(worker.administer("/admin/reload").0, 200);
    assert_eq!(worker.administer("/admin/rollback").0, 200);
    assert_eq!(worker.value("fraud_scorer_audit_denied_total"), Some(TRIES as f64));
    wait_for("all events are there", LIMIT, || (worker.value("fraud_scorer_audit_waiting") == Some(0.0)).then_some(()));
    let log = end(worker);
    shelf.put("fraud", "1");
    end(start(&topics, &shelf, &audit));

    let records = topics.read(&audit);
    let all = events(&records);
    let second = all.iter().position(|event| event["chain"] != all[0]["chain"]).unwrap();
    let (first, second) = all.split_at(second);
    let admin = |action, outcome| (action, outcome, "admin");
    assert_eq!(
        told(first),
        [
            ("start", "done", "configuration"),
            ("access", "denied", "unknown"),
            admin("rollback", "refused"),
            admin("swap", "done"),
            admin("rollback", "done"),
            ("access", "denied", "unknown"),
            ("stop", "done", "process"),
        ]
    );
    let (back, denied) = (&first[first.len() - 3], &first[first.len() - 2]);
    let model = |event: &Value, when: &str| event[when].as_str().unwrap().split(" (sha256 ").next().unwrap().to_owned();
    assert_eq!((model(back, "before").as_str(), model(back, "after").as_str()), ("fraud@2", "fraud@1"));
    assert_eq!((&back["instance"], &back["actor"]["peer"]), (&"pod-0".into(), &"admin at 127.0.0.1".into()));
    assert!(denied["reason"].as_str().unwrap().starts_with("50 more tries"), "{denied}");
    assert_eq!(log.matches("audit event").count(), first.len(), "{log}");

    // The second process's chain holds the first one's end.
    assert_eq!(told(second), [("start", "done", "configuration"), ("stop", "done", "process")]);
    let anchor = &second.iter().find(|event| event["action"] == "anchor").unwrap()["anchor"];
    let last = &records[first.len() - 1];
    let hash: String =
        Sha256::digest(last.value.as_deref().unwrap()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((&anchor["offset"], &anchor["sha256"]), (&last.offset.into(), &hash.into()));

    let (code, said) = verify(&topics, &audit);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!("{} records of 2 chains, nothing is missing", all.len())), "{said}");

    let values: Vec<&[u8]> = records.iter().map(|record| record.value.as_deref().unwrap()).collect();
    let rollback = first.len() - 3;
    let (code, said) = verify_copy(&[&values[..rollback], &values[rollback + 1..]].concat());
    assert_eq!(code, Some(1), "{said}");
    let missing = format!("sequence {} before it is missing", back["sequence"]);
    assert!(said.contains(&format!("offset {rollback},")) && said.contains(&missing), "{said}");
    // The end of the first chain: nothing follows it there, but the second one knows.
    let (code, said) = verify_copy(&[&values[..first.len() - 2], &values[first.len()..]].concat());
    assert!(code == Some(1) && said.contains("the anchor names offset"), "{said}");
    let forged = String::from_utf8(values[rollback].to_vec()).unwrap().replace("127.0.0.1", "10.0.0.66");
    let mut values = values.clone();
    values[rollback] = forged.as_bytes();
    let (code, said) = verify_copy(&values);
    let changed = format!("does not name the hash of sequence {}: one was changed", back["sequence"]);
    assert!(code == Some(1) && said.contains(&changed), "{said}");
}

#[test]
fn a_change_waits_for_no_topic_and_is_there_when_the_broker_is_back() {
    let mut broker = Broker::start();
    let topics = Topics::create(&broker, 1);
    let (audit, shelf) = (unique("audit"), Shelf::with("fraud", "1"));
    let mut worker = start(&topics, &shelf, &audit);
    let waiting = |worker: &mut Running| worker.value("fraud_scorer_audit_waiting");
    wait_for("the first events are there", LIMIT, || (waiting(&mut worker) == Some(0.0)).then_some(()));
    broker.crash();
    shelf.put("fraud-lr", "2");
    assert_eq!(worker.administer("/admin/reload").0, 200);
    assert_eq!(worker.administer("/admin/rollback").0, 200);
    let warning = format!("warning: audit events are not on {audit} yet, 2 wait");
    wait_for("it is said", LIMIT, || worker.get("/readyz").1.contains(&warning).then_some(()));
    broker.up();
    wait_for("all events are there", LIMIT, || (waiting(&mut worker) == Some(0.0)).then_some(()));
    wait_for("ready without a warning", LIMIT, || (worker.get("/readyz").1 == "ready\n").then_some(()));
    end(worker);
    let all = events(&topics.read(&audit));
    let actions: Vec<&str> = told(&all).into_iter().map(|(action, _, _)| action).collect();
    assert_eq!(actions, ["start", "swap", "rollback", "stop"]);
    let (code, said) = verify(&topics, &audit);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn an_audit_topic_that_is_missing_or_another_topic_ends_the_start_with_what_to_do() {
    let topics = Topics::create(shared(), 1);
    for (audit, says) in [(unique("audit"), "--create-topics"), (topics.output.clone(), "--audit-topic")] {
        let mut command = topics.worker();
        command.args(["--audit-topic", &audit]);
        let output = finish(command, LIMIT);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && said.contains(says), "{said}");
    }
    let (code, said) = verify(&topics, &unique("audit"));
    assert!(code == Some(64) && said.contains("does not exist"), "{said}");
}
