//! Finds the one tree node on the way from the input to the output, and what lies before and behind it.

use super::Unsupported;
use super::graph::{Model, Node};
use super::node::TreeNode;

/// Why a graph is not taken that has no tree node at all.
pub const NO_TREES: &str = "the graph has no tree ensemble";

/// A model taken apart at its tree node.
#[derive(Clone, Debug)]
pub struct Split {
    /// Makes the trees' rows from the input; none where the trees read the input itself.
    pub before: Option<Part>,
    /// The trees.
    pub trees: TreeNode,
    /// The tree node alone: from its rows to its scores.
    pub alone: Part,
    /// Makes the output from the trees' scores; none where they are the output.
    pub after: Option<Part>,
}

/// Some nodes of a model, as a model.
#[derive(Clone, Debug)]
pub struct Part {
    /// The ONNX file.
    pub model: Vec<u8>,
    /// The input that carries rows or scores, a float matrix: under this name.
    pub input: String,
    /// The whole graph's input, where this part takes that too.
    pub graph_input: Option<String>,
    /// The name of its output.
    pub output: String,
}

impl Split {
    /// Takes the ONNX file `model` apart on the way from `input` to `output`.
    pub fn of(model: &[u8], input: &str, output: &str) -> Result<Split, Unsupported> {
        let model = Model::read(model)?;
        let (all, _) = model.ancestors(output, &[]);
        let trees: Vec<usize> = all.into_iter().filter(|&index| model.nodes[index].is_trees()).collect();
        let node = match trees[..] {
            [] => return Err(Unsupported::new(NO_TREES)),
            [index] => &model.nodes[index],
            _ => return Err(Unsupported(format!("the graph has {} tree ensembles", trees.len()))),
        };
        let (rows, scores) = ends(node)?;
        Ok(Split {
            before: before(&model, input, rows)?,
            alone: Part {
                model: model.part(&model.ancestors(scores, &[rows]), Some(rows), scores)?,
                input: rows.to_owned(),
                graph_input: None,
                output: scores.to_owned(),
            },
            after: after(&model, input, node, scores, output)?,
            trees: TreeNode::read(node)?,
        })
    }
}

/// The names of a tree node's rows and scores.
fn ends<'a>(node: &Node<'a>) -> Result<(&'a str, &'a str), Unsupported> {
    let output = usize::from(node.operator == "TreeEnsembleClassifier");
    match (&node.inputs[..], node.outputs.get(output)) {
        ([rows], Some(scores)) if !scores.is_empty() => Ok((rows, scores)),
        _ => Err(Unsupported::new("the tree node's scores are not asked for")),
    }
}

fn before(model: &Model<'_>, input: &str, rows: &str) -> Result<Option<Part>, Unsupported> {
    if skip_trivial(model, rows) == input {
        return Ok(None);
    }
    let nodes = model.ancestors(rows, &[]);
    if !nodes.1.contains(input) {
        return Err(Unsupported::new("the trees do not read the input"));
    }
    let part = model.part(&nodes, None, rows)?;
    Ok(Some(Part { model: part, input: input.to_owned(), graph_input: None, output: rows.to_owned() }))
}

fn after(
    model: &Model<'_>,
    input: &str,
    trees: &Node<'_>,
    scores: &str,
    output: &str,
) -> Result<Option<Part>, Unsupported> {
    if skip_trivial(model, output) == scores {
        return Ok(None);
    }
    let nodes = model.ancestors(output, &[scores]);
    if nodes.0.iter().any(|&index| std::ptr::eq(&model.nodes[index], trees)) {
        return Err(Unsupported::new("the output needs the label that the trees give"));
    }
    Ok(Some(Part {
        model: model.part(&nodes, Some(scores), output)?,
        input: scores.to_owned(),
        graph_input: nodes.1.contains(input).then(|| input.to_owned()),
        output: output.to_owned(),
    }))
}

/// Goes back from `value` through nodes that leave a float matrix as it is.
pub(super) fn skip_trivial<'a>(model: &Model<'a>, value: &'a str) -> &'a str {
    let mut value = value;
    // As many steps as there are nodes: a file with a circle must not hold us up.
    for _ in &model.nodes {
        let Some(index) = model.source(value) else { break };
        match unchanged(model, &model.nodes[index]) {
            Some(same) => value = same,
            None => break,
        }
    }
    value
}

/// The value that `node` gives unchanged, if it is a float matrix.
fn unchanged<'a>(model: &Model<'a>, node: &Node<'a>) -> Option<&'a str> {
    match (node.domain, node.operator, &node.inputs[..]) {
        ("", "Identity", [value]) => Some(value),
        ("", "Cast", [value]) if node.integer_attribute("to") == Some(1) => Some(value),
        // LightGBM's exporter multiplies by one.
        ("", "Mul", [value, one]) if model.constant(one) == Some(1.0) => Some(value),
        ("", "Mul", [one, value]) if model.constant(one) == Some(1.0) => Some(value),
        _ => None,
    }
}
