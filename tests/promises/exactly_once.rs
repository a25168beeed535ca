//! One verdict per row, complete, in order, through everything that may happen to a worker or its broker.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::time::Duration;

use super::poison::good;
use super::support::broker::{Broker, quota, shared};
use super::support::process::Running;
use super::support::topics::{Record, Topics, distinct, faults};
use super::support::{CARD_ROWS, card_rows, python_tool, root, unique, wait_for};

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn every_card_row_gets_the_verdict_that_python_gives_it() {
    let topics = Topics::create(shared(), 4);
    let mut worker = topics.start_worker(&[]);
    let mut producer = topics.producer();
    match card_rows() {
        Some(csv) => producer.args(["--source", "csv", "--rate", "0", "--csv"]).arg(csv),
        None => producer.args(["--source", "profile", "--rate", "0", "--seed", "7", "--count", &CARD_ROWS.to_string()]),
    };
    let output = Running::start(producer).finish(LIMIT);
    let closing = format!("sent {CARD_ROWS} messages to {} (delivered {CARD_ROWS}, failed 0)\n", topics.brokers);
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(0), closing.as_str()));

    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts", CARD_ROWS, LIMIT);
    // A commit is seen by subscribers a moment before the thread that asked for it counts it.
    let counted = format!("fraud_scorer_transactions_total {CARD_ROWS}\n");
    wait_for("all rows are counted", LIMIT, || worker.get("/metrics").1.contains(&counted).then_some(()));
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    subscriber.settle(Duration::from_millis(300));
    assert_eq!(faults(&subscriber.seen, CARD_ROWS), Vec::<String>::new());

    // The same transactions: ids complete, keys kept, each verdict true to its schema.
    let transactions = topics.read(&topics.input);
    let schema = serde_json::from_str(include_str!("../../docs/schemas/verdict.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let by_place: HashMap<(i32, i64), usize> =
        transactions.iter().enumerate().map(|(index, record)| ((record.partition, record.offset), index)).collect();
    let mut ids = HashSet::new();
    for message in &subscriber.seen {
        schema.validate(&serde_json::from_slice(message.value.as_deref().unwrap()).unwrap()).unwrap();
        let verdict = message.verdict();
        let transaction = &transactions[by_place[&(verdict.source.partition, verdict.source.offset)]];
        let value: serde_json::Value = serde_json::from_slice(transaction.value.as_deref().unwrap()).unwrap();
        assert_eq!(value["transaction_id"], verdict.transaction_id.as_str());
        assert_eq!(value["event_time"], verdict.event_time);
        assert_eq!(message.key, transaction.key);
        assert_eq!((verdict.model.name.as_str(), verdict.model.version.as_str()), ("fraud", "1"));
        assert_eq!(message.headers, [], "the body names the model");
        assert!(ids.insert(verdict.transaction_id));
    }
    assert_eq!(ids.len(), CARD_ROWS);
    if card_rows().is_some() {
        assert!((1..=CARD_ROWS).all(|row| ids.contains(&format!("row-{row}"))), "ids are those of the file");
    }
    assert!(topics.read(&topics.dead_letter).is_empty());

    // Python's ONNX Runtime on the same records.
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    let mut file = std::fs::File::create(&input).unwrap();
    for record in &transactions {
        file.write_all(record.value.as_deref().unwrap()).unwrap();
        file.write_all(b"\n").unwrap();
    }
    let mut python = std::process::Command::new(python_tool());
    python.current_dir(root()).args(["score", "--model", "models/fraud", "--input"]).arg(&input);
    let done = Running::start({
        python.arg("--output").arg(&output);
        python
    })
    .finish(LIMIT);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let expected: HashMap<String, f64> = std::fs::read_to_string(&output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| (line["transaction_id"].as_str().unwrap().to_owned(), line["score"].as_f64().unwrap()))
        .collect();
    assert_eq!(expected.len(), CARD_ROWS);
    for message in &subscriber.seen {
        let verdict = message.verdict();
        let difference = (f64::from(verdict.score) - expected[&verdict.transaction_id]).abs();
        assert!(
            difference <= 1e-5,
            "{}: {} here, {} in Python",
            verdict.transaction_id,
            verdict.score,
            expected[&verdict.transaction_id]
        );
    }
}

#[test]
fn a_killed_worker_and_members_that_come_and_go_neither_lose_nor_double() {
    const ROWS: usize = 40_000;
    let topics = Topics::create(shared(), 4);
    let rows = ROWS.to_string();
    let first = topics.start_worker(&[]);
    let mut producer = topics.producer();
    producer.args(["--rate", "4000", "--count", &rows, "--seed", "3", "--format", "split"]);
    let producer = Running::start(producer);
    let mut subscriber = topics.subscribe(&topics.output);

    subscriber.wait_for("verdicts before the kill", 4_000, LIMIT);
    first.kill();
    let second = topics.start_worker(&["--threads", "2"]);
    let killed_at = subscriber.seen.len();
    subscriber.wait_for("verdicts after the kill", killed_at + 2_000, LIMIT);

    // A third member joins while the second works, takes partitions, leaves again.
    let mut third = topics.start_worker(&[]);
    third.wait_for_log("partitions assigned", LIMIT);
    let joined_at = subscriber.seen.len();
    subscriber.wait_for("verdicts with two members", (joined_at + 2_000).min(ROWS), LIMIT);
    third.terminate();
    assert_ended_well(&third.finish(LIMIT));

    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    second.terminate();
    assert_ended_well(&second.finish(LIMIT));
}

/// Of a worker that was told to end while its group was being rearranged: drained, or it says that what it threw away is
/// read again.
fn assert_ended_well(output: &std::process::Output) {
    let log = String::from_utf8_lossy(&output.stderr);
    let threw_away = log.contains("work since the last commit is thrown away") && log.contains("it is read again");
    assert!(
        output.status.code() == Some(0) || (output.status.code() == Some(1) && threw_away),
        "{}: {log}",
        output.status
    );
}

#[test]
fn a_group_that_is_rearranged_while_it_is_idle_loses_and_doubles_nothing() {
    const PARTITIONS: usize = 4;
    const BURST: usize = 500;
    let topics = Topics::create(shared(), PARTITIONS as i32);
    let first = topics.start_worker(&[]);
    let mut subscriber = topics.subscribe(&topics.output);
    let mut sent = 0;
    // Bursts, so that a partition's end comes in a batch with records.
    let mut send = |count: usize| {
        let values: Vec<String> = (0..count).map(|number| good(&format!("t{number}"))).collect();
        let in_partition = |partition: i32| {
            values.iter().map(move |value| Record { partition, value: Some(value.as_bytes()), ..Record::default() })
        };
        topics.send(&(0..PARTITIONS as i32).flat_map(in_partition).collect::<Vec<_>>());
        sent += count * PARTITIONS;
        subscriber.wait_for("verdicts", sent, LIMIT);
    };
    for _ in 0..3 {
        send(BURST);
        let mut second = Running::start(topics.worker());
        second.wait_for_log("partitions assigned", LIMIT);
        send(1);
        send(BURST);
        second.terminate();
        assert_ended_well(&second.finish(LIMIT));
        send(1);
    }
    first.terminate();
    assert_ended_well(&first.finish(LIMIT));
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(faults(&subscriber.seen, sent), Vec::<String>::new());
}

#[test]
fn a_stable_instance_id_takes_over_from_its_killed_predecessor() {
    let topics = Topics::create(shared(), 2);
    let first = topics.start_worker(&["--instance-id", "pod-0"]);
    let producer = topics.start_producer(5_000, 20_000, 4);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts before the kill", 2_000, LIMIT);
    first.kill();
    let second = topics.start_worker(&["--instance-id", "pod-0"]);
    subscriber.wait_for("all verdicts", 20_000, LIMIT);
    subscriber.settle(Duration::from_millis(300));
    assert_eq!(faults(&subscriber.seen, 20_000), Vec::<String>::new());
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    second.terminate();
    assert_eq!(second.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_broker_restart_loses_and_doubles_nothing() {
    const ROWS: usize = 20_000;
    let mut broker = Broker::start();
    let topics = Topics::create(&broker, 3);
    let mut worker = topics.start_worker(&[]);
    let producer = topics.start_producer(2_500, ROWS, 5);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts before the restart", 2_000, LIMIT);
    broker.crash();
    let address = worker.http_address();
    wait_for("the worker says that it is not ready", LIMIT, || {
        let (status, body) = worker.get("/readyz");
        (status == 503).then_some(body)
    });
    assert_eq!(worker.get("/livez").0, 200, "{address} is alive while it waits");
    broker.up();
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    worker.wait_until_ready();
    worker.terminate();
    let output = worker.finish(LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_broker_that_hangs_for_a_while_loses_and_doubles_nothing() {
    const ROWS: usize = 20_000;
    let broker = Broker::start();
    let topics = Topics::create(&broker, 2);
    let mut worker = topics.start_worker(&[]);
    let producer = topics.start_producer(2_000, ROWS, 8);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts before the hang", 2_000, LIMIT);
    broker.signal("-STOP");
    wait_for("the worker says that it is not ready", LIMIT, || (worker.get("/readyz").0 == 503).then_some(()));
    broker.signal("-CONT");
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    worker.wait_until_ready();
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_worker_that_was_put_out_of_its_group_is_not_ready_until_it_is_back() {
    const ROWS: usize = 20_000;
    let topics = Topics::create(shared(), 2);
    let mut worker = topics.start_worker(&["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=1000"]);
    let producer = topics.start_producer(1_000, ROWS, 9);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts before it is frozen", 2_000, LIMIT);
    worker.signal("-STOP");
    // Its session ends after six seconds; nothing outside says when.
    std::thread::sleep(Duration::from_secs(8));
    worker.signal("-CONT");
    wait_for("the worker says that it is not ready", LIMIT, || {
        let (status, body) = worker.get("/readyz");
        (status == 503 && body.contains("its partitions were lost; joining the consumer group again")).then_some(())
    });
    worker.wait_until_ready();
    assert!(worker.log().matches("partitions assigned").count() > 1, "ready as a member again: {}", worker.log());
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn an_idle_worker_whose_broker_hangs_is_not_ready() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let broker = Broker::start();
        let topics = Topics::create(&broker, 2);
        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        broker.signal("-STOP");
        let reason = wait_for("the worker says that it is not ready", LIMIT, || {
            let (status, body) = worker.get("/readyz");
            (status == 503).then_some(body)
        });
        assert!(reason.contains("does not answer"), "{guarantee}: {reason}");
        broker.signal("-CONT");
        worker.wait_until_ready();
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}

#[test]
fn a_worker_whose_fetches_the_broker_holds_back_is_not_ready() {
    const ROWS: usize = 20_000;
    let topics = Topics::create(shared(), 2);
    let client = unique("held-back");
    let mut worker = topics.start_worker(&["-X", &format!("client.id={client}")]);
    quota(&topics.brokers, &client, &["--add-config", "consumer_byte_rate=1000"]).unwrap();
    let producer = topics.start_producer(10_000, ROWS, 12);
    let reason = wait_for("the worker says that it is not ready", LIMIT, || {
        let (status, body) = worker.get("/readyz");
        (status == 503).then_some(body)
    });
    assert!(reason.contains("scoring-0 progress: partition"), "{reason}");
    assert!(reason.contains("stands still: its log ends at"), "{reason}");
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    quota(&topics.brokers, &client, &["--delete-config", "consumer_byte_rate"]).unwrap();
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    worker.wait_until_ready();
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn groups_whose_names_join_alike_do_not_fence_each_other() {
    const ROWS: usize = 2_000;
    let mut topics = Topics::create(shared(), 1);
    let other = unique("verdicts");
    topics.make_with(&other, 1, &[]);
    topics.group = unique("a");
    // `GROUP-b-c-0` either way.
    let first = topics.start_worker(&["--instance-id", "b-c"]);
    topics.group += "-b";
    let second = topics.start_worker(&["--instance-id", "c", "--output-topic", &other]);
    let producer = topics.start_producer(1_000, ROWS, 11);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    for output in [&topics.output, &other] {
        let mut subscriber = topics.subscribe(output);
        subscriber.wait_for("all verdicts", ROWS, LIMIT);
        subscriber.settle(Duration::from_millis(300));
        assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    }
    for worker in [first, second] {
        worker.terminate();
        let output = worker.finish(LIMIT);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{log}");
        assert!(!log.contains("is thrown away"), "{log}");
    }
}

#[test]
fn at_least_once_commits_nothing_past_a_delivery_that_failed() {
    const ROWS: usize = 20_000;
    let broker = Broker::start();
    let topics = Topics::create(&broker, 2);
    let arguments = ["--guarantee", "at-least-once", "-X", "message.timeout.ms=1200", "--commit-interval", "5ms"];
    let worker = topics.start_worker(&arguments);
    let producer = topics.start_producer(2_500, ROWS, 12);
    let mut subscriber = topics.subscribe(&topics.output);
    // Until it hits a delivery that is on its way.
    for _ in 0..12 {
        let seen = subscriber.seen.len();
        subscriber.wait_until("verdicts again", LIMIT, |all| all.len() > seen + 1_000);
        broker.signal("-STOP");
        // Longer than a message may take: those on their way fail, the ones before them were delivered.
        std::thread::sleep(Duration::from_millis(1_500));
        broker.signal("-CONT");
        if worker.log().contains("not delivered") {
            break;
        }
    }
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    subscriber.wait_until("a verdict for every row", LIMIT, |seen| seen.len() >= ROWS && distinct(seen) == ROWS);
    assert!(worker.log().contains("not delivered"), "deliveries failed: {}", worker.log());
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn at_least_once_loses_nothing_through_a_kill() {
    const ROWS: usize = 20_000;
    let topics = Topics::create(shared(), 2);
    let arguments = ["--guarantee", "at-least-once"];
    let first = topics.start_worker(&arguments);
    let producer = topics.start_producer(5_000, ROWS, 6);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts before the kill", 2_000, LIMIT);
    first.kill();
    let second = topics.start_worker(&arguments);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    subscriber.wait_until("a verdict for every row", LIMIT, |seen| seen.len() >= ROWS && distinct(seen) == ROWS);
    second.terminate();
    assert_eq!(second.finish(LIMIT).status.code(), Some(0));
    // What a clean end left committed is not scored again.
    let third = topics.start_worker(&arguments);
    let before = subscriber.seen.len();
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(subscriber.seen.len(), before);
    third.terminate();
    assert_eq!(third.finish(LIMIT).status.code(), Some(0));
}
