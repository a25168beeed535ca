//! Readiness as a list of reasons against it. Changed on transitions only, so a lock is cheap enough.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Ready when nobody has a reason against it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    reasons: Arc<Mutex<BTreeMap<String, String>>>,
}

impl Readiness {
    /// `who` is not ready, because of `reason`; replaces an earlier reason of theirs.
    pub fn hold(&self, who: &str, reason: impl Into<String>) {
        if let Ok(mut reasons) = self.reasons.lock() {
            reasons.insert(who.to_owned(), reason.into());
        }
    }

    /// `who` has no reason any more.
    pub fn clear(&self, who: &str) {
        if let Ok(mut reasons) = self.reasons.lock() {
            reasons.remove(who);
        }
    }

    /// The reasons against readiness, `who: why`; empty when ready.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.reasons.lock();
        reasons.map(|reasons| reasons.iter().map(|(who, why)| format!("{who}: {why}")).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_the_absence_of_reasons() {
        let readiness = Readiness::default();
        assert!(readiness.reasons().is_empty());
        readiness.hold("a", "starting");
        readiness.hold("b", "stalled");
        readiness.hold("a", "waiting");
        assert_eq!(readiness.reasons(), ["a: waiting", "b: stalled"]);
        readiness.clear("a");
        readiness.clear("b");
        assert!(readiness.reasons().is_empty());
    }
}
