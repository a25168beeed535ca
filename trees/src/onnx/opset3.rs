//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor` of ai.onnx.ml 1 to 3: nodes and weights in parallel lists.

use std::collections::{HashMap, HashSet};

use super::Unsupported;
use super::attributes::Attributes;
use super::finish::transform;
use super::grow::{Budget, Row, tree};
use super::node::{Kind, TreeNode};
use crate::ensemble::{Aggregate, Comparison, Tree};

/// A node's place in the file: number of its tree, number within the tree.
type Place = (i64, i64);

/// Reads a classifier's attributes.
pub fn classifier(attributes: &Attributes<'_>) -> Result<TreeNode, Unsupported> {
    let strings = attributes.texts("classlabels_strings").len();
    let classes = if strings > 0 { strings } else { attributes.integers("classlabels_int64s").len() };
    let named: HashSet<i64> = attributes.integers("class_ids").iter().copied().collect();
    let positive = !attributes.floats("class_weights")?.iter().any(|weight| *weight < 0.0);
    // ONNX Runtime knows no aggregate function for classifiers.
    read(attributes, "class", classes, Aggregate::Sum, Kind::Classifier { one_class: named.len() == 1, positive })
}

/// Reads a regressor's attributes.
pub fn regressor(attributes: &Attributes<'_>) -> Result<TreeNode, Unsupported> {
    let targets = usize::try_from(attributes.integer("n_targets", 0)).unwrap_or(0);
    let aggregate = match attributes.text("aggregate_function", "SUM") {
        b"SUM" => Aggregate::Sum,
        b"AVERAGE" => Aggregate::Average,
        b"MIN" => Aggregate::Min,
        b"MAX" => Aggregate::Max,
        other => return Err(unknown("aggregate_function", other)),
    };
    read(attributes, "target", targets, aggregate, Kind::Regressor)
}

fn read(
    attributes: &Attributes<'_>,
    kind: &str,
    outputs: usize,
    aggregate: Aggregate,
    what: Kind,
) -> Result<TreeNode, Unsupported> {
    let transform = transform(attributes.text("post_transform", "NONE"))?;
    let trees = Table::read(attributes, kind, outputs, aggregate)?.trees()?;
    Ok(TreeNode { kind: what, trees, outputs, aggregate, base_values: attributes.floats("base_values")?, transform })
}

fn unknown(what: &str, value: &[u8]) -> Unsupported {
    Unsupported(format!("the trees have the unknown {what} {}", String::from_utf8_lossy(value)))
}

/// The lists of nodes, side by side, and the weights by node.
struct Table<'a> {
    trees: &'a [i64],
    numbers: &'a [i64],
    features: &'a [i64],
    modes: Vec<Option<Comparison>>,
    thresholds: Vec<f32>,
    missing: &'a [i64],
    on_true: &'a [i64],
    on_false: &'a [i64],
    weights: HashMap<Place, Vec<(u32, f32)>>,
}

