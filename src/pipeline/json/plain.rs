//! Readers of what is usual, for a message whose form is known: each accepts a part of what its full twin accepts, means
//! the same by it, and leaves the reader where it is otherwise.

use std::ops::Range;

use super::lanes::LANES;
use super::number::{WINDOW, plain_decimal, plain_whole};
use super::{Literal, Reader};

/// How many bytes from a number's first one on [`Reader::plain_float`] looks at.
pub const AHEAD: usize = WINDOW + LANES;

impl<'a> Reader<'a> {
    /// Consumes `literal` if it stands here.
    #[inline(always)]
    pub fn eat_literal(&mut self, literal: &Literal) -> bool {
        let length = literal.text().len();
        let found = match self.window() {
            Some(window) if literal.is_short() => literal.begins(window),
            _ => self.rest().starts_with(literal.text()),
        };
        if !found {
            return false;
        }
        self.at += length;
        true
    }

    /// Reads a number that begins right here and has `after` behind it, if it is a plain decimal (nearly all are) with
    /// [`AHEAD`] bytes to look at: the hottest lines of the worker.
    #[inline(always)]
    pub fn plain_float(&mut self, after: &Literal) -> Option<f32> {
        let window = self.window::<AHEAD>()?;
        let (value, length) = plain_decimal(window.first_chunk()?)?;
        let behind = window.get(length..length + LANES)?.first_chunk()?;
        if !after.begins(behind) || !(after.is_short() || self.bytes.get(self.at + length..)?.starts_with(after.text()))
        {
            return None;
        }
        self.at += length + after.text().len();
        Some(value)
    }

    /// Reads a whole number that begins right here, if it is digits and at most fifteen.
    #[inline]
    pub fn plain_integer(&mut self) -> Option<i64> {
        let last;
        let window = match self.window::<WINDOW>() {
            Some(window) => window,
            None => {
                last = self.last_window();
                &last
            }
        };
        let (value, length) = plain_whole(window)?;
        self.at += length;
        Some(value)
    }

    /// Reads a string that begins right here, if it is of ASCII without escapes; gives what stands between its quotes.
    #[inline]
    pub fn plain_string(&mut self) -> Option<Range<usize>> {
        let mut ahead = self.clone();
        if ahead.byte() != Some(b'"') {
            return None;
        }
        ahead.at += 1;
        ahead.plain_text();
        if ahead.byte() != Some(b'"') {
            return None;
        }
        let text = self.at + 1..ahead.at;
        self.at = ahead.at + 1;
        Some(text)
    }

    /// The next `N` bytes, if there are as many.
    #[inline(always)]
    pub(super) fn window<const N: usize>(&self) -> Option<&'a [u8; N]> {
        self.bytes.get(self.at..)?.first_chunk()
    }

    /// The next bytes where fewer than `N` are left, with zeros behind them.
    #[inline]
    pub(super) fn last_window<const N: usize>(&self) -> [u8; N] {
        let mut window = [0; N];
        for (byte, from) in window.iter_mut().zip(self.rest()) {
            *byte = *from;
        }
        window
    }
}
