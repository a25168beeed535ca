//! Bundles, `score` and `demo`: what works on a laptop without a broker.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use super::support::bundles::{Shelf, graphs, hashed, with_graph};
use super::support::process::{finish, scorer};
use super::support::root;

const LIMIT: Duration = Duration::from_secs(120);

fn copy_bundle(from: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(root().join("models").join(from)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} stands in {}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Scores `input` with the bundle in `model`: exit code, output, messages.
fn score(model: &Path, input: &str) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("transactions");
    fs::write(&path, input).unwrap();
    let mut command = scorer();
    command.arg("score").arg("--model").arg(model).arg("--input").arg(&path);
    let output = finish(command, LIMIT);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn golden_records_score_as_training_recorded_in_order() {
    for name in ["fraud", "fraud-lr"] {
        let model = root().join("models").join(name);
        let golden = fs::read_to_string(model.join("golden.jsonl")).unwrap();
        let (code, output, log) = score(&model, &golden);
        assert_eq!(code, Some(0), "{log}");
        assert!(golden.lines().count() >= 200, "{name} has at least 200 golden records");
        assert_eq!(output.lines().count(), golden.lines().count());
        for (line, (golden, verdict)) in golden.lines().zip(output.lines()).enumerate() {
            let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
            let verdict: fraud_wire::verdict::Verdict = serde_json::from_str(verdict).unwrap();
            assert_eq!(verdict.transaction_id, golden["transaction_id"].as_str().unwrap());
            assert_eq!(verdict.source.offset, line as i64);
            let expected = golden["expected_score"].as_f64().unwrap();
            assert!(
                (f64::from(verdict.score) - expected).abs() <= 1e-5,
                "{name} line {line}: {} {expected}",
                verdict.score
            );
        }
    }
}

#[test]
fn what_onnx_runtime_says_is_a_line_of_the_log() {
    let shelf = Shelf::with("fraud", "1");
    let graph = graphs::with_unused_weights();
    shelf.put_edited("fraud", "1", |directory, manifest| with_graph(directory, &manifest, &graph));
    let mut command = scorer();
    command.env("RUST_LOG", "debug").args(["score", "--log-format", "json", "--input", "/dev/null", "--model"]);
    command.arg(shelf.path());
    let output = finish(command, LIMIT);
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{log}");
    // The last line is for people.
    let (log, summary) = log.trim_end().rsplit_once('\n').unwrap();
    assert!(summary.starts_with("scored 0 rows"), "{summary}");
    let read = |line: &str| -> serde_json::Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let lines: Vec<serde_json::Value> = log.lines().map(read).collect();
    assert!(lines.iter().any(|line| line.to_string().contains("left_over")), "{log}");
}

#[test]
fn a_line_that_cannot_be_scored_keeps_its_place() {
    let golden = fs::read_to_string(root().join("models/fraud/golden.jsonl")).unwrap();
    let good = golden.lines().next().unwrap();
    let (code, output, log) = score(&root().join("models/fraud"), &format!("{good}\nnonsense\n{good}\n{{\"V1\":1}}"));
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<serde_json::Value> = output.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1]["error"]["class"], "malformed-json");
    assert_eq!(lines[3]["error"]["class"], "missing-feature");
    assert!(lines[0]["score"].is_number() && lines[2]["score"] == lines[0]["score"]);
    assert!(log.contains("2 lines rejected"), "{log}");
}

