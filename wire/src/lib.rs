//! What travels on the topics, and the statistics that travel with a model.
//!
//! ```text
//!  transaction  ──► topic transactions      ──► worker ──► verdict      ──► topic verdicts
//!  (object or split JSON)                              └─► dead letter  ──► topic transactions.dlq
//!  label        ──► topic labels            (what a transaction turned out to be, once that is known)
//!  reference    the histograms and the per-class profile in a bundle's reference.json
//! ```
//!
//! Worker, producer, demo and tests share these types, so a contract is written down once. The worker's hot
//! path writes verdicts by hand into a reused buffer; its tests read them back through [`verdict::Verdict`].

pub mod dead_letter;
pub mod label;
pub mod reference;
pub mod trace_context;
pub mod transaction;
pub mod verdict;
