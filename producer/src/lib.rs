//! Test traffic for fraud-scorer: card transactions at a chosen rate, every delivery accounted for.
//!
//! ```text
//! Arguments ─► Job ─► run:  Schedule says how many are due ─► Source writes each ─► Sender ─► Kafka
//!                              ▲ start + i / rate                                     │ delivery reports
//!                              └ never slowed by late deliveries                      ▼
//!                                                      Progress while it runs, Report at the end
//! ```
//!
//! Beside its JSON, a row carries what the producer alone knows, its label: `labels` sends it to a topic of its own once
//! event time has passed the delay, and [`archive`] writes row and label to files by day.
//!
//! The load is open-loop: record i is due at start + i / rate whatever became of the records before it, and its
//! event time is that intended moment, or follows it (`event_time`). A slow broker or worker therefore shows as latency
//! instead of quietly lowering the load (coordinated omission).
//!
//! Modules, in the order data passes them: [`arguments`] (flags → [`Job`]), [`source`] (profile, CSV, JSON lines),
//! [`pacing`] (when), `event_time` (what happened when), [`scenario`] (what goes wrong on purpose), `delivery` (Kafka), `labels`, [`archive`], [`job`] (the loop),
//! `display` (progress for people). The binary calls [`execute`]; a program that embeds the producer builds a [`Job`]
//! and calls [`run`].

pub mod archive;
pub mod arguments;
mod delivery;
mod display;
mod event_time;
mod execute;
pub mod job;
mod labels;
pub mod pacing;
pub mod scenario;
pub mod source;

pub use arguments::Arguments;
pub use execute::execute;
pub use job::{Job, LabelReport, Progress, Report, run};
