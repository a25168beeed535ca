//! A bundle directory, loaded and verified: what every way into the product (run, demo, score, check) starts with.
//!
//! The gates, in order: digital signature, where one is asked for → manifest → hashes → graph and signature → golden records
//! (decoded as a topic's records are, scored by the engine that will score those), or where there are none a row of defaults,
//! which has to score as a probability. Whatever fails refuses the bundle with the reason. The engine is chosen before the
//! golden records are scored: our kernel has to agree with ONNX Runtime first, and then with training.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::path::{Path, PathBuf};

use fraud_trees::onnx::{Model, Node, class_labels, without_zip_map};

use super::ModelError;
use super::choice::{KernelChoice, ModelEngine};
use super::golden::{Golden, GoldenError};
use super::manifest::{Class, Manifest};
use super::probability::is_probability;
use super::scorer::{OnnxScorer, Scorer};
use super::trust::Demands;
use crate::digest::sha256;
use crate::log_events;

/// A verified bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Where it was read.
    pub directory: PathBuf,
    /// What it promises.
    pub manifest: Manifest,
    /// The ONNX model, whose hash was checked; sessions are built from these bytes. Only a ZipMap behind its scores is left out.
    pub model: Vec<u8>,
    /// What scores it.
    pub engine: ModelEngine,
    /// Golden records that matched; 0 where the bundle has none.
    pub golden_records: usize,
    /// Largest difference among them.
    pub golden_difference: f32,
}

impl Bundle {
    /// Loads and verifies the bundle in `directory`; our kernel scores it where it can.
    pub fn load(directory: &Path) -> Result<Bundle, ModelError> {
        Bundle::load_for(directory, KernelChoice::Auto)
    }

    /// Loads and verifies the bundle in `directory` for the engine asked for.
    pub fn load_for(directory: &Path, choice: KernelChoice) -> Result<Bundle, ModelError> {
        Bundle::load_as(directory, choice, &Demands::default())
    }

    /// As [`Bundle::load_for`], where more is asked of it.
    pub fn load_as(directory: &Path, choice: KernelChoice, demands: &Demands) -> Result<Bundle, ModelError> {
        check_files(directory)?;
        let mut manifest = Manifest::read_as(&directory.join("manifest.toml"), demands)?;
        demands.check_files(directory, &manifest)?;
        let path = directory.join(&manifest.model);
        let model = std::fs::read(&path).map_err(|source| ModelError::Unreadable { path: path.clone(), source })?;
        let found = sha256(&model);
        if found != manifest.sha256 {
            return Err(ModelError::WrongHash { path, found, expected: manifest.sha256 });
        }
        find_class(&model, &mut manifest)?;
        let model = with_tensor_output(model, &mut manifest);
        let mut reference = OnnxScorer::new(&manifest, &model)?;
        let golden_path = directory.join("golden.jsonl");
        let golden = read_golden(&golden_path, &manifest)?;
        let engine = ModelEngine::choose(choice, &manifest, &model, &mut reference, &golden.rows.features)?;
        drop(reference);
        let mut bundle = Bundle {
            directory: directory.to_owned(),
            manifest,
            model,
            engine,
            golden_records: golden.lines.len(),
            golden_difference: 0.0,
        };
        let mut scorer = bundle.scorer()?;
        bundle.golden_difference = bundle.verify_golden(&golden, &golden_path, &mut scorer)?;
        if golden.lines.is_empty() {
            bundle.verify_defaults(&mut scorer)?;
        }
        Ok(bundle)
    }

    /// A scorer of this bundle for one thread.
    pub fn scorer(&self) -> Result<Scorer, ModelError> {
        match &self.engine {
            ModelEngine::OnnxRuntime { .. } => Scorer::onnx(&self.manifest, &self.model),
            ModelEngine::Trees(plan) => Scorer::trees(plan),
            ModelEngine::Linear(plan) => Ok(Scorer::linear(plan)),
        }
    }

    /// The largest difference between a score and training's.
    fn verify_golden(&self, golden: &Golden, path: &Path, scorer: &mut Scorer) -> Result<f32, ModelError> {
        let (mut scores, mut largest) = (Vec::new(), 0.0_f32);
        self.run(scorer, &golden.rows.features, &mut scores)?;
        for ((score, expected), line) in scores.iter().zip(&golden.expected).zip(&golden.lines) {
            let difference = (score - expected).abs();
            let tolerance = self.manifest.tolerance;
            let refuse = |reason| Err(ModelError::Golden { path: path.to_owned(), line: *line, reason });
            // NaN compares false with everything: it must not pass for a small difference.
            if difference.is_nan() || difference > tolerance {
                let cause = self.likely_cause(*score);
                return refuse(format!(
                    "scored {score}, training recorded {expected} (tolerance {tolerance}): {cause}"
                ));
            }
            if !is_probability(*score) {
                return refuse(format!(
                    "scored {score}, not a probability in [0, 1]: such transactions would be dead letters"
                ));
            }
            largest = largest.max(difference);
        }
        Ok(largest)
    }

