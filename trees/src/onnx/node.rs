//! A tree node as it stands in the file, and what has to be computed for the column of it that somebody wants.

use super::finish::{Finish, Spread, Transform};
use super::graph::Node;
use super::{Unsupported, attributes::Attributes, opset3, opset5};
use crate::ensemble::{Aggregate, Ensemble, Node as TreeStep, Tree};

/// More classes or targets than anybody has: a file with more is not worth the memory.
const MOST_OUTPUTS: usize = 10_000;

/// A node of the graph that holds an ensemble.
#[derive(Clone, Debug)]
pub struct TreeNode {
    pub(super) kind: Kind,
    pub(super) trees: Vec<Tree>,
    /// Classes or targets.
    pub(super) outputs: usize,
    pub(super) aggregate: Aggregate,
    /// As in the file: how they count depends on the kind.
    pub(super) base_values: Vec<f32>,
    pub(super) transform: Transform,
}

/// Which operator it is, with what ONNX Runtime makes depend on all its weights.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Scores by class.
    Classifier {
        /// All weights are for the same class.
        one_class: bool,
        /// No weight is negative.
        positive: bool,
    },
    /// Values by target.
    Regressor,
}

/// Whether an output has a weight in the leaves that a row reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// For every row.
    Always,
    /// It depends on the row.
    Sometimes,
    /// For none.
    Never,
}

/// How sums become scores, before anybody asked for a column of them.
struct Rule {
    spread: Spread,
    transform: Transform,
    /// Added to the sums.
    base_values: Vec<f32>,
    /// Of the scores.
    columns: usize,
}

impl TreeNode {
    /// Reads the attributes of a tree operator.
    pub(super) fn read(node: &Node<'_>) -> Result<TreeNode, Unsupported> {
        let attributes = Attributes::read(&node.attributes)?;
        let read = match node.operator {
            "TreeEnsembleClassifier" => opset3::classifier(&attributes)?,
            "TreeEnsembleRegressor" => opset3::regressor(&attributes)?,
            "TreeEnsemble" => opset5::ensemble(&attributes)?,
            other => return Err(Unsupported(format!("the operator {other} is not known"))),
        };
        match read.outputs {
            1..=MOST_OUTPUTS => Ok(read),
            outputs => Err(Unsupported(format!("the trees have {outputs} classes or targets"))),
        }
    }

    /// Columns of the node's scores.
    pub fn columns(&self) -> usize {
        self.outputs
    }

    /// What to compute on rows of `width` features for one `column` of the node's scores, or for all of them: sums of
    /// the ensemble, then the finish.
    pub fn compile(&self, width: usize, column: Option<usize>) -> Result<(Ensemble, Finish), Unsupported> {
        self.check_features(width)?;
        let rule = match self.kind {
            Kind::Classifier { one_class, positive } => self.classifier(one_class, positive)?,
            Kind::Regressor => self.regressor()?,
        };
        if let Some(column) = column.filter(|column| *column >= rule.columns) {
            return Err(Unsupported(format!("column {column} of {} is asked for", rule.columns)));
        }
        let mut ensemble = Ensemble {
            width,
            outputs: rule.base_values.len(),
            trees: self.trees.clone(),
            aggregate: self.aggregate,
            base_values: rule.base_values,
        };
        let finish = Finish { spread: rule.spread, transform: rule.transform, columns: rule.columns, column };
        match (finish.single(), rule.spread) {
            (Some(column), Spread::Each) => keep(&mut ensemble, column),
            // The one sum is that of the first class.
            (_, Spread::Complement | Spread::Mirror) => keep(&mut ensemble, 0),
            (None, Spread::Each) => {}
        }
        Ok((ensemble, finish))
    }

    fn check_features(&self, width: usize) -> Result<(), Unsupported> {
        let steps = self.trees.iter().flat_map(|tree| &tree.nodes);
        let features = steps.filter_map(|step| match step {
            TreeStep::Branch { feature, .. } => Some(*feature),
            TreeStep::Leaf { .. } => None,
        });
        match features.max() {
            Some(feature) if feature as usize >= width => {
                Err(Unsupported(format!("the trees ask for feature {feature}, their input has {width} columns")))
            }
            _ => Ok(()),
        }
    }

