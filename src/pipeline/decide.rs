//! Decide: a score against the bundle's two thresholds. Pure.

use fraud_wire::verdict::Decision;

/// Where review and decline begin, in score units: `0 <= review <= decline <= 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    review: f32,
    decline: f32,
}

impl Thresholds {
    /// Checks the pair; the error says what is wrong with it.
    pub fn new(review: f32, decline: f32) -> Result<Self, String> {
        if !(0.0..=1.0).contains(&review) || !(0.0..=1.0).contains(&decline) {
            return Err(format!("review = {review} and decline = {decline} must lie in [0, 1]"));
        }
        if review > decline {
            return Err(format!("review = {review} must not exceed decline = {decline}"));
        }
        Ok(Thresholds { review, decline })
    }

    /// Lowest score that is reviewed.
    pub fn review(&self) -> f32 {
        self.review
    }

    /// Lowest score that is declined.
    pub fn decline(&self) -> f32 {
        self.decline
    }

    /// The decision for `score`; thresholds belong to the stricter side.
    #[inline]
    pub fn decide(&self, score: f32) -> Decision {
        if score >= self.decline {
            Decision::Decline
        } else if score >= self.review {
            Decision::Review
        } else {
            Decision::Approve
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_belongs_to_the_stricter_side() {
        let thresholds = Thresholds::new(0.35, 0.9).expect("valid");
        let below = |value: f32| f32::from_bits(value.to_bits() - 1);
        for (score, decision) in [
            (0.0, Decision::Approve),
            (below(0.35), Decision::Approve),
            (0.35, Decision::Review),
            (below(0.9), Decision::Review),
            (0.9, Decision::Decline),
            (1.0, Decision::Decline),
        ] {
            assert_eq!(thresholds.decide(score), decision, "{score}");
        }
    }

    #[test]
    fn senseless_thresholds_are_refused() {
        for (review, decline) in [(0.9, 0.3), (-0.1, 0.5), (0.1, 1.1), (f32::NAN, 0.5), (0.5, f32::NAN)] {
            assert!(Thresholds::new(review, decline).is_err(), "{review} {decline}");
        }
    }
}
