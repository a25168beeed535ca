//! What the worker tells about itself: metrics, readiness, spans. Written by the pipeline, read by the HTTP edge.

pub mod amounts;
pub mod catalogue;
pub mod clients;
pub mod comparisons;
pub mod drift;
pub mod histogram;
pub mod metrics;
pub mod models;
pub mod readiness;
pub mod requests;
pub mod spans;
pub mod suspicious;
