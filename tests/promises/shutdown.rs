//! SIGTERM drains, commits, and leaves the group within two seconds.

use std::time::{Duration, Instant};

use super::support::broker::shared;
use super::support::topics::{Topics, faults};

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_busy_worker_drains_and_leaves_within_two_seconds() {
    const ROWS: usize = 30_000;
    let topics = Topics::create(shared(), 2);
    let first = topics.start_worker(&[]);
    let producer = topics.start_producer(5_000, ROWS, 11);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts under load", 3_000, LIMIT);

    let began = Instant::now();
    first.terminate();
    let output = first.finish(LIMIT);
    let took = began.elapsed();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_secs(2), "leaving took {took:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("drained and left"));

    // It left the group: the next member gets the partitions without waiting for a session to time out.
    topics.wait_until_all_left();
    let second = topics.start_worker(&[]);
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    subscriber.settle(Duration::from_millis(300));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    second.terminate();
    assert_eq!(second.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn an_idle_worker_leaves_at_once_with_either_guarantee() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let topics = Topics::create(shared(), 1);
        let worker = topics.start_worker(&["--guarantee", guarantee, "--threads", "2"]);
        let began = Instant::now();
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
        assert!(began.elapsed() < Duration::from_secs(2), "{guarantee}: {:?}", began.elapsed());
    }
}

#[test]
fn members_without_partitions_leave_the_group_too() {
    let topics = Topics::create(shared(), 1);
    let worker = topics.start_worker(&["--threads", "4"]);
    super::support::wait_for("four members", LIMIT, || (topics.members() == Some(4)).then_some(()));
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    topics.wait_until_all_left();
}

#[test]
fn a_worker_whose_log_nobody_reads_any_more_still_obeys() {
    use std::io::{BufRead, BufReader};
    let topics = Topics::create(shared(), 1);
    let mut child = topics.worker().stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("partitions assigned") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the worker ended early");
    }
    drop(log);
    assert!(std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let status = super::support::wait_for("the worker ends", Duration::from_secs(10), || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
