//! Finds a linear model in a graph: what scikit-learn's `LogisticRegression` exports, and a dense layer with a sigmoid.
//!
//! ```text
//!  input ─► [Scaler] ─┬► LinearClassifier ──────────────────────────────┬─► [Normalizer] ─► output
//!                     └► Gemm, or MatMul ─► Add ─► Sigmoid, or Softmax ─┘
//! ```
//!
//! As with trees, ONNX Runtime is the specification: where a classifier has one row of coefficients for two classes, the
//! post-transform counts as ONNX Runtime lets it count, which is not what its name says.

use super::Unsupported;
use super::attributes::Attributes;
use super::finish::{Finish, Spread, Transform, transform};
use super::graph::{Model, Node};
use super::split::skip_trivial;

/// More coefficients than a linear model has: beyond, ONNX Runtime's matrix multiplication is the better engine.
const MOST_COEFFICIENTS: usize = 1 << 20;

/// A linear model: for each row and target the sum of coefficients × features, plus the intercept; then the finish.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Made of the features before they are summed up.
    pub scaler: Option<Scaler>,
    /// One row per target.
    pub coefficients: Vec<f32>,
    /// One per target.
    pub intercepts: Vec<f32>,
    /// What becomes of the sums.
    pub finish: Finish,
    /// Each score is then divided by the sum of its row's, where that is not 0 (`Normalizer`, L1), and this column
    /// is the wanted one.
    pub normalized: Option<usize>,
}

/// Replaces each feature x by (x - offset) × scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// One per feature.
    pub offset: Vec<f32>,
    /// One per feature.
    pub scale: Vec<f32>,
}

/// The node that sums up, in whatever form.
struct Sums<'a> {
    rows: &'a str,
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    spread: Spread,
    transform: Transform,
}

impl Linear {
    /// Reads `model`, which makes `output` of rows of `width` features in `input`; of several columns `column` is wanted.
    pub fn of(
        model: &[u8],
        input: &str,
        output: &str,
        width: usize,
        column: Option<usize>,
    ) -> Result<Linear, Unsupported> {
        let model = Model::read(model)?;
        let mut scores = skip_trivial(&model, output);
        let normalized = match node(&model, scores) {
            Some(node) if is(node, ML, "Normalizer") => {
                scores = skip_trivial(&model, normalizer(node)?);
                true
            }
            _ => false,
        };
        let sums = match node(&model, scores) {
            Some(node) if is(node, ML, "LinearClassifier") => classifier(node, scores, width)?,
            Some(node) if is(node, "", "Sigmoid") => dense(&model, node, Transform::Logistic, width)?,
            Some(node) if is(node, "", "Softmax") => {
                // Of a matrix: its columns.
                let axis = Attributes::read(&node.attributes)?.integer("axis", -1);
                if !matches!(axis, -1 | 1) {
                    return Err(Unsupported(format!("a softmax over axis {axis}")));
                }
                dense(&model, node, Transform::Softmax, width)?
            }
            _ => return Err(not_linear()),
        };
        let mut rows = skip_trivial(&model, sums.rows);
        let mut scaler = None;
        if let Some(node) = node(&model, rows).filter(|node| is(node, ML, "Scaler")) {
            scaler = Some(Scaler::read(node, width)?);
            rows = skip_trivial(&model, only(&node.inputs)?);
        }
        if rows != input {
            return Err(Unsupported::new("the linear model does not read the input, or something lies between"));
        }
        assemble(sums, scaler, normalized, width, column)
    }

    /// Targets that are summed up for each row.
    pub fn targets(&self) -> usize {
        self.intercepts.len()
    }

    /// Divides each row of all scores by its sum, where that was found, and leaves the wanted column.
    pub fn normalize(&self, scores: &mut Vec<f32>) {
        let Some(column) = self.normalized else { return };
        let (columns, rows) = (self.finish.columns(), scores.len() / self.finish.columns());
        for row in 0..rows {
            let all = &scores[row * columns..][..columns];
            let (sum, wanted) = (all.iter().map(|score| score.abs()).sum::<f32>(), all[column]);
            scores[row] = if sum == 0.0 { wanted } else { wanted / sum };
        }
        scores.truncate(rows);
    }
}

