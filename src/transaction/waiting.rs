//! Waiting for the broker: not ready while output stands still, and no longer than a shutdown allows.

use std::time::{Duration, Instant};

use super::committer::{Committer, STALL};
use super::{GIVE_UP, Interruption, LOST};
use crate::kafka::failure::Failure;
use crate::log_events;

impl Committer {
    /// Calls until it succeeds, fails for good or shutdown does not wait any longer.
    pub(super) fn repeat(
        &mut self,
        stall: &str,
        mut call: impl FnMut(&mut Committer) -> Result<(), Failure>,
    ) -> Result<(), Interruption> {
        let began = Instant::now();
        loop {
            match call(self) {
                Ok(()) => {
                    self.flows_again();
                    return Ok(());
                }
                Err(error) if error.transient => {
                    // First, since the check would do the same without the call's own reason.
                    if began.elapsed() > GIVE_UP {
                        return Err(Interruption::RollBack(format!("{stall}: {error}")));
                    }
                    self.check_timeout(began, stall)?;
                    // A call that fails at once must not spin.
                    self.outbox().serve(Duration::from_millis(20));
                }
                Err(error) => return Err(self.judge(&error, stall)),
            }
        }
    }

    /// Not ready while output stands still since `began`; an error when that, or a drain, took too long.
    pub(super) fn check_timeout(&mut self, began: Instant, stall: &str) -> Result<(), Interruption> {
        self.serve();
        if self.shutdown.is_aborted() {
            return Err(Interruption::Aborted);
        }
        if self.shutdown.is_requested() {
            let drain_began = *self.drain_began.get_or_insert_with(Instant::now);
            if drain_began.elapsed() > self.settings.drain_timeout {
                return Err(Interruption::Aborted);
            }
        }
        if self.health.has_lost_brokers() {
            return Err(Interruption::RollBack(LOST.into()));
        }
        // A producer that gets nowhere while brokers can be reached: the work is done again by another one.
        if began.elapsed() > GIVE_UP && !self.health.is_down() {
            return Err(Interruption::RollBack(format!("{stall}: {}", self.health.last_error())));
        }
        if !self.stalled && began.elapsed() > STALL {
            self.stall(stall, &self.health.last_error());
        }
        Ok(())
    }

    /// At least once: as above, where no batch was settled for too long.
    pub fn check_unsettled(&mut self) -> Result<(), Interruption> {
        match self.unsettled_since.filter(|since| since.elapsed() > STALL) {
            Some(since) => self.check_timeout(since, "verdicts cannot be delivered"),
            None => Ok(()),
        }
    }

    pub(super) fn stall(&mut self, stall: &str, reason: &str) {
        if !std::mem::replace(&mut self.stalled, true) {
            log_events::pipeline::OutputStalled { thread: &self.settings.name, reason, stall }.log();
            self.readiness.hold(&self.output_name(), format!("{stall}: {reason}"));
        }
    }

    pub(super) fn flows_again(&mut self) {
        if std::mem::take(&mut self.stalled) {
            log_events::pipeline::OutputFlows { thread: &self.settings.name }.log();
            self.readiness.clear(&self.output_name());
        }
    }

    /// Under which readiness knows this thread's output; joining the group is another reason of the same thread.
    fn output_name(&self) -> String {
        format!("{} output", self.settings.name)
    }
}