    /// Why a score may be another one than training's, as far as the graph and the score tell.
    fn likely_cause(&self, score: f32) -> &'static str {
        let graph = Model::read(&self.model).ok();
        let has_trees = graph.as_ref().is_some_and(|graph| graph.nodes.iter().any(Node::is_trees));
        if has_trees && graph.is_some_and(|graph| graph.has_operator("Scaler")) {
            "its Scaler multiplies where scikit-learn divides, which moves values across the trees' thresholds \
             (microsoft/onnxruntime#4130): leave the scaler out, trees need none, or put Sub and Div in its place"
        } else if !is_probability(score) {
            "it gives no probability, so the export lost the step that makes one of the margin"
        } else if has_trees {
            "the model, its preprocessing or the feature order is not what training exported, or the library was asked for \
             its score with features rounded to 32 bits (astype(float32)) instead of the decimals in the file"
        } else {
            "the model, its preprocessing or the feature order is not what training exported"
        }
    }

    /// A model that gives no probability on plain input would dead-letter everything: refuse it now.
    fn verify_defaults(&self, scorer: &mut Scorer) -> Result<(), ModelError> {
        let mut scores = Vec::new();
        self.run(scorer, &self.manifest.row_of_defaults(), &mut scores)?;
        match scores[..] {
            [score] if is_probability(score) => Ok(()),
            ref other => Err(self.refuse(format!(
                "a row of defaults and zeros scored {other:?}, not a probability in [0, 1]; where that is no transaction at \
                 all, add golden.jsonl, whose records are tried instead"
            ))),
        }
    }

    fn run(&self, scorer: &mut Scorer, features: &[f32], scores: &mut Vec<f32>) -> Result<(), ModelError> {
        scorer.score(features, scores).map_err(|error| self.refuse(format!("the model cannot run: {error}")))
    }

    fn refuse(&self, reason: String) -> ModelError {
        ModelError::Graph { model: self.manifest.id(), reason }
    }
}

/// Sets the column of the class that the manifest names, if it names one.
fn find_class(model: &[u8], manifest: &mut Manifest) -> Result<(), ModelError> {
    let Some(Class(class)) = &manifest.output.class else { return Ok(()) };
    let refuse = |reason| ModelError::Graph { model: manifest.id(), reason };
    let labels = class_labels(model, &manifest.output.tensor)
        .map_err(|reason| refuse(format!("output.class = {class:?}: {reason}: give output.column instead")))?;
    let Some(labels) = labels else {
        let reason = format!("output.class = {class:?}, but the graph names no classes: give output.column instead");
        return Err(refuse(reason));
    };
    let Some(column) = labels.iter().position(|label| label == class) else {
        let reason = format!("output.class = {class:?} is no class of the graph (it has: {})", labels.join(", "));
        return Err(refuse(reason));
    };
    manifest.output.column = Some(column);
    Ok(())
}

/// A model whose scores come in a tensor: where a ZipMap makes maps of them, what this takes is the output.
fn with_tensor_output(model: Vec<u8>, manifest: &mut Manifest) -> Vec<u8> {
    // What cannot be read here is ONNX Runtime's to judge.
    match without_zip_map(&model, &manifest.output.tensor) {
        Ok(Some((without, tensor))) => {
            manifest.output.tensor = tensor;
            without
        }
        Ok(None) | Err(_) => model,
    }
}

/// A pipe or a device in the place of a file may never end.
fn check_files(directory: &Path) -> Result<(), ModelError> {
    // What cannot be looked at cannot be read either, and is named then.
    let paths = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in paths {
        if std::fs::metadata(&path).is_ok_and(|about| !about.is_file() && !about.is_dir()) {
            let source = std::io::Error::other("it is no regular file");
            return Err(ModelError::Unreadable { path, source });
        }
    }
    Ok(())
}

/// The golden records at `path`: none where there is no such file, which is as it may be for a foreign model.
fn read_golden(path: &Path, manifest: &Manifest) -> Result<Golden, ModelError> {
    match std::fs::read(path) {
        Ok(text) => Golden::parse(&text, &manifest.features)
            .map_err(|GoldenError { line, reason }| ModelError::Golden { path: path.to_owned(), line, reason }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            log_events::model::NoGoldenRecords { bundle: &path.parent().unwrap_or(path).display() }.log();
            Ok(Golden::default())
        }
        Err(source) => Err(ModelError::Unreadable { path: path.to_owned(), source }),
    }
}
