//! The model: a bundle on disk, verified, and one scorer per scoring thread.
//!
//! ```text
//!  directory ─► manifest ─► hash, signature ─► engine chosen ─► golden records ─► Bundle ─► Scorer per thread ─► scores
//!                               ▲                    ▲
//!         runtime: ONNX Runtime, once per process   trees, linear: our own, where they agree with ONNX Runtime
//!
//!  source: who asks to serve ─► exchange: gates, and a prepared model on each scoring thread's shelf
//! ```
//!
//! The directory is one the user names, or one that `registry` fetched from an MLflow server ([`source`]).
//!
//! A bundle is the contract between training and serving (docs/bring-your-own-model.md). Preprocessing lies inside its
//! graph; what differs from what training recorded is refused at load, before the first transaction is read.

pub mod bundle;
pub mod choice;
pub mod exchange;
pub mod golden;
pub mod linear;
pub mod manifest;
pub mod probability;
pub mod registry;
pub mod runtime;
pub mod scorer;
pub mod session;
mod signature;
pub mod source;
pub mod trees;
pub mod trust;

use std::path::PathBuf;

/// Why a bundle was refused. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the bundle cannot be read.
    #[error("cannot read {path}: {source}. A bundle is a directory with manifest.toml and the model it names")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// manifest.toml is not TOML or lacks a field.
    #[error("{path}: {reason}")]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, naming the field.
        reason: String,
    },
    /// A file is not the one the manifest was written for.
    #[error(
        "{path} has sha256 {found}, manifest.toml says {expected}: the file was changed or only half copied; \
         copy the bundle again, or write the new hash if the change was meant"
    )]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// Hash of the file.
        found: String,
        /// Hash in the manifest.
        expected: String,
    },
    /// Nobody vouches for a file of the bundle.
    #[error("{path}: {reason}")]
    Untrusted {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// ONNX Runtime is not there or is not the right one.
    #[error(
        "ONNX Runtime not found ({reason}): run `make onnxruntime`, or set ORT_DYLIB_PATH to a libonnxruntime.so \
         of version 1.24 or later"
    )]
    Runtime {
        /// Where it was looked for and what happened.
        reason: String,
    },
    /// ONNX Runtime refused the graph, or the graph does not keep the manifest's contract.
    #[error("{model}: {reason}")]
    Graph {
        /// name@version.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// `--kernel simd`, and the kernel does not take the model.
    #[error("{model}: --kernel simd, but {reason}; --kernel auto scores it with ONNX Runtime")]
    Kernel {
        /// name@version.
        model: String,
        /// Why not.
        reason: trees::NotTaken,
    },
    /// The bundle scores a golden record unlike training did.
    #[error("golden record {line} of {path}: {reason}")]
    Golden {
        /// golden.jsonl.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What differs.
        reason: String,
    },
}
