//! Whatever arrives ends as a verdict or a dead letter, and the partition goes on.

use std::time::Duration;

use super::support::broker::shared;
use super::support::topics::{Record, Topics, faults};

const LIMIT: Duration = Duration::from_secs(60);

/// A good transaction of the committed models.
pub fn good(id: &str) -> String {
    let features: Vec<String> = (1..=28).map(|number| format!("\"V{number}\":0.5")).collect();
    format!("{{\"transaction_id\":\"{id}\",\"event_time\":1700000000000,{},\"Amount\":12.5}}", features.join(","))
}

fn columns() -> String {
    let names: Vec<String> = (1..=28).map(|number| format!("\"V{number}\"")).collect();
    format!("[{},\"Amount\"]", names.join(","))
}

fn row(values: usize) -> String {
    format!("[{}]", vec!["0.25"; values].join(","))
}

/// Name, value and expected class of every poison.
fn poisons() -> Vec<(&'static str, Option<Vec<u8>>, &'static str)> {
    let text = |value: String| Some(value.into_bytes());
    let spoil = |from: &str, to: &str| {
        let good = good("x");
        assert!(good.contains(from));
        text(good.replacen(from, to, 1))
    };
    let mut truncated = good("caf\u{e9}").into_bytes();
    let cut = truncated.iter().position(|byte| *byte == 0xc3).unwrap();
    truncated.remove(cut + 1);
    let mut huge = good("x").into_bytes();
    huge.pop();
    huge.extend_from_slice(b",\"padding\":\"");
    huge.resize(10_000_000, b'p');
    huge.extend_from_slice(b"\"}");
    let deep = "{\"a\":".repeat(10_000) + "1" + &"}".repeat(10_000);
    vec![
        ("broken JSON", text(good("x")[..100].to_owned()), "malformed-json"),
        ("no JSON at all", Some(b"\x00\xff\xfenonsense".to_vec()), "malformed-json"),
        ("truncated UTF-8", Some(truncated), "malformed-json"),
        ("missing feature", spoil("\"V14\":0.5,", ""), "missing-feature"),
        ("null feature", spoil("\"V14\":0.5", "\"V14\":null"), "missing-feature"),
        ("text where a number belongs", spoil("\"V7\":0.5", "\"V7\":\"a lot\""), "not-a-number"),
        ("1e999", spoil("\"V7\":0.5", "\"V7\":1e999"), "not-a-number"),
        ("NaN literal", spoil("\"V7\":0.5", "\"V7\":NaN"), "not-a-number"),
        ("empty value", Some(Vec::new()), "malformed-json"),
        ("tombstone", None, "malformed-json"),
        ("10 MB", Some(huge), "too-large"),
        (
            "row of the wrong width",
            text(format!("{{\"columns\":{},\"data\":[{}]}}", columns(), row(28))),
            "wrong-shape",
        ),
        (
            "one bad row among good ones",
            text(format!("{{\"columns\":{},\"data\":[{},{}]}}", columns(), row(29), row(30))),
            "wrong-shape",
        ),
        ("deeply nested", text(deep), "malformed-json"),
        (
            "deeply nested beside good features",
            spoil("{", &format!("{{\"deep\":{}1{},", "[".repeat(5000), "]".repeat(5000))),
            "malformed-json",
        ),
        ("duplicate key", spoil("\"V7\":0.5", "\"V7\":0.5,\"V7\":0.5"), "malformed-json"),
        ("an array", text("[1,2,3]".into()), "unknown-schema"),
        ("a time that is none", spoil("1700000000000", "\"yesterday\""), "invalid-event-time"),
    ]
}

