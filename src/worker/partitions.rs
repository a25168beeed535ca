//! What a scoring thread asks the group and the logs, and tells them: where partitions begin, where they go back to, which are
//! left alone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fraud_wire::verdict::Source;
use rdkafka::ClientConfig;

use super::protocol::Event;
use super::thread::ScoringThread;
use crate::kafka::failure::Failure;
use crate::kafka::look::Look;
use crate::kafka::position::{self, Gone, Next, Offsets, Reset, Restart};
use crate::kafka::subscription::{Change, Noted, Subscription};
use crate::log_events;
use crate::transaction::pause::Pause;
use crate::transaction::{Interruption, severity};

/// Wait before the second roll-back in a row; doubled each time up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// How long the questions of going back to the last commit may take.
const REWIND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the questions about partitions that were just assigned may take, each, before other work goes on.
const INSPECTION_TIMEOUT: Duration = Duration::from_millis(500);

/// How soon they are asked again: offsets that are just being committed are not shown.
const INSPECTION_INTERVAL: Duration = Duration::from_millis(500);
/// How soon librdkafka is asked again to begin with a partition that it does not read yet.
const BEGIN_INTERVAL: Duration = Duration::from_millis(10);

impl ScoringThread {
    /// Answers one change of membership. The group waits for us: whatever fails, the partitions are released.
    pub(super) fn answer(&mut self, change: Change) -> Result<(), Interruption> {
        self.instruments.rebalance();
        let thread = &self.settings.name;
        match change {
            Change::Assigned(partitions) => {
                log_events::kafka::PartitionsAssigned { thread, partitions: &partitions }.log();
                self.handle(Event::Assigned(partitions))?;
                if self.protocol.waiting().next().is_none() {
                    self.readiness.clear(&self.settings.name);
                    return Ok(());
                }
                self.inspect()
            }
            Change::Revoked(partitions) => {
                let answered = self.handle(Event::Revoked(partitions.clone()));
                let (thread, committed) = (&self.settings.name, answered.is_ok());
                log_events::kafka::PartitionsRevoked { thread, partitions: &partitions, committed }.log();
                answered
            }
            Change::Lost(partitions) => {
                log_events::kafka::PartitionsLost { thread, partitions: &partitions }.log();
                // Until it is a member again it works on nothing.
                self.readiness.hold(thread, "its partitions were lost; joining the consumer group again");
                self.reason = "partitions were lost: this member was silent for too long".into();
                self.handle(Event::Lost(partitions))
            }
        }
    }

    /// Takes partitions, which deliver nothing before they have begun.
    pub(super) fn accept(&mut self, partitions: &[i32]) -> Result<(), Interruption> {
        let accepted = self.subscription.accept(partitions);
        accepted.map_err(|error| Interruption::RollBack(format!("assigning: {error}")))
    }

    pub(super) fn release(&mut self, partitions: &[i32]) -> Result<(), Interruption> {
        partitions.iter().for_each(|partition| self.forget_partition(*partition));
        let released = self.subscription.release(partitions);
        released.map_err(|error| Interruption::RollBack(format!("giving up partitions: {error}")))
    }

    fn forget_partition(&mut self, partition: i32) {
        if self.pauses.remove(&partition).is_some() {
            self.readiness.clear(&self.partition_name(partition));
            self.instruments.paused(&self.settings.input_topic, partition, false);
        }
        // The next owner publishes it.
        self.instruments.lag(&self.settings.input_topic, partition, 0, 0.0);
    }

