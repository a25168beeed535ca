//! What a worker does: it takes what has happened, and performs the protocol's effects one at a time.

use super::*;

impl Cluster {
    /// Steps the real protocol.
    pub(super) fn step(&mut self, number: usize, event: Event<'_>) {
        let is_failure = matches!(event, Event::Failed(_));
        let failed_partition =
            if let Event::Failed(Failed::Partition(partition)) = event { Some(partition) } else { None };
        let worker = &mut self.workers[number];
        if is_failure {
            worker.todo.clear();
        }
        let effects = worker.protocol.step(event);
        worker.todo.extend(effects.into_iter().map(Todo::Perform));
        if failed_partition.is_some_and(|partition| worker.protocol.is_active(partition)) {
            self.violation = Some("a partition that cannot go on is read on".into());
        }
        self.perform_local(number);
    }

    /// Performs what stands first and concerns this worker alone: when it does so makes no difference to others.
    pub(super) fn perform_local(&mut self, number: usize) {
        while let Some(Todo::Perform(effect)) = self.workers[number].todo.front().cloned() {
            let worker = &mut self.workers[number];
            match effect {
                Effect::Commit(Step::Begin { producer }) => worker.producer = producer,
                Effect::Accept(_)
                | Effect::Commit(Step::CountsSubmitted | Step::CountsCommitted | Step::AllCommitted) => {}
                Effect::HoldReadiness => worker.is_ready = false,
                Effect::ClearReadiness => worker.is_ready = true,
                Effect::Pause(partition) => {
                    worker.fetch.remove(&partition);
                }
                Effect::Commit(Step::Submit { producer, offsets }) => {
                    let (topic, generation) = (worker.topic, worker.generation);
                    worker.todo.pop_front();
                    worker.pending.push_back(Pending {
                        producer,
                        offsets,
                        topic,
                        generation,
                        are_offsets_added: false,
                    });
                    self.step(number, Event::Submitted);
                    continue;
                }
                _ => return,
            }
            worker.todo.pop_front();
        }
    }

    pub(super) fn is_stable(&self, scenario: &Scenario) -> bool {
        let holds_back = |transaction: &Transaction| {
            matches!(transaction, Transaction::Open(Some(_)) | Transaction::Prepared(Some(_)))
        };
        !scenario.holds(Around::OffsetsAreStable) || !self.broker.transactions.iter().any(holds_back)
    }

    pub(super) fn committed(&self, scenario: &Scenario, worker: usize, partition: i32) -> Option<Committed> {
        let (next, topic, _) = self.broker.committed.get(&partition)?;
        let is_of_this_topic =
            *topic == self.workers[worker].topic || scenario.without == Some(Rule::OffsetsOfThisTopic);
        Some(Committed { next: *next, is_of_this_topic })
    }

    pub(super) fn end_of(&self, scenario: &Scenario, partition: i32) -> i64 {
        scenario.records[partition as usize]
    }

