//! The logistic function over a batch: a few multiplications per value, in loops that compilers turn into vectors.
//!
//! ONNX Runtime computes 1 / (1 + e^-|x|), taken from 1 where x is negative, in 32 bits. So does this, with an own
//! exponential: e^x = 2^n · e^r, n whole and |r| ≤ ln 2 / 2, where a polynomial of degree 6 is exact to the last bit or so.

/// Replaces each value x by 1 / (1 + e^-x). NaN stays NaN.
pub fn logistic(values: &mut [f32]) {
    for value in values {
        let x = *value;
        let upper = 1.0 / (1.0 + exp_of_negative(-x.abs()));
        *value = if x < 0.0 { 1.0 - upper } else { upper };
    }
}

/// e^x for x ≤ 0; below -87, where 1 + e^x is 1 in 32 bits, no smaller than there.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    // Adding 1.5 · 2^23 leaves no bits for a fraction: the sum's low bits are the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first with so few bits that whole · HIGH is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    // A comparison with NaN does not hold: it goes through.
    let x = if x < -87.0 { -87.0 } else { x };
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let r = x - whole * HIGH - whole * LOW;
    let mut polynomial = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        polynomial = polynomial * r + coefficient;
    }
    let power = f32::from_bits(rounded.to_bits().wrapping_add(127).wrapping_shl(23));
    (polynomial * r * r + r + 1.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ONNX Runtime computes it, with the library's exponential in double precision.
    fn expected(x: f32) -> f32 {
        let upper = (1.0 / (1.0 + (-f64::from(x).abs()).exp())) as f32;
        if x < 0.0 { 1.0 - upper } else { upper }
    }

    #[test]
    fn every_thousandth_float_is_right_to_two_units_in_the_last_place_of_one() {
        let mut largest: f32 = 0.0;
        for start in (0..=u32::MAX).step_by(1 << 20) {
            let inputs: Vec<f32> = (0..1 << 20).step_by(1_021).map(|bits| f32::from_bits(start + bits)).collect();
            let mut outputs = inputs.clone();
            logistic(&mut outputs);
            for (input, output) in inputs.iter().zip(outputs) {
                match input.is_nan() {
                    true => assert!(output.is_nan(), "{input}"),
                    false => largest = largest.max((output - expected(*input)).abs()),
                }
            }
        }
        assert!(largest <= 2.0 * f32::EPSILON, "{largest}");
    }

    #[test]
    fn the_ends_are_the_ends() {
        let mut values = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 88.0, -88.0, 1e-40];
        logistic(&mut values);
        assert_eq!(values, [0.5, 0.5, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.5]);
    }
}
