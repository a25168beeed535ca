#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::super::tests::drain;
use super::*;

/// Two features in two classes. Normal quantiles, so that moments and correlation are known exactly: legitimate
/// V1 ~ N(0, 1), Amount ~ N(100, 10) with correlation 0.6; fraud is V1 ~ N(-5, 2), Amount ~ N(300, 20), uncorrelated.
pub(in crate::source) fn reference() -> Reference {
    let levels: Vec<f64> = (0..=1_000).map(|index| f64::from(index) / 1_000.0).collect();
    let feature = |name: &str, mean: f64, deviation: f64, decimals: Option<u32>| {
        let quantiles: Vec<f64> = levels.iter().map(|&level| mean + deviation * quantile(level)).collect();
        json!({"name": name, "mean": mean, "standard_deviation": deviation, "quantiles": quantiles, "decimals": decimals})
    };
    let component = |label: u32, share: f64, features: [Value; 2], correlation: f64| {
        json!({
            "label": label, "share": share, "features": features,
            "covariance": [[1.0, 0.0], [0.0, 1.0]],
            "correlation_cholesky": [[1.0], [correlation, (1.0 - correlation * correlation).sqrt()]],
        })
    };
    let histogram = |name: &str| json!({"name": name, "cuts": [0.0], "shares": [0.5, 0.5], "missing": 0.0});
    let value = json!({
        "schema": 1, "rows": 1, "weighted_rows": 1.0, "fraud_share": 0.1,
        "features": [histogram("V1"), histogram("Amount")],
        "score": {"cuts": [0.5], "shares": [0.9, 0.1]},
        "profile": {"levels": levels, "components": [
            component(0, 0.9, [feature("V1", 0.0, 1.0, None), feature("Amount", 100.0, 10.0, Some(2))], 0.6),
            component(1, 0.1, [feature("V1", -5.0, 2.0, None), feature("Amount", 300.0, 20.0, Some(2))], 0.0),
        ]},
    });
    serde_json::from_value(value).unwrap()
}

