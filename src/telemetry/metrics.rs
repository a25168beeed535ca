//! Metrics: counted per batch, shown when committed. What each is: [`super::catalogue`].
//!
//! A scoring thread adds up a [`Tally`] in plain memory; when its work is committed the tally is added to the shared
//! instruments (a few atomics per batch, not per record), when it is thrown away the tally is too. So a transaction
//! that had to be scored twice before it was committed counts once.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fraud_wire::dead_letter::ErrorClass;
use fraud_wire::verdict::Decision;
use metrics::Counter;
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::amounts::{Amounts, ByDecision, amounts, counted};
use super::catalogue::definitions::{
    BATCH_ROWS, CHALLENGER_DROPPED, DEAD_LETTERS, END_TO_END, LAG, LAG_SECONDS, MODEL_SWAPS, PAUSED, REBALANCES,
    RECORDS_GONE, REDONE, REGISTRY_REACHABLE, SCORE, STAGE, TRANSACTIONS, VERDICTS,
};
use super::catalogue::describe_all;
use super::clients;
use super::comparisons::{ComparisonTally, Comparisons, comparisons};
use super::drift;
use super::histogram::{Buckets, Histogram, UnitBuckets};
use super::models::{Models, models};
use super::requests;
use super::spans;
use super::suspicious::Gathered;
use crate::drift::Pending;
use crate::pipeline::compare::Comparison;

/// Renders everything for `/metrics`.
#[derive(Clone)]
pub struct Exposition {
    counters: PrometheusHandle,
}

/// Installs the process's recorder.
pub fn install() -> Result<Exposition, BuildError> {
    let counters = PrometheusBuilder::new().install_recorder()?;
    describe_all();
    Ok(Exposition { counters })
}

impl Exposition {
    /// Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = self.counters.render();
        models().render(&mut text);
        amounts().render(&mut text);
        comparisons().render(&mut text);
        histograms().render(&mut text);
        drift::render(&mut text);
        requests::render(&mut text);
        clients::render(&mut text);
        text
    }
}

/// The process's histograms.
struct Histograms {
    score: Histogram,
    batch_rows: Histogram,
    end_to_end: Histogram,
    stages: [Histogram; Stage::ALL.len()],
}

impl Histograms {
    fn new() -> Self {
        Histograms {
            score: Histogram::of(&SCORE, &[]),
            batch_rows: Histogram::of(&BATCH_ROWS, &[]),
            end_to_end: Histogram::of(&END_TO_END, &[]),
            stages: Stage::ALL.map(|stage| Histogram::of(&STAGE, &[stage.as_str()])),
        }
    }

    fn render(&self, text: &mut String) {
        for histogram in [&self.score, &self.batch_rows, &self.end_to_end] {
            histogram.render(text, true);
        }
        for (index, histogram) in self.stages.iter().enumerate() {
            histogram.render(text, index == 0);
        }
    }
}

fn histograms() -> &'static Arc<Histograms> {
    static HISTOGRAMS: OnceLock<Arc<Histograms>> = OnceLock::new();
    HISTOGRAMS.get_or_init(|| Arc::new(Histograms::new()))
}

/// A stage of the pipeline, as the `stage` label names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Bytes to rows, features included.
    Decode,
    /// Rows to scores.
    Inference,
    /// Scores to queued verdicts.
    Produce,
    /// Offsets and verdicts to the broker.
    Commit,
    /// The challenger's scores, compared.
    Challenger,
}

impl Stage {
    /// All of them; the index of each is `stage as usize`.
    const ALL: [Stage; 5] = [Stage::Decode, Stage::Inference, Stage::Produce, Stage::Commit, Stage::Challenger];

    /// As the label `stage` names it.
    fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Inference => "inference",
            Stage::Produce => "produce",
            Stage::Commit => "commit",
            Stage::Challenger => "challenger",
        }
    }
}

