//! Sixteen bytes looked at in one go: which of them are of a kind, as a bit each (bit 0 for the first byte).
//!
//! The only `unsafe` of the decode stage. On x86-64 two or three SSE2 instructions answer for all sixteen bytes; elsewhere
//! the portable twins in [`portable`] do, eight bytes at a time. The tests hold both to a byte-by-byte reading.

/// How many bytes one look covers.
pub(super) const LANES: usize = 16;

/// The bytes that are no ASCII digit.
#[inline]
pub(super) fn not_digits(bytes: &[u8; LANES]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 belongs to every x86-64 processor and target.
    return unsafe { sse2::not_digits(bytes) };
    #[cfg(not(target_arch = "x86_64"))]
    return portable::not_digits(bytes);
}

/// The bytes at which the reading of plain text must stop: quote, backslash, control characters, and what is no ASCII.
#[inline]
pub(super) fn text_stops(bytes: &[u8; LANES]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE2 belongs to every x86-64 processor and target.
    return unsafe { sse2::text_stops(bytes) };
    #[cfg(not(target_arch = "x86_64"))]
    return portable::text_stops(bytes);
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_cmpgt_epi8, _mm_cmplt_epi8, _mm_loadu_si128, _mm_movemask_epi8,
        _mm_or_si128, _mm_set1_epi8,
    };

    use super::LANES;

    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(bytes: &[u8; LANES]) -> __m128i {
        // SAFETY: the reference is to sixteen readable bytes, and this load asks for no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn not_digits(bytes: &[u8; LANES]) -> u32 {
        // SSE2 compares signed bytes only: move '0'..='9' to the ten lowest of them.
        let moved = _mm_add_epi8(load(bytes), _mm_set1_epi8((0x80 - b'0') as i8));
        _mm_movemask_epi8(_mm_cmpgt_epi8(moved, _mm_set1_epi8(i8::MIN + 9))) as u32
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn text_stops(bytes: &[u8; LANES]) -> u32 {
        let bytes = load(bytes);
        // Signed, everything from 0x80 on is negative, so this finds control characters and non-ASCII at once.
        let odd = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
        let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        _mm_movemask_epi8(_mm_or_si128(odd, _mm_or_si128(quote, backslash))) as u32
    }
}

/// The same in plain arithmetic on eight bytes at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::LANES;

    const HIGH: u64 = 0x8080_8080_8080_8080;

    const fn all(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }

    /// The high bit of each byte that is below `limit` (at most 0x80), where no byte has its high bit set.
    fn below(bytes: u64, limit: u8) -> u64 {
        !((bytes | HIGH) - all(limit)) & HIGH
    }

    /// The high bit of each byte that is `wanted`, where no byte has its high bit set.
    fn equal(bytes: u64, wanted: u8) -> u64 {
        below(bytes ^ all(wanted), 1)
    }

    fn each_half(bytes: &[u8; LANES], look: impl Fn(u64) -> u64) -> u32 {
        let mut bits = 0;
        for (half, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
            // Gathers the eight high bits into the top byte: each lands on a bit of its own.
            let found = (look(u64::from_le_bytes(*bytes)) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56;
            bits |= (found as u32) << (8 * half);
        }
        bits
    }

    pub(super) fn not_digits(bytes: &[u8; LANES]) -> u32 {
        each_half(bytes, |bytes| {
            let ascii = bytes & !HIGH;
            (bytes & HIGH) | below(ascii, b'0') | (!below(ascii, b'9' + 1) & HIGH)
        })
    }

    pub(super) fn text_stops(bytes: &[u8; LANES]) -> u32 {
        each_half(bytes, |bytes| {
            let ascii = bytes & !HIGH;
            (bytes & HIGH) | below(ascii, 0x20) | equal(ascii, b'"') | equal(ascii, b'\\')
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(bytes: &[u8; LANES], wanted: impl Fn(u8) -> bool) -> u32 {
        bytes.iter().enumerate().map(|(i, byte)| u32::from(wanted(*byte)) << i).sum()
    }

    fn check(bytes: &[u8; LANES]) {
        let digits = one_by_one(bytes, |byte| !byte.is_ascii_digit());
        assert_eq!(not_digits(bytes), digits, "{bytes:?}");
        assert_eq!(portable::not_digits(bytes), digits, "{bytes:?}");
        let stops = one_by_one(bytes, |byte| !matches!(byte, 0x20..=0x7f) || matches!(byte, b'"' | b'\\'));
        assert_eq!(text_stops(bytes), stops, "{bytes:?}");
        assert_eq!(portable::text_stops(bytes), stops, "{bytes:?}");
    }

    #[test]
    fn every_byte_at_every_place_is_judged_as_one_by_one() {
        for around in [b'0', b'a', b'"', 0xff, 0] {
            for place in 0..LANES {
                for byte in 0..=u8::MAX {
                    let mut bytes = [around; LANES];
                    bytes[place] = byte;
                    check(&bytes);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_as_one_by_one(bytes in any::<[u8; LANES]>()) {
            check(&bytes);
        }
    }
}