#[test]
fn a_bundle_that_is_not_what_training_wrote_is_refused_with_the_reason() {
    type Spoil = fn(&Path);
    let cases: &[(&str, Spoil, &str)] = &[
        ("wrong hash", |bundle| fs::write(bundle.join("model.onnx"), b"changed").unwrap(), "sha256"),
        (
            "features that do not match the graph",
            |bundle| edit(&bundle.join("manifest.toml"), "{ name = \"V5\" },", ""),
            "input.features lists 28 features",
        ),
        (
            "features in another order",
            |bundle| {
                edit(&bundle.join("manifest.toml"), "\"V14\"", "\"V?\"");
                edit(&bundle.join("manifest.toml"), "\"V17\"", "\"V14\"");
                edit(&bundle.join("manifest.toml"), "\"V?\"", "\"V17\"");
            },
            "golden record",
        ),
        (
            "a tensor the graph does not have",
            |bundle| edit(&bundle.join("manifest.toml"), "tensor = \"probabilities\"", "tensor = \"scores\""),
            "probabilities",
        ),
        (
            "a column the output does not have",
            |bundle| edit(&bundle.join("manifest.toml"), "column = 1", "column = 2"),
            "2 columns",
        ),
        (
            "the negative class",
            |bundle| edit(&bundle.join("manifest.toml"), "column = 1", "column = 0"),
            "golden record 1",
        ),
        ("no manifest", |bundle| fs::remove_file(bundle.join("manifest.toml")).unwrap(), "manifest.toml"),
        (
            "a golden record without its score",
            |bundle| edit(&bundle.join("golden.jsonl"), "expected_score", "score"),
            "expected_score",
        ),
        (
            "a graph that is none",
            |bundle| {
                let manifest = fs::read_to_string(bundle.join("manifest.toml")).unwrap();
                let old = manifest.split("sha256 = \"").nth(1).unwrap()[..64].to_owned();
                fs::write(bundle.join("model.onnx"), b"").unwrap();
                // SHA-256 of nothing.
                let new = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
                edit(&bundle.join("manifest.toml"), &old, new);
            },
            "ONNX Runtime refused the graph",
        ),
    ];
    for (what, spoil, reason) in cases {
        let bundle = copy_bundle("fraud");
        spoil(bundle.path());
        if let Ok(manifest) = fs::read_to_string(bundle.path().join("manifest.toml")) {
            fs::write(bundle.path().join("manifest.toml"), hashed(bundle.path(), &manifest)).unwrap();
        }
        let (code, output, log) = score(bundle.path(), "{}");
        assert_eq!(code, Some(64), "{what}: {output}{log}");
        assert!(log.contains(reason), "{what}: {log}");
    }
}

#[test]
fn a_missing_onnx_runtime_names_the_command_that_gets_it() {
    let mut command = scorer();
    command.args(["score", "--input", "/dev/null"]).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so");
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("make onnxruntime"));
}

#[test]
fn the_demo_ends_with_nothing_lost_and_nothing_doubled() {
    for guarantee in ["exactly-once", "at-least-once"] {
        let mut command = scorer();
        command.args(["demo", "--duration", "4s", "--rate", "1000", "--guarantee", guarantee]);
        let output = finish(command, LIMIT);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&output.stderr));
        let value = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            line.rsplit(' ').next().unwrap().replace(',', "").parse().unwrap()
        };
        assert_eq!(value("transactions sent"), 4_000);
        assert_eq!(value("verdicts: approve") + value("verdicts: review") + value("verdicts: decline"), 4_000);
        assert_eq!((value("lost"), value("doubled"), value("dead letters")), (0, 0, 0));
        assert!(text.contains("\"decision\":\"decline\""), "a handful of verdicts: {text}");
    }
}

#[test]
fn the_embedded_broker_serves_other_processes() {
    use std::io::BufRead;
    let mut broker = scorer().args(["broker"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut address = String::new();
    std::io::BufReader::new(broker.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let mut producer = super::support::process::producer();
    producer.args(["--brokers", address.trim(), "--count", "500", "--rate", "0"]);
    let output = finish(producer, LIMIT);
    assert!(String::from_utf8_lossy(&output.stdout).contains("(delivered 500, failed 0)"), "{output:?}");
    let terminated = std::process::Command::new("kill").args(["-TERM", &broker.id().to_string()]).status().unwrap();
    assert!(terminated.success());
    assert_eq!(broker.wait().unwrap().code(), Some(0));
}
