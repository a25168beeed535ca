//! What a topic does not take stops neither the other records nor the other partitions, and never in silence.

use std::time::Duration;

use super::poison::good;
use super::support::broker::{Broker, SASL_USER, shared};
use super::support::bundles::Shelf;
use super::support::process::Running;
use super::support::topics::{Received, Record, Topics};
use super::support::{unique, wait_for};

const LIMIT: Duration = Duration::from_secs(90);

const GUARANTEES: [&str; 2] = ["exactly-once", "at-least-once"];

/// Sends so many good transactions to a partition.
fn send(topics: &Topics, partition: i32, key: Option<&[u8]>, count: usize) {
    let values: Vec<String> = (0..count).map(|number| good(&format!("p{partition}-{number}"))).collect();
    let record = |value: &'_ String| (partition, key, value.as_bytes().to_vec());
    let owned: Vec<_> = values.iter().map(record).collect();
    let records = owned.iter().map(|(partition, key, value)| Record {
        partition: *partition,
        key: *key,
        value: Some(value),
        ..Record::default()
    });
    topics.send(&records.collect::<Vec<_>>());
}

fn end(worker: Running, code: i32) {
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(code));
}

fn of(messages: &[Received], partition: i32) -> usize {
    messages.iter().filter(|message| message.partition == partition).count()
}

/// Waits until `partition` of the output holds at least so many verdicts.
fn wait_for_verdicts(topics: &Topics, partition: i32, count: usize) {
    let what = format!("{count} verdicts in partition {partition}");
    topics.subscribe(&topics.output).wait_until(&what, LIMIT, |seen| of(seen, partition) >= count);
}

#[test]
fn a_record_whose_verdict_is_refused_for_good_becomes_a_dead_letter_that_says_why() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 2);
        topics.remake(&topics.output, 2, &[("cleanup.policy", "compact")]);
        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        send(&topics, 1, Some(b"key"), 10);
        wait_for_verdicts(&topics, 1, 10);
        send(&topics, 0, None, 3);
        send(&topics, 1, Some(b"key"), 10);
        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("dead letters", 3, LIMIT);
        wait_for_verdicts(&topics, 1, 20);
        for letter in &letters.seen {
            assert_eq!(letter.header("error.class").as_deref(), Some("undeliverable"));
            let message = letter.header("error.message").unwrap();
            assert!(message.contains(&topics.output) && message.contains("no key"), "{message}");
        }
        wait_for("the worker is ready", LIMIT, || (worker.get("/readyz").0 == 200).then_some(()));
        let counted = worker.value("fraud_scorer_transactions_total").unwrap();
        assert!(counted <= 23.0, "{guarantee}: {counted} transactions are counted, 23 were sent");
        end(worker, 0);
        let verdicts = topics.read(&topics.output);
        assert_eq!(of(&verdicts, 0), 0);
        match guarantee {
            "exactly-once" => assert_eq!(of(&verdicts, 1), 20),
            // Those that shared a commit with the refused ones, once more.
            _ => assert!((20..=40).contains(&of(&verdicts, 1)), "{} verdicts", of(&verdicts, 1)),
        }
        assert_eq!(topics.read(&topics.dead_letter).len(), 3);
    }
}

#[test]
fn a_dead_letter_that_is_refused_for_want_of_a_key_is_written_with_one() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 2);
        topics.remake(&topics.dead_letter, 2, &[("cleanup.policy", "compact")]);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        topics.send(&[Record { partition: 0, value: Some(b"no JSON"), ..Record::default() }]);
        send(&topics, 1, None, 10);
        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("the dead letter", 1, LIMIT);
        let letter = &letters.seen[0];
        assert_eq!(letter.header("error.class").as_deref(), Some("malformed-json"));
        assert_eq!(letter.header("error.key-added").as_deref(), Some("true"));
        assert_eq!(letter.key.as_deref(), Some(format!("{}-0-0", topics.input).as_bytes()));
        assert_eq!(letter.value.as_deref(), Some(b"no JSON".as_slice()));
        wait_for_verdicts(&topics, 1, 10);
        end(worker, 0);
    }
}

