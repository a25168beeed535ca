//! What the product promises, held against real parts: an Apache Kafka broker, the release's own binaries as processes,
//! an independent subscriber. One module per promise:
//!
//! - `exactly_once`: one verdict per row, through kills, rebalances and broker restarts
//! - `gaps`: nothing is skipped in silence, be it by retention, a topic made anew, or a group without offsets
//! - `elections`: a leader that lacks the log's end: what it holds is scored, what is lost is said
//! - `fenced`: a cluster that names no broker for a while is not the end of any client
//! - `refused`: what a topic does not take stops neither the other records nor the other partitions
//! - `poison`: whatever arrives ends as a verdict or a dead letter, byte for byte
//! - `hostile`: nothing that strangers send takes the memory, the partition or the health of a worker
//! - `archive`: verdicts and their features in Parquet files, each once, whatever happens to the writers; and erased again
//! - `audit`: who changed what is on a topic, whatever it is that is away, and what is missing there is named
//! - `masking`: what `--mask` names is neither in the console nor in the log
//! - `shutdown`: SIGTERM drains and leaves within two seconds
//! - `startup`: what waiting mends is waited for, the rest ends at once with what to do
//! - `offline`: bundles, `score`, `check` and `demo`, without a real broker
//! - `foreign_model`: anyone's ONNX classifier, bundled by hand as the guide says, scores as its own library does
//! - `swap`: another model takes over between two batches: nothing lost, every verdict names what scored it, and back
//! - `challenger`: a second model in the shadow: compared exactly once, and never in a verdict's way
//! - `drift`: traffic unlike the training data shows, traffic like it does not
//! - `http`: over HTTP the same verdicts, refusals that say why, and topics that never wait for either
//! - `access`: each path asks for its right; beyond loopback nothing is open by accident; TLS, and clients' certificates
//! - `kernel`: what scores a model is verified, said, and as asked for
//! - `tokens`: OAUTHBEARER, by tokens that are replaced before they end
//! - `tracing`: a sender's trace goes on through verdicts, dead letters and answers; spans never cost more than spans
//! - `metrics`: what is exposed is what is defined, money included, and counters never fall
//! - `registry`: models from an MLflow server: an alias is followed, and without the server a worker goes on
//!
//! `support` starts and stops the real parts. Topics and groups have random names; nothing sleeps and hopes.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod archive;
mod audit;
mod challenger;
mod drift;
mod elections;
mod exactly_once;
mod fenced;
mod foreign_model;
mod gaps;
mod hostile;
mod http;
mod kernel;
mod masking;
mod metrics;
mod offline;
mod poison;
mod refused;
mod registry;
mod shutdown;
mod startup;
mod support;
mod swap;
mod tokens;
mod tracing;
