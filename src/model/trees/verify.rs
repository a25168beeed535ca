//! Holds the kernel against ONNX Runtime before it may score: same rows, same scores, whatever the size of the batch.
//!
//! ```text
//!  rows around thresholds ─► kernel + finish        ≟ the tree node alone in ONNX Runtime
//!  golden and combined rows ─► the plan as a whole  ≟ the whole graph in ONNX Runtime
//! ```

use fraud_trees::ensemble::Ensemble;
use fraud_trees::onnx::Part;

use super::rows::{Random, around_thresholds, combined};
use super::{NotTaken, TreePlan, TreeScorer, Trees};
use crate::model::scorer::{InferenceError, OnnxScorer};
use crate::model::session::{GraphSession, take_column};

/// How far a score may lie from ONNX Runtime's: 32-bit floats added in another order. For scores beyond 1, which are
/// no probabilities, relative to the score.
pub const TOLERANCE: f32 = 1e-6;

/// Rows × trees that are compared, so that verification ends within a second for large ensembles too.
const BUDGET: usize = 6_000_000;

/// Rows around thresholds, whatever the budget.
const LEAST_ROWS: usize = 1_024;
/// Rows around thresholds, whatever the budget.
const MOST_ROWS: usize = 32_768;

/// Golden rows that are compared at most, and as many combined ones.
const WHOLE_ROWS: usize = 512;

/// Sizes of batch, and how many rows at most are scored in them, after all were scored at once: kernels take few rows
/// another way than many.
const SMALL_BATCHES: [(usize, usize); 2] = [(33, 990), (1, 100)];

/// What was compared, and how well it agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Agreement {
    /// Rows compared.
    pub rows: usize,
    /// Largest difference among them.
    pub difference: f32,
}

/// Compares `plan` with `alone` (its tree node) and `reference` (the whole graph).
pub fn plan(
    plan: &TreePlan,
    ensemble: &Ensemble,
    alone: &Part,
    reference: &mut OnnxScorer,
    golden: &[f32],
) -> Result<Agreement, NotTaken> {
    let (mut random, mut agreement) = (Random::fixed(), Agreement::default());
    let limit = (BUDGET / ensemble.trees.len().max(1)).clamp(LEAST_ROWS, MOST_ROWS);
    let rows = around_thresholds(ensemble, limit, &mut random);
    let mut session = GraphSession::new(&alone.model, &plan.name).map_err(NotTaken::unverified)?;
    let mut expected = alone_scores(&mut session, alone, plan, &rows).map_err(NotTaken::unverified)?;
    let mut trees = Trees { kernel: plan.kernel.clone(), finish: plan.finish.clone(), width: plan.tree_width };
    compare(&rows, plan.tree_width, &expected, &mut agreement, |rows, scores| {
        trees.score(rows, scores);
        Ok(())
    })?;

    let golden = &golden[..golden.len().min(WHOLE_ROWS * plan.width)];
    let combined = combined(golden, plan.width, WHOLE_ROWS, &mut random);
    let mut scorer = TreeScorer::new(plan).map_err(NotTaken::unverified)?;
    for rows in [golden, &combined] {
        match reference.score(rows, &mut expected) {
            Ok(()) => compare(rows, plan.width, &expected, &mut agreement, |rows, scores| scorer.score(rows, scores))?,
            Err(_) => one_by_one(rows, plan.width, reference, &mut scorer, &mut agreement)?,
        }
    }
    Ok(agreement)
}

/// The tree node's scores in ONNX Runtime: the columns that the finish leaves.
fn alone_scores(
    session: &mut GraphSession,
    alone: &Part,
    plan: &TreePlan,
    rows: &[f32],
) -> Result<Vec<f32>, InferenceError> {
    let (count, mut scores) = (rows.len() / plan.tree_width, Vec::new());
    session.run(count, (&alone.input, rows, plan.tree_width), None, &alone.output, |shape, values| {
        match plan.finish.column() {
            Some(column) => take_column(shape, values, count, Some(column), &mut scores),
            None => {
                scores.extend_from_slice(values);
                Ok(())
            }
        }
    })?;
    Ok(scores)
}

