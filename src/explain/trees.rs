//! Shapley values of a tree ensemble's sums, exact, for one row against one baseline row.
//!
//! ```text
//!            feature 3 < 0.5?                 the row goes right here, the baseline left, so feature 3 matters:
//!            ╱              ╲                   right: 3 is taken from the row      (one more from the row)
//!       feature 7 < 2?      leaf 0.4            left:  3 is taken from the baseline (one more from the baseline)
//!       ╱          ╲
//!   leaf -1.0    leaf 0.2                     below, 3 goes the way that was taken: it is one feature, not one test
//! ```
//!
//! Take each feature either from the row or from the baseline: 2ⁿ mixed rows, over which the Shapley value averages. A leaf is
//! reached by exactly those mixed rows that take u certain features from the row and v others from the baseline, and all
//! of these together weigh, for one feature of the u, (u-1)!·v!/(u+v)!, and for one of the v, minus u!·(v-1)!/(u+v)!. So it is
//! enough to walk over the leaves that mixed rows can reach, few of a tree's, once (Lundberg et al. 2020, algorithm 3).
//! Where row and baseline go the same way at a node, its feature does not matter there.

use std::collections::HashSet;

use fraud_trees::ensemble::{Aggregate, Comparison, Ensemble, Node};
use fraud_trees::onnx::Margin;

/// Most features that may differ on the way to one leaf: bounds the walk's depth. Trees are not deeper in practice.
const MOST_TAKEN: usize = 256;

/// Nodes that are visited for one row at most: 200 trees of depth 6 take some thousand.
const MOST_STEPS: usize = 4_000_000;

/// A tree ensemble with the row that others are compared with.
#[derive(Clone, Debug)]
pub(super) struct TreeEffects {
    steps: Vec<Step>,
    roots: Vec<u32>,
    weights: Weights,
    baseline: Vec<f32>,
    at_baseline: f64,
    /// Whence each feature is taken on the way under way.
    taken: Vec<Taken>,
}

/// A node, its tree's place among all nodes added to the links.
#[derive(Clone, Copy, Debug)]
enum Step {
    Branch {
        feature: u32,
        threshold: f32,
        comparison: Comparison,
        missing_tracks_true: bool,
        on_true: u32,
        on_false: u32,
    },
    /// What the leaf adds to the margin.
    Leaf(f64),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Taken {
    Undecided,
    FromRow,
    FromBaseline,
}

impl TreeEffects {
    /// The effects of `ensemble` on `margin` against `baseline`; `None` where they do not add up (a smallest or largest
    /// weight), or the trees are deeper than anybody's.
    pub fn of(ensemble: &Ensemble, margin: &Margin, baseline: &[f32]) -> Option<TreeEffects> {
        let scale = match ensemble.aggregate {
            Aggregate::Sum => 1.0,
            Aggregate::Average => 1.0 / ensemble.trees.len().max(1) as f64,
            Aggregate::Min | Aggregate::Max => return None,
        };
        let longest = ensemble.trees.iter().map(|tree| most_taken(&tree.nodes)).max().unwrap_or(0);
        if longest > MOST_TAKEN || margin.weights.len() != ensemble.outputs {
            return None;
        }
        let (mut steps, mut roots) = (Vec::new(), Vec::with_capacity(ensemble.trees.len()));
        for tree in &ensemble.trees {
            let root = steps.len() as u32;
            roots.push(root);
            steps.extend(tree.nodes.iter().map(|node| {
                match node {
                    Node::Leaf { weights } => Step::Leaf(
                        scale
                            * weights
                                .iter()
                                .map(|(output, own)| margin.weights[*output as usize] * f64::from(*own))
                                .sum::<f64>(),
                    ),
                    Node::Branch { feature, comparison, threshold, missing_tracks_true, on_true, on_false } => {
                        Step::Branch {
                            feature: *feature,
                            threshold: *threshold,
                            comparison: *comparison,
                            missing_tracks_true: *missing_tracks_true,
                            on_true: root + on_true,
                            on_false: root + on_false,
                        }
                    }
                }
            }));
        }
        let base: f64 =
            margin.weights.iter().zip(&ensemble.base_values).map(|(weight, own)| weight * f64::from(*own)).sum();
        let mut effects = TreeEffects {
            steps,
            roots,
            weights: Weights::new(longest),
            baseline: baseline.to_vec(),
            at_baseline: 0.0,
            taken: vec![Taken::Undecided; baseline.len()],
        };
        effects.at_baseline = base + margin.constant + effects.sum(baseline);
        Some(effects)
    }

    /// The row that others are compared with, and its margin.
    pub fn baseline(&self) -> (&[f32], f64) {
        (&self.baseline, self.at_baseline)
    }

