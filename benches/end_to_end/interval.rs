//! The interval of a median. Nothing else of the harness is needed here: `tests/median_interval.rs` tests this file.

/// The coverage that an interval has at least.
const COVERAGE: f64 = 0.95;

/// Where the median lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
    /// The probability that such an interval holds the median.
    pub coverage: f64,
}

/// The narrowest pair of order statistics, the k-th lowest and the k-th highest value, that holds the median of what the
/// values were drawn from with a probability of at least 95 %, whatever their distribution. `None` of fewer than six
/// values: the lowest and the highest of five hold it with 93.75 %.
///
/// The median is below the k-th lowest value where fewer than k values are below the median, and each is with a
/// probability of a half: the binomial distribution says how likely that is.
pub fn of_median(values: &[f64]) -> Option<Interval> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let mut found = None;
    // The probability of exactly `k - 1` values below the median, and of fewer than `k`.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).ok()?);
    let mut fewer = exactly;
    for k in 1..=count / 2 {
        let coverage = 1.0 - 2.0 * fewer;
        if coverage < COVERAGE {
            break;
        }
        found = Some(Interval { low: sorted[k - 1], high: sorted[count - k], coverage });
        exactly *= (count - k + 1) as f64 / k as f64;
        fewer += exactly;
    }
    found
}
