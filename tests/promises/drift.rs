//! Drift: a worker's own metrics tell traffic like the training data from traffic unlike it, whatever thread scored it.

use std::time::Duration;

use super::support::broker::shared;
use super::support::bundles::hashed;
use super::support::process::{Running, finish, scorer};
use super::support::topics::{Record, Topics};
use super::support::{root, wait_for};

const LIMIT: Duration = Duration::from_secs(120);
const ROWS: usize = 4_000;

/// The value of a metric without labels; `None` where it is left out.
fn metric(worker: &mut Running, name: &str) -> Option<f64> {
    let (status, text) = worker.get("/metrics");
    assert_eq!(status, 200);
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

fn wait_for_rows(worker: &mut Running, rows: usize) {
    let what = format!("{rows} rows are looked at");
    wait_for(&what, LIMIT, || (metric(worker, "fraud_scorer_drift_window_rows") == Some(rows as f64)).then_some(()));
}

#[test]
fn a_shift_shows_and_traffic_like_the_training_data_does_not() {
    let topics = Topics::create(shared(), 2);
    let mut worker = topics.start_worker(&["--threads", "2", "--drift-window", "168h", "--drift-sample", "1000000"]);
    assert_eq!(metric(&mut worker, "fraud_scorer_drift_share"), None, "nothing can be said of no rows");

    let sent = topics.start_producer(100_000, ROWS, 5).finish(LIMIT);
    assert!(sent.status.success());
    // Exactly: what is committed once is counted once.
    wait_for_rows(&mut worker, ROWS);
    assert_eq!(metric(&mut worker, "fraud_scorer_drift_share"), Some(0.0));
    assert_eq!(metric(&mut worker, "fraud_scorer_transactions_total"), Some(ROWS as f64));

    let features: Vec<String> = (1..=28).map(|number| format!("\"V{number}\":0.5")).collect();
    let value = format!("{{{},\"Amount\":12.5}}", features.join(","));
    let record = |partition| Record { value: Some(value.as_bytes()), partition, ..Record::default() };
    let records: Vec<Record<'_>> = (0..ROWS).map(|number| record((number % 2) as i32)).collect();
    topics.send(&records);
    wait_for_rows(&mut worker, 2 * ROWS);
    assert_eq!(metric(&mut worker, "fraud_scorer_drift_share"), Some(1.0), "half of the rows are all the same");
    let (_, text) = worker.get("/metrics");
    assert!(text.contains("fraud_scorer_drift_psi{feature=\"Amount\"} "), "{text}");
    worker.terminate();
    assert!(worker.finish(LIMIT).status.success());
}

#[test]
fn without_a_usable_reference_a_worker_says_so_and_scores_all_the_same() {
    for (reference, log, finding) in [
        (None, "the bundle has no reference.json", "ok    drift: not watched"),
        (Some("{}"), "the bundle's reference cannot be used", "FAIL  drift: "),
    ] {
        let bundle = tempfile::tempdir().unwrap();
        for file in ["manifest.toml", "model.onnx", "golden.jsonl"] {
            std::fs::copy(root().join("models/fraud-lr").join(file), bundle.path().join(file)).unwrap();
        }
        if let Some(reference) = reference {
            std::fs::write(bundle.path().join("reference.json"), reference).unwrap();
        }
        let manifest = std::fs::read_to_string(bundle.path().join("manifest.toml")).unwrap();
        std::fs::write(bundle.path().join("manifest.toml"), hashed(bundle.path(), &manifest)).unwrap();
        let mut command = scorer();
        command.args(["check", "--offline", "--model"]).arg(bundle.path());
        let report = String::from_utf8(finish(command, LIMIT).stdout).unwrap();
        assert!(report.contains(finding), "{report}");

        let mut command = scorer();
        // Known before there is a broker.
        command.args(["run", "--brokers", "127.0.0.1:1", "--http", "127.0.0.1:0", "--model"]).arg(bundle.path());
        let mut worker = Running::start(command);
        worker.wait_for_log("waiting for a Kafka broker", LIMIT);
        assert!(worker.log().contains(log), "{}", worker.log());
        assert!(!worker.get("/metrics").1.contains("drift"));
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}
