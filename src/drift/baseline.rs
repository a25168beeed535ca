//! The baseline: the bins that rows are counted into, and the share of the training data in each.
//!
//! All bins of all features and of the score stand in one list of slots, so that a set of counts is one slice:
//!
//! ```text
//!  slots  │ V1: bin 0 … bin 15 │ V2: … │ … │ Amount: … │ score: bin 0 … │
//!           └── Watched.slots ──┘
//! ```
//!
//! The shares are those of rows as they are scored: a value that training did not have counts in the bin of the
//! feature's default, which the decoder puts in its place, and not at all where there is no default, because such a
//! message is a dead letter.
//!
//! Narrow neighbours are merged: a bin with hardly a row in it adds noise to the index and a time series to the metrics.

use std::ops::Range;

use fraud_wire::reference::{Histogram, Reference};

use crate::pipeline::decode::Feature;

/// Features: least share of the reference in a bin. Training writes sixteen bins of a sixteenth each.
const LEAST_FEATURE_SHARE: f64 = 0.05;

/// The score: far less, because it is the few suspicious transactions that matter. 0.005 of [`super::LEAST_ROWS`] are
/// five rows, below which the index jumps by chance.
const LEAST_SCORE_SHARE: f64 = 0.005;

/// Most bins of one histogram; merging goes on until they are no more.
const MOST_BINS: usize = 20;

/// A share below this counts as this: the logarithm of a bin that training never saw must stay finite.
const SHARE_FLOOR: f64 = 1e-4;

/// Why a reference is no baseline for a model.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BaselineError {
    /// A feature of the model has no histogram.
    #[error("it has no histogram of feature {0:?}, which the manifest lists: export the bundle again")]
    NoHistogram(String),
}

/// One histogram: a feature's or the score's.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The feature's name; `None` is the score.
    pub feature: Option<String>,
    /// Its place in the list of slots.
    pub slots: Range<usize>,
    /// Share of the reference in each slot; positive, adding up to 1.
    pub shares: Vec<f64>,
    /// What the slots hold, for people: the upper edge of each bin, `+Inf` for the last.
    pub labels: Vec<String>,
    /// How freely chance can spread rows over the bins: bins that the reference has rows in, less one.
    pub degrees_of_freedom: usize,
    /// Where bins begin: a value is in the bin whose number is that of the edges below it. Each is the largest 32-bit
    /// float that is not above the reference's edge, so that a 32-bit value falls into the bin that training, which
    /// compares as 64-bit, put it into. Filled up with infinity, which nothing is above.
    edges: [f32; MOST_BINS],
}

/// The bins of a model.
#[derive(Clone, Debug)]
pub struct Baseline {
    /// The features in the model's order, then the score.
    watched: Vec<Watched>,
    /// Rows that the reference was made from.
    reference_rows: u64,
    slots: usize,
}

impl Baseline {
    /// Bins for the model's `features`.
    ///
    /// # Errors
    /// [`BaselineError`] where `reference` has no histogram of one.
    pub fn new(reference: &Reference, features: &[Feature]) -> Result<Baseline, BaselineError> {
        let (mut watched, mut slots) = (Vec::with_capacity(features.len() + 1), 0);
        for feature in features {
            let found = reference.features.iter().find(|found| found.name == feature.name);
            let found = found.ok_or_else(|| BaselineError::NoHistogram(feature.name.clone()))?;
            let filled = feature.default.map(|default| (default, found.missing));
            let next = Watched::new(Some(&feature.name), &found.histogram, LEAST_FEATURE_SHARE, filled, slots);
            slots = next.slots.end;
            watched.push(next);
        }
        let score = Watched::new(None, &reference.score, LEAST_SCORE_SHARE, None, slots);
        slots = score.slots.end;
        watched.push(score);
        Ok(Baseline { watched, reference_rows: reference.rows, slots })
    }

    /// Length of a set of counts.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Features of a row.
    pub fn width(&self) -> usize {
        self.watched.len() - 1
    }

    /// Rows that the reference was made from.
    pub fn reference_rows(&self) -> u64 {
        self.reference_rows
    }

    /// The features in the model's order.
    pub fn features(&self) -> &[Watched] {
        &self.watched[..self.watched.len() - 1]
    }

