//! Where a bundle comes from: a bundle that asks to serve.

use std::fmt;
use std::path::PathBuf;

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
}
