//! What counts as a probability. Pure.
//!
//! Forests add up 32-bit floats, leaf by leaf: a row that every tree is sure of may come to 1.0000001, or to -1.2e-7.
//! Such a score is the end of the range it overshoots. What lies further out is no probability.

/// How far beyond [0, 1] a score may lie and still be taken for the end it lies beyond.
const OVERSHOOT: f32 = 1e-5;

/// Whether a score is a probability, once it is [`clamped`]. NaN is none.
#[inline]
pub fn is_probability(score: f32) -> bool {
    (0.0..=1.0).contains(&score)
}

/// The end of [0, 1] that a score lies just beyond; any other score as it is.
#[inline]
pub fn clamped(score: f32) -> f32 {
    // Selects, not branches: a few vector instructions for a batch. Comparisons with NaN are false.
    let high = if (1.0..=1.0 + OVERSHOOT).contains(&score) { 1.0 } else { score };
    if (-OVERSHOOT..0.0).contains(&high) { 0.0 } else { high }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_just_beyond_the_range_are_its_ends() {
        let scores = [1.000_000_1, -1.2e-7, 0.25, 0.0, 1.0, -0.0, 1.001, -0.001, f32::INFINITY, f32::NAN].map(clamped);
        assert_eq!(scores[..9], [1.0, 0.0, 0.25, 0.0, 1.0, 0.0, 1.001, -0.001, f32::INFINITY]);
        assert!(scores[9].is_nan());
        let probabilities = scores.map(is_probability);
        assert_eq!(probabilities, [true, true, true, true, true, true, false, false, false, false]);
    }
}
