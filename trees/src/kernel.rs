//! The kernel: an ensemble compiled for this processor.

use crate::ensemble::Ensemble;

/// An ensemble compiled for this processor, with its scratch memory: one per thread.
#[derive(Clone, Debug)]
pub struct Kernel {
    ensemble: Ensemble,
}

/// Why an ensemble cannot be compiled; it is still right, and an interpreter can run it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

impl Kernel {
    /// Compiles `ensemble`.
    pub fn compile(ensemble: &Ensemble) -> Result<Kernel, Unsupported> {
        Ok(Kernel { ensemble: ensemble.clone() })
    }

    /// The aggregated weights of row-major `rows` (a multiple of the ensemble's width), row-major with
    /// [`Ensemble::outputs`] columns; replaces `sums`.
    pub fn sums(&mut self, rows: &[f32], sums: &mut Vec<f32>) {
        self.ensemble.interpret(rows, sums);
    }

    /// What computes large batches, in words for logs: "bit-sliced, AVX-512".
    pub fn method(&self) -> String {
        "interpreted".into()
    }
}
