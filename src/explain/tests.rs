//! Contributions against their definition (all subsets), against each other, and against the scores of every kind of model.

#[path = "../../trees/tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};

use fraud_trees::ensemble::{Aggregate, Ensemble};
use fraud_trees::onnx::{Linear, Margin};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use self::common::{Comparisons, Likeness, Missing, Weights, rows};
use super::linear::LinearEffects;
use super::trees::TreeEffects;
use super::*;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)
}

fn bundle(name: &str) -> Bundle {
    Bundle::load(&path(name)).unwrap()
}

/// The golden records' rows, with the scores that the bundle gives them.
fn golden(bundle: &Bundle) -> Vec<(Vec<f32>, f32)> {
    let text = std::fs::read_to_string(bundle.directory.join("golden.jsonl")).unwrap();
    let row = |line: &str| -> Vec<f32> {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        bundle.manifest.features.iter().map(|feature| record[&feature.name].as_f64().unwrap() as f32).collect()
    };
    let rows: Vec<Vec<f32>> = text.lines().map(row).collect();
    let mut scores = Vec::new();
    bundle.scorer().unwrap().score(&rows.concat(), &mut scores).unwrap();
    rows.into_iter().zip(scores).collect()
}

/// The margin of a row, as it is defined.
fn margin_of(ensemble: &Ensemble, margin: &Margin, row: &[f32]) -> f64 {
    let mut sums = vec![0.0; ensemble.outputs];
    for tree in &ensemble.trees {
        for &(output, weight) in tree.leaf(row) {
            sums[output as usize] += f64::from(weight);
        }
    }
    let trees = if ensemble.aggregate == Aggregate::Average { ensemble.trees.len() as f64 } else { 1.0 };
    let each = sums.iter().zip(&ensemble.base_values).zip(&margin.weights);
    each.map(|((sum, base), weight)| weight * (sum / trees + f64::from(*base))).sum::<f64>() + margin.constant
}

/// Shapley values by their definition: over all subsets of features taken from the row.
fn by_definition(ensemble: &Ensemble, margin: &Margin, row: &[f32], baseline: &[f32]) -> Vec<f64> {
    let width = row.len();
    let value: Vec<f64> = (0..1_u32 << width)
        .map(|subset| {
            let mixed: Vec<f32> =
                (0..width).map(|index| if subset >> index & 1 == 1 { row[index] } else { baseline[index] }).collect();
            margin_of(ensemble, margin, &mixed)
        })
        .collect();
    let factorial = |count: usize| (1..=count).map(|factor| factor as f64).product::<f64>();
    let effect = |feature: usize| {
        let without = (0..1_u32 << width).filter(|subset| subset >> feature & 1 == 0);
        without
            .map(|subset| {
                let size = subset.count_ones() as usize;
                let weight = factorial(size) * factorial(width - size - 1) / factorial(width);
                weight * (value[(subset | 1 << feature) as usize] - value[subset as usize])
            })
            .sum()
    };
    (0..width).map(effect).collect()
}

