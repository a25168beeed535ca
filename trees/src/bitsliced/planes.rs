//! From masks to the bits of leaves' numbers, whatever the size of a register.

use super::{BITS, FIRST_LEAF, FIRST_MASK, LINES, Shape, SlicedTree, Step};

/// As many bits as are worked with at once, from a line of memory.
pub(crate) trait Bits<Line>: Copy {
    /// A line of zeros.
    const ZERO: Line;
    /// A line of ones.
    const ONES: Line;
    fn load(line: &Line) -> Self;
    fn store(self, line: &mut Line);
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    /// Set in `self`, but not in `other`.
    fn without(self, other: Self) -> Self;
    /// Set in `self`, or in both others.
    fn or_both(self, one: Self, other: Self) -> Self;
    /// Where set, the bits of `right`, else of `left`.
    fn choose(self, left: Self, right: Self) -> Self;
}

/// Bits of the numbers of the leaves that rows end in, the lowest first.
#[inline(always)]
pub(crate) fn planes<B: Bits<Line>, Line: Copy>(tree: &SlicedTree, lines: &mut [Line; LINES]) -> [Line; BITS] {
    let mut planes = [B::ZERO; BITS];
    let masks = &lines[FIRST_MASK..];
    match &tree.shape {
        Shape::Oblivious => {
            for (plane, mask) in planes[..tree.bits].iter_mut().rev().zip(masks) {
                *plane = *mask;
            }
        }
        Shape::Complete => match tree.bits {
            1 => complete::<B, Line, 1, 1>(masks, &mut planes),
            2 => complete::<B, Line, 2, 3>(masks, &mut planes),
            3 => complete::<B, Line, 3, 7>(masks, &mut planes),
            4 => complete::<B, Line, 4, 15>(masks, &mut planes),
            5 => complete::<B, Line, 5, 31>(masks, &mut planes),
            _ => complete::<B, Line, 6, 63>(masks, &mut planes),
        },
        Shape::Free { steps, leaves } => free::<B, Line>(steps, *leaves, lines, &mut planes[..tree.bits]),
    }
    planes
}

/// Of the masks from `at` on, the one that the given bits say, the lowest first. That is the one that became known last, so it
/// chooses last: what can be chosen without it is done by then.
macro_rules! chosen {
    ($masks:expr, $at:expr, $step:expr;) => { B::load(&$masks[$at]) };
    ($masks:expr, $at:expr, $step:expr; $lowest:expr $(, $more:expr)*) => {
        $lowest.choose(
            chosen!($masks, $at, 2 * $step; $($more),*),
            chosen!($masks, $at + $step, 2 * $step; $($more),*),
        )
    };
}

/// Down a complete tree: which mask counts on a level is said by the bits above it.
#[inline(always)]
fn complete<B: Bits<Line>, Line, const DEPTH: usize, const NODES: usize>(masks: &[Line], planes: &mut [Line; BITS]) {
    let Some(masks) = masks.first_chunk::<NODES>() else { return };
    let a = B::load(&masks[0]);
    a.store(&mut planes[DEPTH - 1]);
    if DEPTH < 2 {
        return;
    }
    let b: B = chosen!(masks, 1, 1; a);
    b.store(&mut planes[DEPTH - 2]);
    if DEPTH < 3 {
        return;
    }
    let c: B = chosen!(masks, 3, 1; b, a);
    c.store(&mut planes[DEPTH - 3]);
    if DEPTH < 4 {
        return;
    }
    let d: B = chosen!(masks, 7, 1; c, b, a);
    d.store(&mut planes[DEPTH - 4]);
    if DEPTH < 5 {
        return;
    }
    let e: B = chosen!(masks, 15, 1; d, c, b, a);
    e.store(&mut planes[DEPTH - 5]);
    if DEPTH < 6 {
        return;
    }
    let f: B = chosen!(masks, 31, 1; e, d, c, b, a);
    f.store(&mut planes[DEPTH - 6]);
}

/// Down any tree: everyone reaches the root, and a child is reached by who reaches its parent and is sent its way.
#[inline(always)]
fn free<B: Bits<Line>, Line: Copy>(steps: &[Step], leaves: usize, lines: &mut [Line; LINES], planes: &mut [Line]) {
    if let Some(root) = steps.first() {
        lines[root.here as usize] = B::ONES;
    }
    for (branch, step) in steps.iter().enumerate() {
        let (mask, here) = (B::load(&lines[FIRST_MASK + branch]), B::load(&lines[step.here as usize]));
        here.without(mask).store(&mut lines[step.left as usize]);
        here.and(mask).store(&mut lines[step.right as usize]);
    }
    // Bit 0 is set in every second leaf's number. Put together in pairs, bit 1 is set in every second pair's, and so on.
    let mut reached = &mut lines[FIRST_LEAF..][..1 << planes.len()];
    reached[leaves..].fill(B::ZERO);
    for plane in planes {
        let half = reached.len() / 2;
        let mut set = B::load(&B::ZERO);
        for pair in 0..half {
            let (even, odd) = (B::load(&reached[2 * pair]), B::load(&reached[2 * pair + 1]));
            set = set.or(odd);
            even.or(odd).store(&mut reached[pair]);
        }
        set.store(plane);
        reached = &mut reached[..half];
    }
}
