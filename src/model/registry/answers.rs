//! What an MLflow server answers: JSON that others wrote, and what of it is believed. Pure.
//!
//! Fields that are not read are ignored, so that newer servers stay readable.

use serde::Deserialize;

use super::location::plain_name;
use crate::model::source::RegisteredModel;

/// A version of a registered model, as the registry describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelVersion {
    /// Name of the registered model.
    pub name: String,
    /// The registry's number.
    pub version: String,
    /// When it was registered, epoch milliseconds. Tells two servers' versions of the same number apart.
    pub created: i64,
}

/// Of `registered-models/alias` and `model-versions/get`.
#[derive(Debug, Deserialize)]
pub struct VersionAnswer {
    model_version: RawVersion,
}

#[derive(Debug, Deserialize)]
struct RawVersion {
    name: String,
    version: String,
    #[serde(default)]
    creation_timestamp: i64,
    status: Option<String>,
}

/// Why an answer is no version to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is another version than was asked for, or has no number.
    Unasked(String),
    /// The version is being written.
    NotReady {
        /// The registry's number.
        version: String,
        /// MLflow's word.
        status: String,
    },
}

impl VersionAnswer {
    /// The version, where it is one of `model`: its number becomes part of a path.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn version_of(self, model: &RegisteredModel) -> Result<ModelVersion, Unfit> {
        let found = self.model_version;
        if found.name != model.name || found.version.is_empty() || !found.version.bytes().all(|b| b.is_ascii_digit()) {
            let reason = format!("asked for {model}, it answered with {:?} {:?}", found.name, found.version);
            return Err(Unfit::Unasked(reason));
        }
        if let Some(status) = found.status.filter(|status| status != "READY") {
            return Err(Unfit::NotReady { version: found.version, status });
        }
        Ok(ModelVersion { name: found.name, version: found.version, created: found.creation_timestamp })
    }
}

/// Of `model-versions/get-download-uri`.
#[derive(Debug, Deserialize)]
pub struct DownloadUri {
    /// Where the version's files are: a URI of one of many schemes.
    pub artifact_uri: String,
}

/// Of `runs/get`.
#[derive(Debug, Deserialize)]
pub struct RunAnswer {
    run: Run,
}

#[derive(Debug, Deserialize)]
struct Run {
    info: DownloadUri,
}

impl RunAnswer {
    /// Where the run's files are.
    pub fn artifact_uri(self) -> String {
        self.run.info.artifact_uri
    }
}

/// Of `mlflow-artifacts/artifacts`: what lies in a folder.
#[derive(Debug, Deserialize)]
pub struct Listing {
    /// Its files and folders; absent where there is none.
    #[serde(default)]
    pub files: Vec<Entry>,
}

/// A file or a folder of a listing, of whatever store.
#[derive(Debug, Deserialize)]
pub struct Entry {
    /// Its name, as the other side says it.
    #[serde(rename = "path")]
    pub name: String,
    /// Whether it is a folder.
    #[serde(default, rename = "is_dir")]
    pub folder: bool,
}

impl Entry {
    /// Its name, where that stays in the folder that it is put into.
    ///
    /// # Errors
    /// It does not.
    pub fn plain_name(&self) -> Result<&str, String> {
        plain_name(&self.name)
    }
}

/// Of a server that refuses.
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// MLflow's error code.
    pub error_code: String,
    /// Its words.
    #[serde(default)]
    pub message: String,
}
