//! Finds the trees in an ONNX model, and takes the model apart around them; or finds a linear model ([`Linear`]).
//!
//! ```text
//!  model.onnx ─► wire ─► graph ─► Split ─┬► before   nodes between the input and the trees, a model again, or none
//!                (bytes)  (nodes)        ├► trees ─► TreeNode ─► Ensemble + Finish
//!                                        ├► alone    the tree node as a model of its own, to compare with
//!                                        └► after    nodes between the trees' scores and the output, or none
//! ```
//!
//! What is taken apart is put together again byte by byte: nodes and initializers are copied as they stand in the file,
//! only inputs and outputs are declared anew. So nothing of a node is lost that this reader does not know.
//!
//! The meaning of the tree operators follows ONNX Runtime where the specification is silent (a binary classifier whose
//! leaves name one class, above all): models are exported for it and tested with it. Whatever ONNX Runtime's answer
//! leaves to chance is refused here, as is everything unusual: the model can still run in ONNX Runtime as a whole.

mod attributes;
mod classes;
mod external;
mod finish;
mod graph;
mod grow;
mod linear;
mod logistic;
mod node;
mod opset3;
mod opset5;
mod split;
pub mod wire;
mod zip_map;

pub use classes::class_labels;
pub use external::external_weights;
pub use finish::{Finish, Margin, Transform};
pub use graph::{Model, Node};
pub use linear::{Linear, Scaler};
pub use node::TreeNode;
pub use split::{NO_TREES, Part, Split};
pub use zip_map::without_zip_map;

/// Why a model's trees are not taken, in words for logs: `the graph has two tree ensembles`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub String);

impl Unsupported {
    fn new(reason: impl Into<String>) -> Self {
        Unsupported(reason.into())
    }
}
