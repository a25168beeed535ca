//! Trees as records to step through, eight bytes a node: what the portable and the gather method read.
//!
//! ```text
//!  record of a branch   bound │ way to its left child · column of keys     next = at + way + (key[column] >= bound)
//!  record of a leaf     weight's bits │ 0 · column 0                       key[0] is below everything: stays where it is
//! ```
//!
//! Siblings are neighbours, so a step needs no choice between two indices, and a leaf leads to itself, so rows that arrive early
//! just wait. Rows are turned into keys first (see [`crate::key`]): a column for each feature that is tested, or two where some
//! nodes send missing values left and others right. A tree whose leaves carry several weights holds the leaf's number in place
//! of the weight.

use std::collections::HashMap;

use crate::ensemble::Aggregate;
use crate::kernel::Unsupported;
use crate::key::{MISSING_HIGH, MISSING_LOW, key_or};
use crate::plan::{Link, Plan, PlanTree};

/// Lowest bits of a link: they hold the column, the others the way.
pub(crate) const COLUMN_BITS: u32 = 13;
/// The column's part of a link.
pub(crate) const COLUMN_MASK: i32 = (1 << COLUMN_BITS) - 1;
/// Records that may be read from a root on at once: those of its upper four levels, and more.
pub(crate) const TOP: usize = 16;
/// Most records of a tree, so that every way between two of them fits beside the column, with its sign.
const RECORDS: usize = 1 << (31 - COLUMN_BITS);

/// A node: see the module.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Record {
    pub bound: i32,
    pub link: i32,
}

impl Record {
    const LEAF: Record = Record { bound: 0, link: 0 };

    fn branch(bound: i32, at: usize, pair: usize, column: u32) -> Record {
        Record { bound, link: (pair as i32 - at as i32) << COLUMN_BITS | column as i32 }
    }

    /// The node to which a row goes on from here, at `at`, with the key of the record's column.
    #[inline(always)]
    pub fn next(self, at: u32, key: i32) -> u32 {
        at.wrapping_add_signed(self.link >> COLUMN_BITS).wrapping_add((key >= self.bound) as u32)
    }

    /// Which of a row's keys it looks at.
    #[inline(always)]
    pub fn column(self) -> usize {
        (self.link & COLUMN_MASK) as usize
    }
}

/// A tree among the records.
#[derive(Clone, Debug)]
pub(crate) struct WalkTree {
    /// Index of its root.
    pub root: u32,
    /// Steps after which no row can be at a branch.
    pub depth: u32,
    /// Steps before which no row can be at a leaf.
    pub shallow: u32,
    /// What its leaves hold.
    pub payload: Payload,
}

/// What the leaves of a tree hold.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// The weight itself, all for one output.
    Weight { output: u32 },
    /// The leaf's number: its weights for `outputs` are at `start + number * outputs.len()`.
    Numbers { outputs: Vec<u32>, start: usize },
    /// The leaf's number among `Walk::listed`, for smallest and largest weights.
    Listed,
}

/// An ensemble as records.
///
/// Holds, for every record: where its way leads and the record after that are among the records (of a leaf, itself), its column is
/// below `stride`, and its key 0 is below its bound if it is a leaf; each tree's root is among the records, and each leaf's
/// number inside its weights. The methods' unchecked reads rest on this.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    pub width: usize,
    /// Keys per row.
    pub stride: usize,
    /// Feature of each column from 1 on, and the key of a missing value there.
    columns: Vec<(u32, i32)>,
    pub records: Vec<Record>,
    pub trees: Vec<WalkTree>,
    pub weights: Vec<f32>,
    pub listed: Vec<Vec<(u32, f32)>>,
}

impl Walk {
    /// Lays out `plan`.
    pub fn of(plan: &Plan) -> Result<Walk, Unsupported> {
        let mut walk = Walk {
            width: plan.width,
            stride: 1,
            columns: Vec::new(),
            records: Vec::new(),
            trees: Vec::new(),
            weights: Vec::new(),
            listed: Vec::new(),
        };
        let mut columns = HashMap::new();
        for tree in &plan.trees {
            let payload = match (plan.aggregate, tree.outputs()) {
                (Aggregate::Min | Aggregate::Max, _) => Payload::Listed,
                (_, outputs) if outputs.is_empty() => continue, // adds nothing
                (_, outputs) if outputs.len() == 1 => Payload::Weight { output: outputs[0] },
                (_, outputs) => Payload::Numbers { outputs, start: walk.weights.len() },
            };
            walk.add(tree, payload, &mut columns)?;
        }
        walk.stride = walk.columns.len() + 1;
        walk.records.extend([Record::LEAF; TOP]);
        Ok(walk)
    }

