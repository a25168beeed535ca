//! One partition of the verdicts' topic: the cut that takes rows, and at most one that is closed and waits to be sent.
//!
//! ```text
//!  verdict + features ─► OpenCut { a file per hour of event time } ─[due]─► SealedCut ─► outgoing.rs
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use parquet::errors::ParquetError;

use super::columns::{FileUnderWay, GROUP_ROWS, Layout, Place};
use super::cut::{self, CutPolicy, Moment, Plan, Span, hour};
use super::inputs::Missing;
use super::telemetry::Tally;
use super::verdicts::{Reason, VerdictRecord};

/// What a partition needs of its surroundings to take a row.
pub struct Surroundings<'a> {
    /// Columns of the files.
    pub layout: &'a Layout,
    /// When cuts are closed.
    pub policy: &'a CutPolicy,
    /// Where files are gathered.
    pub spool: &'a Path,
}

/// A partition that this member owns.
pub struct Partition {
    number: i32,
    /// Offset below which nothing is read (again).
    pub next: i64,
    /// The end of the partition, where it was reached and nothing has come since.
    pub end: Option<i64>,
    /// With this end it is finished, if only what was there at the start is to be archived.
    pub target: i64,
    /// The group's offset.
    pub committed: i64,
    open: OpenCut,
    sealed: Option<SealedCut>,
}

/// A cut that takes rows.
#[derive(Default)]
struct OpenCut {
    span: Option<Span>,
    opened: Option<Instant>,
    /// Where it ends, if that was written down by whoever began it, and what is finished of it.
    planned: Option<(Plan, Finished)>,
    /// By hour of event time.
    files: BTreeMap<i64, FileUnderWay>,
    tally: Tally,
}

/// Files of a planned cut that are in the archive already: the rest of it is made without them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished {
    /// Folders of their hours.
    pub folders: BTreeSet<String>,
    /// Their rows.
    pub rows: u64,
}

/// A cut that takes no more rows.
pub struct SealedCut {
    /// The partition.
    pub partition: i32,
    /// Offset of its first verdict.
    pub first: i64,
    /// Offset behind its last.
    pub next: i64,
    /// It is written down already where it ends.
    pub is_planned: bool,
    /// By hour of event time.
    pub files: BTreeMap<i64, FileUnderWay>,
    /// Rows of its files, those that were finished before included.
    pub rows: u64,
    /// What it holds; files and bytes are not counted yet.
    pub tally: Tally,
}

impl OpenCut {
    fn until(&self) -> Option<i64> {
        self.planned.as_ref().map(|(plan, _)| plan.until)
    }

    /// Whether the file of this hour is in the archive already.
    fn is_finished(&self, hour: i64) -> bool {
        let finished = self.planned.as_ref().map(|(_, finished)| finished);
        finished.is_some_and(|finished| !finished.folders.is_empty() && finished.folders.contains(&cut::folder(hour)))
    }
}

impl Partition {
    /// A partition that was just assigned: read from `next`, its first cut as it is planned, if it is.
    pub fn new(number: i32, next: i64, planned: Option<(Plan, Finished)>, target: i64) -> Partition {
        let open = OpenCut { planned, ..OpenCut::default() };
        Partition { number, next, end: None, target, committed: next, open, sealed: None }
    }

    /// The end of the partition, where everything before it is archived but the group's offset is below: what lies between
    /// holds no verdicts (transaction markers).
    pub fn idle_end(&self) -> Option<i64> {
        let is_idle = self.sealed.is_none() && self.open.span.is_none() && self.open.planned.is_none();
        self.end.filter(|end| is_idle && *end > self.committed)
    }

