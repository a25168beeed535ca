//! Plain decimals (`-?digits[.digits]`), read at once: where they end, what they are worth, rounded once to f32.
//!
//! A number is looked at through a window of the bytes from its first one on. One comparison tells digits from other
//! bytes, so that point and end show as the lowest bits of a mask and nothing loops over bytes; the digits are then
//! taken eight at a time, and how many there are is a shift, not a branch: in a stream of numbers the count is a coin's
//! toss, and a mispredicted branch costs more than all the arithmetic.
//!
//! Whatever is not surely read right here (exponents, more than 19 digits, a leading zero, the middle between two f32,
//! faults) gives `None`, and the caller reads it by grammar and library.

use super::lanes::{LANES, not_digits};

/// How many bytes from a number's first one on [`plain_decimal`] looks at: the longest it reads is a sign, 19 digits and
/// a point, and what follows must show that it ends.
pub(super) const WINDOW: usize = 2 * LANES;

/// Most digits that are read here: a u64 holds any 19.
const MAX_DIGITS: usize = 19;

/// Most digits after the point that are read here.
const MAX_FRACTION: usize = 18;

/// Powers of ten that a u64 holds.
const POWERS_OF_TEN: [u64; 20] = {
    let mut powers = [1; 20];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};

/// The f64 nearest to 10^-n; from [`NEGATIVE`] on, the same negated.
const RECIPROCALS: [f64; 2 * NEGATIVE] = {
    let powers = [
        1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15, 1e-16,
        1e-17, 1e-18,
    ];
    let mut reciprocals = [0.0; 2 * NEGATIVE];
    let mut exponent = 0;
    while exponent <= MAX_FRACTION {
        reciprocals[exponent] = powers[exponent];
        reciprocals[NEGATIVE + exponent] = -powers[exponent];
        exponent += 1;
    }
    reciprocals
};

const NEGATIVE: usize = 32;

/// The plain decimal at the window's start: its value and its length. What follows it is the caller's to judge: no digit,
/// but it may be an exponent.
#[inline(always)]
pub(super) fn plain_decimal(window: &[u8; WINDOW]) -> Option<(f32, usize)> {
    let negative = window[0] == b'-';
    let first = usize::from(negative);
    let whole = window[first].wrapping_sub(b'0');
    if whole > 9 || window[first + 1] != b'.' {
        return other_decimal(window);
    }
    // The first stop behind the sign is the point, the second one the end.
    let stops = not_digits(low_half(window)) & !1;
    let behind_point = stops & stops.wrapping_sub(1);
    let end = behind_point.trailing_zeros() as usize;
    let fraction = end.wrapping_sub(first + 2);
    if fraction.wrapping_sub(1) < 8 {
        let mantissa = u64::from(whole) * POWERS_OF_TEN[fraction] + digits_of(eight(window, first + 2), fraction);
        return Some((nearest_f32(mantissa, fraction, negative)?, end));
    }
    let behind_point = behind_point | not_digits(high_half(window)) << LANES;
    long_fraction(window, whole, behind_point, negative)
}

/// One digit, the point, and nine or more digits: an f64 written out.
#[inline(always)]
fn long_fraction(window: &[u8; WINDOW], whole: u8, behind_point: u32, negative: bool) -> Option<(f32, usize)> {
    let first = usize::from(negative);
    let end = behind_point.trailing_zeros() as usize;
    let fraction = end.wrapping_sub(first + 2);
    if !(9..=MAX_FRACTION).contains(&fraction) {
        return None;
    }
    // The last eight digits, up to eight in front of them, and up to two in front of those, without a branch.
    let middle = (fraction - 8).min(8);
    let top = fraction - 8 - middle;
    let two = (eight(window, first + 2) & 0xffff) << (16 - 8 * top) & 0x0f0f;
    let above = u64::from(whole) * POWERS_OF_TEN[top] + (two & 0xff) * 10 + (two >> 8);
    let above = above * POWERS_OF_TEN[middle] + digits_of(eight(window, first + 2 + top), middle);
    let mantissa = above * POWERS_OF_TEN[8] + digits_of(eight(window, end - 8), 8);
    Some((nearest_f32(mantissa, fraction, negative)?, end))
}