/// Φ⁻¹ by bisection, cut at ±4 where the ends of a real sample would be.
fn quantile(level: f64) -> f64 {
    let (mut low, mut high) = (-4.0, 4.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if 0.5 * libm::erfc(-middle / std::f64::consts::SQRT_2) < level { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// `count` draws: the component of each, and its values.
fn sample(fraud_share: Option<f64>, seed: u64, count: usize) -> Vec<(usize, [f64; 2])> {
    let mut draw = Draw::new(reference().profile.as_ref().unwrap(), fraud_share, seed, None).unwrap();
    (0..count)
        .map(|_| {
            let mut values = [0.0; 2];
            (draw.draw(&mut values), values)
        })
        .collect()
}

struct Moments {
    mean: [f64; 2],
    deviation: [f64; 2],
    correlation: f64,
}

fn moments(rows: &[[f64; 2]]) -> Moments {
    let count = rows.len() as f64;
    let mean = [0, 1].map(|column| rows.iter().map(|row| row[column]).sum::<f64>() / count);
    let product = |left: usize, right: usize| {
        rows.iter().map(|row| (row[left] - mean[left]) * (row[right] - mean[right])).sum::<f64>() / count
    };
    let deviation = [product(0, 0).sqrt(), product(1, 1).sqrt()];
    Moments { mean, deviation, correlation: product(0, 1) / (deviation[0] * deviation[1]) }
}

fn of_class(rows: &[(usize, [f64; 2])], class: usize) -> Vec<[f64; 2]> {
    rows.iter().filter(|row| row.0 == class).map(|row| row.1).collect()
}

#[test]
fn draws_have_the_profiles_shares_moments_and_correlation() {
    let rows = sample(None, 7, 200_000);
    let (legitimate, fraud) = (of_class(&rows, 0), of_class(&rows, 1));
    // Bounds are about five standard errors.
    let share = fraud.len() as f64 / rows.len() as f64;
    assert!((share - 0.1).abs() < 0.0035, "{share}");
    let found = moments(&legitimate);
    assert!(found.mean[0].abs() < 0.012 && (found.mean[1] - 100.0).abs() < 0.12, "{:?}", found.mean);
    assert!(
        (found.deviation[0] - 1.0).abs() < 0.01 && (found.deviation[1] - 10.0).abs() < 0.1,
        "{:?}",
        found.deviation
    );
    assert!((found.correlation - 0.6).abs() < 0.01, "{}", found.correlation);
    let found = moments(&fraud);
    assert!((found.mean[0] + 5.0).abs() < 0.08 && (found.mean[1] - 300.0).abs() < 0.8, "{:?}", found.mean);
    assert!(
        (found.deviation[0] - 2.0).abs() < 0.06 && (found.deviation[1] - 20.0).abs() < 0.6,
        "{:?}",
        found.deviation
    );
    assert!(found.correlation.abs() < 0.04, "{}", found.correlation);
}

#[test]
fn draws_follow_the_quantiles_between_the_levels() {
    let rows = of_class(&sample(None, 11, 100_000), 0);
    for level in [0.001, 0.05, 0.3333, 0.5, 0.9, 0.9995] {
        let bound = quantile(level);
        let share = rows.iter().filter(|row| row[0] <= bound).count() as f64 / rows.len() as f64;
        let error = 5.0 * (level * (1.0 - level) / rows.len() as f64).sqrt();
        assert!((share - level).abs() < error, "{share} of the draws lie below the {level} quantile");
    }
    let range = rows.iter().fold((0.0_f64, 0.0_f64), |range, row| (range.0.min(row[0]), range.1.max(row[0])));
    assert!(range.0 >= -4.001 && range.1 <= 4.001, "draws stay within the outermost quantiles: {range:?}");
}

#[test]
fn the_share_of_fraud_can_be_set_from_none_to_all() {
    for wanted in [0.0, 0.25, 1.0] {
        let rows = sample(Some(wanted), 3, 40_000);
        let share = of_class(&rows, 1).len() as f64 / rows.len() as f64;
        let bound = if wanted == 0.25 { 0.011 } else { 0.0 };
        assert!((share - wanted).abs() <= bound, "{share} instead of {wanted}");
    }
}

#[test]
fn a_share_that_cannot_be_is_refused() {
    let mut reference = reference();
    assert!(ProfileSource::new(&reference, Some(1.5), Format::Object, 1).is_err());
    let profile = reference.profile.as_mut().unwrap();
    profile.components.truncate(1);
    profile.components[0].share = 1.0;
    assert!(ProfileSource::new(&reference, Some(0.5), Format::Object, 1).is_err());
    assert!(ProfileSource::new(&reference, Some(0.0), Format::Object, 1).is_ok());
    reference.profile = None;
    let error = ProfileSource::new(&reference, None, Format::Object, 1).err().unwrap();
    assert!(error.to_string().contains("has no profile"), "{error}");
}

#[test]
fn values_are_rounded_to_the_decimals_of_their_feature() {
    for (_, [first, amount]) in sample(None, 5, 1_000) {
        let printed = amount.to_string();
        let decimals = printed.split_once('.').map_or(0, |(_, fraction)| fraction.len());
        assert!(decimals <= 2, "{printed}");
        assert!(first.to_string().len() > 6, "{first} keeps its digits");
    }
}

/// The first transactions of a source.
fn take(format: Format, seed: u64, count: i64) -> Vec<Value> {
    let mut source = ProfileSource::new(&reference(), None, format, seed).unwrap();
    let mut row = Row { value: b"left over".to_vec(), ..Row::default() };
    (0..count)
        .map(|index| {
            assert!(source.next(5_000 + index, &mut row).unwrap());
            serde_json::from_slice(&row.value).unwrap()
        })
        .collect()
}

#[test]
fn a_seed_repeats_values_and_ids_and_another_does_not() {
    assert_eq!(take(Format::Object, 1, 50), take(Format::Object, 1, 50));
    let (one, two) = (take(Format::Object, 1, 50), take(Format::Object, 2, 50));
    for (one, two) in one.iter().zip(&two) {
        assert_ne!(one["transaction_id"], two["transaction_id"]);
        assert_ne!(one["V1"], two["V1"]);
    }
}

#[test]
fn both_forms_are_valid_json_with_the_same_values() {
    let (objects, splits) = (take(Format::Object, 9, 200), take(Format::Split, 9, 200));
    for (index, (object, split)) in objects.iter().zip(&splits).enumerate() {
        assert_eq!(object.as_object().unwrap().len(), 4);
        assert_eq!(object["event_time"], 5_000 + index as i64);
        uuid::Uuid::parse_str(object["transaction_id"].as_str().unwrap()).unwrap();
        assert_eq!(*split, json!({"columns": ["V1", "Amount"], "data": [[object["V1"], object["Amount"]]]}));
    }
    let identifiers: std::collections::HashSet<_> =
        objects.iter().map(|object| object["transaction_id"].to_string()).collect();
    assert_eq!(identifiers.len(), 200);
}

#[test]
fn the_guide_finds_the_same_segment_as_a_search() {
    let mut reference = reference();
    let profile = reference.profile.as_mut().unwrap();
    profile.levels = vec![0.0, 1e-5, 2e-5, 1e-4, 0.3, 0.300001, 0.9, 0.99999, 1.0];
    for component in &mut profile.components {
        for feature in &mut component.features {
            feature.quantiles = (0..profile.levels.len()).map(|index| index as f64).collect();
        }
    }
    let draw = Draw::new(profile, None, 1, None).unwrap();
    let steps = (0..=100_000).map(|step| f64::from(step) / 100_000.0);
    for probability in steps.chain([1e-9, 1.5e-5, 0.3000005, 1.0 - 1e-12]) {
        let segment = draw.segment(probability);
        let levels = &draw.levels;
        assert!(levels[segment] <= probability && probability <= levels[segment + 1], "{probability} in {segment}");
    }
}

/// Never ends by itself: what ends a run is count, duration or a signal.
#[test]
fn a_profile_has_no_end() {
    struct Limited<'a>(&'a mut ProfileSource, usize);
    impl Source for Limited<'_> {
        fn next(&mut self, event_time: i64, row: &mut Row) -> Result<bool, SourceError> {
            self.1 -= 1;
            Ok(self.1 > 0 && self.0.next(event_time, row)?)
        }
    }
    let mut source = ProfileSource::new(&reference(), None, Format::Split, 1).unwrap();
    assert_eq!(drain(&mut Limited(&mut source, 10_001)).unwrap().len(), 10_000);
}
