//! Trees out of tables: however a file numbers its nodes, they are numbered from the root here.

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

/// The tree below `root`. `row` must refuse a branch that it was asked for before, or this may not end.
pub fn tree<K>(root: K, mut row: impl FnMut(K) -> Result<Row<K>, Unsupported>) -> Result<Tree, Unsupported> {
    let mut nodes = Vec::new();
    let mut open = vec![(root, None)];
    while let Some((key, parent)) = open.pop() {
        let number = nodes.len() as u32;
        if let Some((parent, holds)) = parent {
            point(&mut nodes, parent, number, holds);
        }
        nodes.push(match row(key)? {
            Row::Leaf(weights) => Node::Leaf { weights },
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
