//! `TreeEnsemble` of ai.onnx.ml 5: branches and leaves in lists of their own, roots named.

use super::Unsupported;
use super::attributes::Attributes;
use super::finish::Transform;
use super::grow::{Budget, Row, tree};
use super::node::{Kind, TreeNode};
use crate::ensemble::{Aggregate, Comparison};

/// Where a branch leads: an index, and whether it is one of the leaves.
type Place = (i64, bool);

/// Reads the attributes.
pub fn ensemble(attributes: &Attributes<'_>) -> Result<TreeNode, Unsupported> {
    let outputs = usize::try_from(attributes.integer("n_targets", 0)).unwrap_or(0);
    let aggregate = match attributes.integer("aggregate_function", 1) {
        0 => Aggregate::Average,
        1 => Aggregate::Sum,
        2 => Aggregate::Min,
        3 => Aggregate::Max,
        other => return Err(Unsupported(format!("the trees have the unknown aggregate_function {other}"))),
    };
    let transform = match attributes.integer("post_transform", 0) {
        0 => Transform::None,
        // The specification has these two the other way round. ONNX Runtime reads them so, and it is what a model's
        // scores were looked at with.
        1 => Transform::Logistic,
        2 => Transform::Softmax,
        3 => Transform::SoftmaxZero,
        4 => Transform::Probit,
        other => return Err(Unsupported(format!("the trees have the unknown post_transform {other}"))),
    };
    let table = Table::read(attributes, outputs)?;
    let mut budget = Budget::of(table.modes.len() + 2 * table.leaves.len());
    let roots = attributes.integers("tree_roots").iter();
    let trees =
        roots.map(|&root| tree((root, false), &mut budget, |place| table.row(place))).collect::<Result<Vec<_>, _>>()?;
    if trees.is_empty() {
        return Err(Unsupported::new("the ensemble has no trees"));
    }
    Ok(TreeNode { kind: Kind::Regressor, trees, outputs, aggregate, base_values: Vec::new(), transform })
}

struct Table<'a> {
    modes: Vec<Comparison>,
    features: &'a [i64],
    thresholds: Vec<f32>,
    missing: &'a [i64],
    /// Where the comparison holds, where it does not: index, and whether of a leaf.
    next: [(&'a [i64], &'a [i64]); 2],
    leaves: Vec<(u32, f32)>,
}

impl<'a> Table<'a> {
    fn read(attributes: &'a Attributes<'_>, outputs: usize) -> Result<Table<'a>, Unsupported> {
        let modes =
            attributes.byte_tensor("nodes_modes")?.into_iter().map(comparison).collect::<Result<Vec<_>, _>>()?;
        let targets = attributes.integers("leaf_targetids").iter();
        let targets = targets.map(|&target| u32::try_from(target).ok().filter(|target| (*target as usize) < outputs));
        let weights = attributes.float_tensor("leaf_weights")?;
        let targets: Option<Vec<u32>> = targets.collect();
        let targets = targets.filter(|targets| targets.len() == weights.len());
        let targets = targets.ok_or_else(|| Unsupported::new("the leaves' targets do not fit their weights"))?;
        let table = Table {
            modes,
            features: attributes.integers("nodes_featureids"),
            thresholds: attributes.float_tensor("nodes_splits")?,
            missing: attributes.integers("nodes_missing_value_tracks_true"),
            next: [
                (attributes.integers("nodes_truenodeids"), attributes.integers("nodes_trueleafs")),
                (attributes.integers("nodes_falsenodeids"), attributes.integers("nodes_falseleafs")),
            ],
            leaves: targets.into_iter().zip(weights).collect(),
        };
        let [(on_true, true_leaves), (on_false, false_leaves)] = table.next;
        let lists = [table.features, on_true, true_leaves, on_false, false_leaves].map(<[i64]>::len);
        if lists.iter().chain([&table.thresholds.len()]).any(|length| *length != table.modes.len()) {
            return Err(Unsupported::new("the trees' lists of nodes are of different lengths"));
        }
        Ok(table)
    }

    fn row(&self, (index, leaf): Place) -> Result<Row<Place>, Unsupported> {
        let outside = || Unsupported(format!("the trees lead to place {index}, which is not there"));
        let row = usize::try_from(index).map_err(|_| outside())?;
        if leaf {
            return Ok(Row::Leaf(vec![*self.leaves.get(row).ok_or_else(outside)?]));
        }
        let feature = *self.features.get(row).ok_or_else(outside)?;
        Ok(Row::Branch {
            feature: u32::try_from(feature)
                .map_err(|_| Unsupported(format!("node {index} asks for feature {feature}")))?,
            comparison: self.modes[row],
            threshold: self.thresholds[row],
            missing_tracks_true: self.missing.get(row) == Some(&1),
            next: self.next.map(|(next, leaf)| (next[row], leaf[row] != 0)),
        })
    }
}

fn comparison(mode: u8) -> Result<Comparison, Unsupported> {
    Ok(match mode {
        0 => Comparison::LessOrEqual,
        1 => Comparison::Less,
        2 => Comparison::GreaterOrEqual,
        3 => Comparison::Greater,
        4 => Comparison::Equal,
        5 => Comparison::NotEqual,
        _ => return Err(Unsupported::new("the trees ask for members of a set")),
    })
}
