//! The kernel: chosen where it agrees with ONNX Runtime, said so, and refused on request where it cannot.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fraud_wire::verdict::Verdict;
use sha2::{Digest, Sha256};

use super::support::process::{Running, finish, scorer};
use super::support::root;

const LIMIT: Duration = Duration::from_secs(120);

/// `model` is a bundle of ours, or the path of another.
fn with_model(command: &str, model: impl AsRef<Path>, kernel: &str) -> Command {
    let mut program = scorer();
    program.args([command, "--kernel", kernel, "--model"]).arg(root().join("models").join(model));
    program
}

/// A bundle that is left to ONNX Runtime: the average of two forests.
fn two_forests() -> tempfile::TempDir {
    let bundle = tempfile::tempdir().unwrap();
    let model = fs::read(root().join("tests/models/two-forests.onnx")).unwrap();
    let hash: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
    let features: String = (0..6).map(|number| format!("{{ name = \"f{number}\", default = 0.0 }}, ")).collect();
    let manifest = format!(
        "name = \"forests\"\nversion = \"1\"\nmodel = \"model.onnx\"\nsha256 = \"{hash}\"\n[input]\ntensor = \"input\"\n\
         features = [{features}]\n[output]\ntensor = \"scores\"\ncolumn = 1\n[thresholds]\nreview = 0.5\ndecline = 0.9\n"
    );
    fs::write(bundle.path().join("model.onnx"), model).unwrap();
    fs::write(bundle.path().join("manifest.toml"), manifest).unwrap();
    bundle
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
        ("fraud-lr", "auto", "ok    engine: kernel (native linear model with its scaler)"),
        ("fraud-lr", "onnxruntime", "ok    engine: ONNX Runtime (asked for by --kernel)"),
    ] {
        let (code, report, log) = output(with_model("check", model, kernel), &["--offline"]);
        assert_eq!(code, Some(0), "{model} {kernel}: {report}{log}");
        assert!(report.contains(engine), "{model} {kernel}: {report}");
    }
}

#[test]
fn a_bundle_of_another_kind_is_refused_where_only_the_kernel_will_do() {
    let bundle = two_forests();
    let refusal = "--kernel simd, but the graph has 2 tree ensembles";
    let (code, report, _) = output(with_model("check", bundle.path(), "simd"), &["--offline"]);
    assert!(code == Some(1) && report.contains(refusal), "{report}");
    let (code, _, log) = output(with_model("score", bundle.path(), "simd"), &["--input", "/dev/null"]);
    assert!(code == Some(64) && log.contains(refusal), "{log}");
}

#[test]
fn both_engines_give_the_same_verdicts() {
    for model in ["fraud", "fraud-lr"] {
        let golden = root().join("models").join(model).join("golden.jsonl");
        let verdicts = |kernel| -> Vec<Verdict> {
            let (code, lines, log) = output(with_model("score", model, kernel), &["--input", golden.to_str().unwrap()]);
            assert_eq!(code, Some(0), "{model} {kernel}: {log}");
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (ours, theirs) = (verdicts("simd"), verdicts("onnxruntime"));
        assert!(ours.len() >= 200 && ours.len() == theirs.len(), "{model}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!((&ours.transaction_id, ours.decision), (&theirs.transaction_id, theirs.decision), "{model}");
            assert!((ours.score - theirs.score).abs() <= 1e-6, "{model}: {ours:?} {theirs:?}");
        }
    }
}

#[test]
fn a_worker_logs_its_engine_and_shows_it_as_a_metric() {
    let forests = two_forests();
    for (model, log, metric) in [
        (Path::new("fraud"), "engine=\"simd\"", "fraud_scorer_model_engine{engine=\"simd\",detail=\""),
        (
            Path::new("fraud-lr"),
            "engine=\"simd\" detail=\"native linear model with its scaler\"",
            "fraud_scorer_model_engine{engine=\"simd\",detail=\"native linear model with its scaler\"} 1",
        ),
        (
            forests.path(),
            "engine=\"onnxruntime\" detail=\"the graph has 2 tree ensembles\"",
            "fraud_scorer_model_engine{engine=\"onnxruntime\",detail=\"the graph has 2 tree ensembles\"} 1",
        ),
    ] {
        let mut command = with_model("run", model, "auto");
        // Known before there is a broker.
        command.args(["--brokers", "127.0.0.1:1", "--http", "127.0.0.1:0"]);
        let mut worker = Running::start(command);
        worker.wait_for_log("waiting for a Kafka broker", LIMIT);
        assert!(worker.log().contains(log), "{model:?}: {}", worker.log());
        let (status, metrics) = worker.get("/metrics");
        assert_eq!(status, 200);
        assert!(metrics.lines().any(|line| line.starts_with(metric)), "{model:?}: {metrics}");
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}
