//! The pipeline: what one scoring thread does, in a straight line.
//!
//! ```text
//!  Batch<'_> ─► admit ─► decode ─► Rows ─► score ─► f32… ─► decide ─► encode ─► bytes ─► commit ─► broker
//!   (kafka)               (+ json)          (model)                                        │
//!      ▲                └─ Rejection ──────────────────────► dead letter ─────────┤
//!      └───────────────────────── rewind on Interruption::RollBack ◄──────────────┘
//! ```
//!
//! | module | takes | gives |
//! |---|---|---|
//! | [`decode`] ([`json`]) | a record's bytes | [`decode::Rows`] or a `Rejection` |
//! | [`engine`] | a batch of payloads | an outcome each; owns the reused buffers, knows no Kafka |
//! | [`decide`] | a score | a `Decision` (pure) |
//! | [`encode`] | a scored row | a verdict's bytes |
//! | [`produce`] | records and outcomes | messages in input order |
//! | [`shadow`] | the batch's rows | a challenger's scores, which no verdict sees |
//! | [`compare`] | both models' scores | metrics, and messages where asked for |
//!
//! A thread owns everything it touches: no channel, no lock and no shared buffer between stages (exactly once, one
//! message a commit passes to its commit thread). A bad record is a value (it becomes a dead letter); an
//! [`crate::transaction::Interruption`] concerns the whole batch. What a thread does between batches is in [`crate::worker`].

pub mod compare;
pub mod decide;
pub mod decode;
pub mod encode;
pub mod engine;
pub mod json;
pub mod produce;
pub mod shadow;
