//! librdkafka's own log, under a target of its own. Its words are its own too, so the sentence is all there is to say.

use super::log_events;

log_events! {
    target: "librdkafka";

    /// librdkafka calls it an emergency, alert or critical.
    warn "librdkafka-critical" "{line}"
    Critical<'a> { facility: &'a str as value, line: &'a str as said }

    /// librdkafka's errors, warnings and notices: a broker going away is routine for a client that waits.
    debug "librdkafka-line" "{line}"
    Line<'a> { facility: &'a str as value, line: &'a str as said }

    /// Only with -X debug=….
    trace "librdkafka-debug" "{line}"
    Debug<'a> { facility: &'a str as value, line: &'a str as said }
}
