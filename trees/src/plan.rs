//! The ensemble in the one form that every method is built from: one kind of test, checked indices.
//!
//! ```text
//!  Ensemble ─► Plan ─┬─► Walk (records to step through)      ─► portable, gather
//!                    └─► Program (compares, shapes, leaves)  ─► bit-sliced
//! ```
//!
//! A [`Test`] sends a row right where `lower <= key` (and `key < upper`, for `==` and `!=`), else left; the six comparisons
//! become this by swapping children and moving the bound by one (see [`crate::key`]).

use crate::ensemble::{Aggregate, Comparison, Ensemble, Node};
use crate::kernel::Unsupported;
use crate::key::{ABOVE_ALL, key};

/// An ensemble with every index checked and every comparison in one form.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub width: usize,
    pub outputs: usize,
    pub aggregate: Aggregate,
    pub base_values: Vec<f32>,
    pub trees: Vec<PlanTree>,
}

/// A tree: links go to higher indices only. Two links may meet in one branch.
#[derive(Clone, Debug)]
pub(crate) struct PlanTree {
    pub root: Link,
    pub branches: Vec<Branch>,
    pub leaves: Vec<Vec<(u32, f32)>>,
}

/// Where a step leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Branch(u32),
    Leaf(u32),
}

/// A test and its two ways on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Branch {
    pub test: Test,
    pub left: Link,
    pub right: Link,
}

/// Right where `lower <= key < upper` (no `upper`: no limit) or where the value is missing and `missing_right`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Test {
    pub feature: u32,
    pub lower: i32,
    pub upper: Option<i32>,
    pub missing_right: bool,
}

impl Test {
    /// The bounds to compare with, each with where it must see missing values (`true`: at or above the bound).
    ///
    /// Inside an interval means at or above the lower bound and below the upper one, so a missing value that goes right looks
    /// high to the first and low to the second.
    pub fn bounds(&self) -> impl Iterator<Item = (i32, bool)> {
        [Some((self.lower, self.missing_right)), self.upper.map(|upper| (upper, false))].into_iter().flatten()
    }
}

impl Plan {
    /// Checks and rewrites `ensemble`.
    pub fn of(ensemble: &Ensemble) -> Result<Plan, Unsupported> {
        let unsupported = |why: &str| Err(Unsupported(why.into()));
        // 16 rows' distance must fit the 32-bit indices of a gather with room to spare.
        if ensemble.width == 0 || ensemble.width > 1 << 24 {
            return unsupported("an ensemble needs between 1 and 2^24 features");
        }
        if ensemble.outputs == 0 || ensemble.base_values.len() != ensemble.outputs {
            return unsupported("an ensemble needs at least one output, and as many base values");
        }
        let trees = ensemble.trees.iter().enumerate().map(|(number, tree)| {
            plan_tree(&tree.nodes, ensemble).map_err(|why| Unsupported(format!("tree {number}: {why}")))
        });
        Ok(Plan {
            width: ensemble.width,
            outputs: ensemble.outputs,
            aggregate: ensemble.aggregate,
            base_values: ensemble.base_values.clone(),
            trees: trees.collect::<Result<_, _>>()?,
        })
    }
}

impl PlanTree {
    /// The outputs that its leaves mention, ascending.
    pub fn outputs(&self) -> Vec<u32> {
        let mut outputs: Vec<u32> = self.leaves.iter().flatten().map(|&(output, _)| output).collect();
        outputs.sort_unstable();
        outputs.dedup();
        outputs
    }

    /// The weight that `leaf` gives `output`: 0 if it does not mention it.
    ///
    /// Adding this 0 changes nothing: a sum that starts at 0.0 is never -0.0. For the same reason -0.0 may become 0.0, which
    /// leaves the bits of -0.0 (the smallest key) free for other uses.
    pub fn weight(&self, leaf: u32, output: u32) -> f32 {
        let weights = &self.leaves[leaf as usize];
        // Where leaves have weights for all outputs, they mostly are in order.
        let weight = match weights.get(output as usize) {
            Some(&(mentioned, weight)) if mentioned == output => weight,
            _ => weights.iter().find(|&&(mentioned, _)| mentioned == output).map_or(0.0, |&(_, weight)| weight),
        };
        if weight == 0.0 { 0.0 } else { weight }
    }
}

