//! The interval of a median that `make bench ARGS='ab OLD NEW'` prints. Benchmarks run no unit tests of their own.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../benches/end_to_end/interval.rs"]
mod interval;

use interval::of_median;

/// 1, 2 … `count`, the highest first.
fn values(count: u32) -> Vec<f64> {
    (1..=count).rev().map(f64::from).collect()
}

#[test]
fn it_is_made_of_the_order_statistics_of_the_tables() {
    // Count, rank from either end, coverage: as in tables of the sign test's confidence intervals.
    let tables = [
        (6, 1, 0.9688),
        (8, 1, 0.9922),
        (9, 2, 0.9609),
        (10, 2, 0.9785),
        (12, 3, 0.9614),
        (20, 6, 0.9586),
        (25, 8, 0.9567),
    ];
    for (count, rank, coverage) in tables {
        let found = of_median(&values(count)).unwrap();
        assert_eq!((found.low, found.high), (f64::from(rank), f64::from(count + 1 - rank)), "{count} values");
        assert!((found.coverage - coverage).abs() < 5e-5, "{count} values: {}", found.coverage);
    }
}

#[test]
fn too_few_values_have_none() {
    for count in 0..6 {
        assert_eq!(of_median(&values(count)), None, "{count} values");
    }
}

#[test]
fn many_values_narrow_it() {
    let found = of_median(&values(1000)).unwrap();
    assert_eq!((found.low, found.high), (469.0, 532.0));
    assert!(found.coverage >= 0.95);
}

#[test]
fn an_outlier_does_not_move_it() {
    let mut ratios = [0.99, 1.01, 1.0, 0.98, 1.02, 1.0, 0.995, 1.005, 1.0, 1.0];
    let calm = of_median(&ratios).unwrap();
    ratios[4] = 17.0;
    assert_eq!(of_median(&ratios).unwrap(), calm);
}
