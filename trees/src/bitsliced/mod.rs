//! The bit-sliced method: hundreds of rows at a time, a bit for each.
//!
//! ```text
//!  rows ─► codes (bytes, a column per feature) ─► masks: a bit per row for each node, 1 where the row would go right
//!       ─► planes: the bits of the number of the leaf that each row ends in ─► weights, picked from registers ─► sums
//! ```
//!
//! Every node of a tree is compared for every row, needed or not: a byte compare handles 32 or 64 rows at once, or a full block is
//! looked up in tables ([`tables`]), and there is no branch to mispredict and no address to wait for. That all nodes may be
//! tested first, in any order, and the leaf be found with bit operations is the idea of QuickScorer (Lucchese et al., SIGIR 2015) and, with rows side by side in vector registers, of
//! RapidScorer (Ye et al., KDD 2018). Here the bits of many rows lie side by side (the masks are bit-sliced), so that the walk
//! from the root becomes a choice between masks by masks, 256 or 512 rows an instruction.
//!
//! How the planes come from the masks depends on the tree's [`Shape`].

use crate::ensemble::Aggregate;
use crate::plan::{Link, Plan, PlanTree, Test};
use crate::quantise::{BIAS, Quantiser};

pub(crate) mod avx2;
pub(crate) mod avx512;
mod planes;
mod tables;

/// Most leaves of a tree: their numbers are bytes.
pub(crate) const LEAVES: usize = 256;
/// Words of rows in a full block; a word is as many as one byte compare handles.
pub(crate) const WORDS: usize = 8;
/// Most bits of a leaf's number.
pub(crate) const BITS: usize = 8;
/// Deepest tree that is filled up to a complete one.
const COMPLETE_DEPTH: usize = 6;

/// An ensemble as compares, shapes and leaves.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub width: usize,
    pub outputs: usize,
    pub quantiser: Quantiser,
    /// The compares of all trees, for blocks without missing values.
    pub compares: Vec<Compare>,
    /// The same for blocks where a value is missing and the nodes' directions differ; empty if they never do.
    pub compares_with_missing: Vec<Compare>,
    pub trees: Vec<SlicedTree>,
    /// Weights of all leaves: see [`SlicedTree::weights`].
    pub weights: Vec<f32>,
}

/// `codes[column] > bin`, for every row of a block; both moved down by [`BIAS`], since AVX2 compares signed bytes only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Compare {
    pub column: u32,
    /// The bin in each of the four bytes.
    pub bins: u32,
}

/// A tree among the compares.
#[derive(Clone, Debug)]
pub(crate) struct SlicedTree {
    pub shape: Shape,
    /// Bits of a leaf's number, 1 to 8.
    pub bits: usize,
    /// Index of its first compare, and how many there are: as many as the shape says, then one for each of `within`.
    pub compares: usize,
    pub compared: usize,
    /// Masks to be cleared where the mask of a further compare is set: a node that asks for a value between two bounds.
    pub within: Vec<u16>,
    /// Outputs its leaves have weights for.
    pub outputs: Vec<u32>,
    /// Index of its weights: for each output `2^bits`, rounded up to 16 at least.
    pub weights: usize,
}

/// How the masks of a tree become the bits of a leaf's number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// All nodes of a level ask the same (CatBoost's trees): the masks are the bits, the highest first.
    Oblivious,
    /// A complete tree, filled up where leaves are higher, level by level: bit by bit, the masks of a level are chosen from by
    /// the bits so far.
    Complete,
    /// Any tree, a step for each branch, parents first: who reaches a branch goes on to its left or its right child, and a bit
    /// of the leaf's number is set where a leaf is reached whose number has it.
    Free { steps: Vec<Step>, leaves: usize },
}

/// A branch of a free tree. It finds who reaches it among the lines of memory that its parents wrote, and writes who reaches its
/// children. Lines are used again, to stay in the first-level cache:
///
/// ```text
///  0 ..  who reaches a branch that is still to come │ FIRST_LEAF ..  who reaches each leaf
///                                                   │ FIRST_MASK ..  the masks (one line on)
/// ```
///
/// Before a branch there are at most as many leaves as branches, so a leaf only overwrites masks that were looked at already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub here: u16,
    pub left: u16,
    pub right: u16,
}

