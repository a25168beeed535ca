#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fraud_wire::dead_letter::ErrorClass;
use serde_json::{Value, json};

use super::*;

/// One bundle that serves as long as the process lives.
pub struct FixedBundle {
    bundle: Bundle,
    max_message_bytes: usize,
}

impl FixedBundle {
    /// `bundle`, with transactions of at most `max_message_bytes`.
    pub fn new(bundle: Bundle, max_message_bytes: usize) -> FixedBundle {
        FixedBundle { bundle, max_message_bytes }
    }
}

impl Serving for FixedBundle {
    fn generation(&self) -> u64 {
        1
    }

    fn load(&self) -> Result<Served, ModelError> {
        Served::of(&self.bundle, 1, self.max_message_bytes)
    }
}

fn bundle(name: &str) -> Bundle {
    Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)).unwrap()
}

fn open() -> Scoring {
    let scoring = Scoring::new(1 << 20, Mask::default());
    scoring.open(Arc::new(FixedBundle::new(bundle("fraud"), 1 << 20))).unwrap();
    scoring
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A transaction whose features are all `value`.
fn transaction(value: f64) -> serde_json::Map<String, Value> {
    let names = (1..=28).map(|number| format!("V{number}")).chain(["Amount".to_owned()]);
    names.map(|name| (name, json!(value))).collect()
}

fn ask(scoring: &Scoring, protocol: Protocol, body: &Value) -> Result<Value, Rejection> {
    match runtime().block_on(scoring.score(protocol, body.to_string().into())) {
        Ok(answer) => Ok(serde_json::from_slice(&answer).unwrap()),
        Err(Unscored::Rejected(rejection)) => Err(rejection),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_form_of_a_request_gets_the_same_scores() {
    let scoring = open();
    let mut named = transaction(0.5);
    named.insert("transaction_id".into(), json!("a \"b\""));
    named.insert("event_time".into(), json!(1_700_000_000_000_i64));
    let verdict = ask(&scoring, Protocol::Verdict, &json!(named)).unwrap();
    assert_eq!(verdict["transaction_id"], "a \"b\"");
    assert_eq!(verdict["event_time"], 1_700_000_000_000_i64);
    assert_eq!(verdict["model"], json!({"name": "fraud", "version": "1"}));
    assert_eq!(verdict.get("source"), None);
    let score = &verdict["score"];

    let names: Vec<String> = transaction(0.0).keys().cloned().collect();
    let model_order: Vec<Value> = vec![json!(0.5); names.len()];
    let split = json!({"columns": names, "data": [vec![0.5; 29], vec![0.25; 29]], "index": [7, 8]});
    let listed = ask(&scoring, Protocol::Verdict, &json!({"dataframe_split": split})).unwrap();
    let other = listed["verdicts"][1]["score"].clone();
    assert_eq!(&listed["verdicts"][0]["score"], score);
    assert_ne!(&other, score, "another row, another score");

    let columns: serde_json::Map<String, Value> = names.iter().map(|name| (name.clone(), json!([0.5, 0.25]))).collect();
    for (request, expected) in [
        (json!({"dataframe_split": split}), json!([score, other])),
        (json!({"dataframe_records": [transaction(0.5), transaction(0.25)]}), json!([score, other])),
        (json!({"instances": [transaction(0.25)]}), json!([other])),
        (json!({"instances": [model_order]}), json!([score])),
        (json!({"inputs": [vec![0.25; 29], vec![0.5; 29]], "params": {"x": 1}}), json!([other, score])),
        (json!({"inputs": columns}), json!([score, other])),
        (json!({"inputs": transaction(0.5)}), json!([score])),
    ] {
        assert_eq!(ask(&scoring, Protocol::Mlflow, &request).unwrap(), json!({"predictions": expected}), "{request}");
    }
}

#[test]
fn what_cannot_be_scored_says_where() {
    let scoring = open();
    let mut short = transaction(0.5);
    short.remove("V14");
    let mut words = transaction(0.5);
    words.insert("V3".into(), json!("many"));
    let split = |data: Value| json!({"dataframe_split": {"columns": ["V1"], "data": data}});
    for (protocol, body, class, names) in [
        (Protocol::Verdict, json!(short), ErrorClass::MissingFeature, "V14"),
        (Protocol::Verdict, json!([1]), ErrorClass::UnknownSchema, "array"),
        (
            Protocol::Mlflow,
            json!({"dataframe_records": [transaction(0.5), short]}),
            ErrorClass::MissingFeature,
            "dataframe_records[1]: V14",
        ),
        (Protocol::Mlflow, json!({"instances": [words]}), ErrorClass::NotANumber, "instances[0]: V3"),
        (Protocol::Mlflow, json!({"instances": [transaction(0.5), [1]]}), ErrorClass::WrongShape, "instances[1]"),
        (Protocol::Mlflow, json!({"instances": [[1, 2]]}), ErrorClass::WrongShape, "data[0]"),
        (Protocol::Mlflow, json!({"instances": {"V1": [1]}}), ErrorClass::WrongShape, "instances"),
        (Protocol::Mlflow, json!({"inputs": {"V1": [1], "V2": [1, 2]}}), ErrorClass::WrongShape, "inputs.V2"),
        (Protocol::Mlflow, json!({"inputs": 3}), ErrorClass::WrongShape, "inputs"),
        (Protocol::Mlflow, json!({"inputs": []}), ErrorClass::WrongShape, "no rows"),
        (Protocol::Mlflow, json!({"dataframe_records": {}}), ErrorClass::WrongShape, "dataframe_records"),
        (Protocol::Mlflow, split(json!([[1]])), ErrorClass::MissingFeature, "V2"),
        (Protocol::Mlflow, json!({"dataframe_split": {"data": []}}), ErrorClass::UnknownSchema, "columns"),
        (Protocol::Mlflow, json!({}), ErrorClass::UnknownSchema, "exactly one"),
        (Protocol::Mlflow, json!({"inputs": [[1]], "instances": [[1]]}), ErrorClass::UnknownSchema, "exactly one"),
        (Protocol::Mlflow, json!("text"), ErrorClass::UnknownSchema, "object"),
    ] {
        let rejection = ask(&scoring, protocol, &body).expect_err(names);
        assert_eq!(rejection.class, class, "{body}: {}", rejection.message);
        assert!(rejection.message.contains(names), "{body}: {}", rejection.message);
    }
    let raw = |protocol, body: String| match runtime().block_on(scoring.score(protocol, body.into())) {
        Err(Unscored::Rejected(rejection)) => rejection,
        other => panic!("{other:?}"),
    };
    for body in ["{\"inputs\":[", "{\"inputs\":[[1]]}}", "{\"inputs\":[[1]],\"inputs\":[[1]]}", "NaN", ""] {
        let rejection = raw(Protocol::Mlflow, body.to_owned());
        assert_eq!(rejection.class, ErrorClass::MalformedJson, "{body}: {}", rejection.message);
    }
    // Python's json writes them; whichever way they come, the answer is that of a topic's dead letter.
    let row = json!(transaction(0.5)).to_string();
    let names = json!(transaction(0.5).keys().collect::<Vec<_>>());
    let listed = format!("[{}]", ["0.5"; 29].join(","));
    let column = |text: &str| text.replacen(":0.5", ":[0.5]", 29);
    for literal in ["NaN", "Infinity", "-Infinity"] {
        let spoilt = |text: &str| text.replacen("0.5", literal, 1);
        let topic = raw(Protocol::Verdict, spoilt(&row));
        assert_eq!(topic.class, ErrorClass::NotANumber, "{}", topic.message);
        for body in [
            format!("{{\"dataframe_records\":[{}]}}", spoilt(&row)),
            format!("{{\"instances\":[{}]}}", spoilt(&row)),
            format!("{{\"instances\":[{}]}}", spoilt(&listed)),
            format!("{{\"inputs\":[{}]}}", spoilt(&listed)),
            format!("{{\"inputs\":{}}}", spoilt(&column(&row))),
            format!("{{\"dataframe_split\":{{\"columns\":{names},\"data\":[{}]}}}}", spoilt(&listed)),
        ] {
            let rejection = raw(Protocol::Mlflow, body.clone());
            assert_eq!(rejection.class, ErrorClass::NotANumber, "{body}: {}", rejection.message);
            let names = ["Amount", "V1 "].iter().any(|name| rejection.message.contains(name));
            assert!(names && rejection.message.contains(literal), "{body}: {}", rejection.message);
        }
    }
}

#[test]
fn a_bad_request_does_not_spoil_those_it_waits_with() {
    let scoring = open();
    let bodies = [json!(transaction(0.5)), json!({"V1": "x"}), json!(transaction(0.25))];
    let answers = runtime().block_on(async {
        let asked = bodies.iter().map(|body| {
            let (scoring, body) = (scoring.clone(), body.to_string());
            tokio::spawn(async move { scoring.score(Protocol::Verdict, body.into()).await.is_ok() })
        });
        let mut answers = Vec::new();
        for answer in asked.collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        answers
    });
    assert_eq!(answers, [true, false, true]);
}

#[test]
fn without_a_model_it_says_so_and_a_full_queue_refuses_at_once() {
    let scoring = Scoring::new(1024, Mask::default());
    let unready = runtime().block_on(scoring.score(Protocol::Verdict, "{}".into()));
    assert!(matches!(unready, Err(Unscored::NotReady)));

    // A queue nobody empties.
    let (sender, _receiver) = sync_channel(0);
    scoring.0.queue.set(sender).unwrap();
    let refused = runtime().block_on(scoring.score(Protocol::Verdict, "{}".into()));
    assert!(matches!(refused, Err(Unscored::Overloaded)));
}

/// The golden record with the highest score, as a transaction, and its features.
fn most_suspicious(name: &str) -> (Value, Vec<f32>) {
    let bundle = bundle(name);
    let text = std::fs::read_to_string(bundle.directory.join("golden.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let score = |record: &Value| record["expected_score"].as_f64().unwrap();
    let record = records.max_by(|one, other| score(one).total_cmp(&score(other))).unwrap();
    let value = |feature: &Feature| record[&feature.name].as_f64().unwrap() as f32;
    let features = bundle.manifest.features.iter().map(value).collect();
    (record, features)
}

#[test]
fn what_is_suspicious_is_answered_with_reasons_and_what_is_not_without() {
    let schema = serde_json::from_str::<Value>(include_str!("../../docs/schemas/verdict.json")).unwrap();
    let schema = jsonschema::validator_for(&schema["properties"]["reasons"]).unwrap();
    let scoring = open();
    assert!(scoring.about().unwrap().reasons.unwrap().contains("Shapley"));
    let (suspicious, _) = most_suspicious("fraud");
    let verdict = ask(&scoring, Protocol::Verdict, &suspicious).unwrap();
    assert_eq!(verdict["decision"], "decline");
    let reasons = verdict["reasons"].as_array().unwrap();
    assert!(schema.is_valid(&verdict["reasons"]), "{verdict}");
    let contributions: Vec<f64> = reasons.iter().map(|reason| reason["contribution"].as_f64().unwrap()).collect();
    assert_eq!(contributions.len(), 3);
    assert!(contributions.is_sorted_by(|one, other| one >= other) && contributions[2] > 0.0, "{verdict}");

    let ordinary = scoring.about().unwrap().examples[0].transaction.clone();
    let verdict = ask(&scoring, Protocol::Verdict, &json!(ordinary)).unwrap();
    assert_eq!((&verdict["decision"], verdict.get("reasons")), (&json!("approve"), None));

    // A list of many: the first hundred have reasons, and every verdict is there.
    let names: Vec<&String> = ordinary.keys().collect();
    let row: Vec<&Value> = names.iter().map(|name| &suspicious[name.as_str()]).collect();
    let listed = ask(&scoring, Protocol::Verdict, &json!({"columns": names, "data": vec![row; 250]})).unwrap();
    let verdicts = listed["verdicts"].as_array().unwrap();
    let with: Vec<usize> = (0..verdicts.len()).filter(|&index| verdicts[index].get("reasons").is_some()).collect();
    assert_eq!((verdicts.len(), with), (250, (0..100).collect()));
    assert_eq!(verdicts[99]["reasons"], json!(reasons));
}

#[test]
fn a_verdict_of_the_topic_is_explained_by_its_own_model_only() {
    let scoring = open();
    let (suspicious, features) = most_suspicious("fraud");
    let verdict = ask(&scoring, Protocol::Verdict, &suspicious).unwrap();
    let score = verdict["score"].as_f64().unwrap() as f32;
    let own = ToExplain { generation: 1, features, score };
    let later = ToExplain { generation: 2, ..own.clone() };
    let short = ToExplain { features: vec![0.0; 3], ..own.clone() };
    let wrong = ToExplain { score: 0.02, ..own.clone() };
    let explained = runtime().block_on(scoring.explain(vec![own, later, short, wrong])).unwrap();
    let [Explained::Reasons(json), Explained::OtherModel, Explained::Reasons(narrow), Explained::Reasons(other)] =
        &explained[..]
    else {
        panic!("{explained:?}")
    };
    let json: Value = serde_json::from_str(&format!("{{{}}}", json.strip_prefix(',').unwrap())).unwrap();
    assert_eq!(json["reasons"], verdict["reasons"]);
    assert_eq!((narrow.as_str(), other.as_str()), ("", ""), "no reason is better than a wrong one");
    let unready = runtime().block_on(Scoring::new(1024, Mask::default()).explain(Vec::new()));
    assert!(matches!(unready, Err(Unscored::NotReady)));
}

/// Serves one of two bundles.
struct Switch {
    bundles: [Bundle; 2],
    generation: AtomicU64,
}

impl Serving for Switch {
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    fn load(&self) -> Result<Served, ModelError> {
        let generation = self.generation();
        Served::of(&self.bundles[generation as usize % 2], generation, 1 << 20)
    }
}

#[test]
fn another_model_is_taken_up_without_a_request() {
    let serving = Arc::new(Switch { bundles: [bundle("fraud"), bundle("fraud-lr")], generation: AtomicU64::new(0) });
    let scoring = Scoring::new(1 << 20, Mask::default());
    scoring.open(serving.clone()).unwrap();
    assert_eq!(scoring.about().unwrap().name, "fraud");
    serving.generation.store(1, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(60);
    while scoring.about().unwrap().name != "fraud-lr" {
        assert!(Instant::now() < deadline, "the new model is not taken up");
        std::thread::sleep(Duration::from_millis(10));
    }
    let verdict = ask(&scoring, Protocol::Verdict, &json!(transaction(0.5))).unwrap();
    assert_eq!(verdict["model"]["name"], "fraud-lr");
}
