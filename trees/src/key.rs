//! Floats as whole numbers in the same order.
//!
//! Every comparison of a tree becomes `key(value) < bound` on `i32`: `<=` is the bound one higher, so that one kind of test
//! is left over, exact for infinities, subnormal numbers and both zeros, whatever the thread's rounding and flushing flags say.
//! A missing value (NaN) gets one of two keys outside the numbers' range, by where the node sends it.
//!
//! ```text
//!  i32::MIN        -0x7f80_0000     0      0x7f80_0000    ABOVE_ALL        MISSING_HIGH
//!  MISSING_LOW          -∞       -0, 0          ∞      (no number is)   (right of every bound)
//! ```

/// The key of a missing value that goes left: below the key of every number, and below every bound.
pub(crate) const MISSING_LOW: i32 = i32::MIN;

/// The key of a missing value that goes right: at or above every bound, yet below `i32::MAX`, which pads search trees.
pub(crate) const MISSING_HIGH: i32 = i32::MAX - 1;

/// A bound that every number is below and that a missing value that goes right is not.
pub(crate) const ABOVE_ALL: i32 = 0x7f80_0001;

/// Orders as the number does; not for NaN.
#[inline]
pub(crate) fn key(number: f32) -> i32 {
    let bits = number.to_bits() as i32;
    if bits >= 0 { bits } else { i32::MIN.wrapping_sub(bits) }
}

/// [`key`], or `missing` for NaN.
#[inline]
pub(crate) fn key_or(value: f32, missing: i32) -> i32 {
    if value.is_nan() { missing } else { key(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_numbers_do() {
        let ascending =
            [f32::NEG_INFINITY, f32::MIN, -1.5, -1.0, -f32::MIN_POSITIVE, -1e-45, 0.0, 1e-45, 1.0, f32::INFINITY];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(key(*a).cmp(&key(*b)), i.cmp(&j), "{a} {b}");
            }
            assert!(MISSING_LOW < key(*a) && key(*a) < ABOVE_ALL && key(*a) < MISSING_HIGH);
        }
        assert_eq!(key(-0.0), key(0.0));
        assert_eq!(key_or(f32::NAN, MISSING_HIGH), MISSING_HIGH);
    }
}
