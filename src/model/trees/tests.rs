//! What libraries export, and what they might: the kernel's scores against ONNX Runtime's.

pub(in crate::model) mod by_hand;

use std::path::PathBuf;

use fraud_trees::ensemble::Node as Step;
use fraud_trees::kernel::Kernel;
use fraud_trees::onnx::Split;

use self::by_hand::{ML, MODES, Node, Shape, Trees, Value, model};
use super::verify::difference;
use super::{NotTaken, TreePlan, TreeScorer};
use crate::model::manifest::Manifest;
use crate::model::scorer::OnnxScorer;

/// Features of every model here.
pub(crate) const WIDTH: usize = 6;

pub(in crate::model) fn manifest(column: Option<usize>) -> Manifest {
    let features: Vec<String> = (0..WIDTH).map(|number| format!("{{ name = \"f{number}\" }}")).collect();
    let column = column.map_or(String::new(), |column| format!("column = {column}\n"));
    let text = format!(
        "name = \"test\"\nversion = \"1\"\nmodel = \"model.onnx\"\nsha256 = \"{}\"\n[input]\ntensor = \"input\"\n\
         features = [{}]\n[output]\ntensor = \"scores\"\n{column}[thresholds]\nreview = 0.5\ndecline = 0.9\n",
        "0".repeat(64),
        features.join(", ")
    );
    Manifest::parse(&text).unwrap()
}

