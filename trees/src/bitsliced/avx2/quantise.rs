//! Codes of 8 rows at a time: the first levels of the search tree are in registers, further ones are gathered.
//!
//! # Safety
//! The gathers' indices are below the rows' and the search tree's lengths, which are asserted.

use std::arch::x86_64::*;

use super::{Line, WORD, store};
use crate::bitsliced::{Program, WORDS};
use crate::key::MISSING_LOW;
use crate::quantise::{BIAS, Feature, WINDOW};

/// Levels that are held in registers.
const HELD: u32 = Feature::LEVELS;

/// The codes of a block; whether a value is missing where that must be told.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn quantise<const W: usize>(program: &Program, rows: &[f32], codes: &mut [[Line; WORDS]]) -> bool {
    let mut any_missing = false;
    for feature in &program.quantiser.features {
        any_missing |= match feature.levels {
            8 => quantise_feature::<W>(feature, 8, rows, program.width, codes),
            levels => quantise_feature::<W>(feature, levels, rows, program.width, codes),
        };
    }
    any_missing
}

#[inline]
#[target_feature(enable = "avx2")]
fn quantise_feature<const W: usize>(
    feature: &Feature,
    levels: u32,
    rows: &[f32],
    width: usize,
    codes: &mut [[Line; WORDS]],
) -> bool {
    assert!(feature.feature < width && rows.len() == W * WORD * width && width <= 1 << 24);
    assert!(feature.search.len() >= 1 << levels && levels >= HELD);
    let (search, _) = feature.search.as_chunks::<8>();
    let search: [__m256i; 4] = std::array::from_fn(|register| load_eight(&search[register]));
    let (missing_low, missing) = (_mm256_set1_epi32(MISSING_LOW), _mm256_set1_epi32(feature.missing));
    let mut any_missing = _mm256_setzero_si256();
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let offsets = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(width as i32));
    for (word, rows) in rows.chunks_exact(WORD * width).enumerate() {
        let mut keys = [_mm256_setzero_si256(); 4];
        let mut absent = [_mm256_setzero_si256(); 4];
        for quarter in 0..4 {
            let first = quarter * 8 * width + feature.feature;
            // SAFETY: rows `first / width` to 7 further on are within the word's, and the feature's column is within the width (asserted above);
            // 7 times the width is below 2^31.
            let values = unsafe { _mm256_i32gather_ps::<4>(rows.as_ptr().add(first), offsets) };
            let bits = _mm256_castps_si256(values);
            absent[quarter] = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(values, values));
            any_missing = _mm256_or_si256(any_missing, absent[quarter]);
            let turned = _mm256_castsi256_ps(_mm256_sub_epi32(missing_low, bits));
            // Chosen by the sign of the bits.
            let key = _mm256_castps_si256(_mm256_blendv_ps(values, turned, values));
            keys[quarter] = _mm256_blendv_epi8(key, missing, absent[quarter]);
        }
        // Four at a time: each waits for itself at every level.
        let mut parts = keys.map(|keys| descend(keys, &search));
        for _ in HELD..levels {
            for quarter in 0..4 {
                // SAFETY: a place of a level is below twice the level's power of two, and there are `2^levels` places.
                let cuts = unsafe { _mm256_i32gather_epi32::<4>(feature.search.as_ptr(), parts[quarter]) };
                parts[quarter] = step(keys[quarter], cuts, parts[quarter]);
            }
        }
        parts = parts.map(|place| _mm256_sub_epi32(place, _mm256_set1_epi32(1 << levels)));
        // A byte of each code for each window.
        for window in 0..feature.windows {
            store(&mut codes[feature.column + window][word], bytes(&parts, window));
        }
        if let Some(column) = feature.high_column {
            let highest = _mm256_set1_epi32(feature.cuts.len() as i32);
            for quarter in 0..4 {
                parts[quarter] = _mm256_blendv_epi8(parts[quarter], highest, absent[quarter]);
            }
            for window in 0..feature.windows {
                store(&mut codes[column + window][word], bytes(&parts, window));
            }
        }
    }
    feature.high_column.is_some() && _mm256_testz_si256(any_missing, any_missing) == 0
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_eight(values: &[i32; 8]) -> __m256i {
    // SAFETY: 8 values of 4 bytes are a register's 32.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// The bytes of 32 codes in a window, as [`crate::quantise`] says.
#[inline]
#[target_feature(enable = "avx2")]
fn bytes(codes: &[__m256i; 4], window: usize) -> __m256i {
    let [mut a, mut b, mut c, mut d] = *codes;
    if window > 0 {
        let below = _mm256_set1_epi32((window * WINDOW) as i32);
        [a, b, c, d] = [a, b, c, d].map(|code| _mm256_max_epi32(_mm256_sub_epi32(code, below), _mm256_setzero_si256()));
    }
    [a, b, c, d] = [a, b, c, d].map(|code| _mm256_min_epi32(code, _mm256_set1_epi32(WINDOW as i32)));
    let low = _mm256_or_si256(a, _mm256_slli_epi32::<8>(b));
    let high = _mm256_or_si256(_mm256_slli_epi32::<16>(c), _mm256_slli_epi32::<24>(d));
    _mm256_xor_si256(_mm256_or_si256(low, high), _mm256_set1_epi8(BIAS as i8))
}

/// One level down: to the right where the key reaches the cut.
#[inline]
#[target_feature(enable = "avx2")]
fn step(keys: __m256i, cuts: __m256i, place: __m256i) -> __m256i {
    // 2 place + 1, less 1 where the cut is above the key.
    let right = _mm256_sub_epi32(_mm256_add_epi32(place, place), _mm256_set1_epi32(-1));
    _mm256_add_epi32(right, _mm256_cmpgt_epi32(cuts, keys))
}

/// The first levels of the search: level l has its cuts at places 2^l to 2^(l + 1) - 1, so that the lowest bits of a place
/// pick from as many registers as it takes.
#[inline]
#[target_feature(enable = "avx2")]
fn descend(keys: __m256i, search: &[__m256i; 4]) -> __m256i {
    let mut place = _mm256_set1_epi32(1);
    for _ in 0..3 {
        place = step(keys, _mm256_permutevar8x32_epi32(search[0], place), place);
    }
    place = step(keys, _mm256_permutevar8x32_epi32(search[1], place), place);
    let low = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(search[2], place));
    let high = _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(search[3], place));
    // Bit 3 of the place, moved to the sign.
    let half = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(place));
    step(keys, _mm256_castps_si256(_mm256_blendv_ps(low, high, half)), place)
}
