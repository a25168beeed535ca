//! Nothing is skipped in silence: what was gone before it was read is said and counted, and all that the log holds is scored.

use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::poison::good;
use super::support::broker::shared;
use super::support::process::Running;
use super::support::topics::{Record, Topics};
use super::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

const GUARANTEES: [&str; 2] = ["exactly-once", "at-least-once"];

/// Sends good transactions of these numbers to partition 0.
pub fn send(topics: &Topics, numbers: std::ops::Range<usize>) {
    let values: Vec<String> = numbers.map(|number| good(&format!("t{number}"))).collect();
    topics.send(
        &values.iter().map(|value| Record { value: Some(value.as_bytes()), ..Record::default() }).collect::<Vec<_>>(),
    );
}

pub fn end(worker: Running) {
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

/// Ids of all verdicts, in order.
pub fn ids(topics: &Topics) -> Vec<String> {
    topics.read(&topics.output).iter().map(|message| message.verdict().transaction_id).collect()
}

fn wait_for_verdicts(topics: &Topics, count: usize) {
    topics.subscribe(&topics.output).wait_for("verdicts", count, LIMIT);
}

#[test]
fn what_retention_deleted_before_it_was_read_is_said_and_counted() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 1);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        send(&topics, 0..50);
        wait_for_verdicts(&topics, 50);
        end(worker);
        send(&topics, 50..100);
        topics.delete_records(&topics.input, 0, 80);

        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        worker.wait_for_log("records are gone that were not read", LIMIT);
        let series = |reason: &str| {
            format!("fraud_scorer_records_gone_total{{topic=\"{}\",partition=\"0\",reason=\"{reason}\"}}", topics.input)
        };
        wait_for("the gap is counted", LIMIT, || worker.value(&series("deleted")).filter(|gone| *gone == 30.0));
        wait_for_verdicts(&topics, 70);
        let expected: Vec<String> = (0..50).chain(80..100).map(|number| format!("t{number}")).collect();
        assert_eq!(ids(&topics), expected, "{guarantee}");
        end(worker);
    }
}

#[test]
fn a_topic_that_is_made_anew_under_a_running_worker_is_scored_from_its_start() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 1);
        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        send(&topics, 0..50);
        wait_for_verdicts(&topics, 50);
        // Once with fewer records than were read, once with more: the old position is then one of the new log's.
        topics.remake(&topics.input, 1, &[]);
        send(&topics, 1000..1030);
        topics.subscribe(&topics.output).wait_for("verdicts on the new topic", 80, LIMIT);
        wait_for("the new topic's offset is committed", LIMIT, || (topics.committed(0).0 == Some(30)).then_some(()));
        topics.remake(&topics.input, 1, &[]);
        send(&topics, 2000..2100);
        topics.subscribe(&topics.output).wait_for("verdicts on the third topic", 180, LIMIT);
        wait_for("the third topic's offset is committed", LIMIT, || (topics.committed(0).0 == Some(100)).then_some(()));
        let series = format!(
            "fraud_scorer_records_gone_total{{topic=\"{}\",partition=\"0\",reason=\"recreated\"}}",
            topics.input
        );
        wait_for("it is counted", LIMIT, || worker.value(&series).filter(|times| *times == 2.0));
        end(worker);
        send(&topics, 2100..2110);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        wait_for_verdicts(&topics, 190);
        end(worker);

        // While no worker runs, the broker deletes the group's offsets with the topic.
        topics.remake(&topics.input, 1, &[]);
        send(&topics, 3000..3200);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        wait_for_verdicts(&topics, 390);
        let numbers = (0..50).chain(1000..1030).chain(2000..2110).chain(3000..3200);
        let expected: Vec<String> = numbers.map(|number| format!("t{number}")).collect();
        assert_eq!(ids(&topics), expected, "{guarantee}");
        end(worker);
    }
}

#[test]
fn a_group_without_offsets_says_where_it_begins_also_where_a_reset_is_an_error() {
    for reset in ["earliest", "error"] {
        let topics = Topics::create(shared(), 1);
        send(&topics, 0..10);
        topics.delete_records(&topics.input, 0, 3);
        let property = format!("auto.offset.reset={reset}");
        let mut worker = topics.start_worker(&["-X", &property]);
        worker.wait_for_log("the group has no offset of a partition, which begins here partition=0 offset=3", LIMIT);
        wait_for_verdicts(&topics, 7);
        end(worker);
    }
}

