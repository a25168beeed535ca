//! Models as people export them: what is taken, what is refused, and with which words.

use std::fs;

use fraud_wire::dead_letter::ErrorClass;
use tempfile::TempDir;

use super::*;
use crate::model::trees::tests::by_hand::{ML, Node as Written, Value, model_with};
use crate::model::trees::tests::{WIDTH, exported};
use crate::pipeline::engine::{Engine, Outcome};

/// A bundle of `model`, whose manifest has `replace` in place of the words before it.
fn bundle(model: &[u8], golden: &str, replace: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let features: Vec<String> = (0..WIDTH).map(|number| format!("{{ name = \"f{number}\", default = 0.0 }}")).collect();
    let mut manifest = format!(
        "name = \"test\"\nversion = \"1\"\nmodel = \"model.onnx\"\nsha256 = \"{}\"\n[input]\ntensor = \"input\"\n\
         features = [{}]\n[output]\ntensor = \"scores\"\n[thresholds]\nreview = 0.5\ndecline = 0.9\n",
        sha256(model),
        features.join(", ")
    );
    for (from, to) in replace {
        assert!(manifest.contains(from), "{from}");
        manifest = manifest.replacen(from, to, 1);
    }
    fs::write(folder.path().join("model.onnx"), model).unwrap();
    fs::write(folder.path().join("manifest.toml"), manifest).unwrap();
    if !golden.is_empty() {
        fs::write(folder.path().join("golden.jsonl"), golden).unwrap();
    }
    folder
}