/// What became of a model that asked to serve, or of one that served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SwapResult {
    /// It serves.
    Swapped,
    /// It failed at a gate.
    Refused,
    /// The one before it serves again.
    RolledBack,
}

impl SwapResult {
    /// All of them; the index of each is `result as usize`.
    const ALL: [SwapResult; 3] = [SwapResult::Swapped, SwapResult::Refused, SwapResult::RolledBack];

    /// As the label `result` names it.
    fn as_str(self) -> &'static str {
        match self {
            SwapResult::Swapped => "swapped",
            SwapResult::Refused => "refused",
            SwapResult::RolledBack => "rolled-back",
        }
    }
}

/// Shared instruments, one handle each, looked up once.
#[derive(Clone)]
pub struct Instruments {
    transactions: Counter,
    verdicts: [Counter; 3],
    dead_letters: [Counter; ErrorClass::ALL.len()],
    rebalances: Counter,
    redone: Counter,
    swaps: [Counter; 3],
    histograms: Arc<Histograms>,
    models: Arc<Models>,
    comparisons: Arc<Comparisons>,
    amounts: Arc<Amounts>,
}

impl Default for Instruments {
    fn default() -> Self {
        Instruments::with(histograms().clone(), models().clone(), comparisons().clone(), amounts().clone())
    }
}

impl Instruments {
    fn with(
        histograms: Arc<Histograms>,
        models: Arc<Models>,
        comparisons: Arc<Comparisons>,
        amounts: Arc<Amounts>,
    ) -> Self {
        Instruments {
            transactions: TRANSACTIONS.counter(&[]),
            verdicts: Decision::ALL.map(|decision| VERDICTS.counter(&[decision.as_str()])),
            dead_letters: ErrorClass::ALL.map(|class| DEAD_LETTERS.counter(&[class.as_str()])),
            rebalances: REBALANCES.counter(&[]),
            redone: REDONE.counter(&[]),
            swaps: SwapResult::ALL.map(|result| MODEL_SWAPS.counter(&[result.as_str()])),
            histograms,
            models,
            comparisons,
            amounts,
        }
    }

    /// The models that score from now on: at most one serves.
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// What champion and challenger made of the same rows.
    pub fn challenger(&self) -> &Comparisons {
        &self.comparisons
    }

    /// What the verdicts were worth.
    pub fn amounts(&self) -> &Amounts {
        &self.amounts
    }

    /// A model asked to serve, or was taken back.
    pub fn swap(&self, result: SwapResult) {
        self.swaps[result as usize].increment(1);
    }

    /// Whether the model registry answered when it was last asked.
    pub fn registry_reachable(&self, reachable: bool) {
        REGISTRY_REACHABLE.gauge(&[]).set(f64::from(u8::from(reachable)));
    }

    /// Adds what a thread measured of its batches, whatever became of them; empties it.
    pub fn measured(&self, measured: &mut Measured) {
        for (shared, stage) in self.histograms.stages.iter().zip(&mut measured.stages) {
            shared.drain(stage);
        }
        self.histograms.batch_rows.drain(&mut measured.batch_rows);
    }

    /// Partitions came or went.
    pub fn rebalance(&self) {
        self.rebalances.increment(1);
    }

    /// Work was thrown away to be done again.
    pub fn redone(&self) {
        self.redone.increment(1);
    }

    /// The log does not have what comes next: how many records are gone, and why.
    pub fn gone(&self, topic: &str, partition: i32, records: u64, reason: &str) {
        RECORDS_GONE.counter(&[topic, &partition.to_string(), reason]).increment(records);
    }

    /// A partition is left alone, or not any more.
    pub fn paused(&self, topic: &str, partition: i32, is_paused: bool) {
        PAUSED.gauge(&[topic, &partition.to_string()]).set(f64::from(u8::from(is_paused)));
    }

    /// Comparisons that were not written.
    pub fn dropped(&self, comparisons: u64) {
        CHALLENGER_DROPPED.counter(&[]).increment(comparisons);
    }

