//! A linear model, computed here: [scaler] ─► sums of coefficients × features ─► logistic or softmax.
//!
//! ```text
//!  model.onnx ─► Linear ─► LinearPlan (checked against ONNX Runtime) ─► LinearScorer per thread
//!
//!  rows ─► 16 of them, turned so that a feature's values lie side by side ─► scaled ─► 16 sums at once ─► finish
//! ```
//!
//! A logistic regression is so little work that ONNX Runtime's calls cost more than the sums; and a worker that scores one
//! record at a time pays them for each.
//!
//! The sums are ONNX Runtime's, not merely near them: its matrix multiplication adds the products in the order of the
//! features by fused multiply-add (one rounding per step), and so does this, by way of 64-bit floats: the product of two
//! 32-bit floats is exact there, and after the addition one rounding leads back. Summing up in another order would lie
//! within the tolerance for models like ours, but not for features without a scaler, where partial sums are large, and
//! not where a sum overflows half way. Loops of fixed length over the rows become vector instructions by themselves.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use fraud_trees::onnx::Linear;

use super::manifest::Manifest;
use super::scorer::OnnxScorer;
use super::trees::NotTaken;
use super::trees::rows::{Random, combined};
use super::trees::verify::{Agreement, compare};

/// Rows that are summed up at once.
const LANES: usize = 16;

/// Golden rows that are compared at most.
const GOLDEN_ROWS: usize = 2_048;
/// Golden columns newly combined, with strange values among them.
const COMBINED_ROWS: usize = 4_096;
/// Rows of all magnitudes.
const WIDE_ROWS: usize = 1_024;

/// A linear model that agrees with ONNX Runtime.
#[derive(Clone, Debug)]
pub struct LinearPlan {
    model: Linear,
    width: usize,
    agreement: Agreement,
}

impl LinearPlan {
    /// Reads `model` and holds its scores against `reference`: on the bundle's `golden` rows, on those newly combined, and
    /// on rows of all magnitudes.
    pub fn new(
        manifest: &Manifest,
        model: &[u8],
        reference: &mut OnnxScorer,
        golden: &[f32],
    ) -> Result<LinearPlan, NotTaken> {
        let width = manifest.features.len();
        let model = Linear::of(model, &manifest.input, &manifest.output.tensor, width, manifest.output.column)?;
        let mut plan = LinearPlan { model, width, agreement: Agreement::default() };
        plan.verify(reference, golden)?;
        Ok(plan)
    }

    fn verify(&mut self, reference: &mut OnnxScorer, golden: &[f32]) -> Result<(), NotTaken> {
        let (mut random, mut expected) = (Random::fixed(), Vec::new());
        let golden = &golden[..golden.len().min(GOLDEN_ROWS * self.width)];
        let combined_rows = combined(golden, self.width, COMBINED_ROWS, &mut random);
        let wide = combined(&[], self.width, WIDE_ROWS, &mut random);
        let mut scorer = LinearScorer::new(self);
        for rows in [golden, &combined_rows, &wide] {
            reference.score(rows, &mut expected).map_err(NotTaken::unverified)?;
            compare(rows, self.width, &expected, &mut self.agreement, |rows, scores| {
                scorer.score(rows, scores);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// How it is computed, in words for logs.
    pub fn method(&self) -> String {
        let scaler = if self.model.scaler.is_some() { " with its scaler" } else { "" };
        format!("native linear model{scaler}")
    }

    /// What was compared with ONNX Runtime.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }
}

/// One thread's linear model.
pub struct LinearScorer {
    model: Linear,
    width: usize,
    /// The rows under way: for each feature its value in each row.
    block: Vec<[f32; LANES]>,
    /// Their sums, for each target.
    sums: Vec<[f32; LANES]>,
}

impl LinearScorer {
    /// Copies the model.
    pub fn new(plan: &LinearPlan) -> LinearScorer {
        LinearScorer {
            block: vec![[0.0; LANES]; plan.width],
            sums: vec![[0.0; LANES]; plan.model.targets()],
            model: plan.model.clone(),
            width: plan.width,
        }
    }

    /// As [`super::scorer::Scorer::score`]; cannot fail.
    pub fn score(&mut self, features: &[f32], scores: &mut Vec<f32>) {
        scores.clear();
        for rows in features.chunks(LANES * self.width) {
            let count = rows.len() / self.width;
            self.turn(rows);
            self.sum_up();
            match &self.sums[..] {
                [sums] => scores.extend_from_slice(&sums[..count]),
                sums => scores.extend((0..count).flat_map(|row| sums.iter().map(move |target| target[row]))),
            }
        }
        self.model.finish.apply(scores);
        self.model.normalize(scores);
    }

    /// Fills the block; where there are fewer rows, what was there before stays and is summed up in vain.
    fn turn(&mut self, rows: &[f32]) {
        for (lane, row) in rows.chunks_exact(self.width).enumerate() {
            for (values, value) in self.block.iter_mut().zip(row) {
                values[lane] = *value;
            }
        }
        let Some(scaler) = &self.model.scaler else { return };
        for ((values, offset), scale) in self.block.iter_mut().zip(&scaler.offset).zip(&scaler.scale) {
            for value in values {
                *value = (*value - offset) * scale;
            }
        }
    }

    fn sum_up(&mut self) {
        let targets = self.model.coefficients.chunks_exact(self.width).zip(&self.model.intercepts);
        for ((coefficients, intercept), sums) in targets.zip(&mut self.sums) {
            let mut sum = [0.0_f32; LANES];
            for (values, coefficient) in self.block.iter().zip(coefficients) {
                let coefficient = f64::from(*coefficient);
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum = (f64::from(*sum) + f64::from(*value) * coefficient) as f32;
                }
            }
            *sums = sum.map(|sum| sum + intercept);
        }
    }
}