    /// One column by target. A single target takes no transform but the probit.
    fn regressor(&self) -> Result<Rule, Unsupported> {
        let transform = match (self.outputs, self.transform) {
            (1, Transform::Probit) => Transform::Probit,
            (1, _) => Transform::None,
            (_, transform) => transform,
        };
        let mut base_values = self.base_value_for_each()?;
        if self.outputs > 1 {
            for (output, base) in base_values.iter_mut().enumerate() {
                *base = self.base_value_if_named(output as u32, *base)?;
            }
        }
        Ok(Rule { spread: Spread::Each, transform, base_values, columns: self.outputs })
    }

    /// One column by class. With two classes it depends on which of them the leaves name, and on how many base values
    /// there are.
    fn classifier(&self, one_class: bool, positive: bool) -> Result<Rule, Unsupported> {
        let chance = || Unsupported::new("what a binary classifier of this form gives is not defined");
        let each = |base_values: Vec<f32>| Rule {
            spread: Spread::Each,
            transform: self.transform,
            columns: base_values.len(),
            base_values,
        };
        if self.outputs > 2 {
            return Ok(each(self.base_value_for_each()?));
        }
        if self.outputs == 1 {
            let transform = if self.transform == Transform::Probit { Transform::Probit } else { Transform::None };
            return match self.base_values[..] {
                [] => Ok(Rule { transform, ..each(vec![0.0]) }),
                [base] => Ok(Rule { transform, ..each(vec![base]) }),
                _ => Err(chance()),
            };
        }
        match (&self.base_values[..], self.named(0), self.named(1)) {
            ([], _, Named::Always) => Ok(each(vec![0.0, 0.0])),
            ([first], _, Named::Always) => Ok(each(vec![self.base_value_if_named(0, *first)?, 0.0])),
            // ONNX Runtime adds the second base value to the first class's sum, and leaves out the second's.
            ([_, base], Named::Always, Named::Always) => {
                Ok(Rule { spread: Spread::Mirror, base_values: vec![*base, 0.0], ..each(vec![0.0, 0.0]) })
            }
            ([first, _], Named::Always, Named::Never) => Ok(each(vec![*first, 0.0])),
            ([] | [_], Named::Always, Named::Never) if one_class && self.transform != Transform::Probit => {
                let base_values = vec![self.base_values.first().copied().unwrap_or(0.0), 0.0];
                let (spread, transform) = match (positive, self.transform) {
                    // Some versions of ONNX Runtime take positive weights for probabilities here too. With one of those
                    // this does not agree, and the whole model is left to it.
                    (_, Transform::Logistic) => (Spread::Mirror, Transform::Logistic),
                    (true, _) => (Spread::Complement, Transform::None),
                    (false, _) => (Spread::Mirror, Transform::None),
                };
                Ok(Rule { spread, transform, base_values, columns: 2 })
            }
            _ => Err(chance()),
        }
    }

    /// Which rows have a weight for `output`: what ONNX Runtime gives depends on it row by row.
    fn named(&self, output: u32) -> Named {
        let mut any = false;
        for tree in &self.trees {
            let leaves = tree.nodes.iter().filter_map(|step| match step {
                TreeStep::Leaf { weights } => Some(weights.iter().any(|(named, _)| *named == output)),
                TreeStep::Branch { .. } => None,
            });
            let (all, some) = leaves.fold((true, false), |(all, some), names| (all && names, some || names));
            if all {
                return Named::Always;
            }
            any |= some;
        }
        if any { Named::Sometimes } else { Named::Never }
    }

    /// What is added to `output`, one of several: ONNX Runtime leaves out the base value where no leaf names it.
    fn base_value_if_named(&self, output: u32, base: f32) -> Result<f32, Unsupported> {
        match self.named(output) {
            Named::Always => Ok(base),
            Named::Never => Ok(0.0),
            Named::Sometimes if base == 0.0 => Ok(0.0),
            Named::Sometimes => Err(Unsupported(format!("some rows have no weight for output {output}"))),
        }
    }

    fn base_value_for_each(&self) -> Result<Vec<f32>, Unsupported> {
        match self.base_values.len() {
            0 => Ok(vec![0.0; self.outputs]),
            count if count == self.outputs => Ok(self.base_values.clone()),
            count => Err(Unsupported(format!("{} outputs have {count} base values", self.outputs))),
        }
    }
}

/// Leaves only one output in the ensemble.
fn keep(ensemble: &mut Ensemble, output: usize) {
    ensemble.base_values = vec![ensemble.base_values[output]];
    ensemble.outputs = 1;
    for step in ensemble.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
        if let TreeStep::Leaf { weights } = step {
            weights.retain(|(named, _)| *named as usize == output);
            weights.iter_mut().for_each(|(named, _)| *named = 0);
        }
    }
}
