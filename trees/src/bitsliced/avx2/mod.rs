//! The bit-sliced method with AVX2: 256 rows at a time, or 32, 64 or 128.
//!
//! A column of codes is 8 lines of 32 bytes. Within a line, the four bytes of lane i belong to rows i, 8 + i, 16 + i and 24 + i:
//! so codes of 8 rows each are put together by shifting, and leaf numbers taken apart the same way, without shuffles.
//!
//! # Safety
//! Functions with target features are called from [`run`] only, which is unsafe to call without them. Loads and stores go through
//! references to arrays of a register's size. The gather of the weights in [`pick`] has indices of as many bits as
//! there are asserted to be weights for.

mod quantise;

use std::arch::x86_64::*;

use super::planes::{Bits, planes};
use super::tables::{self, Table};
use super::{BITS, Compare, FIRST_MASK, LINES, Program, WORDS, first_block};
use quantise::quantise;

use crate::quantise::BIAS;

/// Rows of a full block.
pub(crate) const ROWS: usize = WORDS * WORD;
/// Rows of the smallest block.
pub(crate) const WORD: usize = 32;

/// A register's worth of memory.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Line([u32; 8]);

const ZERO: Line = Line([0; 8]);
const ONES: Line = Line([u32::MAX; 8]);

impl Bits<Line> for __m256i {
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
        unsafe { _mm256_and_si256(self, other) }
    }

    #[inline(always)]
    fn or(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_or_si256(self, other) }
    }

    #[inline(always)]
    fn without(self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_andnot_si256(other, self) }
    }

    #[inline(always)]
    fn or_both(self, one: Self, other: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_or_si256(self, _mm256_and_si256(one, other)) }
    }

    #[inline(always)]
    fn choose(self, left: Self, right: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_xor_si256(left, _mm256_and_si256(self, _mm256_xor_si256(left, right))) }
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
    /// For each output, a line for each 8 rows.
    totals: Vec<[Line; ROWS / 8]>,
    /// Rows filled up to a block.
    padded: Vec<f32>,
}

impl Scratch {
    pub fn of(program: &Program) -> Scratch {
        Scratch {
            codes: vec![[ZERO; WORDS]; program.quantiser.columns],
            tables: tables::of::<__m256i, Line>(program),
            lines: Box::new([ZERO; LINES]),
            totals: vec![[ZERO; ROWS / 8]; program.outputs],
            padded: Vec::new(),
        }
    }
}