prop_compose! {
    fn likeness()(
        seed in any::<u64>(), width in 1..7_usize, outputs in 1..3_usize, trees in 1..6_usize, depth in 0..7_usize,
        thresholds in 1..5_usize, comparisons in prop_oneof![Just(Comparisons::Ordered), Just(Comparisons::All)],
        missing in prop_oneof![Just(Missing::True), Just(Missing::False), Just(Missing::Mixed)],
        aggregate in prop_oneof![Just(Aggregate::Sum), Just(Aggregate::Average)], oblivious in any::<bool>(),
    ) -> Likeness {
        let (leaves, nodes, weights) = (20, 127, Weights::Some);
        Likeness {
            seed, width, outputs, trees, depth, leaves, nodes, thresholds, comparisons, missing, weights, aggregate,
            oblivious,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn effects_of_trees_are_shapley_values(likeness in likeness(), missing in prop_oneof![Just(0), Just(20)]) {
        let (ensemble, thresholds) = likeness.ensemble();
        let drawn = rows(6, missing, &thresholds, likeness.seed);
        let drawn: Vec<&[f32]> = drawn.chunks_exact(likeness.width).collect();
        let weights = [0.75, -1.5][..likeness.outputs].to_vec();
        let margin = Margin { weights, constant: 0.25, is_log_odds: true };
        let mut effects = TreeEffects::of(&ensemble, &margin, drawn[0]).unwrap();
        let at_baseline = effects.baseline().1;
        prop_assert!((at_baseline - margin_of(&ensemble, &margin, drawn[0])).abs() < 1e-9);
        for row in &drawn {
            let mut found = vec![0.0; likeness.width];
            effects.effects(row, &mut found).unwrap();
            let expected = by_definition(&ensemble, &margin, row, drawn[0]);
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
            let sum = at_baseline + found.iter().sum::<f64>();
            prop_assert!((sum - margin_of(&ensemble, &margin, row)).abs() < 1e-9);
        }
    }
}

#[test]
fn smallest_and_largest_weights_do_not_add_up() {
    let likeness = Likeness {
        seed: 1,
        width: 3,
        outputs: 1,
        trees: 3,
        depth: 3,
        leaves: 0,
        nodes: 15,
        thresholds: 3,
        comparisons: Comparisons::Ordered,
        missing: Missing::False,
        weights: Weights::All,
        aggregate: Aggregate::Max,
        oblivious: false,
    };
    let (ensemble, _) = likeness.ensemble();
    let margin = Margin { weights: vec![1.0], constant: 0.0, is_log_odds: true };
    assert!(TreeEffects::of(&ensemble, &margin, &[0.0; 3]).is_none());
}

/// The shipped models: contributions of every golden record lead from the ordinary row's log-odds to the score's.
#[test]
fn contributions_of_the_shipped_models_add_up_to_their_scores() {
    for (name, method) in [("fraud", "Shapley"), ("fraud-lr", "coefficient")] {
        let bundle = bundle(name);
        let mut explainer = Explainer::new(&bundle).unwrap();
        assert!(explainer.method().contains(method) && !explainer.method().contains("rescaled"));
        let Method::Additive(additive) = &explainer.method else { panic!("{name}") };
        let (ordinary, at_baseline) = additive.baseline();
        let mut scores = Vec::new();
        bundle.scorer().unwrap().score(ordinary, &mut scores).unwrap();
        assert!(scores[0] < bundle.manifest.thresholds.review(), "what is ordinary is approved: {}", scores[0]);
        assert!((probability(at_baseline) - f64::from(scores[0])).abs() < 1e-6);
        let mut suspicious = 0;
        for (row, score) in golden(&bundle) {
            let sum: f64 = explainer.contributions(&row, score).unwrap().iter().sum();
            let explained = probability(at_baseline + sum);
            assert!((explained - f64::from(score)).abs() < 1e-5, "{name}: {explained} {score}");
            let reasons = explainer.reasons(&row, score);
            assert!(reasons.iter().all(|reason| reason.contribution >= LEAST_CONTRIBUTION));
            if score >= bundle.manifest.thresholds.decline() {
                suspicious += 1;
                assert_eq!(reasons.len(), MOST_REASONS, "{name}: {score}");
            }
        }
        assert!(suspicious > 5, "{name}");
    }
}

#[test]
fn a_score_that_is_not_the_rows_is_not_explained() {
    for name in ["fraud", "fraud-lr"] {
        let bundle = bundle(name);
        let mut explainer = Explainer::new(&bundle).unwrap();
        let rows = golden(&bundle);
        let score = |row: &(Vec<f32>, f32)| row.1;
        let (row, highest) = rows.iter().max_by(|one, other| score(one).total_cmp(&score(other))).unwrap();
        assert!(explainer.contributions(row, *highest).is_some());
        assert!(explainer.contributions(row, highest / 2.0).is_none());
        assert!(explainer.contributions(row, f32::NAN).is_none());
        assert!(explainer.contributions(&row[1..], *highest).is_none());
        assert!(explainer.reasons(row, 0.5).is_empty());
        assert!(!explainer.reasons(row, *highest).is_empty());
    }
}

/// By hand: z-scores by the scaler of the graph, times the coefficients of the graph.
#[test]
fn a_linear_contribution_is_coefficient_times_deviation() {
    let bundle = bundle("fraud-lr");
    let manifest = &bundle.manifest;
    let (width, column) = (manifest.features.len(), manifest.output.column);
    let model = Linear::of(&bundle.model, &manifest.input, &manifest.output.tensor, width, column).unwrap();
    let scaler = model.scaler.as_ref().unwrap();
    let of_fraud = &model.coefficients[model.coefficients.len() - width..];
    let mut explainer = Explainer::new(&bundle).unwrap();
    for (row, score) in golden(&bundle).into_iter().take(50) {
        let found = explainer.contributions(&row, score).unwrap();
        for feature in 0..width {
            let deviation = f64::from(row[feature] - scaler.offset[feature]) * f64::from(scaler.scale[feature]);
            let expected = deviation * f64::from(of_fraud[feature]);
            assert!((found[feature] - expected).abs() < 1e-4, "{feature}: {} {expected}", found[feature]);
        }
    }
}

/// What is found by asking the scores alone is, for a model whose features do not interact, what its coefficients say.
#[test]
fn occlusion_of_a_linear_model_gives_its_coefficients() {
    let bundle = bundle("fraud-lr");
    let mut explainer = Explainer::new(&bundle).unwrap();
    let Method::Additive(additive) = &explainer.method else { panic!() };
    let ordinary = additive.baseline().0.to_vec();
    let mut occlusion = Occlusion::new(ordinary, bundle.scorer().unwrap()).unwrap();
    let mut compared = 0;
    // Where the score has digits enough to tell log-odds by.
    for (row, score) in golden(&bundle).into_iter().filter(|(_, score)| (0.01..0.99).contains(score)) {
        let mut found = vec![0.0; row.len()];
        occlusion.explain(&row, score, &mut found).unwrap();
        let expected = explainer.contributions(&row, score).unwrap();
        for (found, expected) in found.iter().zip(expected).filter(|(_, expected)| expected.abs() < 3.0) {
            assert!((found - expected).abs() < 5e-3, "{found} {expected}");
            compared += 1;
        }
        assert!(occlusion.explain(&row, score / 2.0, &mut vec![0.0; row.len()]).is_none());
    }
    assert!(compared > 500, "{compared}");
}

/// A bundle of `model` with six features; with or without golden records.
fn made(model: &[u8], column: Option<usize>, default: Option<f32>, golden: &str) -> (tempfile::TempDir, Bundle) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), model).unwrap();
    let default = default.map_or(String::new(), |default| format!(", default = {default:?}"));
    let features: Vec<String> = (0..6).map(|number| format!("{{ name = \"f{number}\"{default} }}")).collect();
    let hash: String = Sha256::digest(model).iter().map(|byte| format!("{byte:02x}")).collect();
    let column = column.map_or(String::new(), |column| format!("column = {column}\n"));
    let manifest = format!(
        "name = \"made\"\nversion = \"1\"\nmodel = \"model.onnx\"\nsha256 = \"{hash}\"\n[input]\ntensor = \"input\"\n\
         features = [{}]\n[output]\ntensor = \"scores\"\n{column}[thresholds]\nreview = 0.1\ndecline = 0.9\n",
        features.join(", ")
    );
    std::fs::write(folder.path().join("manifest.toml"), manifest).unwrap();
    if !golden.is_empty() {
        std::fs::write(folder.path().join("golden.jsonl"), golden).unwrap();
    }
    let bundle = Bundle::load(folder.path()).unwrap();
    (folder, bundle)
}

