//! Metrics: what a worker exposes is what is defined, money included, and its counters never fall.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use fraud_scorer::telemetry::catalogue::{self, Kind, Metric, Values};
use fraud_wire::verdict::Decision;
use rdkafka::producer::{BaseProducer, Producer};
use serde_json::Value;

use super::support::broker::shared;
use super::support::bundles::{Shelf, opinions};
use super::support::process::Running;
use super::support::topics::{Record, Topics};
use super::support::{root, unique, wait_for};

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

/// A family as it is exposed.
#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    samples: Vec<Sample>,
}

/// Name with suffix, labels with their values, value.
type Sample = (String, Vec<(String, String)>, f64);

/// Reads an exposition as Prometheus does, and is as strict as it can be: one description of each, its series behind it.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "{name} is described twice");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "a type without its help");
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let (name, labels, value) = sample(line);
            assert!(name.starts_with(&current), "{line} does not stand with its own");
            families.get_mut(&current).unwrap().samples.push((name, labels, value));
        }
    }
    families
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = if value == "+Inf" { f64::INFINITY } else { value.parse().unwrap() };
    let Some((name, labels)) = series.split_once('{') else { return (series.to_owned(), Vec::new(), value) };
    // No value of these tests has a quote in it.
    let labels = labels.strip_suffix("\"}").unwrap().split("\",");
    let labels = labels.map(|label| label.split_once("=\"").unwrap()).map(|(name, value)| (name.into(), value.into()));
    (name.to_owned(), labels.collect(), value)
}

/// Holds a family against its definition.
fn check(name: &str, family: &Family) {
    let metric = catalogue::all().find(|metric| metric.name == name);
    let Metric { kind, labels, help, .. } = metric.unwrap_or_else(|| panic!("{name} is exposed but not defined"));
    assert_eq!((family.kind.as_str(), family.help.as_str()), (kind.as_str(), *help), "{name}");
    assert!(!family.samples.is_empty(), "{name} is described and has no series");
    let mut series = BTreeSet::new();
    for (sample, found, _) in &family.samples {
        assert!(series.insert((sample, found)), "{sample} {found:?} twice");
        let mut wanted: Vec<&str> = labels.iter().map(|label| label.name).collect();
        match (kind, sample.strip_prefix(name).unwrap()) {
            (Kind::Histogram(_), "_bucket") => wanted.push("le"),
            (Kind::Histogram(_), "_sum" | "_count") | (Kind::Counter | Kind::Gauge, "") => {}
            (_, suffix) => panic!("{name} has a series of {suffix}"),
        }
        assert_eq!(found.iter().map(|(label, _)| label.as_str()).collect::<Vec<_>>(), wanted, "{sample}");
        for (label, (_, value)) in labels.iter().zip(found) {
            if let Values::These(values) = label.values {
                assert!(values.contains(&value.as_str()), "{sample}: {}={value} is not defined", label.name);
            }
        }
    }
}

/// What promtool has to say of an exposition; `None` where it is not installed, which is shown (and fails in CI).
fn complaints(text: &str) -> Option<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing: apt-get install prometheus");
        // Not by a macro, whose output the test harness would keep to itself.
        std::io::stderr().write_all(b"SKIPPED: promtool is missing: apt-get install prometheus\n").unwrap();
        return None;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    Some(said)
}

fn scrape(worker: &mut Running) -> String {
    let (status, text) = worker.get("/metrics");
    assert_eq!(status, 200);
    text
}

