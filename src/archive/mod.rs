//! The archive of verdicts: a consumer group of its own writes verdicts, joined with the features they were made from,
//! to Parquet files in a folder or a bucket.
//!
//! ```text
//!  topic verdicts ─► verdicts: parsed ─┐
//!                                      ├─► join ─► partition: open cut, a file per hour ─► columns ─► the spool
//!  topic transactions ─► inputs ───────┘                      │ due (cut)
//!                                                             ▼
//!                          committed offset ◄─ outgoing: plan ► upload (store) ► commit
//! ```
//!
//! Files: `date=YYYY-MM-DD/hour=HH/{topic}-{partition:05}-{first verdict offset:020}.parquet`, by hour of event time,
//! UTC.
//!
//! **Each verdict exactly once.** A cut is a range [first, next) of a partition's verdict offsets.
//!
//! 1. Before the first file of a cut is put, the offset `first` is committed with the note "until next" beside it. The
//!    broker refuses this from a member that was put out of the group.
//! 2. All files of the cut are put; each replaces one of its name.
//! 3. The offset `next` is committed, without a note.
//!
//! Who takes the partition over finds either no note, and begins a cut of its own at the committed offset, from which
//! no file exists; or a note, and then makes that very cut again: the same offsets, so the same rows in the same
//! hours, so the same names. However often a cut is made, and by however many at a time, its files hold the same
//! verdicts; cuts do not overlap and leave nothing out. Where a partition is revoked, the open cut is thrown away and
//! nothing waits.
//!
//! | file | what |
//! |---|---|
//! | `cut.rs` (pure) | when a cut is due, its plan's text, names of files |
//! | `join.rs` (pure) | whether the input that a verdict names is here, gone, or yet to be read |
//! | `verdicts.rs`, `inputs.rs` | the two topics |
//! | `partition.rs`, `columns.rs` | rows on their way into files |
//! | `outgoing.rs`, `store.rs` | files on their way out |
//! | `archiver.rs` | the loop, and the group's changes |
//! | `erase.rs` | rows that are taken out of files again |
//! | `telemetry.rs` | metrics |

pub mod archiver;
pub mod columns;
pub mod cut;
pub mod erase;
pub mod inputs;
pub mod join;
pub mod outgoing;
pub mod partition;
pub mod store;
pub mod telemetry;
pub mod verdicts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use self::cut::CutPolicy;
use crate::kafka::failure::Failure;
use crate::pipeline::decode::Feature;

/// Everything an archive needs, validated.
#[derive(Clone)]
pub struct ArchiveSettings {
    /// `bootstrap.servers` and the user's librdkafka properties.
    pub kafka: ClientConfig,
    /// How clients get their tokens, where they log in by such.
    pub tokens: Option<crate::kafka::oauth::Method>,
    /// Consumer group.
    pub group: String,
    /// Topic of the verdicts.
    pub verdicts: String,
    /// Topic of the inputs.
    pub inputs: String,
    /// Features of the inputs, in the order of the columns.
    pub features: Vec<Feature>,
    /// Largest input that is parsed, bytes.
    pub max_message_bytes: usize,
    /// When cuts are closed.
    pub policy: CutPolicy,
    /// Folder on a local disk where files are gathered.
    pub spool: PathBuf,
    /// How long a stop may wait for the last files.
    pub drain_timeout: Duration,
    /// Stop when everything that was there at the start is archived.
    pub until_caught_up: bool,
}

/// Why an archive cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The local disk.
    #[error("--spool {}: {reason}: files are gathered there; it needs room for two cuts per partition", folder.display())]
    Spool {
        /// The folder.
        folder: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Rights are missing.
    #[error("{0}: grant the user of sasl.username READ on both topics and on the group of --archive-group")]
    Forbidden(String),
    /// The topic is another one than that which was archived before.
    #[error(
        "partition {partition} ends at {end}, but was archived up to {committed} before: the topic was made anew. \
         Its files would replace the old ones: give it a --to and an --archive-group of its own"
    )]
    Anew {
        /// The partition.
        partition: i32,
        /// The committed offset.
        committed: i64,
        /// Where the partition ends now.
        end: i64,
    },
    /// A batch of verdicts is not what its checksum says.
    #[error("partition {partition}: {reason}: nothing behind it is archived before the broker's copy is whole again")]
    Damaged {
        /// The partition.
        partition: i32,
        /// librdkafka's words.
        reason: String,
    },
    /// librdkafka gave up.
    #[error("Kafka client: {0}")]
    Client(#[from] KafkaError),
    /// A call to a broker failed.
    #[error("Kafka: {0}")]
    Call(#[from] Failure),
}

impl ArchiveError {
    fn spool(folder: &Path, reason: &impl ToString) -> ArchiveError {
        ArchiveError::Spool { folder: folder.to_owned(), reason: reason.to_string() }
    }
}
