//! Test traffic for fraud-scorer: card transactions at a chosen rate, every delivery accounted for.
//!
//! ```text
//! Arguments ─► Job ─► run:  Schedule says how many are due ─► Source writes each ─► Sender ─► Kafka
//!                              ▲ start + i / rate                                     │ delivery reports
//!                              └ never slowed by late deliveries                      ▼
//!                                                      Progress while it runs, Report at the end
//! ```
//!
//! The load is open-loop: record i is due at start + i / rate whatever became of the records before it, and its
//! event time is that intended moment. A slow broker or worker therefore shows as latency instead of quietly
//! lowering the load (coordinated omission).
//!
//! Modules, in the order data passes them: [`arguments`] (flags → [`Job`]), [`source`] (profile, CSV, JSON lines),
//! [`pacing`] (when), `delivery` (Kafka), [`job`] (the loop), `display` (progress for people). The binary calls
//! [`execute`]; a program that embeds the producer builds a [`Job`] and calls [`run`].

pub mod arguments;
mod delivery;
mod display;
mod execute;
pub mod job;
pub mod pacing;
pub mod source;

pub use arguments::Arguments;
pub use execute::execute;
pub use job::{Job, Progress, Report, run};
