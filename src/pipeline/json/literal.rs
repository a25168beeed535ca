//! Text that is expected word for word.

use super::lanes::LANES;

/// Text that is expected at the reader's position; short ones, which are most, are compared in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Literal {
    text: Box<[u8]>,
    /// The text with zeros behind it, and ones where the text is.
    start: u128,
    mask: u128,
}

impl Literal {
    /// The literal `text`.
    pub fn new(text: &[u8]) -> Self {
        let mut start = [0; LANES];
        let mut mask = [0; LANES];
        for ((byte, ones), from) in start.iter_mut().zip(&mut mask).zip(text) {
            (*byte, *ones) = (*from, 0xff);
        }
        Literal { text: text.into(), start: u128::from_ne_bytes(start), mask: u128::from_ne_bytes(mask) }
    }

    /// The text.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether the text is short enough to be compared in one step.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.text.len() <= LANES
    }

    /// Whether `window` begins with the text, or with as much of it as fits.
    #[inline(always)]
    pub(super) fn begins(&self, window: &[u8; LANES]) -> bool {
        (u128::from_ne_bytes(*window) ^ self.start) & self.mask == 0
    }
}