#[test]
fn every_poison_becomes_a_dead_letter_byte_for_byte_and_the_partition_goes_on() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let topics = Topics::create(shared(), 1);
        let poisons = poisons();
        let mut goods = Vec::new();
        for (index, _) in poisons.iter().enumerate() {
            goods.push(good(&format!("good-{index}")));
        }
        goods.push(format!("{{\"columns\":{},\"data\":[{},{}]}}", columns(), row(29), row(29)));
        let trace: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut records = Vec::new();
        for (index, good) in goods.iter().enumerate() {
            if let Some((name, value, _)) = poisons.get(index) {
                records.push(Record {
                    key: Some(name.as_bytes()),
                    value: value.as_deref(),
                    headers: vec![("own", b"header"), ("error.class", b"forged"), ("source.offset", b"0")],
                    ..Record::default()
                });
            }
            records.push(Record {
                value: Some(good.as_bytes()),
                headers: vec![("traceparent", trace)],
                ..Record::default()
            });
        }
        topics.send(&records);
        let mut worker = topics.start_worker(&["--guarantee", guarantee]);

        // Behind each poison stands a good transaction: one verdict each, two for the last message's two rows.
        let rows = goods.len() + 1;
        let mut subscriber = topics.subscribe(&topics.output);
        subscriber.wait_for("verdicts behind the poison", rows, LIMIT);
        assert_eq!(faults(&subscriber.seen, rows), Vec::<String>::new());
        for message in &subscriber.seen {
            assert_eq!(message.header("traceparent").unwrap().as_bytes(), trace);
            assert_eq!(message.key, None);
        }
        let last = subscriber.seen[rows - 1].verdict();
        assert_eq!((last.source.row, last.transaction_id), (1, format!("{}-0-{}-1", topics.input, records.len() - 1)));

        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("dead letters", poisons.len(), LIMIT);
        letters.settle(Duration::from_millis(300));
        assert_eq!(letters.seen.len(), poisons.len());
        let schema = serde_json::from_str(include_str!("../../docs/schemas/dead-letter-headers.json")).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        for (index, ((name, value, class), letter)) in poisons.iter().zip(&letters.seen).enumerate() {
            assert!(letter.value == *value, "{name}: the value differs");
            assert_eq!(letter.key.as_deref(), Some(name.as_bytes()));
            let message = letter.header("error.message").unwrap();
            assert_eq!(letter.header("error.class").as_deref(), Some(*class), "{name}: {message}");
            assert_eq!(letter.header("own").as_deref(), Some("header"), "{name}");
            for ours in ["error.class", "source.offset"] {
                let count = letter.headers.iter().filter(|(key, _)| key == ours).count();
                assert_eq!(count, 1, "{name}: what the record said under {ours} is gone");
            }
            assert_eq!(letter.header("source.topic").as_ref(), Some(&topics.input));
            assert_eq!(letter.header("source.offset"), Some((2 * index).to_string()), "{name}");
            let headers: serde_json::Map<String, serde_json::Value> = letter
                .headers
                .iter()
                .map(|(key, value)| (key.clone(), String::from_utf8(value.clone().unwrap()).unwrap().into()))
                .collect();
            schema.validate(&headers.into()).unwrap_or_else(|error| panic!("{name}: {error}"));
            if *class == "missing-feature" {
                assert!(message.contains("V14"), "{name}: {message} names the field");
            }
        }
        let counted = "fraud_scorer_dead_letters_total{error_class=\"too-large\"} 1\n";
        super::support::wait_for("dead letters are counted", LIMIT, || {
            worker.get("/metrics").1.contains(counted).then_some(())
        });
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}

