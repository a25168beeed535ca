//! What was counted of uncommitted work: published when it is committed, forgotten when it is thrown away.
//!
//! ```text
//!  open ─ submitted ─► committing ─ committed ─► metrics, spans, drift
//!    └───────────────────┴─ rolled back ─► nothing
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::telemetry::metrics::{Instruments, Measured, Stage, Tally};

/// The counts of one thread.
#[derive(Debug, Default)]
pub struct Counts {
    /// Of work since the last commit began.
    pub open: Tally,
    /// Of the work that is being committed.
    committing: Tally,
    /// How long stages took, whatever became of the work.
    pub measured: Measured,
}

impl Counts {
    /// A commit of everything so far has begun.
    pub fn submitted(&mut self) {
        std::mem::swap(&mut self.open, &mut self.committing);
    }

    /// That commit is done.
    pub fn committed(&mut self, instruments: &Instruments) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        instruments.committed(&mut self.committing, now);
        instruments.measured(&mut self.measured);
    }

    /// Everything is committed.
    pub fn all_committed(&mut self, instruments: &Instruments) {
        self.committed(instruments);
        self.submitted();
        self.committed(instruments);
    }

    /// The end of a commit took this long.
    pub fn commit_took(&mut self, time: Duration) {
        self.measured.stage(Stage::Commit, time);
    }

    /// The work is thrown away.
    pub fn rolled_back(&mut self, instruments: &Instruments) {
        instruments.measured(&mut self.measured);
        self.committing.clear();
        self.open.clear();
    }
}
