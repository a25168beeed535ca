//! ONNX Runtime on the calling thread: a model's bytes as something that can be run on rows.
//!
//! The session computes on the calling thread alone (one intra-op thread): threads of the worker are the unit of scale,
//! and a pool inside each would only make them wait for each other. Input is borrowed, and so is the output.

use fraud_trees::onnx::external_weights;
use ndarray::ArrayView2;
use ort::session::Session;
use ort::value::TensorRef;

use super::ModelError;
use super::runtime;
use super::scorer::InferenceError;

/// A loaded graph, or a part of one.
pub struct GraphSession {
    session: Session,
}

/// An input's name, its values row by row, and how many there are in a row.
pub type Input<'a> = (&'a str, &'a [f32], usize);

impl GraphSession {
    /// Loads a model; `name` stands in the error.
    pub fn new(model: &[u8], name: &str) -> Result<GraphSession, ModelError> {
        let refuse = |reason: String| ModelError::Graph { model: name.to_owned(), reason };
        match external_weights(model) {
            Ok(None) => {}
            Ok(Some(place)) => {
                return Err(refuse(format!(
                    "its weights lie in another file ({place:?}), of which sha256 says nothing: export it as one file \
                     (onnx.save_model(model, path, save_as_external_data=False))"
                )));
            }
            Err(error) => return Err(refuse(error.to_string())),
        }
        let environment = runtime::environment()?;
        let build = || -> ort::Result<Session> {
            Session::builder(environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .commit_from_memory(model)
        };
        let session = build().map_err(|error| refuse(format!("ONNX Runtime refused the graph: {error}")))?;
        Ok(GraphSession { session })
    }

    /// What ONNX Runtime knows of it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Runs it on `rows` rows and hands shape and values of `output` to `take`.
    pub fn run<T>(
        &mut self,
        rows: usize,
        (name, values, width): Input<'_>,
        second: Option<Input<'_>>,
        output: &str,
        take: impl FnOnce(&[i64], &[f32]) -> Result<T, InferenceError>,
    ) -> Result<T, InferenceError> {
        let tensor = |values, width| {
            let view = ArrayView2::from_shape((rows, width), values).map_err(InferenceError::new)?;
            TensorRef::from_array_view(view).map_err(InferenceError::new)
        };
        let first = tensor(values, width)?;
        let outputs = match second {
            None => self.session.run(ort::inputs![name => first]),
            Some((other, values, width)) => {
                self.session.run(ort::inputs![name => first, other => tensor(values, width)?])
            }
        };
        let outputs = outputs.map_err(InferenceError::new)?;
        let (shape, values) = outputs[output].try_extract_tensor::<f32>().map_err(InferenceError::new)?;
        take(shape, values)
    }
}

/// Appends one score per row: the only column, or `column` of several.
pub fn take_column(
    shape: &[i64],
    values: &[f32],
    rows: usize,
    column: Option<usize>,
    scores: &mut Vec<f32>,
) -> Result<(), InferenceError> {
    match (shape, column) {
        ([found], _) if *found as usize == rows => scores.extend_from_slice(values),
        ([_, columns], None) if *columns > 1 => {
            return Err(InferenceError::new(format!(
                "the output has {columns} columns: say which is the positive class by output.column"
            )));
        }
        ([found, columns], column) if *found as usize == rows && column.unwrap_or(0) < *columns as usize => {
            scores.extend(values.iter().skip(column.unwrap_or(0)).step_by(*columns as usize));
        }
        (shape, _) => return Err(InferenceError::new(format!("{rows} rows gave a tensor of shape {shape:?}"))),
    }
    Ok(())
}
