//! The population stability index, and how large it gets by chance.

/// Upper quantile of the standard normal distribution at [`super::FALSE_ALARM`].
const NORMAL_QUANTILE: f64 = 3.719_016_485;

/// The index of `counts` against `shares` (positive, adding up to 1), or `None` without counts.
///
/// One row that is spread as the reference is added to the counts: an empty bin then contributes much, but not infinity.
/// The same sum in PromQL needs no special cases either.
pub fn psi(counts: &[u64], shares: &[f64]) -> Option<f64> {
    let rows = counts.iter().sum::<u64>() as f64;
    if rows == 0.0 {
        return None;
    }
    let terms = counts.iter().zip(shares).map(|(&count, &share)| {
        let seen = (count as f64 + share) / (rows + 1.0);
        (seen - share) * (seen / share).ln()
    });
    Some(terms.sum())
}

/// What the index exceeds with probability [`super::FALSE_ALARM`] although nothing drifted.
///
/// Both the seen and the reference's shares are samples of one distribution then, and the index is (1/rows +
/// 1/`reference_rows`) times a χ² variable. Its quantile by Wilson and Hilferty's approximation (1931), at most
/// 5 % too large from two degrees of freedom on, and 1.2 % from ten on.
pub fn critical(degrees_of_freedom: usize, rows: u64, reference_rows: u64) -> f64 {
    let degrees = degrees_of_freedom.max(1) as f64;
    let part = 2.0 / (9.0 * degrees);
    let quantile = degrees * (1.0 - part + NORMAL_QUANTILE * part.sqrt()).powi(3);
    quantile * (1.0 / rows.max(1) as f64 + 1.0 / reference_rows.max(1) as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_textbook_sum() {
        // (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5)
        let exact = 0.1 * 1.2_f64.ln() - 0.1 * 0.8_f64.ln();
        let found = psi(&[600_000, 400_000], &[0.5, 0.5]).unwrap();
        assert!((found - exact).abs() < 1e-6, "{found}, not {exact}");
        assert!(psi(&[500, 500], &[0.5, 0.5]).unwrap().abs() < 1e-12);
        assert_eq!(psi(&[0, 0], &[0.5, 0.5]), None);
    }

    #[test]
    fn empty_bins_count_much_but_not_infinitely() {
        let one_sided = psi(&[1_000, 0], &[0.5, 0.5]).unwrap();
        assert!((3.0..5.0).contains(&one_sided), "{one_sided}");
        // A bin that training never saw fills: 5 % of it is an alarm.
        let unheard_of = psi(&[9_500, 500], &[0.9999, 0.0001]).unwrap();
        assert!(unheard_of > 0.2, "{unheard_of}");
    }

    #[test]
    fn chance_is_as_large_as_the_distribution_says() {
        // χ² quantiles at 0.9999, from SciPy.
        for (degrees, quantile) in [(2, 18.42), (5, 25.74), (10, 35.56), (15, 44.26), (30, 67.63)] {
            let found = critical(degrees, 1_000, u64::MAX) * 1_000.0;
            let most = if degrees < 10 { 1.05 } else { 1.012 };
            assert!((0.999..most).contains(&(found / quantile)), "{degrees}: {found}, not {quantile}");
        }
        assert!(critical(15, 500, 500) > 1.9 * critical(15, 500, u64::MAX), "a small reference errs as well");
    }
}