/// Most branches that are reached, but still to come: each has another branch or leaf before it.
const PENDING: usize = LEAVES / 2;
/// The line of the first leaf.
pub(crate) const FIRST_LEAF: usize = PENDING;
/// The line of the first mask.
pub(crate) const FIRST_MASK: usize = FIRST_LEAF + 1;
/// Lines of memory for a tree: masks may be followed by as many second ones (see [`SlicedTree::within`]).
pub(crate) const LINES: usize = FIRST_MASK + 2 * LEAVES;

impl SlicedTree {
    /// Places of its leaves' weights for one output.
    pub fn places(&self) -> usize {
        (1 << self.bits).max(16)
    }
}

impl Program {
    /// Compiles `plan`, if every tree is small enough and weights are summed.
    pub fn of(plan: &Plan) -> Option<Program> {
        if !matches!(plan.aggregate, Aggregate::Sum | Aggregate::Average) {
            return None;
        }
        let mut program = Program {
            width: plan.width,
            outputs: plan.outputs,
            quantiser: Quantiser::of(plan),
            compares: Vec::new(),
            compares_with_missing: Vec::new(),
            trees: Vec::new(),
            weights: Vec::new(),
        };
        if program.quantiser.columns > u32::MAX as usize / 2 {
            return None;
        }
        for tree in &plan.trees {
            let outputs = tree.outputs();
            if !outputs.is_empty() {
                program.add(tree, outputs)?;
            }
        }
        if program.quantiser.features.iter().all(|feature| feature.high_column.is_none()) {
            program.compares_with_missing = Vec::new();
        }
        Some(program)
    }

    fn add(&mut self, tree: &PlanTree, outputs: Vec<u32>) -> Option<()> {
        let expanded = Expanded::of(tree)?;
        let (shape, tests, leaves) = expanded.shape();
        let compares = self.compares.len();
        let mut within = Vec::new();
        let mut further = Vec::new();
        for (node, test) in tests.iter().enumerate() {
            let Some(test) = test else {
                // Filling: nothing goes right.
                self.compare(0, 0, u8::MAX);
                continue;
            };
            let mut places = test.bounds().map(|(bound, high)| self.quantiser.place(test.feature, bound, high));
            let place = places.next()??;
            if let Some(second) = places.next() {
                within.push(node as u16);
                further.push(second?);
            }
            drop(places);
            self.compare(place.column, place.column_with_missing, place.bin);
        }
        for place in further {
            self.compare(place.column, place.column_with_missing, place.bin);
        }
        let bits = leaves.len().next_power_of_two().trailing_zeros().max(1) as usize;
        let sliced = SlicedTree {
            shape,
            bits,
            compares,
            compared: self.compares.len() - compares,
            within,
            outputs,
            weights: self.weights.len(),
        };
        for &output in &sliced.outputs {
            let weights = leaves.iter().map(|&leaf| tree.weight(leaf, output));
            self.weights.extend(weights.chain(std::iter::repeat(0.0)).take(sliced.places()));
        }
        self.trees.push(sliced);
        Some(())
    }

    fn compare(&mut self, column: usize, with_missing: usize, bin: u8) {
        let bins = u32::from_ne_bytes([bin ^ BIAS; 4]);
        self.compares.push(Compare { column: column as u32, bins });
        self.compares_with_missing.push(Compare { column: with_missing as u32, bins });
    }
}

/// Of `count` rows, in words of `word`: the words of the first block (1, 2, 4 or 8). A block costs about as much as a word of it:
/// so one that is filled up is better than a smaller one and then another, but not if half of it would be filling.
fn first_block(count: usize, word: usize) -> usize {
    match count.div_ceil(word) {
        0 | 1 => 1,
        2 => 2,
        3..7 => 4,
        _ => 8,
    }
}