    /// Lag of one partition.
    pub fn lag(&self, topic: &str, partition: i32, records: i64, seconds: f64) {
        let partition = partition.to_string();
        LAG.gauge(&[topic, &partition]).set(records as f64);
        LAG_SECONDS.gauge(&[topic, &partition]).set(seconds);
    }

    /// Adds committed work; empties the tally. `now` in epoch milliseconds.
    pub fn committed(&self, tally: &mut Tally, now: i64) {
        self.transactions.increment(tally.verdicts.iter().sum::<u64>() + tally.dead_letters.iter().sum::<u64>());
        for (counter, count) in self.verdicts.iter().zip(&tally.verdicts).filter(|(_, count)| **count > 0) {
            counter.increment(*count);
        }
        for (counter, count) in self.dead_letters.iter().zip(&tally.dead_letters).filter(|(_, count)| **count > 0) {
            counter.increment(*count);
        }
        for Run { timestamp, rows } in tally.timestamps.drain(..) {
            tally.latency.add_times((now - timestamp).max(0) as f64 / 1000.0, rows);
        }
        self.histograms.score.drain(tally.scores.counted());
        self.histograms.end_to_end.drain(&mut tally.latency);
        self.amounts.committed(&mut tally.amounts);
        self.comparisons.committed(&mut tally.comparisons);
        tally.drift.publish(Instant::now());
        tally.suspicious.publish();
        tally.spans.publish();
        tally.clear();
    }
}

/// What one thread measured of its batches since it was last added to the process's metrics: at low load a batch is a
/// record, and no record takes a lock.
#[derive(Debug)]
pub struct Measured {
    stages: [Buckets; Stage::ALL.len()],
    batch_rows: Buckets,
}

impl Default for Measured {
    fn default() -> Self {
        Measured { stages: Stage::ALL.map(|_| Buckets::of(&STAGE)), batch_rows: Buckets::of(&BATCH_ROWS) }
    }
}

impl Measured {
    /// Time of a stage for one batch.
    #[inline]
    pub fn stage(&mut self, stage: Stage, time: Duration) {
        self.stages[stage as usize].add(time.as_secs_f64());
    }

    /// Rows scored together.
    #[inline]
    pub fn batch(&mut self, rows: usize) {
        self.batch_rows.add(rows as f64);
    }
}

/// Rows that follow each other and whose records have the same timestamp: under load, most of a batch.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// Epoch milliseconds.
    timestamp: i64,
    rows: u64,
}

/// What was done since the last commit.
#[derive(Debug)]
pub struct Tally {
    verdicts: [u64; 3],
    dead_letters: [u64; ErrorClass::ALL.len()],
    scores: UnitBuckets,
    latency: Buckets,
    timestamps: Vec<Run>,
    amounts: ByDecision,
    comparisons: ComparisonTally,
    /// What the rows looked like.
    pub drift: Pending,
    /// Some of the verdicts at review or decline, for the console.
    pub suspicious: Gathered,
    /// Spans of records whose senders trace them.
    pub spans: spans::Pending,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            verdicts: [0; 3],
            dead_letters: [0; ErrorClass::ALL.len()],
            scores: UnitBuckets::of(&SCORE),
            latency: Buckets::of(&END_TO_END),
            timestamps: Vec::new(),
            amounts: ByDecision::default(),
            comparisons: ComparisonTally::default(),
            drift: Pending::default(),
            suspicious: Gathered::default(),
            spans: spans::Pending::default(),
        }
    }
}

impl Tally {
    /// A verdict was queued; `timestamp` is the record's, epoch milliseconds; `amount` what the row is about, where its
    /// model reads one.
    #[inline]
    pub fn verdict(&mut self, decision: Decision, score: f32, timestamp: Option<i64>, amount: Option<f32>) {
        self.verdicts[decision as usize] += 1;
        self.scores.add(score);
        if let Some(amount) = amount {
            self.amounts[decision as usize] += counted(amount);
        }
        if let Some(timestamp) = timestamp {
            match self.timestamps.last_mut() {
                Some(run) if run.timestamp == timestamp => run.rows += 1,
                _ => self.timestamps.push(Run { timestamp, rows: 1 }),
            }
        }
    }

