//! Spans on their way to a collector.

use super::log_events;

log_events! {
    target: "fraud_scorer::tracing";

    /// Spans of sampled records go to this collector.
    info "span-export-on" "spans of sampled records are exported"
    ExportOn<'a> { endpoint: &'a str as value, records_per_second: u32 as value }

    /// The collector does not take spans; said once until it does. Scoring is not concerned, spans are lost and counted.
    warn "collector-unreachable" "the collector takes no spans; they are dropped and counted until it does"
    CollectorUnreachable<'a> { endpoint: &'a str as value, error: &'a str as value }

    /// The end of `collector-unreachable`.
    info "collector-reachable" "the collector takes spans again"
    CollectorReachable<'a> { endpoint: &'a str as value, unsent: u64 as value }

    /// The collector took a request but not all of its spans.
    warn "spans-rejected" "the collector rejected spans" (at most every 60 s)
    SpansRejected<'a> { rejected: u64 as value, reason: &'a str as value }

    /// Spans were still on their way when the process ended.
    warn "spans-left" "stopped before all spans were exported"
    SpansLeft {}
}
