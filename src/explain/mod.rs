//! Why a row scored as it did: what each feature adds to the log-odds of fraud, compared with an ordinary transaction.
//!
//! ```text
//!  bundle ─► Baseline: an ordinary row ─┐
//!         └► model.onnx ─┬► trees ──────┼► Shapley values of the trees' sums ─┐
//!                        ├► linear ─────┼► coefficient × deviation ───────────┼► contributions ─► at most 3 reasons
//!                        └► any other ──┴► occlusion: scored again without it ┘
//! ```
//!
//! | model | contribution of a feature | how exact |
//! |---|---|---|
//! | trees | its Shapley value: what it adds on average over all orders of going from the ordinary row to this one | exact |
//! | linear | coefficient × (value − mean) | exact |
//! | any other | the score's log-odds, less those of the same row with this feature's ordinary value | each feature alone |
//!
//! For trees this is the *interventional* variant of SHAP with one background row (Lundberg et al. 2020, "From local
//! explanations to global understanding with explainable AI for trees"). The path-dependent variant needs how many training
//! rows passed each node, which ONNX does not carry.
//!
//! Contributions of the first two add up to the difference of two log-odds: the row's and the ordinary row's. Where the
//! score is not the logistic of the sums (forests that vote, a calibrator behind the trees), they are scaled so that they do:
//! the rescale rule that SHAP itself uses for a model's probability. Before anything is told, the sum is held against the
//! score that the row got: no reason is better than a wrong one.
//!
//! This costs ten to some hundred microseconds a row, hundreds of times what a score costs, so it is for the few rows that
//! somebody looks at: the console and `/v1/score`. It takes no part in scoring the topic.

mod additive;
mod baseline;
mod linear;
mod occlusion;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod trees;

use serde::Serialize;

use self::additive::Additive;
use self::baseline::Baseline;
use self::occlusion::Occlusion;
use crate::model::bundle::Bundle;

/// Reasons given at most.
pub const MOST_REASONS: usize = 3;

/// What adds less to the log-odds is no reason: it changes the odds by one per cent.
const LEAST_CONTRIBUTION: f64 = 0.01;

/// How far what is explained may lie from the score that the row got, as a probability.
const TOLERANCE: f64 = 1e-4;

/// Scores nearer to 0 or 1 than this are taken for this: their log-odds must be numbers. Models agree with ONNX Runtime
/// to this difference and no better.
const NEAREST_TO_CERTAIN: f64 = 1e-6;

/// Why a model's verdicts have no reasons.
#[derive(Debug, thiserror::Error)]
pub enum Unexplainable {
    /// Nothing says what an ordinary transaction is.
    #[error(
        "nothing says what is ordinary for feature {0:?}: it is neither in the bundle's reference.json nor in its \
         golden.jsonl, and has no default; export the bundle with one of them"
    )]
    NoBaseline(String),
    /// Too many features to try one by one.
    #[error("{features} features are too many to be left out one by one; at most {most} are tried")]
    TooWide {
        /// Features of the model.
        features: usize,
        /// How many are tried.
        most: usize,
    },
    /// The model does not run, or gives the ordinary row another score than its sums say.
    #[error("the ordinary row cannot be scored: {0}")]
    Ordinary(String),
}

/// A feature that raised the score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Reason<'a> {
    /// The feature's name.
    pub feature: &'a str,
    /// What it adds to the log-odds of fraud (natural logarithm), to three digits after the point; positive.
    pub contribution: f64,
}

/// Explains the scores of one model.
pub struct Explainer {
    features: Vec<String>,
    method: Method,
    /// Of the row under way, by feature.
    contributions: Vec<f64>,
}

enum Method {
    Additive(Additive),
    Occlusion(Box<Occlusion>),
}

impl Explainer {
    /// An explainer for `bundle`'s model.
    ///
    /// # Errors
    /// [`Unexplainable`]: the model scores, but nothing can be said about why.
    pub fn new(bundle: &Bundle) -> Result<Explainer, Unexplainable> {
        let baseline = Baseline::of(bundle)?;
        let method = match Additive::of(bundle, &baseline)? {
            Some(additive) => Method::Additive(additive),
            None => {
                let scorer = bundle.scorer().map_err(|error| Unexplainable::Ordinary(error.to_string()))?;
                Method::Occlusion(Box::new(Occlusion::new(baseline.ordinary, scorer)?))
            }
        };
        let features: Vec<String> = bundle.manifest.features.iter().map(|feature| feature.name.clone()).collect();
        Ok(Explainer { contributions: vec![0.0; features.len()], features, method })
    }

    /// How contributions are found, in words for people.
    pub fn method(&self) -> &'static str {
        match &self.method {
            Method::Additive(additive) => additive.method(),
            Method::Occlusion(_) => "each feature set to its ordinary value and scored again",
        }
    }

    /// What each feature adds to the log-odds of `score`, which the model gave `row`, in the order of the features; `None`
    /// where nothing true can be said: the row is not as wide as the model, or the model does not give it this score.
    pub fn contributions(&mut self, row: &[f32], score: f32) -> Option<&[f64]> {
        if row.len() != self.features.len() {
            return None;
        }
        self.contributions.fill(0.0);
        match &mut self.method {
            Method::Additive(additive) => additive.explain(row, score, &mut self.contributions)?,
            Method::Occlusion(occlusion) => occlusion.explain(row, score, &mut self.contributions)?,
        }
        self.contributions.iter().all(|contribution| contribution.is_finite()).then_some(&self.contributions)
    }

    /// What raised `score` most, at most [`MOST_REASONS`], the strongest first; empty where nothing did, or nothing true can
    /// be said.
    pub fn reasons(&mut self, row: &[f32], score: f32) -> Vec<Reason<'_>> {
        if self.contributions(row, score).is_none() {
            return Vec::new();
        }
        let reason = |index: usize| Reason {
            feature: &self.features[index],
            contribution: (self.contributions[index] * 1000.0).round() / 1000.0,
        };
        strongest(&self.contributions).into_iter().map(reason).collect()
    }
}

/// The indices of the largest contributions that count, the largest first; of equal ones the first.
fn strongest(contributions: &[f64]) -> Vec<usize> {
    let mut counting: Vec<usize> =
        (0..contributions.len()).filter(|&index| contributions[index] >= LEAST_CONTRIBUTION).collect();
    counting.sort_by(|&one, &other| contributions[other].total_cmp(&contributions[one]));
    counting.truncate(MOST_REASONS);
    counting
}

/// The log-odds of a probability.
fn log_odds(probability: f64) -> f64 {
    let probability = probability.clamp(NEAREST_TO_CERTAIN, 1.0 - NEAREST_TO_CERTAIN);
    (probability / (1.0 - probability)).ln()
}

/// The probability that has these log-odds.
fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// Whether a probability is the score that a row got. One that is no number is near nothing.
fn is_near(probability: f64, score: f32) -> bool {
    (probability - f64::from(score)).abs() <= TOLERANCE
}
