//! Which models score, as metrics: exactly one series of each at a time.
//!
//! The exporter keeps every series it has ever seen, so a model that no longer serves would stay at 1 beside its
//! successor. These few are rendered here instead, from what is set now.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::catalogue::Metric;
use super::catalogue::definitions::{CHALLENGER_INFO, MODEL_ENGINE, MODEL_INFO, MODEL_TRAINED};

/// A model, as labels.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelLabels {
    /// Name of its bundle.
    pub name: String,
    /// Version, as in verdicts.
    pub version: String,
    /// Of the model file.
    pub sha256: String,
    /// `simd` or `onnxruntime`.
    pub engine: &'static str,
    /// How the kernel computes, or why it does not.
    pub engine_detail: String,
    /// Time of the newest transaction it has learnt from, seconds since 1970, where its manifest says so.
    pub trained_until: Option<f64>,
}

/// The process's models.
#[derive(Debug, Default)]
pub struct Models {
    serving: Mutex<Option<ModelLabels>>,
    challenger: Mutex<Option<ModelLabels>>,
}

/// The one of this process.
pub(super) fn models() -> &'static Arc<Models> {
    static MODELS: OnceLock<Arc<Models>> = OnceLock::new();
    MODELS.get_or_init(Arc::default)
}

impl Models {
    /// `model` serves from now on.
    pub fn serving(&self, model: ModelLabels) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(model);
    }

    /// `model` runs in its shadow, or none does.
    pub fn challenger(&self, model: Option<ModelLabels>) {
        *self.challenger.lock().unwrap_or_else(PoisonError::into_inner) = model;
    }

    /// Prometheus text format.
    pub(super) fn render(&self, text: &mut String) {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*serving {
            info(text, &MODEL_INFO, model);
            MODEL_ENGINE.describe(text);
            MODEL_ENGINE.sample(text, &[model.engine, &model.engine_detail], 1);
            if let Some(time) = model.trained_until {
                MODEL_TRAINED.describe(text);
                MODEL_TRAINED.sample(text, &[], time);
            }
        }
        drop(serving);
        let challenger = self.challenger.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(model) = &*challenger {
            info(text, &CHALLENGER_INFO, model);
        }
    }
}

fn info(text: &mut String, metric: &Metric, model: &ModelLabels) {
    metric.describe(text);
    metric.sample(text, &[&model.name, &model.version, &model.sha256], 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_scores_now_is_shown() {
        let models = Models::default();
        let mut text = String::new();
        models.render(&mut text);
        assert_eq!(text, "");
        for version in ["1", "2 \"b\\"] {
            models.serving(ModelLabels {
                name: "fraud".into(),
                version: version.into(),
                sha256: "ab".into(),
                engine: "simd",
                engine_detail: "bit-sliced, AVX2".into(),
                trained_until: Some(1_700_000_000.5),
            });
        }
        models.render(&mut text);
        let series: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            series,
            [
                r#"fraud_scorer_model_info{name="fraud",version="2 \"b\\",sha256="ab"} 1"#,
                r#"fraud_scorer_model_engine{engine="simd",detail="bit-sliced, AVX2"} 1"#,
                "fraud_scorer_model_trained_timestamp_seconds 1700000000.5",
            ]
        );
    }
}
