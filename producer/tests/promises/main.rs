//! What the producer promises, checked against an embedded broker:
//! `delivery` every record is accounted for · `load` rate and event times · `settings` flags, environment, exit codes.
#![allow(clippy::unwrap_used, missing_docs)]

mod delivery;
mod load;
mod settings;
mod support;
