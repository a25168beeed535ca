//! Rows to compare two engines on: where trees turn, and where numbers are strange.
//!
//! A kernel's mistakes live at thresholds: a comparison off by one unit in the last place, a node of the wrong tree, a
//! NaN that goes the other way. So the rows hold each threshold itself, the next number below it and the next above,
//! mixed at random; and rows aimed at one node each, so that deep nodes are reached. The seed is fixed: a bundle
//! verifies today as it did yesterday.

use fraud_trees::ensemble::{Comparison, Ensemble, Node, Tree};

/// What no threshold stands for.
const STRANGE: [f32; 8] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN, 1e-40];

/// Rows with strange values among others.
const STRANGE_ROWS: usize = 256;

/// Random numbers of our own, the same on every machine (SplitMix64).
pub struct Random(u64);

impl Random {
    /// The generator that verification begins with.
    pub fn fixed() -> Random {
        Random(0x5EED)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// An index below `count`, which is not 0.
    pub fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }

    /// One of `from`, which is not empty.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// At most `limit` rows: a quarter of them thresholds at random, the others aimed, and some strange ones on top.
pub fn around_thresholds(ensemble: &Ensemble, limit: usize, random: &mut Random) -> Vec<f32> {
    let pools = pools(ensemble, limit / 4, random);
    let mut rows = mixed(&pools, limit / 4, random);
    aimed(ensemble, &pools, limit / 4 * 3, random, &mut rows);
    strange(&pools, random, &mut rows);
    rows
}

/// For each feature, values at, just below and just above its thresholds, shuffled.
fn pools(ensemble: &Ensemble, limit: usize, random: &mut Random) -> Vec<Vec<f32>> {
    let mut thresholds = vec![Vec::new(); ensemble.width];
    for node in ensemble.trees.iter().flat_map(|tree| &tree.nodes) {
        if let Node::Branch { feature, threshold, .. } = node {
            thresholds[*feature as usize].push(*threshold);
        }
    }
    let pool = |mut thresholds: Vec<f32>| {
        thresholds.sort_unstable_by(f32::total_cmp);
        thresholds.dedup_by_key(|threshold| threshold.to_bits());
        random.shuffle(&mut thresholds);
        thresholds.truncate(limit.div_ceil(3));
        let mut pool: Vec<f32> = thresholds.iter().flat_map(|&at| [at, at.next_down(), at.next_up()]).collect();
        if pool.is_empty() {
            pool = vec![-1.0, 0.0, 1.0];
        }
        random.shuffle(&mut pool);
        pool
    };
    thresholds.into_iter().map(pool).collect()
}

/// As many rows as the largest pool has values, so that each is there once.
fn mixed(pools: &[Vec<f32>], limit: usize, random: &mut Random) -> Vec<f32> {
    let count = pools.iter().map(Vec::len).max().unwrap_or(0).clamp(64, limit.max(64));
    let mut rows = Vec::with_capacity(count * pools.len());
    for row in 0..count {
        rows.extend(pools.iter().map(|pool| pool.get(row).copied().unwrap_or_else(|| random.pick(pool))));
    }
    rows
}

/// Two rows for each branch that reach it, with values on either side of where its comparison turns.
fn aimed(ensemble: &Ensemble, pools: &[Vec<f32>], limit: usize, random: &mut Random, rows: &mut Vec<f32>) {
    let mut targets = Vec::new();
    for (number, tree) in ensemble.trees.iter().enumerate() {
        let nodes = tree.nodes.iter().enumerate();
        let branches = nodes.filter(|(_, node)| matches!(node, Node::Branch { .. }));
        targets.extend(branches.map(|(node, _)| (number, node)));
    }
    random.shuffle(&mut targets);
    targets.truncate(limit / 2);
    let parents: Vec<Vec<(u32, bool)>> = ensemble.trees.iter().map(parents).collect();
    let mut bounds = vec![(f32::NEG_INFINITY, f32::INFINITY); ensemble.width];
    for (tree, target) in targets {
        bounds.fill((f32::NEG_INFINITY, f32::INFINITY));
        let (nodes, mut node) = (&ensemble.trees[tree].nodes, target);
        while node != 0 {
            let (parent, holds) = parents[tree][node];
            node = parent as usize;
            if let Node::Branch { feature, comparison, threshold, .. } = &nodes[node] {
                narrow(&mut bounds[*feature as usize], *comparison, *threshold, holds);
            }
        }
        let Node::Branch { feature, comparison, threshold, .. } = &nodes[target] else { continue };
        for value in sides(*comparison, *threshold) {
            let start = rows.len();
            rows.extend(bounds.iter().zip(pools).map(|((low, high), pool)| match random.pick(pool) {
                value if value < *low => *low,
                value if value > *high => *high,
                value => value,
            }));
            rows[start + *feature as usize] = value;
        }
    }
}

/// Two neighbouring values, of which one makes the comparison hold: it could not be off by one unit unnoticed.
fn sides(comparison: Comparison, threshold: f32) -> [f32; 2] {
    match comparison {
        Comparison::Less | Comparison::GreaterOrEqual => [threshold, threshold.next_down()],
        Comparison::LessOrEqual | Comparison::Greater => [threshold, threshold.next_up()],
        Comparison::Equal | Comparison::NotEqual => [threshold, threshold.next_up()],
    }
}

/// For each node, its parent and on which side of it.
fn parents(tree: &Tree) -> Vec<(u32, bool)> {
    let mut parents = vec![(0, false); tree.nodes.len()];
    for (number, node) in tree.nodes.iter().enumerate() {
        if let Node::Branch { on_true, on_false, .. } = node {
            parents[*on_true as usize] = (number as u32, true);
            parents[*on_false as usize] = (number as u32, false);
        }
    }
    parents
}

/// Keeps of the range what makes the comparison hold, or not.
fn narrow((low, high): &mut (f32, f32), comparison: Comparison, threshold: f32, holds: bool) {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    match (comparison, holds) {
        (LessOrEqual, true) | (Greater, false) => *high = high.min(threshold),
        (Less, true) | (GreaterOrEqual, false) => *high = high.min(threshold.next_down()),
        (GreaterOrEqual, true) | (Less, false) => *low = low.max(threshold),
        (Greater, true) | (LessOrEqual, false) => *low = low.max(threshold.next_up()),
        (Equal, true) | (NotEqual, false) => (*low, *high) = (threshold, threshold),
        // Any other value will do, and most are.
        (Equal, false) | (NotEqual, true) => {}
    }
}

/// Rows of one strange value, and rows with some among values of the pools.
fn strange(pools: &[Vec<f32>], random: &mut Random, rows: &mut Vec<f32>) {
    for value in STRANGE {
        rows.extend(std::iter::repeat_n(value, pools.len()));
    }
    for _ in 0..STRANGE_ROWS {
        rows.extend(pools.iter().map(|pool| match random.below(4) {
            0 => random.pick(&STRANGE),
            _ => random.pick(pool),
        }));
    }
}

/// `count` rows for a whole graph, about which nothing is known but `samples` of its input: values of the same column,
/// newly combined, or, where there are no samples, of all magnitudes; every eighth row with strange values.
pub fn combined(samples: &[f32], width: usize, count: usize, random: &mut Random) -> Vec<f32> {
    let known = samples.len() / width;
    let mut rows = Vec::with_capacity(count * width);
    for row in 0..count {
        for column in 0..width {
            let number = match known {
                0 => (random.below(2_001) as f32 - 1_000.0) * random.pick(&[1e-4, 1e-3, 1e-2, 1.0, 1e3]),
                _ => samples[random.below(known) * width + column],
            };
            let strange = row % 8 == 0 && random.below(4) == 0;
            rows.push(if strange { random.pick(&STRANGE) } else { number });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `x0 <= 1`, then on the true side `x1 > 2`.
    fn ensemble() -> Ensemble {
        let branch = |feature, comparison, threshold, on_true, on_false| Node::Branch {
            feature,
            comparison,
            threshold,
            missing_tracks_true: false,
            on_true,
            on_false,
        };
        let leaf = |weight| Node::Leaf { weights: vec![(0, weight)] };
        let nodes = vec![
            branch(0, Comparison::LessOrEqual, 1.0, 1, 4),
            branch(1, Comparison::Greater, 2.0, 2, 3),
            leaf(0.1),
            leaf(0.2),
            leaf(0.3),
        ];
        let trees = vec![Tree { nodes }];
        Ensemble {
            width: 3,
            outputs: 1,
            trees,
            aggregate: fraud_trees::ensemble::Aggregate::Sum,
            base_values: vec![0.0],
        }
    }

    #[test]
    fn every_threshold_is_met_from_all_sides_and_every_leaf_is_reached() {
        let ensemble = ensemble();
        let rows = around_thresholds(&ensemble, 256, &mut Random::fixed());
        for (feature, threshold) in [(0, 1.0_f32), (1, 2.0)] {
            for value in [threshold, threshold.next_down(), threshold.next_up(), f32::INFINITY, f32::NEG_INFINITY] {
                assert!(rows.chunks_exact(3).any(|row| row[feature] == value), "{value} for {feature}");
            }
            assert!(rows.chunks_exact(3).any(|row| row[feature].is_nan()));
        }
        let reached: Vec<f32> = rows.chunks_exact(3).map(|row| ensemble.trees[0].leaf(row)[0].1).collect();
        for weight in [0.1, 0.2, 0.3] {
            assert!(reached.contains(&weight), "{weight}");
        }
        let again = around_thresholds(&ensemble, 256, &mut Random::fixed());
        assert!(rows.iter().map(|value| value.to_bits()).eq(again.iter().map(|value| value.to_bits())));
    }

    #[test]
    fn combined_rows_keep_to_the_columns_of_the_samples() {
        let rows = combined(&[1.0, 20.0, 2.0, 30.0], 2, 16, &mut Random::fixed());
        assert_eq!(rows.len(), 32);
        for row in rows.chunks_exact(2).enumerate().filter(|(number, _)| number % 8 != 0).map(|(_, row)| row) {
            assert!([1.0, 2.0].contains(&row[0]) && [20.0, 30.0].contains(&row[1]), "{row:?}");
        }
    }
}
