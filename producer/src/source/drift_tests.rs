#![allow(clippy::unwrap_used)]

use std::path::Path;

use fraud_wire::reference::Reference;

use super::super::{Format, ProfileSource, Row, Source};
use super::*;

const HOUR: i64 = 3_600_000;

fn shipped() -> Reference {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fraud/reference.json"));
    Reference::read(path).unwrap()
}

fn drift(strength: f64, start: DriftStart) -> Drift {
    Drift { strength, over: Duration::from_secs(10 * 3_600), start, seed: 1 }
}

fn course(drift: Drift) -> Course {
    let profile = shipped().profile.unwrap();
    let shares: Vec<f64> = profile.components.iter().map(|component| component.share).collect();
    Course::new(&profile, &shares, drift)
}

/// The factors seen at these event times, in hours after the first; `None` where nothing moved.
fn factors(drift: Drift, hours: &[i64]) -> Vec<Option<f64>> {
    let mut course = course(drift);
    hours.iter().map(|hour| course.moved(1_000_000 + hour * HOUR)).collect()
}

#[test]
fn the_factor_ramps_up_to_the_strength_and_stays() {
    let ramp = factors(drift(0.5, DriftStart::After(Duration::ZERO)), &[0, 5, 5, 10, 1_000]);
    assert_eq!(ramp, [None, Some(0.25), None, Some(0.5), None]);
    let late = factors(drift(1.0, DriftStart::After(Duration::from_secs(7_200))), &[0, 2, 7, 12]);
    assert_eq!(late, [None, None, Some(0.5), Some(1.0)]);
    let under_way = factors(drift(1.0, DriftStart::At(1_000_000 - 5 * HOUR)), &[0, -5, 50]);
    assert_eq!(under_way, [Some(0.5), Some(0.0), Some(1.0)], "a run may begin in the middle, and a file go back");
    let at_once = Drift { over: Duration::ZERO, ..drift(1.0, DriftStart::After(Duration::from_secs(3_600))) };
    assert_eq!(factors(at_once, &[0, 1, 2]), [None, None, Some(1.0)]);
}

#[test]
fn a_step_is_small_against_the_whole_way() {
    let mut course = course(drift(1.0, DriftStart::After(Duration::ZERO)));
    let moves = (0..=10_000).filter_map(|step| course.moved(step * HOUR / 1_000)).count();
    assert_eq!(moves as u32, STEPS, "one for each step, whatever the number of rows");
}

#[test]
fn everything_on_the_way_is_a_valid_profile() {
    let mut course = course(drift(1.0, DriftStart::After(Duration::ZERO)));
    let features = course.from[0].quantiles.len();
    let mut triangle = vec![0.0; features * (features + 1) / 2];
    for factor in [0.0, 0.125, 0.5, 0.9, 1.0] {
        let shares: f64 = (0..course.from.len()).map(|component| course.share(component, factor)).sum();
        assert!((shares - 1.0).abs() < 1e-6, "shares add up to {shares}");
        for component in 0..course.from.len() {
            for feature in 0..features {
                let values: Vec<f64> = course.quantiles(component, feature, factor).collect();
                assert!(values.is_sorted(), "component {component}, feature {feature} at {factor}: {values:?}");
            }
            course.triangle(component, factor, &mut triangle);
            // L Lᵀ is the blended correlation, whose diagonal is 1.
            let row = |index: usize| &triangle[index * (index + 1) / 2..][..=index];
            for (left, right) in (0..features).flat_map(|left| (0..=left).map(move |right| (left, right))) {
                let product: f64 = row(left).iter().zip(row(right)).map(|(a, b)| a * b).sum();
                let expected = course.blended[left * features + right];
                assert!((product - expected).abs() < 1e-9, "component {component} at {factor}: {left}, {right}");
                assert!(left != right || (product - 1.0).abs() < 1e-3, "component {component}: diagonal {product}");
            }
        }
    }
}

#[test]
fn fraud_share_and_amounts_grow_and_amounts_stay_amounts() {
    let course = course(drift(1.0, DriftStart::After(Duration::ZERO)));
    let profile = shipped().profile.unwrap();
    let fraud_share = |factor: f64| -> f64 {
        let frauds = (0..profile.components.len()).filter(|&index| profile.components[index].label == FRAUD);
        frauds.map(|index| course.share(index, factor)).sum()
    };
    assert!((fraud_share(1.0) / fraud_share(0.0) - 2.0).abs() < 1e-9);
    let amount = profile.names().position(|name| name == "Amount").unwrap();
    for (index, component) in profile.components.iter().enumerate() {
        let scale = if component.label == FRAUD { 2.0 } else { 1.5 };
        let moved: Vec<f64> = course.quantiles(index, amount, 1.0).collect();
        for (from, to) in component.features[amount].quantiles.iter().zip(moved) {
            assert!(to >= 0.0 && (to - scale * from).abs() < 1e-9, "{from} became {to}");
        }
    }
}

/// Rows of a source at one event time: label and features.
fn rows(drift: Option<Drift>, event_time: i64, count: usize) -> Vec<(u8, Vec<f64>)> {
    let mut source = ProfileSource::drifting(&shipped(), Some(0.5), Format::Object, 3, drift).unwrap();
    let mut row = Row::default();
    (0..count)
        .map(|_| {
            assert!(source.next(event_time, &mut row).unwrap());
            let mut values = Vec::new();
            source.features(&mut values);
            (row.label.unwrap(), values)
        })
        .collect()
}

/// How well one feature tells the classes apart: the distance of their medians over the legitimate quartile range.
fn separation(rows: &[(u8, Vec<f64>)], feature: usize) -> f64 {
    let sorted = |label: u8| {
        let mut values: Vec<f64> = rows.iter().filter(|row| row.0 == label).map(|row| row.1[feature]).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (legitimate, fraud) = (sorted(0), sorted(1));
    let range = legitimate[legitimate.len() * 3 / 4] - legitimate[legitimate.len() / 4];
    (fraud[fraud.len() / 2] - legitimate[legitimate.len() / 2]).abs() / range
}

#[test]
fn what_told_fraud_apart_does_so_no_more_and_something_else_does() {
    let whole = drift(1.0, DriftStart::At(0));
    let (before, after) = (rows(None, 0, 8_000), rows(Some(whole), 20 * HOUR, 8_000));
    let strength = |rows: &[(u8, Vec<f64>)]| -> Vec<f64> { (0..28).map(|feature| separation(rows, feature)).collect() };
    let (before, after) = (strength(&before), strength(&after));
    let mut ranked: Vec<usize> = (0..28).collect();
    ranked.sort_by(|&left, &right| before[right].total_cmp(&before[left]));
    let best = &ranked[..5];
    for &feature in best {
        assert!(after[feature] < 0.5 * before[feature], "V{}: {before:?} {after:?}", feature + 1);
    }
    let strongest = after.iter().copied().fold(0.0, f64::max);
    assert!(strongest > 0.8 * before[best[0]], "something else is as strong: {before:?} {after:?}");
}

#[test]
fn the_direction_is_the_drift_seeds_and_the_rows_are_the_seeds() {
    let whole = drift(1.0, DriftStart::At(0));
    assert_eq!(rows(Some(whole), 20 * HOUR, 50), rows(Some(whole), 20 * HOUR, 50));
    let elsewhere = Drift { seed: 2, ..whole };
    assert_ne!(rows(Some(whole), 20 * HOUR, 50), rows(Some(elsewhere), 20 * HOUR, 50));
    assert_eq!(rows(Some(whole), 0, 50), rows(None, 0, 50), "before it starts, a drift changes nothing");
}
