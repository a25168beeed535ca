//! ZipMap: the operator that turns scores into a list of maps, which no tensor holds. What it takes is what is wanted.

use super::Unsupported;
use super::graph::{Declared, GRAPH, Model, matrix};
use super::wire::{Value, Writer, fields};

/// A model without the ZipMap that computes `output`, and the name of the tensor of scores that this takes, which is an
/// output now. `None` where no ZipMap computes it.
///
/// # Errors
/// The file cannot be read.
pub fn without_zip_map(file: &[u8], output: &str) -> Result<Option<(Vec<u8>, String)>, Unsupported> {
    let model = Model::read(file)?;
    let Some(node) = model.source(output).map(|index| &model.nodes[index]) else { return Ok(None) };
    let ("ZipMap", [scores]) = (node.operator, &node.inputs[..]) else { return Ok(None) };
    let mut whole = Writer::default();
    for field in fields(file) {
        let field = field?;
        match (field.number, field.value) {
            (GRAPH, Value::Bytes(graph)) => {
                let mut rest = Writer::default();
                for part in fields(graph) {
                    let part = part?;
                    let is_dropped = match (part.number, part.value) {
                        (1, _) => part.raw.as_ptr() == node.raw.as_ptr(),
                        (12, Value::Bytes(value)) => {
                            [output, *scores].contains(&Declared::read(value, 1, part.raw)?.name)
                        }
                        _ => false,
                    };
                    if !is_dropped {
                        rest.raw(part.raw);
                    }
                }
                rest.message(12, |value| matrix(value, scores));
                whole.bytes(GRAPH, &rest.0);
            }
            _ => _ = whole.raw(field.raw),
        }
    }
    Ok(Some((whole.0, (*scores).to_owned())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A node of `operator` from `input` to `output`.
    fn node(graph: &mut Writer, operator: &str, input: &str, output: &str) {
        graph.message(1, |node| {
            node.bytes(1, input.as_bytes()).bytes(2, output.as_bytes()).bytes(4, operator.as_bytes());
        });
    }

    fn model(operator: &str) -> Vec<u8> {
        let mut model = Writer::default();
        model.integer(1, 9).message(7, |graph| {
            node(graph, "LinearClassifier", "input", "scores");
            node(graph, operator, "scores", "probabilities");
            graph.message(11, |value| matrix(value, "input"));
            graph.message(12, |value| matrix(value, "label"));
            graph.message(12, |value| matrix(value, "probabilities"));
        });
        model.0
    }

    #[test]
    fn the_scores_before_it_become_the_output() {
        let file = model("ZipMap");
        let (without, tensor) = without_zip_map(&file, "probabilities").unwrap().unwrap();
        assert_eq!(tensor, "scores");
        let read = Model::read(&without).unwrap();
        assert_eq!(read.nodes.iter().map(|node| node.operator).collect::<Vec<_>>(), ["LinearClassifier"]);
        let graph = fields(&without).map(Result::unwrap).find(|field| field.number == GRAPH).unwrap();
        let outputs = fields(graph.value.bytes().unwrap()).map(Result::unwrap).filter(|field| field.number == 12);
        let declared = outputs.map(|field| Declared::read(field.value.bytes().unwrap(), 1, field.raw).unwrap());
        assert_eq!(declared.map(|value| value.name).collect::<Vec<_>>(), ["label", "scores"]);
        // Nothing else of the file is touched.
        assert_eq!(fields(&without).next().unwrap().unwrap().raw, fields(&file).next().unwrap().unwrap().raw);
    }

    #[test]
    fn other_graphs_are_left_alone() {
        assert_eq!(without_zip_map(&model("Identity"), "probabilities"), Ok(None));
        assert_eq!(without_zip_map(&model("ZipMap"), "label"), Ok(None));
        assert!(without_zip_map(&[0xff], "probabilities").is_err());
    }
}
