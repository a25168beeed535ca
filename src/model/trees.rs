//! A model whose trees run in the kernel: what is compiled once per bundle, and what each thread has of it.
//!
//! ```text
//!  model.onnx ─► Split ─► TreePlan (checked against ONNX Runtime) ─► TreeScorer per thread
//! ```
//!
//! Most exports are a tree node from input to output: then no session of ONNX Runtime takes part in scoring. Where there
//! are nodes before (a scaler) or after (a calibrator), they are a session each.

pub mod rows;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests;
pub mod verify;

use fraud_trees::kernel::Kernel;
use fraud_trees::onnx::{Finish, Part, Split, Unsupported};

use self::verify::Agreement;
use super::ModelError;
use super::manifest::Manifest;
use super::scorer::{InferenceError, OnnxScorer};
use super::session::{GraphSession, take_column};

/// Why the kernel does not score a model, in words for logs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// Its trees, or the graph around them, are of a kind that is left to ONNX Runtime.
    #[error("{0}")]
    Unsupported(String),
    /// Our scores were not ONNX Runtime's.
    #[error("the kernel does not agree with ONNX Runtime: {0}")]
    Disagreement(String),
}

impl NotTaken {
    pub(super) fn unverified(error: impl std::fmt::Display) -> NotTaken {
        NotTaken::Unsupported(format!("it cannot be verified: {error}"))
    }
}

impl From<Unsupported> for NotTaken {
    fn from(reason: Unsupported) -> Self {
        NotTaken::Unsupported(reason.0)
    }
}

/// A model taken apart, its trees compiled.
#[derive(Clone, Debug)]
pub struct TreePlan {
    name: String,
    before: Option<Part>,
    kernel: Kernel,
    finish: Finish,
    after: Option<Part>,
    /// Features of a row.
    width: usize,
    /// Columns of the trees' own rows.
    tree_width: usize,
    column: Option<usize>,
    agreement: Agreement,
}

impl TreePlan {
    /// Takes `model` apart, compiles its trees, and holds the outcome against `reference` on rows of its own and on
    /// the bundle's `golden` ones.
    pub fn new(
        manifest: &Manifest,
        model: &[u8],
        reference: &mut OnnxScorer,
        golden: &[f32],
    ) -> Result<TreePlan, NotTaken> {
        let split = Split::of(model, &manifest.input, &manifest.output.tensor)?;
        let width = manifest.features.len();
        let tree_width = match &split.before {
            None => width,
            Some(part) => width_of(part, manifest).map_err(|error| NotTaken::Unsupported(error.to_string()))?,
        };
        let column = match (&split.after, manifest.output.column) {
            (None, None) if split.trees.columns() > 1 => {
                return Err(NotTaken::Unsupported("output.column is not set".into()));
            }
            (None, column) => Some(column.unwrap_or(0)),
            // What comes after needs all of them.
            (Some(_), _) => None,
        };
        let (ensemble, finish) = split.trees.compile(tree_width, column)?;
        let kernel = Kernel::compile(&ensemble).map_err(|error| NotTaken::Unsupported(error.to_string()))?;
        let mut plan = TreePlan {
            name: manifest.id(),
            before: split.before,
            kernel,
            finish,
            after: split.after,
            width,
            tree_width,
            column: manifest.output.column,
            agreement: Agreement::default(),
        };
        plan.agreement = verify::plan(&plan, &ensemble, &split.alone, reference, golden)?;
        Ok(plan)
    }

    /// How the trees are computed, in words for logs.
    pub fn method(&self) -> String {
        self.kernel.method()
    }

    /// What was compared with ONNX Runtime.
    pub fn agreement(&self) -> Agreement {
        self.agreement
    }

    /// Whether ONNX Runtime computes what lies before the trees, and after.
    pub fn around(&self) -> (bool, bool) {
        (self.before.is_some(), self.after.is_some())
    }
}

/// Columns of what `part` makes of a row of defaults.
fn width_of(part: &Part, manifest: &Manifest) -> Result<usize, PartError> {
    let mut session = GraphSession::new(&part.model, &manifest.id())?;
    let row = manifest.row_of_defaults();
    let width = session.run(1, (&part.input, &row, row.len()), None, &part.output, |shape, _| match shape {
        [1, width] => Ok(*width as usize),
        _ => Err(InferenceError::new(format!("what comes before the trees gave the shape {shape:?}"))),
    });
    Ok(width?)
}

#[derive(Debug, thiserror::Error)]
enum PartError {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Inference(#[from] InferenceError),
}

/// One thread's kernel and sessions.
pub struct TreeScorer {
    before: Option<(GraphSession, Part)>,
    trees: Trees,
    after: Option<(GraphSession, Part)>,
    width: usize,
    column: Option<usize>,
    /// The trees' scores, where nodes come after them.
    between: Vec<f32>,
}

/// The kernel with what follows it.
struct Trees {
    kernel: Kernel,
    finish: Finish,
    width: usize,
}

impl Trees {
    fn score(&mut self, rows: &[f32], scores: &mut Vec<f32>) {
        self.kernel.sums(rows, scores);
        self.finish.apply(scores);
    }
}

impl TreeScorer {
    /// Copies the compiled kernel and opens the sessions.
    pub fn new(plan: &TreePlan) -> Result<TreeScorer, ModelError> {
        let open = |part: &Option<Part>| -> Result<Option<(GraphSession, Part)>, ModelError> {
            let Some(part) = part else { return Ok(None) };
            let session = GraphSession::new(&part.model, &plan.name)?;
            // The session has read it.
            let part = Part { model: Vec::new(), ..part.clone() };
            Ok(Some((session, part)))
        };
        Ok(TreeScorer {
            before: open(&plan.before)?,
            trees: Trees { kernel: plan.kernel.clone(), finish: plan.finish.clone(), width: plan.tree_width },
            after: open(&plan.after)?,
            width: plan.width,
            column: plan.column,
            between: Vec::new(),
        })
    }

    /// As [`super::scorer::Scorer::score`].
    pub fn score(&mut self, features: &[f32], scores: &mut Vec<f32>) -> Result<(), InferenceError> {
        scores.clear();
        let rows = features.len() / self.width;
        if rows == 0 {
            return Ok(());
        }
        let features = &features[..rows * self.width];
        let tree_scores = if self.after.is_some() { &mut self.between } else { &mut *scores };
        match &mut self.before {
            None => self.trees.score(features, tree_scores),
            Some((session, part)) => {
                let (input, trees) = ((part.input.as_str(), features, self.width), &mut self.trees);
                session.run(rows, input, None, &part.output, |shape, values| match shape {
                    [found, width] if *found as usize == rows && *width as usize == trees.width => {
                        trees.score(values, tree_scores);
                        Ok(())
                    }
                    _ => Err(InferenceError::new(format!("{rows} rows gave the trees a tensor of shape {shape:?}"))),
                })?;
            }
        }
        let Some((session, part)) = &mut self.after else { return Ok(()) };
        let input = (part.input.as_str(), self.between.as_slice(), self.trees.finish.columns());
        let second = part.graph_input.as_deref().map(|name| (name, features, self.width));
        let column = self.column;
        session.run(rows, input, second, &part.output, |shape, values| take_column(shape, values, rows, column, scores))
    }
}