fn plan_tree(nodes: &[Node], ensemble: &Ensemble) -> Result<PlanTree, String> {
    if nodes.is_empty() || nodes.len() >= u32::MAX as usize / 4 {
        return Err("no nodes, or too many".into());
    }
    // From the last node to the first, so that the links of a node's children are known (a test that is always false or always
    // true disappears, and its child stands for it).
    let mut links = vec![Link::Leaf(0); nodes.len()];
    let (mut branches, mut leaves) = (Vec::new(), Vec::new());
    // The last leaf that mentioned each output.
    let mut mentioned = vec![None; ensemble.outputs];
    for (at, node) in nodes.iter().enumerate().rev() {
        links[at] = match node {
            Node::Leaf { weights } => {
                for &(output, _) in weights {
                    match mentioned.get_mut(output as usize) {
                        None => return Err(format!("node {at} adds to output {output} of {}", ensemble.outputs)),
                        Some(last) if *last == Some(at) => {
                            return Err(format!("node {at} adds to output {output} twice"));
                        }
                        Some(last) => *last = Some(at),
                    }
                }
                leaves.push(weights.clone());
                Link::Leaf(leaves.len() as u32 - 1)
            }
            &Node::Branch { feature, comparison, threshold, missing_tracks_true, on_true, on_false } => {
                if feature as usize >= ensemble.width {
                    return Err(format!("node {at} reads feature {feature} of {}", ensemble.width));
                }
                let child = |index: u32| match links.get(index as usize) {
                    Some(link) if index as usize > at => Ok(*link),
                    _ => Err(format!("node {at} leads to node {index}")),
                };
                let (on_true, on_false) = (child(on_true)?, child(on_false)?);
                match rewrite(feature, comparison, threshold, missing_tracks_true, on_true, on_false) {
                    Rewritten::Always(link) => link,
                    Rewritten::Branch(branch) => {
                        branches.push(branch);
                        Link::Branch(branches.len() as u32 - 1)
                    }
                }
            }
        };
    }
    // Children came first; turned round, parents do.
    let last = branches.len() as u32;
    let turn = |link: Link| match link {
        Link::Branch(index) => Link::Branch(last - 1 - index),
        leaf => leaf,
    };
    branches.reverse();
    for branch in &mut branches {
        (branch.left, branch.right) = (turn(branch.left), turn(branch.right));
    }
    Ok(PlanTree { root: turn(links[0]), branches, leaves })
}

enum Rewritten {
    Always(Link),
    Branch(Branch),
}

fn rewrite(feature: u32, comparison: Comparison, threshold: f32, missing_true: bool, yes: Link, no: Link) -> Rewritten {
    let branch = |lower, upper, missing_right, left, right| {
        Rewritten::Branch(Branch { test: Test { feature, lower, upper, missing_right }, left, right })
    };
    if threshold.is_nan() {
        // Nothing compares with NaN: all numbers go one way.
        return match comparison {
            Comparison::NotEqual => Rewritten::Always(yes),
            _ if missing_true => branch(ABOVE_ALL, None, true, no, yes),
            _ => Rewritten::Always(no),
        };
    }
    let bound = key(threshold);
    match comparison {
        Comparison::Less => branch(bound, None, !missing_true, yes, no),
        Comparison::LessOrEqual => branch(bound + 1, None, !missing_true, yes, no),
        Comparison::GreaterOrEqual => branch(bound, None, missing_true, no, yes),
        Comparison::Greater => branch(bound + 1, None, missing_true, no, yes),
        Comparison::Equal => branch(bound, Some(bound + 1), missing_true, no, yes),
        // NaN differs from everything, so it goes to `yes` whatever the flag says.
        Comparison::NotEqual => branch(bound, Some(bound + 1), false, yes, no),
    }
}
