//! Linear models as libraries export them, and as they might: our scores against ONNX Runtime's.

use super::*;
use crate::model::choice::{KernelChoice, ModelEngine};
use crate::model::trees::tests::by_hand::{Constant, ML, Node, Value, model, model_with};
use crate::model::trees::tests::{WIDTH, exported, manifest, samples};
use crate::model::trees::verify::difference;

const COEFFICIENTS: [f32; 3 * WIDTH] =
    [0.43, -1.037, 0.3915, 2.25, -0.004, 0.7, -0.9, 0.11, 0.613, -0.33, 1.75, -0.21, 0.05, 0.5, -0.77, 1.01, 0.6, -1.3];
const INTERCEPTS: [f32; 3] = [1.469, -0.25, 0.125];
const OFFSETS: [f32; WIDTH] = [0.1, -0.2, 0.0, 3.5, -0.01, 2.0];
const SCALES: [f32; WIDTH] = [0.998, 1.2, 0.5, 0.0625, 4.0, 0.7];

fn plan(model: &[u8], column: Option<usize>) -> Result<(LinearPlan, OnnxScorer), NotTaken> {
    let manifest = manifest(column);
    let mut reference = OnnxScorer::new(&manifest, model).unwrap();
    let plan = LinearPlan::new(&manifest, model, &mut reference, &samples(50))?;
    Ok((plan, reference))
}

/// Scores fresh samples by both, all at once and one by one.
fn agrees(name: &str, model: &[u8], column: Option<usize>) -> LinearPlan {
    let (plan, mut reference) = plan(model, column).unwrap_or_else(|reason| panic!("{name} {column:?}: {reason}"));
    let (samples, mut expected, mut scores) = (samples(1_003), Vec::new(), Vec::new());
    reference.score(&samples, &mut expected).unwrap();
    assert!(expected.iter().any(|score| *score != expected[0]), "{name} {column:?}: the rows differ");
    let mut scorer = LinearScorer::new(&plan);
    scorer.score(&samples, &mut scores);
    assert_eq!(scores.len(), expected.len());
    for (row, (score, expected)) in scores.iter().zip(&expected).enumerate() {
        assert!(difference(*score, *expected) <= 1e-6, "{name} {column:?}, row {row}: {score} {expected}");
    }
    for (row, expected) in samples.chunks_exact(WIDTH).zip(&expected).take(50) {
        scorer.score(row, &mut scores);
        assert!(difference(scores[0], *expected) <= 1e-6, "{name} {column:?}, {row:?} alone: {scores:?} {expected}");
    }
    scorer.score(&[], &mut scores);
    assert!(scores.is_empty());
    plan
}

fn scaler() -> Node<'static> {
    let attributes = vec![("offset", Value::Floats(OFFSETS.into())), ("scale", Value::Floats(SCALES.into()))];
    Node(&["input"], &["scaled"], "Scaler", ML, attributes)
}

/// A classifier of as many targets as `intercepts`, and labels.
fn classifier(
    inputs: &'static [&'static str],
    outputs: &'static [&'static str],
    intercepts: &[f32],
    labels: i64,
    transform: &'static str,
) -> Node<'static> {
    let coefficients = COEFFICIENTS[..intercepts.len() * WIDTH].to_vec();
    let attributes = vec![
        ("coefficients", Value::Floats(coefficients)),
        ("intercepts", Value::Floats(intercepts.to_vec())),
        ("classlabels_ints", Value::Integers((0..labels).collect())),
        ("post_transform", Value::Text(transform)),
    ];
    Node(inputs, outputs, "LinearClassifier", ML, attributes)
}

#[test]
fn every_transform_of_several_classes_is_onnx_runtimes() {
    for transform in ["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"] {
        for targets in [2, 3] {
            let intercepts = &INTERCEPTS[..targets];
            let bare = model(&[classifier(&["input"], &["l", "scores"], intercepts, targets as i64, transform)], 1);
            let scaled =
                model(&[scaler(), classifier(&["scaled"], &["l", "scores"], intercepts, targets as i64, transform)], 1);
            for column in 0..targets {
                let name = format!("{targets} classes, {transform}");
                let plan = agrees(&name, &bare, Some(column));
                assert!(plan.agreement().rows > 5_000 && plan.agreement().difference <= 1e-6, "{name}");
                assert_eq!(plan.method(), "native linear model");
                assert_eq!(agrees(&name, &scaled, Some(column)).method(), "native linear model with its scaler");
            }
        }
    }
}

