//! Contributions for a model of which nothing is known but its scores: what the score would be with one feature as usual.
//!
//! ```text
//!  row, and the row with feature 0 as usual, with feature 1 as usual, … ─► scored ─► differences of log-odds
//! ```
//!
//! Each feature is left out alone: where two only matter together, both get the whole of it, so contributions do not add up.

use super::{Unexplainable, is_near, log_odds};
use crate::model::scorer::Scorer;

/// Most features that are tried: beyond, one explanation takes thousands of scores.
const MOST_FEATURES: usize = 1_024;

/// Rows that are scored together: bounds the memory for wide models.
const TOGETHER: usize = 64;

/// A model that is asked again.
pub(super) struct Occlusion {
    baseline: Vec<f32>,
    scorer: Scorer,
    rows: Vec<f32>,
    scores: Vec<f32>,
}

impl Occlusion {
    /// Asks `scorer`; a feature left out has `baseline`'s value.
    pub fn new(baseline: Vec<f32>, scorer: Scorer) -> Result<Occlusion, Unexplainable> {
        if baseline.len() > MOST_FEATURES {
            return Err(Unexplainable::TooWide { features: baseline.len(), most: MOST_FEATURES });
        }
        Ok(Occlusion { baseline, scorer, rows: Vec::new(), scores: Vec::new() })
    }

    /// Adds what each feature adds to the log-odds of `score`, which `row` got; `None` where it is not the row's score.
    pub fn explain(&mut self, row: &[f32], score: f32, contributions: &mut [f64]) -> Option<()> {
        let width = row.len();
        let differing: Vec<usize> = (0..width).filter(|&feature| row[feature] != self.baseline[feature]).collect();
        for features in differing.chunks(TOGETHER - 1) {
            self.rows.clear();
            self.rows.extend_from_slice(row);
            for &feature in features {
                let begin = self.rows.len();
                self.rows.extend_from_slice(row);
                self.rows[begin + feature] = self.baseline[feature];
            }
            self.scorer.score(&self.rows, &mut self.scores).ok()?;
            let (own, others) = self.scores.split_first()?;
            if others.len() != features.len() || !is_near(f64::from(*own), score) {
                return None;
            }
            for (&feature, other) in features.iter().zip(others) {
                contributions[feature] = log_odds(f64::from(*own)) - log_odds(f64::from(*other));
            }
        }
        Some(())
    }
}
