//! The ensemble as it reads, one row and one node at a time: the safe twin that every kernel is tested against.

use crate::ensemble::{Aggregate, Comparison, Ensemble, Node, Tree};

impl Comparison {
    /// Whether `value OP threshold` holds; a comparison with NaN does not, save [`Comparison::NotEqual`].
    #[inline]
    pub fn holds(self, value: f32, threshold: f32) -> bool {
        match self {
            Comparison::LessOrEqual => value <= threshold,
            Comparison::Less => value < threshold,
            Comparison::GreaterOrEqual => value >= threshold,
            Comparison::Greater => value > threshold,
            Comparison::Equal => value == threshold,
            Comparison::NotEqual => value != threshold,
        }
    }
}

impl Tree {
    /// The weights of the leaf that `row` ends in.
    pub fn leaf(&self, row: &[f32]) -> &[(u32, f32)] {
        let mut at = 0;
        loop {
            match &self.nodes[at] {
                Node::Leaf { weights } => return weights,
                Node::Branch { feature, comparison, threshold, missing_tracks_true, on_true, on_false } => {
                    let value = row[*feature as usize];
                    let holds = comparison.holds(value, *threshold) || (*missing_tracks_true && value.is_nan());
                    at = if holds { *on_true } else { *on_false } as usize;
                }
            }
        }
    }
}

impl Ensemble {
    /// The aggregated weights of row-major `rows`, row-major with [`Ensemble::outputs`] columns.
    pub fn interpret(&self, rows: &[f32], sums: &mut Vec<f32>) {
        sums.clear();
        let mut mentioned = vec![false; self.outputs];
        for row in rows.chunks_exact(self.width) {
            let start = sums.len();
            sums.resize(start + self.outputs, 0.0);
            let sum = &mut sums[start..];
            mentioned.fill(false);
            for tree in &self.trees {
                for &(output, weight) in tree.leaf(row) {
                    let (slot, seen) = (&mut sum[output as usize], &mut mentioned[output as usize]);
                    *slot = match self.aggregate {
                        Aggregate::Sum | Aggregate::Average => *slot + weight,
                        Aggregate::Min if *seen => slot.min(weight),
                        Aggregate::Max if *seen => slot.max(weight),
                        Aggregate::Min | Aggregate::Max => weight,
                    };
                    *seen = true;
                }
            }
            for (slot, base) in sum.iter_mut().zip(&self.base_values) {
                if self.aggregate == Aggregate::Average {
                    *slot /= self.trees.len() as f32;
                }
                *slot += base;
            }
        }
    }
}
