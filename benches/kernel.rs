//! `make bench ARGS=kernel`: the tree kernel against ONNX Runtime, over shapes and batch sizes, in one run on one thread.
//!
//! ```text
//!  bundles of .runtime/bench-grid (trees × depth × library) ─► ONNX Runtime and the kernel in turn ─► table, kernel.json
//!  the 200 × 6 model of .runtime/bench ─► each method of the kernel that the processor has
//! ```
//!
//! Every figure is the best of several passes over the same rows; ONNX Runtime and the kernel take turns, so that a
//! ratio is of neighbours in time.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::model::choice::KernelChoice;
use fraud_scorer::pipeline::decode::{Decoder, Rows};
use fraud_trees::kernel::{Kernel, Method};
use fraud_trees::onnx::Split;

/// Rows of a batch.
const BATCHES: [usize; 6] = [1, 16, 64, 512, 1024, 4096];

/// How long one pass may take.
const PASS: Duration = Duration::from_millis(60);

/// Passes of each contender; the best counts.
const PASSES: usize = 5;

fn main() {
    let results = std::env::args().skip_while(|argument| argument != "--results").nth(1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rows = rows(&root.join(".runtime/bench"));
    let mut json = Vec::new();

    println!("microseconds per row on one thread: ONNX Runtime / kernel (ratio)\n");
    print!("| {:<18} |", "model");
    BATCHES.iter().for_each(|batch| print!(" {:>22} |", format!("batch {batch}")));
    println!("\n|{}|{}", "-".repeat(20), format!("{}:|", "-".repeat(23)).repeat(BATCHES.len()));
    let mut models = vec![root.join(".runtime/bench/xgb"), root.join("models/fraud")];
    let grid = std::fs::read_dir(root.join(".runtime/bench-grid")).into_iter().flatten();
    let mut grid: Vec<_> = grid.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    grid.sort();
    models.extend(grid);
    for directory in models {
        let name = directory.file_name().unwrap().to_string_lossy().into_owned();
        let mut scorers = [KernelChoice::Onnxruntime, KernelChoice::Auto].map(|choice| {
            let bundle = Bundle::load_for(&directory, choice).unwrap();
            bundle.scorer().unwrap()
        });
        print!("| {name:<18} |");
        for batch in BATCHES {
            let mut scores = Vec::new();
            let [onnx, kernel] =
                best(|contender, features| scorers[contender].score(features, &mut scores).unwrap(), &rows, batch);
            print!(" {:>22} |", format!("{onnx:.2} / {kernel:.3} ({:.1}×)", onnx / kernel));
            json.push(serde_json::json!({"model": name, "batch": batch, "onnxruntime_us": onnx, "kernel_us": kernel}));
        }
        println!();
    }

    println!("\nthe kernel's methods on xgb (200 × 6), microseconds per row, sums only\n");
    let model = std::fs::read(root.join(".runtime/bench/xgb/model.onnx")).unwrap();
    let split = Split::of(&model, "input", "probabilities").unwrap();
    let (ensemble, _) = split.trees.compile(WIDTH, Some(1)).unwrap();
    for method in Method::ALL.into_iter().filter(|method| method.is_available()) {
        let mut kernel = Kernel::compile_with(&ensemble, method).unwrap();
        print!("| {:<20} |", method.name());
        for batch in BATCHES {
            let mut sums = Vec::new();
            let [time] = best(|_, features| kernel.sums(features, &mut sums), &rows, batch);
            print!(" {time:>8.3} |");
            json.push(serde_json::json!({"model": "xgb", "batch": batch, "method": method.name(), "us": time}));
        }
        println!();
    }
    if let Some(path) = results {
        std::fs::write(&path, serde_json::to_string_pretty(&json).unwrap() + "\n").unwrap();
        println!("\nwritten: {path}");
    }
}

/// Features of a row.
const WIDTH: usize = 29;

/// The rows of the benchmark's first records.
fn rows(directory: &Path) -> Vec<f32> {
    let text = std::fs::read_to_string(directory.join("records.jsonl")).expect("make bench ARGS=kernel makes it");
    let bundle = Bundle::load(&directory.join("xgb")).unwrap();
    let mut decoder = Decoder::new(&bundle.manifest.features, 1 << 20);
    let mut rows = Rows::default();
    for line in text.lines().take(8 * 4096) {
        decoder.decode(Some(line.as_bytes()), 0, &mut rows).unwrap();
    }
    rows.features
}

/// Microseconds per row of each contender at this batch size: the best of passes taken in turn.
fn best<const N: usize>(mut score: impl FnMut(usize, &[f32]), rows: &[f32], batch: usize) -> [f64; N] {
    let mut best = [f64::INFINITY; N];
    for _ in 0..PASSES {
        for (contender, best) in best.iter_mut().enumerate() {
            let (began, mut scored) = (Instant::now(), 0);
            for features in rows.chunks_exact(batch * WIDTH).cycle() {
                score(contender, features);
                scored += batch;
                if began.elapsed() > PASS {
                    break;
                }
            }
            *best = best.min(began.elapsed().as_secs_f64() * 1e6 / scored as f64);
        }
    }
    best
}
