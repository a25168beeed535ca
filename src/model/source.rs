//! Where a bundle comes from: what `--model` may name, and a bundle that asks to serve.
//!
//! ```text
//!  --model DIR ──────────────────────────────────────────────► Candidate { directory }
//!  --model mlflow:NAME@ALIAS ─► registry ─► cache's directory ─► Candidate { directory, registered } ─► verified Bundle
//! ```
//!
//! [`Offer`] is the seam between who finds a candidate (the registry's follower) and who lets it serve.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::ModelError;
use super::bundle::Bundle;
use super::choice::KernelChoice;
use super::manifest::Manifest;
use super::trust::{Demands, ModelKey};

/// What a source in an MLflow registry begins with.
const REGISTRY_SCHEME: &str = "mlflow:";

/// Longest name and alias that is looked up, bytes; MLflow itself takes 256.
const MAX_NAME_BYTES: usize = 256;

/// What `--model` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A bundle's directory.
    Directory(PathBuf),
    /// A registered model of an MLflow server.
    Registry(RegisteredModel),
}

/// A model's name in the registry, and which of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredModel {
    /// Name of the registered model.
    pub name: String,
    /// Which version.
    pub pointer: Pointer,
}

/// What points at a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pointer {
    /// Whatever version the alias stands at; it may move.
    Alias(String),
    /// This version for good; the registry's number.
    Version(String),
}

impl FromStr for ModelSource {
    type Err = String;

    /// The error says what was expected; the caller names the flag.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(named) = text.strip_prefix(REGISTRY_SCHEME) {
            return named.parse().map(ModelSource::Registry);
        }
        if text.is_empty() {
            return Err(format!("is empty: give a bundle's directory, or {REGISTRY_SCHEME}NAME@ALIAS"));
        }
        if text.starts_with("models:/") {
            return Err(format!(
                "{text:?} is a URI for MLflow's Python client; write {REGISTRY_SCHEME}NAME@ALIAS here"
            ));
        }
        Ok(ModelSource::Directory(PathBuf::from(text)))
    }
}

impl FromStr for RegisteredModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || {
            format!(
                "{REGISTRY_SCHEME}{text} must be {REGISTRY_SCHEME}NAME@ALIAS or {REGISTRY_SCHEME}NAME/VERSION, \
                                as in {REGISTRY_SCHEME}fraud@champion"
            )
        };
        // The last one: MLflow allows an @ within a name.
        let (name, pointer) = match (text.rsplit_once('@'), text.rsplit_once('/')) {
            (Some((name, alias)), _) => (name, Pointer::Alias(alias.to_owned())),
            (None, Some((name, version))) => {
                if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
                    let fix = format!("a version is a number; for an alias write {REGISTRY_SCHEME}{name}@{version}");
                    return Err(format!("{}: {fix}", shape()));
                }
                (name, Pointer::Version(version.to_owned()))
            }
            (None, None) => return Err(shape()),
        };
        for part in [name, pointer.text()] {
            // MLflow refuses the first two in names; the rest would be a path or a broken log line.
            let unfit = |character: char| matches!(character, '/' | ':') || character.is_control();
            if part.is_empty() || part.len() > MAX_NAME_BYTES || part.contains(unfit) {
                return Err(shape());
            }
        }
        Ok(RegisteredModel { name: name.to_owned(), pointer })
    }
}

impl Pointer {
    /// The alias, or the version's number.
    pub fn text(&self) -> &str {
        match self {
            Pointer::Alias(text) | Pointer::Version(text) => text,
        }
    }
}

impl fmt::Display for RegisteredModel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.pointer {
            Pointer::Alias(_) => '@',
            Pointer::Version(_) => '/',
        };
        write!(formatter, "{REGISTRY_SCHEME}{}{mark}{}", self.name, self.pointer.text())
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ModelSource::Directory(directory) => directory.display().fmt(formatter),
            ModelSource::Registry(registered) => registered.fmt(formatter),
        }
    }
}

/// A bundle that asks to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where its files are.
    pub directory: PathBuf,
    /// Its name and version in the registry: overrides the manifest's version, and must agree with it in name.
    pub registered: Option<Registered>,
    /// For logs and history: `mlflow:fraud@champion`, or a directory.
    pub origin: String,
}

/// A version in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Name of the registered model.
    pub name: String,
    /// The registry's number of the version.
    pub version: String,
}

impl fmt::Display for Registered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.name, self.version)
    }
}

impl Candidate {
    /// A bundle that lies in a directory of the user's.
    pub fn of_directory(directory: impl Into<PathBuf>) -> Candidate {
        let directory = directory.into();
        Candidate { origin: directory.display().to_string(), directory, registered: None }
    }