/// What libraries export: the method each gets, and that contributions add up where they should.
#[test]
fn every_kind_of_model_is_explained_in_its_own_way() {
    use crate::model::trees::tests::{WIDTH, exported, samples};
    let (medians, means) = ("Shapley values against the medians of the training data", "coefficient × deviation");
    let (rescaled, occluded) =
        (format!("{medians}, rescaled"), "each feature set to its ordinary value and scored again");
    for (name, columns, method) in [
        ("xgboost-binary", 2, medians),
        ("xgboost-missing", 2, medians),
        ("lightgbm-binary", 2, medians),
        ("catboost-binary", 2, medians),
        ("gradient-boosting", 2, medians),
        ("hist-gradient-boosting", 2, medians),
        ("xgboost-multiclass", 3, occluded),
        ("forest-binary", 2, &rescaled),
        ("forest-multiclass", 3, &rescaled),
        ("tree-deep", 2, &rescaled),
        ("forest-calibrated", 2, &rescaled),
        ("scaler-forest", 2, occluded),
        ("imputer-scaler-boosting", 2, occluded),
        ("no-trees", 2, means),
    ] {
        for column in 0..columns {
            let model = exported(name);
            let (_folder, bundle) = made(&model, Some(column), Some(0.25), "");
            let mut explainer = Explainer::new(&bundle).unwrap_or_else(|error| panic!("{name} {column}: {error}"));
            assert!(explainer.method().starts_with(method), "{name} {column}: {}", explainer.method());
            assert_eq!(explainer.method().contains("rescaled"), method.contains("rescaled"), "{name}");
            let at_ordinary = match &explainer.method {
                Method::Occlusion(_) => None,
                Method::Additive(additive) => Some(additive.baseline().0.to_vec()),
            };
            let (rows, mut scores, mut ordinary) = (samples(200), Vec::new(), Vec::new());
            let mut scorer = bundle.scorer().unwrap();
            scorer.score(&rows, &mut scores).unwrap();
            if let Some(row) = &at_ordinary {
                scorer.score(row, &mut ordinary).unwrap();
            }
            let mut explained = 0;
            for (row, score) in rows.chunks_exact(WIDTH).zip(scores) {
                // Where a forest votes for a row as it does for the ordinary one, there is nothing to explain.
                let Some(found) = explainer.contributions(row, score) else { continue };
                explained += usize::from(found.iter().any(|contribution| *contribution > LEAST_CONTRIBUTION));
                if let [ordinary] = ordinary[..] {
                    let sum = log_odds(ordinary.into()) + found.iter().sum::<f64>();
                    assert!((probability(sum) - f64::from(score)).abs() < 1e-5, "{name} {column}: {sum} {score}");
                }
            }
            assert!(explained > 10, "{name} {column}: {explained}");
        }
    }
}