#[test]
fn what_scikit_learn_exports_is_taken() {
    for column in 0..2 {
        agrees("logistic regression", &exported("no-trees"), Some(column));
    }
}

#[test]
fn labels_of_text_and_what_changes_nothing_make_no_difference() {
    let mut classifier = classifier(&["same"], &["l", "raw"], &INTERCEPTS[..2], 2, "LOGISTIC");
    classifier.4[2] = ("classlabels_strings", Value::Texts(vec!["good", "bad"]));
    let nodes = [
        Node(&["input"], &["cast"], "Cast", "", vec![("to", Value::Integer(1))]),
        Node(&["cast"], &["same"], "Identity", "", vec![]),
        classifier,
        Node(&["raw"], &["scores"], "Identity", "", vec![]),
    ];
    agrees("labels of text", &model(&nodes, 1), Some(1));
}

#[test]
fn a_normalizer_divides_by_the_rows_sum() {
    // Two classes as exporters write them: the first is the second's mirror.
    let mirrored: Vec<f32> =
        COEFFICIENTS[..WIDTH].iter().map(|value| -value).chain(COEFFICIENTS[..WIDTH].to_vec()).collect();
    let by = |norm| {
        let mut classifier = classifier(&["input"], &["l", "raw"], &[-0.25, 0.25], 2, "LOGISTIC");
        classifier.4[0] = ("coefficients", Value::Floats(mirrored.clone()));
        let normalizer = Node(&["raw"], &["scores"], "Normalizer", ML, vec![("norm", Value::Text(norm))]);
        model(&[classifier, normalizer], 1)
    };
    for column in 0..2 {
        agrees("normalizer", &by("L1"), Some(column));
    }
    assert_eq!(reason(&by("L2"), Some(1)), NotTaken::Unsupported("a normalizer by L2".into()));
    // Where each class has a sum of its own, all can be nearly 0 together. What is left of their digits after a division
    // is not the same for two exponential functions: found at load.
    let classifier = classifier(&["input"], &["l", "raw"], &[-0.25, 0.25], 2, "LOGISTIC");
    let normalizer = Node(&["raw"], &["scores"], "Normalizer", ML, vec![("norm", Value::Text("L1"))]);
    let reason = reason(&model(&[classifier, normalizer], 1), Some(1));
    assert!(matches!(reason, NotTaken::Disagreement(_)), "{reason}");
}

/// Why there is no plan.
fn reason(model: &[u8], column: Option<usize>) -> NotTaken {
    plan(model, column).err().expect("left to ONNX Runtime")
}

#[test]
fn one_row_of_coefficients_is_two_classes_or_is_left_to_onnx_runtime() {
    for transform in ["NONE", "LOGISTIC", "SOFTMAX"] {
        let file = model(&[scaler(), classifier(&["scaled"], &["l", "scores"], &INTERCEPTS[..1], 2, transform)], 1);
        for column in 0..2 {
            one_target(transform, &file, Some(column));
        }
    }
    let file = model(&[classifier(&["input"], &["l", "scores"], &INTERCEPTS[..1], 2, "PROBIT")], 1);
    assert!(matches!(reason(&file, Some(1)), NotTaken::Unsupported(_)));
}

/// ONNX Runtime sums up a single target in another order on some processors. Then sums that overflow half way may differ:
/// that must be found at load, and nothing else may be.
fn one_target(name: &str, file: &[u8], column: Option<usize>) {
    match plan(file, column) {
        Ok(_) => _ = agrees(name, file, column),
        Err(NotTaken::Disagreement(reason)) => {
            let huge = ["e38", "inf", "NaN", "3402823"].iter().any(|huge| reason.contains(huge));
            assert!(huge, "{name} {column:?}: {reason}");
        }
        Err(other) => panic!("{name} {column:?}: {other}"),
    }
}