    /// Loads and verifies the bundle; from the registry, under the registry's version.
    pub fn load(&self, kernel: KernelChoice, key: Option<&ModelKey>) -> Result<Bundle, ModelError> {
        let demands = Demands { key: key.cloned(), is_registered: self.registered.is_some() };
        let Some(registered) = &self.registered else { return Bundle::load_as(&self.directory, kernel, &demands) };
        // Before the work of loading it: the wrong model is wrong at once.
        let path = self.directory.join("manifest.toml");
        let manifest = Manifest::read_as(&path, &demands)?;
        if manifest.name != registered.name {
            let reason = format!(
                "name = {:?}, but the registry has it as version {} of {:?}: register the bundle under its own name, \
                 or the one that was meant",
                manifest.name, registered.version, registered.name
            );
            return Err(ModelError::Manifest { path, reason });
        }
        let mut bundle = Bundle::load_as(&self.directory, kernel, &demands)?;
        bundle.manifest.version.clone_from(&registered.version);
        Ok(bundle)
    }
}

/// Who lets a candidate serve, or says why not.
pub trait Offer: Send + Sync {
    /// Verifies the candidate and lets it serve. Blocks for as long as that takes: not for an async task.
    ///
    /// # Errors
    /// Why it was refused, as a sentence; what served before goes on.
    fn offer(&self, candidate: Candidate) -> Result<(), String>;

    /// The registered version that serves now; `None` for a bundle that came from elsewhere.
    fn serving(&self) -> Option<Registered>;

    /// A version was found at `origin`, but its files are no bundle, so that it cannot even be offered.
    fn unfit(&self, _origin: &str, _reason: &str) {}

    /// The alias that led here names no version any more. A champion goes on; a challenger's slot may empty itself.
    fn withdrawn(&self) {}

    /// Whether it is as it should be that the alias names no version.
    fn may_be_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(name: &str, pointer: Pointer) -> ModelSource {
        ModelSource::Registry(RegisteredModel { name: name.into(), pointer })
    }

    #[test]
    fn a_source_is_a_directory_an_alias_or_a_version_and_prints_as_it_was_written() {
        for (text, source) in [
            ("models/fraud", ModelSource::Directory("models/fraud".into())),
            ("mlflow", ModelSource::Directory("mlflow".into())),
            ("./mlflow:x", ModelSource::Directory("./mlflow:x".into())),
            ("mlflow:fraud@champion", registered("fraud", Pointer::Alias("champion".into()))),
            ("mlflow:fraud/7", registered("fraud", Pointer::Version("7".into()))),
            ("mlflow:f@eu@champion", registered("f@eu", Pointer::Alias("champion".into()))),
            ("mlflow:card fraud@champion", registered("card fraud", Pointer::Alias("champion".into()))),
        ] {
            assert_eq!(text.parse::<ModelSource>().expect(text), source);
            assert_eq!(source.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_source_says_what_was_expected() {
        for (text, says) in [
            ("", "directory"),
            ("mlflow:", "NAME@ALIAS"),
            ("mlflow:fraud", "mlflow:fraud@champion"),
            ("mlflow:@champion", "NAME@ALIAS"),
            ("mlflow:fraud@", "NAME@ALIAS"),
            ("mlflow:fraud/champion", "write mlflow:fraud@champion"),
            ("mlflow:fraud/", "number"),
            ("mlflow:a/b@champion", "NAME@ALIAS"),
            ("mlflow:../x/7", "NAME@ALIAS"),
            ("mlflow:a\nb@champion", "NAME@ALIAS"),
            ("models:/fraud@champion", "mlflow:NAME@ALIAS"),
        ] {
            let error = text.parse::<ModelSource>().expect_err(text);
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_registered_version_overrides_the_manifests_and_its_name_must_agree() {
        let mut candidate = Candidate::of_directory(concat!(env!("CARGO_MANIFEST_DIR"), "/models/fraud"));
        let own = candidate.load(KernelChoice::Auto, None).expect("the committed bundle").manifest;
        candidate.registered = Some(Registered { name: own.name.clone(), version: "70".into() });
        let bundle = candidate.load(KernelChoice::Auto, None).expect("the same bundle");
        assert_eq!((bundle.manifest.id(), own.version == "70"), (format!("{}@70", own.name), false));

        candidate.registered = Some(Registered { name: "chargebacks".into(), version: "70".into() });
        let error = candidate.load(KernelChoice::Auto, None).expect_err("another name").to_string();
        assert!(error.contains("chargebacks") && error.contains("name ="), "{error}");
    }
}
