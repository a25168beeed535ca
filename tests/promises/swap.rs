//! Another model takes over between two batches: nothing lost or doubled, every verdict names what scored it, what does not
//! pass the gates changes nothing, and the way back is open.

use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::broker::{Broker, shared};
use super::support::bundles::{Shelf, opinions};
use super::support::process::{ADMIN_TOKEN, Running};
use super::support::topics::{Received, Topics, faults};
use super::support::wait_for;

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

fn start(topics: &Topics, shelf: &Shelf, arguments: &[&str]) -> Running {
    let path = shelf.path();
    let mut all = vec!["--model", path.to_str().unwrap()];
    all.extend(arguments);
    topics.start_worker(&all)
}

fn reload(worker: &mut Running) -> (u16, String) {
    worker.administer("/admin/reload")
}

/// Name and version of what serves.
fn serving(worker: &mut Running) -> String {
    let model = worker.get_json("/model");
    format!("{}@{}", model["serving"]["name"].as_str().unwrap(), model["serving"]["version"].as_str().unwrap())
}

/// Scores by version and place, computed here.
fn scores(shelf: &Shelf, versions: &[(&str, &str)], input: &[Received]) -> HashMap<(String, i32, i64), f32> {
    let mut scores = HashMap::new();
    for (model, version) in versions {
        shelf.put(model, version);
        for (place, (score, _)) in opinions(&shelf.path(), input) {
            scores.insert(((*version).to_owned(), place.0, place.1), score);
        }
    }
    scores
}

/// Each verdict names one model, in its value as in its header, and has that model's score; gives verdicts by version.
fn check_models(verdicts: &[Received], scores: &HashMap<(String, i32, i64), f32>) -> HashMap<String, usize> {
    let mut by_version = HashMap::new();
    for message in verdicts {
        let verdict = message.verdict();
        assert_eq!(verdict.model.name, "fraud");
        let place = (verdict.model.version.clone(), verdict.source.partition, verdict.source.offset);
        let expected = scores.get(&place).unwrap_or_else(|| panic!("{place:?}: no such version"));
        assert!((verdict.score - expected).abs() <= 1e-6, "{place:?}: {} instead of {expected}", verdict.score);
        *by_version.entry(verdict.model.version).or_default() += 1;
    }
    by_version
}

#[test]
fn swaps_under_load_lose_and_double_nothing_and_verdicts_name_their_model() {
    const ROWS: usize = 60_000;
    const SWAPS: usize = 30;
    let models = [("fraud", "1"), ("fraud-lr", "2")];
    for guarantee in ["exactly-once", "at-least-once"] {
        let topics = Topics::create(shared(), 4);
        let shelf = Shelf::with("fraud", "1");
        let mut worker = start(&topics, &shelf, &["--threads", "2", "--guarantee", guarantee]);
        let producer = topics.start_producer(4_000, ROWS, 11);
        let mut subscriber = topics.subscribe(&topics.output);
        subscriber.wait_for("verdicts before the first swap", 1_000, LIMIT);
        for swap in 0..SWAPS {
            let (model, version) = models[(swap + 1) % 2];
            // Two of three go through all gates, the third is the way back.
            let (status, body) = if swap % 3 == 2 {
                worker.administer("/admin/rollback")
            } else {
                shelf.put(model, version);
                reload(&mut worker)
            };
            assert_eq!(status, 200, "{body}");
            assert_eq!(serving(&mut worker), format!("fraud@{version}"));
            let seen = subscriber.seen.len();
            subscriber.wait_for("verdicts after a swap", (seen + 200).min(ROWS), LIMIT);
        }
        assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
        subscriber.wait_for("all verdicts", ROWS, LIMIT);
        subscriber.settle(Duration::from_millis(300));
        assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
        assert!(topics.read(&topics.dead_letter).is_empty());

        let info = worker.series("fraud_scorer_model_info");
        assert!(info.len() == 1 && info[0].contains("version=\"1\"") && info[0].ends_with("} 1"), "{info:?}");
        assert_eq!(worker.series("fraud_scorer_model_engine").len(), 1);
        let swaps = worker.series("fraud_scorer_model_swaps_total");
        assert!(swaps.contains(&format!("{{result=\"swapped\"}} {}", SWAPS / 3 * 2)), "{swaps:?}");
        assert!(swaps.contains(&format!("{{result=\"rolled-back\"}} {}", SWAPS / 3)), "{swaps:?}");
        let history = worker.get_json("/model")["history"].as_array().unwrap().len();
        assert_eq!(history, SWAPS, "all are within the latest 50");
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));

        let input = topics.read(&topics.input);
        let by_version = check_models(&subscriber.seen, &scores(&shelf, &models, &input));
        assert!(models.iter().all(|(_, version)| by_version[*version] >= 1_000), "both served: {by_version:?}");
        let mut last: HashMap<i32, String> = HashMap::new();
        let mut changes: HashMap<i32, usize> = HashMap::new();
        for message in &subscriber.seen {
            let version = message.verdict().model.version;
            if last.insert(message.partition, version.clone()).is_some_and(|before| before != version) {
                *changes.entry(message.partition).or_default() += 1;
            }
        }
        // Between two batches, once per swap: not back and forth.
        assert!(changes.values().all(|changes| *changes <= SWAPS), "{changes:?}");
        assert!(changes.values().any(|changes| *changes >= SWAPS / 2), "{changes:?}");
    }
}

