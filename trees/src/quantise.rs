//! Values as bytes: how many of a feature's thresholds a value has reached.
//!
//! Trees that were grown on histogram bins (XGBoost's `hist`, LightGBM, CatBoost) have at most 255 distinct thresholds per
//! feature, called cuts here, so that one byte tells everything a tree may ask about a value: `key >= cuts[bin]` is `code > bin`.
//! A feature with more cuts takes several bytes, each looking through a window of 255 of them:
//!
//! ```text
//!  code   = number of cuts that the key has reached        0 ..= cuts
//!  byte w = code - 255 w, held between 0 and 255           code > bin  ⇔  byte[bin / 255] > bin % 255
//! ```
//!
//! The code is found by descending a search tree in an array (the root at 1, children of n at 2n and 2n + 1), which vector
//! registers hold for the first levels. A missing value has code 0 (left of everything) or the highest code (right of
//! everything). Where nodes differ, the feature has both kinds of columns, and a compare has two columns to choose from: one for
//! blocks where nothing is missing, one for the others.

use std::collections::BTreeMap;

use crate::key::{MISSING_HIGH, MISSING_LOW};
use crate::plan::Plan;

/// Cuts that one byte can tell apart.
pub(crate) const WINDOW: usize = 255;

/// Bytes are stored with their highest bit flipped, which turns comparing unsigned into comparing signed.
pub(crate) const BIAS: u8 = 0x80;

/// Every feature that is tested.
#[derive(Clone, Debug)]
pub(crate) struct Quantiser {
    pub features: Vec<Feature>,
    /// How many columns of bytes there are; at least one.
    pub columns: usize,
}

/// How a feature becomes columns of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Feature {
    /// Column of the row.
    pub feature: usize,
    /// Distinct bounds, ascending.
    pub cuts: Vec<i32>,
    /// Depth of the search tree, at least [`Feature::LEVELS`].
    pub levels: u32,
    /// The search tree in `2^levels` places, the first unused, padded with bounds that nothing reaches; at least
    /// [`Feature::REGISTERS`] places.
    pub search: Vec<i32>,
    /// Columns that a code takes.
    pub windows: usize,
    /// Its first column.
    pub column: usize,
    /// The key of a missing value in these columns.
    pub missing: i32,
    /// First of the columns where missing values are high, if the others have them low.
    pub high_column: Option<usize>,
}

/// Where a bound is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The column if no value of the block is missing (of those features that have two kinds of columns).
    pub column: usize,
    /// The column if some is.
    pub column_with_missing: usize,
    /// The byte that a code must exceed.
    pub bin: u8,
}

impl Feature {
    /// Least depth of a search tree: levels that are descended without asking how many there are.
    pub const LEVELS: u32 = 5;
    /// Least number of places of a search tree: what vector registers load at once.
    pub const REGISTERS: usize = 256;
}

impl Quantiser {
    /// Collects the bounds of all tests.
    pub fn of(plan: &Plan) -> Quantiser {
        let mut bounds: BTreeMap<u32, (Vec<i32>, [bool; 2])> = BTreeMap::new();
        for test in plan.trees.iter().flat_map(|tree| &tree.branches).map(|branch| &branch.test) {
            let (cuts, directions) = bounds.entry(test.feature).or_default();
            for (bound, high) in test.bounds() {
                cuts.push(bound);
                directions[high as usize] = true;
            }
        }
        let mut columns = 0;
        let features = bounds.into_iter().map(|(feature, (mut cuts, [low, high]))| {
            cuts.sort_unstable();
            cuts.dedup();
            let levels = (usize::BITS - cuts.len().leading_zeros()).max(Feature::LEVELS);
            let windows = cuts.len().div_ceil(WINDOW);
            let mut next = || {
                columns += windows;
                columns - windows
            };
            Feature {
                feature: feature as usize,
                levels,
                search: search_tree(&cuts, levels),
                cuts,
                windows,
                column: next(),
                missing: if low { MISSING_LOW } else { MISSING_HIGH },
                high_column: (low && high).then(next),
            }
        });
        let features = features.collect();
        Quantiser { features, columns: columns.max(1) }
    }

    /// Where `bound` of `feature` is looked at, missing values going right or not.
    pub fn place(&self, feature: u32, bound: i32, missing_right: bool) -> Option<Place> {
        let at = self.features.binary_search_by_key(&(feature as usize), |feature| feature.feature).ok()?;
        let feature = &self.features[at];
        let bin = feature.cuts.binary_search(&bound).ok()?;
        let with_missing = feature.high_column.filter(|_| missing_right).unwrap_or(feature.column);
        let window = bin / WINDOW;
        Some(Place {
            column: feature.column + window,
            column_with_missing: with_missing + window,
            bin: (bin % WINDOW) as u8,
        })
    }
}

fn search_tree(cuts: &[i32], levels: u32) -> Vec<i32> {
    let mut search = vec![i32::MAX; (1 << levels).max(Feature::REGISTERS)];
    // The node at place n of level l stands for the cut at (n - 2^l) * 2^(levels - l) + 2^(levels - l - 1) - 1.
    for level in 0..levels {
        let half = 1 << (levels - level - 1);
        for (place, node) in search[1 << level..2 << level].iter_mut().enumerate() {
            *node = cuts.get(place * 2 * half + half - 1).copied().unwrap_or(i32::MAX);
        }
    }
    search
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descending_counts_the_cuts_reached() {
        for count in [1, 2, 3, 7, 8, 100, 255, 256, 1000] {
            let cuts: Vec<i32> = (0..count).map(|cut| cut * 10).collect();
            let levels = usize::BITS - cuts.len().leading_zeros();
            let search = search_tree(&cuts, levels);
            for key in (-5..count * 10 + 5).chain([MISSING_LOW, MISSING_HIGH]) {
                let mut place = 1;
                for _ in 0..levels {
                    place = 2 * place + (key >= search[place]) as usize;
                }
                assert_eq!(place - (1 << levels), cuts.iter().filter(|&&cut| key >= cut).count());
            }
        }
    }
}
