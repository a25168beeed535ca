//! Stepping through records with a row in each lane of a vector register, for trees too large for the bit-sliced method.
//!
//! A step reads 16 (AVX-512) or 8 (AVX2) records and as many keys with gather instructions. With AVX-512 the first 16 records of a
//! tree, its upper four levels, are held in registers instead. Several groups of rows take turns, since a step waits for memory.
//!
//! Gathers are quick on some processors and slower than plain loads on others: see [`crate::trial`].
//!
//! # Safety
//! Functions with target features are called from [`add_avx512`] and [`add_avx2`], which are unsafe to call without them.
//! Gathers read what a [`Walk`] says is there: from a node, a step leads to a node; every column is below the stride, and the rows'
//! keys are asserted to be there.

use std::arch::x86_64::*;

use crate::portable::{self, BLOCK, Scratch, pay, stride};
use crate::walk::{COLUMN_BITS, COLUMN_MASK, Payload, Record, TOP, Walk, WalkTree};

/// Fewest rows that are gathered: fewer would wait for each other.
pub(crate) const FROM: usize = 32;

/// Of the rows after the last block of 64, as many as are gathered: if they are enough groups to take turns, the whole groups.
fn whole(count: usize, lanes: usize) -> usize {
    let rest = count % BLOCK;
    if rest < FROM { count - rest } else { count / lanes * lanes }
}

/// Adds up the weights of `rows` as [`portable::add`] does.
///
/// # Safety
/// The processor must have AVX-512 F.
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn add_avx512(walk: &Walk, outputs: usize, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
    const LANES: usize = 16;
    let count = whole(sums.len() / outputs, LANES);
    let (whole, rest) = rows.split_at(count * walk.width);
    let (whole_sums, rest_sums) = sums.split_at_mut(count * outputs);
    for (rows, sums) in whole.chunks(BLOCK * walk.width).zip(whole_sums.chunks_mut(BLOCK * outputs)) {
        walk.keys(rows, &mut scratch.keys);
        for tree in &walk.trees {
            match sums.len() / outputs / LANES {
                2 => sixteen::<2>(walk, tree, &scratch.keys, sums, outputs),
                3 => sixteen::<3>(walk, tree, &scratch.keys, sums, outputs),
                _ => sixteen::<4>(walk, tree, &scratch.keys, sums, outputs),
            }
        }
    }
    portable::add(walk, outputs, rest, rest_sums, scratch);
}

/// `G` times 16 rows through one tree.
#[inline]
#[target_feature(enable = "avx512f")]
fn sixteen<const G: usize>(walk: &Walk, tree: &WalkTree, keys: &[i32], sums: &mut [f32], outputs: usize) {
    assert!(keys.len() == G * 16 * walk.stride && sums.len() == G * 16 * outputs && keys.len() < 1 << 30);
    let records = walk.records[tree.root as usize..].as_ptr();
    let top: &[Record; TOP] = walk.records[tree.root as usize..].first_chunk().expect("records end with padding");
    // SAFETY: 16 records are two registers' bytes.
    let (top_low, top_high) =
        unsafe { (_mm512_loadu_si512(top.as_ptr().cast()), _mm512_loadu_si512(top.as_ptr().add(TOP / 2).cast())) };
    let one = _mm512_set1_epi32(1);
    let column_mask = _mm512_set1_epi32(COLUMN_MASK);
    let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    let offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(walk.stride as i32));
    let evens = _mm512_add_epi32(lanes, lanes);
    let odds = _mm512_or_si512(evens, one);
    let next = |group: usize, at: __m512i, bound: __m512i, link: __m512i| {
        let index = _mm512_add_epi32(offsets, _mm512_and_si512(link, column_mask));
        // SAFETY: the group's 16 strides of keys start there, and columns are below the stride.
        let key = unsafe { _mm512_i32gather_epi32::<4>(index, keys.as_ptr().add(group * 16 * walk.stride)) };
        let left = _mm512_add_epi32(at, _mm512_srai_epi32::<COLUMN_BITS>(link));
        _mm512_mask_add_epi32(left, _mm512_cmpge_epi32_mask(key, bound), left, one)
    };
    let mut at = [_mm512_setzero_si512(); G];
    let mut taken = tree.depth.min(4);
    for _ in 0..taken {
        for (group, at) in at.iter_mut().enumerate() {
            // Nodes of the upper four levels are among the first 16 records.
            let place = _mm512_add_epi32(*at, *at);
            let bound = _mm512_permutex2var_epi32(top_low, place, top_high);
            let link = _mm512_permutex2var_epi32(top_low, _mm512_or_si512(place, one), top_high);
            *at = next(group, *at, bound, link);
        }
    }
    while taken < tree.depth {
        let steps = stride(taken, tree.shallow, tree.depth);
        let mut moved = 0;
        for _ in 0..steps {
            moved = 0;
            for (group, at) in at.iter_mut().enumerate() {
                // SAFETY: from a node, a step leads to a node of the tree.
                let (low, high) = unsafe {
                    (
                        _mm512_i32gather_epi64::<8>(_mm512_castsi512_si256(*at), records.cast()),
                        _mm512_i32gather_epi64::<8>(_mm512_extracti64x4_epi64::<1>(*at), records.cast()),
                    )
                };
                let bound = _mm512_permutex2var_epi32(low, evens, high);
                let link = _mm512_permutex2var_epi32(low, odds, high);
                let before = *at;
                *at = next(group, before, bound, link);
                moved |= _mm512_cmpneq_epi32_mask(before, *at);
            }
        }
        taken += steps;
        if moved == 0 {
            break;
        }
    }
    for (at, sums) in at.iter().zip(sums.chunks_exact_mut(16 * outputs)) {
        // SAFETY: these are nodes.
        let payload = unsafe { _mm512_i32gather_epi32::<8>(*at, records.cast()) };
        if outputs == 1 && matches!(tree.payload, Payload::Weight { .. }) {
            let sums = sums.as_mut_ptr();
            // SAFETY: these are 16 sums.
            unsafe {
                _mm512_storeu_ps(sums, _mm512_add_ps(_mm512_loadu_ps(sums), _mm512_castsi512_ps(payload)));
            }
        } else {
            let mut payloads = [0; 16];
            // SAFETY: 16 numbers are a register's bytes.
            unsafe { _mm512_storeu_si512(payloads.as_mut_ptr().cast(), payload) };
            for (sums, payload) in sums.chunks_exact_mut(outputs).zip(payloads) {
                pay(walk, tree, payload, sums);
            }
        }
    }
}

