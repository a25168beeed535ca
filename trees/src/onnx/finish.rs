//! What comes after the sums: a second class out of the first, the post-transform, the choice of a column.
//!
//! In place, over the whole batch, without allocation: only where one sum becomes two scores does the buffer grow.

use super::Unsupported;
use super::logistic::logistic;

/// ONNX's `post_transform`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    /// Sums are scores.
    None,
    /// 1 / (1 + e^-sum), each by itself.
    Logistic,
    /// e^sum by the row's total.
    Softmax,
    /// Likewise, but what is (nearly) 0 stays (nearly) 0.
    SoftmaxZero,
    /// The normal distribution's inverse, each by itself.
    Probit,
}

/// The transform of this name.
pub(super) fn transform(name: &[u8]) -> Result<Transform, Unsupported> {
    match name {
        b"NONE" => Ok(Transform::None),
        b"LOGISTIC" => Ok(Transform::Logistic),
        b"SOFTMAX" => Ok(Transform::Softmax),
        b"SOFTMAX_ZERO" => Ok(Transform::SoftmaxZero),
        b"PROBIT" => Ok(Transform::Probit),
        other => Err(Unsupported(format!("the post_transform {} is not known", String::from_utf8_lossy(other)))),
    }
}

/// How a row's sums become its scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// One score by sum.
    Each,
    /// One sum s, two scores: 1 - s and s.
    Complement,
    /// One sum s, two scores: -s and s.
    Mirror,
}

/// What a score depends on: a weighted sum of its row's sums, plus a constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Margin {
    /// One by sum.
    pub weights: Vec<f64>,
    /// Added to the weighted sum.
    pub constant: f64,
    /// Whether it is the log-odds of the score; else the score depends on it in another way.
    pub is_log_odds: bool,
}

/// Turns the sums of a batch into scores.
#[derive(Clone, Debug)]
pub struct Finish {
    pub(super) spread: Spread,
    pub(super) transform: Transform,
    /// Scores by row, before one is chosen.
    pub(super) columns: usize,
    /// The one that is wanted.
    pub(super) column: Option<usize>,
}

impl Finish {
    /// Scores by row, in what [`Finish::apply`] leaves.
    pub fn columns(&self) -> usize {
        if self.column.is_some() { 1 } else { self.columns }
    }

    /// The one column that is left, if not all are.
    pub fn column(&self) -> Option<usize> {
        self.column
    }

    /// The wanted column, where it depends on one sum alone.
    pub(super) fn single(&self) -> Option<usize> {
        self.column.filter(|_| !matches!(self.transform, Transform::Softmax | Transform::SoftmaxZero))
    }

    /// What the score in `column` (of all, before one is chosen) depends on; `None` where that is no weighted sum of the
    /// row's sums, as for a softmax over three.
    pub fn margin(&self, column: usize) -> Option<Margin> {
        // The weight of the one sum in two scores, and what is added.
        let (own, constant) = match (self.spread, column) {
            (Spread::Each, _) => (1.0, 0.0),
            (Spread::Complement, 0) => (-1.0, 1.0),
            (Spread::Mirror, 0) => (-1.0, 0.0),
            (Spread::Complement | Spread::Mirror, 1) => (1.0, 0.0),
            _ => return None,
        };
        let unit = |index: usize, weight: f64| {
            let mut weights = vec![0.0; self.columns];
            *weights.get_mut(index)? = weight;
            Some(weights)
        };
        match (self.transform, self.spread) {
            (Transform::Softmax | Transform::SoftmaxZero, spread) => {
                // The log-odds of one of two are the difference of their sums.
                let (weights, constant) = match (spread, self.columns, column) {
                    (Spread::Each, 2, 0) => (vec![1.0, -1.0], 0.0),
                    (Spread::Each, 2, 1) => (vec![-1.0, 1.0], 0.0),
                    (Spread::Each, ..) => return None,
                    (Spread::Mirror, ..) => (vec![2.0 * own], 0.0),
                    (Spread::Complement, ..) => (vec![2.0 * own], -own),
                };
                Some(Margin { weights, constant, is_log_odds: self.transform == Transform::Softmax })
            }
            (transform, spread) => {
                let alone = spread != Spread::Each || self.single().is_some();
                let weights = if alone { vec![own] } else { unit(column, own)? };
                Some(Margin { weights, constant, is_log_odds: transform == Transform::Logistic })
            }
        }
    }

    /// Replaces the ensemble's sums, row by row, by [`Finish::columns`] scores per row.
    pub fn apply(&self, values: &mut Vec<f32>) {
        if let Some(column) = self.single() {
            match (self.spread, column) {
                (Spread::Complement, 0) => values.iter_mut().for_each(|value| *value = 1.0 - *value),
                (Spread::Mirror, 0) => values.iter_mut().for_each(|value| *value = -*value),
                _ => {}
            }
            return self.transform_each(values);
        }
        if self.spread != Spread::Each {
            self.spread(values);
        }
        match self.transform {
            Transform::Softmax => values.chunks_exact_mut(self.columns).for_each(softmax),
            Transform::SoftmaxZero => values.chunks_exact_mut(self.columns).for_each(softmax_zero),
            _ => self.transform_each(values),
        }
        if let Some(column) = self.column {
            let rows = values.len() / self.columns;
            for row in 0..rows {
                values[row] = values[row * self.columns + column];
            }
            values.truncate(rows);
        }
    }