    /// What each feature of `row` adds to the margin; `None` where that would take too long.
    pub fn effects(&mut self, row: &[f32], effects: &mut [f64]) -> Option<()> {
        let mut walk = Walk {
            steps: &self.steps,
            weights: &self.weights,
            row,
            baseline: &self.baseline,
            taken: &mut self.taken,
            effects,
            left: MOST_STEPS,
        };
        for &root in &self.roots {
            walk.below(root, 0, 0);
        }
        (walk.left > 0).then_some(())
    }

    /// What the leaves that `row` ends in add up to.
    fn sum(&self, row: &[f32]) -> f64 {
        let leaf = |root: &u32| {
            let mut at = *root;
            loop {
                match self.steps[at as usize] {
                    Step::Leaf(value) => return value,
                    step => at = step.next(row),
                }
            }
        };
        self.roots.iter().map(leaf).sum()
    }
}

impl Step {
    /// Where `row` goes on from a branch.
    fn next(self, row: &[f32]) -> u32 {
        let Step::Branch { feature, threshold, comparison, missing_tracks_true, on_true, on_false } = self else {
            return 0;
        };
        let value = row[feature as usize];
        let holds = comparison.holds(value, threshold) || (missing_tracks_true && value.is_nan());
        if holds { on_true } else { on_false }
    }
}

/// Features that can differ on the way from the root to a leaf, at most.
fn most_taken(nodes: &[Node]) -> usize {
    let (mut depths, mut features) = (vec![0_usize; nodes.len()], HashSet::new());
    for (at, node) in nodes.iter().enumerate() {
        // Children stand behind their parents.
        if let Node::Branch { feature, on_true, on_false, .. } = node {
            features.insert(*feature);
            for child in [*on_true, *on_false] {
                depths[child as usize] = depths[child as usize].max(depths[at] + 1);
            }
        }
    }
    depths.into_iter().max().unwrap_or(0).min(features.len())
}

/// (u-1)!·v!/(u+v)! for small u and v: how much of all orders is one in which certain u come before certain v, for the one
/// that comes last of the u.
#[derive(Clone, Debug)]
struct Weights {
    side: usize,
    table: Vec<f64>,
}

impl Weights {
    /// For u + v up to `longest`.
    fn new(longest: usize) -> Weights {
        let side = longest + 1;
        let mut table = vec![0.0; side * side];
        for v in 0..side {
            let mut weight = 1.0 / (v + 1) as f64;
            for u in 1..side {
                table[u * side + v] = weight;
                weight *= u as f64 / (u + v + 1) as f64;
            }
        }
        Weights { side, table }
    }

    fn of(&self, u: usize, v: usize) -> f64 {
        self.table[u * self.side + v]
    }
}

/// One row's walk over the leaves that mixed rows reach.
struct Walk<'a> {
    steps: &'a [Step],
    weights: &'a Weights,
    row: &'a [f32],
    baseline: &'a [f32],
    taken: &'a mut [Taken],
    effects: &'a mut [f64],
    /// Nodes that may still be visited.
    left: usize,
}

impl Walk<'_> {
    /// Walks below `at`, having taken so many features from the row and so many from the baseline. Gives what the leaves there
    /// add to the effect of each feature taken from the row, and of each taken from the baseline.
    fn below(&mut self, mut at: u32, from_row: usize, from_baseline: usize) -> (f64, f64) {
        loop {
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                return (0.0, 0.0);
            }
            let step = self.steps[at as usize];
            let feature = match step {
                Step::Leaf(value) => {
                    let of_row = if from_row > 0 { value * self.weights.of(from_row, from_baseline) } else { 0.0 };
                    let of_baseline =
                        if from_baseline > 0 { -value * self.weights.of(from_baseline, from_row) } else { 0.0 };
                    return (of_row, of_baseline);
                }
                Step::Branch { feature, .. } => feature as usize,
            };
            let (rows_way, baselines_way) = (step.next(self.row), step.next(self.baseline));
            at = match self.taken[feature] {
                _ if rows_way == baselines_way => rows_way,
                Taken::FromRow => rows_way,
                Taken::FromBaseline => baselines_way,
                Taken::Undecided => {
                    self.taken[feature] = Taken::FromRow;
                    let right = self.below(rows_way, from_row + 1, from_baseline);
                    self.taken[feature] = Taken::FromBaseline;
                    let left = self.below(baselines_way, from_row, from_baseline + 1);
                    self.taken[feature] = Taken::Undecided;
                    self.effects[feature] += right.0 + left.1;
                    return (right.0 + left.0, right.1 + left.1);
                }
            };
        }
    }
}