/// Of all that the nodes compute, what the wanted column needs.
fn assemble(
    mut sums: Sums<'_>,
    scaler: Option<Scaler>,
    normalized: bool,
    width: usize,
    column: Option<usize>,
) -> Result<Linear, Unsupported> {
    let columns = if sums.spread == Spread::Each { sums.intercepts.len() } else { 2 };
    let column = match column {
        None if columns > 1 => return Err(Unsupported::new("output.column is not set")),
        Some(column) if column >= columns => {
            return Err(Unsupported(format!("column {column} of {columns} is asked for")));
        }
        column => column.unwrap_or(0),
    };
    let (wanted, normalized) = if normalized { (None, Some(column)) } else { (Some(column), None) };
    let finish = Finish { spread: sums.spread, transform: sums.transform, columns, column: wanted };
    if let (Spread::Each, Some(column)) = (sums.spread, finish.single()) {
        sums.coefficients = sums.coefficients[column * width..][..width].to_vec();
        sums.intercepts = vec![sums.intercepts[column]];
    }
    Ok(Linear { scaler, coefficients: sums.coefficients, intercepts: sums.intercepts, finish, normalized })
}

/// Domain of the operators for classical models.
const ML: &str = "ai.onnx.ml";

fn not_linear() -> Unsupported {
    Unsupported::new("it is no linear model")
}

fn is(node: &Node<'_>, domain: &str, operator: &str) -> bool {
    node.domain == domain && node.operator == operator
}

fn node<'m, 'a>(model: &'m Model<'a>, value: &str) -> Option<&'m Node<'a>> {
    model.source(value).map(|index| &model.nodes[index])
}

fn only<'a>(inputs: &[&'a str]) -> Result<&'a str, Unsupported> {
    match inputs {
        [input] => Ok(input),
        _ => Err(not_linear()),
    }
}

impl Scaler {
    fn read(node: &Node<'_>, width: usize) -> Result<Scaler, Unsupported> {
        let attributes = Attributes::read(&node.attributes)?;
        let each = |name: &str| match attributes.floats(name)? {
            floats if floats.len() == width => Ok(floats),
            floats if floats.len() == 1 => Ok(vec![floats[0]; width]),
            floats => {
                Err(Unsupported(format!("the scaler has {} values of {name} for {width} features", floats.len())))
            }
        };
        Ok(Scaler { offset: each("offset")?, scale: each("scale")? })
    }
}

/// The value that a `Normalizer` divides.
fn normalizer<'a>(node: &Node<'a>) -> Result<&'a str, Unsupported> {
    match Attributes::read(&node.attributes)?.text("norm", "MAX") {
        b"L1" => only(&node.inputs),
        other => Err(Unsupported(format!("a normalizer by {}", String::from_utf8_lossy(other)))),
    }
}

fn classifier<'a>(node: &Node<'a>, scores: &str, width: usize) -> Result<Sums<'a>, Unsupported> {
    if node.outputs.get(1) != Some(&scores) {
        return Err(Unsupported::new("the linear classifier's label is asked for, not its scores"));
    }
    let attributes = Attributes::read(&node.attributes)?;
    let (coefficients, intercepts) = (attributes.floats("coefficients")?, attributes.floats("intercepts")?);
    check_size(&coefficients, intercepts.len(), width)?;
    let labels = attributes.integers("classlabels_ints").len().max(attributes.texts("classlabels_strings").len());
    let transform = transform(attributes.text("post_transform", "NONE"))?;
    let (spread, transform) = match (intercepts.len(), labels, transform) {
        (1, 2, Transform::Logistic) => (Spread::Mirror, Transform::Logistic),
        (1, 2, Transform::None | Transform::Softmax | Transform::SoftmaxZero) => (Spread::Complement, Transform::None),
        (1, _, _) => return Err(Unsupported::new("what a linear classifier of this form gives is not defined")),
        (_, _, transform) => (Spread::Each, transform),
    };
    Ok(Sums { rows: only(&node.inputs)?, coefficients, intercepts, spread, transform })
}