/// Scores `rows` all at once, in small batches, and some of them alone, and holds each score against `expected`.
pub(in crate::model) fn compare(
    rows: &[f32],
    width: usize,
    expected: &[f32],
    agreement: &mut Agreement,
    mut score: impl FnMut(&[f32], &mut Vec<f32>) -> Result<(), InferenceError>,
) -> Result<(), NotTaken> {
    let count = rows.len() / width;
    if count == 0 {
        return Ok(());
    }
    let (columns, mut scores) = (expected.len() / count, Vec::new());
    for (batch, most) in [(count, count)].into_iter().chain(SMALL_BATCHES) {
        let batches = rows.chunks(batch * width).zip(expected.chunks(batch * columns));
        for (rows, expected) in batches.take(most / batch) {
            score(rows, &mut scores).map_err(|error| NotTaken::Disagreement(error.to_string()))?;
            if scores.len() != expected.len() {
                let reason = format!("{} scores instead of {}", scores.len(), expected.len());
                return Err(NotTaken::Disagreement(reason));
            }
            for (number, (score, expected)) in scores.iter().zip(expected).enumerate() {
                let difference = difference(*score, *expected);
                if difference > TOLERANCE {
                    let row = &rows[number / columns * width..][..width];
                    return Err(NotTaken::Disagreement(format!("{score} instead of {expected} for {row:?}")));
                }
                agreement.difference = agreement.difference.max(difference);
            }
        }
    }
    agreement.rows += count;
    Ok(())
}

/// For graphs that refuse some rows (an encoder that knows no such category): the plan must refuse the same.
fn one_by_one(
    rows: &[f32],
    width: usize,
    reference: &mut OnnxScorer,
    scorer: &mut TreeScorer,
    agreement: &mut Agreement,
) -> Result<(), NotTaken> {
    let (mut expected, mut scores) = (Vec::new(), Vec::new());
    for row in rows.chunks_exact(width) {
        match (reference.score(row, &mut expected), scorer.score(row, &mut scores)) {
            (Ok(()), Ok(())) => compare(row, width, &expected, agreement, |row, scores| scorer.score(row, scores))?,
            (Err(_), Err(_)) => {}
            (Ok(()), Err(error)) => return Err(NotTaken::Disagreement(format!("{error} for {row:?}"))),
            (Err(error), Ok(())) => {
                return Err(NotTaken::Disagreement(format!("ONNX Runtime fails ({error}) for {row:?}")));
            }
        }
    }
    Ok(())
}

/// 0 for two that are equal, NaN and infinities included; infinite where only one is a number.
pub(in crate::model) fn difference(score: f32, expected: f32) -> f32 {
    if score == expected || (score.is_nan() && expected.is_nan()) {
        return 0.0;
    }
    let difference = (score - expected).abs() / expected.abs().max(1.0);
    if difference.is_nan() { f32::INFINITY } else { difference }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_oddities_are_equal() {
        let (nan, infinity) = (f32::NAN, f32::INFINITY);
        for (score, expected, same) in [
            (nan, nan, true),
            (infinity, infinity, true),
            (0.5, 0.500_000_1, true),
            (0.5, 0.500_002, false),
            (5e6, 5_000_001.0, true),
            (nan, 0.5, false),
            (0.5, nan, false),
            (infinity, -infinity, false),
            (infinity, 1.0, false),
            (1.0, infinity, false),
        ] {
            assert_eq!(difference(score, expected) <= TOLERANCE, same, "{score} {expected}");
        }
    }

    #[test]
    fn a_difference_in_batches_of_one_alone_is_found() {
        let rows: Vec<f32> = (0..200).map(|row| row as f32).collect();
        let right = |rows: &[f32], scores: &mut Vec<f32>| {
            scores.clear();
            scores.extend(rows.iter().map(|row| row / 200.0));
            Ok(())
        };
        let mut expected = Vec::new();
        right(&rows, &mut expected).unwrap();
        let mut agreement = Agreement::default();
        compare(&rows, 1, &expected, &mut agreement, right).unwrap();
        assert_eq!(agreement, Agreement { rows: 200, difference: 0.0 });
        let wrong = |rows: &[f32], scores: &mut Vec<f32>| {
            right(rows, scores)?;
            if rows == [7.0] {
                scores[0] += 1e-4;
            }
            Ok(())
        };
        let error = compare(&rows, 1, &expected, &mut agreement, wrong).unwrap_err();
        assert!(error.to_string().contains("for [7.0]"), "{error}");
    }
}
