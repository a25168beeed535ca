//! Where no vector instructions are made use of: the face of `vectors.rs`, and nothing behind it but the portable method.

use crate::kernel::Method;
use crate::plan::Plan;
use crate::portable::{self, Scratch};
use crate::walk::Walk;

/// How rows are shared out: all to the portable method.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vectors;

impl Vectors {
    /// Whether this processor can run `method`.
    pub fn available(method: Method) -> bool {
        method == Method::Portable
    }

    /// Only `method`, if it fits the trees.
    pub fn by(_: Method, _: &Plan) -> Vectors {
        Vectors
    }

    /// The quickest for these trees on this processor.
    pub fn choose(_: &Plan, _: &Walk) -> Vectors {
        Vectors
    }

    /// What computes large batches; none: the portable method.
    pub fn chosen(&self) -> Option<Method> {
        None
    }

    /// Adds up the weights of `rows`, `outputs` columns each, into `sums`, which holds zeros.
    pub fn add(&mut self, walk: &Walk, outputs: usize, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
        portable::add(walk, outputs, rows, sums, scratch);
    }
}
