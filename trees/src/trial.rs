//! Which methods suit an ensemble on this processor: a short trial when it is compiled.
//!
//! ```text
//!  time of a whole block, by row ──► the quickest bit-sliced method ─┐
//!  time of 64 rows ────────────────► the quickest way to walk ───────┴─► the fewest rows at which a block is quicker
//! ```
//!
//! Processors of one instruction set differ: on some a gather is quicker than as many loads, on others it is several times slower
//! (microcode updates against data sampling made it so), some do 512 bits at once and some in two halves, and none says which. So
//! made-up rows go through the trees by each method. All give the same numbers: only the time depends on the outcome.

use std::time::{Duration, Instant};

use crate::kernel::Method;
use crate::plan::Plan;
use crate::portable::BLOCK;

/// What is timed is timed so often at most, and the quickest counts: the others were disturbed.
const TIMES: usize = 7;

/// And no longer than this, but twice at least: large ensembles take long, and are disturbed less in proportion.
const ENOUGH: Duration = Duration::from_millis(2);

/// What a trial found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The method of blocks of rows, and the fewest rows for which one is filled up.
    pub sliced: Option<(Method, usize)>,
    /// What gathers the rest; none: the portable method takes it.
    pub gathered: Option<Method>,
}

/// Chooses among the bit-sliced methods that fit, each with the rows of its whole block, and those that gather, widest first.
/// `time`: how long a method takes for so many rows.
pub(crate) fn choose(
    sliced: &[(Method, usize)],
    gathers: &[Method],
    mut time: impl FnMut(Method, usize) -> Duration,
) -> Choice {
    let mut walks = (Method::Portable, time(Method::Portable, BLOCK));
    for &method in gathers {
        let took = time(method, BLOCK);
        if is_quicker(took, walks.1) {
            walks = (method, took);
        }
    }
    let mut quickest: Option<(Method, usize, Duration)> = None;
    for &(method, rows) in sliced {
        let took = time(method, rows) / rows as u32;
        if quickest.is_none_or(|(.., least)| is_quicker(took, least)) {
            quickest = Some((method, rows, took));
        }
    }
    let gathered = (walks.0 != Method::Portable).then_some(walks.0);
    let sliced = quickest.and_then(|(method, rows, _)| {
        let (mut loses, mut wins) = (0, rows + 1);
        while wins - loses > 1 {
            let count = usize::midpoint(loses, wins);
            if time(method, count) <= time(walks.0, count) { wins = count } else { loses = count }
        }
        (wins <= rows).then_some((method, wins))
    });
    Choice { sliced, gathered }
}

/// By a margin that a choice should have.
fn is_quicker(one: Duration, other: Duration) -> bool {
    one * 10 < other * 9
}

/// How long `run` takes.
pub(crate) fn time(mut run: impl FnMut()) -> Duration {
    let (began, mut quickest) = (Instant::now(), Duration::MAX);
    for number in 0..TIMES {
        let start = Instant::now();
        run();
        quickest = quickest.min(start.elapsed());
        if number > 0 && began.elapsed() > ENOUGH {
            break;
        }
    }
    quickest
}

/// Rows of values that the trees compare with, so that they go many ways.
pub(crate) fn rows(plan: &Plan, count: usize) -> Vec<f32> {
    let mut rows = vec![0.0; count * plan.width];
    let tests = plan.trees.iter().flat_map(|tree| &tree.branches).map(|branch| &branch.test);
    for (number_of, test) in tests.enumerate() {
        // Rows in an order that meets all of them and looks like none.
        let row = number_of.wrapping_mul(0x9e37_79b9) >> 7;
        rows[row % count * plan.width + test.feature as usize] = number(test.lower);
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

    const SLICED: [(Method, usize); 2] = [(Method::BitSlicedAvx512, 512), (Method::BitSlicedAvx2, 256)];
    const GATHERS: [Method; 2] = [Method::GatheredAvx512, Method::GatheredAvx2];

    /// Nanoseconds by method: of a block, however few rows are in it, and of each row.
    fn with(times: [(u64, u64); 5]) -> Choice {
        choose(&SLICED, &GATHERS, |method, rows| {
            let (block, row) =
                Method::ALL.iter().zip(times).find(|(one, _)| **one == method).map_or((0, 0), |(_, time)| time);
            Duration::from_nanos(block + row * rows as u64)
        })
    }

    #[test]
    fn the_quickest_on_this_processor_is_chosen() {
        let intel = with([(3_000, 120), (3_000, 250), (0, 1_000), (0, 1_200), (0, 1_100)]);
        assert_eq!(intel.sliced.map(|(method, _)| method), Some(Method::BitSlicedAvx512));
        assert_eq!(intel.gathered, None, "a tenth quicker at least");
        // 512 bits in two halves, and gathers of 16 slower than of 8.
        let halves = with([(3_000, 300), (2_000, 250), (0, 1_500), (0, 800), (0, 1_100)]);
        assert_eq!(halves.sliced.map(|(method, _)| method), Some(Method::BitSlicedAvx2));
        assert_eq!(halves.gathered, Some(Method::GatheredAvx2));
        // Of two that are alike the wider.
        let alike = with([(0, 260), (0, 250), (0, 1_000), (0, 1_000), (0, 2_000)]);
        assert_eq!(alike.sliced.map(|(method, _)| method), Some(Method::BitSlicedAvx512));
        assert_eq!(alike.gathered, Some(Method::GatheredAvx512));
    }

    #[test]
    fn a_block_is_filled_up_from_where_it_is_quicker() {
        // 3,000 + 100 n ≤ 1,100 n from three rows on; 20,000 + 100 n from twenty.
        for (block, fewest) in [(0, 1), (3_000, 3), (20_000, 20), (300_000, 300)] {
            let choice = with([(block, 100), (block, 1_000), (0, 2_000), (0, 2_000), (0, 1_100)]);
            assert_eq!(choice.sliced, Some((Method::BitSlicedAvx512, fewest)), "{block}");
        }
        let never = with([(600_000, 100), (600_000, 1_000), (0, 2_000), (0, 900), (0, 1_100)]);
        assert_eq!(never, Choice { sliced: None, gathered: Some(Method::GatheredAvx2) });
    }

    #[test]
    fn what_does_not_fit_is_not_timed() {
        let choice = choose(&[], &[], |method, _| {
            assert_eq!(method, Method::Portable);
            Duration::from_nanos(1)
        });
        assert_eq!(choice, Choice::default());
    }

    #[test]
    fn a_number_comes_back_from_its_key() {
        for value in [0.0, 1.5, -1.5, 1e-45, -1e-45, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(number(key(value)), value);
        }
    }
}
