//! Closed cuts on their way: written down, uploaded, committed.
//!
//! ```text
//!  sealed cuts ─► Plan: commit (first, "until next") ─► Upload: all files ─► Commit: (next, "") ─► done
//!                    └ refused: again, until the group says   └ refused: again, with pauses that grow
//! ```
//!
//! Nothing is in the store before the plan is committed, and the broker takes a commit only from a member of the
//! group. So whoever uploads, a member that was put out included, uploads rows of a plan that everybody after it keeps
//! to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::ArchiveError;
use super::cut;
use super::partition::SealedCut;
use super::store::{Store, Upload};
use super::telemetry::{self, Tally};
use crate::kafka::failure::Failure;
use crate::kafka::position::Next;
use crate::kafka::subscription::{Noted, Subscription};
use crate::log_events::archive as events;
use crate::telemetry::readiness::Readiness;

/// Pause after a commit that was refused: the group is being rearranged, or a broker is away.
const COMMIT_PAUSE: Duration = Duration::from_millis(300);

/// Pauses after the destination did not take a file.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What the readiness calls the destination.
const DESTINATION: &str = "destination";

/// A cut whose files are finished.
struct Cut {
    partition: i32,
    first: i64,
    next: i64,
    is_planned: bool,
    rows: u64,
    files: Vec<Arc<Upload>>,
    tally: Tally,
}

enum Stage {
    Plan,
    Upload,
    Uploading(JoinHandle<Result<(), String>>),
    Commit,
}

/// Cuts that are sent together.
pub struct Outgoing {
    cuts: Vec<Cut>,
    stage: Stage,
    /// Nothing is tried before this moment.
    pause_until: Option<Instant>,
    /// The next pause after the destination refuses.
    pause: Duration,
    /// Since when the destination refuses.
    pub failing_since: Option<Instant>,
    refusals: u32,
}

impl Outgoing {
    /// Finishes the files of these cuts. `topic` is that of the verdicts.
    ///
    /// # Errors
    /// The spool takes no more.
    pub fn new(sealed: Vec<SealedCut>, topic: &str, spool: &Path) -> Result<Outgoing, ArchiveError> {
        let mut cuts = Vec::with_capacity(sealed.len());
        for cut in sealed {
            let SealedCut { partition, first, next, is_planned, files: hours, rows, mut tally } = cut;
            let mut files = Vec::with_capacity(hours.len());
            for (hour, file) in hours {
                let path = cut::path(hour, topic, partition, file.first_offset);
                let spooled = file.finish(spool).map_err(|error| ArchiveError::spool(spool, &error))?;
                tally.files += 1;
                tally.bytes += spooled.size;
                files.push(Arc::new(Upload { path, spooled, done: AtomicBool::new(false) }));
            }
            cuts.push(Cut { partition, first, next, is_planned, rows, files, tally });
        }
        Ok(Outgoing {
            cuts,
            stage: Stage::Plan,
            pause_until: None,
            pause: FIRST_PAUSE,
            failing_since: None,
            refusals: 0,
        })
    }

    /// The partitions of these cuts, and the offset behind each: when all is done, the group's.
    pub fn ends(&self) -> impl Iterator<Item = (i32, i64)> {
        self.cuts.iter().map(|cut| (cut.partition, cut.next))
    }

    /// These partitions are another member's now: their cuts are not ours to commit any more. Tells whether any are
    /// left.
    ///
    /// An upload that is under way is not called off. Its rows are those that the next owner will put there too.
    pub fn forget(&mut self, partitions: &[i32], readiness: &Readiness) -> bool {
        self.cuts.retain(|cut| !partitions.contains(&cut.partition));
        if self.cuts.is_empty() {
            // Nothing of ours is to be put: what the destination thinks of it matters to others.
            readiness.clear(DESTINATION);
        }
        !self.cuts.is_empty()
    }