/// The value of a series without or with labels.
fn value_of(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

fn end(worker: Running) {
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn everything_exposed_is_defined_and_everything_defined_is_exposed() {
    const ROWS: usize = 4_000;
    let topics = Topics::create(shared(), 2);
    let (champion, challenger) = (Shelf::with("fraud", "1"), Shelf::with("fraud-lr", "2"));
    champion.put_edited("fraud", "1", |_, manifest| manifest + "\ntrained_until = 1700000000000\n");
    let (champion, challenger) = (champion.path(), challenger.path());
    let mut arguments = vec!["--model", champion.to_str().unwrap(), "--challenger", challenger.to_str().unwrap()];
    arguments.extend(["--threads", "2", "--drift-window", "168h", "--drift-sample", "1000000"]);
    let mut worker = topics.start_worker(&arguments);
    topics.send(&[Record { value: Some(b"no JSON"), ..Record::default() }]);
    assert!(topics.start_producer(10_000, ROWS, 31).finish(LIMIT).status.success());
    assert!((400..500).contains(&worker.post("/v1/score", &[]).0), "nothing is no transaction");
    let mut text = String::new();
    wait_for("all rows, drift and both kinds of clients are shown", LIMIT, || {
        text = scrape(&mut worker);
        let shown = [
            format!("fraud_scorer_transactions_total {}\n", ROWS + 1),
            format!("fraud_scorer_challenger_score_difference_count {ROWS}\n"),
            "fraud_scorer_drift_share ".into(),
            "fraud_scorer_kafka_clients{client=\"consumer\",state=\"steady\"} 2\n".into(),
            "fraud_scorer_kafka_messages_total{client=\"producer\"} ".into(),
        ];
        shown.iter().all(|line| text.contains(line.as_str())).then_some(())
    });
    let broker = "fraud_scorer_kafka_connections{client=\"producer\",broker=\"1\"}";
    assert!(value_of(&text, broker) >= Some(1.0), "{text}");
    end(worker);

    // What only a worker that follows a registry shows; it does not answer.
    let topics = Topics::create(shared(), 1);
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["--challenger", "mlflow:fraud@challenger", "--mlflow-uri", "http://127.0.0.1:1", "--model-cache"];
    let mut follower = topics.start_worker(&[&arguments[..], &[cache.path().to_str().unwrap()]].concat());
    let registry = "fraud_scorer_registry_reachable 0\n";
    wait_for("the registry is asked", LIMIT, || scrape(&mut follower).contains(registry).then_some(()));
    let other = scrape(&mut follower);
    end(follower);

    let mut exposed = BTreeSet::new();
    for text in [&text, &other] {
        for (name, family) in families(text) {
            check(&name, &family);
            exposed.insert(name);
        }
        assert_eq!(complaints(text).unwrap_or_default(), "");
    }
    // Those of the archive, of tracing and of faults are looked at where these are: `archive`, `tracing`, `gaps`, `refused`.
    let of_faults = [
        "fraud_scorer_spans_total",
        "fraud_scorer_records_gone_total",
        "fraud_scorer_partition_paused",
        "fraud_scorer_challenger_dropped_total",
    ];
    let elsewhere = |name: &str| name.starts_with("fraud_scorer_archive_") || of_faults.contains(&name);
    let missing: Vec<&str> = catalogue::all()
        .map(|metric| metric.name)
        .filter(|name| !exposed.contains(*name) && !elsewhere(name))
        .collect();
    assert_eq!(missing, Vec::<&str>::new(), "defined and never exposed");
    let always = catalogue::all().filter(|metric| metric.absent.is_none());
    let hidden: Vec<&str> =
        always.map(|metric| metric.name).filter(|name| !other.contains(&format!("# TYPE {name} "))).collect();
    assert_eq!(hidden, Vec::<&str>::new(), "missing in a worker that did nothing, and not said to be");
}

#[test]
fn amounts_are_summed_up_by_decision_once_for_each_verdict() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let topics = Topics::create(shared(), 2);
        let mut worker = topics.start_worker(&["--guarantee", guarantee, "--threads", "2"]);
        let amount = "fraud_scorer_verdict_amount_total{decision=\"decline\"}";
        assert_eq!(value_of(&scrape(&mut worker), amount), Some(0.0), "there before the first verdict");
        // The golden records are of all decisions; every seventh is a refund.
        let golden = std::fs::read_to_string(root().join("models/fraud/golden.jsonl")).unwrap();
        let spoilt = |(index, line): (usize, &str)| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            if index % 7 == 0 {
                record["Amount"] = (-record["Amount"].as_f64().unwrap() - 1.0).into();
            }
            record.to_string().into_bytes()
        };
        let bodies: Vec<Vec<u8>> = golden.lines().enumerate().map(spoilt).collect();
        let record = |(index, body)| Record { value: Some(body), partition: (index % 2) as i32, ..Record::default() };
        topics.send(&bodies.iter().map(Vec::as_slice).enumerate().map(record).collect::<Vec<_>>());
        let counted = format!("fraud_scorer_transactions_total {}\n", bodies.len());
        wait_for("all rows are counted", LIMIT, || scrape(&mut worker).contains(&counted).then_some(()));
        let text = scrape(&mut worker);
        end(worker);

        let input = topics.read(&topics.input);
        let opinions = opinions(&root().join("models/fraud"), &input);
        let mut wanted: HashMap<Decision, f64> = HashMap::new();
        for record in &input {
            let transaction: Value = serde_json::from_slice(record.value.as_deref().unwrap()).unwrap();
            let (_, decision) = opinions[&(record.partition, record.offset)];
            *wanted.entry(decision).or_default() += transaction["Amount"].as_f64().unwrap().max(0.0);
        }
        assert!(wanted.values().filter(|amount| **amount > 0.0).count() >= 2, "a test of one decision shows little");
        for decision in Decision::ALL {
            let series = format!("fraud_scorer_verdict_amount_total{{decision=\"{}\"}}", decision.as_str());
            let (shown, wanted) = (value_of(&text, &series).unwrap(), wanted.get(&decision).copied().unwrap_or(0.0));
            assert!((shown - wanted).abs() <= 1e-2, "{series} {shown}, not {wanted}");
        }
    }
}

