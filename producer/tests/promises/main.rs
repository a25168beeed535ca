//! What the producer promises, checked against an embedded broker:
//! `delivery` every record is accounted for · `load` rate and event times · `settings` flags, environment,
//! exit codes · `labels` labels and event time · `archive` rows as files · `scenario`
//! incidents on demand.
#![allow(clippy::unwrap_used, missing_docs)]

mod archive;
mod delivery;
mod labels;
mod load;
mod scenario;
mod settings;
mod support;
