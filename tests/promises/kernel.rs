//! The kernel for trees: chosen where it agrees with ONNX Runtime, said so, and refused on request where it cannot.

use std::process::Command;
use std::time::Duration;

use fraud_wire::verdict::Verdict;

use super::support::process::{Running, finish, scorer};
use super::support::root;

const LIMIT: Duration = Duration::from_secs(120);

fn with_model(command: &str, model: &str, kernel: &str) -> Command {
    let mut program = scorer();
    program.args([command, "--kernel", kernel, "--model"]).arg(root().join("models").join(model));
    program
}

fn output(mut command: Command, arguments: &[&str]) -> (Option<i32>, String, String) {
    command.args(arguments);
    let output = finish(command, LIMIT);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_says_what_scores_and_why() {
    for (model, kernel, engine) in [
        ("fraud", "auto", "ok    engine: kernel ("),
        ("fraud", "simd", "ok    engine: kernel ("),
        ("fraud", "onnxruntime", "ok    engine: ONNX Runtime (asked for by --kernel)"),
        ("fraud-lr", "auto", "ok    engine: ONNX Runtime (the graph has no tree ensemble)"),
    ] {
        let (code, report, log) = output(with_model("check", model, kernel), &["--offline"]);
        assert_eq!(code, Some(0), "{model} {kernel}: {report}{log}");
        assert!(report.contains(engine), "{model} {kernel}: {report}");
    }
}

#[test]
fn a_bundle_without_trees_is_refused_where_only_the_kernel_will_do() {
    let refusal = "--kernel simd, but the graph has no tree ensemble";
    let (code, report, _) = output(with_model("check", "fraud-lr", "simd"), &["--offline"]);
    assert!(code == Some(1) && report.contains(refusal), "{report}");
    let (code, _, log) = output(with_model("score", "fraud-lr", "simd"), &["--input", "/dev/null"]);
    assert!(code == Some(64) && log.contains(refusal), "{log}");
}

#[test]
fn both_engines_give_the_same_verdicts() {
    let golden = root().join("models/fraud/golden.jsonl");
    let verdicts = |kernel| -> Vec<Verdict> {
        let (code, lines, log) = output(with_model("score", "fraud", kernel), &["--input", golden.to_str().unwrap()]);
        assert_eq!(code, Some(0), "{kernel}: {log}");
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (ours, theirs) = (verdicts("simd"), verdicts("onnxruntime"));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!((&ours.transaction_id, ours.decision), (&theirs.transaction_id, theirs.decision));
        assert!((ours.score - theirs.score).abs() <= 1e-6, "{ours:?} {theirs:?}");
    }
}

#[test]
fn a_worker_logs_its_engine_and_shows_it_as_a_metric() {
    for (model, log, metric) in [
        ("fraud", "engine=\"simd\"", "fraud_scorer_model_engine{engine=\"simd\",detail=\""),
        (
            "fraud-lr",
            "engine=\"onnxruntime\" detail=\"the graph has no tree ensemble\"",
            "fraud_scorer_model_engine{engine=\"onnxruntime\",detail=\"the graph has no tree ensemble\"} 1",
        ),
    ] {
        let mut command = with_model("run", model, "auto");
        // Known before there is a broker.
        command.args(["--brokers", "127.0.0.1:1", "--http", "127.0.0.1:0"]);
        let mut worker = Running::start(command);
        worker.wait_for_log("waiting for a Kafka broker", LIMIT);
        assert!(worker.log().contains(log), "{model}: {}", worker.log());
        let (status, metrics) = worker.get("/metrics");
        assert_eq!(status, 200);
        assert!(metrics.lines().any(|line| line.starts_with(metric)), "{model}: {metrics}");
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}
