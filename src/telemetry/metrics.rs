//! Metrics: one definition of each, counted per batch, shown when committed.
//!
//! A scoring thread adds up a [`Tally`] in plain memory; when its work is committed the tally is added to the shared
//! instruments (a few atomics per batch, not per record), when it is thrown away the tally is too. So a transaction
//! that had to be scored twice before it was committed counts once.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use fraud_wire::dead_letter::ErrorClass;
use fraud_wire::verdict::Decision;
use metrics::{Counter, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::comparisons::{ComparisonTally, Comparisons, comparisons};
use super::drift;
use super::histogram::{Buckets, Histogram};
use super::models::{Models, models};
use super::requests;
use super::suspicious::Gathered;
use crate::drift::Pending;
use crate::pipeline::compare::Comparison;

/// Upper bounds of the score histogram: even, with the ends that thresholds live at.
const SCORE_BOUNDS: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];

/// Upper bounds of end-to-end latency, seconds: half a millisecond to a minute.
const LATENCY_BOUNDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of a stage's time for one batch, seconds.
const STAGE_BOUNDS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];

/// Upper bounds of a batch's rows.
const ROWS_BOUNDS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];

const STAGE_HELP: &str = "Time of a stage for one batch, seconds (commit: for one commit).";

/// Renders everything for `/metrics`.
#[derive(Clone)]
pub struct Exposition {
    counters: PrometheusHandle,
}

/// Installs the process's recorder.
pub fn install() -> Result<Exposition, BuildError> {
    let counters = PrometheusBuilder::new().install_recorder()?;
    describe();
    Ok(Exposition { counters })
}

impl Exposition {
    /// Prometheus text format.
    pub fn render(&self) -> String {
        let mut text = self.counters.render();
        models().render(&mut text);
        comparisons().render(&mut text);
        histograms().render(&mut text);
        drift::render(&mut text);
        requests::render(&mut text);
        text
    }
}

fn describe() {
    for (name, help) in [
        (
            "fraud_scorer_transactions_total",
            "Transaction rows that ended as a verdict or, as a message, as a dead letter, and were committed",
        ),
        ("fraud_scorer_verdicts_total", "Verdicts committed, by decision"),
        ("fraud_scorer_dead_letters_total", "Messages committed to the dead-letter topic, by error class"),
        ("fraud_scorer_rebalances_total", "Times partitions were assigned, revoked or lost"),
        ("fraud_scorer_model_swaps_total", "Models that asked to serve, by what became of it, and rollbacks"),
        ("fraud_scorer_redone_total", "Times the work since the last commit was thrown away and read again"),
        ("fraud_scorer_http_requests_total", "Scoring requests over HTTP, by path and status"),
    ] {
        describe_counter!(name, help);
    }
    for (name, help) in [
        ("fraud_scorer_consumer_lag", "Records of a partition that were not yet read"),
        ("fraud_scorer_consumer_lag_seconds", "Age of the last record read while there are more, else 0"),
        ("fraud_scorer_ready", "1 while the worker is ready, 0 while it is not; /readyz says why"),
        ("fraud_scorer_registry_reachable", "1 while the model registry answers, 0 while it does not"),
    ] {
        describe_gauge!(name, help);
    }
}

/// The process's histograms.
struct Histograms {
    score: Histogram,
    batch_rows: Histogram,
    end_to_end: Histogram,
    stages: [Histogram; 5],
}

