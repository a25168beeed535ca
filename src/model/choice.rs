//! Which engine scores a model: what was asked for, and what became of it.

use std::sync::Arc;

use super::ModelError;
use super::manifest::Manifest;
use super::scorer::OnnxScorer;
use super::trees::{NotTaken, TreePlan};

/// What `--kernel` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KernelChoice {
    /// Our kernel for tree ensembles where it agrees with ONNX Runtime, else ONNX Runtime
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
        match TreePlan::new(manifest, model, reference, golden) {
            Ok(plan) => Ok(ModelEngine::Trees(Arc::new(plan))),
            Err(reason) if choice == KernelChoice::Simd => Err(ModelError::Kernel { model: manifest.id(), reason }),
            Err(reason) => {
                let model = manifest.id();
                match &reason {
                    NotTaken::Unsupported(reason) => tracing::info!(model, reason, "ONNX Runtime scores this model"),
                    // A fault of ours: the model is as it should be.
                    NotTaken::Disagreement(_) => tracing::warn!(model, %reason, "ONNX Runtime scores this model"),
                }
                Ok(ModelEngine::OnnxRuntime { reason: reason.to_string() })
            }
        }
    }

    /// `simd` or `onnxruntime`, as in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            ModelEngine::Trees(_) => "simd",
            ModelEngine::OnnxRuntime { .. } => "onnxruntime",
        }
    }

    /// How the kernel computes, or why it does not.
    pub fn detail(&self) -> String {
        match self {
            ModelEngine::OnnxRuntime { reason } => reason.clone(),
            ModelEngine::Trees(plan) => match plan.around() {
                (false, false) => plan.method(),
                (true, false) => format!("{}; ONNX Runtime before the trees", plan.method()),
                (false, true) => format!("{}; ONNX Runtime after the trees", plan.method()),
                (true, true) => format!("{}; ONNX Runtime before and after the trees", plan.method()),
            },
        }
    }
}
