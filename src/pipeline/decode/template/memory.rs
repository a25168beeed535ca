//! Which templates are kept, and when another is learned.

use super::Template;
use crate::pipeline::decode::Rows;
use crate::pipeline::json::AHEAD;

/// Two formats at a time, an object form and a split form for instance: each is one more comparison that may fail.
const MOST_KNOWN: usize = 2;

/// Learning takes as long as parsing a few messages, so it has to pay: one costs this many messages read by a template.
const PRICE: u32 = 32;

/// What can be saved up; a decoder begins with it.
const MOST_CREDIT: u32 = 4 * PRICE;

/// Where no message is like another, learning is in vain. One in so many parsed messages is learned from all the same: the
/// format may have changed for good.
const PATIENCE: u32 = 1024;

/// The templates of the formats that are about.
#[derive(Clone, Debug)]
pub(in crate::pipeline::decode) struct Memory {
    known: Vec<Template>,
    /// The one that matched last.
    recent: usize,
    credit: u32,
    /// Messages parsed since something was learned.
    waited: u32,
    /// The message with zeros behind it.
    padded: Vec<u8>,
}

impl Memory {
    /// Nothing is known.
    pub(in crate::pipeline::decode) fn new() -> Self {
        Memory { known: Vec::new(), recent: 0, credit: MOST_CREDIT, waited: 0, padded: Vec::new() }
    }

    /// Appends the rows of a message that fits a template; `false` leaves `rows` as they were.
    #[inline]
    pub(in crate::pipeline::decode) fn read(
        &mut self,
        bytes: &[u8],
        record: u32,
        defaults: &[f32],
        most_features: usize,
        rows: &mut Rows,
    ) -> bool {
        let (features, meta) = (rows.features.len(), rows.meta.len());
        let mut copied = false;
        for turn in 0..self.known.len() {
            // The recent one first, then the other.
            let index = self.recent ^ turn;
            let template = &self.known[index];
            if !template.begins(bytes) {
                continue;
            }
            if !copied {
                self.padded.clear();
                self.padded.reserve(bytes.len() + AHEAD);
                self.padded.extend_from_slice(bytes);
                self.padded.extend_from_slice(&[0; AHEAD]);
                copied = true;
            }
            if template.read(&self.padded, bytes.len(), record, (defaults, most_features), rows).is_some() {
                self.recent = index;
                self.credit = (self.credit + 1).min(MOST_CREDIT);
                return true;
            }
            rows.features.truncate(features);
            rows.meta.truncate(meta);
        }
        false
    }

    /// A message was accepted that fits no template: learns one from it, or waits.
    pub(in crate::pipeline::decode) fn learn(&mut self, learn: impl FnOnce() -> Option<Template>) {
        self.waited += 1;
        if self.credit < PRICE && self.waited < PATIENCE {
            return;
        }
        self.credit = self.credit.saturating_sub(PRICE);
        self.waited = 0;
        let Some(template) = learn() else { return };
        if self.known.len() < MOST_KNOWN {
            self.known.push(template);
            self.recent = self.known.len() - 1;
        } else {
            self.recent ^= 1;
            self.known[self.recent] = template;
        }
    }
}

// `recent ^ 1` is the other one of two.
const _: () = assert!(MOST_KNOWN == 2);
