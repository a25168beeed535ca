//! Tree nodes that no library exports, and yet the operators allow: random trees with every mode, transform and
//! aggregate, written as ONNX files.

use fraud_trees::onnx::wire::Writer;

use super::WIDTH;
use crate::model::trees::rows::Random;

/// The modes of branches.
pub const MODES: [&str; 6] = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];

/// What an attribute holds.
#[derive(Clone)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f32),
    /// A word.
    Text(&'static str),
    /// Whole numbers.
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f32>),
    /// Words.
    Texts(Vec<&'static str>),
    /// A tensor: data type and bytes.
    Tensor(i64, Vec<u8>),
}

/// A node: inputs, outputs, operator, domain, attributes.
pub struct Node<'a>(pub &'a [&'a str], pub &'a [&'a str], pub &'a str, pub &'a str, pub Vec<(&'a str, Value)>);

/// Domain of the tree operators.
pub const ML: &str = "ai.onnx.ml";

/// A model of `nodes` from `input` to `scores`, with this version of the tree operators.
pub fn model(nodes: &[Node<'_>], version: i64) -> Vec<u8> {
    model_with(&[], nodes, version)
}

/// A constant: name, sizes, values.
pub type Constant<'a> = (&'a str, &'a [i64], &'a [f32]);

/// Likewise, with constants.
pub fn model_with(constants: &[Constant<'_>], nodes: &[Node<'_>], version: i64) -> Vec<u8> {
    let mut model = Writer::default();
    model.integer(1, 9);
    for (domain, version) in [("", 17), (ML, version)] {
        model.message(8, |import| {
            import.bytes(1, domain.as_bytes()).integer(2, version);
        });
    }
    model.message(7, |graph| {
        for node in nodes {
            graph.message(1, |written| write_node(written, node));
        }
        graph.bytes(2, b"by-hand");
        for (name, sizes, values) in constants {
            graph.message(5, |tensor| {
                sizes.iter().for_each(|size| _ = tensor.integer(1, *size));
                tensor.integer(2, 1).bytes(8, name.as_bytes());
                tensor.bytes(9, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
            });
        }
        graph.message(11, |value| declare(value, "input", Some(WIDTH as i64)));
        graph.message(12, |value| declare(value, "scores", None));
    });
    model.0
}

fn declare(value: &mut Writer, name: &str, columns: Option<i64>) {
    value.bytes(1, name.as_bytes()).message(2, |kind| {
        kind.message(1, |tensor| {
            tensor.integer(1, 1);
            tensor.message(2, |shape| {
                shape.bytes(1, b"").message(1, |dimension| {
                    columns.into_iter().for_each(|columns| _ = dimension.integer(1, columns));
                });
            });
        });
    });
}

fn write_node(written: &mut Writer, Node(inputs, outputs, operator, domain, attributes): &Node<'_>) {
    inputs.iter().for_each(|input| _ = written.bytes(1, input.as_bytes()));
    outputs.iter().for_each(|output| _ = written.bytes(2, output.as_bytes()));
    written.bytes(4, operator.as_bytes()).bytes(7, domain.as_bytes());
    for (name, value) in attributes {
        written.message(5, |attribute| {
            attribute.bytes(1, name.as_bytes());
            let kind = match value {
                Value::Integer(value) => {
                    attribute.integer(3, *value);
                    2
                }
                Value::Float(value) => {
                    attribute.float(2, *value);
                    1
                }
                Value::Text(value) => {
                    attribute.bytes(4, value.as_bytes());
                    3
                }
                Value::Tensor(kind, bytes) => {
                    let size = if *kind == 11 {
                        8
                    } else if *kind == 1 {
                        4
                    } else {
                        1
                    };
                    attribute.message(5, |tensor| {
                        tensor.integer(1, (bytes.len() / size) as i64).integer(2, *kind).bytes(9, bytes);
                    });
                    4
                }
                Value::Floats(values) => {
                    attribute.bytes(7, &values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
                    6
                }
                Value::Integers(values) => {
                    values.iter().for_each(|value| _ = attribute.integer(8, *value));
                    7
                }
                Value::Texts(values) => {
                    values.iter().for_each(|value| _ = attribute.bytes(9, value.as_bytes()));
                    8
                }
            };
            attribute.integer(20, kind);
        });
    }
}

/// A row of a tree node's lists.
pub struct Step {
    tree: i64,
    number: i64,
    feature: i64,
    threshold: f32,
    mode: &'static str,
    on_true: i64,
    on_false: i64,
    missing_tracks_true: i64,
}

/// A leaf's weight for an output.
pub struct Weight {
    tree: i64,
    number: i64,
    output: i64,
    value: f32,
}

/// Random trees, as lists of nodes and weights.
pub struct Trees {
    steps: Vec<Step>,
    weights: Vec<Weight>,
}

/// How trees are drawn.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    /// How many.
    pub trees: i64,
    /// Longest way to a leaf; many are shorter.
    pub depth: u32,
    /// Modes of the branches.
    pub modes: &'a [&'static str],
    /// Outputs that leaves name.
    pub outputs: &'a [i64],
    /// Whether each leaf names all of them, or one.
    pub all: bool,
    /// Bounds of weights.
    pub weights: (f32, f32),
}

