//! The model alone: ONNX Runtime over rows in memory, batch 1,024, one thread, no Kafka.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ndarray::ArrayView2;
use ort::session::Session;
use ort::value::TensorRef;
use serde::{Deserialize, Serialize};

use super::variable;
use crate::processes::own_cpu;
use crate::workload::{Model, Records};

const BATCH: usize = 1024;

/// Distinct rows: too many for the caches, as a topic's would be.
const ROWS: usize = 64 * BATCH;

const FEATURES: usize = 29;

/// What the model alone does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Alone {
    pub records: u64,
    pub wall_seconds: f64,
    pub cpu_seconds: f64,
}

impl Alone {
    /// Measures it in a process of its own.
    pub fn measure(model: Model, seconds: f64) -> Alone {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["reference", "onnxruntime"]).env("MODEL", model.onnx()).env("SECONDS_LONG", seconds.to_string());
        command.env("ORT_DYLIB_PATH", crate::root().join(".runtime/onnxruntime/libonnxruntime.so"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let alone: Alone = serde_json::from_slice(&output.stdout).unwrap();
        eprintln!(
            "    {:<52} {:>9.0}/CPU-s {:>9.0}/s",
            format!("onnxruntime, {}", model.name()),
            alone.per_cpu_second(),
            alone.records as f64 / alone.wall_seconds
        );
        alone
    }

    pub fn per_cpu_second(&self) -> f64 {
        self.records as f64 / self.cpu_seconds
    }
}

#[derive(Deserialize)]
struct Split {
    data: Vec<Vec<f32>>,
}

/// The scores of the first `count` records, by ONNX Runtime in a process of its own.
pub fn scores(model: Model, count: usize) -> Vec<f32> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["reference", "scores"]).env("MODEL", model.onnx()).env("COUNT", count.to_string());
    command.env("ORT_DYLIB_PATH", crate::root().join(".runtime/onnxruntime/libonnxruntime.so"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The other side of [`scores`].
pub fn print_scores() {
    let rows = rows(variable("COUNT").parse().unwrap());
    let mut session = session();
    let mut scores = Vec::new();
    for batch in rows.chunks(BATCH * FEATURES) {
        score(&mut session, batch, &mut scores);
    }
    println!("{}", serde_json::to_string(&scores).unwrap());
    std::process::exit(0);
}

/// The first `count` records' numbers, one after the other.
fn rows(count: usize) -> Vec<f32> {
    let records = Records::read();
    let mut rows: Vec<f32> = Vec::with_capacity(count * FEATURES);
    for number in 0..count as u64 {
        let record: Split = serde_json::from_slice(records.get(number)).unwrap();
        rows.extend(record.data.iter().flatten());
    }
    rows
}

fn session() -> Session {
    let environment = ort::init_from(variable("ORT_DYLIB_PATH")).unwrap().with_name("reference").build().unwrap();
    Session::builder(&environment)
        .unwrap()
        .with_intra_threads(1)
        .unwrap()
        .with_inter_threads(1)
        .unwrap()
        .commit_from_file(Path::new(&variable("MODEL")))
        .unwrap()
}

/// Adds the scores of `batch` to `scores`.
fn score(session: &mut Session, batch: &[f32], scores: &mut Vec<f32>) {
    let (rows, before) = (batch.len() / FEATURES, scores.len());
    let view = ArrayView2::from_shape((rows, FEATURES), batch).unwrap();
    let outputs = session.run(ort::inputs!["input" => TensorRef::from_array_view(view).unwrap()]).unwrap();
    let (_, values) = outputs["probabilities"].try_extract_tensor::<f32>().unwrap();
    scores.extend(values.iter().skip(1).step_by(2));
    assert_eq!(scores.len() - before, rows);
}

pub fn run() {
    let seconds = Duration::from_secs_f64(variable("SECONDS_LONG").parse().unwrap());
    let rows = rows(ROWS);
    let mut session = session();
    let mut scores: Vec<f32> = Vec::with_capacity(BATCH);
    let mut score = |batch: &[f32]| {
        scores.clear();
        score(&mut session, batch, &mut scores);
    };
    score(&rows[..BATCH * FEATURES]);
    let (began, cpu, mut scored) = (Instant::now(), own_cpu(), 0);
    while began.elapsed() < seconds {
        for batch in rows.chunks_exact(BATCH * FEATURES) {
            score(batch);
            scored += BATCH as u64;
        }
    }
    let alone = Alone {
        records: scored,
        wall_seconds: began.elapsed().as_secs_f64(),
        cpu_seconds: (own_cpu() - cpu).as_secs_f64(),
    };
    println!("{}", serde_json::to_string(&alone).unwrap());
    // The runtime's own tidying up is not measured.
    std::process::exit(0);
}
