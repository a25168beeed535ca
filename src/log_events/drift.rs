//! Why drift is not watched.

use super::log_events;

log_events! {
    target: "fraud_scorer::drift";

    /// By setting.
    info "drift-off" "drift is not watched: --drift-sample is 0"
    Off<'a> { model: &'a str as value }

    /// The bundle tells nothing of its training data.
    info "drift-without-reference" "drift is not watched: the bundle has no reference.json"
    WithoutReference<'a> { model: &'a str as value }

    /// The bundle's reference.json is not what it should be.
    warn "drift-reference-unusable" "drift is not watched: the bundle's reference cannot be used"
    ReferenceUnusable<'a> { model: &'a str as value, reason: &'a str as value }
}