#[test]
fn a_dead_letter_its_topic_refuses_for_its_size_is_written_without_its_value() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let mut topics = Topics::create(shared(), 1);
        topics.dead_letter = super::support::unique("small-dead-letters");
        topics.make(&topics.dead_letter, 1, "100000");
        let big = vec![b'x'; 500_000];
        let goods = [good("before"), good("behind")];
        topics.send(&[
            Record { value: Some(goods[0].as_bytes()), ..Record::default() },
            Record { value: Some(&big), key: Some(b"big"), ..Record::default() },
            Record { value: Some(goods[1].as_bytes()), ..Record::default() },
        ]);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        let mut subscriber = topics.subscribe(&topics.output);
        wait_for_ids(&mut subscriber, &["before", "behind"]);
        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("the dead letter", 1, LIMIT);
        let letter = &letters.seen[0];
        assert_eq!((letter.value.as_deref(), letter.key.as_deref()), (None, Some(b"big".as_slice())));
        assert_eq!(letter.header("error.value-omitted").as_deref(), Some("500000"));
        assert_eq!(letter.header("source.offset").as_deref(), Some("1"));
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
        if guarantee == "exactly-once" {
            assert_eq!(topics.read(&topics.output).len(), 2, "the redo doubled nothing");
        }
    }
}

#[test]
fn a_verdict_its_topic_refuses_for_its_size_becomes_a_dead_letter() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let mut topics = Topics::create(shared(), 1);
        topics.output = super::support::unique("small-verdicts");
        topics.make(&topics.output, 1, "50000");
        let long = good(&"x".repeat(200_000));
        // Enough good ones that their verdicts fill batches larger than the topic takes, too.
        let goods: Vec<String> = (0..2_000).map(|number| good(&format!("good-{number}"))).collect();
        let mut records: Vec<Record<'_>> =
            goods.iter().map(|good| Record { value: Some(good.as_bytes()), ..Record::default() }).collect();
        records.insert(1_000, Record { value: Some(long.as_bytes()), ..Record::default() });
        topics.send(&records);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("the dead letter", 1, LIMIT);
        assert_eq!(letters.seen[0].value.as_deref(), Some(long.as_bytes()));
        assert_eq!(letters.seen[0].header("error.class").as_deref(), Some("too-large"));
        assert_eq!(letters.seen[0].header("source.offset").as_deref(), Some("1000"));
        let mut subscriber = topics.subscribe(&topics.output);
        wait_for_ids(&mut subscriber, &["good-0", "good-999", "good-1000", "good-1999"]);
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
        let ids: std::collections::HashSet<String> =
            topics.read(&topics.output).iter().map(|message| message.verdict().transaction_id).collect();
        assert_eq!(ids.len(), 2_000, "{guarantee}");
        if guarantee == "exactly-once" {
            assert_eq!(topics.read(&topics.output).len(), 2_000, "the redos doubled nothing");
            assert_eq!(topics.read(&topics.dead_letter).len(), 1);
        }
    }
}

#[test]
fn a_dead_letter_with_a_key_its_topic_refuses_is_written_without_it() {
    let mut topics = Topics::create(shared(), 1);
    topics.dead_letter = super::support::unique("small-dead-letters");
    topics.make(&topics.dead_letter, 1, "20000");
    let key = vec![b'k'; 100_000];
    let behind = good("behind");
    topics.send(&[
        Record { value: Some(b"nonsense"), key: Some(&key), headers: vec![("own", b"header")], ..Record::default() },
        Record { value: Some(behind.as_bytes()), ..Record::default() },
    ]);
    let worker = topics.start_worker(&[]);
    let mut subscriber = topics.subscribe(&topics.output);
    wait_for_ids(&mut subscriber, &["behind"]);
    let mut letters = topics.subscribe(&topics.dead_letter);
    letters.wait_for("the dead letter", 1, LIMIT);
    let letter = &letters.seen[0];
    assert_eq!((letter.value.as_deref(), letter.key.as_deref()), (None, None));
    assert_eq!(letter.header("error.key-omitted").as_deref(), Some("100000"));
    assert_eq!(letter.header("error.value-omitted").as_deref(), Some("8"));
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

/// Reads until verdicts on all `ids` were seen (at least once may repeat them).
fn wait_for_ids(subscriber: &mut super::support::topics::Subscriber, ids: &[&str]) {
    subscriber.wait_until("verdicts", LIMIT, |seen| {
        ids.iter().all(|id| seen.iter().any(|message| message.verdict().transaction_id == *id))
    });
}
