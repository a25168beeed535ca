//! What a row costs by each method, so that the shape of an ensemble decides which is used, and from how many rows on.
//!
//! The figures were measured on one processor (Intel, 2023, AVX-512 and AVX2 alike) and are rounded. Others differ, but less so in
//! the ratios, which are all that is used; a choice near the break-even costs little either way. Only gathers differ too much
//! between processors, so they are tried out ([`crate::trial`]).

use crate::bitsliced::{Program, Shape, WORDS};
use crate::walk::Walk;

/// Nanoseconds of the portable method per step of a row; some of the steps may be saved where leaves are high.
const STEP: f64 = 0.9;
/// What gathers, where they pay, take of that.
const GATHERED: f64 = 0.6;

/// Nanoseconds per row by stepping from node to node.
pub(crate) fn walk(walk: &Walk) -> f64 {
    // Rows step together, so one that goes deep holds up the others: nearer the greatest depth than the least.
    let steps = |least: u32, most: u32| f64::from(2 * most + least) / 3.0;
    // Turning a value into a key costs about as much as a step.
    STEP * (walk.stride as f64 + walk.trees.iter().map(|tree| steps(tree.shallow, tree.depth)).sum::<f64>())
}

/// Nanoseconds of the bit-sliced method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sliced {
    /// For a block, however many words it has.
    block: f64,
    /// For each word: the smallest number of rows.
    word: f64,
}

impl Sliced {
    /// What `program` costs.
    pub fn of(program: &Program) -> Sliced {
        let columns = program.quantiser.columns as f64;
        let mut cost = Sliced { block: 0.0, word: 30.0 * columns };
        for tree in &program.trees {
            let compares = tree.compared as f64;
            cost.word += 0.25 * compares + 12.0 * tree.outputs.len() as f64;
            cost.block += 15.0 + compares * if matches!(tree.shape, Shape::Free { .. }) { 2.4 } else { 0.3 };
        }
        cost
    }

    /// Fewest rows for which a block, filled up to a whole number of words of `rows` each, is worth more than walking with
    /// `walk` nanoseconds per row; none if even a full block is not.
    pub fn worth_filling(&self, rows: usize, walk: f64) -> Option<usize> {
        let block = |count: usize| self.block + self.word * count.div_ceil(rows) as f64;
        (1..=WORDS * rows).find(|&count| block(count) <= walk * count as f64)
    }

    /// Whether full blocks, of words of `rows` each, are quicker than even gathers can be.
    pub fn beats_gathers(&self, rows: usize, walk: f64) -> bool {
        self.block + self.word * (WORDS as f64) < GATHERED * walk * (WORDS * rows) as f64
    }
}
