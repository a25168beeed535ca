//! Stepping through records one at a time, on any processor: several steps in flight, since one alone would mostly wait for
//! the memory it reads.
//!
//! Many rows: one tree at a time stays in the first-level cache, and eight rows step through it together. Few rows: eight trees
//! at a time, one row. Either way each row's weights are added in the order of the trees.
//!
//! # Safety
//! Reads are unchecked where a step follows a step: what a [`Walk`] holds (see there) keeps them inside the tree and the row.

use crate::walk::{Payload, Walk, WalkTree};

/// Steps in flight.
const LANES: usize = 8;

/// Rows whose keys are held at a time.
pub(crate) const BLOCK: usize = 64;

/// Memory reused from call to call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    pub keys: Vec<i32>,
    mentioned: Vec<bool>,
}

/// Adds up the weights of `rows`, `outputs` columns each, into `sums`, which holds zeros.
pub(crate) fn add(walk: &Walk, outputs: usize, rows: &[f32], sums: &mut [f32], scratch: &mut Scratch) {
    for (rows, sums) in rows.chunks(BLOCK * walk.width).zip(sums.chunks_mut(BLOCK * outputs)) {
        walk.keys(rows, &mut scratch.keys);
        let together = sums.len() / outputs / LANES * LANES;
        let (sums, rest) = sums.split_at_mut(together * outputs);
        for tree in &walk.trees {
            for (keys, sums) in
                scratch.keys.chunks_exact(LANES * walk.stride).zip(sums.chunks_exact_mut(LANES * outputs))
            {
                add_rows(walk, tree, keys, sums, outputs);
            }
        }
        let keys = &scratch.keys[together * walk.stride..];
        for (keys, sums) in keys.chunks_exact(walk.stride).zip(rest.chunks_exact_mut(outputs)) {
            arrive(walk, keys, |tree, payload| pay(walk, tree, payload, sums));
        }
    }
}

/// The smallest or largest weights of `rows` by `choose`, into `sums`, which holds zeros.
pub(crate) fn choose(
    walk: &Walk,
    outputs: usize,
    rows: &[f32],
    sums: &mut [f32],
    scratch: &mut Scratch,
    choose: fn(f32, f32) -> f32,
) {
    scratch.mentioned.resize(outputs, false);
    for (row, sums) in rows.chunks_exact(walk.width).zip(sums.chunks_exact_mut(outputs)) {
        walk.keys(row, &mut scratch.keys);
        scratch.mentioned.fill(false);
        arrive(walk, &scratch.keys, |_, number| {
            for &(output, weight) in &walk.listed[number as usize] {
                let (slot, seen) = (&mut sums[output as usize], &mut scratch.mentioned[output as usize]);
                *slot = if *seen { choose(*slot, weight) } else { weight };
                *seen = true;
            }
        });
    }
}

/// Adds one row's weight or weights from one tree.
#[inline]
pub(crate) fn pay(walk: &Walk, tree: &WalkTree, payload: i32, sums: &mut [f32]) {
    match &tree.payload {
        Payload::Weight { output } => sums[*output as usize] += f32::from_bits(payload as u32),
        Payload::Numbers { outputs, start } => {
            let weights = &walk.weights[start + payload as usize * outputs.len()..];
            for (&output, weight) in outputs.iter().zip(weights) {
                sums[output as usize] += weight;
            }
        }
        Payload::Listed => unreachable!("weights to choose from are not added"),
    }
}

/// The node after `at` for a row with `keys`.
///
/// # Safety
/// `at` must be a node of `walk`, and `keys` hold its stride of keys.
#[inline(always)]
unsafe fn step(walk: &Walk, keys: &[i32], at: u32) -> u32 {
    // SAFETY: the caller says so, and the columns are below the stride.
    unsafe {
        let record = *walk.records.get_unchecked(at as usize);
        record.next(at, *keys.get_unchecked(record.column()))
    }
}

/// How many steps to take before looking whether all rows are at leaves, after `taken` steps: until the highest leaf none can
/// be, then two at a time.
#[inline]
pub(crate) fn stride(taken: u32, shallow: u32, depth: u32) -> u32 {
    if taken < shallow { shallow } else { (depth - taken).min(2) }
}

/// Eight rows through one tree.
#[inline]
fn add_rows(walk: &Walk, tree: &WalkTree, keys: &[i32], sums: &mut [f32], outputs: usize) {
    assert!(keys.len() == LANES * walk.stride && walk.records.len() > tree.root as usize);
    let mut at = [tree.root; LANES];
    let mut taken = 0;
    while taken < tree.depth {
        let before = at;
        let steps = stride(taken, tree.shallow, tree.depth);
        for _ in 0..steps {
            for (lane, at) in at.iter_mut().enumerate() {
                // SAFETY: from a node, a step leads to a node; each lane has a stride of keys.
                *at = unsafe { step(walk, keys.get_unchecked(lane * walk.stride..), *at) };
            }
        }
        taken += steps;
        if at == before {
            break;
        }
    }
    match &tree.payload {
        Payload::Weight { output } => {
            for (sums, &at) in sums.chunks_exact_mut(outputs).zip(&at) {
                sums[*output as usize] += f32::from_bits(walk.records[at as usize].bound as u32);
            }
        }
        _ => {
            for (sums, &at) in sums.chunks_exact_mut(outputs).zip(&at) {
                pay(walk, tree, walk.records[at as usize].bound, sums);
            }
        }
    }
}

/// Hands on the payload of the leaf that one row reaches in each tree. Trees are stepped through eight at a time, and the
/// processor takes the next ones' first steps while it still adds up these ones' weights.
#[inline]
fn arrive(walk: &Walk, keys: &[i32], mut hand_on: impl FnMut(&WalkTree, i32)) {
    assert_eq!(keys.len(), walk.stride);
    for trees in walk.trees.chunks(LANES) {
        // A last group of fewer trees repeats its last one.
        let mut at: [u32; LANES] = std::array::from_fn(|lane| trees[lane.min(trees.len() - 1)].root);
        assert!(at.iter().all(|&at| walk.records.len() > at as usize));
        let depth = trees.iter().map(|tree| tree.depth).max().unwrap_or(0);
        let shallow = trees.iter().map(|tree| tree.shallow).min().unwrap_or(0);
        let mut taken = 0;
        while taken < depth {
            let before = at;
            let steps = stride(taken, shallow, depth);
            for _ in 0..steps {
                for at in &mut at {
                    // SAFETY: from a node, a step leads to a node; there is a stride of keys.
                    *at = unsafe { step(walk, keys, *at) };
                }
            }
            taken += steps;
            if at == before {
                break;
            }
        }
        for (tree, &at) in trees.iter().zip(&at) {
            hand_on(tree, walk.records[at as usize].bound);
        }
    }
}
