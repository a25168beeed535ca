//! Who changed what.

use super::log_events;

log_events! {
    target: "fraud_scorer::audit";

    /// A change of what serves, a try of one, or the start or end of the process: who, what, before and after. The same stands on the topic of `--audit-topic`, where `sha256` is that of the record.
    info "audit" "audit event"
    Audited<'a> {
        instance: &'a str as value,
        chain: &'a str as value,
        sequence: u64 as value,
        previous: &'a str as value,
        sha256: &'a str as value,
        time: &'a str as value,
        role: &'a str as value,
        peer: &'a str as value,
        action: &'a str as value,
        outcome: &'a str as value,
        on: &'a str as value,
        before: Option<&'a str> as value,
        after: Option<&'a str> as value,
        reason: &'a str as value,
    }

    /// Events wait for the topic of `--audit-topic`; they are tried again, in order.
    warn "audit-not-delivered" "audit events do not reach their topic" (at most every 60 s)
    NotDelivered<'a> { topic: &'a str as value, events: usize as value, reason: &'a str as value }

    /// The end of `audit-not-delivered`.
    info "audit-delivered" "audit events reach their topic again"
    DeliveredAgain<'a> { topic: &'a str as value }

    /// Events that the topic will not have: `audit verify` will name the gap, what they said stands in the log.
    error "audit-lost" "audit events are not on their topic"
    Lost<'a> { events: usize as value, reason: &'a str as value }
}