#[test]
fn a_partition_that_the_output_lacks_stops_alone_and_goes_on_when_it_is_there() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 2);
        let refresh = ["-X", "topic.metadata.refresh.interval.ms=1000", "--guarantee", guarantee];
        let mut worker = topics.start_worker(&refresh);
        topics.grow(&topics.input, 3);
        wait_for("the new partition is assigned", LIMIT, || {
            worker.log().lines().any(|line| line.contains("partitions assigned") && line.contains('2')).then_some(())
        });
        send(&topics, 2, None, 5);
        wait_for("not ready, and why", LIMIT, || {
            let (status, body) = worker.get("/readyz");
            (status == 503 && body.contains(&format!("topic {} has no partition 2", topics.output))).then_some(())
        });
        for partition in [0, 1] {
            send(&topics, partition, None, 10);
            wait_for_verdicts(&topics, partition, 10);
        }
        let paused = format!("fraud_scorer_partition_paused{{topic=\"{}\",partition=\"2\"}}", topics.input);
        wait_for("the pause is shown", LIMIT, || worker.value(&paused).filter(|paused| *paused == 1.0));
        topics.grow(&topics.output, 3);
        wait_for_verdicts(&topics, 2, 5);
        wait_for("ready again", LIMIT, || (worker.get("/readyz").0 == 200).then_some(()));
        end(worker, 0);
        if guarantee == "exactly-once" {
            assert_eq!([0, 1, 2].map(|partition| of(&topics.read(&topics.output), partition)), [10, 10, 5]);
        }
    }
}

/// Verdicts go on, ten of them are there already; comparisons are dropped and counted.
fn assert_verdicts_do_without_comparisons(topics: &Topics, worker: &mut Running) {
    for round in 1..=3 {
        send(topics, 0, None, 10);
        wait_for_verdicts(topics, 0, 10 * (round + 1));
    }
    wait_for("dropped ones are counted", LIMIT, || {
        send(topics, 0, None, 1);
        worker.value("fraud_scorer_challenger_dropped_total").filter(|dropped| *dropped > 0.0)
    });
}

#[test]
fn a_comparison_topic_that_is_gone_stops_no_verdict() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 1);
        let comparisons = unique("comparisons");
        topics.make(&comparisons, 1, "1000000");
        let shelf = Shelf::with("fraud-lr", "2");
        let mut worker = topics.start_worker(&[
            "--challenger",
            shelf.path().to_str().unwrap(),
            "--challenger-topic",
            &comparisons,
            "--guarantee",
            guarantee,
            "-X",
            "topic.metadata.refresh.interval.ms=500",
            "-X",
            "topic.metadata.propagation.max.ms=500",
        ]);
        send(&topics, 0, None, 10);
        topics.subscribe(&comparisons).wait_for("comparisons", 10, LIMIT);
        topics.delete(&comparisons);
        assert_verdicts_do_without_comparisons(&topics, &mut worker);
        assert_eq!(worker.get("/readyz").0, 200);
        end(worker, 0);
    }
}

#[test]
fn a_comparison_topic_that_is_forbidden_stops_no_verdict() {
    let broker = Broker::start_with_access_lists();
    for guarantee in GUARANTEES {
        let topics = Topics::create(&broker, 1);
        let comparisons = unique("comparisons");
        topics.make(&comparisons, 1, "1000000");
        let shelf = Shelf::with("fraud-lr", "2");
        let (user, password) = SASL_USER;
        let mut command = topics.worker();
        command.args(["--challenger", shelf.path().to_str().unwrap(), "--challenger-topic", &comparisons]);
        command.args(["--guarantee", guarantee]).env(
            "FRAUD_SCORER_PROPERTY",
            format!(
                "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={user}\nsasl.password={password}"
            ),
        );
        let mut worker = Running::start(command);
        worker.wait_until_ready();
        send(&topics, 0, None, 10);
        topics.subscribe(&comparisons).wait_for("comparisons", 10, LIMIT);
        broker.forbid_writing(&comparisons);
        assert_verdicts_do_without_comparisons(&topics, &mut worker);
        wait_for("ready", LIMIT, || (worker.get("/readyz").0 == 200).then_some(()));
        end(worker, 0);
    }
}

#[test]
fn work_that_is_thrown_away_again_and_again_makes_the_worker_unready_until_a_commit() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 1);
        let mut worker = topics.start_worker(&[
            "--guarantee",
            guarantee,
            "-X",
            "topic.metadata.refresh.interval.ms=500",
            "-X",
            "topic.metadata.propagation.max.ms=500",
        ]);
        topics.delete(&topics.output);
        send(&topics, 0, None, 10);
        wait_for("not ready", LIMIT, || (worker.get("/readyz").0 == 503).then_some(()));
        topics.make_with(&topics.output, 1, &[]);
        wait_for_verdicts(&topics, 0, 10);
        wait_for("ready again", LIMIT, || (worker.get("/readyz").0 == 200).then_some(()));
        let counted = wait_for("all are counted", LIMIT, || {
            worker.value("fraud_scorer_transactions_total").filter(|counted| *counted >= 10.0)
        });
        assert_eq!(counted, 10.0, "{guarantee}");
        end(worker, 0);
    }
}