#[test]
fn a_group_that_lost_its_offsets_writes_verdicts_again_only_when_it_is_told_to() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 1);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        send(&topics, 0..10);
        wait_for_verdicts(&topics, 10);
        end(worker);
        topics.forget_group();

        let mut command = topics.worker();
        command.args(["--guarantee", guarantee]);
        let output = super::support::process::finish(command, LIMIT);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("has no offset of partition 0") && text.contains("--rescore"), "{text}");
        assert_eq!(ids(&topics).len(), 10);

        // What begins with what comes writes nothing twice.
        let worker = topics.start_worker(&["--guarantee", guarantee, "-X", "auto.offset.reset=latest"]);
        wait_for("where it begins is committed", LIMIT, || (topics.committed(0) == (Some(10), 10)).then_some(()));
        end(worker);
        topics.forget_group();
        let worker = topics.start_worker(&["--guarantee", guarantee, "--rescore"]);
        wait_for_verdicts(&topics, 20);
        end(worker);
        // It has an offset now, though it read nothing before it was asked to end.
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        end(worker);
        assert_eq!(ids(&topics).len(), 20);
    }
}

#[test]
fn where_a_reset_is_an_error_records_that_are_gone_end_the_worker_with_what_to_do() {
    let topics = Topics::create(shared(), 1);
    let worker = topics.start_worker(&[]);
    send(&topics, 0..5);
    wait_for_verdicts(&topics, 5);
    end(worker);
    send(&topics, 5..20);
    topics.delete_records(&topics.input, 0, 10);
    let mut command = topics.worker();
    command.args(["-X", "auto.offset.reset=error"]);
    let output = super::support::process::finish(command, LIMIT);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("offset 5 is gone") && text.contains("set it to earliest"), "{text}");
}

#[test]
fn an_idle_group_has_no_lag_on_input_that_is_written_in_transactions() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 1);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        let mut config = topics.client.clone();
        let producer: BaseProducer = config.set("transactional.id", &topics.input).create().unwrap();
        producer.init_transactions(LIMIT).unwrap();
        for (count, commit) in [(20, true), (10, false)] {
            producer.begin_transaction().unwrap();
            for number in 0..count {
                let value = good(&format!("t{number}"));
                let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topics.input).payload(value.as_bytes());
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
            producer.flush(LIMIT).unwrap();
            if commit { producer.commit_transaction(LIMIT) } else { producer.abort_transaction(LIMIT) }.unwrap();
        }
        wait_for_verdicts(&topics, 20);
        // 30 records and two markers.
        wait_for("committed is the end", LIMIT, || (topics.committed(0) == (Some(32), 32)).then_some(()));
        end(worker);
        assert_eq!(ids(&topics).len(), 20, "{guarantee}");
    }
}

#[test]
fn a_batch_that_is_damaged_on_the_brokers_disk_stops_its_partition_alone_until_it_is_whole_again() {
    for guarantee in GUARANTEES {
        let topics = Topics::create(shared(), 2);
        send(&topics, 0..20);
        send(&topics, 20..40);
        let good = good("other");
        topics.send(&[Record { partition: 1, value: Some(good.as_bytes()), ..Record::default() }]);
        // A byte of the last record's value: a text of the same length.
        let segment = shared().segment(&topics.input, 0);
        let whole = std::fs::read(&segment).unwrap();
        let place = whole.windows(3).position(|bytes| bytes == b"t39").unwrap();
        let write = |bytes: &[u8]| {
            let mut file = std::fs::File::options().write(true).open(&segment).unwrap();
            file.seek(SeekFrom::Start(place as u64)).unwrap();
            file.write_all(bytes).unwrap();
        };
        write(b"t93");

        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        wait_for_verdicts(&topics, 21);
        wait_for("the partition is named", LIMIT, || {
            let (status, body) = worker.get("/readyz");
            (status == 503 && body.contains(&format!("partition 0 of {}", topics.input)) && body.contains("CRC"))
                .then_some(())
        });
        assert!(!ids(&topics).contains(&"t93".to_owned()), "what is damaged is not scored");
        write(b"t39");
        wait_for_verdicts(&topics, 41);
        worker.wait_until_ready();
        let expected: Vec<String> = (0..40).map(|number| format!("t{number}")).collect();
        let found: Vec<String> = ids(&topics).into_iter().filter(|id| id != "other").collect();
        assert_eq!(found, expected, "{guarantee}");
        end(worker);
    }
}
