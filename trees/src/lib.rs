//! Scores tree ensembles on batches of rows.
//!
//! ```text
//!  model file ─► Ensemble (what the trees say, any library's) ─► Kernel (how this processor computes it) ─► sums per row
//! ```

pub mod ensemble;

pub mod interpret;
pub mod kernel;
pub mod onnx;
