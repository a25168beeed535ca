use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Counts {
    delivered: AtomicUsize,
    failed: AtomicUsize,
    bytes: AtomicUsize,
}

impl Deliveries for Counts {
    fn settled(&self, message: Settled<'_>) {
        assert_eq!((message.tag(), message.partition()), (7, 0));
        let counter = if message.error().is_none() { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(message.size(), Ordering::Relaxed);
        if let Some(own) = message.header(c"own") {
            assert_eq!((own, message.value()), (b"12".as_slice(), Some(b"v".as_slice())));
        }
    }
}

impl Reports for Counts {
    fn error(&self, _code: RDKafkaErrorCode, _reason: &str) {}
}

fn nowhere() -> NativeProducer<Counts> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", "127.0.0.1:1").set("queue.buffering.max.messages", "100");
    NativeProducer::open(&config, &["out"], Counts::default()).expect("a producer")
}

#[test]
fn what_did_not_fit_is_told_and_closing_reports_what_was_queued() {
    let producer = nowhere();
    let reports = producer.reports.clone();
    let messages = || (0..150).map(|_| (Some(b"key".as_slice()), b"value".as_slice()));
    let mut buffer = ProduceBuffer::default();
    assert_eq!(producer.produce("out", 0, 7, messages().take(60), &mut buffer), Ok(Produced::All));
    assert_eq!(producer.produce("out", 0, 7, messages().take(60), &mut buffer), Ok(Produced::Full(40)));
    let own = vec![("own".into(), None)];
    assert_eq!(producer.produce_one("out", 0, 7, None, None, &own), Ok(Produced::Full(0)));
    let unknown = producer.produce("elsewhere", 0, 7, messages(), &mut buffer).expect_err("no such topic");
    assert_eq!(unknown.code, RDKafkaErrorCode::UnknownTopic);
    assert!(producer.outstanding() >= 100, "events of the client count as well");

    drop(producer);
    assert_eq!(reports.failed.load(Ordering::Relaxed), 100);
    assert_eq!(reports.bytes.load(Ordering::Relaxed), 100 * ("key".len() + "value".len()));
    assert_eq!(Arc::strong_count(&reports), 1, "and the client was closed, not given up");
}

#[test]
fn headers_of_their_own_are_freed_with_their_message() {
    let producer = nowhere();
    let reports = producer.reports.clone();
    let own = vec![("own".into(), Some(b"12".as_slice().into())), ("empty".into(), None)];
    for _ in 0..10 {
        assert_eq!(producer.produce_one("out", 0, 7, Some(b"k"), Some(b"v"), &own), Ok(Produced::All));
    }
    drop(producer);
    assert_eq!(reports.failed.load(Ordering::Relaxed), 10);
    assert_eq!(reports.bytes.load(Ordering::Relaxed), 10 * (1 + 1 + 3 + 2 + 5));
}

#[test]
fn a_setting_librdkafka_refuses_is_an_error() {
    let mut config = ClientConfig::new();
    config.set("transactional.id", "t").set("enable.idempotence", "false");
    let error = NativeProducer::open(&config, &[], Counts::default());
    assert!(error.is_err_and(|error| error.to_string().contains("idempotence")));
}
