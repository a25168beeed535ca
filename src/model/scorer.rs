//! One scoring thread's model: feature rows in, probabilities out, through ONNX Runtime.
//!
//! The session runs on the calling thread alone (one intra-op thread): threads of the worker are the unit of scale, and
//! a pool inside each would only make them wait for each other. Input is borrowed, output copied once.

use ndarray::ArrayView2;
use ort::session::Session;
use ort::value::{TensorElementType, TensorRef, ValueType};

use super::ModelError;
use super::manifest::Manifest;
use super::runtime;

/// A loaded graph that keeps its manifest's contract.
pub struct Scorer {
    session: Session,
    input: String,
    output: String,
    column: Option<usize>,
    width: usize,
}

/// ONNX Runtime failed on a batch, or gave a tensor of another shape than it promised.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InferenceError(String);

impl Scorer {
    /// Builds a session from the model's bytes and holds its inputs and outputs against the manifest.
    pub fn new(manifest: &Manifest, model: &[u8]) -> Result<Scorer, ModelError> {
        let environment = runtime::environment()?;
        let refuse = |reason: String| ModelError::Graph { model: manifest.id(), reason };
        let build = || -> ort::Result<Session> {
            Session::builder(environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .commit_from_memory(model)
        };
        let session = build().map_err(|error| refuse(format!("ONNX Runtime refused the graph: {error}")))?;
        check_signature(&session, manifest).map_err(refuse)?;
        Ok(Scorer {
            session,
            input: manifest.input.clone(),
            output: manifest.output.tensor.clone(),
            column: manifest.output.column,
            width: manifest.features.len(),
        })
    }

    /// Scores row-major `features`; replaces `scores` by one probability per row, in order.
    pub fn score(&mut self, features: &[f32], scores: &mut Vec<f32>) -> Result<(), InferenceError> {
        scores.clear();
        let rows = features.len() / self.width;
        if rows == 0 {
            return Ok(());
        }
        let rows_view = ArrayView2::from_shape((rows, self.width), features).map_err(failure)?;
        let input = TensorRef::from_array_view(rows_view).map_err(failure)?;
        let outputs = self.session.run(ort::inputs![self.input.as_str() => input]).map_err(failure)?;
        let (shape, values) = outputs[self.output.as_str()].try_extract_tensor::<f32>().map_err(failure)?;
        match (&shape[..], self.column) {
            ([found], _) if *found as usize == rows => scores.extend_from_slice(values),
            ([_, columns], None) if *columns > 1 => {
                return Err(InferenceError(format!(
                    "the output has {columns} columns: say which is the positive class by output.column"
                )));
            }
            ([found, columns], column) if *found as usize == rows && column.unwrap_or(0) < *columns as usize => {
                scores.extend(values.iter().skip(column.unwrap_or(0)).step_by(*columns as usize));
            }
            (shape, _) => return Err(InferenceError(format!("{rows} rows gave a tensor of shape {shape:?}"))),
        }
        Ok(())
    }
}

fn failure(error: impl std::fmt::Display) -> InferenceError {
    InferenceError(error.to_string())
}

/// Holds the graph's inputs and outputs against the manifest; the error says which field to mend.
fn check_signature(session: &Session, manifest: &Manifest) -> Result<(), String> {
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
                Some(column) if columns >= 0 && column as i64 >= columns => {
                    Err(format!("output.column = {column}, but the graph's output has {columns} columns"))
                }
                None if columns > 1 => Err(format!(
                    "the graph's output has {columns} columns: say which is the positive class by output.column"
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