    /// Adds the next verdict. `features` is an answer of the inputs; without meaning for what is no verdict.
    ///
    /// # Errors
    /// The spool takes no more.
    pub fn add(
        &mut self,
        record: &VerdictRecord,
        features: Result<&[f32], Missing>,
        around: &Surroundings<'_>,
    ) -> Result<(), ParquetError> {
        if self.open.until().is_some_and(|until| record.offset >= until) {
            // The planned cut's last records are gone from the topic: it ends with what there was.
            self.seal();
        }
        let open = &mut self.open;
        match &mut open.span {
            Some(span) => span.add(record.offset, record.timestamp),
            None => {
                open.span = Some(Span::of(record.offset, record.timestamp));
                open.opened = Some(Instant::now());
            }
        }
        match &record.content {
            Ok(verdict) if self.open.is_finished(hour(verdict.event_time)) => {}
            Ok(verdict) => {
                let open = &mut self.open;
                let new = || FileUnderWay::new(around.layout, record.offset);
                let file = open.files.entry(hour(verdict.event_time)).or_insert_with(new);
                match features {
                    Ok(_) => open.tally.found += 1,
                    Err(missing) => open.tally.missing[missing as usize] += 1,
                }
                file.add(Place { partition: self.number, offset: record.offset }, verdict, features.ok());
                if file.gathered() >= GROUP_ROWS {
                    file.flush(around.spool)?;
                }
            }
            Err(refused) => self.open.tally.skipped[refused.reason as usize] += 1,
        }
        self.seal_if_due(around.policy, None);
        Ok(())
    }

    /// Closes the cut if it is due; `moment` where the clock is to be asked, which is when no record is at hand.
    pub fn seal_if_due(&mut self, policy: &CutPolicy, moment: Option<(i64, bool)>) {
        let Some(span) = &self.open.span else { return };
        let is_due = match self.open.until() {
            // The end tells only when no verdict before it waits for its input.
            Some(until) => {
                let nothing_waits = moment.is_some_and(|(_, nothing_waits)| nothing_waits);
                span.next >= until || (nothing_waits && self.end.is_some_and(|end| end >= until))
            }
            None => {
                let open_for = self.open.opened.map(|opened| opened.elapsed()).unwrap_or_default();
                let moment =
                    moment.map(|(now, caught_up)| Moment { now, open_for, caught_up: caught_up && self.end.is_some() });
                policy.is_due(span, self.open.files.len(), moment)
            }
        };
        if is_due && self.sealed.is_none() {
            self.seal();
        }
    }

    /// Closes the cut because nothing more will be read. A planned one that is not complete is left to who comes next.
    pub fn seal_for_the_end(&mut self) {
        if self.open.planned.is_none() && self.sealed.is_none() {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        let Some(span) = open.span else { return };
        let until = open.until();
        let gathered: u64 = open.files.values().map(|file| file.rows).sum();
        let (planned, finished) = match &open.planned {
            Some((plan, finished)) => (plan.rows, finished.rows),
            None => (None, 0),
        };
        let rows = gathered + finished;
        let lost = planned.map_or(0, |planned| planned.saturating_sub(rows));
        self.sealed = Some(SealedCut {
            partition: self.number,
            first: span.first,
            next: until.unwrap_or(span.next),
            is_planned: until.is_some(),
            files: open.files,
            rows,
            tally: Tally { lost, ..open.tally },
        });
    }

    /// The closed cut, if there is one.
    pub fn take_sealed(&mut self) -> Option<SealedCut> {
        self.sealed.take()
    }

    /// A closed cut waits.
    pub fn has_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Nothing was read that is in no cut that was taken.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_none() && (self.open.span.is_none() || self.open.planned.is_some())
    }

    /// Timestamp of the earliest record in the open cut, epoch milliseconds.
    pub fn earliest(&self) -> Option<i64> {
        self.open.span.map(|span| span.earliest())
    }

    /// Files under way.
    pub fn files(&mut self) -> impl Iterator<Item = &mut FileUnderWay> {
        let sealed = self.sealed.iter_mut().flat_map(|cut| cut.files.values_mut());
        self.open.files.values_mut().chain(sealed)
    }
}

// The tally is indexed by these.
const _: () = {
    let mut index = 0;
    while index < Missing::ALL.len() {
        assert!(Missing::ALL[index] as usize == index);
        index += 1;
    }
    let mut index = 0;
    while index < Reason::ALL.len() {
        assert!(Reason::ALL[index] as usize == index);
        index += 1;
    }
};

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
