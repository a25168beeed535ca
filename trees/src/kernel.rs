//! The kernel: an ensemble compiled for this processor, by the method that suits its shape and the number of rows.
//!
//! ```text
//!                  sums of trees of up to 256 leaves                  other sums             smallest and largest weights
//!  AVX-512, AVX2   bit-sliced, gathered or portable, by trial         gathered or portable   portable
//!  any other       portable                                           portable               portable
//! ```
//!
//! A trial when the ensemble is compiled says what is quickest on this processor (`trial.rs`). The bit-sliced method takes whole
//! blocks, and the rest, filled up with zeros, unless that is so few rows that stepping through the trees is quicker.

use std::sync::Arc;

use crate::ensemble::{Aggregate, Ensemble};
use crate::plan::Plan;
use crate::portable;
use crate::vectors::Vectors;
use crate::walk::Walk;

/// A way to compute sums. All give the same numbers, to the last bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// All nodes of a tree for 512 rows at once, with AVX-512 (F, BW, DQ and VL).
    BitSlicedAvx512,
    /// All nodes of a tree for 256 rows at once, with AVX2.
    BitSlicedAvx2,
    /// From node to node, 16 rows at once, with AVX-512 (F).
    GatheredAvx512,
    /// From node to node, 8 rows at once, with AVX2.
    GatheredAvx2,
    /// From node to node, on any processor.
    Portable,
}

impl Method {
    /// All methods.
    pub const ALL: [Method; 5] = [
        Method::BitSlicedAvx512,
        Method::BitSlicedAvx2,
        Method::GatheredAvx512,
        Method::GatheredAvx2,
        Method::Portable,
    ];

    /// Whether this processor can run it.
    pub fn is_available(self) -> bool {
        self == Method::Portable || Vectors::available(self)
    }

    /// In words, for logs.
    pub fn name(self) -> &'static str {
        match self {
            Method::BitSlicedAvx512 => "bit-sliced, AVX-512",
            Method::BitSlicedAvx2 => "bit-sliced, AVX2",
            Method::GatheredAvx512 => "gathered, AVX-512",
            Method::GatheredAvx2 => "gathered, AVX2",
            Method::Portable => "portable",
        }
    }
}

/// Why an ensemble cannot be compiled; if it is a valid one, an interpreter can still run it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

/// An ensemble compiled for this processor, with its scratch memory: one per thread. Clones share what was compiled.
#[derive(Clone, Debug)]
pub struct Kernel {
    plan: Arc<Plan>,
    walk: Arc<Walk>,
    vectors: Vectors,
    scratch: portable::Scratch,
}

impl Kernel {
    /// Compiles `ensemble` for the methods that suit it on this processor.
    ///
    /// Unsupported is an ensemble whose indices do not hold together, and one that is too large for any method: 4,095 tested
    /// features and trees of 130,000 nodes always fit.
    pub fn compile(ensemble: &Ensemble) -> Result<Kernel, Unsupported> {
        Self::of(ensemble, Vectors::choose)
    }

    /// Compiles `ensemble` for one method, whatever its shape and the number of rows: for tests and measurements.
    pub fn compile_with(ensemble: &Ensemble, method: Method) -> Result<Kernel, Unsupported> {
        if !method.is_available() {
            return Err(Unsupported(format!("this processor cannot run the method {}", method.name())));
        }
        let kernel = Self::of(ensemble, |plan, _| Vectors::by(method, plan))?;
        if kernel.chosen() != method {
            return Err(Unsupported(format!("the method {} does not fit these trees", method.name())));
        }
        Ok(kernel)
    }

    fn of(ensemble: &Ensemble, vectors: impl Fn(&Plan, &Walk) -> Vectors) -> Result<Kernel, Unsupported> {
        let plan = Plan::of(ensemble)?;
        let walk = Walk::of(&plan)?;
        let vectors = match plan.aggregate {
            Aggregate::Sum | Aggregate::Average => vectors(&plan, &walk),
            Aggregate::Min | Aggregate::Max => Default::default(),
        };
        Ok(Kernel { plan: Arc::new(plan), walk: Arc::new(walk), vectors, scratch: portable::Scratch::default() })
    }

    /// The aggregated weights of row-major `rows` (a multiple of the ensemble's width), row-major with
    /// [`Ensemble::outputs`] columns; replaces `sums`. Once `sums` and the scratch memory have grown, nothing is allocated.
    pub fn sums(&mut self, rows: &[f32], sums: &mut Vec<f32>) {
        let (plan, walk, scratch) = (&*self.plan, &*self.walk, &mut self.scratch);
        let (count, outputs) = (rows.len() / plan.width, plan.outputs);
        let rows = &rows[..count * plan.width];
        sums.clear();
        sums.resize(count * outputs, 0.0);
        match plan.aggregate {
            Aggregate::Sum | Aggregate::Average => self.vectors.add(walk, outputs, rows, sums, scratch),
            Aggregate::Min => portable::choose(walk, outputs, rows, sums, scratch, f32::min),
            Aggregate::Max => portable::choose(walk, outputs, rows, sums, scratch, f32::max),
        }
        for sums in sums.chunks_exact_mut(outputs) {
            for (sum, base) in sums.iter_mut().zip(&plan.base_values) {
                if plan.aggregate == Aggregate::Average {
                    *sum /= plan.trees.len() as f32;
                }
                *sum += base;
            }
        }
    }

    /// What computes large batches, in words for logs: "bit-sliced, AVX-512".
    pub fn method(&self) -> String {
        self.chosen().name().into()
    }

    /// What computes large batches.
    pub fn chosen(&self) -> Method {
        self.vectors.chosen().unwrap_or(Method::Portable)
    }
}
