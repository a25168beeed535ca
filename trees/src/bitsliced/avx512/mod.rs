//! The bit-sliced method with AVX-512: 512 rows at a time, or 64, 128 or 256.
//!
//! A column of codes is 8 lines of 64 bytes. Within a line, the four bytes of lane i belong to rows i, 16 + i, 32 + i and 48 + i:
//! so codes of 16 rows each are put together by shifting, and leaf numbers taken apart the same way, without shuffles.
//!
//! # Safety
//! Functions with target features are called from [`run`] only, which is unsafe to call without them. Loads and stores go through
//! references to arrays of a register's size.

mod quantise;

use std::arch::x86_64::*;

use super::planes::{Bits, planes};
use super::tables::{self, Table};
use super::{Compare, FIRST_MASK, LINES, Program, WORDS, first_block};
use quantise::quantise;

use crate::quantise::BIAS;

/// Rows of a full block.
pub(crate) const ROWS: usize = WORDS * WORD;
/// Rows of the smallest block.
pub(crate) const WORD: usize = 64;

/// A register's worth of memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([u64; 8]);

const ZERO: Line = Line([0; 8]);
const ONES: Line = Line([u64::MAX; 8]);

impl Bits<Line> for __m512i {
    const ZERO: Line = ZERO;
    const ONES: Line = ONES;

    #[inline(always)]
    fn load(line: &Line) -> Self {
        // SAFETY: bits are only asked for where the processor is known to be able to (see the module).
        unsafe { load(line) }
    }

    #[inline(always)]
    fn store(self, line: &mut Line) {
        // SAFETY: as above.
        unsafe { store(line, self) }
    }

    #[inline(always)]
    fn and(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_and_si512(self, other) }
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_or_si512(self, other) }
    }

    #[inline(always)]
    fn without(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_andnot_si512(other, self) }
    }

    #[inline(always)]
    fn or_both(self, one: Self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_ternarylogic_epi64::<0xf8>(self, one, other) }
    }

    #[inline(always)]
    fn choose(self, left: Self, right: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_ternarylogic_epi64::<0xca>(self, right, left) }
    }
}

/// Memory reused from call to call.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    codes: Vec<[Line; WORDS]>,
    /// Of each column, where a block's compares are looked up; none where that does not pay.
    tables: Vec<Table<Line>>,
    /// A bit per row for each compare of a tree, and what comes of them (see [`super::Step`]).
    lines: Box<[Line; LINES]>,
    /// For each output, a line for each 16 rows.
    totals: Vec<[Line; ROWS / 16]>,
    /// Rows filled up to a block.
    padded: Vec<f32>,
}

impl Scratch {
    pub fn of(program: &Program) -> Scratch {
        Scratch {
            codes: vec![[ZERO; WORDS]; program.quantiser.columns],
            tables: tables::of::<__m512i, Line>(program),
            lines: Box::new([ZERO; LINES]),
            totals: vec![[ZERO; ROWS / 16]; program.outputs],
            padded: Vec::new(),
        }
    }
}

/// Whether this processor can [`run`].
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
}

