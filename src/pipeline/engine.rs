//! The engine: payloads in, outcomes out. Decode, score and decide with their reused buffers, and no Kafka in sight:
//! the worker, `score` and `check` all go through here, so that what is tested offline is what runs.
//!
//! A message is scored whole or rejected whole: one row without a probability rejects all of it.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fraud_wire::dead_letter::{ErrorClass, Rejection};
use fraud_wire::verdict::Decision;

use super::decide::Thresholds;
use super::decode::{Decoder, RowMeta, Rows};
use crate::drift::{DriftMonitor, Pending, Sampler};
use crate::log_events;
use crate::model::ModelError;
use crate::model::bundle::Bundle;
use crate::model::probability::is_probability;
use crate::model::scorer::Scorer;

/// What became of one message.
#[derive(Debug)]
pub enum Outcome {
    /// Its rows, as a range over the batch's.
    Scored(Range<usize>),
    /// Why it has none.
    Rejected(Rejection),
}

/// A row with its score.
#[derive(Clone, Copy, Debug)]
pub struct ScoredRow<'a> {
    /// The row.
    pub meta: &'a RowMeta,
    /// Probability of fraud.
    pub score: f32,
    /// What the thresholds make of it.
    pub decision: Decision,
}

/// How long the parts of a batch took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Bytes to rows.
    pub decode: Duration,
    /// Rows to scores.
    pub inference: Duration,
}

/// One thread's decoder and model.
pub struct Engine {
    decoder: Decoder,
    scorer: Scorer,
    thresholds: Thresholds,
    rows: Rows,
    scores: Vec<f32>,
    outcomes: Vec<Outcome>,
    drift: Option<Sampler>,
}

impl Engine {
    /// An engine of `bundle` that rejects values over `max_message_bytes` unread.
    pub fn new(bundle: &Bundle, max_message_bytes: usize) -> Result<Engine, ModelError> {
        Ok(Engine {
            decoder: Decoder::new(&bundle.manifest.features, max_message_bytes),
            scorer: bundle.scorer()?,
            thresholds: bundle.manifest.thresholds,
            rows: Rows::default(),
            scores: Vec::new(),
            outcomes: Vec::new(),
            drift: None,
        })
    }

    /// Has this engine's traffic watched. `monitor` is of this engine's bundle.
    pub fn watch(&mut self, monitor: Option<Arc<DriftMonitor>>) {
        self.drift = monitor.map(|monitor| Sampler::new(monitor, Instant::now()));
    }

    /// Looks at some rows of the batch, if watched; what it saw counts when it is committed.
    #[inline]
    pub fn observe_drift(&mut self, now: Instant, pending: &mut Pending) {
        if let Some(sampler) = &mut self.drift {
            sampler.observe(&self.rows.features, &self.scores, now, pending);
        }
    }

    /// Scores a batch; its outcomes are there until the next one.
    pub fn run<'a>(&mut self, payloads: impl Iterator<Item = Option<&'a [u8]>>) -> Times {
        let began = Instant::now();
        self.decode(payloads);
        let decoded = Instant::now();
        self.score();
        Times { decode: decoded - began, inference: decoded.elapsed() }
    }

    /// Forgets the last batch and keeps the memory.
    pub fn rest(&mut self) {
        self.rows.clear();
        self.scores.clear();
        self.outcomes.clear();
    }

    /// One outcome per payload, in order.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// The features of all rows, row by row.
    pub fn features(&self) -> &[f32] {
        &self.rows.features
    }

    /// The features of one row.
    #[inline]
    pub fn features_of(&self, row: usize) -> &[f32] {
        let width = self.decoder.width();
        &self.rows.features[row * width..(row + 1) * width]
    }

    /// One row of a scored outcome.
    #[inline]
    pub fn row(&self, row: usize) -> ScoredRow<'_> {
        let score = self.scores[row];
        ScoredRow { meta: &self.rows.meta[row], score, decision: self.thresholds.decide(score) }
    }

    /// Bytes that the answers to one message may have together.
    pub fn most_answer_bytes(&self) -> usize {
        self.decoder.most_answer_bytes()
    }

    /// Rows of the batch.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// The rows of a scored outcome.
    pub fn rows(&self, range: Range<usize>) -> impl Iterator<Item = ScoredRow<'_>> {
        self.rows.meta[range.clone()].iter().zip(&self.scores[range]).map(|(meta, &score)| ScoredRow {
            meta,
            score,
            decision: self.thresholds.decide(score),
        })
    }

    fn decode<'a>(&mut self, payloads: impl Iterator<Item = Option<&'a [u8]>>) {
        self.rows.clear();
        self.outcomes.clear();
        for (index, payload) in payloads.enumerate() {
            let first = self.rows.len();
            self.outcomes.push(match self.decoder.decode(payload, index as u32, &mut self.rows) {
                Ok(count) => Outcome::Scored(first..first + count),
                Err(rejection) => Outcome::Rejected(rejection),
            });
        }
    }

    fn score(&mut self) {
        if let Err(error) = self.scorer.score(&self.rows.features, &mut self.scores) {
            log_events::pipeline::BatchFailed { error: &error, rows: self.rows.len() }.log();
            self.score_one_by_one();
        }
        for outcome in &mut self.outcomes {
            let Outcome::Scored(rows) = outcome else { continue };
            let scores = &self.scores[rows.clone()];
            if let Some(bad) = scores.iter().position(|score| !is_probability(*score)) {
                let message = format!("the model gave {} for row {bad}, not a probability", scores[bad]);
                *outcome = Outcome::Rejected(Rejection::new(ErrorClass::InvalidScore, message));
            }
        }
    }

    /// Finds the messages the model fails on, so that the others of the batch need not suffer.
    fn score_one_by_one(&mut self) {
        let width = self.decoder.width();
        let mut all = vec![f32::NAN; self.rows.len()];
        for outcome in &mut self.outcomes {
            let Outcome::Scored(rows) = outcome else { continue };
            match self.scorer.score(&self.rows.features[rows.start * width..rows.end * width], &mut self.scores) {
                Ok(()) => all[rows.clone()].copy_from_slice(&self.scores),
                Err(error) => {
                    let message = format!("the model failed: {error}");
                    *outcome = Outcome::Rejected(Rejection::new(ErrorClass::InvalidScore, message));
                }
            }
        }
        self.scores = all;
    }
}
