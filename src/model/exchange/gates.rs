//! The gates that a candidate passes before it serves, and the word for a refusal.
//!
//! ```text
//!  manifest ─► hash ─► signature ─► engine ─► golden ─► compatible ─► warm-up ─► canary ─► may serve
//!  └───────────── the bundle's own: model/bundle.rs ─┘   └───────────── here ───────────┘
//! ```

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::loaded::{LoadedModel, ThreadModel};
use crate::model::manifest::Manifest;
use crate::pipeline::engine::Outcome;

/// Golden records that warm an engine up and are the canary's where there is no traffic.
const GOLDEN: usize = 256;

/// Bytes of golden records that are read for that, and bytes of a batch that an engine is warmed up with: what it grows to, it
/// keeps.
const MOST_BYTES: usize = 8 << 20;

/// Batch sizes that an engine scores before its first real one; the largest batch comes on top, up to a limit.
const WARM_UP_SIZES: [usize; 3] = [1, 16, 128];

/// Records of the largest batch that an engine is warmed up with, whatever `--max-batch` says.
pub(super) const LARGEST_WARM_UP: usize = 4096;

/// What a candidate has to pass, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// Verified within limits of memory and time.
    Limits,
    /// manifest.toml can be read, and agrees with the registry.
    Manifest,
    /// The files are those the manifest was written for, and the manifest is signed where that is asked for.
    Hash,
    /// The graph keeps the manifest's contract.
    Signature,
    /// `--kernel` can be kept.
    Engine,
    /// Golden records score as in training.
    Golden,
    /// It does the same job as what serves, under a version of its own.
    Compatible,
    /// Every thread's engine runs.
    WarmUp,
    /// Recent transactions are scored.
    Canary,
}

impl fmt::Display for Gate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Gate::Limits => "limits",
            Gate::Manifest => "manifest",
            Gate::Hash => "hash",
            Gate::Signature => "signature",
            Gate::Engine => "engine",
            Gate::Golden => "golden",
            Gate::Compatible => "compatible",
            Gate::WarmUp => "warm-up",
            Gate::Canary => "canary",
        })
    }
}

/// Why a candidate does not serve. What served before it goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin} refused at the gate {gate}: {reason}")]
pub struct Refusal {
    /// Where it failed.
    pub gate: Gate,
    /// What is wrong, and what to do.
    pub reason: String,
    /// The candidate.
    pub origin: String,
}

impl Refusal {
    pub(super) fn new(gate: Gate, reason: impl Into<String>) -> Refusal {
        Refusal { gate, reason: reason.into(), origin: String::new() }
    }

    pub(super) fn of(mut self, origin: &str) -> Refusal {
        origin.clone_into(&mut self.origin);
        self
    }
}

/// The candidate against a model that serves or may serve again.
pub(super) fn compatible(candidate: &LoadedModel, other: &LoadedModel) -> Result<(), Refusal> {
    let (new, old) = (&candidate.manifest, &other.manifest);
    if new.kind != old.kind {
        let reason = format!("its kind is {:?}, what serves is a {:?}", new.kind, old.kind);
        return Err(Refusal::new(Gate::Compatible, reason));
    }
    if new.name == old.name && new.version == old.version && !same(new, old) {
        let reason = format!(
            "{} is already known with other content: a verdict names its model by name and version, so give the \
             changed bundle a version of its own",
            new.id()
        );
        return Err(Refusal::new(Gate::Compatible, reason));
    }
    Ok(())
}

/// Whether two manifests promise the same of the same model file.
pub(super) fn same(one: &Manifest, other: &Manifest) -> bool {
    one.sha256 == other.sha256
        && one.features == other.features
        && one.thresholds == other.thresholds
        && (&one.input, &one.output) == (&other.input, &other.output)
}

/// Scores batches of several sizes, so that the first real one finds grown buffers and learned formats.
pub(super) fn warm_up(thread: &mut ThreadModel, payloads: &[Vec<u8>], max_batch: usize) {
    let max_batch = max_batch.min(LARGEST_WARM_UP);
    for size in WARM_UP_SIZES.into_iter().filter(|size| *size < max_batch).chain([max_batch]) {
        let mut bytes = 0;
        let some = payloads.iter().cycle().take(size).take_while(|payload| {
            bytes += payload.len();
            bytes <= MOST_BYTES
        });
        thread.engine.run(some.map(|payload| Some(payload.as_slice())));
    }
    thread.engine.rest();
}

/// Payloads that were scored before must be scored now.
pub(super) fn canary(thread: &mut ThreadModel, what: &str, payloads: &[Vec<u8>]) -> Result<(), Refusal> {
    thread.engine.run(payloads.iter().map(|payload| Some(payload.as_slice())));
    let rejections = thread.engine.outcomes().iter().filter_map(|outcome| match outcome {
        Outcome::Scored(_) => None,
        Outcome::Rejected(rejection) => Some(rejection),
    });
    let count = rejections.clone().count();
    match rejections.into_iter().next() {
        None => Ok(()),
        Some(rejection) => {
            let reason = format!(
                "it rejects {count} of {} {what}, the first because {} ({}): the stream does not carry what the model \
                 wants, or the model gives no probability",
                payloads.len(),
                rejection.message,
                rejection.class
            );
            Err(Refusal::new(Gate::Canary, reason))
        }
    }
}

/// Payloads of the bundle itself: its golden records of at most `longest` bytes, or one made of defaults where it has
/// none.
pub(super) fn own_payloads(directory: &Path, manifest: &Manifest, longest: usize) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    if let Ok(file) = std::fs::File::open(directory.join("golden.jsonl")) {
        let mut reader = BufReader::new(std::io::Read::take(file, MOST_BYTES as u64));
        let mut line = Vec::new();
        while payloads.len() < GOLDEN && reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            // A longer one says nothing about the model: what is too large is rejected unread.
            if (1..=longest).contains(&line.trim_ascii().len()) {
                payloads.push(line.trim_ascii().to_vec());
            }
            line.clear();
        }
    }
    if payloads.is_empty() {
        let members: serde_json::Map<String, serde_json::Value> = manifest
            .features
            .iter()
            .map(|feature| (feature.name.clone(), feature.default.unwrap_or(0.0).into()))
            .collect();
        payloads.push(serde_json::Value::Object(members).to_string().into_bytes());
        payloads.retain(|payload| payload.len() <= longest);
    }
    payloads
}