    /// Goes on as far as it can without waiting; true when all is done.
    pub fn advance(
        &mut self,
        subscription: &Subscription,
        store: &Store,
        runtime: &Handle,
        readiness: &Readiness,
    ) -> Result<bool, ArchiveError> {
        if self.pause_until.is_some_and(|until| Instant::now() < until) {
            return Ok(false);
        }
        self.pause_until = None;
        loop {
            match &mut self.stage {
                Stage::Plan => {
                    // A cut without files leaves nothing behind that could be left half done.
                    let new = self.cuts.iter().filter(|cut| !cut.is_planned && cut.tally.files > 0);
                    let plans: Vec<Noted> = new
                        .map(|cut| Noted {
                            partition: cut.partition,
                            next: Next::at(cut.first),
                            note: cut::plan(cut.next, cut.rows),
                        })
                        .collect();
                    if !self.commit(subscription, &plans)? {
                        return Ok(false);
                    }
                    self.stage = Stage::Upload;
                }
                Stage::Upload => {
                    // Of those cuts alone that are still ours: the plan of one that was given up may never have been taken.
                    let uploads: Vec<Arc<Upload>> = self.cuts.iter().flat_map(|cut| cut.files.clone()).collect();
                    let store = store.clone();
                    // Spool files are read by blocking calls, which must not hold up those who ask over HTTP.
                    let handle = runtime.clone();
                    let upload = move || handle.block_on(store.put_all(&uploads));
                    self.stage = Stage::Uploading(runtime.spawn_blocking(upload));
                }
                Stage::Uploading(task) => {
                    if !task.is_finished() {
                        return Ok(false);
                    }
                    let outcome = runtime.block_on(task).unwrap_or_else(|panic| Err(panic.to_string()));
                    if let Err(reason) = outcome {
                        self.refused(&reason, readiness);
                        return Ok(false);
                    }
                    if self.failing_since.take().is_some() {
                        events::DestinationTakes {}.log();
                    }
                    readiness.clear(DESTINATION);
                    self.stage = Stage::Commit;
                }
                Stage::Commit => {
                    let next: Vec<Noted> = self
                        .cuts
                        .iter()
                        .map(|cut| Noted { partition: cut.partition, next: Next::at(cut.next), note: String::new() })
                        .collect();
                    if !self.commit(subscription, &next)? {
                        return Ok(false);
                    }
                    self.cuts.iter().for_each(Cut::committed);
                    return Ok(true);
                }
            }
        }
    }

    fn refused(&mut self, reason: &str, readiness: &Readiness) {
        telemetry::write_failed();
        let pause = self.pause;
        events::DestinationRefuses { reason, pause }.log();
        readiness.hold(DESTINATION, reason);
        self.failing_since.get_or_insert_with(Instant::now);
        self.pause_until = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.stage = Stage::Upload;
    }

    /// Commits; false where it has to be tried again, if by then the partitions are still ours.
    fn commit(&mut self, subscription: &Subscription, next: &[Noted]) -> Result<bool, ArchiveError> {
        match subscription.commit_with_notes(next) {
            Ok(()) => {
                self.refusals = 0;
                Ok(true)
            }
            Err(Failure {
                code: RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::TopicAuthorizationFailed,
                reason,
                ..
            }) => Err(ArchiveError::Forbidden(reason)),
            Err(error) => {
                self.refusals += 1;
                if self.refusals == 1 {
                    events::CommitRefused { error: &error }.log();
                }
                self.pause_until = Some(Instant::now() + COMMIT_PAUSE);
                Ok(false)
            }
        }
    }
}

impl Cut {
    fn committed(&self) {
        self.tally.publish();
        let Cut { partition, first, next, ref tally, .. } = *self;
        let missing: u64 = tally.missing.iter().sum();
        let skipped: u64 = tally.skipped.iter().sum();
        let (rows, files, bytes) = (tally.found + missing, tally.files, tally.bytes);
        events::Cut { partition, first, next, rows, files, bytes, missing, skipped }.log();
        if tally.lost > 0 {
            events::VerdictsDeleted { partition, verdicts: tally.lost }.log();
        }
        if missing > 0 {
            let [gone, elsewhere, undecodable, another] = tally.missing;
            events::InputsMissing { partition, first, next, gone, elsewhere, undecodable, another }.log();
        }
    }
}
