//! Compares by looking up: what a column's bytes are compared with is put together from two halves of four bits.
//!
//! ```text
//!  code > bin   ⇔   high > bin's high   or   high = bin's high and low > bin's low
//! ```
//!
//! For each column and block, 48 lines are filled once: which rows have a high half above, or equal to, each of 16 values, and which
//! have a low half above it. Then a compare of all rows of a block is three loads and one or two operations, where comparing the bytes
//! themselves takes eight compares, each with a move of its mask to memory. That pays where a column is compared often.

use super::planes::Bits;
use super::{Compare, Program};
use crate::quantise::BIAS;

/// Values of half a byte.
const HALF: usize = 16;

/// A column's lines: above each value of the high half, equal to it, above each value of the low half.
pub(crate) type Table<Line> = [Line; 3 * HALF];

/// Compares per column from which on tables pay: to fill one takes as long as some thirty compares of the bytes.
const LEAST_COMPARES: usize = 64;

/// Room for the tables by which full blocks of `program` are compared, one for each column; none where they do not pay.
pub(crate) fn of<B: Bits<Line>, Line: Copy>(program: &Program) -> Vec<Table<Line>> {
    let columns = program.quantiser.columns;
    let pays = program.compares.len() >= LEAST_COMPARES * columns;
    vec![[B::ZERO; 3 * HALF]; if pays { columns } else { 0 }]
}

/// Fills a column's table from the bits of its codes, the lowest first.
#[inline(always)]
pub(crate) fn fill<B: Bits<Line>, Line: Copy>(bits: &[Line; 8], table: &mut Table<Line>) {
    let (low, high) = bits.split_at(HALF / 4);
    let (above_high, rest) = table.split_at_mut(HALF);
    let (equal_high, above_low) = rest.split_at_mut(HALF);
    equal::<B, Line>(high, equal_high);
    above::<B, Line>(equal_high, above_high);
    let mut equal_low = [B::ZERO; HALF];
    equal::<B, Line>(low, &mut equal_low);
    above::<B, Line>(&equal_low, above_low);
}

/// Where four bits make each value.
#[inline(always)]
fn equal<B: Bits<Line>, Line: Copy>(bits: &[Line], lines: &mut [Line]) {
    let ones = B::load(&B::ONES);
    let [a, b, c, d] = [0, 1, 2, 3].map(|bit| B::load(&bits[bit]));
    let pairs = |one: B, two: B| {
        let (not_one, not_two) = (ones.without(one), ones.without(two));
        [not_one.and(not_two), one.and(not_two), not_one.and(two), one.and(two)]
    };
    let (lower, upper) = (pairs(a, b), pairs(c, d));
    for (value, line) in lines[..HALF].iter_mut().enumerate() {
        lower[value % 4].and(upper[value / 4]).store(line);
    }
}

/// Above a value is what is equal to the next one, or above that.
#[inline(always)]
fn above<B: Bits<Line>, Line: Copy>(equal: &[Line], lines: &mut [Line]) {
    let mut above = B::load(&B::ZERO);
    for value in (0..HALF).rev() {
        above.store(&mut lines[value]);
        above = above.or(B::load(&equal[value]));
    }
}

/// The masks of a tree's compares.
#[inline(always)]
pub(crate) fn compare<B: Bits<Line>, Line: Copy>(compares: &[Compare], tables: &[Table<Line>], masks: &mut [Line]) {
    for (compare, mask) in compares.iter().zip(masks) {
        let table = &tables[compare.column as usize];
        let bin = usize::from(compare.bins as u8 ^ BIAS);
        let (high, low) = (bin / HALF, bin % HALF);
        let (above, equal) = (B::load(&table[high]), B::load(&table[HALF + high]));
        above.or_both(equal, B::load(&table[2 * HALF + low])).store(mask);
    }
}
