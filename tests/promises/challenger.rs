//! A challenger scores in the shadow: every comparison exactly once and true, and whatever it does, verdicts go on.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use fraud_scorer::pipeline::shadow::Share;
use fraud_wire::verdict::Decision;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::support::broker::shared;
use super::support::bundles::{Shelf, opinions};
use super::support::process::{Running, finish, scorer};
use super::support::topics::{Received, Topics, faults};
use super::support::{root, unique, wait_for};

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

type Opinions = HashMap<(i32, i64), (f32, Decision)>;

fn start(topics: &Topics, challenger: &Path, arguments: &[&str]) -> Running {
    let mut all = vec!["--challenger", challenger.to_str().unwrap()];
    all.extend(arguments);
    topics.start_worker(&all)
}

fn json(message: &Received) -> Value {
    serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()
}

fn place(comparison: &Value) -> (i32, i64) {
    let source = &comparison["source"];
    (source["partition"].as_i64().unwrap() as i32, source["offset"].as_i64().unwrap())
}

/// The value of a series without or with labels.
fn value_of(worker: &mut Running, series: &str) -> Option<f64> {
    worker.value(series)
}

/// Holds the metrics against what the models make of the records that take part.
fn check_metrics(worker: &mut Running, input: &[Received], share: Share, champion: &Opinions, challenger: &Opinions) {
    let compared: Vec<&Received> = input.iter().filter(|record| share.takes(record.partition, record.offset)).collect();
    let count = "fraud_scorer_challenger_score_difference_count";
    wait_for("all comparisons are counted", LIMIT, || {
        (value_of(worker, count).unwrap_or(0.0) >= compared.len() as f64).then_some(())
    });
    assert_eq!(value_of(worker, count), Some(compared.len() as f64));
    let mut decisions: HashMap<(Decision, Decision), (usize, f64)> = HashMap::new();
    let mut difference = 0.0;
    for record in compared {
        let at = (record.partition, record.offset);
        let ((one, first), (two, second)) = (champion[&at], challenger[&at]);
        difference += f64::from(two - one);
        let cell = decisions.entry((first, second)).or_default();
        *cell = (cell.0 + 1, cell.1 + json(record)["Amount"].as_f64().unwrap());
    }
    let sum = value_of(worker, "fraud_scorer_challenger_score_difference_sum").unwrap();
    assert!((sum - difference).abs() <= 1e-3, "{sum} instead of {difference}");
    for first in Decision::ALL {
        for second in Decision::ALL {
            let labels = format!("{{champion=\"{}\",challenger=\"{}\"}}", first.as_str(), second.as_str());
            let (rows, amount) = decisions.get(&(first, second)).copied().unwrap_or_default();
            let shown = value_of(worker, &format!("fraud_scorer_challenger_decisions_total{labels}"));
            assert_eq!(shown, Some(rows as f64), "{labels}");
            let shown = value_of(worker, &format!("fraud_scorer_challenger_flip_amount_total{labels}"));
            match first == second {
                true => assert_eq!(shown, None, "{labels}: no flip"),
                false => assert!((shown.unwrap() - amount).abs() <= 1e-2, "{labels}: {shown:?}, {amount}"),
            }
        }
    }
    assert!(decisions.keys().any(|(first, second)| first != second), "a test without a flip shows little");
}