    /// The score.
    pub fn score(&self) -> &Watched {
        &self.watched[self.watched.len() - 1]
    }

    /// Counts one row, [`width`](Baseline::width) features and a score, into a slot of each histogram.
    #[inline]
    pub(super) fn count(&self, features: &[f32], score: f32, counts: &mut [u32]) {
        for (watched, &value) in self.watched.iter().zip(features.iter().chain(std::iter::once(&score))) {
            counts[watched.slot(value)] += 1;
        }
    }
}

impl Watched {
    /// `filled`: the default that missing values are replaced by, and their share.
    fn new(
        feature: Option<&str>,
        histogram: &Histogram,
        least_share: f64,
        filled: Option<(f32, f64)>,
        first_slot: usize,
    ) -> Watched {
        let Merged { cuts, mut shares } = merge(histogram, least_share);
        let mut edges = [f32::INFINITY; MOST_BINS];
        for (edge, &cut) in edges.iter_mut().zip(&cuts) {
            *edge = floor(cut);
        }
        // The file's shares may or may not count missing values: either way they are those of the values there are.
        if let Some((default, missing)) = filled {
            let sum: f64 = shares.iter().sum();
            for share in &mut shares {
                *share *= (1.0 - missing) / sum.max(f64::MIN_POSITIVE);
            }
            shares[bin(&edges, default)] += missing;
        }
        let populated = shares.iter().filter(|share| **share >= SHARE_FLOOR).count();
        for share in &mut shares {
            *share = share.max(SHARE_FLOOR);
        }
        let sum: f64 = shares.iter().sum();
        for share in &mut shares {
            *share /= sum;
        }
        Watched {
            feature: feature.map(str::to_owned),
            slots: first_slot..first_slot + shares.len(),
            labels: cuts.iter().map(f64::to_string).chain(["+Inf".to_owned()]).collect(),
            degrees_of_freedom: populated.saturating_sub(1),
            shares,
            edges,
        }
    }

    #[inline]
    fn slot(&self, value: f32) -> usize {
        self.slots.start + bin(&self.edges, value)
    }
}

/// The bin that a value is in. A missing value that reaches the model as NaN counts in the lowest one, in the reference as in
/// the traffic.
#[inline]
fn bin(edges: &[f32; MOST_BINS], value: f32) -> usize {
    // All of them, without a branch: a few vector instructions.
    edges.iter().map(|&edge| usize::from(edge < value)).sum()
}

/// Bins after merging.
struct Merged {
    cuts: Vec<f64>,
    shares: Vec<f64>,
}

/// Merges neighbours until every bin has the least share and there are no more than [`MOST_BINS`].
fn merge(histogram: &Histogram, least_share: f64) -> Merged {
    let mut least = least_share;
    loop {
        let (mut cuts, mut shares, mut gathered) = (Vec::new(), Vec::new(), 0.0);
        for (index, share) in histogram.shares.iter().enumerate() {
            gathered += share;
            match histogram.cuts.get(index) {
                Some(&cut) if gathered >= least => {
                    cuts.push(cut);
                    shares.push(std::mem::take(&mut gathered));
                }
                Some(_) => {}
                // The last bin takes in its left neighbour where it is too narrow itself.
                None if gathered < least && !shares.is_empty() => {
                    cuts.pop();
                    if let Some(last) = shares.last_mut() {
                        *last += gathered;
                    }
                }
                None => shares.push(gathered),
            }
        }
        if shares.len() <= MOST_BINS {
            return Merged { cuts, shares };
        }
        least *= 2.0;
    }
}