#[test]
fn dense_layers_are_taken_in_every_form() {
    let by_feature: Vec<f32> =
        (0..WIDTH).flat_map(|feature| [0, 1, 2].map(|target| COEFFICIENTS[target * WIDTH + feature])).collect();
    let sizes = WIDTH as i64;
    let constants: [Constant<'_>; 3] =
        [("w", &[3, sizes], &COEFFICIENTS), ("v", &[sizes, 3], &by_feature), ("b", &[3], &INTERCEPTS)];
    let gemm = |inputs, transposed| Node(inputs, &["raw"], "Gemm", "", vec![("transB", Value::Integer(transposed))]);
    let product = || Node(&["input", "v"], &["product"], "MatMul", "", vec![]);
    let forms: [(&str, Vec<Node<'_>>); 5] = [
        ("gemm by target", vec![gemm(&["input", "w", "b"], 1)]),
        ("gemm by feature", vec![gemm(&["input", "v", "b"], 0)]),
        ("gemm without intercepts", vec![gemm(&["input", "v"], 0)]),
        ("product and sum", vec![product(), Node(&["product", "b"], &["raw"], "Add", "", vec![])]),
        ("sum, the other way round", vec![product(), Node(&["b", "product"], &["raw"], "Add", "", vec![])]),
    ];
    for (name, mut nodes) in forms {
        nodes.push(Node(&["raw"], &["scores"], "Softmax", "", vec![("axis", Value::Integer(-1))]));
        agrees(name, &model_with(&constants, &nodes, 1), Some(1));
        nodes.pop();
        nodes.push(Node(&["raw"], &["scores"], "Sigmoid", "", vec![]));
        agrees(name, &model_with(&constants, &nodes, 1), Some(2));
    }
    let constants: [Constant<'_>; 2] = [("w", &[1, sizes], &COEFFICIENTS[..WIDTH]), ("b", &[1], &INTERCEPTS[..1])];
    let nodes = [gemm(&["input", "w", "b"], 1), Node(&["raw"], &["scores"], "Sigmoid", "", vec![])];
    one_target("one target", &model_with(&constants, &nodes, 1), None);
}

#[test]
fn foreign_shapes_are_left_to_onnx_runtime() {
    let sizes = WIDTH as i64;
    let constants: [Constant<'_>; 3] =
        [("w", &[3, sizes], &COEFFICIENTS), ("b", &[3], &INTERCEPTS), ("half", &[1], &[0.5])];
    let gemm = |attributes| Node(&["input", "w", "b"], &["raw"], "Gemm", "", attributes);
    let sigmoid = || Node(&["raw"], &["scores"], "Sigmoid", "", vec![]);
    let by_target = || ("transB", Value::Integer(1));
    let forms: [(&str, Vec<Node<'_>>); 5] = [
        ("scaled product", vec![gemm(vec![by_target(), ("alpha", Value::Float(0.5))]), sigmoid()]),
        ("scaled intercepts", vec![gemm(vec![by_target(), ("beta", Value::Float(2.0))]), sigmoid()]),
        (
            "something before",
            vec![
                Node(&["input", "half"], &["halves"], "Mul", "", vec![]),
                Node(&["halves", "w", "b"], &["raw"], "Gemm", "", vec![by_target()]),
                sigmoid(),
            ],
        ),
        (
            "something after",
            vec![
                gemm(vec![by_target()]),
                Node(&["raw"], &["mid"], "Sigmoid", "", vec![]),
                Node(&["mid", "half"], &["scores"], "Mul", "", vec![]),
            ],
        ),
        (
            "over the rows",
            vec![
                gemm(vec![by_target()]),
                Node(&["raw"], &["scores"], "Softmax", "", vec![("axis", Value::Integer(0))]),
            ],
        ),
    ];
    for (name, nodes) in forms {
        let reason = reason(&model_with(&constants, &nodes, 1), Some(1));
        assert!(matches!(reason, NotTaken::Unsupported(_)), "{name}: {reason}");
    }
    let file = model(&[classifier(&["input"], &["l", "scores"], &INTERCEPTS, 3, "SOFTMAX")], 1);
    let told = Linear::of(&file, "input", "scores", WIDTH + 1, Some(0)).unwrap_err();
    assert_eq!(told.0, "18 coefficients and 3 intercepts do not fit 7 features");
    assert!(Linear::of(&file, "input", "scores", WIDTH, None).is_err(), "which column?");
    assert!(Linear::of(&file, "input", "scores", WIDTH, Some(3)).is_err(), "no such column");
    assert!(Linear::of(&file, "other", "scores", WIDTH, Some(0)).is_err(), "another input");
    assert!(Linear::of(&file, "input", "l", WIDTH, Some(0)).is_err(), "the label");
    for length in 0..file.len() {
        let _ = Linear::of(&file[..length], "input", "scores", WIDTH, Some(0));
    }
}

#[test]
fn strange_numbers_are_onnx_runtimes_too() {
    let file = model(&[scaler(), classifier(&["scaled"], &["l", "scores"], &INTERCEPTS[..2], 2, "LOGISTIC")], 1);
    let (plan, mut reference) = plan(&file, Some(1)).unwrap();
    let (mut scorer, mut scores, mut expected) = (LinearScorer::new(&plan), Vec::new(), Vec::new());
    let strange = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e30, -1e30, 1e-40, -0.0];
    let mut random = Random::fixed();
    let rows: Vec<f32> = (0..500 * WIDTH).map(|_| random.pick(&strange)).collect();
    reference.score(&rows, &mut expected).unwrap();
    scorer.score(&rows, &mut scores);
    for (row, (score, expected)) in rows.chunks_exact(WIDTH).zip(scores.iter().zip(&expected)) {
        assert!(difference(*score, *expected) <= 1e-6, "{row:?}: {score} {expected}");
    }
    assert!(expected.iter().any(|score| score.is_nan()) && expected.contains(&1.0));
}

#[test]
fn a_model_that_differs_in_one_coefficient_does_not_verify() {
    let file = |coefficients: &[f32]| {
        let mut node = classifier(&["input"], &["l", "scores"], &INTERCEPTS[..2], 2, "LOGISTIC");
        node.4[0] = ("coefficients", Value::Floats(coefficients.to_vec()));
        model(&[node], 1)
    };
    let coefficients = COEFFICIENTS[..2 * WIDTH].to_vec();
    let manifest = manifest(Some(1));
    let mut reference = OnnxScorer::new(&manifest, &file(&coefficients)).unwrap();
    for place in WIDTH..2 * WIDTH {
        let mut other = coefficients.clone();
        other[place] *= 1.0001;
        let other = file(&other);
        let reason = LinearPlan::new(&manifest, &other, &mut reference, &samples(50)).err();
        assert!(matches!(reason, Some(NotTaken::Disagreement(_))), "{place}: {reason:?}");
    }
}

#[test]
fn the_choice_is_by_kind_of_graph_and_says_why_not() {
    let file = model(&[classifier(&["input"], &["l", "scores"], &INTERCEPTS[..2], 2, "LOGISTIC")], 1);
    let choose = |choice, file: &[u8]| {
        let manifest = manifest(Some(1));
        let mut reference = OnnxScorer::new(&manifest, file).unwrap();
        ModelEngine::choose(choice, &manifest, file, &mut reference, &samples(50))
    };
    for choice in [KernelChoice::Auto, KernelChoice::Simd] {
        let engine = choose(choice, &file).unwrap();
        assert_eq!((engine.name(), engine.detail().as_str()), ("simd", "native linear model"));
    }
    assert_eq!(choose(KernelChoice::Onnxruntime, &file).unwrap().name(), "onnxruntime");
    let foreign = model(&[Node(&["input"], &["scores"], "Sigmoid", "", vec![])], 1);
    let engine = choose(KernelChoice::Auto, &foreign).unwrap();
    assert_eq!(engine.detail(), "the graph has no tree ensemble; it is no linear model");
    assert!(choose(KernelChoice::Simd, &foreign).is_err());
}