/// A tree whose links do not meet: branches in an order where parents come first.
struct Expanded {
    tests: Vec<Test>,
    /// Left and right.
    children: Vec<[Link; 2]>,
    /// Leaves of the tree, by their place from left to right.
    leaves: Vec<u32>,
    depth: usize,
}

impl Expanded {
    fn of(tree: &PlanTree) -> Option<Expanded> {
        let mut expanded = Expanded { tests: Vec::new(), children: Vec::new(), leaves: Vec::new(), depth: 0 };
        // Where the link to be followed is noted (a branch and its side), and how deep it is.
        let mut waiting = vec![(tree.root, None, 0)];
        while let Some((link, from, depth)) = waiting.pop() {
            let to = match link {
                Link::Leaf(leaf) => {
                    expanded.leaves.push(leaf);
                    Link::Leaf(expanded.leaves.len() as u32 - 1)
                }
                Link::Branch(index) => {
                    let (at, branch) = (expanded.tests.len(), &tree.branches[index as usize]);
                    expanded.tests.push(branch.test);
                    expanded.children.push([Link::Leaf(0); 2]);
                    waiting.push((branch.right, Some((at, 1)), depth + 1));
                    waiting.push((branch.left, Some((at, 0)), depth + 1));
                    Link::Branch(at as u32)
                }
            };
            if let Some((parent, side)) = from {
                expanded.children[parent][side] = to;
            }
            expanded.depth = expanded.depth.max(depth);
            if expanded.tests.len() >= LEAVES {
                return None;
            }
        }
        Some(expanded)
    }

    /// The cheapest shape, its tests in order (none: filling) and its leaves in order.
    fn shape(self) -> (Shape, Vec<Option<Test>>, Vec<u32>) {
        let root = if self.tests.is_empty() { Link::Leaf(0) } else { Link::Branch(0) };
        if self.depth <= BITS {
            let depth = self.depth.max(1);
            let mut tests = vec![None; (1 << depth) - 1];
            let mut leaves = vec![0; 1 << depth];
            self.fill(root, 0, depth, &mut tests, &mut leaves);
            let levels: Vec<&[Option<Test>]> =
                (0..depth).map(|level| &tests[(1 << level) - 1..(2 << level) - 1]).collect();
            if levels.iter().all(|level| level[0].is_some() && level.iter().all(|test| test == &level[0])) {
                return (Shape::Oblivious, levels.iter().map(|level| level[0]).collect(), leaves);
            }
            // A node of a free tree costs about half more than one of a complete tree.
            if depth <= COMPLETE_DEPTH && tests.len() * 2 <= self.tests.len() * 3 {
                return (Shape::Complete, tests, leaves);
            }
        }
        if self.tests.is_empty() {
            return (Shape::Complete, vec![None], vec![self.leaves[0]; 2]);
        }
        let (steps, leaves) = self.steps();
        let shape = Shape::Free { steps, leaves: leaves.len() };
        (shape, self.tests.into_iter().map(Some).collect(), leaves)
    }

    /// The steps of a free tree, and its leaves in the order in which they are reached.
    fn steps(&self) -> (Vec<Step>, Vec<u32>) {
        let mut leaves = Vec::new();
        let mut free: Vec<u16> = (0..PENDING as u16).rev().collect();
        let mut lines = vec![0; self.children.len()];
        lines[0] = free.pop().unwrap_or(0);
        let steps = self.children.iter().enumerate().map(|(branch, children)| {
            let here = lines[branch];
            free.push(here);
            let [left, right] = children.map(|child| match child {
                Link::Leaf(leaf) => {
                    leaves.push(self.leaves[leaf as usize]);
                    (FIRST_LEAF + leaves.len() - 1) as u16
                }
                Link::Branch(child) => {
                    // Pending branches that are not the next one are right children of branches whose left child is one: fewer
                    // than half of all.
                    lines[child as usize] = free.pop().unwrap_or(0);
                    lines[child as usize]
                }
            });
            Step { here, left, right }
        });
        (steps.collect(), leaves)
    }

