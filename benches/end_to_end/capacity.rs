//! The capacity model: what a record costs, and how many records per second follow from it. docs/PERFORMANCE.md
//! explains it; `scaling` holds it against what was measured.
//!
//! ```text
//!  per second = min( scoring threads ÷ scoring thread's CPU per record,
//!                    cores × use ÷ (worker's CPU per record + broker's CPU per record) )
//! ```
//!
//! Both costs come from one run of one process with one thread, so whatever else it says is a prediction.

use serde::Serialize;

use crate::measure::Measured;
use crate::report::Spread;

/// How much of its cores a machine gives when everybody wants them: the rest goes to switching, to the harness that
/// looks on, and to moments when a queue is empty.
const USE: f64 = 0.92;

/// The cluster that is asked for in the extrapolation, records per second.
const CLUSTER_RATE: f64 = 10e6;

/// How much of a core is planned with there: room for peaks, rebalances and the loss of a machine.
const PLANNED_USE: f64 = 0.6;

/// Partitions for each scoring thread, so that threads can be added without adding partitions.
const PARTITIONS_PER_THREAD: f64 = 2.0;

/// Microseconds per record.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// CPU of the scoring thread: it bounds a single thread.
    pub scoring: f64,
    /// Stages of the scoring thread, by the worker's own clock; where others took the core from it, that clock ran on,
    /// and all three are shortened to what the thread can have computed.
    pub decode: f64,
    pub inference: f64,
    pub produce: f64,
    /// CPU of librdkafka's threads: fetching, checksums, sending.
    pub librdkafka: f64,
    /// CPU of the worker's remaining threads.
    pub other: f64,
    /// The broker's CPU, for the input that is read and the output that is written.
    pub broker: f64,
}

impl Costs {
    /// The medians of runs with one thread; `None` where a run has no detail.
    pub fn of(runs: &[&Measured]) -> Option<Costs> {
        let details: Option<Vec<_>> = runs.iter().map(|run| run.detail.as_ref()).collect();
        let details = details.filter(|details| !details.is_empty())?;
        let of_stage = |stage: &str| median(details.iter().map(|detail| detail.stage_microseconds(stage)));
        // scoring-0 is of this kind; scoring-0-commit, its commit thread, is not.
        let scoring = median(details.iter().map(|detail| detail.thread_microseconds(|kind| kind == "scoring")));
        let librdkafka =
            median(details.iter().map(|detail| detail.thread_microseconds(|kind| kind.starts_with("rdk:"))));
        let [decode, inference, produce] = ["decode", "inference", "produce"].map(of_stage);
        let shortened = (scoring / (decode + inference + produce)).min(1.0);
        let worker = median(runs.iter().map(|run| run.cpu_seconds * 1e6 / run.records as f64));
        Some(Costs {
            scoring,
            decode: decode * shortened,
            inference: inference * shortened,
            produce: produce * shortened,
            librdkafka,
            other: (worker - scoring - librdkafka).max(0.0),
            broker: median(runs.iter().map(|run| run.broker_microseconds())),
        })
    }

    /// All of the worker's CPU.
    pub fn worker(&self) -> f64 {
        self.scoring + self.librdkafka + self.other
    }

    /// Records per second of so many scoring threads, in one process or in several, on a machine of so many cores that
    /// runs the broker as well.
    pub fn per_second(&self, threads: usize, cores: f64) -> f64 {
        let by_threads = threads as f64 * 1e6 / self.scoring;
        let by_cores = cores * USE * 1e6 / (self.worker() + self.broker);
        by_threads.min(by_cores)
    }

    /// What a cluster needs for [`CLUSTER_RATE`].
    pub fn cluster(&self) -> Cluster {
        let threads = (CLUSTER_RATE * self.scoring / 1e6 / PLANNED_USE).ceil();
        Cluster {
            records_per_second: CLUSTER_RATE,
            planned_use: PLANNED_USE,
            worker_cores: (CLUSTER_RATE * self.worker() / 1e6 / PLANNED_USE).ceil(),
            broker_cores_unreplicated: (CLUSTER_RATE * self.broker / 1e6 / PLANNED_USE).ceil(),
            scoring_threads: threads,
            partitions: threads * PARTITIONS_PER_THREAD,
        }
    }
}

/// What a cluster needs.
#[derive(Clone, Debug, Serialize)]
pub struct Cluster {
    pub records_per_second: f64,
    pub planned_use: f64,
    pub worker_cores: f64,
    pub broker_cores_unreplicated: f64,
    pub scoring_threads: f64,
    pub partitions: f64,
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}