    pub(super) fn worker_acts(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
        let worker = &self.workers[number];
        if let Some(todo) = worker.todo.front() {
            match todo {
                Todo::Rewind => {
                    if self.is_stable(scenario) {
                        self.with(into, (number, "rewind", 0), |next| next.rewind(scenario, number));
                    }
                }
                Todo::Perform(effect) => self.perform(scenario, number, effect, into),
            }
            self.crash(scenario, number, into);
            return;
        }
        if let Some(&change) = worker.changes.front() {
            self.with(into, (number, change, 0), |next| {
                next.workers[number].changes.pop_front();
                next.workers[number].answering = change;
                let partitions: Vec<i32> = (0..scenario.records.len() as i32).collect();
                next.step(
                    number,
                    match change {
                        "assigned" => Event::Assigned(partitions),
                        "revoked" => Event::Revoked(partitions),
                        _ => Event::Lost(partitions),
                    },
                );
            });
            self.crash(scenario, number, into);
            return;
        }
        if worker.protocol.is_rewinding() {
            self.with(into, (number, "rolls back again", 0), |next| next.step(number, Event::Failed(Failed::Work)));
            return;
        }
        if worker.topic != self.broker.topic && worker.protocol.active().next().is_some() {
            self.with(into, (number, "sees another topic", 0), |next| next.step(number, Event::Outdated));
        }
        for partition in worker.protocol.waiting() {
            if self.is_stable(scenario) {
                self.with(into, (number, "begins", i64::from(partition)), |next| {
                    next.begin(scenario, number, partition)
                });
            }
        }
        if worker.queue.len() < 2 {
            for partition in worker.protocol.active() {
                self.read(scenario, number, partition, into);
            }
        }
        if !worker.outcomes.is_empty() && worker.protocol.is_pending() {
            self.with(into, (number, "learns how a commit ended", 0), |next| next.take_outcome(number));
        }
        if let Some((oldest, _)) = worker.protocol.on_their_way()
            && !worker.queue.iter().any(|message| message.batch == oldest)
        {
            self.with(into, (number, "sees a batch settled", 0), |next| {
                next.step(number, Event::Settled);
                next.workers[number].todo.push_back(Todo::Perform(Effect::Commit(Step::CheckFailures)));
            });
        }
        if worker.failed[worker.producer].is_some() {
            self.with(into, (number, "sees a failure", 0), |next| next.check_failures(number));
        }
        if !worker.protocol.uncommitted.is_empty() {
            self.with(into, (number, "is due", 0), |next| next.step(number, Event::Due));
        }
        if number == 0 && !self.is_stopped {
            self.with(into, (number, "is to stop", 0), |next| {
                next.is_stopped = true;
                next.step(number, Event::Stop);
            });
        }
        if self.faults > 0 && !worker.protocol.uncommitted.is_empty() {
            self.with(into, (number, "fails", 0), |next| {
                next.faults -= 1;
                next.step(number, Event::Failed(Failed::Work));
            });
        }
        self.crash(scenario, number, into);
    }

    /// What is on its way is lost with it: that it arrives late is the case of a worker that only does nothing more.
    pub(super) fn crash(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
        if self.crashes > 0 {
            self.with(into, (number, "crashes", 0), |next| {
                next.crashes -= 1;
                let generation = next.workers[number].generation;
                next.workers[number] = Worker { generation, ..Worker::dead(scenario) };
            });
        }
    }

    /// A partition begins where the group's offset and its log say.
    pub(super) fn begin(&mut self, scenario: &Scenario, number: usize, partition: i32) {
        self.workers[number].topic = self.broker.topic;
        let committed = self.committed(scenario, number, partition);
        let log = (self.broker.starts[partition as usize], self.end_of(scenario, partition));
        let Restart { next, gone } = restart(committed, log, Reset::Earliest);
        self.workers[number].fetch.insert(partition, next);
        let commit = committed.is_none() || gone.is_some();
        self.step(number, Event::Begun { partition, next, commit });
    }

    pub(super) fn rewind(&mut self, scenario: &Scenario, number: usize) {
        self.workers[number].todo.pop_front();
        let committed = (0..scenario.records.len() as i32)
            .filter_map(|partition| Some((partition, self.committed(scenario, number, partition)?)))
            .collect();
        let back = self.workers[number].protocol.positions().back(&committed);
        for (partition, next) in &back {
            self.workers[number].fetch.insert(*partition, *next);
        }
        self.step(number, Event::Rewound(&back));
    }

