//! A leader that lacks a partition's end takes over (an unclean election): what the log holds then is scored, and what it lost is
//! said. With three brokers: the group's offsets, transactions and verdicts on one, the input on the other two.

use std::time::Duration;

use rdkafka::admin::TopicReplication;

use super::gaps::{end, ids, send};
use super::support::broker::Broker;
use super::support::topics::Topics;
use super::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until all of these have verdicts.
fn wait_for_all(topics: &Topics, numbers: std::ops::Range<usize>) {
    let wanted: Vec<String> = numbers.map(|number| format!("t{number}")).collect();
    topics.subscribe(&topics.output).wait_until("every record that the log holds has a verdict", LIMIT, |found| {
        let found: std::collections::HashSet<String> =
            found.iter().map(|message| message.verdict().transaction_id).collect();
        wanted.iter().all(|id| found.contains(id))
    });
}

fn wait_until_committed(topics: &Topics, offset: i64) {
    wait_for("the offsets are committed", LIMIT, || (topics.committed(0).0 == Some(offset)).then_some(()));
}

/// The second broker goes on without the third, ends, and the third takes over with what it has.
fn elect(
    topics: &Topics,
    leader: &mut Broker,
    follower: &mut Broker,
    lost: std::ops::Range<usize>,
    read: impl FnOnce(),
) {
    follower.crash();
    send(topics, lost);
    read();
    leader.crash();
    follower.up();
}

#[test]
fn what_a_leader_holds_that_lacks_the_logs_end_is_scored_and_the_loss_is_said() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let first = Broker::start();
        let topics = Topics::create(&first, 1);
        // The first broker gets the group's offsets and the transactions while it is alone.
        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        worker.wait_until_ready();
        end(worker);
        let (mut second, mut third) = (first.join(2), first.join(3));
        topics.delete(&topics.input);
        let settings = [("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")];
        topics.make_on(&topics.input, 1, TopicReplication::Variable(&[&[2, 3]]), &settings);

        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        send(&topics, 0..50);
        wait_for_all(&topics, 0..50);
        // Under a running worker: the new log ends before its position.
        elect(&topics, &mut second, &mut third, 50..80, || wait_for_all(&topics, 50..80));
        send(&topics, 100..120);
        wait_for_all(&topics, 100..120);
        worker.wait_for_log("records are gone that were not read", LIMIT);
        let series = format!(
            "fraud_scorer_records_gone_total{{topic=\"{}\",partition=\"0\",reason=\"truncated\"}}",
            topics.input
        );
        wait_for("the loss is counted", LIMIT, || worker.value(&series).filter(|lost| *lost >= 1.0));
        wait_until_committed(&topics, 70);
        end(worker);

        // While no worker runs: the new log has grown beyond the group's offset.
        second.up();
        wait_for("both have the log", LIMIT, || (topics.in_sync(&topics.input) == 2).then_some(()));
        let mut worker = topics.start_worker(&["--guarantee", guarantee]);
        elect(&topics, &mut third, &mut second, 200..210, || {
            wait_for_all(&topics, 200..210);
            wait_until_committed(&topics, 80);
        });
        end(worker);
        send(&topics, 300..340);
        worker = topics.start_worker(&["--guarantee", guarantee]);
        wait_for_all(&topics, 300..340);
        worker.wait_for_log("records are gone that were not read", LIMIT);
        wait_until_committed(&topics, 110);
        // An epoch says where the logs part: no record that both hold is scored twice.
        let mut seen = std::collections::HashSet::new();
        let doubled: Vec<String> = ids(&topics).into_iter().filter(|id| !seen.insert(id.clone())).collect();
        assert!(doubled.is_empty(), "{guarantee}: {doubled:?}");

        // Made again, its leaders count their epochs from the start: librdkafka takes them for those of before.
        third.up();
        topics.delete(&topics.input);
        topics.make_on(&topics.input, 1, TopicReplication::Variable(&[&[3, 2]]), &settings);
        send(&topics, 400..440);
        wait_for_all(&topics, 400..440);
        worker.wait_for_log("the input topic was deleted and made again", LIMIT);
        wait_until_committed(&topics, 40);
        worker.wait_until_ready();
        end(worker);
    }
}
