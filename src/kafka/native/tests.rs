use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Default)]
struct Counts {
    delivered: AtomicUsize,
    failed: AtomicUsize,
    bytes: AtomicUsize,
}

impl Reports for Counts {
    fn settled(&self, tag: usize, outcome: Result<(), RDKafkaErrorCode>, size: impl FnOnce() -> usize) {
        assert_eq!(tag, 7);
        let counter = if outcome.is_ok() { &self.delivered } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(size(), Ordering::Relaxed);
    }

    fn error(&self, _error: KafkaError, _reason: &str) {}

    fn statistics(&self, _json: &[u8]) {}
}

fn nowhere() -> NativeProducer<Counts> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", "127.0.0.1:1").set("queue.buffering.max.messages", "100");
    let standing = vec![("model".into(), Some(b"fraud@3".as_slice().into()))];
    NativeProducer::open(&config, &["out"], &standing, Counts::default()).expect("a producer")
}

#[test]
fn what_did_not_fit_is_told_and_closing_takes_lent_headers_back() {
    let producer = nowhere();
    let interceptors = producer.interceptors.clone();
    let messages = || (0..150).map(|_| (Some(b"key".as_slice()), b"value".as_slice()));
    let mut buffer = ProduceBuffer::default();
    assert_eq!(producer.produce("out", 0, 7, messages().take(60), &mut buffer), Ok(Produced::All));
    assert_eq!(producer.produce("out", 0, 7, messages().take(60), &mut buffer), Ok(Produced::Full(40)));
    assert_eq!(interceptors.standing.lent(), 100);
    let own = vec![("own".into(), None)];
    assert_eq!(producer.produce_one("out", 0, 7, None, None, &own), Ok(Produced::Full(0)));
    let unknown = producer.produce("elsewhere", 0, 7, messages(), &mut buffer).expect_err("no such topic");
    assert_eq!(unknown.code, RDKafkaErrorCode::UnknownTopic);
    assert!(producer.outstanding() >= 100, "events of the client count as well");

    drop(producer);
    assert_eq!(interceptors.standing.lent(), 0, "every message gave the headers back");
    assert_eq!(interceptors.reports.failed.load(Ordering::Relaxed), 100);
    assert_eq!(interceptors.reports.bytes.load(Ordering::Relaxed), 100 * ("key".len() + 5 + 5 + 7));
    assert_eq!(Arc::strong_count(&interceptors), 1, "and the client was closed, not given up");
}

#[test]
fn headers_of_their_own_are_freed_with_their_message() {
    let producer = nowhere();
    let interceptors = producer.interceptors.clone();
    let own = vec![("own".into(), Some(b"12".as_slice().into())), ("empty".into(), None)];
    for _ in 0..10 {
        assert_eq!(producer.produce_one("out", 0, 7, Some(b"k"), Some(b"v"), &own), Ok(Produced::All));
    }
    assert_eq!(interceptors.standing.lent(), 0);
    drop(producer);
    assert_eq!(interceptors.reports.failed.load(Ordering::Relaxed), 10);
    assert_eq!(interceptors.reports.bytes.load(Ordering::Relaxed), 10 * (1 + 1 + 3 + 2 + 5));
}

#[test]
fn a_setting_librdkafka_refuses_is_an_error() {
    let mut config = ClientConfig::new();
    config.set("transactional.id", "t").set("enable.idempotence", "false");
    let error = NativeProducer::open(&config, &[], &Vec::new(), Counts::default());
    assert!(error.is_err_and(|error| error.to_string().contains("idempotence")));
}

#[test]
fn standing_headers_are_exchanged_while_messages_hold_the_old_ones() {
    let producer = nowhere();
    let interceptors = producer.interceptors.clone();
    let message = || std::iter::once((None, b"value".as_slice()));
    let mut buffer = ProduceBuffer::default();
    let headers = |value: &'static [u8]| vec![("model".into(), Some(value.into()))];

    assert_eq!(producer.produce("out", 0, 7, message(), &mut buffer), Ok(Produced::All));
    assert!(producer.can_exchange_headers());
    assert!(producer.exchange_headers(&headers(b"fraud@10")), "the other slot is free");
    assert_eq!(producer.produce("out", 0, 7, message(), &mut buffer), Ok(Produced::All));
    assert_eq!(interceptors.standing.lent(), 2);
    // A message still holds the first list: its slot cannot be taken.
    assert!(!producer.can_exchange_headers());
    assert!(!producer.exchange_headers(&headers(b"fraud@100")));
    assert_eq!(producer.produce("out", 0, 7, message(), &mut buffer), Ok(Produced::All));

    drop(producer);
    assert_eq!(interceptors.standing.lent(), 0);
    assert_eq!(interceptors.reports.failed.load(Ordering::Relaxed), 3);
    let with = |model: &str| 5 + "model".len() + model.len();
    let bytes = with("fraud@3") + 2 * with("fraud@10");
    assert_eq!(interceptors.reports.bytes.load(Ordering::Relaxed), bytes, "each carried the headers of its time");
    assert_eq!(Arc::strong_count(&interceptors), 1);
}

#[test]
fn a_thousand_exchanges_free_what_they_replace() {
    let standing = Standing::new(&vec![("model".into(), None)]);
    for number in 0..1_000 {
        standing.lend(3);
        standing.lent_less(2);
        let list = standing.list();
        let lending = standing.lending_of(list).expect("it is one of ours");
        assert!(standing.exchange(&vec![("model".into(), Some(format!("fraud@{number}").into_bytes().into()))]));
        assert!(!standing.is_free(), "the slot before is lent");
        assert_eq!(lending.give_back(), if number == 0 { 5 } else { 11 + (number - 1).to_string().len() });
        assert!(standing.is_free());
    }
    assert!(standing.lending_of(std::ptr::null()).is_none());
}
