use super::*;
use crate::kafka::batch::{BatchBuffer, Entry, RecordQueue};
use crate::kafka::client::{consumer_config, idempotent_config, lone_consumer};
use crate::kafka::embedded::EmbeddedBroker;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Instant;

type Read = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

/// Everything in partition 1 of `topic`.
fn read(base: &ClientConfig, topic: &str, count: usize) -> Vec<Read> {
    let consumer =
        lone_consumer(&consumer_config(base, "test", 0, 1), Arc::default()).map(Arc::new).expect("a consumer");
    let queue = RecordQueue::new(consumer.clone());
    queue.forward(topic, 1);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 1, Offset::Beginning).expect("an offset");
    consumer.assign(&list).expect("assigned");
    let (mut buffer, mut all) = (BatchBuffer::new(64), Vec::new());
    let deadline = Instant::now() + Duration::from_secs(20);
    while all.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} read", all.len());
        let batch = queue.fill(&mut buffer, Duration::from_millis(100));
        for entry in batch.iter() {
            let Entry::Record(record) = entry else { continue };
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            let headers: Vec<_> = record.headers().into_iter().map(|(name, value)| (name, owned(value))).collect();
            let trace = headers.iter().find(|(name, _)| name == "traceparent").and_then(|(_, value)| value.clone());
            assert_eq!(owned(record.header(c"traceparent")), trace, "looking and parsing agree");
            all.push((owned(record.key()), owned(record.payload()), headers));
        }
    }
    all
}

#[test]
fn verdicts_arrive_in_order_however_often_the_queue_is_full() {
    let broker = EmbeddedBroker::start(&["out", "letters"], 2).expect("a broker");
    let mut base = ClientConfig::new();
    base.set("bootstrap.servers", broker.address()).set("queue.buffering.max.messages", "100");
    let outbox = Outbox::open(&idempotent_config(&base), &["out", "letters"], Arc::default());
    let outbox = outbox.expect("an outbox");
    let values: Vec<String> = (0..1000).map(|number| format!("value {number}")).collect();
    let traced = Outgoing {
        kind: Kind::Verdict,
        topic: "out",
        partition: 1,
        key: None,
        value: Some(b"traced"),
        headers: vec![("traceparent".into(), Some(b"00-1".as_slice().into()))],
    };
    let (mut sent, mut buffer) = (0, ProduceBuffer::default());
    while sent < values.len() {
        let rest = values[sent..].iter().map(|value| (Some(b"key".as_slice()), value.as_bytes()));
        sent = match outbox.send_together((Kind::Verdict, "out"), 1, 5, rest, &mut buffer).expect("a good client") {
            Produced::All => values.len(),
            Produced::Full(queued) => sent + queued,
        };
        outbox.flush(Duration::from_millis(10));
    }
    while outbox.send(&traced, 5).expect("a good client") != Produced::All {
        outbox.flush(Duration::from_millis(10));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    while outbox.undelivered(5) > 0 {
        assert!(Instant::now() < deadline, "{} undelivered", outbox.undelivered(5));
        outbox.flush(Duration::from_millis(10));
    }
    assert_eq!((outbox.undelivered(5), outbox.undelivered(4)), (0, 0));
    assert_eq!(outbox.failure(), None);

    let read = read(&base, "out", values.len() + 1);
    for ((key, value, headers), wanted) in read.iter().zip(&values) {
        assert_eq!((key.as_deref(), value.as_deref()), (Some(b"key".as_slice()), Some(wanted.as_bytes())));
        assert_eq!(headers, &[], "a verdict has none of its own");
    }
    let (key, value, headers) = &read[values.len()];
    assert_eq!((key, value.as_deref()), (&None, Some(b"traced".as_slice())));
    assert_eq!(headers, &[("traceparent".to_owned(), Some(b"00-1".to_vec()))]);
}
