//! A model file as nodes with names for edges, and models made of some of its nodes.
//!
//! Field numbers are those of <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

use std::collections::HashSet;

use super::Unsupported;
use super::attributes::{Attributes, Tensor};
use super::wire::{Value, Writer, fields};

/// `ModelProto.graph`.
pub(super) const GRAPH: u64 = 7;

/// An operator applied to values by name.
pub struct Node<'a> {
    /// Names of the values it takes; empty for an optional one left out.
    pub inputs: Vec<&'a str>,
    /// Names of the values it gives.
    pub outputs: Vec<&'a str>,
    /// Operator.
    pub operator: &'a str,
    /// Where the operator is defined; empty for ONNX's own.
    pub domain: &'a str,
    /// Messages of type `AttributeProto`.
    pub attributes: Vec<&'a [u8]>,
    /// All of its field in the graph.
    pub(super) raw: &'a [u8],
}

impl<'a> Node<'a> {
    fn read(message: &'a [u8], raw: &'a [u8]) -> Result<Node<'a>, Unsupported> {
        let mut node =
            Node { inputs: Vec::new(), outputs: Vec::new(), operator: "", domain: "", attributes: Vec::new(), raw };
        for field in fields(message) {
            let field = field?;
            match field.number {
                1 => node.inputs.push(field.value.text()?),
                2 => node.outputs.push(field.value.text()?),
                4 => node.operator = field.value.text()?,
                5 => node.attributes.push(field.value.bytes()?),
                7 => node.domain = field.value.text()?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// Whether it is one of the operators for tree ensembles.
    pub fn is_trees(&self) -> bool {
        self.domain == "ai.onnx.ml" && self.operator.starts_with("TreeEnsemble")
    }

    /// The attribute `name`, if it is an integer.
    pub fn integer_attribute(&self, name: &str) -> Option<i64> {
        let attributes = Attributes::read(&self.attributes).ok()?;
        Some(attributes.integer(name, -1)).filter(|value| *value >= 0)
    }

    /// Whether an attribute is a graph: that may use values of the outer one without naming them as inputs.
    fn has_graph(&self) -> Result<bool, Unsupported> {
        for attribute in &self.attributes {
            for field in fields(attribute) {
                if matches!(field?.number, 6 | 11) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// A value that is declared: an initializer, an input or an output of the graph.
pub(super) struct Declared<'a> {
    pub(super) name: &'a str,
    content: &'a [u8],
    raw: &'a [u8],
}

impl<'a> Declared<'a> {
    /// Reads a declaration whose name stands in the field of number `name_field`.
    pub(super) fn read(content: &'a [u8], name_field: u64, raw: &'a [u8]) -> Result<Declared<'a>, Unsupported> {
        let mut name = "";
        for field in fields(content) {
            let field = field?;
            if field.number == name_field {
                name = field.value.text()?;
            }
        }
        Ok(Declared { name, content, raw })
    }
}

/// A model file, borrowed.
pub struct Model<'a> {
    /// Everything around the graph: versions, imported operator sets, functions.
    around: Vec<&'a [u8]>,
    /// Its nodes, each behind those whose values it takes.
    pub nodes: Vec<Node<'a>>,
    initializers: Vec<Declared<'a>>,
    inputs: Vec<Declared<'a>>,
}

impl<'a> Model<'a> {
    /// Reads a model file.
    pub fn read(file: &'a [u8]) -> Result<Model<'a>, Unsupported> {
        let mut model = Model { around: Vec::new(), nodes: Vec::new(), initializers: Vec::new(), inputs: Vec::new() };
        let mut graphs = Vec::new();
        for field in fields(file) {
            let field = field?;
            match field.number {
                GRAPH => graphs.push(field.value.bytes()?),
                _ => model.around.push(field.raw),
            }
        }
        let [graph] = graphs[..] else { return Err(Unsupported::new("the file does not have one graph")) };
        for field in fields(graph) {
            let field = field?;
            match (field.number, field.value) {
                (1, Value::Bytes(message)) => model.nodes.push(Node::read(message, field.raw)?),
                (5, Value::Bytes(message)) => model.initializers.push(Declared::read(message, 8, field.raw)?),
                (11, Value::Bytes(message)) => model.inputs.push(Declared::read(message, 1, field.raw)?),
                (15, _) => return Err(Unsupported::new("the graph has sparse initializers")),
                _ => {}
            }
        }
        Ok(model)
    }

    /// Whether a node of ONNX's machine learning operators is called so.
    pub fn has_operator(&self, name: &str) -> bool {
        self.nodes.iter().any(|node| node.domain == "ai.onnx.ml" && node.operator == name)
    }

    /// The node that gives `value`; none for inputs and initializers.
    pub fn source(&self, value: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.outputs.contains(&value))
    }

    /// The 32-bit float that `value` always is, if it is an initializer of one.
    pub fn constant(&self, value: &str) -> Option<f32> {
        self.initializer(value)?.single_float()
    }

    /// Sizes and values of the 32-bit floats that `value` always is, if it is an initializer of them.
    pub fn constants(&self, value: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.initializer(value)?.float_array()
    }

    fn initializer(&self, value: &str) -> Option<Tensor<'a>> {
        let initializer = self.initializers.iter().find(|initializer| initializer.name == value)?;
        // A graph input of the same name could replace it.
        if self.inputs.iter().any(|input| input.name == value) {
            return None;
        }
        Tensor::read(initializer.content).ok()
    }

    /// What `value` is computed from, as if the values in `given` were inputs: indices of nodes in the file's order,
    /// and the names of all values that are not computed.
    pub fn ancestors(&self, value: &str, given: &[&str]) -> (Vec<usize>, HashSet<&'a str>) {
        let (mut nodes, mut leaves) = (HashSet::new(), HashSet::new());
        let mut open: Vec<usize> = self.source(value).filter(|_| !given.contains(&value)).into_iter().collect();
        while let Some(index) = open.pop() {
            if !nodes.insert(index) {
                continue;
            }
            for name in self.nodes[index].inputs.iter().copied().filter(|name| !name.is_empty()) {
                match self.source(name).filter(|_| !given.contains(&name)) {
                    Some(source) => open.push(source),
                    None => _ = leaves.insert(name),
                }
            }
        }
        let mut nodes: Vec<usize> = nodes.into_iter().collect();
        nodes.sort_unstable();
        (nodes, leaves)
    }

    /// A model of the `nodes` alone that takes the graph's input `input` (if it is one of the `leaves`) and `given`, a
    /// 32-bit float matrix of unknown size, and gives `output`.
    pub fn part(
        &self,
        (nodes, leaves): &(Vec<usize>, HashSet<&str>),
        given: Option<&str>,
        output: &str,
    ) -> Result<Vec<u8>, Unsupported> {
        let mut graph = Writer::default();
        for &index in nodes {
            if self.nodes[index].has_graph()? {
                return Err(Unsupported::new("a node around the trees holds a graph of its own"));
            }
            graph.raw(self.nodes[index].raw);
        }
        graph.bytes(2, b"part");
        let declared = self.initializers.iter().chain(&self.inputs);
        for declared in declared.filter(|declared| leaves.contains(declared.name) && given != Some(declared.name)) {
            graph.raw(declared.raw);
        }
        for name in given.into_iter().filter(|name| leaves.contains(name)) {
            graph.message(11, |value| matrix(value, name));
        }
        graph.message(12, |value| matrix(value, output));
        let mut model = Writer::default();
        for field in &self.around {
            model.raw(field);
        }
        Ok(std::mem::take(&mut model.bytes(GRAPH, &graph.0).0))
    }
}

/// `ValueInfoProto` of a 32-bit float matrix; ONNX Runtime finds out the sizes.
pub(super) fn matrix(value: &mut Writer, name: &str) {
    value.bytes(1, name.as_bytes()).message(2, |kind| {
        kind.message(1, |tensor| {
            tensor.integer(1, 1);
        });
    });
}
