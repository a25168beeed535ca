//! The worker: scoring threads in one process, from start-up to drained.
//!
//! | module | what is in it |
//! |---|---|
//! | [`service`] | start-up order, the threads, how they end |
//! | [`thread`] | one thread's loop: does what the protocol asks for |
//! | `scoring` | a batch through the stages |
//! | [`protocol`] | what a thread does next, without any clock or client: assigned, revoked, commit, roll back |
//! | [`positions`] | how far partitions were read; which records of a batch are new |
//! | `partitions` | what the group and the logs are asked, and told |
//! | `watch` | whether threads that have records to score commit any |
//! | `counts` | what was counted of work that is not committed yet |

mod counts;
mod partitions;
pub mod positions;
pub mod protocol;
mod scoring;
pub mod service;
pub mod thread;
mod watch;

pub use self::service::{StartError, Worker, WorkerSettings, open_exchange};
