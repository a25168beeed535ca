//! Models whose contributions add up: trees and linear models, read from the bundle's graph.
//!
//! ```text
//!  row ─► effects on the margin ─► held against the score ─┬─ the margin is its log-odds: as they are
//!                                                          └─ else: scaled to the score's log-odds
//! ```
//!
//! The graph is read here anew and not taken over from the engine: that may be ONNX Runtime (`--kernel onnxruntime`), and
//! then there are reasons all the same.

use fraud_trees::onnx::{Linear, NO_TREES, Split, Unsupported};

use super::baseline::Baseline;
use super::linear::LinearEffects;
use super::trees::TreeEffects;
use super::{Unexplainable, is_near, log_odds, probability};
use crate::log_events;
use crate::model::bundle::Bundle;
use crate::model::scorer::Scorer;

/// A model whose margin is a sum over features.
pub(super) struct Additive {
    effects: Effects,
    link: Link,
}

enum Effects {
    Trees(TreeEffects),
    Linear(LinearEffects),
}

impl Effects {
    /// The row that others are compared with, and its margin.
    fn baseline(&self) -> (&[f32], f64) {
        match self {
            Effects::Trees(trees) => trees.baseline(),
            Effects::Linear(linear) => linear.baseline(),
        }
    }
}

/// From the margin to the score.
enum Link {
    /// The margin is the score's log-odds.
    LogOdds,
    /// The score depends on the margin in another way; the baseline's has these log-odds. Only the model itself can say
    /// whether a score is a row's.
    Other { baseline_log_odds: f64, scorer: Box<Scorer>, scores: Vec<f32> },
}

impl Additive {
    /// The bundle's model, if it is of that kind.
    ///
    /// # Errors
    /// [`Unexplainable::Ordinary`] where the ordinary row cannot be scored.
    pub fn of(bundle: &Bundle, baseline: &Baseline) -> Result<Option<Additive>, Unexplainable> {
        let found = match trees(bundle, baseline) {
            Err(Unsupported(reason)) if reason == NO_TREES => linear(bundle, baseline),
            found => found,
        };
        let Ok(Some((effects, is_log_odds))) = found else { return Ok(None) };
        let (row, margin) = effects.baseline();
        let ordinary = |error: &dyn std::fmt::Display| Unexplainable::Ordinary(error.to_string());
        let (mut scorer, mut scores) = (bundle.scorer().map_err(|error| ordinary(&error))?, Vec::new());
        scorer.score(row, &mut scores).map_err(|error| ordinary(&error))?;
        let [score] = scores[..] else {
            return Err(Unexplainable::Ordinary(format!("{} scores for one row", scores.len())));
        };
        if is_log_odds && !agree(margin, score) {
            // Not read as ONNX Runtime reads it: then only the scores themselves can tell.
            let model = bundle.manifest.id();
            log_events::model::MarginDisagrees { model: &model, margin, score }.log();
            return Ok(None);
        }
        let link = match is_log_odds {
            true => Link::LogOdds,
            false => Link::Other { baseline_log_odds: log_odds(score.into()), scorer: Box::new(scorer), scores },
        };
        Ok(Some(Additive { effects, link }))
    }

    /// The row that others are compared with, and its margin.
    #[cfg(test)]
    pub fn baseline(&self) -> (&[f32], f64) {
        self.effects.baseline()
    }

    /// How contributions are found, in words for people.
    pub fn method(&self) -> &'static str {
        match (&self.effects, &self.link) {
            (Effects::Trees(_), Link::LogOdds) => "Shapley values against the medians of the training data",
            (Effects::Trees(_), Link::Other { .. }) => {
                "Shapley values against the medians of the training data, rescaled"
            }
            (Effects::Linear(_), Link::LogOdds) => "coefficient × deviation from the mean",
            (Effects::Linear(_), Link::Other { .. }) => "coefficient × deviation from the mean, rescaled",
        }
    }

    /// Adds what each feature adds to the log-odds of `score`, which `row` got; `None` where it is not the row's score.
    pub fn explain(&mut self, row: &[f32], score: f32, contributions: &mut [f64]) -> Option<()> {
        match &mut self.effects {
            Effects::Trees(trees) => trees.effects(row, contributions)?,
            Effects::Linear(linear) => linear.effects(row, contributions),
        }
        let (at_baseline, sum) = (self.effects.baseline().1, contributions.iter().sum::<f64>());
        match &mut self.link {
            Link::LogOdds => agree(at_baseline + sum, score).then_some(()),
            Link::Other { baseline_log_odds, scorer, scores } => {
                scorer.score(row, scores).ok()?;
                if scores.len() != 1 || !is_near(scores[0].into(), score) {
                    return None;
                }
                let scale = (log_odds(score.into()) - *baseline_log_odds) / sum;
                contributions.iter_mut().for_each(|contribution| *contribution *= scale);
                scale.is_finite().then_some(())
            }
        }
    }
}

/// Whether a row with this margin gets this score. A margin that is no number agrees with nothing.
fn agree(margin: f64, score: f32) -> bool {
    is_near(probability(margin), score)
}

/// The effects, and whether the margin is the score's log-odds; nothing where they do not add up.
type Found = Result<Option<(Effects, bool)>, Unsupported>;

fn trees(bundle: &Bundle, baseline: &Baseline) -> Found {
    let manifest = &bundle.manifest;
    let split = Split::of(&bundle.model, &manifest.input, &manifest.output.tensor)?;
    let rereads_rows = split.after.as_ref().is_some_and(|after| after.graph_input.is_some());
    if split.before.is_some() || rereads_rows {
        // The trees' columns are not the model's features, or not all that counts.
        return Ok(None);
    }
    let column = match (&split.after, manifest.output.column) {
        (None, column) => Some(column.unwrap_or(0)),
        (Some(_), _) => None,
    };
    let (ensemble, finish) = split.trees.compile(baseline.ordinary.len(), column)?;
    if column.is_none() && ensemble.outputs != 1 {
        return Ok(None);
    }
    // Of two mirrored classes either will do for what comes after: the score says which way it went.
    let Some(margin) = finish.margin(column.unwrap_or(finish.columns() - 1)) else { return Ok(None) };
    let effects = TreeEffects::of(&ensemble, &margin, &baseline.ordinary);
    Ok(effects.map(|effects| (Effects::Trees(effects), margin.is_log_odds && column.is_some())))
}

fn linear(bundle: &Bundle, baseline: &Baseline) -> Found {
    let manifest = &bundle.manifest;
    let (width, column) = (manifest.features.len(), manifest.output.column);
    let model = Linear::of(&bundle.model, &manifest.input, &manifest.output.tensor, width, column)?;
    let mean = baseline.mean.as_ref().unwrap_or(&baseline.ordinary);
    let effects = LinearEffects::of(&model, column.unwrap_or(0), mean);
    Ok(effects.map(|(effects, margin)| (Effects::Linear(effects), margin.is_log_odds)))
}
