//! Contributions to a linear model's margin: coefficient × deviation from the mean, which is exact and all there is.

use fraud_trees::onnx::{Linear, Margin};

/// A linear model, its scaler and its choice of a class folded into one coefficient for each feature.
#[derive(Clone, Debug)]
pub(super) struct LinearEffects {
    coefficients: Vec<f64>,
    mean: Vec<f32>,
    /// The margin of a row of means.
    at_mean: f64,
}

impl LinearEffects {
    /// The effects of `model` where its score depends on one margin; with that margin. `column` is the wanted class;
    /// deviations are from the scaler's offset, or from `mean` where there is no scaler.
    pub fn of(model: &Linear, column: usize, mean: &[f32]) -> Option<(LinearEffects, Margin)> {
        let margin = margin(model, column)?;
        let width = mean.len();
        let mean = model.scaler.as_ref().map_or(mean, |scaler| &scaler.offset).to_vec();
        let of_feature = |feature: usize| {
            let targets = model.coefficients.iter().skip(feature).step_by(width);
            let weighted: f64 = margin.weights.iter().zip(targets).map(|(weight, own)| weight * f64::from(*own)).sum();
            weighted * model.scaler.as_ref().map_or(1.0, |scaler| f64::from(scaler.scale[feature]))
        };
        let coefficients: Vec<f64> = (0..width).map(of_feature).collect();
        let intercept: f64 =
            margin.weights.iter().zip(&model.intercepts).map(|(weight, own)| weight * f64::from(*own)).sum();
        // The scaler takes its offset off: what is left of a row of offsets is the intercept.
        let of_mean = match &model.scaler {
            Some(_) => 0.0,
            None => coefficients.iter().zip(&mean).map(|(own, mean)| own * f64::from(*mean)).sum(),
        };
        let at_mean = intercept + of_mean + margin.constant;
        Some((LinearEffects { coefficients, mean, at_mean }, margin))
    }

    /// The row that others are compared with, and its margin.
    pub fn baseline(&self) -> (&[f32], f64) {
        (&self.mean, self.at_mean)
    }

    /// What each feature of `row` adds to the margin.
    pub fn effects(&self, row: &[f32], effects: &mut [f64]) {
        for (((effect, own), mean), value) in effects.iter_mut().zip(&self.coefficients).zip(&self.mean).zip(row) {
            *effect = own * (f64::from(*value) - f64::from(*mean));
        }
    }
}

/// What the score of `column` depends on, a normaliser after it included.
fn margin(model: &Linear, column: usize) -> Option<Margin> {
    let margin = model.finish.margin(column)?;
    if model.normalized.is_none() || sums_to_one(model) {
        return Some(margin);
    }
    None
}

/// Whether the classes' scores add up to 1 as they are, so that a normaliser changes nothing: one class is the other's
/// mirror, as exporters write a model of two classes.
fn sums_to_one(model: &Linear) -> bool {
    match &model.intercepts[..] {
        [_] => true,
        [first, second] => {
            let (one, other) = model.coefficients.split_at(model.coefficients.len() / 2);
            *first == -*second && one.iter().zip(other).all(|(one, other)| *one == -*other)
        }
        _ => false,
    }
}