/// The summed weights of `rows` into `sums`.
///
/// # Safety
/// The processor must be [`available`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn run(program: &Program, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
    let (width, outputs) = (program.width, program.outputs);
    let (mut rows, mut sums) = (rows, sums);
    while !sums.is_empty() {
        let words = first_block(sums.len() / outputs, WORD);
        let count = (words * WORD).min(sums.len() / outputs);
        let (mut block, more_rows) = rows.split_at(count * width);
        let (block_sums, more_sums) = std::mem::take(&mut sums).split_at_mut(count * outputs);
        (rows, sums) = (more_rows, more_sums);
        let mut padded = std::mem::take(&mut scratch.padded);
        if count < words * WORD {
            padded.clear();
            padded.extend_from_slice(block);
            padded.resize(words * WORD * width, 0.0);
            block = &padded;
        }
        match words {
            1 => block_of::<1>(program, block, scratch),
            2 => block_of::<2>(program, block, scratch),
            4 => block_of::<4>(program, block, scratch),
            _ => block_of::<8>(program, block, scratch),
        }
        scratch.padded = padded;
        for (output, totals) in scratch.totals.iter().enumerate() {
            for (row, sum) in block_sums.iter_mut().skip(output).step_by(outputs).enumerate() {
                let line = &totals[row / 16].0;
                let lane = row % 16;
                *sum = f32::from_bits((line[lane / 2] >> (lane % 2 * 32)) as u32);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn block_of<const W: usize>(program: &Program, rows: &[f32], scratch: &mut Scratch) {
    let missing = quantise::<W>(program, rows, &mut scratch.codes);
    let compares = if missing { &program.compares_with_missing } else { &program.compares };
    for totals in &mut scratch.totals {
        totals[..W * 4].fill(ZERO);
    }
    let by_tables = W == WORDS && !scratch.tables.is_empty();
    if by_tables {
        for (codes, table) in scratch.codes.iter().zip(&mut scratch.tables) {
            tables::fill::<__m512i, Line>(&bits(codes), table);
        }
    }
    for tree in &program.trees {
        let compares = &compares[tree.compares..tree.compares + tree.compared];
        let masks = &mut scratch.lines[FIRST_MASK..];
        if by_tables {
            tables::compare::<__m512i, Line>(compares, &scratch.tables, masks);
        } else {
            compare::<W>(compares, &scratch.codes, masks);
        }
        let first_within = tree.compared - tree.within.len();
        for (offset, &node) in tree.within.iter().enumerate() {
            let above = load(&masks[first_within + offset]);
            let mask = &mut masks[node as usize];
            store(mask, _mm512_andnot_si512(above, load(mask)));
        }
        let planes = planes::<__m512i, Line>(tree, &mut scratch.lines);
        let numbers = numbers::<W>(&planes[..tree.bits]);
        for (nth, &output) in tree.outputs.iter().enumerate() {
            let weights = &program.weights[tree.weights + nth * tree.places()..][..tree.places()];
            let totals = &mut scratch.totals[output as usize];
            match tree.bits {
                ..=4 => pick::<W, 1>(&numbers, weights, totals),
                5 => pick::<W, 2>(&numbers, weights, totals),
                6 => pick::<W, 4>(&numbers, weights, totals),
                7 => pick::<W, 8>(&numbers, weights, totals),
                _ => pick::<W, 16>(&numbers, weights, totals),
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: 64 bytes at the address of a reference to 64 bytes.
    unsafe { _mm512_load_si512(std::ptr::from_ref(line).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(line: &mut Line, value: __m512i) {
    // SAFETY: as in `load`, and the reference is exclusive.
    unsafe { _mm512_store_si512(std::ptr::from_mut(line).cast(), value) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load_sixteen<T: Copy>(values: &[T; 16]) -> __m512i {
    const { assert!(size_of::<T>() == 4) };
    // SAFETY: 16 values of 4 bytes are a register's 64.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// The bits of a column's codes, the lowest first.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn bits(codes: &[Line; WORDS]) -> [Line; 8] {
    let mut bits = [ZERO; 8];
    for (word, codes) in codes.iter().enumerate() {
        let codes = _mm512_xor_si512(load(codes), _mm512_set1_epi8(BIAS as i8));
        for (bit, line) in bits.iter_mut().enumerate() {
            line.0[word] = _mm512_test_epi8_mask(codes, _mm512_set1_epi8((1_u8 << bit) as i8));
        }
    }
    bits
}

/// The masks of a tree's compares.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn compare<const W: usize>(compares: &[Compare], codes: &[[Line; WORDS]], masks: &mut [Line]) {
    for (compare, mask) in compares.iter().zip(masks) {
        let column = &codes[compare.column as usize];
        let bins = _mm512_set1_epi32(compare.bins as i32);
        for (mask, codes) in mask.0[..W].iter_mut().zip(column) {
            *mask = _mm512_cmpgt_epi8_mask(load(codes), bins);
        }
    }
}

/// The number of each row's leaf, as bytes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn numbers<const W: usize>(planes: &[Line]) -> [__m512i; W] {
    let mut numbers = [_mm512_setzero_si512(); W];
    for (word, numbers) in numbers.iter_mut().enumerate() {
        for (bit, plane) in planes.iter().enumerate() {
            *numbers = _mm512_mask_add_epi8(*numbers, plane.0[word], *numbers, _mm512_set1_epi8((1u8 << bit) as i8));
        }
    }
    numbers
}

/// Adds the weights of the leaves with these numbers; `REGISTERS` hold the weights.
#[inline]
#[target_feature(enable = "avx512f")]
fn pick<const W: usize, const REGISTERS: usize>(
    numbers: &[__m512i; W],
    weights: &[f32],
    totals: &mut [Line; ROWS / 16],
) {
    let (weights, _) = weights.as_chunks::<16>();
    let weights: [__m512; REGISTERS] =
        std::array::from_fn(|register| _mm512_castsi512_ps(load_sixteen(&weights[register])));
    for (word, &numbers) in numbers.iter().enumerate() {
        for quarter in 0..4 {
            // The number is in the lowest byte now; what stands above it is not looked at.
            let number = _mm512_srlv_epi32(numbers, _mm512_set1_epi32(8 * quarter as i32));
            let total = &mut totals[word * 4 + quarter];
            let weight = select::<REGISTERS>(number, &weights);
            store(total, _mm512_castps_si512(_mm512_add_ps(_mm512_castsi512_ps(load(total)), weight)));
        }
    }
}

/// The weight at `number` in each lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn select<const REGISTERS: usize>(number: __m512i, weights: &[__m512; REGISTERS]) -> __m512 {
    if REGISTERS == 1 {
        return _mm512_permutexvar_ps(number, weights[0]);
    }
    let mut candidates = [_mm512_setzero_ps(); 8];
    for pair in 0..REGISTERS / 2 {
        candidates[pair] = _mm512_permutex2var_ps(weights[2 * pair], number, weights[2 * pair + 1]);
    }
    let (mut count, mut bit) = (REGISTERS / 2, 32);
    while count > 1 {
        let set = _mm512_test_epi32_mask(number, _mm512_set1_epi32(bit));
        count /= 2;
        bit *= 2;
        for pair in 0..count {
            candidates[pair] = _mm512_mask_mov_ps(candidates[2 * pair], set, candidates[2 * pair + 1]);
        }
    }
    candidates[0]
}