impl Trees {
    /// Draws them. Thresholds are halves from -2 to 2, so that rows of halves meet them.
    pub fn draw(seed: usize, shape: Shape<'_>) -> Trees {
        let mut random = Random::fixed();
        (0..seed).for_each(|_| _ = random.below(2));
        let mut trees = Trees { steps: Vec::new(), weights: Vec::new() };
        for tree in 0..shape.trees {
            let mut count = 0;
            trees.grow(tree, shape.depth, &mut count, shape, &mut random);
        }
        trees
    }

    fn grow(&mut self, tree: i64, left: u32, count: &mut i64, shape: Shape<'_>, random: &mut Random) -> i64 {
        let (number, place) = (*count, self.steps.len());
        *count += 1;
        self.steps.push(Step {
            tree,
            number,
            feature: random.below(WIDTH) as i64,
            threshold: (random.below(9) as f32 - 4.0) / 2.0,
            mode: "LEAF",
            on_true: 0,
            on_false: 0,
            missing_tracks_true: random.below(2) as i64,
        });
        if left == 0 || (left < shape.depth && random.below(4) == 0) {
            let one = [random.pick(shape.outputs)];
            for &output in if shape.all { shape.outputs } else { &one } {
                let value = shape.weights.0 + (shape.weights.1 - shape.weights.0) * random.below(1_000) as f32 / 1e3;
                self.weights.push(Weight { tree, number, output, value });
            }
        } else {
            self.steps[place].mode = random.pick(shape.modes);
            self.steps[place].on_true = self.grow(tree, left - 1, count, shape, random);
            self.steps[place].on_false = self.grow(tree, left - 1, count, shape, random);
        }
        number
    }

    /// The attributes of a node; `kind` is class or target.
    fn attributes(&self, kind: &str, missing: bool) -> Vec<(&'static str, Value)> {
        let integers = |of: fn(&Step) -> i64| Value::Integers(self.steps.iter().map(of).collect());
        let weights = |of: fn(&Weight) -> i64| Value::Integers(self.weights.iter().map(of).collect());
        let names = match kind {
            "class" => ["class_treeids", "class_nodeids", "class_ids", "class_weights"],
            _ => ["target_treeids", "target_nodeids", "target_ids", "target_weights"],
        };
        let mut attributes = vec![
            ("nodes_treeids", integers(|step| step.tree)),
            ("nodes_nodeids", integers(|step| step.number)),
            ("nodes_featureids", integers(|step| step.feature)),
            ("nodes_values", Value::Floats(self.steps.iter().map(|step| step.threshold).collect())),
            ("nodes_modes", Value::Texts(self.steps.iter().map(|step| step.mode).collect())),
            ("nodes_truenodeids", integers(|step| step.on_true)),
            ("nodes_falsenodeids", integers(|step| step.on_false)),
            (names[0], weights(|weight| weight.tree)),
            (names[1], weights(|weight| weight.number)),
            (names[2], weights(|weight| weight.output)),
            (names[3], Value::Floats(self.weights.iter().map(|weight| weight.value).collect())),
        ];
        if missing {
            attributes.push(("nodes_missing_value_tracks_true", integers(|step| step.missing_tracks_true)));
        }
        attributes
    }