    /// Notes the tests and leaves below `link`, which stands at `place` of a complete tree with `depth` levels below it.
    fn fill(&self, link: Link, place: usize, depth: usize, tests: &mut [Option<Test>], leaves: &mut [u32]) {
        if depth == 0 {
            if let Link::Leaf(leaf) = link {
                leaves[place - tests.len()] = self.leaves[leaf as usize];
            }
            return;
        }
        let [left, right] = match link {
            Link::Leaf(_) => [link; 2],
            Link::Branch(index) => {
                tests[place] = Some(self.tests[index as usize]);
                self.children[index as usize]
            }
        };
        self.fill(left, 2 * place + 1, depth - 1, tests, leaves);
        self.fill(right, 2 * place + 2, depth - 1, tests, leaves);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ensemble::{Comparison, Ensemble, Node, Tree};

    /// A tree whose left and right sides are so deep; nodes of a level ask alike if `oblivious`.
    fn tree(left: usize, right: usize, oblivious: bool) -> Tree {
        fn add(nodes: &mut Vec<Node>, depths: (usize, usize), level: u32, oblivious: bool) -> u32 {
            let at = nodes.len() as u32;
            nodes.push(Node::Leaf { weights: vec![(0, at as f32)] });
            if depths.0 > 0 {
                let on_true = add(nodes, (depths.0 - 1, depths.0 - 1), level + 1, oblivious);
                let on_false = add(nodes, (depths.1 - 1, depths.1 - 1), level + 1, oblivious);
                nodes[at as usize] = Node::Branch {
                    feature: if oblivious { level } else { at % 8 },
                    comparison: Comparison::Less,
                    threshold: 0.5,
                    missing_tracks_true: false,
                    on_true,
                    on_false,
                };
            }
            at
        }
        let mut nodes = Vec::new();
        add(&mut nodes, (left, right), 0, oblivious);
        Tree { nodes }
    }

    fn program(tree: Tree) -> Option<Program> {
        let ensemble =
            Ensemble { width: 8, outputs: 1, trees: vec![tree], aggregate: Aggregate::Sum, base_values: vec![0.0] };
        Plan::of(&ensemble).ok().and_then(|plan| Program::of(&plan))
    }

    #[test]
    fn trees_take_the_cheapest_shape() {
        let shape = |left, right, oblivious| {
            let program = program(tree(left, right, oblivious))?;
            let shape = match program.trees[0].shape {
                Shape::Oblivious => "oblivious",
                Shape::Complete => "complete",
                Shape::Free { .. } => "free",
            };
            Some((shape, program.compares.len()))
        };
        assert_eq!(shape(0, 0, false), Some(("complete", 1)));
        assert_eq!(shape(6, 6, false), Some(("complete", 63)));
        assert_eq!(shape(6, 5, false), Some(("complete", 63)));
        assert_eq!(shape(6, 1, false), Some(("free", 32)));
        assert_eq!(shape(7, 7, false), Some(("free", 127)));
        assert_eq!(shape(8, 8, false), Some(("free", 255)));
        assert_eq!(shape(8, 8, true), Some(("oblivious", 8)));
        assert_eq!(shape(9, 8, false), None);
    }

    #[test]
    fn steps_overwrite_nothing_that_is_still_needed() {
        for (left, right) in [(1, 1), (1, 7), (7, 1), (7, 7), (8, 8), (8, 3)] {
            let Some(Program { trees, .. }) = program(tree(left, right, false)) else { panic!("too large") };
            let Shape::Free { steps, leaves } = &trees[0].shape else { continue };
            // Who reaches a line is known as soon as it was written; masks are there from the beginning.
            let mut written = [false; LINES];
            written[steps[0].here as usize] = true;
            for (branch, step) in steps.iter().enumerate() {
                assert!(std::mem::take(&mut written[step.here as usize]));
                for line in [step.left, step.right].map(usize::from) {
                    assert!(!written[line], "still needed");
                    assert!(line <= FIRST_MASK + branch, "overwrites the mask of a later branch");
                    written[line] = true;
                }
            }
            assert!(written[FIRST_LEAF..FIRST_LEAF + leaves].iter().all(|&written| written));
            assert_eq!(written.iter().filter(|&&written| written).count(), *leaves);
        }
    }
}
