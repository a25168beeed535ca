//! The arithmetic of plain decimals: digits to the nearest f32, rounded once.

/// Powers of ten that an f64 holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];

/// The value of eight ASCII digits, all at once (Lemire, "Quickly parsing eight digits", 2018): pairs, then fours, then
/// all eight are joined by one multiplication each.
#[inline]
pub(super) fn eight_digits(text: &[u8]) -> Option<u64> {
    let chunk = u64::from_le_bytes(text.try_into().ok()?);
    // Each byte is a digit if its high nibble is 3, before and after adding 6 (which takes ':' and beyond to 4).
    let high = 0xf0f0_f0f0_f0f0_f0f0;
    if chunk & high != 0x3030_3030_3030_3030
        || chunk.wrapping_add(0x0606_0606_0606_0606) & high != 0x3030_3030_3030_3030
    {
        return None;
    }
    let digits = chunk & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (digits.wrapping_mul(10) + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100) + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours.wrapping_mul(10_000) + (fours >> 32)) & 0xffff_ffff)
}

/// The f32 nearest to `mantissa / 10^fraction`, ties to even; `None` where this arithmetic cannot tell.
///
/// The mantissa as f64 and the division by an exact power of ten are each off by half a unit in the last place at most
/// (Clinger's fast path, a mantissa above 2^53 included), so the quotient is within two units of the true value.
/// Rounding it to f32 goes wrong only where it lies that close to the middle between two f32: a handful of 2^29 values.
#[inline]
pub(super) fn nearest_f32(negative: bool, mantissa: u64, fraction: usize) -> Option<f32> {
    let wide = mantissa as f64 / POWERS_OF_TEN.get(fraction)?;
    // An f32 keeps 23 of an f64's 52 fraction bits: the middle between two f32 has 0x1000_0000 in the other 29.
    let dropped = wide.to_bits() & 0x1fff_ffff;
    if (0x0fff_fffc..=0x1000_0004).contains(&dropped) || (wide < f64::from(f32::MIN_POSITIVE) && mantissa != 0) {
        return None;
    }
    let narrow = wide as f32;
    Some(if negative { -narrow } else { narrow })
}
