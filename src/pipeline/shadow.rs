//! The shadow: a challenger scores what the champion scored, and nobody but the metrics (and a topic of its own, if asked
//! for) gets to know.
//!
//! ```text
//!  the batch's rows, scored by the champion ─► share of the records ─► columns ─► challenger ─► compared()
//! ```
//!
//! It runs on the scoring thread behind the champion's verdicts, on the rows as the champion's decoder left them. Nothing it
//! does reaches a verdict: a row without a probability is counted as a failure, and after
//! [`FAILED_BATCHES`] batches in a row without any the challenger is given up.

mod columns;
mod share;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use self::columns::Columns;
pub use self::share::Share;
use super::decide::Thresholds;
use super::decode::Rows;
use super::engine::{Engine, Outcome};
use crate::log_events;
use crate::model::ModelError;
use crate::model::bundle::Bundle;
use crate::model::exchange::LoadedModel;
use crate::model::probability::is_probability;
use crate::model::scorer::Scorer;

/// After so many batches in a row that it failed on as a whole, a challenger is given up.
pub const FAILED_BATCHES: u32 = 10;

/// How often a failing challenger is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A challenger, as all threads see it.
#[derive(Debug)]
pub struct Challenger {
    /// The model.
    pub model: LoadedModel,
    /// It failed too often; nobody runs it any more.
    given_up: AtomicBool,
}

impl Challenger {
    /// A challenger that runs.
    pub fn new(model: LoadedModel) -> Challenger {
        Challenger { model, given_up: AtomicBool::new(false) }
    }

    /// Whether it failed too often.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Relaxed)
    }
}

/// One thread's challenger.
pub struct Shadow {
    challenger: Arc<Challenger>,
    scorer: Scorer,
    thresholds: Thresholds,
    share: Share,
    width: usize,
    /// `None`: the serving model does not read what the challenger wants.
    columns: Option<Columns>,
    /// The rows it is to score, as it wants them; empty where the champion's can be had as they are.
    inputs: Vec<f32>,
    /// Which rows of the batch those are.
    picked: Vec<u32>,
    scores: Vec<f32>,
    /// `scores` has every row of the batch, not only the picked ones.
    whole: bool,
    failed_batches: u32,
    logged: Option<Instant>,
}

/// A row that both scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compared {
    /// Index of the row in the batch.
    pub row: usize,
    /// The challenger's score.
    pub score: f32,
}

impl Shadow {
    /// One thread's share of the challenger, whose bundle is `bundle`. It scores nothing before [`Shadow::fit`].
    pub fn new(challenger: Arc<Challenger>, bundle: &Bundle, share: Share) -> Result<Shadow, ModelError> {
        Ok(Shadow {
            scorer: bundle.scorer()?,
            thresholds: bundle.manifest.thresholds,
            width: bundle.manifest.features.len(),
            challenger,
            share,
            columns: None,
            inputs: Vec::new(),
            picked: Vec::new(),
            scores: Vec::new(),
            whole: false,
            failed_batches: 0,
            logged: None,
        })
    }

    /// The model.
    pub fn model(&self) -> &LoadedModel {
        &self.challenger.model
    }

    /// When decisions are taken.
    pub fn thresholds(&self) -> Thresholds {
        self.thresholds
    }

    /// From now on rows are the champion's; the error says why it cannot score those.
    pub fn fit(&mut self, champion: &LoadedModel) -> Result<(), String> {
        let columns = Columns::between(&champion.manifest.features, &self.challenger.model.manifest.features);
        let reason = columns.as_ref().err().cloned();
        self.columns = columns.ok();
        reason.map_or(Ok(()), Err)
    }

    /// Whether it scores anything.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.columns.is_some() && !self.challenger.is_given_up()
    }

    /// Scores its share of the batch that `engine` has just run; `places` are the records' partitions and offsets. Gives
    /// the number of rows that it failed on.
    pub fn run(&mut self, engine: &Engine, places: impl Iterator<Item = (i32, i64)>) -> usize {
        self.picked.clear();
        self.inputs.clear();
        self.scores.clear();
        let Some(columns) = self.columns.as_ref().filter(|_| !self.challenger.is_given_up()) else { return 0 };
        self.whole = self.share.is_all() && *columns == Columns::Same;
        for ((partition, offset), outcome) in places.zip(engine.outcomes()) {
            let Outcome::Scored(rows) = outcome else { continue };
            if !self.share.takes(partition, offset) {
                continue;
            }
            self.picked.extend(rows.start as u32..rows.end as u32);
            if !self.whole {
                rows.clone().for_each(|row| columns.append(engine.features_of(row), &mut self.inputs));
            }
        }
        if self.picked.is_empty() {
            return 0;
        }
        let inputs = if self.whole { engine.features() } else { &self.inputs };
        debug_assert_eq!(inputs.len() % self.width, 0);
        let outcome = self.scorer.score(inputs, &mut self.scores);
        let failed = match &outcome {
            Ok(()) => self.picked.len() - self.compared().count(),
            Err(_) => self.picked.len(),
        };
        if failed == 0 {
            self.failed_batches = 0;
            return 0;
        }
        let reason = outcome.err().map_or_else(|| "it gave no probability".to_owned(), |error| error.to_string());
        self.failed(failed, &reason);
        failed
    }

    /// The rows of the batch that both scored, in order.
    #[inline]
    pub fn compared(&self) -> impl Iterator<Item = Compared> {
        let scores = &self.scores;
        let whole = self.whole;
        self.picked.iter().enumerate().filter_map(move |(index, &row)| {
            let row = row as usize;
            // A failed run leaves none.
            let score = *scores.get(if whole { row } else { index })?;
            is_probability(score).then_some(Compared { row, score })
        })
    }

    #[cold]
    fn failed(&mut self, rows: usize, reason: &str) {
        let model = self.challenger.model.id();
        if rows == self.picked.len() {
            self.scores.clear();
            self.failed_batches += 1;
        }
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            log_events::pipeline::ChallengerFailed { challenger: &model, rows, reason }.log();
        }
        if self.failed_batches >= FAILED_BATCHES && !self.challenger.given_up.swap(true, Ordering::Relaxed) {
            let batches = self.failed_batches;
            log_events::pipeline::ChallengerGivenUp { challenger: &model, batches, reason }.log();
        }
    }

    /// Before it is used: scores the champion's `rows`, then so many as the largest batch has. The error says on what it
    /// failed.
    pub fn try_on(&mut self, rows: &Rows, max_batch: usize) -> Result<(), String> {
        let Some(columns) = self.columns.as_ref().filter(|_| !rows.is_empty()) else { return Ok(()) };
        let width = rows.features.len() / rows.len();
        for count in [rows.len(), max_batch] {
            self.inputs.clear();
            for row in rows.features.chunks_exact(width).cycle().take(count) {
                columns.append(row, &mut self.inputs);
            }
            self.scorer.score(&self.inputs, &mut self.scores).map_err(|error| error.to_string())?;
            if let Some(score) = self.scores.iter().find(|score| !is_probability(**score)) {
                return Err(format!("it gave {score} for a recent transaction, not a probability"));
            }
        }
        Ok(())
    }
}