impl Histograms {
    fn new() -> Self {
        let stage = |label| Histogram::new("fraud_scorer_stage_seconds", STAGE_HELP, label, STAGE_BOUNDS);
        let score_help = "Probability of fraud of the committed verdicts.";
        let latency_help = "From the transaction's Kafka timestamp to the commit of its verdict, seconds.";
        Histograms {
            score: Histogram::new("fraud_scorer_score", score_help, "", SCORE_BOUNDS),
            batch_rows: Histogram::new("fraud_scorer_batch_rows", "Rows scored together.", "", ROWS_BOUNDS),
            end_to_end: Histogram::new("fraud_scorer_end_to_end_seconds", latency_help, "", LATENCY_BOUNDS),
            stages: [
                stage("stage=\"decode\""),
                stage("stage=\"inference\""),
                stage("stage=\"produce\""),
                stage("stage=\"commit\""),
                stage("stage=\"challenger\""),
            ],
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
}

impl Default for Instruments {
    fn default() -> Self {
        Instruments::with(histograms().clone(), models().clone(), comparisons().clone())
    }
}

impl Instruments {
    fn with(histograms: Arc<Histograms>, models: Arc<Models>, comparisons: Arc<Comparisons>) -> Self {
        Instruments {
            transactions: counter!("fraud_scorer_transactions_total"),
            verdicts: Decision::ALL
                .map(|decision| counter!("fraud_scorer_verdicts_total", "decision" => decision.as_str())),
            dead_letters: ErrorClass::ALL
                .map(|class| counter!("fraud_scorer_dead_letters_total", "error_class" => class.as_str())),
            rebalances: counter!("fraud_scorer_rebalances_total"),
            redone: counter!("fraud_scorer_redone_total"),
            swaps: SwapResult::ALL
                .map(|result| counter!("fraud_scorer_model_swaps_total", "result" => result.as_str())),
            histograms,
            models,
            comparisons,
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

    /// A model asked to serve, or was taken back.
    pub fn swap(&self, result: SwapResult) {
        self.swaps[result as usize].increment(1);
    }

    /// Whether the model registry answered when it was last asked.
    pub fn registry_reachable(&self, reachable: bool) {
        gauge!("fraud_scorer_registry_reachable").set(f64::from(u8::from(reachable)));
    }

    /// Time of a stage for one batch.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.histograms.stages[stage as usize].record(time.as_secs_f64());
    }

    /// Rows scored together.
    pub fn batch(&self, rows: usize) {
        self.histograms.batch_rows.record(rows as f64);
    }

    /// Partitions came or went.
    pub fn rebalance(&self) {
        self.rebalances.increment(1);
    }

    /// Work was thrown away to be done again.
    pub fn redone(&self) {
        self.redone.increment(1);
    }

    /// Lag of one partition.
    pub fn lag(&self, topic: &str, partition: i32, records: i64, seconds: f64) {
        let labels = || [("topic", topic.to_owned()), ("partition", partition.to_string())];
        gauge!("fraud_scorer_consumer_lag", &labels()).set(records as f64);
        gauge!("fraud_scorer_consumer_lag_seconds", &labels()).set(seconds);
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
        for timestamp in tally.timestamps.drain(..) {
            tally.latency.add((now - timestamp).max(0) as f64 / 1000.0);
        }
        self.histograms.score.drain(&mut tally.scores);
        self.histograms.end_to_end.drain(&mut tally.latency);
        self.comparisons.committed(&mut tally.comparisons);
        tally.drift.publish(Instant::now());
        tally.suspicious.publish();
        tally.clear();
    }
}

/// What was done since the last commit.
#[derive(Debug)]
pub struct Tally {
    verdicts: [u64; 3],
    dead_letters: [u64; ErrorClass::ALL.len()],
    scores: Buckets,
    latency: Buckets,
    timestamps: Vec<i64>,
    comparisons: ComparisonTally,
    /// What the rows looked like.
    pub drift: Pending,
    /// Some of the verdicts at review or decline, for the console.
    pub suspicious: Gathered,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            verdicts: [0; 3],
            dead_letters: [0; ErrorClass::ALL.len()],
            scores: Buckets::new(SCORE_BOUNDS),
            latency: Buckets::new(LATENCY_BOUNDS),
            timestamps: Vec::new(),
            comparisons: ComparisonTally::default(),
            drift: Pending::default(),
            suspicious: Gathered::default(),
        }
    }
}

impl Tally {
    /// A verdict was queued; `timestamp` is the record's, epoch milliseconds.
    #[inline]
    pub fn verdict(&mut self, decision: Decision, score: f32, timestamp: Option<i64>) {
        self.verdicts[decision as usize] += 1;
        self.scores.add(f64::from(score));
        self.timestamps.extend(timestamp);
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
        self.scores.clear();
        self.latency.clear();
        self.timestamps.clear();
        self.comparisons.clear();
        self.drift.clear();
        self.suspicious.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_work_shows_and_thrown_away_work_does_not() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let instruments = Instruments::with(Arc::new(Histograms::new()), Arc::default(), Arc::default());
            let mut tally = Tally::default();
            tally.verdict(Decision::Decline, 0.97, Some(0));
            tally.clear();
            tally.verdict(Decision::Approve, 0.004, Some(1_000));
            tally.verdict(Decision::Approve, 0.006, Some(1_040));
            tally.verdict(Decision::Decline, 1.0, None);
            tally.dead_letter(ErrorClass::TooLarge);
            instruments.committed(&mut tally, 1_100);
            instruments.committed(&mut tally, 1_100);
            instruments.swap(SwapResult::RolledBack);
            instruments.stage(Stage::Commit, Duration::from_millis(3));
            let mut text = recorder.handle().render();
            instruments.histograms.render(&mut text);
            text
        });
        for line in [
            "fraud_scorer_transactions_total 4",
            "fraud_scorer_verdicts_total{decision=\"approve\"} 2",
            "fraud_scorer_verdicts_total{decision=\"decline\"} 1",
            "fraud_scorer_verdicts_total{decision=\"review\"} 0",
            "fraud_scorer_dead_letters_total{error_class=\"too-large\"} 1",
            "fraud_scorer_model_swaps_total{result=\"rolled-back\"} 1",
            "fraud_scorer_model_swaps_total{result=\"swapped\"} 0",
            "fraud_scorer_score_bucket{le=\"0.001\"} 0",
            "fraud_scorer_score_bucket{le=\"0.01\"} 2",
            "fraud_scorer_score_bucket{le=\"1\"} 3",
            "fraud_scorer_end_to_end_seconds_bucket{le=\"0.05\"} 0",
            "fraud_scorer_end_to_end_seconds_bucket{le=\"0.1\"} 2",
            "fraud_scorer_stage_seconds_bucket{stage=\"commit\",le=\"0.005\"} 1",
            "fraud_scorer_stage_seconds_count{stage=\"decode\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
        let types = text.lines().filter(|line| line.starts_with("# TYPE fraud_scorer_stage_seconds")).count();
        assert_eq!(types, 1, "one description for all stages");
    }
}
