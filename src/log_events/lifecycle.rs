//! Start and end of the process.

use std::net::SocketAddr;

use super::log_events;

log_events! {
    target: "fraud_scorer::lifecycle";

    /// SIGTERM or SIGINT came: nothing more is read, what was read is committed.
    info "stopping" "stopping: finishing the batch, committing, leaving the group"
    Stopping {}

    /// A second signal came: what is not committed is read again by the next worker.
    warn "stopping-at-once" "second signal: stopping at once, uncommitted work is read again"
    StoppingAtOnce {}

    /// The end of a run: everything read was committed.
    info "drained" "drained and left the consumer group"
    Drained {}

    /// A signal came while the worker still waited for the model registry.
    info "stopped-before-registry" "stopped before the model registry was reached; nothing was read"
    StoppedBeforeRegistry {}

    /// A signal came while the worker still waited for a broker.
    info "stopped-before-broker" "stopped before a broker was reached; nothing was read"
    StoppedBeforeBroker {}

    /// The thread that ends the process when leaving hangs could not be started; a supervisor has to.
    warn "drain-not-watched" "the drain is not watched"
    DrainNotWatched<'a> { error: &'a std::io::Error as display }

    /// Where the console, the API and the metrics are.
    info "http-listens" "HTTP edge listens"
    HttpListens { address: SocketAddr as display }

    /// Another process has the default address; the one taken instead is in `http-listens`.
    warn "http-address-in-use" "address in use, taking a free port; choose one with --http"
    HttpAddressInUse { address: SocketAddr as display }

    /// Credentials go over a network unencrypted: use https.
    warn "in-the-clear" "what this program logs in with can be read on its way: use https"
    InTheClear<'a> { setting: &'a str as value, url: &'a str as value }

    /// Some scoring threads will get no partition.
    warn "too-many-threads" "more scoring threads than partitions: some will have nothing to do"
    TooManyThreads { threads: usize as value, partitions: i32 as value }

    /// A scoring thread ended without its last commit; another worker reads those records again.
    warn "left-without-committing" "left without committing; those records are read again"
    LeftWithoutCommitting<'a> { thread: &'a str as value, reason: &'a dyn std::fmt::Display as display }
}
