//! Which features a message or a list of columns has named.

use super::Feature;

/// A set of features that is emptied without touching its memory.
#[derive(Debug)]
pub(super) struct Seen {
    /// Per feature: the stamp under which it was seen, or one more where it was null.
    stamps: Vec<u64>,
    /// Steps by two.
    stamp: u64,
}

impl Seen {
    /// None of `count` features.
    pub(super) fn new(count: usize) -> Self {
        Seen { stamps: vec![0; count], stamp: 0 }
    }

    /// Empties the set.
    pub(super) fn forget(&mut self) {
        self.stamp += 2;
    }

    /// Whether the feature was named, with a value or null.
    pub(super) fn is(&self, feature: usize) -> bool {
        self.stamps[feature] >= self.stamp
    }

    /// The feature was named, with a value or null.
    pub(super) fn add(&mut self, feature: usize, has_value: bool) {
        self.stamps[feature] = self.stamp + u64::from(!has_value);
    }

    /// The first required feature without a value.
    pub(super) fn missing<'a>(&self, features: &'a [Feature]) -> Option<&'a str> {
        let missing = |(feature, seen): &(&Feature, &u64)| feature.default.is_none() && **seen != self.stamp;
        features.iter().zip(&self.stamps).find(missing).map(|(feature, _)| feature.name.as_str())
    }
}
