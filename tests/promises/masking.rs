//! What `--mask` names is neither in the console nor in the log, and stays where it is data.

use serde_json::{Value, json};

use super::http::{golden, watch};
use super::support::broker::shared;
use super::support::process::{Running, finish};
use super::support::topics::{Record, Topics};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Text that is nowhere else; numbers as they would be printed.
const ID: &str = "id-4111111111111111";
const KEY: &str = "key-jane-doe";
const AMOUNT: &str = "98765.43";
const POISON: &str = "poison-jane-doe";

const MASK: &str = "transaction_id,key,V1,Amount";

/// What people see of a worker that scored suspicious records and refused poisoned ones, and its topics.
struct Seen {
    /// Features of the console's examples: rows that training kept.
    examples: Vec<Value>,
    /// The console's events, the description of the API, and /model.
    shown: String,
    log: String,
    topics: Topics,
}

fn seen(arguments: &[&str]) -> Seen {
    let topics = Topics::create(shared(), 1);
    let mut command = topics.worker();
    command.args(arguments).env("RUST_LOG", "debug");
    let mut worker = Running::start(command);
    worker.wait_until_ready();

    let suspicious = golden().into_iter().filter(|one| one["expected_score"].as_f64().unwrap() > 0.6);
    let mut values: Vec<String> = suspicious
        .map(|mut one| {
            one["transaction_id"] = ID.into();
            one["Amount"] = AMOUNT.parse::<f64>().unwrap().into();
            json!(one).to_string()
        })
        .collect();
    let scored = values.len();
    for (field, value) in [("V1", json!(POISON)), ("transaction_id", json!([POISON])), ("event_time", json!(POISON))] {
        let mut one = golden().swap_remove(0);
        one.insert(field.to_owned(), value);
        values.push(json!(one).to_string());
    }
    values.push(format!("{{\"transaction_id\":\"{POISON}\",\"V1\":{POISON}"));
    let records: Vec<Record<'_>> = values
        .iter()
        .map(|value| Record { key: Some(KEY.as_bytes()), value: Some(value.as_bytes()), ..Record::default() })
        .collect();
    topics.send(&records);
    topics.subscribe(&topics.output).wait_for("verdicts", scored, LIMIT);
    topics.subscribe(&topics.dead_letter).wait_for("dead letters", records.len() - scored, LIMIT);

    // Reasons come a moment after the verdicts.
    let events = watch(&worker.http_address(), |events| {
        let list = events.get("verdicts").and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|one| one["verdict"]["reasons"].is_array()))
    });
    let shown = format!("{}{}{}", json!(events), worker.get("/openapi.json").1, worker.get("/model").1);
    worker.terminate();
    let output = worker.finish(LIMIT);
    assert_eq!(output.status.code(), Some(0));
    let log = String::from_utf8(output.stderr).unwrap();
    assert!(log.contains("event_time is text") && log.contains("V1 must be a number"), "debug lines: {log}");
    let examples = events["model"]["examples"].as_array().unwrap();
    let examples = examples.iter().map(|example| example["transaction"].clone()).collect();
    Seen { examples, shown, log, topics }
}

#[test]
fn masked_fields_are_neither_in_the_console_nor_in_the_log_and_stay_in_the_topics() {
    let Seen { examples, shown, log, topics } = seen(&["--mask", MASK]);
    for marker in [ID, KEY, AMOUNT, POISON] {
        assert!(!shown.contains(marker) && !log.contains(marker), "{marker}: {shown}\n{log}");
    }
    assert!(shown.contains("\"transaction_id\":\"masked\"") && shown.contains("\"amount\":\"masked\""), "{shown}");
    let has = |example: &Value, field| example.get(field).is_some();
    assert!(!examples.is_empty() && examples.iter().all(|example| !has(example, "V1") && has(example, "V2")));
    for verdict in topics.read(&topics.output) {
        assert_eq!((verdict.verdict().transaction_id.as_str(), verdict.key.as_deref()), (ID, Some(KEY.as_bytes())));
    }
    let letters = topics.read(&topics.dead_letter);
    assert!(letters.iter().all(|letter| String::from_utf8_lossy(letter.value.as_ref().unwrap()).contains(POISON)));

    // Without the mask the console shows them; the log never does.
    let Seen { examples, shown, log, .. } = seen(&[]);
    assert!(shown.contains(ID) && shown.contains(AMOUNT) && has(&examples[0], "V1"), "{shown}");
    for marker in [ID, KEY, AMOUNT, POISON] {
        assert!(!log.contains(marker), "{marker}: {log}");
    }
}

#[test]
fn a_field_that_does_not_exist_is_refused_with_those_that_do() {
    let topics = Topics::create(shared(), 1);
    let mut command = topics.worker();
    command.env("FRAUD_SCORER_MASK", "V1,amount");
    let output = finish(command, LIMIT);
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{log}");
    assert!(log.contains("--mask names amount") && log.contains("transaction_id, key, V1, V2"), "{log}");
}