/// Any plain decimal.
#[inline]
fn other_decimal(window: &[u8; WINDOW]) -> Option<(f32, usize)> {
    let negative = window[0] == b'-';
    let first = usize::from(negative);
    // The bit of the first byte is the sign's; where there is none, `whole_part` looks at the byte.
    let stops = (not_digits(low_half(window)) | not_digits(high_half(window)) << LANES) & !1;
    let point = stops.trailing_zeros() as usize;
    if *window.get(point)? != b'.' {
        return Some((nearest_f32(whole_part(window, first, point)?, 0, negative)?, point));
    }
    let end = (stops & (stops - 1)).trailing_zeros() as usize;
    let (whole, fraction) = (point - first, end - point - 1);
    if fraction == 0 || fraction > 16 || whole + fraction > MAX_DIGITS {
        return None;
    }
    let first_eight = fraction.min(8);
    let mut mantissa = whole_part(window, first, point)? * POWERS_OF_TEN[first_eight]
        + digits_of(eight(window, point + 1), first_eight);
    if fraction > 8 {
        mantissa = mantissa * POWERS_OF_TEN[fraction - 8] + digits_of(eight(window, point + 9), fraction - 8);
    }
    Some((nearest_f32(mantissa, fraction, negative)?, end))
}

/// The whole number without a sign at the window's start: its value and its length, of up to fifteen digits.
#[inline(always)]
pub(super) fn plain_whole(window: &[u8; WINDOW]) -> Option<(i64, usize)> {
    let end = not_digits(low_half(window)).trailing_zeros() as usize;
    if end >= LANES || matches!(window[end], b'.' | b'e' | b'E') {
        return None;
    }
    Some((whole_part(window, 0, end)? as i64, end))
}

#[inline(always)]
fn low_half(window: &[u8; WINDOW]) -> &[u8; LANES] {
    &window.as_chunks::<LANES>().0[0]
}

#[inline(always)]
fn high_half(window: &[u8; WINDOW]) -> &[u8; LANES] {
    &window.as_chunks::<LANES>().0[1]
}

/// The digits from `first` to `point`, of which there is at least one, and no zero in front of others.
#[inline]
fn whole_part(window: &[u8; WINDOW], first: usize, point: usize) -> Option<u64> {
    let leading = window[first].wrapping_sub(b'0');
    if leading > 9 {
        return None;
    }
    match point - first {
        1 => Some(u64::from(leading)),
        count @ 2..=8 if leading != 0 => Some(digits_of(eight(window, first), count)),
        count @ 9..=16 if leading != 0 => {
            let above = digits_of(eight(window, first), count - 8);
            Some(above * POWERS_OF_TEN[8] + digits_of(eight(window, point - 8), 8))
        }
        _ => None,
    }
}

/// Eight bytes of the window, the first of them lowest.
#[inline(always)]
fn eight(window: &[u8; WINDOW], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&window[at..at + 8]);
    u64::from_le_bytes(bytes)
}

/// The value of the first `count` (1 to 8) bytes of `text`, which are digits: pairs, then fours, then all eight are joined
/// by one multiplication each (Lemire, "Quickly parsing eight digits", 2018).
#[inline(always)]
fn digits_of(text: u64, count: usize) -> u64 {
    // What stands behind them is shifted out; in front of them zeros are shifted in.
    let digits = (text << (64 - 8 * count)) & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(1 + (10_000 << 32)) >> 32
}

/// The f32 nearest to `mantissa / 10^fraction`, ties to even, negated or not; `None` where this arithmetic cannot tell.
///
/// Three roundings of half a unit in the last place each (the mantissa as f64, the power's reciprocal, their product)
/// put the product within four units of the true value. Rounding it to f32 goes wrong only where it lies that close to
/// the middle between two f32: a handful of 2^29 values, and we leave twice as many to the library. The product is 0
/// or between 1e-18 and 1e19: neither a subnormal f32 nor out of range.
#[inline(always)]
fn nearest_f32(mantissa: u64, fraction: usize, negative: bool) -> Option<f32> {
    // Signed, because that is one instruction on x86-64 and unsigned is five.
    let mantissa = i64::try_from(mantissa).ok()?;
    let wide = mantissa as f64 * RECIPROCALS[fraction + if negative { NEGATIVE } else { 0 }];
    // An f32 keeps 23 of an f64's 52 fraction bits: the middle between two f32 has 0x1000_0000 in the other 29.
    let dropped = wide.to_bits() & 0x1fff_ffff;
    if (0x0fff_fff8..=0x1000_0008).contains(&dropped) { None } else { Some(wide as f32) }
}
