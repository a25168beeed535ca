//! A bundle directory, loaded and verified: what every way into the product (run, demo, score, check) starts with.
//!
//! The gates, in order: manifest → hash → graph and signature → golden records (scored through the same decode path as
//! a topic's) → finite output on an all-default row. Whatever fails refuses the bundle with the reason.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::ModelError;
use super::manifest::Manifest;
use super::scorer::Scorer;
use crate::pipeline::decode::{Decoder, Rows};

/// How far a golden record's score may lie from training's: f32 noise through another implementation, no more.
pub const GOLDEN_TOLERANCE: f32 = 1e-5;

/// Longest golden record that is read.
const MAX_GOLDEN_BYTES: usize = 1 << 20;

/// A verified bundle.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Where it was read.
    pub directory: PathBuf,
    /// What it promises.
    pub manifest: Manifest,
    /// The ONNX model; sessions are built from these bytes, so that what was hashed is what runs.
    pub model: Vec<u8>,
    /// Golden records that matched; 0 where the bundle has none.
    pub golden_records: usize,
    /// Largest difference among them.
    pub golden_difference: f32,
}

impl Bundle {
    /// Loads and verifies the bundle in `directory`.
    pub fn load(directory: &Path) -> Result<Bundle, ModelError> {
        let manifest = Manifest::read(&directory.join("manifest.toml"))?;
        let path = directory.join(&manifest.model);
        let model = std::fs::read(&path).map_err(|source| ModelError::Unreadable { path: path.clone(), source })?;
        let found: String = Sha256::digest(&model).iter().map(|byte| format!("{byte:02x}")).collect();
        if found != manifest.sha256 {
            return Err(ModelError::WrongHash { path, found, expected: manifest.sha256 });
        }
        let mut bundle =
            Bundle { directory: directory.to_owned(), manifest, model, golden_records: 0, golden_difference: 0.0 };
        let mut scorer = bundle.scorer()?;
        bundle.verify_golden(&mut scorer)?;
        bundle.verify_finite(&mut scorer)?;
        Ok(bundle)
    }

    /// A session of this bundle for one thread.
    pub fn scorer(&self) -> Result<Scorer, ModelError> {
        Scorer::new(&self.manifest, &self.model)
    }

    fn verify_golden(&mut self, scorer: &mut Scorer) -> Result<(), ModelError> {
        let path = self.directory.join("golden.jsonl");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            // Optional for a foreign model: training that can write golden records should.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                tracing::warn!(bundle = %self.directory.display(), "no golden.jsonl: scores are not checked against training's");
                return Ok(());
            }
            Err(source) => return Err(ModelError::Unreadable { path, source }),
        };
        let mut decoder = Decoder::new(&self.manifest.features, MAX_GOLDEN_BYTES);
        let (mut rows, mut expected, mut lines) = (Rows::default(), Vec::new(), Vec::new());
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let golden = |reason: String| ModelError::Golden { path: path.clone(), line: index + 1, reason };
            decoder.decode(Some(line), 0, &mut rows).map_err(|rejection| golden(rejection.message))?;
            let record: GoldenRecord = serde_json::from_slice(line).map_err(|error| golden(error.to_string()))?;
            expected.push(record.expected_score);
            lines.push(index + 1);
        }
        let mut scores = Vec::new();
        self.run(scorer, &rows.features, &mut scores)?;
        for ((score, expected), line) in scores.iter().zip(&expected).zip(lines) {
            let difference = (score - expected).abs();
            // NaN compares false with everything: it must not pass for a small difference.
            if difference.is_nan() || difference > GOLDEN_TOLERANCE {
                let reason = format!(
                    "scored {score}, training recorded {expected} (tolerance {GOLDEN_TOLERANCE}): the model, its \
                     preprocessing or the feature order is not what training exported"
                );
                return Err(ModelError::Golden { path, line, reason });
            }
            self.golden_difference = self.golden_difference.max(difference);
        }
        self.golden_records = expected.len();
        Ok(())
    }

    /// A model that gives NaN on plain input would dead-letter everything: refuse it now.
    fn verify_finite(&self, scorer: &mut Scorer) -> Result<(), ModelError> {
        let row: Vec<f32> = self.manifest.features.iter().map(|feature| feature.default.unwrap_or(0.0)).collect();
        let mut scores = Vec::new();
        self.run(scorer, &row, &mut scores)?;
        match scores[..] {
            [score] if (0.0..=1.0).contains(&score) => Ok(()),
            ref other => Err(self.refuse(format!("a row of zeros scored {other:?}, not a probability in [0, 1]"))),
        }
    }

    fn run(&self, scorer: &mut Scorer, features: &[f32], scores: &mut Vec<f32>) -> Result<(), ModelError> {
        scorer.score(features, scores).map_err(|error| self.refuse(format!("the model cannot run: {error}")))
    }

    fn refuse(&self, reason: String) -> ModelError {
        ModelError::Graph { model: self.manifest.id(), reason }
    }
}

#[derive(serde::Deserialize)]
struct GoldenRecord {
    expected_score: f32,
}
