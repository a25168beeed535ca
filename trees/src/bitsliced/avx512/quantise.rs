//! Codes of 16 rows at a time: the whole search tree of up to eight levels is in registers.
//!
//! # Safety
//! The gathers' indices are below the rows' and the search tree's lengths, which are asserted.

use std::arch::x86_64::*;

use super::{Line, WORD, load_sixteen, store};
use crate::bitsliced::{Program, WORDS};
use crate::key::MISSING_LOW;
use crate::quantise::{BIAS, Feature, WINDOW};

/// The codes of a block; whether a value is missing where that must be told.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
pub(super) fn quantise<const W: usize>(program: &Program, rows: &[f32], codes: &mut [[Line; WORDS]]) -> bool {
    let mut any_missing = false;
    for feature in &program.quantiser.features {
        any_missing |= match feature.levels {
            ..=5 => quantise_feature::<W, 5>(feature, rows, program.width, codes),
            6 => quantise_feature::<W, 6>(feature, rows, program.width, codes),
            7 => quantise_feature::<W, 7>(feature, rows, program.width, codes),
            _ => quantise_feature::<W, 8>(feature, rows, program.width, codes),
        };
    }
    any_missing
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
fn quantise_feature<const W: usize, const LEVELS: u32>(
    feature: &Feature,
    rows: &[f32],
    width: usize,
    codes: &mut [[Line; WORDS]],
) -> bool {
    assert!(feature.feature < width && rows.len() == W * WORD * width && width <= 1 << 24);
    assert_eq!(feature.search.len(), (1 << feature.levels).max(Feature::REGISTERS));
    let (search, _) = feature.search.as_chunks::<16>();
    let search: [__m512i; 16] = std::array::from_fn(|register| load_sixteen(&search[register]));
    let levels = feature.levels;
    assert!(levels >= LEVELS);
    let (missing_low, missing) = (_mm512_set1_epi32(MISSING_LOW), _mm512_set1_epi32(feature.missing));
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(width as i32));
    let mut any_missing = 0;
    for (word, rows) in rows.chunks_exact(WORD * width).enumerate() {
        let mut keys = [_mm512_setzero_si512(); 4];
        let mut absent = [0; 4];
        for quarter in 0..4 {
            let first = quarter * 16 * width + feature.feature;
            // SAFETY: rows `first / width` to 15 further on are within the word's, and the feature's column is within the width (asserted above);
            // 15 times the width is below 2^31.
            let values = unsafe { _mm512_i32gather_ps::<4>(offsets, rows.as_ptr().add(first)) };
            let bits = _mm512_castps_si512(values);
            absent[quarter] = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(values, values);
            any_missing |= absent[quarter];
            let key = _mm512_mask_sub_epi32(bits, _mm512_movepi32_mask(bits), missing_low, bits);
            keys[quarter] = _mm512_mask_mov_epi32(key, absent[quarter], missing);
        }
        let mut parts = descend::<LEVELS>(&keys, &search);
        for _ in LEVELS..levels {
            for quarter in 0..4 {
                // SAFETY: a place of a level is below twice the level's power of two, and there are `2^levels` places.
                let cuts = unsafe { _mm512_i32gather_epi32::<4>(parts[quarter], feature.search.as_ptr()) };
                parts[quarter] = step(keys[quarter], cuts, parts[quarter]);
            }
        }
        parts = parts.map(|place| _mm512_sub_epi32(place, _mm512_set1_epi32(1 << levels)));
        // A byte of each code for each window.
        for window in 0..feature.windows {
            store(&mut codes[feature.column + window][word], bytes(&parts, window));
        }
        if let Some(column) = feature.high_column {
            let highest = _mm512_set1_epi32(feature.cuts.len() as i32);
            for quarter in 0..4 {
                parts[quarter] = _mm512_mask_mov_epi32(parts[quarter], absent[quarter], highest);
            }
            for window in 0..feature.windows {
                store(&mut codes[column + window][word], bytes(&parts, window));
            }
        }
    }
    feature.high_column.is_some() && any_missing != 0
}

/// The bytes of 64 codes in a window, as [`crate::quantise`] says.
#[inline]
#[target_feature(enable = "avx512f")]
fn bytes(codes: &[__m512i; 4], window: usize) -> __m512i {
    let [mut a, mut b, mut c, mut d] = *codes;
    if window > 0 {
        let below = _mm512_set1_epi32((window * WINDOW) as i32);
        [a, b, c, d] = [a, b, c, d].map(|code| _mm512_max_epi32(_mm512_sub_epi32(code, below), _mm512_setzero_si512()));
    }
    [a, b, c, d] = [a, b, c, d].map(|code| _mm512_min_epi32(code, _mm512_set1_epi32(WINDOW as i32)));
    let low = _mm512_ternarylogic_epi32::<0x1e>(_mm512_set1_epi8(BIAS as i8), a, _mm512_slli_epi32::<8>(b));
    _mm512_ternarylogic_epi32::<0x1e>(low, _mm512_slli_epi32::<16>(c), _mm512_slli_epi32::<24>(d))
}

/// One level down: to the right where the key reaches the cut.
#[inline]
#[target_feature(enable = "avx512f")]
fn step(keys: __m512i, cuts: __m512i, place: __m512i) -> __m512i {
    let twice = _mm512_add_epi32(place, place);
    _mm512_mask_add_epi32(twice, _mm512_cmpge_epi32_mask(keys, cuts), twice, _mm512_set1_epi32(1))
}

/// The first levels of the search: level l has its cuts at places 2^l to 2^(l + 1) - 1, so that the lowest bits of a place
/// pick from as many registers as it takes. Four at a time: each waits for itself at every level.
#[inline]
#[target_feature(enable = "avx512f")]
fn descend<const LEVELS: u32>(keys: &[__m512i; 4], search: &[__m512i; 16]) -> [__m512i; 4] {
    let mut places = [_mm512_set1_epi32(1); 4];
    for level in 0..LEVELS {
        for (place, key) in places.iter_mut().zip(keys) {
            *place = step(*key, cuts(level, *place, search), *place);
        }
    }
    places
}

/// The cuts at the places of a level.
#[inline(always)]
fn cuts(level: u32, place: __m512i, search: &[__m512i; 16]) -> __m512i {
    // SAFETY: called by `descend` alone, which has the feature.
    unsafe {
        match level {
            0..=3 => _mm512_permutexvar_epi32(place, search[0]),
            4 => _mm512_permutexvar_epi32(place, search[1]),
            5 => _mm512_permutex2var_epi32(search[2], place, search[3]),
            6 => {
                let half = _mm512_test_epi32_mask(place, _mm512_set1_epi32(32));
                let low = _mm512_permutex2var_epi32(search[4], place, search[5]);
                let high = _mm512_permutex2var_epi32(search[6], place, search[7]);
                _mm512_mask_mov_epi32(low, half, high)
            }
            _ => {
                let half = _mm512_test_epi32_mask(place, _mm512_set1_epi32(64));
                let quarter = _mm512_test_epi32_mask(place, _mm512_set1_epi32(32));
                let a = _mm512_permutex2var_epi32(search[8], place, search[9]);
                let b = _mm512_permutex2var_epi32(search[10], place, search[11]);
                let c = _mm512_permutex2var_epi32(search[12], place, search[13]);
                let d = _mm512_permutex2var_epi32(search[14], place, search[15]);
                let low = _mm512_mask_mov_epi32(a, quarter, b);
                let high = _mm512_mask_mov_epi32(c, quarter, d);
                _mm512_mask_mov_epi32(low, half, high)
            }
        }
    }
}