    fn add(
        &mut self,
        tree: &PlanTree,
        payload: Payload,
        columns: &mut HashMap<(u32, bool), u32>,
    ) -> Result<(), Unsupported> {
        let leaf_payload = |leaf: u32| match &payload {
            Payload::Weight { output } => tree.weight(leaf, *output).to_bits() as i32,
            Payload::Numbers { .. } => leaf as i32,
            Payload::Listed => (self.listed.len() + leaf as usize) as i32,
        };
        // A branch with an upper bound takes two steps. Either way the branch's children are laid out once, however many links
        // lead to the branch: only its own record is written at each of them.
        let mut records = vec![Record::LEAF];
        let mut pairs = vec![None; tree.branches.len() * 2];
        let mut waiting = std::collections::VecDeque::from([(0usize, Target::Link(tree.root))]);
        let mut column = |feature: u32, high: bool| {
            *columns.entry((feature, high)).or_insert_with(|| {
                self.columns.push((feature, if high { MISSING_HIGH } else { MISSING_LOW }));
                self.columns.len() as u32
            })
        };
        while let Some((at, target)) = waiting.pop_front() {
            let (index, second) = match target {
                Target::Link(Link::Leaf(leaf)) => {
                    records[at] = Record { bound: leaf_payload(leaf), ..Record::LEAF };
                    continue;
                }
                Target::Link(Link::Branch(index)) => (index, false),
                Target::Upper(index) => (index, true),
            };
            let branch = &tree.branches[index as usize];
            let (bound, high) = branch.test.bounds().nth(second as usize).unwrap_or((branch.test.lower, false));
            let pair = *pairs[index as usize * 2 + second as usize].get_or_insert_with(|| {
                let pair = records.len();
                records.extend([Record::LEAF; 2]);
                let (left, right) = match (second, branch.test.upper) {
                    (false, None) => (Target::Link(branch.left), Target::Link(branch.right)),
                    (false, Some(_)) => (Target::Link(branch.left), Target::Upper(index)),
                    (true, _) => (Target::Link(branch.right), Target::Link(branch.left)),
                };
                waiting.extend([(pair, left), (pair + 1, right)]);
                pair
            });
            records[at] = Record::branch(bound, at, pair, column(branch.test.feature, high));
            if records.len() > RECORDS {
                return Err(Unsupported(format!("a tree has more than {RECORDS} nodes")));
            }
        }
        if self.columns.len() > COLUMN_MASK as usize {
            return Err(Unsupported("trees test more than 8,191 features".into()));
        }
        match &payload {
            Payload::Weight { .. } => {}
            Payload::Numbers { outputs, .. } => {
                let leaves = 0..tree.leaves.len() as u32;
                let weights = leaves.flat_map(|leaf| outputs.iter().map(move |&output| tree.weight(leaf, output)));
                self.weights.extend(weights);
            }
            Payload::Listed => self.listed.extend_from_slice(&tree.leaves),
        }
        let (shallow, depth) = steps(tree);
        let root = self.records.len() as u32;
        self.records.extend(records);
        if self.records.len() > i32::MAX as usize / 8 {
            return Err(Unsupported("the trees have too many nodes altogether".into()));
        }
        self.trees.push(WalkTree { root, depth, shallow, payload });
        Ok(())
    }

    /// The keys of `rows`, [`Walk::stride`] for each.
    pub fn keys(&self, rows: &[f32], keys: &mut Vec<i32>) {
        keys.clear();
        for row in rows.chunks_exact(self.width) {
            keys.push(i32::MIN);
            keys.extend(self.columns.iter().map(|&(feature, missing)| key_or(row[feature as usize], missing)));
        }
    }
}

enum Target {
    Link(Link),
    /// The second bound of a branch.
    Upper(u32),
}

/// The fewest and the most steps to a leaf.
fn steps(tree: &PlanTree) -> (u32, u32) {
    let mut heights = vec![(0u32, 0u32); tree.branches.len()];
    let of = |link: Link, heights: &[(u32, u32)]| match link {
        Link::Branch(index) => heights[index as usize],
        Link::Leaf(_) => (0, 0),
    };
    // Links go to higher indices.
    for (index, branch) in tree.branches.iter().enumerate().rev() {
        let ((left_least, left_most), (right_least, right_most)) =
            (of(branch.left, &heights), of(branch.right, &heights));
        // Where there are two bounds, the left child is one step away from the first and two from the second.
        let second = branch.test.upper.is_some() as u32;
        heights[index] = (left_least.min(right_least + second) + 1, left_most.max(right_most) + second + 1);
    }
    of(tree.root, &heights)
}
