//! Trees out of tables: however a file numbers its nodes, they are numbered from the root here.
//!
//! A table may lead to a node by several ways, as exporters do for a set of categories: a chain of comparisons, each of which
//! leads to the same branch where it holds. What is shared is copied, within a [`Budget`]. That also ends a circle.

use super::Unsupported;
use crate::ensemble::{Comparison, Node, Tree};

/// A row of a file's table of nodes; `K` is how the file points at a row.
pub enum Row<K> {
    /// A comparison and where it leads.
    Branch {
        /// As in [`Node::Branch`].
        feature: u32,
        /// As in [`Node::Branch`].
        comparison: Comparison,
        /// As in [`Node::Branch`].
        threshold: f32,
        /// As in [`Node::Branch`].
        missing_tracks_true: bool,
        /// The rows it leads to: where it holds, where it does not.
        next: [K; 2],
    },
    /// Weights by output.
    Leaf(Vec<(u32, f32)>),
}

/// How large the trees of an ensemble may grow, in nodes and weights.
pub struct Budget {
    left: usize,
    most: usize,
}

/// How many times the size of its table an ensemble may have.
const MOST_GROWTH: usize = 8;

impl Budget {
    /// For a table of so many nodes and weights.
    pub fn of(table: usize) -> Budget {
        let most = table.saturating_mul(MOST_GROWTH);
        Budget { left: most, most }
    }

    fn spend(&mut self, size: usize) -> Result<(), Unsupported> {
        self.left = self.left.checked_sub(size).ok_or_else(|| {
            Unsupported(format!("with branches that are shared copied, the trees have more than {} nodes", self.most))
        })?;
        Ok(())
    }
}

/// The tree below `root`, within `budget`.
pub fn tree<K>(
    root: K,
    budget: &mut Budget,
    row: impl Fn(K) -> Result<Row<K>, Unsupported>,
) -> Result<Tree, Unsupported> {
    let mut nodes = Vec::new();
    let mut open = vec![(root, None)];
    while let Some((key, parent)) = open.pop() {
        let number = nodes.len() as u32;
        if let Some((parent, holds)) = parent {
            point(&mut nodes, parent, number, holds);
        }
        budget.spend(1)?;
        nodes.push(match row(key)? {
            Row::Leaf(weights) => {
                budget.spend(weights.len())?;
                Node::Leaf { weights }
            }
            Row::Branch { feature, comparison, threshold, missing_tracks_true, next: [on_true, on_false] } => {
                open.push((on_false, Some((number, false))));
                open.push((on_true, Some((number, true))));
                Node::Branch { feature, comparison, threshold, missing_tracks_true, on_true: 0, on_false: 0 }
            }
        });
    }
    Ok(Tree { nodes })
}

fn point(nodes: &mut [Node], parent: u32, child: u32, holds: bool) {
    if let Node::Branch { on_true, on_false, .. } = &mut nodes[parent as usize] {
        *(if holds { on_true } else { on_false }) = child;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Rows 0 to `last` - 1 are branches whose comparisons hold on the way to `shared`, else they lead to the next; the rest are
    /// leaves.
    fn chain(last: usize, shared: usize) -> impl Fn(usize) -> Result<Row<usize>, Unsupported> {
        move |row| {
            Ok(if row < last {
                let comparison = Comparison::Equal;
                let next = [shared, row + 1];
                Row::Branch { feature: 0, comparison, threshold: row as f32, missing_tracks_true: false, next }
            } else {
                Row::Leaf(vec![(0, row as f32)])
            })
        }
    }

    #[test]
    fn a_branch_that_several_lead_to_is_copied() {
        let grown = tree(0, &mut Budget::of(5), chain(3, 4)).unwrap();
        let leaves = grown.nodes.iter().filter_map(|node| match node {
            Node::Leaf { weights } => Some(weights[0].1),
            Node::Branch { .. } => None,
        });
        assert_eq!(leaves.collect::<Vec<_>>(), [4.0, 4.0, 4.0, 3.0]);
    }

    #[test]
    fn a_circle_and_what_grows_without_bound_are_refused() {
        let circle = tree(0, &mut Budget::of(5), chain(3, 0)).unwrap_err();
        assert!(circle.0.contains("more than 40 nodes"), "{circle}");
        // Each branch leads to the next by both ways: a tree of 2^30 leaves.
        let doubled = |row: usize| {
            let Row::Branch { feature, comparison, threshold, missing_tracks_true, .. } = chain(31, 31)(row)? else {
                return Ok(Row::Leaf(Vec::new()));
            };
            Ok(Row::Branch { feature, comparison, threshold, missing_tracks_true, next: [row + 1, row + 1] })
        };
        assert!(tree(0, &mut Budget::of(32), doubled).is_err());
        // Weights count, not nodes alone.
        let heavy = |row: usize| Ok(if row == 0 { chain(1, 1)(0)? } else { Row::Leaf(vec![(0, 1.0); 30]) });
        assert!(tree(0, &mut Budget::of(4), heavy).is_err());
    }
}
