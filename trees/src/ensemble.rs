//! An ensemble of decision trees as its library means it, whatever file it came from: the input of every kernel.
//!
//! The semantics are those of ONNX's `TreeEnsembleClassifier` and `TreeEnsembleRegressor`
//! (<https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html>), which XGBoost, LightGBM, CatBoost and
//! scikit-learn export to. A post-transform (logistic, softmax) is not part of it.

/// Trees whose leaves' weights are put together per output.
#[derive(Clone, Debug, PartialEq)]
pub struct Ensemble {
    /// Columns of a row; every feature index is below it.
    pub width: usize,
    /// Columns of the result: classes or targets, at least one.
    pub outputs: usize,
    /// The trees, in the file's order (sums are made in this order).
    pub trees: Vec<Tree>,
    /// How the trees' weights become one number per output.
    pub aggregate: Aggregate,
    /// Added to each output after aggregation; as many as outputs.
    pub base_values: Vec<f32>,
}

/// How weights become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// Their sum.
    Sum,
    /// Their sum by the number of trees.
    Average,
    /// The smallest; 0 for an output no reached leaf mentions.
    Min,
    /// The largest; 0 for an output no reached leaf mentions.
    Max,
}

/// One binary tree. Node 0 is the root; every child's index is above its parent's, so there is no cycle.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A node of a tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Compares one feature with a constant.
    Branch {
        /// Column of the row.
        feature: u32,
        /// What the value stands left of.
        comparison: Comparison,
        /// The constant.
        threshold: f32,
        /// Where NaN goes: to `on_true` if set (whatever the comparison would say), else by the comparison: to `on_true` for
        /// [`Comparison::NotEqual`], to `on_false` for all others.
        missing_tracks_true: bool,
        /// Next node where the comparison holds.
        on_true: u32,
        /// Next node where it does not.
        on_false: u32,
    },
    /// The end: weights by output, each output at most once.
    Leaf {
        /// Output and weight.
        weights: Vec<(u32, f32)>,
    },
}

/// `value OP threshold`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<=`
    LessOrEqual,
    /// `<`
    Less,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}
