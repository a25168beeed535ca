//! Scores tree ensembles on batches of rows.
//!
//! ```text
//!  model file ─► Ensemble (what the trees say, any library's) ─► Kernel (how this processor computes it) ─► sums per row
//! ```
//!
//! [`ensemble::Ensemble`] takes what XGBoost, LightGBM, CatBoost and scikit-learn train: boosted trees and forests, classifiers
//! and regressors, every comparison, missing values, several outputs. [`kernel::Kernel`] compiles it for the processor that it
//! runs on and gives, to the last bit, what [`ensemble::Ensemble::interpret`] does.
//!
//! ```
//! use fraud_trees::ensemble::{Aggregate, Comparison, Ensemble, Node, Tree};
//! use fraud_trees::kernel::Kernel;
//!
//! let root = Node::Branch {
//!     feature: 0,
//!     comparison: Comparison::LessOrEqual,
//!     threshold: 99.5,
//!     missing_tracks_true: true,
//!     on_true: 1,
//!     on_false: 2,
//! };
//! let leaf = |weight| Node::Leaf { weights: vec![(0, weight)] };
//! let ensemble = Ensemble {
//!     width: 2,
//!     outputs: 1,
//!     trees: vec![Tree { nodes: vec![root, leaf(-1.5), leaf(2.0)] }],
//!     aggregate: Aggregate::Sum,
//!     base_values: vec![0.5],
//! };
//! let mut kernel = Kernel::compile(&ensemble)?;
//! let mut sums = Vec::new();
//! kernel.sums(&[10.0, 0.0, 100.0, 0.0, f32::NAN, 0.0], &mut sums);
//! assert_eq!(sums, [-1.0, 2.5, -1.0]);
//! # Ok::<(), fraud_trees::kernel::Unsupported>(())
//! ```
//!
//! Inside, each arrow a module or two:
//!
//! ```text
//!  Ensemble ─► plan (one kind of test, on keys) ─┬─► walk (records) ─────────────► portable, gather: row by row
//!                                                └─► quantise, bitsliced ────────► bit-sliced: node by node
//!                                              cost, trial ─► vectors, kernel: which of them, for how many rows
//! ```

pub mod ensemble;
pub mod interpret;
pub mod kernel;
pub mod onnx;

mod key;
mod plan;
mod portable;
mod walk;

#[cfg(target_arch = "x86_64")]
mod bitsliced;
#[cfg(target_arch = "x86_64")]
mod gather;
#[cfg(target_arch = "x86_64")]
mod quantise;
#[cfg(target_arch = "x86_64")]
mod trial;
#[cfg_attr(not(target_arch = "x86_64"), path = "no_vectors.rs")]
mod vectors;