    fn transform_each(&self, values: &mut [f32]) {
        match self.transform {
            Transform::Logistic => logistic(values),
            Transform::Probit => values.iter_mut().for_each(|value| *value = probit(*value)),
            Transform::None | Transform::Softmax | Transform::SoftmaxZero => {}
        }
    }

    /// Makes two scores of every sum, from the back, so that no sum is overwritten unread.
    fn spread(&self, values: &mut Vec<f32>) {
        let rows = values.len();
        values.resize(2 * rows, 0.0);
        for row in (0..rows).rev() {
            let sum = values[row];
            values[2 * row] = if self.spread == Spread::Complement { 1.0 - sum } else { -sum };
            values[2 * row + 1] = sum;
        }
    }
}

/// In the order of ONNX Runtime's `ComputeSoftmax`.
fn softmax(row: &mut [f32]) {
    let largest = largest(row);
    let mut total = 0.0;
    for value in row.iter_mut() {
        *value = (*value - largest).exp();
        total += *value;
    }
    row.iter_mut().for_each(|value| *value /= total);
}

/// In the order of ONNX Runtime's `ComputeSoftmaxZero`.
fn softmax_zero(row: &mut [f32]) {
    let largest = largest(row);
    let scale = (-largest).exp();
    let mut total = 0.0;
    for value in row.iter_mut() {
        if *value > 1e-7 || *value < -1e-7 {
            *value = (*value - largest).exp();
            total += *value;
        } else {
            *value *= scale;
        }
    }
    row.iter_mut().for_each(|value| *value /= total);
}

/// The largest number; NaN is none.
fn largest(row: &[f32]) -> f32 {
    row.iter().fold(f32::MIN, |largest, value| if *value > largest { *value } else { largest })
}

/// ONNX Runtime's approximation, `ComputeProbit`.
fn probit(value: f32) -> f32 {
    let value = 2.0 * value - 1.0;
    let sign = if value < 0.0 { -1.0 } else { 1.0 };
    let log = ((1.0 - value) * (1.0 + value)).ln();
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * log;
    let root = (v * v - 1.0 / 0.147 * log).sqrt();
    std::f32::consts::SQRT_2 * (sign * (root - v).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(spread: Spread, transform: Transform, column: Option<usize>, sums: &[f32]) -> Vec<f32> {
        let columns = 2;
        let mut values = sums.to_vec();
        Finish { spread, transform, columns, column }.apply(&mut values);
        values
    }

    #[test]
    fn one_sum_makes_two_scores_or_the_wanted_one() {
        let sums = [0.25, 0.75];
        assert_eq!(finished(Spread::Complement, Transform::None, None, &sums), [0.75, 0.25, 0.25, 0.75]);
        assert_eq!(finished(Spread::Complement, Transform::None, Some(0), &sums), [0.75, 0.25]);
        assert_eq!(finished(Spread::Complement, Transform::None, Some(1), &sums), [0.25, 0.75]);
        assert_eq!(finished(Spread::Mirror, Transform::None, None, &sums), [-0.25, 0.25, -0.75, 0.75]);
        let both = finished(Spread::Mirror, Transform::Logistic, None, &sums);
        assert_eq!(finished(Spread::Mirror, Transform::Logistic, Some(0), &sums), [both[0], both[2]]);
        assert_eq!(finished(Spread::Mirror, Transform::Logistic, Some(1), &sums), [both[1], both[3]]);
    }

    #[test]
    fn a_margin_is_what_the_score_says_it_is() {
        let sigmoid = |margin: f64| 1.0 / (1.0 + (-margin).exp());
        for spread in [Spread::Each, Spread::Complement, Spread::Mirror] {
            for transform in [Transform::Logistic, Transform::Softmax] {
                for chosen in [None, Some(0), Some(1)] {
                    let finish = Finish { spread, transform, columns: 2, column: chosen };
                    let count = if spread == Spread::Each && finish.single().is_none() { 2 } else { 1 };
                    let sums = &[0.375, -1.25][..count];
                    let mut scores = sums.to_vec();
                    finish.apply(&mut scores);
                    for column in chosen.map_or(0..2, |column| column..column + 1) {
                        let margin = finish.margin(column).expect("two classes");
                        assert!(margin.is_log_odds);
                        let score = scores[if chosen.is_some() { 0 } else { column }];
                        let weighted: f64 =
                            margin.weights.iter().zip(sums).map(|(weight, sum)| weight * f64::from(*sum)).sum();
                        let expected = sigmoid(weighted + margin.constant);
                        assert!((f64::from(score) - expected).abs() < 1e-6, "{finish:?} {column}: {score} {expected}");
                    }
                }
            }
        }
        let three = Finish { spread: Spread::Each, transform: Transform::Softmax, columns: 3, column: Some(1) };
        assert_eq!(three.margin(1), None);
        let plain = Finish { transform: Transform::None, columns: 1, column: Some(0), ..three };
        assert_eq!(plain.margin(0), Some(Margin { weights: vec![1.0], constant: 0.0, is_log_odds: false }));
    }

    #[test]
    fn a_column_of_a_softmax_needs_the_whole_row() {
        let sums = [1.0, 1.0, 0.0, 200.0];
        assert_eq!(finished(Spread::Each, Transform::Softmax, None, &sums), [0.5, 0.5, 0.0, 1.0]);
        assert_eq!(finished(Spread::Each, Transform::Softmax, Some(1), &sums), [0.5, 1.0]);
        assert_eq!(finished(Spread::Each, Transform::SoftmaxZero, Some(1), &[0.0, 3.0]), [1.0]);
    }
}
