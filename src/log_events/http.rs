//! The HTTP edge.

use std::fmt::Display;
use std::net::SocketAddr;

use super::log_events;

log_events! {
    target: "fraud_scorer::http";

    /// Certificate or key changed, and are used from now on.
    info "tls-reloaded" "the certificate was read again"
    TlsReloaded<'a> { file: &'a dyn Display as display }

    /// Certificate or key changed to something that cannot be used.
    warn "tls-not-reloaded" "the certificate that was there stays"
    TlsNotReloaded<'a> { error: &'a dyn Display as display }

    /// A connection could not be accepted.
    debug "not-accepted" "accepting a connection"
    NotAccepted<'a> { error: &'a dyn Display as display }

    /// A connection ended other than it should, mostly by the other side.
    debug "connection-failed" "connection"
    ConnectionFailed<'a> { peer: SocketAddr as display, error: &'a dyn Display as display }

    /// A fault of this program.
    error "api-description-broken" "the embedded API description is not JSON"
    ApiDescriptionBroken<'a> { error: &'a dyn Display as display }

    /// The operating system gave no thread for the scores that HTTP requests ask for.
    error "scoring-not-started" "no thread for scoring over HTTP; topics are scored all the same"
    ScoringNotStarted<'a> { error: &'a dyn Display as display }

    /// Requests over HTTP are scored by the model before the one that serves.
    warn "scoring-keeps-model" "scoring over HTTP keeps its model"
    ScoringKeepsModel<'a> { error: &'a dyn Display as display }
}