    /// Throws away the work since the last commit and goes back to it. `None`: the way back could not be made. Where clients
    /// have `lost` their brokers, the way back is another member's.
    pub(super) fn roll_back(&mut self, number: u32, lost: bool) -> Result<Option<Offsets>, Interruption> {
        log_events::pipeline::WorkRedone { thread: &self.settings.name, reason: &self.reason }.log();
        self.instruments.redone();
        if self.committer.await_in_flight(lost) {
            self.counts.committed(&self.instruments);
        }
        self.counts.rolled_back(&self.instruments);
        if number > 1 {
            self.shutdown.wait((FIRST_BACKOFF * 2u32.saturating_pow(number - 2)).min(LONGEST_BACKOFF));
        }
        let begun: Vec<i32> = if lost { Vec::new() } else { self.protocol.positions().begun().collect() };
        match self.committer.start_over().and_then(|()| self.rewind(&begun)) {
            Ok(back) => Ok(Some(back).filter(|_| !lost)),
            // The broker is still not well. Nothing may be read until the way back is made.
            Err(Interruption::RollBack(reason)) => {
                log_events::pipeline::RedoFailed { thread: &self.settings.name, reason: &reason }.log();
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Reads partitions again from the group's offsets; returns where they go on.
    ///
    /// Seeks rather than unassigns and assigns again: stopping a partition's fetcher resets the forward of its queue some
    /// time later, which may be after the next assignment has set it, and then nothing is delivered any more.
    fn rewind(&mut self, partitions: &[i32]) -> Result<Offsets, Interruption> {
        if partitions.is_empty() {
            return Ok(Offsets::new());
        }
        let failed = |error| Interruption::RollBack(format!("going back to the last commit: {error}"));
        let committed = self.subscription.committed(partitions, REWIND_TIMEOUT).map_err(failed)?;
        let committed: BTreeMap<i32, _> =
            committed.iter().map(|noted| (noted.partition, self.subscription.judge(noted))).collect();
        let mut back = self.protocol.positions().back(&committed);
        back.retain(|partition, _| partitions.contains(partition));
        self.subscription.seek(&back, REWIND_TIMEOUT).map_err(failed)?;
        Ok(back)
    }

    /// Leaves a partition alone for a while: what comes of its records cannot be written.
    #[cold]
    pub(super) fn pause(&mut self, partition: i32) -> Result<(), Interruption> {
        let reason = std::mem::take(&mut self.reason);
        let pause = self.pauses.entry(partition).or_insert_with(Pause::of_a_partition);
        let seconds = pause.begin(Instant::now()).as_secs();
        log_events::pipeline::PartitionPaused { partition, seconds, reason: &reason }.log();
        self.readiness.hold(&self.partition_name(partition), &reason);
        self.instruments.paused(&self.settings.input_topic, partition, true);
        self.subscription
            .pause(partition)
            .map_err(|error| Interruption::Fatal(format!("pausing partition {partition}: {error}")))
    }

    /// Tries partitions again that were left alone for long enough.
    pub(super) fn try_again(&mut self) -> Result<(), Interruption> {
        if self.pauses.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let is_due = |(partition, pause): &(&i32, &Pause)| pause.is_over(now) && self.protocol.is_paused(**partition);
        let due: Vec<i32> = self.pauses.iter().filter(is_due).map(|(partition, _)| *partition).collect();
        for partition in due {
            log_events::pipeline::PartitionTriedAgain { partition }.log();
            let failed = |error| Interruption::RollBack(format!("resuming partition {partition}: {error}"));
            self.subscription.resume(partition).map_err(failed)?;
            let back = self.rewind(&[partition])?;
            // Not before it is back: a record that was fetched meanwhile would be taken for the next one.
            self.handle(Event::Resumed(&back))?;
            self.readiness.clear(&self.partition_name(partition));
            self.instruments.paused(&self.settings.input_topic, partition, false);
        }
        Ok(())
    }

    /// Finds out where the partitions that wait begin, by the group's offsets and their logs, and lets them begin. What is
    /// not known yet is asked again, and the other partitions go on meanwhile: a dead member's transaction may hold its
    /// offsets back until it times out.
    pub(super) fn inspect(&mut self) -> Result<(), Interruption> {
        self.leave_topic_that_is_gone()?;
        if self.subscription.topic_id().is_empty() {
            self.subscription.take_topic();
        }
        let what = "finding where partitions begin";
        let waiting: Vec<i32> = self.protocol.waiting().collect();
        let (known, failed) = self.subscription.committed_of_each(&waiting, INSPECTION_TIMEOUT);
        let mut unknown = match failed.map(|failure| severity(&failure, what)) {
            Some(Interruption::RollBack(reason)) => Some(reason),
            Some(other) => return Err(other),
            None => None,
        };
        for (partition, noted) in known {
            match self.find_beginning(partition, noted.as_ref()) {
                Ok(Some((next, commit))) => self.handle(Event::Begun { partition, next, commit })?,
                Ok(None) => {}
                Err(Interruption::RollBack(reason)) => unknown = Some(format!("{what}: {reason}")),
                Err(other) => return Err(other),
            }
        }
        self.inspected_again = Instant::now() + if unknown.is_some() { INSPECTION_INTERVAL } else { BEGIN_INTERVAL };
        if self.protocol.waiting().next().is_none() {
            self.readiness.clear(&self.settings.name);
        } else if let Some(reason) = unknown {
            self.readiness.hold(&self.settings.name, reason);
        }
        Ok(())
    }

    /// Seeks where the group's offset of a partition and its log say that it begins; returns that, and whether the group is
    /// to have it committed. `None`: librdkafka is not so far yet.
    fn find_beginning(&mut self, partition: i32, noted: Option<&Noted>) -> Result<Option<(Next, bool)>, Interruption> {
        let failed = |error: Failure| severity(&error, "asking for the log's start and end");
        let committed = noted.map(|noted| self.subscription.judge(noted));
        let before = committed.map(|committed| committed.next.offset);
        let log = self.ask_log(partition, before, INSPECTION_TIMEOUT).map_err(failed)?;
        let Restart { next, gone } = position::restart(committed, log, self.settings.reset);
        // Left when the topic was made again.
        let is_said = self.left.contains_key(&partition);
        if committed.is_none() && next.offset < log.1 && !self.settings.rescore && !is_said {
            self.refuse_to_rescore(partition, log)?;
        }
        if !self.subscription.begin(partition, next, INSPECTION_TIMEOUT).map_err(failed)? {
            return Ok(None);
        }
        self.left.remove(&partition);
        match (committed, gone) {
            (Some(_), Some(Gone::Recreated)) | (None, _) if is_said => {}
            (Some(before), Some(gone)) => self.report_gone(partition, before.next.offset, log, gone)?,
            (Some(_), None) => return Ok(Some((next, false))),
            (None, _) => log_events::pipeline::BeginsWithoutCommit { partition, offset: next.offset }.log(),
        }
        Ok(Some((next, true)))
    }

    /// A log's start and end; one that is empty behind what was read is asked about twice: see `NativeConsumer::watermarks`.
    fn ask_log(&self, partition: i32, before: Option<i64>, timeout: Duration) -> Result<(i64, i64), Failure> {
        let log = self.subscription.watermarks(partition, timeout)?;
        let is_doubtful = log.0 == log.1 && log.0 > 0 && before.is_none_or(|offset| offset < log.0);
        if is_doubtful { self.subscription.watermarks(partition, REWIND_TIMEOUT) } else { Ok(log) }
    }

    /// Where the group has no offset of a partition whose verdicts stand already, its offsets are lost.
    fn refuse_to_rescore(&mut self, partition: i32, log: (i64, i64)) -> Result<(), Interruption> {
        let (input, output) = (&self.settings.input_topic, &self.settings.destination.output);
        let mut is_scored = || -> Result<bool, Failure> {
            let look = look(&mut self.look, &self.settings.consumer)?;
            let Some(verdict) = look.last(output, partition, REWIND_TIMEOUT)? else { return Ok(false) };
            let Some(source) = Source::of(&verdict.value) else { return Ok(false) };
            if source.topic != *input || source.partition != partition || !(log.0..log.1).contains(&source.offset) {
                return Ok(false);
            }
            // A record that is younger than its verdict is of a topic that was deleted and made again.
            let record = look.at(input, partition, source.offset, REWIND_TIMEOUT)?;
            Ok(record.is_none_or(|record| record.timestamp <= verdict.timestamp))
        };
        let asked = is_scored().map_err(|error| severity(&error, &format!("looking for verdicts on {output}")));
        if !asked? {
            return Ok(());
        }
        let group = self.settings.consumer.get("group.id").unwrap_or_default();
        Err(Interruption::Fatal(format!(
            "group {group} has no offset of partition {partition} of {input}, but {output} holds verdicts on it: the \
             group's offsets expired (offsets.retention.minutes) or were deleted, or another group writes there. Set them \
             (kafka-consumer-groups.sh --reset-offsets), or start with --rescore to write those verdicts a second time"
        )))
    }

    /// Says and counts that the log does not have what comes next. `-1` stands for an end that was not asked for.
    pub(super) fn say_gone(&self, partition: i32, position: i64, (begin, end): (i64, i64), gone: Gone) {
        log_events::pipeline::RecordsGone { partition, position, begin, end, reason: gone.reason() }.log();
        self.instruments.gone(&self.settings.input_topic, partition, gone.records(), gone.reason());
    }

    fn report_gone(
        &self,
        partition: i32,
        position: i64,
        (begin, end): (i64, i64),
        gone: Gone,
    ) -> Result<(), Interruption> {
        self.say_gone(partition, position, (begin, end), gone);
        if self.settings.reset != Reset::Error {
            return Ok(());
        }
        Err(Interruption::Fatal(format!(
            "partition {partition}: offset {position} is gone from its log, which holds {begin} to {end}: \
             auto.offset.reset=error ends the worker here; set it to earliest to go on"
        )))
    }

    /// Where the topic was deleted and made again, commits what was done and becomes another member of the group.
    pub(super) fn leave_topic_that_is_gone(&mut self) -> Result<(), Interruption> {
        if self.subscription.is_recreated() { self.handle(Event::Outdated) } else { Ok(()) }
    }

    /// Leaves the group and joins it with a new client. The one before would go on asking the leaders of the topic that is gone:
    /// librdkafka 2.12 takes new ones for outdated while their epochs are lower (`rd_kafka_toppar_leader_update`).
    #[cold]
    pub(super) fn rejoin(&mut self, mut left: Offsets) -> Result<(), Interruption> {
        let (thread, topic) = (&self.settings.name, &self.settings.input_topic);
        if self.subscription.is_recreated() {
            log_events::kafka::TopicRecreated { thread, topic }.log();
        } else {
            log_events::kafka::MemberStuck { thread, reason: &self.reason }.log();
            left.clear();
        }
        self.readiness.hold(thread, "joining the consumer group again");
        let progress = self.subscription.progress();
        let opened = Subscription::open(&self.settings.consumer, topic, self.health.clone(), progress);
        let failed = |error: &dyn std::fmt::Display| Interruption::Fatal(format!("Kafka consumer: {error}"));
        let mut before = std::mem::replace(&mut self.subscription, opened.map_err(|error| failed(&error))?);
        for partition in before.owned().to_vec() {
            self.forget_partition(partition);
        }
        for (&partition, next) in &left {
            self.report_gone(partition, next.offset, (-1, -1), Gone::Recreated)?;
        }
        self.left = left;
        // Nothing more is looked for in the topic that is gone either.
        self.look = None;
        let late = before.changes().unwrap_or_default();
        before.leave(self.unanswered.drain(..).chain(late));
        self.subscription.subscribe().map_err(|error| failed(&error))
    }

    /// A partition's log does not have what comes next: goes on at `at`, or reads all that it holds.
    #[cold]
    pub(super) fn restart(
        &mut self,
        partition: i32,
        before: Option<Next>,
        at: Option<i64>,
    ) -> Result<Next, Interruption> {
        let failed = |error| Interruption::RollBack(format!("finding where partition {partition} goes on: {error}"));
        let log = self.ask_log(partition, None, REWIND_TIMEOUT).map_err(failed)?;
        self.report_gone(partition, before.map_or(-1, |next| next.offset), log, Gone::Truncated)?;
        let next = Next::at(at.unwrap_or(log.0).max(log.0));
        self.subscription.seek(&Offsets::from([(partition, next)]), REWIND_TIMEOUT).map_err(failed)?;
        Ok(next)
    }

    /// Reads partitions again from where they are: records may be missing before those that came.
    pub(super) fn seek_again(&mut self, partitions: &[i32]) -> Result<(), Interruption> {
        let next = |&partition: &i32| Some((partition, self.protocol.positions().next(partition)?));
        let from: Offsets = partitions.iter().filter_map(next).collect();
        let sought = self.subscription.seek(&from, REWIND_TIMEOUT);
        sought.map_err(|error| Interruption::RollBack(format!("reading again: {error}")))
    }

    /// Where a resting partition's log goes on and holds nothing to score (transaction markers, records of transactions that
    /// were aborted, compacted ones), commits its end: an idle group's lag is 0 all the same.
    ///
    /// Asked of a client of its own. The end as an entry of the batch (`enable.partition.eof`) would be simpler, but librdkafka
    /// 2.12 counts it as a message read (`rd_kafka_q_serve_rkmessages`), and goes on behind it when the group is rearranged:
    /// past the record that stands there by then, or outside of the log.
    pub(super) fn pass_over_ends(&mut self) -> Result<(), Interruption> {
        for (partition, next) in self.protocol.positions_mut().at_rest() {
            let is_behind = self.subscription.log(partition).is_some_and(|(_, end)| end > next.offset);
            if !is_behind || !self.protocol.is_active(partition) {
                continue;
            }
            // What fails is asked again.
            let look = look(&mut self.look, &self.settings.consumer);
            let end = look.and_then(|look| {
                look.end_behind(&self.settings.input_topic, partition, next.offset, INSPECTION_TIMEOUT)
            });
            match end {
                Ok(Some(offset)) => self.handle(Event::Passed { partition, offset })?,
                Ok(None) => {}
                // By another client: this one may have lost its brokers.
                Err(_) => self.look = None,
            }
        }
        Ok(())
    }

    /// Whether every partition was read to where its log ended at the last fetch.
    pub(super) fn is_caught_up(&self) -> bool {
        let is_read = |partition| {
            let (next, log) = (self.protocol.positions().next(partition), self.subscription.log(partition));
            next.zip(log).is_some_and(|(next, (_, end))| next.offset >= end)
        };
        self.idle && self.protocol.active().all(is_read)
    }

    pub(super) fn publish_lag(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        for lag in self.subscription.lag() {
            let read = self.protocol.positions().last_timestamp(lag.partition);
            let age = read.map_or(0, |read| (now - read).max(0));
            let seconds = if lag.records > 0 { age as f64 / 1000.0 } else { 0.0 };
            self.instruments.lag(&self.settings.input_topic, lag.partition, lag.records, seconds);
        }
    }

    /// Under which readiness knows a partition that is left alone.
    fn partition_name(&self, partition: i32) -> String {
        format!("partition {partition} of {}", self.settings.input_topic)
    }

    /// Under which readiness knows that the work is thrown away again and again.
    pub(super) fn roll_backs_name(&self) -> String {
        format!("{} roll-backs", self.settings.name)
    }
}

/// The thread's client that looks at records, opened where it is not yet.
fn look<'a>(slot: &'a mut Option<Look>, config: &ClientConfig) -> Result<&'a Look, Failure> {
    Ok(match slot {
        Some(look) => look,
        None => slot.insert(Look::new(config)?),
    })
}
