//! A verified model and what each scoring thread has of it.

use std::sync::Arc;

use serde::Serialize;

use super::ExchangeSettings;
use super::gates::{Gate, Refusal};
use super::shelves::Numbered;
use crate::audit::event;
use crate::drift::DriftMonitor;
use crate::model::ModelError;
use crate::model::bundle::Bundle;
use crate::model::manifest::Manifest;
use crate::model::source::Candidate;
use crate::pipeline::encode::Encoder;
use crate::pipeline::engine::Engine;
use crate::telemetry::models::ModelLabels;

/// A model that passed the gates of its bundle; shared by all who talk about it.
#[derive(Debug)]
pub struct LoadedModel {
    /// Its number in this process, from 1.
    pub number: u64,
    /// What the bundle promises, with the version that verdicts name.
    pub manifest: Manifest,
    /// `simd` or `onnxruntime`.
    pub engine: &'static str,
    /// How the kernel computes, or why it does not.
    pub engine_detail: String,
    /// Golden records that matched.
    pub golden_records: usize,
    /// Where it came from.
    pub candidate: Candidate,
    /// The bundle, for engines beyond those of the scoring threads.
    pub bundle: Arc<Bundle>,
    /// Watches its traffic; `None` for a challenger, and where there is nothing to compare with.
    pub drift: Option<Arc<DriftMonitor>>,
}

impl LoadedModel {
    /// Loads and verifies the candidate's bundle; a registered candidate has its version from the registry.
    pub(super) fn load(candidate: Candidate, settings: &ExchangeSettings, number: u64) -> Result<Self, Refusal> {
        let bundle = candidate
            .load(settings.kernel, settings.key.as_ref())
            .map(Arc::new)
            .map_err(|error| Refusal::new(gate_of(&error), error.to_string()).of(&candidate.origin))?;
        Ok(LoadedModel {
            number,
            manifest: bundle.manifest.clone(),
            engine: bundle.engine.name(),
            engine_detail: bundle.engine.detail(),
            golden_records: bundle.golden_records,
            candidate,
            bundle,
            drift: None,
        })
    }

    /// `name@version`, as in headers and logs.
    pub fn id(&self) -> String {
        self.manifest.id()
    }

    /// Name, version, hash and thresholds, as the audit has them.
    pub(super) fn described(&self) -> String {
        let thresholds = &self.manifest.thresholds;
        event::model(&self.id(), &self.manifest.sha256, thresholds.review(), thresholds.decline())
    }

    /// What `fraud-training retrain` writes down, in milliseconds since 1970; here in seconds.
    fn trained_until(&self) -> Option<f64> {
        let value = self.manifest.training.get("trained_until")?;
        let milliseconds = value.as_float().or_else(|| value.as_integer().map(|integer| integer as f64))?;
        Some(milliseconds / 1000.0).filter(|seconds| seconds.is_finite())
    }

    /// As the metrics name it.
    pub(super) fn labels(&self) -> ModelLabels {
        ModelLabels {
            name: self.manifest.name.clone(),
            version: self.manifest.version.clone(),
            sha256: self.manifest.sha256.clone(),
            engine: self.engine,
            engine_detail: self.engine_detail.clone(),
            trained_until: self.trained_until(),
        }
    }
}

/// The gate that an error of the bundle belongs to.
fn gate_of(error: &ModelError) -> Gate {
    match error {
        ModelError::Unreadable { .. } | ModelError::Manifest { .. } => Gate::Manifest,
        ModelError::WrongHash { .. } | ModelError::Untrusted { .. } => Gate::Hash,
        ModelError::Runtime { .. } | ModelError::Graph { .. } => Gate::Signature,
        ModelError::Kernel { .. } => Gate::Engine,
        ModelError::Golden { .. } => Gate::Golden,
    }
}

/// What one scoring thread needs of one model.
pub struct ThreadModel {
    /// Whose.
    pub model: Arc<LoadedModel>,
    /// Decoder, scorer, thresholds and their buffers.
    pub engine: Engine,
    /// Writes verdicts that name the model.
    pub encoder: Encoder,
}

impl ThreadModel {
    /// One thread's share of `model`.
    pub(super) fn new(
        model: Arc<LoadedModel>,
        max_message_bytes: usize,
        input_topic: &str,
    ) -> Result<ThreadModel, ModelError> {
        let mut engine = Engine::new(&model.bundle, max_message_bytes)?;
        engine.watch(model.drift.clone());
        let encoder = Encoder::new(&model.manifest.name, &model.manifest.version, input_topic);
        Ok(ThreadModel { model, engine, encoder })
    }
}

impl Numbered for ThreadModel {
    fn number(&self) -> u64 {
        self.model.number
    }
}

/// A model as `GET /model` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    name: String,
    version: String,
    sha256: String,
    origin: String,
    engine: &'static str,
    engine_detail: String,
    golden_records: usize,
    features: usize,
    thresholds: ShownThresholds,
    training: toml::Table,
}

#[derive(Clone, Debug, Serialize)]
struct ShownThresholds {
    review: f32,
    decline: f32,
}

impl From<&LoadedModel> for Shown {
    fn from(model: &LoadedModel) -> Self {
        let manifest = &model.manifest;
        Shown {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            sha256: manifest.sha256.clone(),
            origin: model.candidate.origin.clone(),
            engine: model.engine,
            engine_detail: model.engine_detail.clone(),
            golden_records: model.golden_records,
            features: manifest.features.len(),
            thresholds: ShownThresholds {
                review: manifest.thresholds.review(),
                decline: manifest.thresholds.decline(),
            },
            training: manifest.training.clone(),
        }
    }
}
