//! Bring your own model: docs/bring-your-own-model.md, followed to the letter by a model that knows nothing of this
//! project.
//!
//! `tests/fixtures/foreign_model.py` trains a scikit-learn forest on features of its own and writes down what the forest
//! says about 300 payments. The manifest is the guide's, copied out of it; the scores must be scikit-learn's.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use fraud_wire::verdict::Verdict;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::support::broker::shared;
use super::support::process::{finish, scorer};
use super::support::topics::{Record, Topics, faults};
use super::support::{python_tool, root};

const LIMIT: Duration = Duration::from_secs(120);

/// How far a score may lie from scikit-learn's: 32-bit floats in another order of addition.
const TOLERANCE: f64 = 1e-5;

/// The forest, exported three ways, and its payments.
struct Foreign {
    folder: tempfile::TempDir,
    /// Payments in the object form, `expected_score` among their fields.
    golden: String,
    /// scikit-learn's probability by transaction id.
    expected: HashMap<String, f64>,
}

impl Foreign {
    fn train() -> Foreign {
        let folder = tempfile::tempdir().unwrap();
        let mut python = Command::new(python_tool().with_file_name("python"));
        python.arg(root().join("tests/fixtures/foreign_model.py")).arg(folder.path());
        let output = finish(python, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let golden = fs::read_to_string(folder.path().join("golden.jsonl")).unwrap();
        let expected = golden.lines().map(|line| {
            let payment: Value = serde_json::from_str(line).unwrap();
            (payment["transaction_id"].as_str().unwrap().to_owned(), payment["expected_score"].as_f64().unwrap())
        });
        let expected: HashMap<String, f64> = expected.collect();
        assert_eq!(expected.len(), 300);
        Foreign { folder, golden, expected }
    }

    /// A bundle by hand: the exported file under its usual name, the guide's manifest with the file's hash, edited.
    fn bundle(&self, exported: &str, edits: &[(&str, &str)]) -> tempfile::TempDir {
        let bundle = tempfile::tempdir().unwrap();
        let model = fs::read(self.folder.path().join(exported)).unwrap();
        let hash: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(bundle.path().join("model.onnx"), model).unwrap();
        let mut manifest = guides_manifest();
        let hash = format!("\nsha256 = \"{hash}\"");
        for (from, to) in edits.iter().chain(&[("\nsha256 = \"SHA256\"", hash.as_str())]) {
            assert!(manifest.contains(from), "{from:?} stands in the guide's manifest:\n{manifest}");
            manifest = manifest.replacen(from, to, 1);
        }
        fs::write(bundle.path().join("manifest.toml"), manifest).unwrap();
        bundle
    }

    /// Holds verdicts against scikit-learn's probabilities; there must be one for each payment.
    fn compare(&self, verdicts: &[Verdict]) {
        assert_eq!(verdicts.len(), self.expected.len());
        for verdict in verdicts {
            let expected = self.expected[&verdict.transaction_id];
            let difference = (f64::from(verdict.score) - expected).abs();
            assert!(difference <= TOLERANCE, "{verdict:?}: scikit-learn says {expected}");
        }
        let decisions: Vec<&str> = verdicts.iter().map(|verdict| verdict.decision.as_str()).collect();
        for decision in ["approve", "review", "decline"] {
            assert!(decisions.contains(&decision), "the payments show every decision, {decision} too");
        }
    }
}

/// The manifest in the guide: its one block of TOML.
fn guides_manifest() -> String {
    let guide = fs::read_to_string(root().join("docs/bring-your-own-model.md")).unwrap();
    let (_, block) = guide.split_once("```toml\n").expect("the guide shows a manifest");
    let (manifest, _) = block.split_once("```").unwrap();
    manifest.to_owned()
}

fn check(bundle: &Path) -> (Option<i32>, String) {
    let mut command = scorer();
    command.args(["check", "--offline", "--model"]).arg(bundle);
    let output = finish(command, LIMIT);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

fn score(bundle: &Path, input: &Path) -> Vec<Verdict> {
    let mut command = scorer();
    command.arg("score").arg("--model").arg(bundle).arg("--input").arg(input);
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_manifest_by_hand_and_any_shape_of_output_score_as_scikit_learn_does() {
    let foreign = Foreign::train();
    let payments = foreign.folder.path().join("golden.jsonl");
    let one_number = [("tensor = \"probabilities\"\ncolumn = 1", "tensor = \"p_fraud\"")];
    for (exported, edits) in [("model.onnx", &[][..]), ("flat.onnx", &one_number), ("column.onnx", &one_number)] {
        let bundle = foreign.bundle(exported, edits);
        let (code, report) = check(bundle.path());
        assert_eq!(code, Some(0), "{exported}: {report}");
        assert!(report.contains("payments@1") && report.contains("5 features"), "{exported}: {report}");
        assert!(report.contains("golden records: none"), "{exported}: {report}");
        foreign.compare(&score(bundle.path(), &payments));
    }
    // A column of a row's only number is a mistake, which a wrong output may have caused.
    let flat = foreign.bundle("flat.onnx", &[("tensor = \"probabilities\"", "tensor = \"p_fraud\"")]);
    let (code, report) = check(flat.path());
    assert!(code == Some(1) && report.contains("leave output.column out"), "{report}");
}

#[test]
fn golden_records_by_hand_are_verified() {
    let foreign = Foreign::train();
    let bundle = foreign.bundle("model.onnx", &[]);
    let golden = bundle.path().join("golden.jsonl");
    fs::write(&golden, &foreign.golden).unwrap();
    let (code, report) = check(bundle.path());
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("golden records: 300 match"), "{report}");

    // Two columns exchanged: the graph takes them, the golden records do not.
    let swapped =
        [("\"amount_eur\"", "\"?\""), ("\"merchant_risk\"", "\"amount_eur\""), ("\"?\"", "\"merchant_risk\"")];
    let bundle = foreign.bundle("model.onnx", &swapped);
    assert_eq!(check(bundle.path()).0, Some(0), "nobody can tell without golden records");
    fs::write(bundle.path().join("golden.jsonl"), &foreign.golden).unwrap();
    let (code, report) = check(bundle.path());
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("feature order"), "{report}");
}

#[test]
fn a_foreign_model_runs_on_a_broker_in_both_message_forms() {
    let foreign = Foreign::train();
    let bundle = foreign.bundle("model.onnx", &[]);
    let offline = score(bundle.path(), &foreign.folder.path().join("golden.jsonl"));
    let offline: HashMap<String, f32> =
        offline.into_iter().map(|verdict| (verdict.transaction_id, verdict.score)).collect();
    let payments: Vec<Value> = foreign.golden.lines().map(|line| serde_json::from_str(line).unwrap()).collect();

    // The first half in the object form, one message each; the second in one split message, null where there is none.
    let (objects, rows) = payments.split_at(payments.len() / 2);
    let mut values: Vec<Vec<u8>> = Vec::new();
    for payment in objects {
        let mut payment = payment.clone();
        payment.as_object_mut().unwrap().remove("expected_score");
        values.push(payment.to_string().into_bytes());
    }
    let columns = ["device_trust", "hour", "transaction_id", "card_age_days", "merchant_risk", "amount_eur"];
    let data: Vec<Vec<&Value>> = rows.iter().map(|row| columns.iter().map(|column| &row[*column]).collect()).collect();
    values.push(serde_json::json!({"columns": columns, "data": data}).to_string().into_bytes());

    let topics = Topics::create(shared(), 1);
    let records: Vec<Record<'_>> =
        values.iter().map(|value| Record { value: Some(value), ..Record::default() }).collect();
    topics.send(&records);
    let worker = topics.start_worker(&["--model", bundle.path().to_str().unwrap()]);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts of the foreign model", payments.len(), LIMIT);
    subscriber.settle(Duration::from_millis(300));
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));

    assert_eq!(faults(&subscriber.seen, payments.len()), Vec::<String>::new());
    let verdicts: Vec<Verdict> = subscriber.seen.iter().map(|message| message.verdict()).collect();
    foreign.compare(&verdicts);
    for (message, verdict) in subscriber.seen.iter().zip(&verdicts) {
        assert_eq!((verdict.model.name.as_str(), verdict.model.version.as_str()), ("payments", "1"));
        assert_eq!(message.headers, [], "the body names the model");
        assert_eq!(verdict.score, offline[&verdict.transaction_id], "the same as offline, to the last bit");
    }
    assert!(topics.read(&topics.dead_letter).is_empty());
}