#[test]
fn what_is_ordinary_is_told_by_reference_golden_records_or_defaults() {
    use crate::model::trees::tests::exported;
    let baseline = |bundle: &Bundle| Baseline::of(bundle);
    let shipped = baseline(&bundle("fraud")).unwrap();
    // The reference's edges between the eighth and the ninth of sixteen equal bins.
    assert!((shipped.ordinary[0] - -0.061).abs() < 0.01, "{}", shipped.ordinary[0]);
    assert!((shipped.ordinary[28] - 20.0).abs() < 12.0, "{}", shipped.ordinary[28]);
    assert!(shipped.mean.unwrap()[28] > shipped.ordinary[28], "amounts are skewed");

    let model = exported("xgboost-binary");
    let (_folder, bare) = made(&model, Some(1), None, "");
    let error = Explainer::new(&bare).err().unwrap().to_string();
    assert!(error.contains("\"f0\"") && error.contains("reference.json"), "{error}");

    let (_folder, with_default) = made(&model, Some(1), Some(0.25), "");
    assert_eq!(baseline(&with_default).unwrap(), Baseline { ordinary: vec![0.25; 6], mean: None });

    let mut scores = Vec::new();
    let rows: Vec<[f32; 6]> = [3.0, -1.0, 0.5].map(|value| [value; 6]).to_vec();
    bare.scorer().unwrap().score(&rows.concat(), &mut scores).unwrap();
    let line = |(row, score): (&[f32; 6], &f32)| {
        let features: Vec<String> =
            row.iter().enumerate().map(|(index, value)| format!("\"f{index}\":{value}")).collect();
        format!("{{{},\"expected_score\":{score}}}\n", features.join(","))
    };
    let golden: String = rows.iter().zip(&scores).map(line).collect();
    let (_folder, with_golden) = made(&model, Some(1), None, &golden);
    assert_eq!(baseline(&with_golden).unwrap().ordinary, [0.5; 6]);
    assert!(Explainer::new(&with_golden).is_ok());
}

#[test]
fn a_linear_model_without_a_scaler_deviates_from_the_means() {
    use crate::model::trees::tests::exported;
    let model = Linear::of(&exported("no-trees"), "input", "scores", 6, Some(1)).unwrap();
    assert!(model.scaler.is_none(), "else this tests nothing");
    let mean = [1.0, -2.0, 0.5, 0.0, 3.0, 0.25];
    let (effects, margin) = LinearEffects::of(&model, 1, &mean).unwrap();
    assert!(margin.is_log_odds);
    let mut found = [f64::NAN; 6];
    effects.effects(&mean, &mut found);
    assert_eq!(found, [0.0; 6]);
    let mut row = mean;
    row[2] += 2.0;
    effects.effects(&row, &mut found);
    assert!(found[2] != 0.0 && found.iter().filter(|effect| **effect != 0.0).count() == 1);
}

#[test]
fn the_strongest_come_first_and_what_hardly_counts_not_at_all() {
    assert_eq!(strongest(&[0.5, -3.0, 2.0, 0.009, 1.0, 0.02]), [2, 4, 0]);
    assert_eq!(strongest(&[-1.0, 0.009, 0.01]), [2]);
    assert_eq!(strongest(&[1.0, 1.0, 1.0, 1.0]), [0, 1, 2]);
    assert!(strongest(&[]).is_empty());
}

#[test]
fn log_odds_are_numbers_for_every_score() {
    for score in [0.0, 1e-30, 0.5, 1.0 - 1e-12, 1.0] {
        assert!(log_odds(score).is_finite());
    }
    assert_eq!(log_odds(0.5), 0.0);
    assert!((probability(log_odds(0.731)) - 0.731).abs() < 1e-12);
}
