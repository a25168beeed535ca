//! Whether gathers pay on this processor, by trying.
//!
//! On some processors a gather is quicker than as many loads, on others it is several times slower (microcode updates against
//! data sampling made it so), and none says which. So made-up rows go through the trees both ways. Both ways give the same
//! numbers: only the time depends on the outcome.

use std::time::{Duration, Instant};

use crate::plan::Plan;
use crate::portable;
use crate::walk::Walk;

/// Each way is timed so often, in turn, and the quickest counts: the others were disturbed.
const TIMES: usize = 7;

/// Whether `gathered` takes less time than the portable method, by a margin that a choice should have.
pub(crate) fn pays(plan: &Plan, walk: &Walk, gathered: impl Fn(&[f32], &mut [f32], &mut portable::Scratch)) -> bool {
    let rows = rows(plan);
    let mut sums = vec![0.0; portable::BLOCK * plan.outputs];
    let mut scratch = portable::Scratch::default();
    let mut quickest = [Duration::MAX; 2];
    for _ in 0..TIMES {
        let start = Instant::now();
        portable::add(walk, plan.outputs, &rows, &mut sums, &mut scratch);
        let between = Instant::now();
        gathered(&rows, &mut sums, &mut scratch);
        quickest = [quickest[0].min(between - start), quickest[1].min(between.elapsed())];
    }
    quickest[1] * 10 < quickest[0] * 9
}

/// A block of rows of values that the trees compare with, so that they go many ways.
fn rows(plan: &Plan) -> Vec<f32> {
    let mut rows = vec![0.0; portable::BLOCK * plan.width];
    let tests = plan.trees.iter().flat_map(|tree| &tree.branches).map(|branch| &branch.test);
    for (count, test) in tests.enumerate() {
        // Rows in an order that meets all of them and looks like none.
        let row = count.wrapping_mul(0x9e37_79b9) >> 7;
        rows[row % portable::BLOCK * plan.width + test.feature as usize] = number(test.lower);
    }
    rows
}

/// The number that has this key, for a number's key.
fn number(key: i32) -> f32 {
    f32::from_bits(if key >= 0 { key } else { i32::MIN.wrapping_sub(key) } as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key;

    #[test]
    fn a_number_comes_back_from_its_key() {
        for value in [0.0, 1.5, -1.5, 1e-45, -1e-45, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(number(key(value)), value);
        }
    }
}
