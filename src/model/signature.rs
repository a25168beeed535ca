//! Holds a graph's inputs and outputs against the manifest.

use ort::session::Session;
use ort::value::{TensorElementType, ValueType};

use super::manifest::Manifest;

/// Holds the graph's inputs and outputs against the manifest; the error says which field to mend.
pub fn check(session: &Session, manifest: &Manifest) -> Result<(), String> {
    let names = |outlets: &[ort::value::Outlet]| {
        outlets.iter().map(|outlet| outlet.name().to_owned()).collect::<Vec<_>>().join(", ")
    };
    let input = session.inputs().iter().find(|input| input.name() == manifest.input).ok_or_else(|| {
        format!("input.tensor = {:?} is no input of the graph (it has: {})", manifest.input, names(session.inputs()))
    })?;
    if session.inputs().len() > 1 {
        return Err(format!(
            "the graph wants {} inputs ({}), a bundle has one",
            session.inputs().len(),
            names(session.inputs())
        ));
    }
    let width = manifest.features.len();
    match input.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } if shape.len() == 2 => {
            if shape[1] >= 0 && shape[1] as usize != width {
                return Err(format!(
                    "input.features lists {width} features, the graph's input has {} columns",
                    shape[1]
                ));
            }
            if shape[0] > 0 {
                return Err(format!(
                    "the graph takes batches of exactly {} rows; export it with a dynamic first dimension",
                    shape[0]
                ));
            }
        }
        other => {
            return Err(format!("input {:?} must be float32 [rows, features], the graph has {other}", manifest.input));
        }
    }
    let output = session.outputs().iter().find(|output| output.name() == manifest.output.tensor).ok_or_else(|| {
        format!(
            "output.tensor = {:?} is no output of the graph (it has: {})",
            manifest.output.tensor,
            names(session.outputs())
        )
    })?;
    match output.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } if shape.len() <= 2 => {
            let columns = if shape.len() == 2 { shape[1] } else { -1 };
            match manifest.output.column {
                // A tensor of no known shape has none at all here.
                Some(column) if shape.len() == 1 && column > 0 => Err(format!(
                    "output.column = {column}, but the graph's output is one value a row: leave output.column out"
                )),
                Some(column) if columns >= 0 && column as i64 >= columns => {
                    Err(format!("output.column = {column}, but the graph's output has {columns} columns"))
                }
                None if columns > 1 => Err(format!(
                    "the graph's output has {columns} columns: say which is the positive class by output.class or output.column"
                )),
                _ => Ok(()),
            }
        }
        other => Err(format!(
            "output {:?} must be a float32 tensor, the graph has {other} (scikit-learn: export with zipmap=False)",
            manifest.output.tensor
        )),
    }
}
