//! What can be wrong with settings, said so that the reader knows which key to change and how.

use std::path::PathBuf;

use crate::exit_code;

/// Why the settings could not be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Bad flags, or a request for help or the version, which clap reports the same way.
    #[error(transparent)]
    Usage(#[from] clap::Error),

    /// An environment variable holds a value its argument does not take.
    #[error("environment variable {variable}: {reason}")]
    Environment {
        /// The variable's name.
        variable: String,
        /// What is wrong with its value, and what would be right.
        reason: String,
    },

    /// The file given with `--config` cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file as it was given.
        path: PathBuf,
        /// Why it cannot be read.
        source: std::io::Error,
    },

    /// The file is not TOML. Only the place is told, never the line itself: it may hold a password.
    #[error("{} is not valid TOML at line {line}, column {column}: {reason}", path.display())]
    Syntax {
        /// The file as it was given.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// Column in characters, counted from 1.
        column: usize,
        /// What the TOML parser expected.
        reason: String,
    },

    /// A key that no command has.
    #[error("{}: unknown key \"{key}\"{hint}", path.display())]
    UnknownKey {
        /// The file as it was given.
        path: PathBuf,
        /// The key, with its table: `run.brokrs`.
        key: String,
        /// The closest known key, or all of them.
        hint: String,
    },

    /// A key with a value its argument does not take.
    #[error("{}: key \"{key}\": {reason}", path.display())]
    Value {
        /// The file as it was given.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// What is wrong with its value, and what would be right.
        reason: String,
    },

    /// A property librdkafka does not know, or whose value it refuses.
    #[error("librdkafka property \"{key}\" (from -X, the environment or the file's [kafka] table): {reason}")]
    Property {
        /// The property.
        key: String,
        /// librdkafka's words, without the value when the property is a secret.
        reason: String,
    },

    /// Properties that librdkafka knows but does not accept together.
    #[error("librdkafka does not accept this configuration: {0}")]
    Client(String),
}

impl SettingsError {
    /// The process exit code this error ends with: 2 for flags and environment, 64 for the configuration file and
    /// librdkafka properties, 0 for help and version.
    pub fn exit_code(&self) -> u8 {
        match self {
            SettingsError::Usage(error) => u8::try_from(error.exit_code()).unwrap_or(exit_code::USAGE),
            SettingsError::Environment { .. } => exit_code::USAGE,
            _ => exit_code::CONFIGURATION,
        }
    }

    /// Prints the error as clap prints its own (help goes to standard output, errors to standard error) and exits.
    pub fn exit(&self) -> ! {
        if let SettingsError::Usage(error) = self {
            error.exit()
        }
        eprintln!("error: {self}");
        std::process::exit(i32::from(self.exit_code()))
    }
}