#[test]
fn what_does_not_pass_a_gate_changes_nothing_and_says_which() {
    const ROWS: usize = 3_000;
    let topics = Topics::create(shared(), 2);
    let shelf = Shelf::with("fraud", "1");
    let mut worker = start(&topics, &shelf, &[]);
    let producer = topics.start_producer(2_000, ROWS, 12);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts", 500, LIMIT);

    let remove = |directory: &std::path::Path, file: &str| std::fs::remove_file(directory.join(file)).unwrap();
    type Edit<'a> = &'a dyn Fn(&std::path::Path, String) -> String;
    let cases: [(&str, &str, Edit<'_>); 7] = [
        ("manifest", "manifest.toml", &|_, manifest| manifest.replace("[thresholds]", "[treshold]")),
        ("hash", "sha256", &|directory, manifest| {
            let model = std::fs::read(directory.join("model.onnx")).unwrap();
            std::fs::write(directory.join("model.onnx"), &model[..model.len() / 2]).unwrap();
            manifest
        }),
        ("signature", "29 columns", &|_, manifest| manifest.replace("    { name = \"V7\" },\n", "")),
        ("golden", "golden record 1", &|_, manifest| {
            manifest.replace("V13", "V0").replace("V14", "V13").replace("V0", "V14")
        }),
        ("compatible", "version of its own", &|_, manifest| {
            manifest.replace("version = \"2\"", "version = \"1\"").replace("decline = 0.531", "decline = 0.9")
        }),
        ("canary", "V99 is missing", &|directory, manifest| {
            remove(directory, "golden.jsonl");
            manifest.replace("V7\"", "V99\"")
        }),
        ("manifest", "cannot read", &|directory, manifest| {
            remove(directory, "model.onnx");
            manifest
        }),
    ];
    for (gate, says, edit) in &cases {
        shelf.put_edited("fraud", "2", edit);
        let (status, body) = reload(&mut worker);
        assert_eq!(status, 422, "{gate}: {body}");
        assert!(body.contains(&format!("refused at the gate {gate}: ")) && body.contains(says), "{gate}: {body}");
        assert_eq!(serving(&mut worker), "fraud@1");
    }
    let refused = format!("{{result=\"refused\"}} {}", cases.len());
    assert!(worker.series("fraud_scorer_model_swaps_total").contains(&refused));
    let latest = worker.get_json("/model")["history"][0].clone();
    assert_eq!((latest["result"].as_str(), latest["from"].as_str()), (Some("refused"), Some("fraud@1")));
    // The answer may be read before the line is.
    let logged = || worker.log().matches("model refused; what served goes on").count();
    wait_for("every refusal is logged", LIMIT, || (logged() >= cases.len()).then_some(()));
    assert_eq!(logged(), cases.len());
    // Nothing served in between, so there is no way back.
    let (status, body) = worker.administer("/admin/rollback");
    assert!(status == 409 && body.contains("none to go back to"), "{status} {body}");

    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    assert!(subscriber.seen.iter().all(|message| message.verdict().model.version == "1"));
    assert!(topics.read(&topics.dead_letter).is_empty());

    // The same directory, mended: other thresholds, columns in another order, a feature the stream may lack.
    shelf.put_edited("fraud", "2", |_, manifest| manifest.replace("decline = 0.531", "decline = 0.9"));
    assert_eq!(reload(&mut worker).0, 200);
    assert_eq!(worker.get_json("/model")["serving"]["thresholds"]["decline"], 0.9);
    assert_eq!(reload(&mut worker).0, 200, "once more changes nothing");
    assert_eq!(worker.get_json("/model")["history"][0]["to"], "fraud@2");
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn the_way_back_is_open_to_who_may() {
    let topics = Topics::create(shared(), 1);
    let shelf = Shelf::with("fraud", "1");
    let mut worker = start(&topics, &shelf, &[]);
    shelf.put("fraud-lr", "2");
    let wrong = format!("Bearer {}", ADMIN_TOKEN.to_uppercase());
    for headers in [&[][..], &[("Authorization", wrong.as_str())], &[("Authorization", ADMIN_TOKEN)]] {
        let (status, body) = worker.post("/admin/reload", headers);
        assert!(status == 401 && body.contains("problem:unauthorized"), "{headers:?}: {status} {body}");
    }
    assert_eq!(worker.get("/admin/rollback").0, 405, "reading changes nothing");
    assert_eq!(reload(&mut worker).0, 200);
    let (status, body) = worker.administer("/admin/rollback");
    assert_eq!(status, 200, "{body}");
    let model = worker.get_json("/model");
    assert_eq!(model["rolled_back_from"], "fraud@2");
    assert_eq!(model["serving"]["version"], "1");
    assert_eq!(model["serving"]["engine"], "simd");
    assert_eq!(model["previous"]["version"], "2");
    assert!(model["serving"]["training"]["run_id"].is_string(), "{model}");
    assert_eq!(model["history"][0]["result"], "rolled-back");
    worker.terminate();
    let log = worker.finish(LIMIT).stderr;
    assert!(!String::from_utf8_lossy(&log).contains(ADMIN_TOKEN));
    // Without a token nobody may, wherever he comes from and whatever he says.
    shelf.put("fraud", "1");
    let mut command = topics.worker();
    command.arg("--model").arg(shelf.path()).env_remove("FRAUD_SCORER_ADMIN_TOKEN");
    let mut worker = Running::start(command);
    worker.wait_until_ready();
    for (headers, expected) in
        [(&[][..], 403), (&[("Authorization", "Bearer ")], 401), (&[("X-Forwarded-For", "127.0.0.1")], 403)]
    {
        let (status, body) = worker.post("/admin/reload", headers);
        assert!(status == expected && body.contains("FRAUD_SCORER_ADMIN_TOKEN"), "{headers:?}: {status} {body}");
    }
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_swap_while_the_broker_is_away_is_taken_up_when_it_is_back() {
    const ROWS: usize = 10_000;
    let mut broker = Broker::start();
    let topics = Topics::create(&broker, 2);
    let shelf = Shelf::with("fraud", "1");
    let mut worker = start(&topics, &shelf, &[]);
    let producer = topics.start_producer(1_000, ROWS, 13);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts before the crash", 2_000, LIMIT);
    broker.crash();
    wait_for("the worker says that it is not ready", LIMIT, || (worker.get("/readyz").0 == 503).then_some(()));
    let models = [("fraud", "1"), ("fraud-lr", "2")];
    shelf.put("fraud-lr", "2");
    assert_eq!(reload(&mut worker).0, 200);
    assert_eq!(serving(&mut worker), "fraud@2");
    broker.up();
    subscriber.wait_for("all verdicts", ROWS, LIMIT);
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    subscriber.settle(Duration::from_millis(500));
    assert_eq!(faults(&subscriber.seen, ROWS), Vec::<String>::new());
    let input = topics.read(&topics.input);
    let by_version = check_models(&subscriber.seen, &scores(&shelf, &models, &input));
    assert!(by_version["1"] >= 2_000 && by_version["2"] >= 1_000, "{by_version:?}");
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_swap_under_way_does_not_hold_up_the_end() {
    let topics = Topics::create(shared(), 1);
    let shelf = Shelf::with("fraud", "1");
    for pause in [0, 150] {
        shelf.put("fraud", "1");
        let mut worker = start(&topics, &shelf, &[]);
        shelf.put("fraud-lr", "2");
        // Nobody waits for the answer.
        let mut stream = TcpStream::connect(worker.http_address()).unwrap();
        write!(stream, "POST /admin/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n").unwrap();
        // At different moments of the swap, whichever those are on this machine.
        std::thread::sleep(Duration::from_millis(pause));
        let told = Instant::now();
        worker.terminate();
        let output = worker.finish(LIMIT);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    }
}