#[test]
fn without_the_amounts_feature_there_are_no_amounts() {
    let topics = Topics::create(shared(), 1);
    let mut worker = topics.start_worker(&["--amount-feature", "Betrag"]);
    assert!(topics.start_producer(1_000, 100, 32).finish(LIMIT).status.success());
    let counted = "fraud_scorer_transactions_total 100\n";
    wait_for("all rows are counted", LIMIT, || scrape(&mut worker).contains(counted).then_some(()));
    assert!(!scrape(&mut worker).contains("verdict_amount"));
    end(worker);
}

/// The counters of an exposition, histograms' included, by series.
fn counters(text: &str) -> BTreeMap<String, f64> {
    let counts = |family: &Family| family.kind == "counter" || family.kind == "histogram";
    let families = families(text);
    let samples = families.values().filter(|family| counts(family)).flat_map(|family| &family.samples);
    samples.map(|(name, labels, value)| (format!("{name}{labels:?}"), *value)).collect()
}

#[test]
fn no_counter_falls_or_goes_when_producers_are_fenced_and_opened_anew() {
    const ROWS: usize = 30_000;
    let topics = Topics::create(shared(), 2);
    let instance = unique("pod");
    let mut worker = topics.start_worker(&["--instance-id", &instance]);
    let ids = "fraud_scorer_kafka_producer_ids_total";
    let redone = "fraud_scorer_redone_total";
    let mut last = BTreeMap::new();
    let mut grows = |worker: &mut Running| {
        let text = scrape(worker);
        let now = counters(&text);
        for (series, before) in &last {
            let value = now.get(series).unwrap_or_else(|| panic!("{series} is gone"));
            assert!(value >= before, "{series} fell from {before} to {value}");
        }
        last = now;
        text
    };
    let producer = topics.start_producer(1_500, ROWS, 33);
    wait_for("the producers have told of themselves", LIMIT, || {
        value_of(&grows(&mut worker), ids).filter(|ids| *ids >= 2.0)
    });
    for fenced in 1..=2 {
        // Somebody else takes the thread's transactional id: its producer is refused from then on.
        let mut thief = topics.client.clone();
        thief.set("transactional.id", format!("{}-{instance}-0-{}-0", topics.group, topics.group.len()));
        let thief: BaseProducer = thief.create().unwrap();
        thief.init_transactions(Duration::from_secs(60)).unwrap();
        wait_for("a redo", LIMIT, || value_of(&grows(&mut worker), redone).filter(|redos| *redos >= f64::from(fenced)));
        // Both producers of the thread are opened anew.
        let wanted = 2.0 + 2.0 * f64::from(fenced);
        wait_for("the new producers' words", LIMIT, || value_of(&grows(&mut worker), ids).filter(|ids| *ids >= wanted));
    }
    assert!(producer.finish(LIMIT).status.success());
    let counted = format!("fraud_scorer_transactions_total {ROWS}\n");
    wait_for("all rows, each once", LIMIT, || grows(&mut worker).contains(&counted).then_some(()));
    let text = grows(&mut worker);
    let producers = ["starting", "ready", "in-transaction", "committing", "aborting", "failed"].map(|state| {
        let series = format!("fraud_scorer_kafka_clients{{client=\"producer\",state=\"{state}\"}}");
        value_of(&text, &series).unwrap()
    });
    assert_eq!(producers.iter().sum::<f64>(), 2.0, "those that are gone are not counted: {producers:?}");
    end(worker);
}