/// A dense layer below `activation`.
fn dense<'a>(
    model: &Model<'a>,
    activation: &Node<'a>,
    transform: Transform,
    width: usize,
) -> Result<Sums<'a>, Unsupported> {
    let value = skip_trivial(model, only(&activation.inputs)?);
    let layer = node(model, value).ok_or_else(not_linear)?;
    let (rows, weights, intercepts) = match (layer.operator, &layer.inputs[..]) {
        ("Gemm", [rows, weights, rest @ ..]) if layer.domain.is_empty() && rest.len() < 2 => {
            let attributes = Attributes::read(&layer.attributes)?;
            let plain = attributes.float("alpha", 1.0) == 1.0
                && attributes.float("beta", 1.0) == 1.0
                && attributes.integer("transA", 0) == 0;
            if !plain {
                return Err(Unsupported::new("the dense layer's product is scaled or transposed"));
            }
            let by_target = attributes.integer("transB", 0) != 0;
            (*rows, Weights::read(model, weights, by_target, width)?, rest.first().copied())
        }
        ("MatMul", [rows, weights]) if layer.domain.is_empty() => {
            (*rows, Weights::read(model, weights, false, width)?, None)
        }
        ("Add", [first, second]) if layer.domain.is_empty() => {
            let product = |value| node(model, value).filter(|node| is(node, "", "MatMul"));
            let (product, intercepts) = match (product(first), product(second)) {
                (Some(product), None) => (product, second),
                (None, Some(product)) => (product, first),
                _ => return Err(not_linear()),
            };
            let [rows, weights] = product.inputs[..] else { return Err(not_linear()) };
            (rows, Weights::read(model, weights, false, width)?, Some(*intercepts))
        }
        _ => return Err(not_linear()),
    };
    let Weights { coefficients, targets } = weights;
    let intercepts = match intercepts.filter(|name| !name.is_empty()) {
        None => vec![0.0; targets],
        Some(name) => match model.constants(name) {
            // Broadcast over the rows; one value also over the targets.
            Some((sizes, values)) if matches!(sizes[..], [] | [_] | [1, _]) && values.len() == targets => values,
            Some((sizes, values)) if matches!(sizes[..], [] | [1] | [1, 1]) => vec![values[0]; targets],
            _ => return Err(Unsupported::new("the dense layer's intercepts are not one constant per target")),
        },
    };
    check_size(&coefficients, targets, width)?;
    Ok(Sums { rows, coefficients, intercepts, spread: Spread::Each, transform })
}

/// The constant matrix of a dense layer, by target.
struct Weights {
    coefficients: Vec<f32>,
    targets: usize,
}

impl Weights {
    fn read(model: &Model<'_>, name: &str, by_target: bool, width: usize) -> Result<Weights, Unsupported> {
        let refused = || Unsupported(format!("the dense layer's weights are no constant matrix for {width} features"));
        let (sizes, values) = model.constants(name).ok_or_else(refused)?;
        match sizes[..] {
            [targets, features] if by_target && features == width => Ok(Weights { coefficients: values, targets }),
            [features, targets] if !by_target && features == width => {
                let by_target = (0..targets).flat_map(|target| values.iter().skip(target).step_by(targets).copied());
                Ok(Weights { coefficients: by_target.collect(), targets })
            }
            _ => Err(refused()),
        }
    }
}

fn check_size(coefficients: &[f32], targets: usize, width: usize) -> Result<(), Unsupported> {
    match targets.checked_mul(width) {
        Some(count) if count == coefficients.len() && (1..=MOST_COEFFICIENTS).contains(&count) => Ok(()),
        _ => Err(Unsupported(format!(
            "{} coefficients and {targets} intercepts do not fit {width} features",
            coefficients.len()
        ))),
    }
}
