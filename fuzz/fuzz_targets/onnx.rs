//! ONNX files, as those who register a model write them: taken apart, compiled and scored, or refused, before ONNX
//! Runtime has seen them.
//!
//! ```text
//!  input ─┬► external weights
//!         ├► ZipMap left out ─► the scores before it are an output of the file
//!         ├► Split ─► parts that read back as what they were cut from
//!         │       └─► Ensemble ─► every method of the kernel gives what the interpreter does, bit for bit
//!         └► Linear ─► one score a row
//! ```
#![no_main]

use fraud_trees::ensemble::{Ensemble, Node};
use fraud_trees::kernel::{Kernel, Method};
use fraud_trees::onnx::wire::fields;
use fraud_trees::onnx::{Linear, Split, external_weights, without_zip_map};
use libfuzzer_sys::fuzz_target;

/// Features of a row, as the seeds' models have them.
const WIDTH: usize = 3;

/// Rows that are scored: more than a narrow block of any method.
const ROWS: usize = 40;

/// Results of an ensemble beyond which only its reading is looked at: the rest would be slow and say no more.
const MOST_OUTPUTS: usize = 16;

/// What the fields of this number hold.
fn within(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).flatten().filter(move |field| field.number == number).filter_map(|field| field.value.bytes().ok())
}

/// The names of the graph's inputs, or of its outputs (`GraphProto`, fields 11 and 12).
fn names(file: &[u8], number: u64) -> impl Iterator<Item = &str> {
    let values = within(file, 7).flat_map(move |graph| within(graph, number));
    values.flat_map(|value| within(value, 1)).filter_map(|name| std::str::from_utf8(name).ok())
}

fn trees(file: &[u8], input: &str, output: &str) {
    let Ok(split) = Split::of(file, input, output) else { return };
    let parts = [split.before.as_ref(), Some(&split.alone), split.after.as_ref()];
    if external_weights(file) == Ok(None) {
        assert!(parts.into_iter().flatten().all(|part| external_weights(&part.model) == Ok(None)));
    }
    let again = Split::of(&split.alone.model, &split.alone.input, &split.alone.output).expect("cut out as a model");
    assert!(again.before.is_none() && again.after.is_none());
    assert_eq!(format!("{:?}", again.trees), format!("{:?}", split.trees));
    for column in [None, Some(0), Some(1)] {
        let Ok((ensemble, finish)) = split.trees.compile(WIDTH, column) else { continue };
        if ensemble.outputs > MOST_OUTPUTS {
            continue;
        }
        let rows = rows(&ensemble);
        let mut expected = Vec::new();
        let mut sums = Vec::new();
        for method in Method::ALL {
            let Ok(mut kernel) = Kernel::compile_with(&ensemble, method) else { continue };
            ensemble.interpret(&rows, &mut expected);
            kernel.sums(&rows, &mut sums);
            assert_eq!(sums.len(), ROWS * ensemble.outputs);
            for (sum, expected) in sums.iter().zip(&expected) {
                let is_same = sum.to_bits() == expected.to_bits() || (sum.is_nan() && expected.is_nan());
                assert!(is_same, "{method:?}: {sum} instead of {expected}");
            }
            finish.apply(&mut sums);
            assert_eq!(sums.len(), ROWS * finish.columns());
        }
    }
}

/// Rows of what the trees compare with, of its neighbours, and of odd numbers.
fn rows(ensemble: &Ensemble) -> Vec<f32> {
    let mut values = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, f32::MAX];
    let nodes = ensemble.trees.iter().flat_map(|tree| &tree.nodes);
    for threshold in nodes.filter_map(|node| match node {
        Node::Branch { threshold, .. } => Some(*threshold),
        Node::Leaf { .. } => None,
    }) {
        values.extend([threshold, threshold.next_up(), threshold.next_down()]);
    }
    // A step that shares no factor with many lengths, so that columns differ.
    (0..ROWS * WIDTH).map(|index| values[index * 7 % values.len()]).collect()
}

fn linear(file: &[u8], input: &str, output: &str) {
    for column in [None, Some(0), Some(1)] {
        let Ok(linear) = Linear::of(file, input, output, WIDTH, column) else { continue };
        let targets = linear.targets();
        assert_eq!(linear.coefficients.len(), targets * WIDTH);
        if let Some(scaler) = &linear.scaler {
            assert_eq!((scaler.offset.len(), scaler.scale.len()), (WIDTH, WIDTH));
        }
        let mut scores: Vec<f32> = (0..ROWS * targets).map(|index| index as f32 / 8.0 - 2.0).collect();
        linear.finish.apply(&mut scores);
        linear.normalize(&mut scores);
        assert_eq!(scores.len(), ROWS);
    }
}

fn zip_map(file: &[u8], output: &str) {
    let Ok(Some((without, tensor))) = without_zip_map(file, output) else { return };
    assert!(
        names(&without, 12).any(|name| name == tensor)
            && !names(&without, 12).any(|name| name == output && name != tensor)
    );
    assert!(without.len() <= file.len() + tensor.len() + 64);
}

fuzz_target!(|file: &[u8]| {
    let _ = external_weights(file);
    let Some(input) = names(file, 11).next() else { return };
    for output in names(file, 12).take(2) {
        zip_map(file, output);
        trees(file, input, output);
        linear(file, input, output);
    }
});
