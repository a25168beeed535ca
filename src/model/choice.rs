//! Which engine scores a model: what was asked for, and what became of it.

use std::sync::Arc;

use fraud_trees::onnx::NO_TREES;

use super::ModelError;
use super::linear::LinearPlan;
use super::manifest::Manifest;
use super::scorer::OnnxScorer;
use super::trees::verify::Agreement;
use super::trees::{NotTaken, TreePlan};
use crate::log_events;

/// What `--kernel` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelChoice {
    /// Our kernel for tree ensembles and linear models where it agrees with ONNX Runtime, else ONNX Runtime
    #[default]
    Auto,
    /// ONNX Runtime for everything
    Onnxruntime,
    /// Our kernel, or the bundle is refused
    Simd,
}

/// The engine of a bundle.
#[derive(Clone, Debug)]
pub enum ModelEngine {
    /// The kernel computes the trees.
    Trees(Arc<TreePlan>),
    /// The sums of a linear model are computed here.
    Linear(Arc<LinearPlan>),
    /// ONNX Runtime computes the whole graph.
    OnnxRuntime {
        /// Why not the kernel.
        reason: String,
    },
}

impl ModelEngine {
    /// Chooses for `model`, whose signature `reference` was checked for.
    pub fn choose(
        choice: KernelChoice,
        manifest: &Manifest,
        model: &[u8],
        reference: &mut OnnxScorer,
        golden: &[f32],
    ) -> Result<ModelEngine, ModelError> {
        if choice == KernelChoice::Onnxruntime {
            return Ok(ModelEngine::OnnxRuntime { reason: "asked for by --kernel".into() });
        }
        match ModelEngine::own(manifest, model, reference, golden) {
            Ok(engine) => Ok(engine),
            Err(reason) if choice == KernelChoice::Simd => Err(ModelError::Kernel { model: manifest.id(), reason }),
            Err(reason) => {
                let model = &manifest.id();
                match &reason {
                    NotTaken::Unsupported(reason) => log_events::model::OnnxRuntimeScores { model, reason }.log(),
                    // A fault of ours: the model is as it should be.
                    NotTaken::Disagreement(_) => log_events::model::KernelDisagrees { model, reason: &reason }.log(),
                }
                Ok(ModelEngine::OnnxRuntime { reason: reason.to_string() })
            }
        }
    }

    /// The engine of ours that takes `model`, or why there is none.
    fn own(
        manifest: &Manifest,
        model: &[u8],
        reference: &mut OnnxScorer,
        golden: &[f32],
    ) -> Result<ModelEngine, NotTaken> {
        match TreePlan::new(manifest, model, reference, golden) {
            Ok(plan) => Ok(ModelEngine::Trees(Arc::new(plan))),
            Err(NotTaken::Unsupported(reason)) if reason == NO_TREES => {
                match LinearPlan::new(manifest, model, reference, golden) {
                    Ok(plan) => Ok(ModelEngine::Linear(Arc::new(plan))),
                    Err(NotTaken::Unsupported(more)) => Err(NotTaken::Unsupported(format!("{reason}; {more}"))),
                    Err(disagreement) => Err(disagreement),
                }
            }
            Err(reason) => Err(reason),
        }
    }

    /// `simd` or `onnxruntime`, as in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ModelEngine::Trees(_) | ModelEngine::Linear(_) => "simd",
            ModelEngine::OnnxRuntime { .. } => "onnxruntime",
        }
    }

    /// What was compared with ONNX Runtime; none where that scores.
    pub fn agreement(&self) -> Option<Agreement> {
        match self {
            ModelEngine::Trees(plan) => Some(plan.agreement()),
            ModelEngine::Linear(plan) => Some(plan.agreement()),
            ModelEngine::OnnxRuntime { .. } => None,
        }
    }

    /// How the kernel computes, or why it does not.
    pub fn detail(&self) -> String {
        match self {
            ModelEngine::OnnxRuntime { reason } => reason.clone(),
            ModelEngine::Linear(plan) => plan.method(),
            ModelEngine::Trees(plan) => match plan.around() {
                (false, false) => plan.method(),
                (true, false) => format!("{}; ONNX Runtime before the trees", plan.method()),
                (false, true) => format!("{}; ONNX Runtime after the trees", plan.method()),
                (true, true) => format!("{}; ONNX Runtime before and after the trees", plan.method()),
            },
        }
    }
}
