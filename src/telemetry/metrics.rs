//! Metrics: one definition of each, counted per batch, shown when committed.
//!
//! A scoring thread adds up a [`Tally`] in plain memory; when its work is committed the tally is added to the shared
//! instruments (a few atomics per batch, not per record), when it is thrown away the tally is too. So a transaction
//! that had to be scored twice before it was committed counts once.

use std::time::Duration;

use fraud_wire::dead_letter::ErrorClass;
use fraud_wire::verdict::Decision;
use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Upper bounds of the score histogram: even, with the ends that thresholds live at.
const SCORE_BOUNDS: [f64; 14] = [0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];

/// Upper bounds of end-to-end latency, seconds: half a millisecond to a minute.
const LATENCY_BOUNDS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of a stage's time for one batch, seconds.
const STAGE_BOUNDS: [f64; 13] =
    [0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];

/// Upper bounds of a batch's rows.
const ROWS_BOUNDS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];

/// Installs the process's recorder; `/metrics` renders the handle.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let full = |name: &str| Matcher::Full(format!("fraud_scorer_{name}"));
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(full("score"), &SCORE_BOUNDS)?
        .set_buckets_for_metric(full("end_to_end_seconds"), &LATENCY_BOUNDS)?
        .set_buckets_for_metric(full("stage_seconds"), &STAGE_BOUNDS)?
        .set_buckets_for_metric(full("batch_rows"), &ROWS_BOUNDS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(
        "fraud_scorer_transactions_total",
        "Transaction rows that ended as a verdict or, as a message, as a dead letter, and were committed"
    );
    describe_counter!("fraud_scorer_verdicts_total", "Verdicts committed, by decision");
    describe_counter!("fraud_scorer_dead_letters_total", "Messages committed to the dead-letter topic, by error class");
    describe_counter!("fraud_scorer_rebalances_total", "Partitions assigned or revoked, counted per change");
    describe_counter!(
        "fraud_scorer_redone_batches_total",
        "Times the work since the last commit was thrown away and read again"
    );
    describe_histogram!("fraud_scorer_score", "Probability of fraud of the committed verdicts");
    describe_histogram!("fraud_scorer_batch_rows", "Rows scored together");
    describe_histogram!("fraud_scorer_stage_seconds", "Time of a stage for one batch (commit: for one commit)");
    describe_histogram!(
        "fraud_scorer_end_to_end_seconds",
        "From the transaction's Kafka timestamp to the commit of its verdict (at least once: to the producer's queue)"
    );
    describe_gauge!("fraud_scorer_consumer_lag", "Records of a partition that were not yet read");
    describe_gauge!("fraud_scorer_consumer_lag_seconds", "Age of the last record read while there are more, else 0");
    describe_gauge!("fraud_scorer_model_info", "1 for the model that scores, by name, version and sha256");
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
}

/// Shared instruments, one handle each, looked up once.
#[derive(Clone)]
pub struct Instruments {
    transactions: Counter,
    verdicts: [Counter; 3],
    dead_letters: [Counter; ErrorClass::ALL.len()],
    rebalances: Counter,
    redone: Counter,
    score: Histogram,
    batch_rows: Histogram,
    end_to_end: Histogram,
    stages: [Histogram; 4],
}

impl Default for Instruments {
    fn default() -> Self {
        let stage = |name: &'static str| histogram!("fraud_scorer_stage_seconds", "stage" => name);
        Instruments {
            transactions: counter!("fraud_scorer_transactions_total"),
            verdicts: Decision::ALL
                .map(|decision| counter!("fraud_scorer_verdicts_total", "decision" => decision.as_str())),
            dead_letters: ErrorClass::ALL
                .map(|class| counter!("fraud_scorer_dead_letters_total", "error_class" => class.as_str())),
            rebalances: counter!("fraud_scorer_rebalances_total"),
            redone: counter!("fraud_scorer_redone_batches_total"),
            score: histogram!("fraud_scorer_score"),
            batch_rows: histogram!("fraud_scorer_batch_rows"),
            end_to_end: histogram!("fraud_scorer_end_to_end_seconds"),
            stages: [stage("decode"), stage("inference"), stage("produce"), stage("commit")],
        }
    }
}

impl Instruments {
    /// The model that scores from now on.
    pub fn model(&self, name: &str, version: &str, sha256: &str) {
        let labels = [("name", name.to_owned()), ("version", version.to_owned()), ("sha256", sha256.to_owned())];
        gauge!("fraud_scorer_model_info", &labels).set(1.0);
    }