impl<'a> Table<'a> {
    fn read(
        attributes: &'a Attributes<'_>,
        kind: &str,
        outputs: usize,
        aggregate: Aggregate,
    ) -> Result<Table<'a>, Unsupported> {
        let table = Table {
            trees: attributes.integers("nodes_treeids"),
            numbers: attributes.integers("nodes_nodeids"),
            features: attributes.integers("nodes_featureids"),
            modes: attributes.texts("nodes_modes").iter().map(|mode| comparison(mode)).collect::<Result<_, _>>()?,
            thresholds: attributes.floats("nodes_values")?,
            missing: attributes.integers("nodes_missing_value_tracks_true"),
            on_true: attributes.integers("nodes_truenodeids"),
            on_false: attributes.integers("nodes_falsenodeids"),
            weights: weights(attributes, kind, outputs, aggregate)?,
        };
        let lists = [
            table.numbers.len(),
            table.features.len(),
            table.modes.len(),
            table.thresholds.len(),
            table.on_true.len(),
            table.on_false.len(),
        ];
        if lists.iter().any(|length| *length != table.trees.len()) || table.trees.is_empty() {
            return Err(Unsupported::new("the trees' lists of nodes are empty or of different lengths"));
        }
        Ok(table)
    }

    /// A tree begins where the tree's number changes, with its root.
    fn trees(&self) -> Result<Vec<Tree>, Unsupported> {
        let mut rows = HashMap::with_capacity(self.trees.len());
        for (row, place) in self.trees.iter().copied().zip(self.numbers.iter().copied()).enumerate() {
            if rows.insert(place, row).is_some() {
                return Err(Unsupported(format!("node {} stands twice in tree {}", place.1, place.0)));
            }
        }
        let starts = (0..self.trees.len()).filter(|&row| row == 0 || self.trees[row] != self.trees[row - 1]);
        let weights: usize = self.weights.values().map(Vec::len).sum();
        let mut budget = Budget::of(self.trees.len() + weights);
        let (mut trees, mut begun) = (Vec::new(), HashSet::new());
        for root in starts {
            if !begun.insert(self.trees[root]) {
                return Err(Unsupported(format!("the nodes of tree {} stand in two places", self.trees[root])));
            }
            trees.push(tree(root, &mut budget, |row| self.row(row, &rows))?);
        }
        Ok(trees)
    }

    fn row(&self, row: usize, rows: &HashMap<Place, usize>) -> Result<Row<usize>, Unsupported> {
        let number = self.trees[row];
        let place = (number, self.numbers[row]);
        let Some(comparison) = self.modes[row] else {
            return match self.weights.get(&place) {
                Some(weights) => Ok(Row::Leaf(weights.clone())),
                None => Err(Unsupported(format!("leaf {} of tree {number} has no weight", place.1))),
            };
        };
        let next = |node: i64| {
            let next = rows.get(&(number, node)).copied();
            next.ok_or_else(|| Unsupported(format!("tree {number} has no node {node}, which another leads to")))
        };
        Ok(Row::Branch {
            feature: u32::try_from(self.features[row])
                .map_err(|_| Unsupported(format!("tree {number} asks for feature {}", self.features[row])))?,
            comparison,
            threshold: self.thresholds[row],
            missing_tracks_true: self.missing.get(row) == Some(&1),
            next: [next(self.on_true[row])?, next(self.on_false[row])?],
        })
    }
}

/// A branch's comparison, none for a leaf.
fn comparison(mode: &[u8]) -> Result<Option<Comparison>, Unsupported> {
    Ok(Some(match mode {
        b"LEAF" => return Ok(None),
        b"BRANCH_LEQ" => Comparison::LessOrEqual,
        b"BRANCH_LT" => Comparison::Less,
        b"BRANCH_GTE" => Comparison::GreaterOrEqual,
        b"BRANCH_GT" => Comparison::Greater,
        b"BRANCH_EQ" => Comparison::Equal,
        b"BRANCH_NEQ" => Comparison::NotEqual,
        other => return Err(unknown("node mode", other)),
    }))
}

/// Weights by node; a node that names an output twice has them put together.
fn weights(
    attributes: &Attributes<'_>,
    kind: &str,
    outputs: usize,
    aggregate: Aggregate,
) -> Result<HashMap<Place, Vec<(u32, f32)>>, Unsupported> {
    let list = |name: &str| attributes.integers(&format!("{kind}_{name}"));
    let (trees, nodes, ids) = (list("treeids"), list("nodeids"), list("ids"));
    let values = attributes.floats(&format!("{kind}_weights"))?;
    if [nodes.len(), ids.len(), values.len()].iter().any(|length| *length != trees.len()) {
        return Err(Unsupported::new("the trees' lists of weights are of different lengths"));
    }
    let mut by_node: HashMap<Place, Vec<(u32, f32)>> = HashMap::with_capacity(trees.len());
    for (((&tree, &node), &id), &value) in trees.iter().zip(nodes).zip(ids).zip(&values) {
        let output = usize::try_from(id).ok().filter(|id| *id < outputs);
        let output = output.ok_or_else(|| Unsupported(format!("a weight is for output {id} of {outputs}")))? as u32;
        let weights = by_node.entry((tree, node)).or_default();
        match weights.iter_mut().find(|(known, _)| *known == output) {
            None => weights.push((output, value)),
            Some((_, known)) => {
                *known = match aggregate {
                    Aggregate::Sum | Aggregate::Average => *known + value,
                    Aggregate::Min => known.min(value),
                    Aggregate::Max => known.max(value),
                }
            }
        }
    }
    Ok(by_node)
}
