//! `--model` and the registry's flags, shared by `run` and `check`: from what was asked for to a candidate on disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fraud_settings::parse_duration;

use super::Failure;
use crate::model::registry::{Fetched, Registry, RegistryError, RegistrySettings};
use crate::model::source::{Candidate, ModelSource, Pointer, RegisteredModel};
use crate::model::trust::ModelKey;
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// Where the model comes from.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArguments {
    /// The model: a bundle's directory, mlflow:NAME@ALIAS (followed when the alias moves) or mlflow:NAME/VERSION
    #[arg(long, value_name = "SOURCE", default_value = "models/fraud")]
    pub model: ModelSource,

    /// minisign public key, or its file: every model must be signed by it (`minisign -S -m manifest.toml`)
    #[arg(long, value_name = "KEY")]
    pub model_key: Option<ModelKey>,

    /// Address of the MLflow server [default: MLFLOW_TRACKING_URI]; credentials come from MLFLOW_TRACKING_USERNAME and
    /// MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN
    #[arg(long, value_name = "URL")]
    pub mlflow_uri: Option<String>,

    /// Where models from the registry are kept [default: fraud-scorer/models in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR")]
    pub model_cache: Option<PathBuf>,

    /// Where the files of registered versions may lie beside the MLflow server's own store: s3://BUCKET/PREFIX or
    /// file:///PATH; may be repeated
    #[arg(long, value_name = "URI")]
    pub model_store: Vec<String>,

    /// How often the registry is asked whether the alias has moved
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_poll)]
    pub model_poll: Duration,
}

fn parse_poll(text: &str) -> Result<Duration, String> {
    let poll = parse_duration(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60)).contains(&poll) {
        Ok(poll)
    } else {
        Err("expected 100ms to 24h".into())
    }
}

/// A bundle on disk, and what is to be followed from there.
pub struct Opened {
    /// What to start with.
    pub candidate: Candidate,
    /// The registry's part; `None` for a directory.
    pub registered: Option<FromRegistry>,
}

/// A bundle of the registry.
pub struct FromRegistry {
    /// The registry it came from.
    pub registry: Arc<Registry>,
    /// What `--model` names there.
    pub model: RegisteredModel,
    /// What it was at the start.
    pub fetched: Fetched,
}

impl FromRegistry {
    /// Whether it can move: a version's number cannot.
    pub fn moves(&self) -> bool {
        matches!(self.model.pointer, Pointer::Alias(_))
    }
}

impl Opened {
    /// Goes back to the version that served last, where that is another one of the registry's.
    pub fn take_last(&mut self) -> bool {
        let Some(from) = self.registered.as_mut().filter(|from| from.moves()) else { return false };
        let last = from.registry.last(&from.model).filter(|last| last.version != from.fetched.version);
        let Some(last) = last else { return false };
        self.candidate = last.candidate.clone();
        from.fetched = last;
        true
    }
}

impl ModelArguments {
    /// The bundle to start with; waits for a registry that is down. `None` where the process shall end before.
    pub fn open(
        &self,
        runtime: &tokio::runtime::Runtime,
        readiness: &Readiness,
        shutdown: &Shutdown,
    ) -> Result<Option<Opened>, Failure> {
        let model = match &self.model {
            ModelSource::Directory(directory) => {
                return Ok(Some(Opened { candidate: Candidate::of_directory(directory.clone()), registered: None }));
            }
            ModelSource::Registry(model) => model.clone(),
        };
        let registry = Arc::new(self.registry().map_err(Failure::configuration)?);
        let fetched = runtime.block_on(registry.open(&model, readiness, shutdown)).map_err(Failure::configuration)?;
        Ok(fetched.map(|fetched| Opened {
            candidate: fetched.candidate.clone(),
            registered: Some(FromRegistry { registry, model, fetched }),
        }))
    }

    /// The registry of the flags and of MLflow's environment variables.
    pub fn registry(&self) -> Result<Registry, RegistryError> {
        let environment = |name: &str| std::env::var(name).ok();
        let settings = RegistrySettings::new(
            self.mlflow_uri.as_deref(),
            self.model_cache.clone(),
            self.model_poll,
            &self.model_store,
            environment,
        )?;
        Registry::new(settings)
    }
}
