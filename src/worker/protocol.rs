//! What a scoring thread does next. Pure: [`Protocol::step`] takes what happened and returns what is to be done; librdkafka,
//! clocks and threads are in [`super::thread`] and [`crate::transaction::committer`], which do it and tell what came of it.
//!
//! ```text
//!  Event ─► step ─► Effects ─► performed by the thread ─► Event …
//!           ├ uncommitted work (transaction)   what may be committed, and when
//!           ├ positions                        what is new, and where to go back to
//!           └ goal                             why all must be committed: partitions to release, the end
//! ```
//!
//! Invariants, each held against every interleaving of a small cluster by `tests`: a partition is released only after what
//! was done for it is committed or thrown away; a record below a partition's position is never processed again within one
//! assignment; after work was thrown away every position is forgotten, and the group's offsets decide; a thread that rolls
//! back again and again is not ready; one that threw work away at its end has not drained.

use std::collections::BTreeMap;

use super::positions::Positions;
use crate::kafka::position::{Next, Offsets};
use crate::transaction::rules::{Rule, Rules};
use crate::transaction::{Guarantee, Step, Uncommitted};

mod event;
#[cfg(test)]
mod tests;

pub use self::event::{Effect, Event, Failed};

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// It is not known where it begins.
    Waiting,
    /// It delivers records.
    Active,
    /// It cannot go on, and is left alone.
    Paused,
}

/// Why everything must be committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Goal {
    /// The interval is over: what was done is to be submitted.
    Submit,
    /// Partitions are given up.
    Release(Vec<i32>),
    /// Logs do not have what comes next: partition, what would come, and where to go on.
    Restart(Vec<(i32, Option<Next>, Option<i64>)>),
    /// This member cannot go on with what it knows of the topic.
    Rejoin,
    /// A partition cannot be read on.
    Pause(i32),
    /// The thread ends.
    Stop,
}

/// What a scoring thread knows of its work.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Protocol {
    uncommitted: Uncommitted,
    positions: Positions,
    partitions: BTreeMap<i32, Phase>,
    goal: Option<Goal>,
    /// Work was thrown away, but the partitions are not yet back at the last commit.
    is_rewinding: bool,
    /// Roll-backs since the last commit.
    roll_backs: u32,
    /// The batch that was begun last.
    batch: usize,
    rules: Rules,
}

impl Protocol {
    /// A thread that has no partition yet.
    pub fn new(guarantee: Guarantee) -> Protocol {
        Protocol::with(guarantee, Rules::default())
    }

    fn with(guarantee: Guarantee, rules: Rules) -> Protocol {
        Protocol {
            uncommitted: Uncommitted::new(guarantee, rules),
            positions: Positions::with(rules),
            partitions: BTreeMap::new(),
            goal: None,
            is_rewinding: false,
            roll_backs: 0,
            batch: 0,
            rules,
        }
    }