    /// A batch of one record.
    pub(super) fn read(&self, scenario: &Scenario, number: usize, partition: i32, into: &mut Vec<(Action, Cluster)>) {
        let worker = &self.workers[number];
        let Some(&fetch) = worker.fetch.get(&partition) else { return };
        if worker.topic != self.broker.topic {
            return;
        }
        // The broker tells by the epoch where the log parts from the one that was read.
        let cut = self.broker.cut.filter(|_| partition == 0 && fetch.epoch == 0).unwrap_or(i64::MAX);
        let offset = fetch.offset.max(self.broker.starts[partition as usize]).min(cut);
        if offset < self.end_of(scenario, partition) {
            self.with(into, (number, "reads", offset), |next| {
                let epoch = next.epoch_of(partition, offset);
                next.workers[number].fetch.insert(partition, Next { offset: offset + 1, epoch });
                next.score(number, partition, offset);
            });
        }
        let before = fetch.offset - 1;
        if !self.is_stale_delivered && before >= 0 {
            self.with(into, (number, "is delivered once more", before), |next| {
                next.is_stale_delivered = true;
                next.score(number, partition, before);
            });
        }
    }

    pub(super) fn score(&mut self, number: usize, partition: i32, offset: i64) {
        let epoch = self.epoch_of(partition, offset);
        let worker = &mut self.workers[number];
        if !worker.protocol.positions().is_new(&[], partition, offset) {
            if worker.protocol.positions().is_of_later_leader(&[], partition, epoch) {
                self.step(number, Event::Cut(vec![(partition, Some(offset))]));
            }
            return;
        }
        worker.protocol.positions_mut().read(&Run::of(partition, offset, epoch));
        self.step(number, Event::BatchBegins);
        let worker = &mut self.workers[number];
        let is_letter = worker.refused.contains(&offset);
        let (producer, batch, topic) = (worker.producer, worker.protocol.batch(), worker.topic);
        worker.queue.push(Message { producer, batch, partition, offset, epoch, topic, is_letter });
        self.step(number, Event::Queued(&Offsets::from([(partition, Next { offset: offset + 1, epoch })])));
    }

    pub(super) fn check_failures(&mut self, number: usize) {
        let worker = &self.workers[number];
        match worker.failed[worker.producer] {
            None => self.step(number, Event::NoFailure),
            Some(Kind::Any) => self.step(number, Event::Failed(Failed::Work)),
            Some(Kind::Partition(partition)) => self.step(number, Event::Failed(Failed::Partition(partition))),
        }
    }

    pub(super) fn take_outcome(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        if worker.outcomes.pop_front() == Some(true) {
            worker.roll_backs = 0;
            self.step(number, Event::Committed);
        } else {
            self.step(number, Event::Failed(Failed::Work));
        }
    }