/// Adds up the weights of `rows` as [`portable::add`] does.
///
/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn add_avx2(walk: &Walk, outputs: usize, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
    const LANES: usize = 8;
    let count = whole(sums.len() / outputs, LANES);
    let (whole, rest) = rows.split_at(count * walk.width);
    let (whole_sums, rest_sums) = sums.split_at_mut(count * outputs);
    for (rows, sums) in whole.chunks(BLOCK * walk.width).zip(whole_sums.chunks_mut(BLOCK * outputs)) {
        walk.keys(rows, &mut scratch.keys);
        for tree in &walk.trees {
            match sums.len() / outputs / LANES {
                4 => eight::<4>(walk, tree, &scratch.keys, sums, outputs),
                5 => eight::<5>(walk, tree, &scratch.keys, sums, outputs),
                6 => eight::<6>(walk, tree, &scratch.keys, sums, outputs),
                7 => eight::<7>(walk, tree, &scratch.keys, sums, outputs),
                _ => eight::<8>(walk, tree, &scratch.keys, sums, outputs),
            }
        }
    }
    portable::add(walk, outputs, rest, rest_sums, scratch);
}

/// `G` times 8 rows through one tree.
#[inline]
#[target_feature(enable = "avx2")]
fn eight<const G: usize>(walk: &Walk, tree: &WalkTree, keys: &[i32], sums: &mut [f32], outputs: usize) {
    assert!(keys.len() == G * 8 * walk.stride && sums.len() == G * 8 * outputs && keys.len() < 1 << 30);
    let records = walk.records[tree.root as usize..].as_ptr();
    let column_mask = _mm256_set1_epi32(COLUMN_MASK);
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let offsets = _mm256_mullo_epi32(lanes, _mm256_set1_epi32(walk.stride as i32));
    let mut at = [_mm256_setzero_si256(); G];
    let mut taken = 0;
    while taken < tree.depth {
        let steps = stride(taken, tree.shallow, tree.depth);
        let mut moved = _mm256_setzero_si256();
        for _ in 0..steps {
            moved = _mm256_setzero_si256();
            for (group, at) in at.iter_mut().enumerate() {
                // Lanes 0, 1, 4 and 5, and lanes 2, 3, 6 and 7: so that the shuffles below put them back in order.
                let halves = _mm256_permute4x64_epi64::<0b11_01_10_00>(*at);
                // SAFETY: from a node, a step leads to a node of the tree.
                let (low, high) = unsafe {
                    (
                        _mm256_i32gather_epi64::<8>(records.cast(), _mm256_castsi256_si128(halves)),
                        _mm256_i32gather_epi64::<8>(records.cast(), _mm256_extracti128_si256::<1>(halves)),
                    )
                };
                let (low, high) = (_mm256_castsi256_ps(low), _mm256_castsi256_ps(high));
                let bound = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(low, high));
                let link = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(low, high));
                let index = _mm256_add_epi32(offsets, _mm256_and_si256(link, column_mask));
                // SAFETY: the group's 8 strides of keys start there, and columns are below the stride.
                let key = unsafe { _mm256_i32gather_epi32::<4>(keys.as_ptr().add(group * 8 * walk.stride), index) };
                // One further than the left child, less one where the key is below the bound.
                let way = _mm256_sub_epi32(_mm256_srai_epi32::<{ COLUMN_BITS as i32 }>(link), _mm256_set1_epi32(-1));
                let way = _mm256_add_epi32(way, _mm256_cmpgt_epi32(bound, key));
                moved = _mm256_or_si256(moved, way);
                *at = _mm256_add_epi32(*at, way);
            }
        }
        taken += steps;
        if _mm256_testz_si256(moved, moved) == 1 {
            break;
        }
    }
    for (at, sums) in at.iter().zip(sums.chunks_exact_mut(8 * outputs)) {
        // SAFETY: these are nodes.
        let payload = unsafe { _mm256_i32gather_epi32::<8>(records.cast(), *at) };
        if outputs == 1 && matches!(tree.payload, Payload::Weight { .. }) {
            let sums = sums.as_mut_ptr();
            // SAFETY: these are 8 sums.
            unsafe {
                _mm256_storeu_ps(sums, _mm256_add_ps(_mm256_loadu_ps(sums), _mm256_castsi256_ps(payload)));
            }
        } else {
            let mut payloads = [0; 8];
            // SAFETY: 8 numbers are a register's bytes.
            unsafe { _mm256_storeu_si256(payloads.as_mut_ptr().cast(), payload) };
            for (sums, payload) in sums.chunks_exact_mut(outputs).zip(payloads) {
                pay(walk, tree, payload, sums);
            }
        }
    }
}
