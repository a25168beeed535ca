use rdkafka::Offset;

use super::*;
use crate::kafka::admin;
use crate::kafka::client::{Events, lone_consumer};

/// A code that no Kafka has sent yet.
const LATER: c_int = 4711;

const LIMIT: Duration = Duration::from_secs(10);

// Kinds of requests, by the numbers of Kafka's protocol.
const LIST_OFFSETS: i16 = 2;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;

/// A client with a mock cluster of its own.
fn client() -> NativeConsumer<Events> {
    let mut config = ClientConfig::new();
    config.set("test.mock.num.brokers", "1").set("group.id", "g").set("enable.auto.commit", "false");
    let client = lone_consumer(&config, Arc::default()).expect("a client");
    // SAFETY: the cluster belongs to the client; it copies the name.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.as_ptr());
        sys::rd_kafka_mock_topic_create(cluster, c"t".as_ptr(), 2, 1);
    }
    let found = client.metadata("t", LIMIT).expect("an answer");
    assert_eq!((found.error, found.brokers.len(), found.partitions.len()), (0, 1, 2));
    assert_ne!(client.metadata("other", LIMIT).expect("an answer").error, 0);
    client
}

fn answer_next(client: &NativeConsumer<Events>, request: i16, code: c_int) {
    // Asked for a log's start and end, librdkafka sends two requests.
    let errors = [code; 2];
    // SAFETY: the cluster belongs to the client; the array is valid for the call, and of ints on librdkafka's side.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(client.as_ptr());
        sys::rd_kafka_mock_push_request_errors_array(cluster, request, errors.len(), errors.as_ptr().cast());
    }
}

fn list() -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("t", 0, Offset::Offset(7)).expect("an offset");
    list
}

#[test]
fn codes_of_a_later_kafka_are_values_and_shown_by_number() {
    let client = client();
    let shows = |what: &str, outcome: Result<(), Failure>| {
        let reason = outcome.expect_err(what).reason;
        assert!(reason.contains("4711"), "{what}: {reason}");
    };
    answer_next(&client, LIST_OFFSETS, LATER);
    shows("ListOffsets", client.watermarks("t", 0, LIMIT).map(|_| ()));
    answer_next(&client, OFFSET_COMMIT, LATER);
    shows("OffsetCommit", client.commit(&list(), true));
    answer_next(&client, OFFSET_FETCH, LATER);
    shows("OffsetFetch", client.committed(&list(), LIMIT).map(|_| ()));
}

#[test]
fn what_is_committed_comes_back() {
    let client = client();
    assert!(client.committed(&list(), LIMIT).expect("an answer").is_empty());
    client.commit(&list(), true).expect("a commit");
    let found = client.committed(&list(), LIMIT).expect("an answer");
    assert_eq!(found.iter().map(|entry| (entry.partition, entry.offset)).collect::<Vec<_>>(), [(0, 7)]);
    assert_eq!(client.watermarks("t", 0, LIMIT).expect("an answer"), (0, 0));
}

#[test]
fn what_a_cluster_does_not_know_is_a_failure_in_words() {
    // librdkafka's mock cluster has no controller's requests.
    let refused = admin::create_topic(&client(), "new", 1, &[("retention.ms", "-1")], Duration::from_secs(2))
        .expect_err("no answer");
    assert!(!refused.reason.is_empty());
    assert_eq!(admin::max_message_bytes(&client(), "t", Duration::from_secs(2)), None);
}