    /// Time of a stage for one batch.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.stages[stage as usize].record(time.as_secs_f64());
    }

    /// Rows scored together.
    pub fn batch(&self, rows: usize) {
        self.batch_rows.record(rows as f64);
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
        let gauges: [(Gauge, f64); 2] = [
            (gauge!("fraud_scorer_consumer_lag", &labels()), records as f64),
            (gauge!("fraud_scorer_consumer_lag_seconds", &labels()), seconds),
        ];
        gauges.into_iter().for_each(|(gauge, value)| gauge.set(value));
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
        tally.scores.drain_into(&self.score);
        let mut latency = Buckets::new(&LATENCY_BOUNDS);
        for timestamp in tally.timestamps.drain(..) {
            latency.add((now - timestamp).max(0) as f64 / 1000.0);
        }
        latency.drain_into(&self.end_to_end);
        tally.clear();
    }
}

/// What was done since the last commit.
#[derive(Debug)]
pub struct Tally {
    verdicts: [u64; 3],
    dead_letters: [u64; ErrorClass::ALL.len()],
    scores: Buckets,
    timestamps: Vec<i64>,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            verdicts: [0; 3],
            dead_letters: [0; ErrorClass::ALL.len()],
            scores: Buckets::new(&SCORE_BOUNDS),
            timestamps: Vec::new(),
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

    /// A dead letter was queued.
    pub fn dead_letter(&mut self, class: ErrorClass) {
        self.dead_letters[class as usize] += 1;
    }

    /// The work was thrown away.
    pub fn clear(&mut self) {
        self.verdicts = [0; 3];
        self.dead_letters = [0; ErrorClass::ALL.len()];
        self.scores.clear();
        self.timestamps.clear();
    }
}

/// A histogram in plain memory, handed over as one mean per bucket: bucket counts and the sum stay exact.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    counts: Vec<u32>,
    sums: Vec<f64>,
}

impl Buckets {
    fn new(bounds: &'static [f64]) -> Self {
        Buckets { bounds, counts: vec![0; bounds.len() + 1], sums: vec![0.0; bounds.len() + 1] }
    }

    #[inline]
    fn add(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sums[bucket] += value;
    }

    fn drain_into(&mut self, histogram: &Histogram) {
        for (bucket, (count, sum)) in
            self.counts.iter().zip(&self.sums).enumerate().filter(|(_, (count, _))| **count > 0)
        {
            // Rounding must not lift the mean over its bucket's bound.
            let mean = (sum / f64::from(*count)).min(self.bounds.get(bucket).copied().unwrap_or(f64::INFINITY));
            histogram.record_many(mean, *count as usize);
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.counts.fill(0);
        self.sums.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_work_shows_and_thrown_away_work_does_not() {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Full("fraud_scorer_score".into()), &SCORE_BOUNDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full("fraud_scorer_end_to_end_seconds".into()), &LATENCY_BOUNDS)
            })
            .expect("buckets")
            .build_recorder();
        let text = metrics::with_local_recorder(&recorder, || {
            let instruments = Instruments::default();
            let mut tally = Tally::default();
            tally.verdict(Decision::Decline, 0.97, Some(0));
            tally.clear();
            tally.verdict(Decision::Approve, 0.004, Some(1_000));
            tally.verdict(Decision::Approve, 0.006, Some(1_040));
            tally.verdict(Decision::Decline, 1.0, None);
            tally.dead_letter(ErrorClass::TooLarge);
            instruments.committed(&mut tally, 1_100);
            instruments.committed(&mut tally, 1_100);
            recorder.handle().render()
        });
        for line in [
            "fraud_scorer_transactions_total 4",
            "fraud_scorer_verdicts_total{decision=\"approve\"} 2",
            "fraud_scorer_verdicts_total{decision=\"decline\"} 1",
            "fraud_scorer_verdicts_total{decision=\"review\"} 0",
            "fraud_scorer_dead_letters_total{error_class=\"too-large\"} 1",
            "fraud_scorer_score_bucket{le=\"0.001\"} 0",
            "fraud_scorer_score_bucket{le=\"0.01\"} 2",
            "fraud_scorer_score_bucket{le=\"1\"} 3",
            "fraud_scorer_end_to_end_seconds_bucket{le=\"0.05\"} 0",
            "fraud_scorer_end_to_end_seconds_bucket{le=\"0.1\"} 2",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }
}