pub(crate) fn exported(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(format!("{name}.onnx"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Rows as training drew them: the last column holds small whole numbers. Every other row is of halves.
pub(crate) fn samples(count: usize) -> Vec<f32> {
    let mut random = super::rows::Random::fixed();
    let mut uniform = || random.below(1 << 20) as f32 / (1 << 20) as f32;
    (0..count)
        .flat_map(|number| {
            let mut row = [0.0; WIDTH].map(|_: f32| (0..6).map(|_| uniform()).sum::<f32>() - 3.0);
            row[WIDTH - 1] = (uniform() * 5.0).floor();
            if number % 2 == 0 { row.map(|value| (value * 2.0).round() / 2.0) } else { row }
        })
        .collect()
}

fn plan(model: &[u8], column: Option<usize>) -> Result<(TreePlan, OnnxScorer), NotTaken> {
    let manifest = manifest(column);
    let mut reference = OnnxScorer::new(&manifest, model).unwrap();
    let plan = TreePlan::new(&manifest, model, &mut reference, &samples(50))?;
    Ok((plan, reference))
}

/// Scores fresh samples by both, all at once and one by one.
fn agrees(name: &str, model: &[u8], column: Option<usize>) -> TreePlan {
    let (plan, mut reference) = plan(model, column).unwrap_or_else(|reason| panic!("{name} {column:?}: {reason}"));
    let (samples, mut expected, mut scores) = (samples(2_000), Vec::new(), Vec::new());
    reference.score(&samples, &mut expected).unwrap();
    let mut scorer = TreeScorer::new(&plan).unwrap();
    scorer.score(&samples, &mut scores).unwrap();
    assert_eq!(scores.len(), expected.len());
    // Of the hand-made ones, some give one class the same score for all rows.
    let varied = expected.iter().any(|score| *score != expected[0]);
    assert!(varied || name.starts_with("class"), "{name} {column:?}: the rows differ");
    for (row, (score, expected)) in scores.iter().zip(&expected).enumerate() {
        assert!(difference(*score, *expected) <= 1e-6, "{name} {column:?}, row {row}: {score} {expected}");
    }
    for (row, expected) in samples.chunks_exact(WIDTH).zip(&expected).take(50) {
        scorer.score(row, &mut scores).unwrap();
        assert!(difference(scores[0], *expected) <= 1e-6, "{name} {column:?}, {row:?} alone: {scores:?} {expected}");
    }
    plan
}

#[test]
fn what_libraries_export_is_scored_by_the_kernel_alone() {
    for (name, columns) in [
        ("xgboost-binary", 2),
        ("xgboost-missing", 2),
        ("xgboost-multiclass", 3),
        ("xgboost-regressor", 1),
        ("lightgbm-binary", 2),
        ("lightgbm-multiclass", 3),
        ("catboost-binary", 2),
        ("forest-binary", 2),
        ("forest-multiclass", 3),
        ("forest-string-labels", 2),
        ("forest-regressor", 1),
        ("tree-deep", 2),
        ("gradient-boosting", 2),
        ("hist-gradient-boosting", 2),
    ] {
        for column in 0..columns {
            let plan = agrees(name, &exported(name), Some(column));
            assert_eq!(plan.around(), (false, false), "{name}: no session");
            assert!(plan.agreement().rows > 500 && plan.agreement().difference <= 1e-6, "{name}");
        }
    }
    agrees("xgboost-regressor", &exported("xgboost-regressor"), None);
}

#[test]
fn what_lies_around_the_trees_stays_with_onnx_runtime() {
    for (name, around) in [
        ("scaler-forest", (true, false)),
        ("imputer-scaler-boosting", (true, false)),
        ("forest-calibrated", (false, true)),
    ] {
        for column in 0..2 {
            let plan = agrees(name, &exported(name), Some(column));
            assert_eq!(plan.around(), around, "{name}");
        }
    }
}

#[test]
fn what_is_not_one_tree_node_is_left_to_onnx_runtime_with_the_reason() {
    for (name, expected) in
        [("two-forests", "the graph has 2 tree ensembles"), ("no-trees", "the graph has no tree ensemble")]
    {
        let reason = plan(&exported(name), Some(1)).err();
        assert_eq!(reason, Some(NotTaken::Unsupported(expected.into())), "{name}");
    }
}

fn is_left(name: &str, model: &[u8], column: usize) {
    let reason = plan(model, Some(column)).err();
    assert!(matches!(reason, Some(NotTaken::Unsupported(_))), "{name}: {reason:?}");
}

/// Six small trees for one class of two.
fn binary_trees() -> Trees {
    Trees::draw(7, Shape { trees: 6, depth: 5, modes: &MODES, outputs: &[0], all: false, weights: (-0.9, 0.9) })
}

const TRANSFORMS: [&str; 5] = ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT"];

fn classifier(attributes: Vec<(&str, Value)>) -> Vec<u8> {
    model(&[Node(&["input"], &["label", "scores"], "TreeEnsembleClassifier", ML, attributes)], 3)
}

fn regressor(attributes: Vec<(&str, Value)>) -> Vec<u8> {
    model(&[Node(&["input"], &["scores"], "TreeEnsembleRegressor", ML, attributes)], 3)
}

/// Weights whose sums a transform takes: the probit those in (0, 1).
fn weights_for(transform: &str) -> (f32, f32) {
    if transform == "PROBIT" { (0.02, 0.12) } else { (-0.9, 0.9) }
}

#[test]
fn every_mode_decides_as_in_onnx_runtime() {
    for (seed, mode) in MODES.iter().enumerate() {
        for missing in [false, true] {
            let modes = [*mode];
            let shape = Shape { trees: 6, depth: 6, modes: &modes, outputs: &[0], all: false, weights: (-0.5, 0.5) };
            let trees = Trees::draw(seed, shape);
            let file = classifier(trees.classifier(2, "LOGISTIC", &[0.1], missing));
            agrees(&format!("{mode} {missing}"), &file, Some(1));
            let mixed = Trees::draw(seed, Shape { modes: &MODES, ..shape });
            agrees("all modes", &classifier(mixed.classifier(2, "LOGISTIC", &[], missing)), Some(1));
        }
    }
}

#[test]
fn every_transform_of_several_classes_or_targets_is_onnx_runtimes() {
    for (seed, transform) in TRANSFORMS.into_iter().enumerate() {
        let weights = weights_for(transform);
        for (outputs, base) in [(&[0, 1, 2][..], &[0.1, 0.2, 0.15][..]), (&[0, 1, 2], &[])] {
            let trees = Trees::draw(seed, Shape { trees: 6, depth: 5, modes: &MODES, outputs, all: false, weights });
            let file = classifier(trees.classifier(3, transform, base, true));
            let trees =
                Trees::draw(seed, Shape { trees: 6, depth: 5, modes: &MODES, outputs, all: !base.is_empty(), weights });
            let targets = regressor(trees.regressor(3, transform, "SUM", base));
            for column in 0..3 {
                agrees(&format!("three classes, {transform}"), &file, Some(column));
                agrees(&format!("three targets, {transform}"), &targets, Some(column));
            }
        }
        for base in [&[][..], &[0.1], &[0.1, 0.3]] {
            let outputs = &[0, 1];
            let trees = Trees::draw(seed, Shape { trees: 5, depth: 4, modes: &MODES, outputs, all: true, weights });
            for column in 0..2 {
                let file = classifier(trees.classifier(2, transform, base, true));
                agrees(&format!("two classes, {transform}, {base:?}"), &file, Some(column));
            }
        }
    }
}

#[test]
fn a_binary_classifier_with_weights_for_one_class_is_onnx_runtimes() {
    for (seed, transform) in TRANSFORMS.into_iter().enumerate() {
        for (class, base, weights) in [0, 1].into_iter().flat_map(|class| {
            [&[][..], &[0.1], &[0.1, 0.3]].into_iter().flat_map(move |base| {
                [(0.02, 0.12), weights_for(transform)].into_iter().map(move |weights| (class, base, weights))
            })
        }) {
            let outputs = &[class];
            let trees = Trees::draw(seed, Shape { trees: 4, depth: 4, modes: &MODES, outputs, all: false, weights });
            let file = classifier(trees.classifier(2, transform, base, true));
            let name = format!("class {class}, {transform}, {base:?}, {weights:?}");
            for column in 0..2 {
                match (class, base.len()) {
                    // The second score is never written.
                    (0, 0 | 1) if transform == "PROBIT" => is_left(&name, &file, column),
                    // The sum is left out: every row scores the same.
                    (1, 2) => is_left(&name, &file, column),
                    _ => _ = agrees(&name, &file, Some(column)),
                }
            }
        }
    }
}

#[test]
fn every_aggregate_is_onnx_runtimes() {
    for (seed, aggregate) in ["SUM", "AVERAGE", "MIN", "MAX"].into_iter().enumerate() {
        for (outputs, transform) in [(&[0][..], "NONE"), (&[0], "PROBIT"), (&[0, 1], "NONE"), (&[0, 1], "SOFTMAX")] {
            for base in [&[][..], &[0.1, 0.2][..outputs.len()]] {
                let weights = (0.02, 0.12);
                // Without base values, some rows' leaves name one target only: the other must not become the smallest.
                let all = !base.is_empty();
                let trees = Trees::draw(seed, Shape { trees: 4, depth: 3, modes: &MODES, outputs, all, weights });
                let file = regressor(trees.regressor(outputs.len() as i64, transform, aggregate, base));
                for column in 0..outputs.len() {
                    agrees(&format!("{aggregate}, {transform}, {base:?}"), &file, Some(column));
                }
            }
        }
    }
}

#[test]
fn the_one_operator_of_version_5_is_onnx_runtimes() {
    for (seed, aggregate) in [1, 0, 2, 3].into_iter().enumerate() {
        for (outputs, transform) in [(&[0][..], 0), (&[0, 1, 2], 0), (&[0, 1, 2], 1), (&[0, 1, 2], 2)] {
            let weights = (-0.9, 0.9);
            let trees = Trees::draw(seed, Shape { trees: 5, depth: 5, modes: &MODES, outputs, all: false, weights });
            let attributes = trees.version5(outputs.len() as i64, transform, aggregate);
            let file = model(&[Node(&["input"], &["scores"], "TreeEnsemble", ML, attributes)], 5);
            for column in 0..outputs.len() {
                agrees(&format!("version 5, {aggregate}, {transform}"), &file, Some(column));
            }
        }
    }
}

#[test]
fn nodes_that_change_nothing_cost_no_session() {
    let attributes = binary_trees().classifier(2, "LOGISTIC", &[0.2], true);
    let float = || vec![("to", Value::Integer(1))];
    let trees = Node(&["rows"], &["label", "probabilities"], "TreeEnsembleClassifier", ML, attributes);
    let nodes = [
        Node(&["input"], &["same"], "Identity", "", vec![]),
        Node(&["same"], &["rows"], "Cast", "", float()),
        trees,
        Node(&["probabilities"], &["cast"], "Cast", "", float()),
        Node(&["cast"], &["scores"], "Identity", "", vec![]),
    ];
    let plan = agrees("trivial", &model(&nodes, 3), Some(1));
    assert_eq!(plan.around(), (false, false));
}

#[test]
fn nodes_before_and_after_that_share_the_input_are_two_sessions() {
    let attributes = binary_trees().classifier(2, "NONE", &[0.2], true);
    let first_two = || vec![("axis", Value::Integer(1)), ("keepdims", Value::Integer(1))];
    let nodes = [
        Node(&["input"], &["negative"], "Neg", "", vec![]),
        Node(&["negative"], &["rows"], "Floor", "", vec![]),
        Node(&["rows"], &["label", "margins"], "TreeEnsembleClassifier", ML, attributes),
        // Reads what comes before the trees, too: that part is computed twice.
        Node(&["rows"], &["largest"], "ArgMax", "", first_two()),
        Node(&["largest"], &["place"], "Cast", "", vec![("to", Value::Integer(1))]),
        Node(&["margins", "place"], &["shifted"], "Sub", "", vec![]),
        Node(&["shifted"], &["scores"], "Sigmoid", "", vec![]),
    ];
    for column in 0..2 {
        let plan = agrees("around", &model(&nodes, 3), Some(column));
        assert_eq!(plan.around(), (true, true));
    }
}

#[test]
fn what_cannot_be_split_or_read_is_left_to_onnx_runtime() {
    let attributes = || binary_trees().classifier(2, "LOGISTIC", &[], true);
    let by_label = [
        Node(&["input"], &["label", "margins"], "TreeEnsembleClassifier", ML, attributes()),
        Node(&["label"], &["labels"], "Cast", "", vec![("to", Value::Integer(1))]),
        Node(&["labels"], &["scores"], "Sigmoid", "", vec![]),
    ];
    let reason = plan(&model(&by_label, 3), None).err().unwrap();
    assert!(reason.to_string().contains("the label"), "{reason}");

    let stacked = [
        Node(&["input"], &["label", "rows"], "TreeEnsembleClassifier", ML, attributes()),
        Node(&["rows"], &["label2", "scores"], "TreeEnsembleClassifier", ML, {
            let shape = Shape { trees: 1, depth: 0, modes: &MODES, outputs: &[0], all: false, weights: (-0.9, 0.9) };
            Trees::draw(0, shape).classifier(2, "LOGISTIC", &[], false)
        }),
    ];
    let reason = plan(&model(&stacked, 3), Some(1)).err().unwrap();
    assert_eq!(reason.to_string(), "the graph has 2 tree ensembles");

    let mut doubles = binary_trees().regressor(1, "NONE", "SUM", &[]);
    for (list, tensor) in [("nodes_values", "nodes_values_as_tensor"), ("target_weights", "target_weights_as_tensor")] {
        let (name, value) = doubles.iter_mut().find(|(name, _)| *name == list).unwrap();
        let Value::Floats(floats) = &*value else { panic!("{list}") };
        let bytes = floats.iter().flat_map(|float| f64::from(*float).to_le_bytes()).collect();
        (*name, *value) = (tensor, Value::Tensor(11, bytes));
    }
    let doubles = [
        Node(&["input"], &["double"], "Cast", "", vec![("to", Value::Integer(11))]),
        Node(&["double"], &["scores"], "TreeEnsembleRegressor", ML, doubles),
    ];
    let reason = plan(&model(&doubles, 3), Some(0)).err().unwrap();
    assert!(reason.to_string().contains("not of 32-bit floats"), "{reason}");

    // The trees compare in 64 bits then, whatever their thresholds are.
    let wide = [
        Node(&["input"], &["double"], "Cast", "", vec![("to", Value::Integer(11))]),
        Node(&["double"], &["label", "scores"], "TreeEnsembleClassifier", ML, attributes()),
    ];
    let reason = plan(&model(&wide, 3), Some(1)).err();
    assert!(matches!(reason, Some(NotTaken::Unsupported(_))), "{reason:?}");
}

#[test]
fn a_kernel_that_errs_by_one_unit_at_one_threshold_does_not_verify() {
    let file = exported("xgboost-binary");
    let (mut plan, mut reference) = plan(&file, Some(1)).unwrap();
    let split = Split::of(&file, "input", "scores").unwrap();
    let (right, _) = split.trees.compile(WIDTH, Some(1)).unwrap();
    let branches = right.trees.iter().map(|tree| tree.nodes.len() / 2).sum::<usize>();
    let mut unnoticed = Vec::new();
    for branch in (0..branches).step_by(5) {
        let mut wrong = right.clone();
        let nodes = wrong.trees.iter_mut().flat_map(|tree| &mut tree.nodes);
        let thresholds = nodes.filter_map(|node| match node {
            Step::Branch { threshold, .. } => Some(threshold),
            Step::Leaf { .. } => None,
        });
        let threshold = thresholds.into_iter().nth(branch).unwrap();
        *threshold = threshold.next_up();
        plan.kernel = Kernel::compile(&wrong).unwrap();
        let outcome = super::verify::plan(&plan, &right, &split.alone, &mut reference, &[]);
        if !matches!(outcome, Err(NotTaken::Disagreement(_))) {
            unnoticed.push(branch);
        }
    }
    assert_eq!(unnoticed, [0_usize; 0], "of every fifth of {branches} thresholds");
}

#[test]
fn a_damaged_file_is_refused_without_harm() {
    let file = exported("forest-calibrated");
    let mut random = super::rows::Random::fixed();
    let mut read = 0;
    for _ in 0..3_000 {
        let mut damaged = file.clone();
        for _ in 0..1 + random.below(4) {
            let place = random.below(damaged.len());
            damaged[place] = random.below(256) as u8;
        }
        damaged.truncate(if random.below(4) == 0 { random.below(file.len()) } else { file.len() });
        let Ok(split) = Split::of(&damaged, "input", "scores") else { continue };
        if let Ok((ensemble, _)) = split.trees.compile(WIDTH, None) {
            // Whatever it says now, it can be walked.
            ensemble.interpret(&samples(2), &mut Vec::new());
            read += 1;
        }
    }
    assert!(read > 100, "{read}");
}
