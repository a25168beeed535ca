//! Kafka at the edge: everything that talks to librdkafka, and nothing that knows what a transaction or a model is.
//!
//! ```text
//!  startup       waits for the broker, checks (or creates) the topics, once
//!  subscription  group membership as values + batches of borrowed records  ──► pipeline
//!  batch         unsafe within: librdkafka's batch consume behind a safe face
//!  consumer      unsafe within: librdkafka's consumer, error codes as integers ◄── subscription, look, startup
//!  admin         makes topics, reads their limits
//!  outbox        verdicts and dead letters out, delivery reports back      ◄── pipeline
//!  native        unsafe within: librdkafka's batch produce behind a safe face ◄── outbox
//!  lines         what librdkafka tells in lines of its log only
//!  look          single records, without a place in any group
//!  message       librdkafka's message as plain memory: error codes are integers
//!  position      where a partition goes on whose log does not have what comes next
//!  progress      what a member has committed, as its watcher reads it
//!  failure       a call that failed, and whether to repeat it
//!  client        what every client shares: properties, log lines, the last error
//!  oauth         tokens for SASL/OAUTHBEARER, kept fresh
//!  statistics    what a client says of itself: lag, and the metrics of telemetry::clients
//!  embedded      librdkafka's mock cluster as a development broker
//! ```

mod admin;
pub mod batch;
pub mod client;
pub mod consumer;
pub mod embedded;
pub mod failure;
mod lines;
pub mod look;
mod message;
mod native;
pub mod oauth;
pub mod outbox;
pub mod position;
pub mod progress;
pub mod startup;
pub mod statistics;
pub mod subscription;
