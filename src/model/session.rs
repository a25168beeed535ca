//! ONNX Runtime on the calling thread: a model's bytes as something that can be run on rows.
//!
//! The session computes on the calling thread alone (one intra-op thread): threads of the worker are the unit of scale,
//! and a pool inside each would only make them wait for each other. Input is borrowed, and so is the output.

use fraud_trees::onnx::external_weights;
use fraud_trees::onnx::wire::Writer;
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
        let session = build().map_err(|error| refuse(refused(&runtime::plain(&error.to_string()))))?;
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

/// The newest models that this ONNX Runtime reads, as it says itself when it is given newer ones: IR version and operator set.
pub fn newest_readable() -> Option<(u32, u32)> {
    const TOO_NEW: i64 = 1_000_000;
    let refusal = |ir_version, operator_set| {
        let mut model = Writer::default();
        model.integer(1, ir_version).message(8, |import| _ = import.integer(2, operator_set)).message(7, |graph| {
            graph.bytes(2, b"empty");
        });
        GraphSession::new(&model.0, "empty").err().map(|error| error.to_string())
    };
    let number_behind = |text: String, words: &str| {
        let (_, rest) = text.split_once(words)?;
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    let ir_version = number_behind(refusal(TOO_NEW, 17)?, "max supported IR version: ")?;
    Some((ir_version, number_behind(refusal(8, TOO_NEW)?, "is till opset ")?))
}

/// Why there is no session, and what can be done where that is known.
fn refused(reason: &str) -> String {
    let remedy = if reason.contains("Unsupported model IR version") {
        ": save it with an older version (model.ir_version = 10; onnx.save(model, path)), which changes nothing else"
    } else if reason.contains("opset") {
        ": export it for an older operator set (target_opset), or bring a newer ONNX Runtime (ORT_DYLIB_PATH)"
    } else {
        ""
    };
    format!("ONNX Runtime refused the graph: {reason}{remedy}")
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
                "the output has {columns} columns: say which is the positive class by output.class or output.column"
            )));
        }
        ([found, columns], column) if *found as usize == rows && column.unwrap_or(0) < *columns as usize => {
            scores.extend(values.iter().skip(column.unwrap_or(0)).step_by(*columns as usize));
        }
        (shape, _) => return Err(InferenceError::new(format!("{rows} rows gave a tensor of shape {shape:?}"))),
    }
    Ok(())
}