/// A graph whose columns are the first feature; `last` comes behind it.
fn first_feature(columns: i64, last: &[Written<'_>]) -> Vec<u8> {
    let weights: Vec<f32> = (0..WIDTH as i64 * columns).map(|place| f32::from(u8::from(place < columns))).collect();
    let product = if last.is_empty() { "scores" } else { "product" };
    let mut nodes = vec![Written(&["input", "weights"], &[], "MatMul", "", Vec::new())];
    let outputs = [product];
    nodes[0].1 = &outputs;
    for Written(inputs, outputs, operator, domain, attributes) in last {
        let attributes = attributes.iter().map(|(name, value)| (*name, value.clone())).collect();
        nodes.push(Written(inputs, outputs, operator, domain, attributes));
    }
    model_with(&[("weights", &[WIDTH as i64, columns], &weights)], &nodes, 3)
}

/// What becomes of transactions: scores, or the class of the dead letter.
fn scores(bundle: &Bundle, transactions: &[&str]) -> Vec<Result<f32, ErrorClass>> {
    let mut engine = Engine::new(bundle, 1 << 20).unwrap();
    engine.run(transactions.iter().map(|text| Some(text.as_bytes())));
    let of = |outcome: &Outcome| match outcome {
        Outcome::Scored(rows) => Ok(engine.row(rows.start).score),
        Outcome::Rejected(rejection) => Err(rejection.class),
    };
    engine.outcomes().iter().map(of).collect()
}

fn refusal(folder: &TempDir) -> String {
    Bundle::load(folder.path()).expect_err("refused").to_string()
}

#[test]
fn a_score_just_beyond_the_range_is_its_end() {
    let folder = bundle(&first_feature(1, &[]), "", &[]);
    let loaded = Bundle::load(folder.path()).unwrap();
    let transactions = ["{\"f0\":1.000001}", "{\"f0\":-0.000001}", "{\"f0\":0.25}", "{\"f0\":1.1}", "{\"f0\":-0.1}"];
    let bad = Err(ErrorClass::InvalidScore);
    assert_eq!(scores(&loaded, &transactions), [Ok(1.0), Ok(0.0), Ok(0.25), bad, bad]);
}

#[test]
fn golden_records_outside_the_range_are_refused() {
    let model = first_feature(1, &[]);
    let margin = bundle(&model, "{\"f0\":1.3,\"expected_score\":1.3}\n", &[]);
    assert!(refusal(&margin).contains("expected_score = 1.3 is not a probability"), "{}", refusal(&margin));
    // A wide tolerance does not let it in.
    let wide = [("[thresholds]", "[golden]\ntolerance = 0.1\n[thresholds]")];
    let beyond = bundle(&model, "{\"f0\":1.05,\"expected_score\":1.0}\n", &wide);
    assert!(refusal(&beyond).contains("not a probability in [0, 1]"), "{}", refusal(&beyond));
}

#[test]
fn a_manifest_says_how_far_off_a_quantised_graph_may_be() {
    let golden = "{\"f0\":0.25,\"expected_score\":0.3}\n";
    assert!(refusal(&bundle(&first_feature(1, &[]), golden, &[])).contains("tolerance 0.00001"));
    let wide = [("[thresholds]", "[golden]\ntolerance = 0.1\n[thresholds]")];
    let loaded = Bundle::load(bundle(&first_feature(1, &[]), golden, &wide).path()).unwrap();
    assert!((loaded.golden_difference - 0.05).abs() < 1e-6);
}

#[test]
fn a_model_that_cannot_take_zeros_is_tried_on_its_golden_records() {
    let model = first_feature(1, &[Written(&["product"], &["scores"], "Log", "", Vec::new())]);
    let without = refusal(&bundle(&model, "", &[]));
    assert!(without.contains("a row of defaults and zeros") && without.contains("add golden.jsonl"), "{without}");
    let golden = "{\"f0\":2.0,\"expected_score\":0.6931472}\n";
    let loaded = Bundle::load(bundle(&model, golden, &[]).path()).unwrap();
    assert_eq!(scores(&loaded, &["{\"f0\":1.0}"]), [Ok(0.0)]);
}

#[test]
fn gaps_reach_a_model_that_has_a_way_of_its_own_with_them() {
    let model = exported("xgboost-missing");
    let column = ("tensor = \"scores\"\n", "tensor = \"scores\"\ncolumn = 1\n");
    let gap = ("name = \"f0\", default = 0.0", "name = \"f0\", missing = \"nan\"");
    let loaded = Bundle::load(bundle(&model, "", &[column, gap]).path()).unwrap();
    let (mut reference, mut expected) = (OnnxScorer::new(&loaded.manifest, &model).unwrap(), Vec::new());
    let mut row = [0.5; WIDTH];
    row[0] = f32::NAN;
    reference.score(&row, &mut expected).unwrap();
    let rest = "\"f1\":0.5,\"f2\":0.5,\"f3\":0.5,\"f4\":0.5,\"f5\":0.5}";
    let absent = format!("{{{rest}");
    let null = format!("{{\"f0\":null,{rest}");
    // Twice: the second time by what was learned from the first.
    let found = scores(&loaded, &[&null, &null, &absent, &absent, &null]);
    assert_eq!(found, vec![Ok(expected[0]); 5]);
    let split = "{\"columns\":[\"f0\",\"f1\",\"f2\",\"f3\",\"f4\",\"f5\"],\"data\":[[null,0.5,0.5,0.5,0.5,0.5]]}";
    assert_eq!(scores(&loaded, &[split, split]), vec![Ok(expected[0]); 2]);
    // Without it a gap is a dead letter, or the default.
    let required = ("name = \"f0\", default = 0.0", "name = \"f0\"");
    let strict = Bundle::load(bundle(&model, "", &[column, required]).path()).unwrap();
    assert_eq!(scores(&strict, &[&null]), [Err(ErrorClass::MissingFeature)]);
}

#[test]
fn behind_a_zip_map_the_scores_are_read() {
    let labels = || vec![("classlabels_int64s", Value::Integers(vec![0, 1]))];
    let model = first_feature(2, &[Written(&["product"], &["scores"], "ZipMap", ML, labels())]);
    let column = ("tensor = \"scores\"\n", "tensor = \"scores\"\ncolumn = 0\n");
    let loaded = Bundle::load(bundle(&model, "{\"f0\":0.75,\"expected_score\":0.75}\n", &[column]).path()).unwrap();
    assert_eq!(scores(&loaded, &["{\"f0\":0.5}"]), [Ok(0.5)]);
    // The ZipMap's names count, too.
    for (class, refused) in [("1", ""), ("\"1\"", ""), ("2", "it has: 0, 1")] {
        let class = format!("tensor = \"scores\"\nclass = {class}\n");
        let folder = bundle(&model, "", &[("tensor = \"scores\"\n", &class)]);
        match Bundle::load(folder.path()) {
            Ok(loaded) => assert_eq!(loaded.manifest.output.column, Some(1), "{class}"),
            Err(error) => assert!(!refused.is_empty() && error.to_string().contains(refused), "{class}: {error}"),
        }
    }
}

#[test]
fn a_class_is_found_by_its_name() {
    let forest = exported("forest-string-labels");
    let labels = class_labels(&forest, "scores").unwrap().unwrap();
    for (column, label) in labels.iter().enumerate() {
        let class = format!("tensor = \"scores\"\nclass = \"{label}\"\n");
        let folder = bundle(&forest, "", &[("tensor = \"scores\"\n", &class)]);
        assert_eq!(Bundle::load(folder.path()).unwrap().manifest.output.column, Some(column));
    }
    let class = ("tensor = \"scores\"\n", "tensor = \"scores\"\nclass = \"fraud?\"\n");
    let unknown = refusal(&bundle(&forest, "", &[class]));
    assert!(unknown.contains("is no class of the graph") && unknown.contains(&labels[0]), "{unknown}");
    let nameless = refusal(&bundle(&first_feature(2, &[]), "", &[class]));
    assert!(nameless.contains("names no classes"), "{nameless}");
}

#[test]
fn a_refusal_names_the_remedy_and_no_signature_of_cpp() {
    let mut newer = first_feature(1, &[]);
    assert_eq!(newer[..2], [8, 9], "ir_version");
    newer[1] = 99;
    let refusal = refusal(&bundle(&newer, "", &[]));
    assert!(refusal.contains("Unsupported model IR version: 99"), "{refusal}");
    assert!(refusal.contains("model.ir_version = 10"), "{refusal}");
    assert!(!refusal.contains("::") && !refusal.contains(".cc"), "{refusal}");
}

#[test]
fn a_wrong_score_names_a_cause_that_the_graph_shows() {
    let trees = exported("forest-binary");
    let golden = "{\"f0\":0.5,\"expected_score\":0.987654}\n";
    let column = ("tensor = \"scores\"\n", "tensor = \"scores\"\ncolumn = 1\n");
    let of_trees = refusal(&bundle(&trees, golden, &[column]));
    assert!(of_trees.contains("astype(float32)"), "{of_trees}");
    let scaled = refusal(&bundle(&exported("scaler-forest"), golden, &[column]));
    assert!(scaled.contains("its Scaler multiplies"), "{scaled}");
}

#[test]
fn onnx_runtime_says_how_new_a_model_it_reads() {
    let (ir_version, operator_set) = crate::model::session::newest_readable().expect("both are in its words");
    assert!((10..1_000).contains(&ir_version) && (20..1_000).contains(&operator_set), "{ir_version} {operator_set}");
}