    /// What is to be done after what happened.
    pub fn step(&mut self, event: Event<'_>) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Assigned(partitions) => {
                self.positions.forget(&partitions);
                self.partitions.extend(partitions.iter().map(|&partition| (partition, Phase::Waiting)));
                effects.push(Effect::Accept(partitions));
            }
            Event::Revoked(partitions) => self.pursue(Goal::Release(partitions), &mut effects),
            Event::Lost(partitions) => {
                self.release(partitions, &mut effects);
                self.throw_away(&mut effects);
            }
            Event::Begun { partition, next, commit } => {
                self.positions.begin(partition, next);
                self.partitions.insert(partition, Phase::Active);
                if commit {
                    self.note(partition, next, &mut effects);
                }
            }
            Event::BatchBegins => self.begin_batch(&mut effects),
            Event::Queued(next) => self.uncommitted.queued(self.batch, next),
            Event::Passed { partition, offset } => {
                if let Some(before) = self.positions.next(partition) {
                    self.positions.pass(partition, offset);
                    self.note(partition, Next { offset, ..before }, &mut effects);
                }
            }
            Event::Due => self.due(&mut effects),
            Event::Settled => {
                self.uncommitted.settled();
                self.go_on(&mut effects);
            }
            Event::NoFailure => {
                self.uncommitted.confirmed();
                self.go_on(&mut effects);
            }
            Event::Submitted => {
                effects.push(Effect::Commit(Step::CountsSubmitted));
                self.go_on(&mut effects);
            }
            Event::Committed => {
                self.uncommitted.ended();
                effects.push(Effect::Commit(Step::CountsCommitted));
                self.committed(&mut effects);
                self.go_on(&mut effects);
            }
            Event::Failed(failed) => self.failed(failed, &mut effects),
            Event::Rewound(back) => {
                self.positions.rewound(back);
                self.is_rewinding = false;
            }
            Event::Cut(cut) => {
                let partitions =
                    cut.into_iter().map(|(partition, at)| (partition, self.positions.next(partition), at)).collect();
                self.pursue(Goal::Restart(partitions), &mut effects);
            }
            Event::Outdated => self.pursue(Goal::Rejoin, &mut effects),
            Event::Resumed(back) => {
                self.positions.rewound(back);
                for partition in back.keys() {
                    self.partitions.insert(*partition, Phase::Active);
                }
            }
            Event::CaughtUp => {
                // There is nothing to throw away any more, and no record whose commit could show that.
                if !self.is_rewinding && self.uncommitted.is_empty() && !self.positions.has_unread() {
                    self.committed(&mut effects);
                }
            }
            Event::Unreadable(partition) => self.pursue(Goal::Pause(partition), &mut effects),
            Event::Stop => self.pursue(Goal::Stop, &mut effects),
        }
        effects
    }

    fn pursue(&mut self, goal: Goal, effects: &mut Vec<Effect>) {
        self.goal = Some(goal);
        self.go_on(effects);
    }

    /// The next step towards the goal, if there is one.
    fn go_on(&mut self, effects: &mut Vec<Effect>) {
        let Some(goal) = &self.goal else { return };
        let all = *goal != Goal::Submit;
        let is_done_without = matches!(goal, Goal::Release(_)) && !self.rules.hold(Rule::CommitBeforeRelease);
        if !is_done_without && let Some(step) = self.uncommitted.next_step(all) {
            effects.push(Effect::Commit(step));
            return;
        }
        if all {
            effects.push(Effect::Commit(Step::AllCommitted));
        }
        match self.goal.take() {
            Some(Goal::Release(partitions)) => self.release(partitions, effects),
            Some(Goal::Restart(partitions)) => {
                let restart = |(partition, before, at)| Effect::Restart { partition, before, at };
                effects.extend(partitions.into_iter().map(restart));
            }
            Some(Goal::Rejoin) => self.rejoin(effects),
            Some(Goal::Pause(partition)) => {
                self.partitions.insert(partition, Phase::Paused);
                effects.push(Effect::Pause(partition));
            }
            Some(Goal::Stop) => {
                let drained = !self.is_rewinding && !self.positions.has_unread();
                let drained = drained || !self.rules.hold(Rule::DrainedMeansCommitted);
                effects.push(Effect::End { drained });
            }
            Some(Goal::Submit) | None => {}
        }
    }

    fn due(&mut self, effects: &mut Vec<Effect>) {
        if let Uncommitted::AtLeastOnce(deliveries) = &mut self.uncommitted {
            let mut steps = Vec::with_capacity(3);
            let commits = deliveries.commit_ready(self.batch, &mut steps);
            effects.extend(steps.into_iter().map(Effect::Commit));
            if commits {
                self.committed(effects);
            }
        } else if self.goal.is_none() {
            self.pursue(Goal::Submit, effects);
        }
    }

    /// Something was committed, or nothing is left to be: what was thrown away before is no loop.
    fn committed(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.roll_backs) > 1 {
            effects.push(Effect::ClearReadiness);
        }
    }

    fn begin_batch(&mut self, effects: &mut Vec<Effect>) {
        self.batch = self.batch.wrapping_add(1);
        effects.extend(self.uncommitted.begin().map(Effect::Commit));
    }

    /// Commits, with the next commit, where a partition goes on though nothing of it was scored.
    fn note(&mut self, partition: i32, next: Next, effects: &mut Vec<Effect>) {
        self.begin_batch(effects);
        self.uncommitted.queued(self.batch, &Offsets::from([(partition, next)]));
    }

    fn release(&mut self, partitions: Vec<i32>, effects: &mut Vec<Effect>) {
        self.positions.forget(&partitions);
        self.partitions.retain(|partition, _| !partitions.contains(partition));
        effects.push(Effect::Release(partitions));
    }

    fn rejoin(&mut self, effects: &mut Vec<Effect>) {
        let all: Vec<i32> = std::mem::take(&mut self.partitions).into_keys().collect();
        let left = all.iter().filter_map(|&partition| Some((partition, self.positions.next(partition)?)));
        effects.push(Effect::Rejoin { left: left.collect() });
        self.positions.forget(&all);
        // There is nothing to go back to.
        self.is_rewinding = false;
    }

    fn failed(&mut self, failed: Failed, effects: &mut Vec<Effect>) {
        let goal = self.goal.take();
        let is_ending = goal == Some(Goal::Stop) || failed == Failed::Timeout;
        match goal {
            // The group waits for us.
            Some(Goal::Release(partitions)) => self.release(partitions, effects),
            // Whatever became of the commit: it was of the topic that is gone, and no member goes on from there.
            Some(Goal::Rejoin) => self.rejoin(effects),
            _ => {}
        }
        if is_ending {
            effects.push(Effect::End { drained: !self.rules.hold(Rule::DrainedMeansCommitted) });
            return;
        }
        self.throw_away(effects);
        if let Failed::Partition(partition) = failed
            && self.partitions.contains_key(&partition)
            && self.rules.hold(Rule::PartitionsStopAlone)
        {
            self.partitions.insert(partition, Phase::Paused);
            effects.push(Effect::Pause(partition));
        }
    }

    fn throw_away(&mut self, effects: &mut Vec<Effect>) {
        if self.rules.hold(Rule::FailureTakesAll) {
            self.uncommitted.throw_away();
        }
        self.positions.thrown_away();
        self.is_rewinding = true;
        self.roll_backs = self.roll_backs.saturating_add(1).min(19);
        if self.roll_backs > 1 && self.rules.hold(Rule::LoopsAreNotReady) {
            effects.push(Effect::HoldReadiness);
        }
        effects.push(Effect::RollBack { number: self.roll_backs });
    }

    /// Partitions that deliver records.
    pub fn active(&self) -> impl Iterator<Item = i32> {
        self.partitions.iter().filter(|(_, phase)| **phase == Phase::Active).map(|(partition, _)| *partition)
    }

    /// Whether a partition delivers records.
    pub fn is_active(&self, partition: i32) -> bool {
        self.partitions.get(&partition) == Some(&Phase::Active)
    }

    /// Partitions of which it is not known where they begin.
    pub fn waiting(&self) -> impl Iterator<Item = i32> {
        self.partitions.iter().filter(|(_, phase)| **phase == Phase::Waiting).map(|(partition, _)| *partition)
    }

    /// Whether a partition is left alone.
    pub fn is_paused(&self, partition: i32) -> bool {
        self.partitions.get(&partition) == Some(&Phase::Paused)
    }

    /// Nothing may be read: the way back to the last commit is not made.
    pub fn is_rewinding(&self) -> bool {
        self.is_rewinding
    }

    /// The way back was tried again and again: another client may find it. Every fifth time, and from the nineteenth on always.
    pub fn is_stuck(&self) -> bool {
        self.is_rewinding && self.roll_backs % 5 == 4 && !self.partitions.is_empty()
    }

    /// The batch that was begun last.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// At least once: the oldest batch on its way, and how many there are.
    pub fn on_their_way(&self) -> Option<(usize, usize)> {
        self.uncommitted.on_their_way()
    }

    /// A transaction is being ended.
    pub fn is_pending(&self) -> bool {
        self.uncommitted.is_pending()
    }

    /// How far partitions were read.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// To read on.
    pub fn positions_mut(&mut self) -> &mut Positions {
        &mut self.positions
    }

    /// To read on, with what tells whether a partition delivers records.
    pub fn positions_and_active(&mut self) -> (&mut Positions, impl Fn(i32) -> bool) {
        let partitions = &self.partitions;
        (&mut self.positions, move |partition| partitions.get(&partition) == Some(&Phase::Active))
    }

    /// Everything is being committed for the last time.
    pub fn is_stopping(&self) -> bool {
        self.goal == Some(Goal::Stop)
    }
}
