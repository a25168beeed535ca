//! fraud-scorer: scores card transactions for fraud where they flow, in Kafka.
//!
//! ```text
//!  fraud-producer ──► transactions ──► fraud-scorer (N processes × M scoring threads, one consumer group)
//!                                        poll ► decode ► score ► decide ► encode ► commit
//!                                        ├──► verdicts           one per transaction row
//!                                        └──► transactions.dlq   what could not be scored, with the reason
//! ```
//!
//! A map, in reading order:
//!
//! | module | what is in it |
//! |---|---|
//! | [`cli`], [`commands`] | the command line and what each command does |
//! | [`worker`] | start-up order, the threads, what they do next |
//! | [`pipeline`] | the straight line from record to verdict |
//! | [`transaction`] | commits: the two guarantees |
//! | [`model`] | bundles: verified on load, scored by our kernels or ONNX Runtime |
//! | [`audit`] | who changed what, in the log and as a chain on a topic |
//! | [`drift`] | whether the traffic still looks like the training data |
//! | [`explain`] | why a row scored as it did; for those who look, not for the topic |
//! | [`kafka`] | everything that talks to librdkafka |
//! | [`telemetry`], [`http`] | metrics, spans, readiness, and the edge that shows them |
//! | [`bounded_read`], [`digest`] | files that others write, within limits; hashes, in digits |
//! | [`http_client`] | the one way to ask other services over HTTP |
//! | [`log_events`] | everything the log can say |
//! | [`mask`] | fields that those who look at the worker do not see |
//! | [`scoring_service`] | scores for those who ask over HTTP, batched as they come |
//! | [`archive`] | verdicts with their features as Parquet files, by a process of its own |
//! | [`shutdown`], [`signals`] | how things end |
//!
//! docs/ARCHITECTURE.md says where to change what.

#[cfg(feature = "archive")]
pub mod archive;
pub mod audit;
pub mod bounded_read;
pub mod cli;
pub mod commands;
pub mod digest;
pub mod drift;
pub mod explain;
pub mod http;
pub mod http_client;
pub mod kafka;
pub mod log_events;
pub mod mask;
pub mod model;
pub mod pipeline;
pub mod scoring_service;
pub mod shutdown;
pub mod signals;
pub mod telemetry;
pub mod transaction;
pub mod worker;