    /// A row was compared with the challenger's opinion.
    #[inline]
    pub fn comparison(&mut self, comparison: &Comparison) {
        self.comparisons.add(comparison);
    }

    /// A dead letter was queued.
    pub fn dead_letter(&mut self, class: ErrorClass) {
        self.dead_letters[class as usize] += 1;
    }

    /// The work was thrown away.
    pub fn clear(&mut self) {
        self.verdicts = [0; 3];
        self.dead_letters = [0; ErrorClass::ALL.len()];
        self.scores.counted().clear();
        self.latency.clear();
        self.timestamps.clear();
        self.amounts = ByDecision::default();
        self.comparisons.clear();
        self.drift.clear();
        self.suspicious.clear();
        self.spans.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_work_shows_and_thrown_away_work_does_not() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let instruments =
                Instruments::with(Arc::new(Histograms::new()), Arc::default(), Arc::default(), Arc::default());
            let mut tally = Tally::default();
            tally.verdict(Decision::Decline, 0.97, Some(0), Some(1e6));
            tally.clear();
            tally.verdict(Decision::Approve, 0.004, Some(1_000), Some(20.5));
            tally.verdict(Decision::Approve, 0.006, Some(1_000), Some(-7.0));
            tally.verdict(Decision::Approve, 0.006, Some(1_040), None);
            tally.verdict(Decision::Decline, 1.0, None, Some(0.25));
            tally.dead_letter(ErrorClass::TooLarge);
            instruments.committed(&mut tally, 1_100);
            instruments.committed(&mut tally, 1_100);
            instruments.swap(SwapResult::RolledBack);
            let mut measured = Measured::default();
            measured.stage(Stage::Commit, Duration::from_millis(3));
            measured.batch(5);
            instruments.measured(&mut measured);
            instruments.measured(&mut measured);
            let mut text = recorder.handle().render();
            instruments.histograms.render(&mut text);
            instruments.amounts.render(&mut text);
            text
        });
        for line in [
            "fraud_scorer_transactions_total 5",
            "fraud_scorer_verdicts_total{decision=\"approve\"} 3",
            "fraud_scorer_verdicts_total{decision=\"decline\"} 1",
            "fraud_scorer_verdicts_total{decision=\"review\"} 0",
            "fraud_scorer_dead_letters_total{error_class=\"too-large\"} 1",
            "fraud_scorer_model_swaps_total{result=\"rolled-back\"} 1",
            "fraud_scorer_model_swaps_total{result=\"swapped\"} 0",
            "fraud_scorer_score_bucket{le=\"0.001\"} 0",
            "fraud_scorer_score_bucket{le=\"0.01\"} 3",
            "fraud_scorer_score_bucket{le=\"1\"} 4",
            "fraud_scorer_end_to_end_seconds_bucket{le=\"0.05\"} 0",
            "fraud_scorer_end_to_end_seconds_bucket{le=\"0.1\"} 3",
            "fraud_scorer_end_to_end_seconds_sum 0.26",
            "fraud_scorer_verdict_amount_total{decision=\"approve\"} 20.5",
            "fraud_scorer_verdict_amount_total{decision=\"review\"} 0",
            "fraud_scorer_verdict_amount_total{decision=\"decline\"} 0.25",
            "fraud_scorer_stage_seconds_bucket{stage=\"commit\",le=\"0.005\"} 1",
            "fraud_scorer_stage_seconds_count{stage=\"decode\"} 0",
            "fraud_scorer_batch_rows_sum 5",
            "fraud_scorer_batch_rows_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        let types = text.lines().filter(|line| line.starts_with("# TYPE fraud_scorer_stage_seconds")).count();
        assert_eq!(types, 1, "one description for all stages");
    }
}