    /// Performs the effect that stands first, where it can be.
    pub(super) fn perform(
        &self,
        scenario: &Scenario,
        number: usize,
        effect: &Effect,
        into: &mut Vec<(Action, Cluster)>,
    ) {
        let worker = &self.workers[number];
        let mut performed = |name: &'static str, change: &dyn Fn(&mut Cluster)| {
            self.with(into, (number, name, 0), |next| {
                next.workers[number].todo.pop_front();
                change(next);
                next.perform_local(number);
            });
        };
        match effect {
            Effect::Commit(Step::AwaitSettled) => {
                let waits = |message: &Message| match worker.protocol.on_their_way() {
                    Some((oldest, _)) => message.batch == oldest,
                    None => message.producer == worker.producer,
                };
                if !worker.queue.iter().any(waits) {
                    performed("sees all settled", &|next| next.step(number, Event::Settled));
                }
                if worker.failed[worker.producer].is_some() {
                    performed("sees a failure", &|next| next.check_failures(number));
                }
            }
            Effect::Commit(Step::CheckFailures) => performed("looks at failures", &|next| next.check_failures(number)),
            Effect::Commit(Step::AwaitCommit) if !worker.outcomes.is_empty() => {
                performed("learns how a commit ended", &|next| next.take_outcome(number));
            }
            Effect::Commit(Step::CommitOffsets { offsets, wait, .. }) => performed("commits offsets", &|next| {
                let worker = &mut next.workers[number];
                let topic = worker.topic;
                let is_member =
                    worker.generation == next.broker.generation || !scenario.holds(Around::GenerationIsChecked);
                worker.roll_backs = 0;
                if is_member {
                    for (&partition, at) in offsets {
                        next.broker.committed.insert(partition, (*at, topic, 0));
                    }
                }
                if *wait {
                    next.step(number, if is_member { Event::Committed } else { Event::Failed(Failed::Work) });
                }
            }),
            Effect::RollBack { .. } => performed("rolls back", &|next| next.roll_back(scenario, number)),
            Effect::Release(_) => performed("releases", &|next| next.release(number)),
            Effect::Rejoin { .. } => performed("joins again", &|next| next.rejoin(number)),
            Effect::Restart { partition, at, .. } => performed("restarts", &|next| {
                let start = next.broker.starts[*partition as usize];
                let at = at.unwrap_or(start).max(start);
                next.workers[number].fetch.insert(*partition, Next::at(at));
                let event = Event::Begun { partition: *partition, next: Next::at(at), commit: true };
                next.step(number, event);
            }),
            Effect::End { drained } => performed("ends", &|next| next.end(scenario, number, *drained)),
            // It is waited, or see `perform_local`.
            _ => {}
        }
    }

    /// New producers under the same ids: what is prepared is completed, what is open is aborted.
    pub(super) fn roll_back(&mut self, scenario: &Scenario, number: usize) {
        for index in [2 * number, 2 * number + 1] {
            if matches!(self.broker.transactions[index], Transaction::Prepared(_)) {
                self.complete(scenario, index);
            }
            self.abort(index, Transaction::None);
        }
        let worker = &mut self.workers[number];
        worker.queue.clear();
        worker.failed = [None; 2];
        worker.pending.clear();
        worker.outcomes.clear();
        worker.refused.append(&mut worker.to_learn);
        worker.roll_backs = (worker.roll_backs + 1).min(3);
        worker.todo.push_front(Todo::Rewind);
        if worker.roll_backs > 1 && worker.is_ready {
            self.violation = Some("ready, while work is thrown away again and again".into());
        }
    }

    pub(super) fn release(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.fetch.clear();
        // It may join again only then.
        let generation = std::mem::take(&mut worker.generation);
        if std::mem::take(&mut worker.answering) != "revoked" {
            return;
        }
        if !worker.protocol.uncommitted.is_empty() {
            self.violation = Some("partitions are released with uncommitted work".into());
        }
        if generation == self.broker.generation && self.broker.owner == number {
            self.broker.is_revoking = false;
            self.assign(1 - number);
        }
    }

    /// As a new member, which knows nothing of the topic that is gone.
    pub(super) fn rejoin(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        worker.fetch.clear();
        worker.changes.clear();
        worker.topic = self.broker.topic;
        worker.answering = "";
        let generation = std::mem::take(&mut worker.generation);
        if generation == self.broker.generation && self.broker.owner == number {
            self.broker.is_revoking = false;
            let other = &self.workers[1 - number];
            self.assign(if other.is_alive && other.generation == 0 { 1 - number } else { number });
        }
    }

    pub(super) fn end(&mut self, scenario: &Scenario, number: usize, drained: bool) {
        if drained {
            for (partition, fetch) in self.workers[number].fetch.clone() {
                let prepared = |transaction: &Transaction| match transaction {
                    Transaction::Prepared(Some(added)) => added.offsets.get(&partition).map(|next| next.offset),
                    _ => None,
                };
                let committed = self.broker.committed.get(&partition).map(|(next, ..)| next.offset);
                let prepared = self.broker.transactions.iter().filter_map(prepared).max();
                if committed.max(prepared).unwrap_or(0) < fetch.offset {
                    self.violation = Some("called drained, with work that is not committed".into());
                }
            }
        }
        let is_member = self.workers[number].generation == self.broker.generation && self.broker.owner == number;
        self.workers[number] = Worker::dead(scenario);
        if is_member {
            self.broker.is_revoking = false;
            self.assign(1 - number);
        }
    }
}