    /// A classifier from `rows` to `scores`.
    pub fn classifier(
        &self,
        classes: i64,
        transform: &'static str,
        base_values: &[f32],
        missing: bool,
    ) -> Vec<(&'static str, Value)> {
        let mut attributes = self.attributes("class", missing);
        attributes.push(("post_transform", Value::Text(transform)));
        attributes.push(("classlabels_int64s", Value::Integers((0..classes).collect())));
        if !base_values.is_empty() {
            attributes.push(("base_values", Value::Floats(base_values.to_vec())));
        }
        attributes
    }

    /// A regressor.
    pub fn regressor(
        &self,
        targets: i64,
        transform: &'static str,
        aggregate: &'static str,
        base_values: &[f32],
    ) -> Vec<(&'static str, Value)> {
        let mut attributes = self.attributes("target", true);
        attributes.push(("post_transform", Value::Text(transform)));
        attributes.push(("aggregate_function", Value::Text(aggregate)));
        attributes.push(("n_targets", Value::Integer(targets)));
        if !base_values.is_empty() {
            attributes.push(("base_values", Value::Floats(base_values.to_vec())));
        }
        attributes
    }

    /// The same trees as `TreeEnsemble` of version 5 has them; each leaf must name one output.
    pub fn version5(&self, targets: i64, transform: i64, aggregate: i64) -> Vec<(&'static str, Value)> {
        let (leaves, branches): (Vec<&Step>, Vec<&Step>) = self.steps.iter().partition(|step| step.mode == "LEAF");
        let place = |tree: i64, number: i64| {
            let at = |list: &[&Step]| list.iter().position(|step| (step.tree, step.number) == (tree, number));
            at(&branches).map_or_else(|| (at(&leaves).unwrap() as i64, 1), |index| (index as i64, 0))
        };
        let weight = |leaf: &Step| {
            self.weights.iter().find(|weight| (weight.tree, weight.number) == (leaf.tree, leaf.number)).unwrap()
        };
        let floats = |values: Vec<f32>| Value::Tensor(1, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        let integers = |of: &dyn Fn(&Step) -> i64| Value::Integers(branches.iter().map(|step| of(step)).collect());
        let modes = branches.iter().map(|step| MODES.iter().position(|mode| *mode == step.mode).unwrap() as u8);
        let roots = self.steps.iter().filter(|step| step.number == 0).map(|step| place(step.tree, 0).0);
        vec![
            ("n_targets", Value::Integer(targets)),
            ("post_transform", Value::Integer(transform)),
            ("aggregate_function", Value::Integer(aggregate)),
            ("tree_roots", Value::Integers(roots.collect())),
            ("nodes_modes", Value::Tensor(2, modes.collect())),
            ("nodes_featureids", integers(&|step| step.feature)),
            ("nodes_splits", floats(branches.iter().map(|step| step.threshold).collect())),
            ("nodes_truenodeids", integers(&|step| place(step.tree, step.on_true).0)),
            ("nodes_trueleafs", integers(&|step| place(step.tree, step.on_true).1)),
            ("nodes_falsenodeids", integers(&|step| place(step.tree, step.on_false).0)),
            ("nodes_falseleafs", integers(&|step| place(step.tree, step.on_false).1)),
            ("nodes_missing_value_tracks_true", integers(&|step| step.missing_tracks_true)),
            ("leaf_targetids", Value::Integers(leaves.iter().map(|leaf| weight(leaf).output).collect())),
            ("leaf_weights", floats(leaves.iter().map(|leaf| weight(leaf).value).collect())),
        ]
    }
}
