//! One scoring thread's model: feature rows in, probabilities out, through ONNX Runtime or one of our own engines.
//!
//! ```text
//!  rows ─┬► OnnxScorer     the whole graph in ONNX Runtime ────────────────────────────────────┬► one score per row
//!        ├► TreeScorer     [nodes before: ONNX Runtime] ► kernel ► [nodes after: ONNX Runtime] ┤
//!        └► LinearScorer   [scaler] ► sums ► finish ───────────────────────────────────────────┘
//! ```

use super::ModelError;
use super::linear::{LinearPlan, LinearScorer};
use super::manifest::Manifest;
use super::probability::clamped;
use super::runtime;
use super::session::{GraphSession, take_column};
use super::signature;
use super::trees::{TreePlan, TreeScorer};

/// A model ready to score, for one thread.
pub struct Scorer(Engine);

enum Engine {
    Onnx(OnnxScorer),
    Trees(Box<TreeScorer>),
    Linear(LinearScorer),
}

/// A batch could not be scored: ONNX Runtime failed on it, or gave a tensor of another shape than it promised.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InferenceError(String);

impl InferenceError {
    pub(super) fn new(reason: impl std::fmt::Display) -> Self {
        InferenceError(runtime::plain(&reason.to_string()))
    }
}

impl Scorer {
    /// The whole graph in ONNX Runtime.
    pub fn onnx(manifest: &Manifest, model: &[u8]) -> Result<Scorer, ModelError> {
        Ok(Scorer(Engine::Onnx(OnnxScorer::new(manifest, model)?)))
    }

    /// The trees in the kernel, what lies around them in ONNX Runtime.
    pub fn trees(plan: &TreePlan) -> Result<Scorer, ModelError> {
        Ok(Scorer(Engine::Trees(Box::new(TreeScorer::new(plan)?))))
    }

    /// The whole of a linear model here.
    pub fn linear(plan: &LinearPlan) -> Scorer {
        Scorer(Engine::Linear(LinearScorer::new(plan)))
    }

    /// Scores row-major `features`; replaces `scores` by one score per row, in order: a probability, or what the model
    /// gave in its place.
    pub fn score(&mut self, features: &[f32], scores: &mut Vec<f32>) -> Result<(), InferenceError> {
        match &mut self.0 {
            Engine::Onnx(scorer) => scorer.score(features, scores)?,
            Engine::Trees(scorer) => scorer.score(features, scores)?,
            Engine::Linear(scorer) => scorer.score(features, scores),
        }
        scores.iter_mut().for_each(|score| *score = clamped(*score));
        Ok(())
    }
}

/// A loaded graph that keeps its manifest's contract.
pub struct OnnxScorer {
    session: GraphSession,
    input: String,
    output: String,
    column: Option<usize>,
    width: usize,
}

impl OnnxScorer {
    /// Builds a session from the model's bytes and holds its inputs and outputs against the manifest.
    pub fn new(manifest: &Manifest, model: &[u8]) -> Result<OnnxScorer, ModelError> {
        let session = GraphSession::new(model, &manifest.id())?;
        signature::check(session.session(), manifest)
            .map_err(|reason| ModelError::Graph { model: manifest.id(), reason })?;
        Ok(OnnxScorer {
            session,
            input: manifest.input.clone(),
            output: manifest.output.tensor.clone(),
            column: manifest.output.column,
            width: manifest.features.len(),
        })
    }

    /// As [`Scorer::score`].
    pub fn score(&mut self, features: &[f32], scores: &mut Vec<f32>) -> Result<(), InferenceError> {
        scores.clear();
        let rows = features.len() / self.width;
        if rows == 0 {
            return Ok(());
        }
        let column = self.column;
        self.session.run(rows, (&self.input, features, self.width), None, &self.output, |shape, values| {
            take_column(shape, values, rows, column, scores)
        })
    }
}
