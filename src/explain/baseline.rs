//! What an ordinary transaction looks like: the row that others are compared with.
//!
//! ```text
//!  reference.json ─┬► medians ─┐
//!  golden.jsonl ───┴───────────┴► ordinary row, feature by feature
//!  reference.json ───► means, for models that are linear and have no scaler
//! ```
//!
//! Medians rather than means: the mean of a skewed feature (an amount) is a value that hardly any transaction has, and what
//! trees do there says little. Nearly all transactions are good, so the medians of all are those of the good ones.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use fraud_wire::reference::{FeatureHistogram, Histogram, Profile, Reference, ReferenceError};

use super::Unexplainable;
use crate::log_events;
use crate::model::bundle::Bundle;
use crate::model::manifest::Manifest;
use crate::pipeline::decode::{Decoder, Feature, Rows};

/// Bytes of golden records that are looked through.
const MOST_GOLDEN_BYTES: u64 = 4 << 20;

/// Where more of the training rows than this have no value, having none is what is ordinary.
const MOSTLY_MISSING: f64 = 0.5;

/// The rows that others are compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Baseline {
    /// The median of each feature, in the model's order.
    pub ordinary: Vec<f32>,
    /// The mean of each feature, where the bundle says.
    pub mean: Option<Vec<f32>>,
}

impl Baseline {
    /// What `bundle` says is ordinary.
    pub fn of(bundle: &Bundle) -> Result<Baseline, Unexplainable> {
        let reference = read(&bundle.directory.join("reference.json"));
        let features = &bundle.manifest.features;
        let golden = match &reference {
            Some(reference) if features.iter().all(|feature| histogram(reference, feature).is_some()) => Vec::new(),
            _ => golden_medians(&bundle.directory.join("golden.jsonl"), &bundle.manifest),
        };
        let ordinary = features.iter().enumerate().map(|(index, feature)| {
            let known = reference.as_ref().and_then(|reference| median_of(histogram(reference, feature)?, feature));
            let found = known.or_else(|| golden.get(index).copied()).or(feature.default);
            found.ok_or_else(|| Unexplainable::NoBaseline(feature.name.clone()))
        });
        let mean = reference.as_ref().and_then(|reference| means(reference.profile.as_ref()?, features));
        Ok(Baseline { ordinary: ordinary.collect::<Result<_, _>>()?, mean })
    }
}

/// The reference, where there is a sound one: scoring does without, and so can we.
fn read(path: &Path) -> Option<Reference> {
    match Reference::read(path) {
        Ok(reference) => Some(reference),
        Err(ReferenceError::Unreadable { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            log_events::model::ReferenceUnread { error: &error }.log();
            None
        }
    }
}

fn histogram<'a>(reference: &'a Reference, feature: &Feature) -> Option<&'a FeatureHistogram> {
    reference.features.iter().find(|found| found.name == feature.name)
}

/// The median of the values as they are scored: the decoder puts the default where there is none.
fn median_of(found: &FeatureHistogram, feature: &Feature) -> Option<f32> {
    match feature.default {
        Some(default) if found.missing > MOSTLY_MISSING => Some(default),
        _ => median(&found.histogram).map(|median| median as f32),
    }
}

/// Where half of the shares lie below, evenly spread within a bin; an edge for the bins that have no end.
fn median(histogram: &Histogram) -> Option<f64> {
    let mut left = histogram.shares.iter().sum::<f64>() / 2.0;
    let (first, last) = (*histogram.cuts.first()?, *histogram.cuts.last()?);
    for (index, share) in histogram.shares.iter().enumerate() {
        if left <= *share {
            let lower = if index == 0 { first } else { histogram.cuts[index - 1] };
            let upper = histogram.cuts.get(index).copied().unwrap_or(last);
            return Some(lower + (upper - lower) * left / share.max(f64::MIN_POSITIVE));
        }
        left -= share;
    }
    Some(last)
}

/// The mean of each feature over all components of the training data.
fn means(profile: &Profile, features: &[Feature]) -> Option<Vec<f32>> {
    let mean = |feature: &Feature| {
        let of_component = |component: &fraud_wire::reference::Component| {
            let found = component.features.iter().find(|found| found.name == feature.name)?;
            Some(component.share * found.mean)
        };
        profile.components.iter().map(of_component).sum::<Option<f64>>().map(|mean| mean as f32)
    };
    features.iter().map(mean).collect()
}

/// The median of each feature over the golden records; empty where there are none.
fn golden_medians(path: &Path, manifest: &Manifest) -> Vec<f32> {
    let mut text = Vec::new();
    if File::open(path).and_then(|file| file.take(MOST_GOLDEN_BYTES).read_to_end(&mut text)).is_err() {
        return Vec::new();
    }
    let (mut decoder, mut rows) = (Decoder::new(&manifest.features, MOST_GOLDEN_BYTES as usize), Rows::default());
    for line in text.split(|byte| *byte == b'\n') {
        // The last one may be cut off.
        let _ = decoder.decode(Some(line), 0, &mut rows);
    }
    let width = manifest.features.len();
    if rows.is_empty() {
        return Vec::new();
    }
    let middle = |column: usize| {
        let mut values: Vec<f32> = rows.features.iter().skip(column).step_by(width).copied().collect();
        values.sort_by(f32::total_cmp);
        values[values.len() / 2]
    };
    (0..width).map(middle).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_lies_below_the_median() {
        let median = |cuts: &[f64], shares: &[f64]| median(&Histogram { cuts: cuts.into(), shares: shares.into() });
        assert_eq!(median(&[0.0, 1.0, 2.0], &[0.25, 0.25, 0.25, 0.25]), Some(1.0));
        assert_eq!(median(&[0.0, 1.0, 3.0], &[0.2, 0.1, 0.4, 0.3]), Some(2.0));
        assert_eq!(median(&[5.0, 6.0], &[0.7, 0.2, 0.1]), Some(5.0), "within a bin without an end: its edge");
        assert_eq!(median(&[5.0, 6.0], &[0.1, 0.2, 0.7]), Some(6.0));
        assert_eq!(median(&[0.0, 2.0], &[0.1, 0.2, 0.1]), Some(1.0), "the others have no value");
        assert_eq!(median(&[], &[1.0]), None);
    }
}