/// The summed weights of `rows` into `sums`.
///
/// # Safety
/// The processor must have AVX2.
#[target_feature(enable = "avx2")]
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
                *sum = f32::from_bits(totals[row / 8].0[row % 8]);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn block_of<const W: usize>(program: &Program, rows: &[f32], scratch: &mut Scratch) {
    let missing = quantise::<W>(program, rows, &mut scratch.codes);
    let compares = if missing { &program.compares_with_missing } else { &program.compares };
    for totals in &mut scratch.totals {
        totals[..W * 4].fill(ZERO);
    }
    let by_tables = W == WORDS && !scratch.tables.is_empty();
    if by_tables {
        for (codes, table) in scratch.codes.iter().zip(&mut scratch.tables) {
            tables::fill::<__m256i, Line>(&bits(codes), table);
        }
    }
    for tree in &program.trees {
        let compares = &compares[tree.compares..tree.compares + tree.compared];
        let masks = &mut scratch.lines[FIRST_MASK..];
        if by_tables {
            tables::compare::<__m256i, Line>(compares, &scratch.tables, masks);
        } else {
            compare::<W>(compares, &scratch.codes, masks);
        }
        let first_within = tree.compared - tree.within.len();
        for (offset, &node) in tree.within.iter().enumerate() {
            let above = load(&masks[first_within + offset]);
            let mask = &mut masks[node as usize];
            store(mask, _mm256_andnot_si256(above, load(mask)));
        }
        let planes = planes::<__m256i, Line>(tree, &mut scratch.lines);
        let numbers = numbers::<W>(&planes[..tree.bits]);
        for (nth, &output) in tree.outputs.iter().enumerate() {
            let weights = &program.weights[tree.weights + nth * tree.places()..][..tree.places()];
            pick::<W>(&numbers, tree.bits, weights, &mut scratch.totals[output as usize]);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line) -> __m256i {
    // SAFETY: 32 bytes at the address of a reference to 32 bytes.
    unsafe { _mm256_load_si256(std::ptr::from_ref(line).cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(line: &mut Line, value: __m256i) {
    // SAFETY: as in `load`, and the reference is exclusive.
    unsafe { _mm256_store_si256(std::ptr::from_mut(line).cast(), value) }
}

/// The bits of a column's codes, the lowest first.
#[inline]
#[target_feature(enable = "avx2")]
fn bits(codes: &[Line; WORDS]) -> [Line; 8] {
    let mut bits = [ZERO; 8];
    for (word, codes) in codes.iter().enumerate() {
        let mut codes = _mm256_xor_si256(load(codes), _mm256_set1_epi8(BIAS as i8));
        for line in bits.iter_mut().rev() {
            line.0[word] = _mm256_movemask_epi8(codes) as u32;
            codes = _mm256_add_epi8(codes, codes);
        }
    }
    bits
}

/// The masks of a tree's compares.
#[inline]
#[target_feature(enable = "avx2")]
fn compare<const W: usize>(compares: &[Compare], codes: &[[Line; WORDS]], masks: &mut [Line]) {
    for (compare, mask) in compares.iter().zip(masks) {
        let column = &codes[compare.column as usize];
        let bins = _mm256_set1_epi32(compare.bins as i32);
        for (mask, codes) in mask.0[..W].iter_mut().zip(column) {
            *mask = _mm256_movemask_epi8(_mm256_cmpgt_epi8(load(codes), bins)) as u32;
        }
    }
}

/// The number of each row's leaf, as bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn numbers<const W: usize>(planes: &[Line]) -> [__m256i; W] {
    // Bit b of 32 belongs to byte b: every byte gets a copy of the byte that its bit is in, and looks at its bit.
    let spread = _mm256_setr_epi64x(0, 0x0101_0101_0101_0101, 0x0202_0202_0202_0202, 0x0303_0303_0303_0303);
    let own = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let mut numbers = [_mm256_setzero_si256(); W];
    for (word, numbers) in numbers.iter_mut().enumerate() {
        for (bit, plane) in planes.iter().enumerate() {
            let bits = _mm256_shuffle_epi8(_mm256_set1_epi32(plane.0[word] as i32), spread);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, own), own);
            *numbers = _mm256_or_si256(*numbers, _mm256_and_si256(set, _mm256_set1_epi8((1u8 << bit) as i8)));
        }
    }
    numbers
}

/// Adds the weights of the leaves with these numbers of `bits` bits.
#[inline]
#[target_feature(enable = "avx2")]
fn pick<const W: usize>(numbers: &[__m256i; W], bits: usize, weights: &[f32], totals: &mut [Line; ROWS / 8]) {
    assert!(bits <= BITS && weights.len() >= 1 << bits);
    let mask = _mm256_set1_epi32((1 << bits) - 1);
    for (word, &numbers) in numbers.iter().enumerate() {
        for quarter in 0..4 {
            let number = _mm256_srlv_epi32(numbers, _mm256_set1_epi32(8 * quarter as i32));
            let number = _mm256_and_si256(number, mask);
            // SAFETY: a number has no further bits, and there are as many weights (asserted above).
            let weight = unsafe { _mm256_i32gather_ps::<4>(weights.as_ptr(), number) };
            let total = &mut totals[word * 4 + quarter];
            store(total, _mm256_castps_si256(_mm256_add_ps(_mm256_castsi256_ps(load(total)), weight)));
        }
    }
}
