//! One partition of the verdicts' topic: the cut that takes rows, and at most one that is closed and waits to be sent.
//!
//! ```text
//!  verdict + features ─► OpenCut { a file per hour of event time } ─[due]─► SealedCut ─► outgoing.rs
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use parquet::errors::ParquetError;

use super::columns::{FileUnderWay, GROUP_ROWS, Layout, Place};
use super::cut::{CutPolicy, Moment, Span, hour};
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
    open: OpenCut,
    sealed: Option<SealedCut>,
}

/// A cut that takes rows.
#[derive(Default)]
struct OpenCut {
    span: Option<Span>,
    opened: Option<Instant>,
    /// Where it ends, if that was written down by whoever began it.
    until: Option<i64>,
    /// By hour of event time.
    files: BTreeMap<i64, FileUnderWay>,
    tally: Tally,
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
    /// What it holds; files and bytes are not counted yet.
    pub tally: Tally,
}

impl Partition {
    /// A partition that was just assigned: read from `next`, its first cut up to `until` if that is planned.
    pub fn new(number: i32, next: i64, until: Option<i64>, target: i64) -> Partition {
        let open = OpenCut { until, ..OpenCut::default() };
        Partition { number, next, end: None, target, open, sealed: None }
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
        if self.open.until.is_some_and(|until| record.offset >= until) {
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
            Ok(verdict) => {
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
            Err(refused) => open.tally.skipped[refused.reason as usize] += 1,
        }
        self.seal_if_due(around.policy, None);
        Ok(())
    }

    /// Closes the cut if it is due; `moment` where the clock is to be asked, which is when no record is at hand.
    pub fn seal_if_due(&mut self, policy: &CutPolicy, moment: Option<(i64, bool)>) {
        let Some(span) = &self.open.span else { return };
        let is_due = match self.open.until {
            Some(until) => span.next >= until || self.end.is_some_and(|end| end >= until),
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
        if self.open.until.is_none() && self.sealed.is_none() {
            self.seal();
        }
    }

    fn seal(&mut self) {
        let open = std::mem::take(&mut self.open);
        let Some(span) = open.span else { return };
        self.sealed = Some(SealedCut {
            partition: self.number,
            first: span.first,
            next: open.until.unwrap_or(span.next),
            is_planned: open.until.is_some(),
            files: open.files,
            tally: open.tally,
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
        self.sealed.is_none() && (self.open.span.is_none() || self.open.until.is_some())
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