fn end(worker: Running) {
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn every_comparison_is_written_exactly_once_through_a_kill_and_is_true() {
    const ROWS: usize = 20_000;
    let topics = Topics::create(shared(), 4);
    let comparisons = unique("comparisons");
    topics.make(&comparisons, 4, "1000000");
    let shelf = Shelf::with("fraud-lr", "2");
    let arguments = ["--challenger-topic", &comparisons, "--threads", "2"];
    let worker = start(&topics, &shelf.path(), &arguments);
    let producer = topics.start_producer(4_000, ROWS, 21);
    let mut subscriber = topics.subscribe(&comparisons);
    subscriber.wait_for("comparisons before the kill", 3_000, LIMIT);
    worker.kill();
    let mut worker = start(&topics, &shelf.path(), &arguments);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    subscriber.wait_for("all comparisons", ROWS, LIMIT);
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(subscriber.seen.len(), ROWS);
    let info = worker.series("fraud_scorer_challenger_info");
    assert!(info.len() == 1 && info[0].contains("name=\"fraud\",version=\"2\""), "{info:?}");
    let model = worker.get_json("/model");
    assert_eq!((&model["challenger"]["version"], &model["challenger"]["active"]), (&"2".into(), &true.into()));
    assert_eq!(model["serving"]["version"], "1");
    assert!(value_of(&mut worker, "fraud_scorer_stage_seconds_count{stage=\"challenger\"}").unwrap() > 0.0);
    end(worker);

    let input = topics.read(&topics.input);
    let records: HashMap<(i32, i64), &Received> =
        input.iter().map(|record| ((record.partition, record.offset), record)).collect();
    let (champion, challenger) = (opinions(&root().join("models/fraud"), &input), opinions(&shelf.path(), &input));
    let schema = serde_json::from_str(include_str!("../../docs/schemas/challenger.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut last = HashMap::new();
    for message in &subscriber.seen {
        let comparison = json(message);
        schema.validate(&comparison).unwrap();
        let at = place(&comparison);
        assert_eq!(at.0, message.partition, "the record's own partition");
        assert!(last.insert(at.0, at.1).is_none_or(|before| before < at.1), "{at:?} doubled or out of order");
        let record = records[&at];
        let transaction = json(record);
        assert_eq!(message.key, record.key);
        assert_eq!(comparison["transaction_id"], transaction["transaction_id"]);
        assert_eq!(comparison["event_time"], transaction["event_time"]);
        let amount = comparison["amount"].as_f64().unwrap() - transaction["Amount"].as_f64().unwrap();
        assert!(amount.abs() <= 1e-3, "{comparison}");
        for (role, version, opinion) in [("champion", "1", champion[&at]), ("challenger", "2", challenger[&at])] {
            assert_eq!((&comparison[role]["name"], &comparison[role]["version"]), (&"fraud".into(), &version.into()));
            assert!((comparison[role]["score"].as_f64().unwrap() - f64::from(opinion.0)).abs() <= 1e-6, "{comparison}");
            assert_eq!(comparison[role]["decision"], opinion.1.as_str());
        }
        let difference = f64::from(challenger[&at].0 - champion[&at].0);
        assert!((comparison["difference"].as_f64().unwrap() - difference).abs() <= 1e-5, "{comparison}");
        assert_eq!(message.headers, []);
    }
    let verdicts = topics.read(&topics.output);
    assert_eq!(faults(&verdicts, ROWS), Vec::<String>::new());
    assert!(verdicts.iter().all(|message| message.verdict().model.version == "1"));
}

#[test]
fn a_share_is_the_same_records_each_time_and_the_metrics_add_up() {
    const ROWS: usize = 12_000;
    for (guarantee, share) in [("exactly-once", 0.25), ("at-least-once", 1.0)] {
        let topics = Topics::create(shared(), 2);
        let shelf = Shelf::with("fraud-lr", "2");
        let share_text = share.to_string();
        let mut worker = start(&topics, &shelf.path(), &["--challenger-share", &share_text, "--guarantee", guarantee]);
        let producer = topics.start_producer(6_000, ROWS, 22);
        let mut subscriber = topics.subscribe(&topics.output);
        subscriber.wait_for("all verdicts", ROWS, LIMIT);
        assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
        let input = topics.read(&topics.input);
        let (champion, challenger) = (opinions(&root().join("models/fraud"), &input), opinions(&shelf.path(), &input));
        check_metrics(&mut worker, &input, Share::new(share).unwrap(), &champion, &challenger);
        assert_eq!(value_of(&mut worker, "fraud_scorer_challenger_failures_total"), Some(0.0));
        end(worker);
        assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    }
}

#[test]
fn a_challenger_may_have_columns_of_its_own() {
    const ROWS: usize = 5_000;
    let topics = Topics::create(shared(), 2);
    let shelf = Shelf::with("fraud", "2");
    // Other columns in other places, and one that the stream does not carry: another model, whatever it is worth.
    shelf.put_edited("fraud", "2", |directory, manifest| {
        std::fs::remove_file(directory.join("golden.jsonl")).unwrap();
        let manifest =
            manifest.replace("\"V14\"", "\"held\"").replace("\"V4\"", "\"V14\"").replace("\"held\"", "\"V4\"");
        manifest.replace("{ name = \"V10\" }", "{ name = \"not_there\", default = -0.5 }")
    });
    let mut worker = start(&topics, &shelf.path(), &[]);
    let producer = topics.start_producer(6_000, ROWS, 23);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    let input = topics.read(&topics.input);
    let (champion, challenger) = (opinions(&root().join("models/fraud"), &input), opinions(&shelf.path(), &input));
    check_metrics(&mut worker, &input, Share::ALL, &champion, &challenger);
    end(worker);
}

#[test]
fn a_challenger_that_cannot_be_had_is_refused_and_verdicts_go_on() {
    const ROWS: usize = 2_000;
    let topics = Topics::create(shared(), 2);
    let shelf = Shelf::with("fraud", "2");
    shelf.put_edited("fraud", "2", |directory, manifest| {
        std::fs::remove_file(directory.join("golden.jsonl")).unwrap();
        manifest.replace("{ name = \"V10\" }", "{ name = \"not_there\" }")
    });
    let mut worker = start(&topics, &shelf.path(), &[]);
    worker.wait_for_log("challenger refused", LIMIT);
    let model = worker.get_json("/model");
    assert!(model["challenger"].is_null());
    let event = &model["history"][0];
    assert_eq!(event["result"], "challenger-refused");
    assert!(event["reason"].as_str().unwrap().contains("it wants not_there,"), "{event}");
    let producer = topics.start_producer(4_000, ROWS, 24);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    assert!(worker.series("fraud_scorer_challenger_info").is_empty());
    end(worker);
}

#[test]
fn a_challenger_that_fails_is_given_up_and_verdicts_go_on() {
    const ROWS: usize = 10_000;
    let topics = Topics::create(shared(), 2);
    let shelf = Shelf::with("fraud", "2");
    let model = std::fs::read(root().join("tests/models/no-probability.onnx")).unwrap();
    shelf.put_edited("fraud", "2", |directory, manifest| {
        std::fs::remove_file(directory.join("golden.jsonl")).unwrap();
        std::fs::write(directory.join("model.onnx"), &model).unwrap();
        let sha256: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
        let line = |line: &str| match line.split_once(" = ") {
            Some(("sha256", _)) => format!("sha256 = \"{sha256}\"\n"),
            Some(("column", _)) => "column = 0\n".to_owned(),
            _ => format!("{line}\n"),
        };
        manifest.lines().map(line).collect()
    });
    let mut worker = start(&topics, &shelf.path(), &[]);
    assert_eq!(worker.get_json("/model")["challenger"]["active"], true);
    let producer = topics.start_producer(2_000, ROWS, 25);
    worker.wait_for_log("the challenger is given up", LIMIT);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    subscriber.settle(Duration::from_millis(300));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    assert!(topics.read(&topics.dead_letter).is_empty());
    let failures = value_of(&mut worker, "fraud_scorer_challenger_failures_total").unwrap();
    assert!(failures >= 10.0 && failures < ROWS as f64, "{failures}: ten batches and no more");
    let challenger = worker.get_json("/model")["challenger"].clone();
    assert_eq!(challenger["active"], false);
    assert!(challenger["reason"].as_str().unwrap().contains("failed too often"), "{challenger}");
    assert!(worker.log().matches("the challenger failed").count() <= 3, "rate-limited");
    end(worker);
}

#[test]
fn a_comparison_topic_of_other_partitions_is_refused_at_the_start() {
    let topics = Topics::create(shared(), 2);
    let comparisons = unique("comparisons");
    topics.make(&comparisons, 3, "1000000");
    let mut command = topics.worker();
    command.args(["--challenger", "models/fraud-lr", "--challenger-topic", &comparisons]);
    let output = Running::start(command).finish(LIMIT);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{log}");
    assert!(log.contains(&comparisons) && log.contains("has 3 partitions"), "{log}");
}

#[test]
fn the_doctor_looks_at_the_challenger_too() {
    let shelf = Shelf::with("fraud", "2");
    let check = |challenger: &Path| {
        let mut command = scorer();
        command.args(["check", "--offline", "--challenger"]).arg(challenger);
        let output = finish(command, LIMIT);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, report) = check(&shelf.path());
    assert!(code == Some(0) && report.contains("ok    challenger: fraud@2 in "), "{report}");
    shelf.put_edited("fraud", "2", |directory, manifest| {
        std::fs::remove_file(directory.join("golden.jsonl")).unwrap();
        manifest.replace("{ name = \"V10\" }", "{ name = \"not_there\" }")
    });
    let (code, report) = check(&shelf.path());
    assert!(code == Some(1) && report.contains("FAIL  challenger: it wants not_there,"), "{report}");
}