/// The largest 32-bit float that is not above `value`.
fn floor(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) > value { near.next_down() } else { near }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference(features: serde_json::Value, score: serde_json::Value) -> Reference {
        let reference: Reference = serde_json::from_value(json!({
            "schema": 1, "rows": 1000, "weighted_rows": 1000.0, "fraud_share": 0.01,
            "features": features, "score": score,
        }))
        .unwrap();
        reference.validate().unwrap();
        reference
    }

    fn feature(name: &str, default: Option<f32>) -> Feature {
        Feature { name: name.to_owned(), default }
    }

    fn score() -> serde_json::Value {
        json!({"cuts": [0.1, 0.5, 0.9], "shares": [0.98, 0.01, 0.004, 0.006]})
    }

    fn histogram(cuts: &[f64], shares: &[f64]) -> Histogram {
        Histogram { cuts: cuts.to_vec(), shares: shares.to_vec() }
    }

    #[test]
    fn values_fall_into_the_bin_that_training_put_them_into() {
        // 2.69 as a 32-bit float is a little above 2.69: training, comparing as 64-bit, counts it into the next bin.
        let (cuts, shares) = ([1.0, 1.4, 2.69, 1e300], [0.2; 5]);
        let reference = reference(json!([{"name": "Amount", "cuts": cuts, "shares": shares}]), score());
        let baseline = Baseline::new(&reference, &[feature("Amount", None)]).unwrap();
        let amount = &baseline.features()[0];
        for value in [f32::MIN, 0.0, 1.0, 1.0000001, 1.4, 1.3999999, 2.69, 2.6899998, 3.0, f32::MAX, f32::INFINITY] {
            let expected = cuts.iter().filter(|cut| **cut < f64::from(value)).count();
            assert_eq!(amount.slot(value), expected, "{value}");
        }
        assert_eq!(amount.labels, ["1", "1.4", "2.69", &1e300_f64.to_string(), "+Inf"]);
    }

    #[test]
    fn narrow_bins_are_merged_with_their_neighbours() {
        let merged = merge(&histogram(&[1.0, 2.0, 3.0, 4.0], &[0.01, 0.5, 0.02, 0.46, 0.01]), 0.05);
        assert_eq!(merged.cuts, [2.0]);
        assert_eq!(merged.shares.len(), 2);
        assert!((merged.shares[0] - 0.51).abs() < 1e-12 && (merged.shares[1] - 0.49).abs() < 1e-12);
        let constant = merge(&histogram(&[], &[1.0]), 0.05);
        assert!(constant.cuts.is_empty() && constant.shares == [1.0]);
        let hundred: Vec<f64> = (1..1000).map(f64::from).collect();
        let merged = merge(&histogram(&hundred, &[0.001; 1000]), 0.005);
        assert!(merged.shares.len() <= MOST_BINS && merged.shares.len() >= MOST_BINS / 2, "{}", merged.shares.len());
    }

    #[test]
    fn missing_values_count_as_what_is_scored_in_their_place() {
        let with = json!({"name": "with", "cuts": [0.0], "shares": [0.5, 0.5], "missing": 0.2});
        let without = json!({"name": "without", "cuts": [0.0], "shares": [0.4, 0.4], "missing": 0.2});
        let reference = reference(json!([with, without]), score());
        // Whether or not the file counts them among the shares.
        for name in ["with", "without"] {
            for (default, expected) in [(None, [0.5, 0.5]), (Some(-1.0), [0.6, 0.4]), (Some(1.0), [0.4, 0.6])] {
                let baseline = Baseline::new(&reference, &[feature(name, default)]).unwrap();
                for (share, expected) in baseline.features()[0].shares.iter().zip(expected) {
                    assert!((share - expected).abs() < 1e-9, "{name} {default:?}: {baseline:?}");
                }
            }
        }
    }

    #[test]
    fn histograms_stand_in_the_models_order_and_the_score_last() {
        let histogram = |name: &str| json!({"name": name, "cuts": [0.0, 1.0], "shares": [0.3, 0.3, 0.4]});
        let reference = reference(json!([histogram("a"), histogram("b")]), score());
        let baseline = Baseline::new(&reference, &[feature("b", None), feature("a", None)]).unwrap();
        let names: Vec<_> = baseline.features().iter().map(|watched| watched.feature.as_deref().unwrap()).collect();
        assert_eq!((names, baseline.width()), (vec!["b", "a"], 2));
        assert_eq!(baseline.score().slots, 6..9, "the narrow bins of the score are one");
        assert_eq!(baseline.slots(), 9);
        let mut counts = vec![0; baseline.slots()];
        baseline.count(&[0.5, 7.0], 0.95, &mut counts);
        assert_eq!(counts, [0, 1, 0, 0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn a_feature_without_histogram_is_named() {
        let reference = reference(json!([{"name": "a", "cuts": [], "shares": [1.0]}]), score());
        let error = Baseline::new(&reference, &[feature("a", None), feature("V7", None)]).unwrap_err();
        assert!(error.to_string().contains("\"V7\""), "{error}");
    }
}
