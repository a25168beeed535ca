//! A node's attributes, as the tree operators use them.

use std::collections::HashMap;

use super::Unsupported;
use super::wire::{Value, fields};

/// `TensorProto.DataType`: 32-bit float.
const FLOAT: i64 = 1;
/// `TensorProto.DataType`: unsigned byte.
const UINT8: i64 = 2;

/// The attributes of a node by name.
#[derive(Default)]
pub struct Attributes<'a> {
    by_name: HashMap<&'a str, Attribute<'a>>,
}

/// One attribute: of its fields, those of its type are filled.
#[derive(Default)]
struct Attribute<'a> {
    float: Option<f32>,
    integer: i64,
    text: &'a [u8],
    tensor: Option<&'a [u8]>,
    floats: Vec<f32>,
    integers: Vec<i64>,
    texts: Vec<&'a [u8]>,
}

impl<'a> Attributes<'a> {
    /// Reads the messages of type `AttributeProto`.
    pub fn read(messages: &[&'a [u8]]) -> Result<Attributes<'a>, Unsupported> {
        let mut attributes = Attributes::default();
        for message in messages {
            let (mut name, mut attribute) = ("", Attribute::default());
            for field in fields(message) {
                let field = field?;
                match field.number {
                    1 => name = field.value.text()?,
                    2 => attribute.float = Some(field.value.float()?),
                    3 => attribute.integer = field.value.integer()?,
                    4 => attribute.text = field.value.bytes()?,
                    5 => attribute.tensor = Some(field.value.bytes()?),
                    7 => field.value.floats(&mut attribute.floats)?,
                    8 => field.value.integers(&mut attribute.integers)?,
                    9 => attribute.texts.push(field.value.bytes()?),
                    _ => {}
                }
            }
            if attributes.by_name.insert(name, attribute).is_some() {
                return Err(Unsupported(format!("a node has the attribute {name} twice")));
            }
        }
        Ok(attributes)
    }

    /// A float, `default` where it is absent.
    pub fn float(&self, name: &str, default: f32) -> f32 {
        self.by_name.get(name).and_then(|attribute| attribute.float).unwrap_or(default)
    }

    /// An integer, `default` where it is absent.
    pub fn integer(&self, name: &str, default: i64) -> i64 {
        self.by_name.get(name).map_or(default, |attribute| attribute.integer)
    }

    /// A text, `default` where it is absent.
    pub fn text(&self, name: &str, default: &'static str) -> &[u8] {
        self.by_name.get(name).map_or(default.as_bytes(), |attribute| attribute.text)
    }

    /// A list of integers, empty where it is absent.
    pub fn integers(&self, name: &str) -> &[i64] {
        self.by_name.get(name).map_or(&[], |attribute| &attribute.integers)
    }

    /// A list of texts, empty where it is absent.
    pub fn texts(&self, name: &str) -> &[&'a [u8]] {
        self.by_name.get(name).map_or(&[], |attribute| &attribute.texts)
    }

    /// A list of floats under `name`, or as a tensor under `name_as_tensor`; empty where both are absent.
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, Unsupported> {
        match self.by_name.get(name).filter(|attribute| !attribute.floats.is_empty()) {
            Some(attribute) => Ok(attribute.floats.clone()),
            None => self.float_tensor(&format!("{name}_as_tensor")),
        }
    }

    /// A tensor of 32-bit floats, empty where it is absent.
    pub fn float_tensor(&self, name: &str) -> Result<Vec<f32>, Unsupported> {
        let Some(tensor) = self.tensor(name)? else { return Ok(Vec::new()) };
        if tensor.data_type != FLOAT {
            return Err(Unsupported(format!("{name} is not of 32-bit floats")));
        }
        let mut floats = tensor.floats;
        Value::Bytes(tensor.raw).floats(&mut floats)?;
        Ok(floats)
    }

    /// A tensor of bytes, empty where it is absent.
    pub fn byte_tensor(&self, name: &str) -> Result<Vec<u8>, Unsupported> {
        let Some(tensor) = self.tensor(name)? else { return Ok(Vec::new()) };
        if tensor.data_type != UINT8 {
            return Err(Unsupported(format!("{name} is not of bytes")));
        }
        Ok(tensor.raw.iter().copied().chain(tensor.integers.iter().map(|&integer| integer as u8)).collect())
    }

    fn tensor(&self, name: &str) -> Result<Option<Tensor<'a>>, Unsupported> {
        self.by_name.get(name).and_then(|attribute| attribute.tensor).map(Tensor::read).transpose()
    }
}

/// `TensorProto`, one of whose kinds of data is filled.
#[derive(Default)]
pub struct Tensor<'a> {
    /// `TensorProto.DataType`.
    data_type: i64,
    dimensions: Vec<i64>,
    floats: Vec<f32>,
    integers: Vec<i64>,
    raw: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Reads the message.
    pub fn read(message: &'a [u8]) -> Result<Tensor<'a>, Unsupported> {
        let mut tensor = Tensor::default();
        for field in fields(message) {
            let field = field?;
            match field.number {
                1 => field.value.integers(&mut tensor.dimensions)?,
                2 => tensor.data_type = field.value.integer()?,
                4 => field.value.floats(&mut tensor.floats)?,
                5 => field.value.integers(&mut tensor.integers)?,
                9 => tensor.raw = field.value.bytes()?,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// Sizes and values of a tensor of 32-bit floats; none where it is of another type, or the two do not match.
    pub fn float_array(self) -> Option<(Vec<usize>, Vec<f32>)> {
        let mut floats = self.floats;
        Value::Bytes(self.raw).floats(&mut floats).ok()?;
        let sizes = self.dimensions.iter().map(|size| usize::try_from(*size).ok()).collect::<Option<Vec<_>>>()?;
        let count = sizes.iter().try_fold(1_usize, |count, size| count.checked_mul(*size))?;
        (self.data_type == FLOAT && count == floats.len()).then_some((sizes, floats))
    }

    /// The only value of a tensor of one 32-bit float.
    pub fn single_float(&self) -> Option<f32> {
        match (self.data_type, &self.floats[..], self.raw) {
            (FLOAT, [value], []) => Some(*value),
            (FLOAT, [], raw) => Some(f32::from_le_bytes(raw.try_into().ok()?)),
            _ => None,
        }
    }
}
