//! A small cluster: one broker, two workers that perform the real protocol's effects one at a time, everything between them
//! in any order.
//!
//! What librdkafka and the broker do is modelled as far as the guarantees rest on it: transactions with fencing and two
//! phases (KIP-98), offsets with the member's generation (KIP-447), fetches of offsets that wait for open ones
//! (`require_stable`), messages that are delivered in order, fail, or are refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::{Effect, Event, Failed, Protocol};
use crate::kafka::position::{Committed, Next, Offsets, Reset, Restart, restart};
use crate::transaction::rules::{Rule, Rules};
use crate::transaction::{Guarantee, Step};
use crate::worker::positions::Run;

/// A rule of the broker, or of how the worker asks it, that is not the protocol's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Around {
    /// Offsets are taken of members of the present generation only (KIP-447).
    GenerationIsChecked,
    /// Offsets are not shown while a transaction may still commit others.
    OffsetsAreStable,
    /// Of two transactions' offsets those win that were added later, whichever marker is written last.
    LaterOffsetsWin,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub guarantee: Guarantee,
    /// Records of each partition, of which there are one or two.
    pub records: &'static [i64],
    /// The group has no offsets yet.
    pub is_group_new: bool,
    /// How often partitions move: asked for, or because a member is silent.
    pub moves: u8,
    /// Workers that are killed.
    pub crashes: u8,
    /// Lost answers, failed messages and calls.
    pub faults: u8,
    /// Transactions that time out.
    pub timeouts: u8,
    /// The verdict on this record of partition 0 is refused; its dead letter is not.
    pub refused: Option<i64>,
    /// The output has no partition 1.
    pub is_partition_missing: bool,
    /// The input topic is deleted and made again.
    pub is_recreated: bool,
    /// The log's start moves by one record.
    pub is_start_moved: bool,
    /// A record that was fetched before a seek is delivered after it.
    pub is_stale_delivered: bool,
    /// Worker 0 is asked to stop.
    pub is_stopped: bool,
    /// A rule that does not hold.
    pub without: Option<Rule>,
    pub without_around: Option<Around>,
}

impl Scenario {
    fn holds(&self, rule: Around) -> bool {
        self.without_around != Some(rule)
    }

    fn in_transactions(&self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Open,
    Prepared,
    Committed,
}

/// A verdict or dead letter in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Written {
    topic: u8,
    partition: i32,
    offset: i64,
    producer: usize,
    status: Status,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Transaction {
    #[default]
    None,
    Open(Option<Added>),
    Prepared(Option<Added>),
    /// Another producer has its id, or it timed out.
    Fenced,
}

/// Offsets in a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Added {
    offsets: Offsets,
    topic: u8,
    sequence: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Broker {
    topic: u8,
    /// First offset of each partition's log.
    starts: Vec<i64>,
    output: Vec<Written>,
    /// Two of each worker.
    transactions: [Transaction; 4],
    /// The group's offsets, the topic they are of, and when they were added.
    committed: BTreeMap<i32, (i64, u8, u8)>,
    sequence: u8,
    generation: u8,
    owner: usize,
    /// The owner is asked to give its partitions up.
    is_revoking: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Message {
    producer: usize,
    batch: usize,
    partition: i32,
    offset: i64,
    topic: u8,
    is_letter: bool,
}

/// A transaction with the commit thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    producer: usize,
    offsets: Offsets,
    topic: u8,
    generation: u8,
    are_offsets_added: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Todo {
    Perform(Effect),
    /// The second half of a roll-back.
    Rewind,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Worker {
    is_alive: bool,
    protocol: Protocol,
    /// 0: no member.
    generation: u8,
    todo: VecDeque<Todo>,
    changes: VecDeque<&'static str>,
    /// The change that is being answered.
    answering: &'static str,
    /// Next offset that its consumer delivers.
    fetch: BTreeMap<i32, i64>,
    topic: u8,
    producer: usize,
    queue: Vec<Message>,
    failed: [Option<Kind>; 2],
    pending: VecDeque<Pending>,
    outcomes: VecDeque<bool>,
    /// Records whose verdict was refused, as far as is known; and those not looked at yet.
    refused: BTreeSet<i64>,
    to_learn: BTreeSet<i64>,
    roll_backs: u8,
    is_ready: bool,
}

impl Worker {
    fn dead(scenario: &Scenario) -> Worker {
        Worker {
            is_alive: false,
            protocol: Protocol::with(scenario.guarantee, Rules { without: scenario.without }),
            generation: 0,
            todo: VecDeque::new(),
            changes: VecDeque::new(),
            answering: "",
            fetch: BTreeMap::new(),
            topic: 0,
            producer: 0,
            queue: Vec::new(),
            failed: [None; 2],
            pending: VecDeque::new(),
            outcomes: VecDeque::new(),
            refused: BTreeSet::new(),
            to_learn: BTreeSet::new(),
            roll_backs: 0,
            is_ready: true,
        }
    }
}

/// Why a message failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Any,
    Partition(i32),
}

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    broker: Broker,
    workers: [Worker; 2],
    moves: u8,
    crashes: u8,
    faults: u8,
    timeouts: u8,
    is_recreated: bool,
    is_start_moved: bool,
    is_stale_delivered: bool,
    is_stopped: bool,
    /// What went wrong.
    pub violation: Option<String>,
}

/// What happened, for people.
pub type Action = (usize, &'static str, i64);

impl Cluster {
    pub fn new(scenario: &Scenario) -> Cluster {
        let partitions: Vec<i32> = (0..scenario.records.len() as i32).collect();
        let worker = |_| Worker { is_alive: true, ..Worker::dead(scenario) };
        let mut workers = [0, 1].map(worker);
        workers[0].generation = 1;
        workers[0].changes.push_back("assigned");
        Cluster {
            broker: Broker {
                topic: 0,
                starts: partitions.iter().map(|_| 0).collect(),
                output: Vec::new(),
                transactions: Default::default(),
                committed: partitions
                    .iter()
                    .filter(|_| !scenario.is_group_new)
                    .map(|&partition| (partition, (0, 0, 0)))
                    .collect(),
                sequence: 0,
                generation: 1,
                owner: 0,
                is_revoking: false,
            },
            workers,
            moves: scenario.moves,
            crashes: scenario.crashes,
            faults: scenario.faults,
            timeouts: scenario.timeouts,
            is_recreated: !scenario.is_recreated,
            is_start_moved: !scenario.is_start_moved,
            is_stale_delivered: !scenario.is_stale_delivered,
            is_stopped: !scenario.is_stopped,
            violation: None,
        }
    }

    /// Every state that may follow.
    pub fn successors(&self, scenario: &Scenario, into: &mut Vec<(Action, Cluster)>) {
        for worker in 0..2 {
            if self.workers[worker].is_alive {
                self.worker_acts(scenario, worker, into);
            }
            self.commit_thread_acts(scenario, worker, into);
            self.messages_settle(scenario, worker, into);
        }
        self.broker_acts(scenario, into);
        for (_, state) in into.iter_mut() {
            state.normalise(scenario);
            if state.violation.is_none() {
                state.violation = state.check(scenario);
            }
        }
    }

    fn with(&self, into: &mut Vec<(Action, Cluster)>, action: Action, change: impl FnOnce(&mut Cluster)) {
        let mut next = self.clone();
        change(&mut next);
        into.push((action, next));
    }

    /// Steps the real protocol.
    fn step(&mut self, number: usize, event: Event<'_>) {
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
    fn perform_local(&mut self, number: usize) {
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

    fn is_stable(&self, scenario: &Scenario) -> bool {
        let holds_back = |transaction: &Transaction| {
            matches!(transaction, Transaction::Open(Some(_)) | Transaction::Prepared(Some(_)))
        };
        !scenario.holds(Around::OffsetsAreStable) || !self.broker.transactions.iter().any(holds_back)
    }

    fn committed(&self, scenario: &Scenario, worker: usize, partition: i32) -> Option<Committed> {
        let (offset, topic, _) = self.broker.committed.get(&partition)?;
        let is_of_this_topic =
            *topic == self.workers[worker].topic || scenario.without == Some(Rule::OffsetsOfThisTopic);
        Some(Committed { next: Next::at(*offset), is_of_this_topic })
    }

    fn end_of(&self, scenario: &Scenario, partition: i32) -> i64 {
        scenario.records[partition as usize]
    }

    fn worker_acts(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
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
            self.with(into, (number, "sees another topic", 0), |next| next.step(number, Event::Recreated));
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
    fn crash(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
        if self.crashes > 0 {
            self.with(into, (number, "crashes", 0), |next| {
                next.crashes -= 1;
                let generation = next.workers[number].generation;
                next.workers[number] = Worker { generation, ..Worker::dead(scenario) };
            });
        }
    }

    /// A partition begins where the group's offset and its log say.
    fn begin(&mut self, scenario: &Scenario, number: usize, partition: i32) {
        self.workers[number].topic = self.broker.topic;
        let committed = self.committed(scenario, number, partition);
        let log = (self.broker.starts[partition as usize], self.end_of(scenario, partition));
        let Restart { next, gone } = restart(committed, log, Reset::Earliest);
        self.workers[number].fetch.insert(partition, next.offset);
        let commit = committed.is_none() || gone.is_some();
        self.step(number, Event::Begun { partition, next, commit });
    }

    fn rewind(&mut self, scenario: &Scenario, number: usize) {
        self.workers[number].todo.pop_front();
        let committed = (0..scenario.records.len() as i32)
            .filter_map(|partition| Some((partition, self.committed(scenario, number, partition)?)))
            .collect();
        let back = self.workers[number].protocol.positions().back(&committed);
        for (partition, next) in &back {
            self.workers[number].fetch.insert(*partition, next.offset);
        }
        self.step(number, Event::Rewound(&back));
    }

    /// A batch of one record.
    fn read(&self, scenario: &Scenario, number: usize, partition: i32, into: &mut Vec<(Action, Cluster)>) {
        let worker = &self.workers[number];
        let Some(&fetch) = worker.fetch.get(&partition) else { return };
        if worker.topic != self.broker.topic {
            return;
        }
        let offset = fetch.max(self.broker.starts[partition as usize]);
        if offset < self.end_of(scenario, partition) {
            self.with(into, (number, "reads", offset), |next| {
                next.workers[number].fetch.insert(partition, offset + 1);
                next.score(number, partition, offset);
            });
        }
        if !self.is_stale_delivered && fetch > 0 {
            self.with(into, (number, "is delivered once more", fetch - 1), |next| {
                next.is_stale_delivered = true;
                next.score(number, partition, fetch - 1);
            });
        }
    }

    fn score(&mut self, number: usize, partition: i32, offset: i64) {
        let worker = &mut self.workers[number];
        if !worker.protocol.positions().is_new(&[], partition, offset) {
            return;
        }
        worker.protocol.positions_mut().read(&Run::of(partition, offset));
        self.step(number, Event::BatchBegins);
        let worker = &mut self.workers[number];
        let is_letter = worker.refused.contains(&offset);
        let (producer, batch, topic) = (worker.producer, worker.protocol.batch(), worker.topic);
        worker.queue.push(Message { producer, batch, partition, offset, topic, is_letter });
        self.step(number, Event::Queued(&Offsets::from([(partition, Next::at(offset + 1))])));
    }

    fn check_failures(&mut self, number: usize) {
        let worker = &self.workers[number];
        match worker.failed[worker.producer] {
            None => self.step(number, Event::NoFailure),
            Some(Kind::Any) => self.step(number, Event::Failed(Failed::Work)),
            Some(Kind::Partition(partition)) => self.step(number, Event::Failed(Failed::Partition(partition))),
        }
    }

    fn take_outcome(&mut self, number: usize) {
        let worker = &mut self.workers[number];
        if worker.outcomes.pop_front() == Some(true) {
            worker.roll_backs = 0;
            self.step(number, Event::Committed);
        } else {
            self.step(number, Event::Failed(Failed::Work));
        }
    }

    /// Performs the effect that stands first, where it can be.
    fn perform(&self, scenario: &Scenario, number: usize, effect: &Effect, into: &mut Vec<(Action, Cluster)>) {
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
                        next.broker.committed.insert(partition, (at.offset, topic, 0));
                    }
                }
                if *wait {
                    next.step(number, if is_member { Event::Committed } else { Event::Failed(Failed::Work) });
                }
            }),
            Effect::RollBack { .. } => performed("rolls back", &|next| next.roll_back(scenario, number)),
            Effect::Release(_) => performed("releases", &|next| next.release(number)),
            Effect::TakeTopic => performed("takes the topic", &|next| next.workers[number].topic = next.broker.topic),
            Effect::Restart { partition, at, .. } => performed("restarts", &|next| {
                let start = next.broker.starts[*partition as usize];
                let at = at.unwrap_or(start).max(start);
                next.workers[number].fetch.insert(*partition, at);
                let event = Event::Begun { partition: *partition, next: Next::at(at), commit: true };
                next.step(number, event);
            }),
            Effect::End { drained } => performed("ends", &|next| next.end(scenario, number, *drained)),
            // It is waited, or see `perform_local`.
            _ => {}
        }
    }

    /// New producers under the same ids: what is prepared is completed, what is open is aborted.
    fn roll_back(&mut self, scenario: &Scenario, number: usize) {
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

    fn release(&mut self, number: usize) {
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

    fn end(&mut self, scenario: &Scenario, number: usize, drained: bool) {
        if drained {
            for (partition, fetch) in self.workers[number].fetch.clone() {
                let prepared = |transaction: &Transaction| match transaction {
                    Transaction::Prepared(Some(added)) => added.offsets.get(&partition).map(|next| next.offset),
                    _ => None,
                };
                let committed = self.broker.committed.get(&partition).map(|(offset, ..)| *offset);
                let prepared = self.broker.transactions.iter().filter_map(prepared).max();
                if committed.max(prepared).unwrap_or(0) < fetch {
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

    /// The partitions are this worker's from now on.
    fn assign(&mut self, to: usize) {
        self.broker.generation += 1;
        self.broker.owner = to;
        let worker = &mut self.workers[to];
        if worker.is_alive {
            worker.generation = self.broker.generation;
            worker.changes.push_back("assigned");
        }
    }

    fn abort(&mut self, index: usize, then: Transaction) {
        self.broker.output.retain(|written| written.producer != index || written.status != Status::Open);
        self.broker.transactions[index] = then;
    }

    /// A prepared transaction's markers are written.
    fn complete(&mut self, scenario: &Scenario, index: usize) {
        for written in &mut self.broker.output {
            if written.producer == index && written.status == Status::Prepared {
                written.status = Status::Committed;
            }
        }
        let Transaction::Prepared(added) = std::mem::take(&mut self.broker.transactions[index]) else { return };
        let Some(Added { offsets, topic, sequence }) = added else { return };
        for (partition, next) in offsets {
            let before = self.broker.committed.get(&partition).map(|(.., sequence)| *sequence);
            if before.is_none_or(|before| sequence > before) || !scenario.holds(Around::LaterOffsetsWin) {
                self.broker.committed.insert(partition, (next.offset, topic, sequence));
            }
        }
    }

    /// The commit thread of a worker.
    fn commit_thread_acts(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
        let Some(pending) = self.workers[number].pending.front() else { return };
        let index = 2 * number + pending.producer;
        let is_refused = matches!(self.broker.transactions[index], Transaction::Fenced)
            || !pending.are_offsets_added
                && pending.generation != self.broker.generation
                && scenario.holds(Around::GenerationIsChecked);
        if is_refused {
            self.with(into, (number, "its commit is refused", 0), |next| next.end_pending(number, false));
            return;
        }
        if !pending.are_offsets_added {
            // The producer's transaction before is not completed yet: the broker lets it wait.
            if matches!(self.broker.transactions[index], Transaction::Prepared(_)) {
                return;
            }
            self.with(into, (number, "adds offsets", 0), |next| {
                next.broker.sequence += 1;
                let sequence = next.broker.sequence;
                let Some(pending) = next.workers[number].pending.front_mut() else { return };
                pending.are_offsets_added = true;
                let added = Added { offsets: pending.offsets.clone(), topic: pending.topic, sequence };
                next.broker.transactions[index] = Transaction::Open(Some(added));
            });
            return;
        }
        // librdkafka delivers what is queued before it commits.
        if self.workers[number].queue.iter().any(|message| message.producer == pending.producer) {
            return;
        }
        let commit = |next: &mut Cluster| {
            for written in &mut next.broker.output {
                if written.producer == index && written.status == Status::Open {
                    written.status = Status::Prepared;
                }
            }
            if let Transaction::Open(added) = std::mem::take(&mut next.broker.transactions[index]) {
                next.broker.transactions[index] = Transaction::Prepared(added);
            }
        };
        self.with(into, (number, "commits", 0), |next| {
            commit(next);
            next.end_pending(number, true);
        });
        if self.faults > 0 {
            self.with(into, (number, "commits, and the answer is lost", 0), |next| {
                next.faults -= 1;
                commit(next);
                next.end_pending(number, false);
            });
        }
    }

    fn end_pending(&mut self, number: usize, committed: bool) {
        let worker = &mut self.workers[number];
        worker.pending.pop_front();
        if worker.is_alive {
            worker.outcomes.push_back(committed);
        }
    }

    /// Messages are delivered in order, fail, or are refused.
    fn messages_settle(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
        let queue = &self.workers[number].queue;
        for (place, message) in queue.iter().enumerate() {
            if queue[..place].iter().any(|before| before.producer == message.producer) {
                continue;
            }
            let index = 2 * number + message.producer;
            let fail = |next: &mut Cluster, kind: Kind| {
                let worker = &mut next.workers[number];
                worker.queue.remove(place);
                worker.failed[message.producer].get_or_insert(kind);
            };
            let is_refused = scenario.refused == Some(message.offset) && message.partition == 0 && !message.is_letter;
            if scenario.in_transactions() && matches!(self.broker.transactions[index], Transaction::Fenced) {
                self.with(into, (number, "is fenced", message.offset), |next| fail(next, Kind::Any));
            } else if matches!(self.broker.transactions[index], Transaction::Prepared(_)) {
                // It waits until the transaction before is completed.
            } else if is_refused {
                self.with(into, (number, "its verdict is refused", message.offset), |next| {
                    fail(next, Kind::Any);
                    next.workers[number].to_learn.insert(message.offset);
                });
            } else if scenario.is_partition_missing && message.partition == 1 {
                self.with(into, (number, "its partition is missing", message.offset), |next| {
                    fail(next, Kind::Partition(1));
                });
            } else {
                self.with(into, (number, "delivers", message.offset), |next| {
                    next.workers[number].queue.remove(place);
                    let status = if scenario.in_transactions() { Status::Open } else { Status::Committed };
                    let Message { partition, offset, topic, .. } = *message;
                    next.broker.output.push(Written { topic, partition, offset, producer: index, status });
                    if scenario.in_transactions() && next.broker.transactions[index] == Transaction::None {
                        next.broker.transactions[index] = Transaction::Open(None);
                    }
                });
                if self.faults > 0 {
                    self.with(into, (number, "is not delivered", message.offset), |next| {
                        next.faults -= 1;
                        fail(next, Kind::Any);
                    });
                }
            }
        }
    }

    fn broker_acts(&self, scenario: &Scenario, into: &mut Vec<(Action, Cluster)>) {
        let (owner, other) = (self.broker.owner, 1 - self.broker.owner);
        let can_move = self.workers[other].is_alive && self.workers[other].generation == 0;
        let is_member = self.workers[owner].generation == self.broker.generation;
        if self.moves > 0 && can_move && self.workers[owner].is_alive && is_member {
            if !self.broker.is_revoking {
                self.with(into, (owner, "is to give up its partitions", 0), |next| {
                    next.moves -= 1;
                    next.broker.is_revoking = true;
                    next.workers[owner].changes.push_back("revoked");
                });
            }
            self.with(into, (owner, "is put out of the group", 0), |next| {
                next.moves -= 1;
                next.broker.is_revoking = false;
                next.assign(other);
            });
        }
        if can_move && !self.workers[owner].is_alive {
            self.with(into, (owner, "is missed by the group", 0), |next| next.assign(other));
        }
        for number in 0..2 {
            let worker = &self.workers[number];
            let is_zombie = worker.generation != 0 && worker.generation != self.broker.generation;
            if is_zombie && worker.is_alive && !worker.changes.contains(&"lost") && worker.answering != "lost" {
                self.with(into, (number, "learns that it was put out", 0), |next| {
                    next.workers[number].changes.clear();
                    next.workers[number].changes.push_back("lost");
                });
            }
        }
        for (index, transaction) in self.broker.transactions.iter().enumerate() {
            match transaction {
                Transaction::Prepared(_) => {
                    self.with(into, (index / 2, "its markers are written", 0), |next| next.complete(scenario, index));
                }
                Transaction::Open(_) if self.timeouts > 0 || !self.workers[index / 2].is_alive => {
                    self.with(into, (index / 2, "its transaction times out", 0), |next| {
                        next.timeouts = next.timeouts.saturating_sub(1);
                        next.abort(index, Transaction::Fenced);
                    });
                }
                _ => {}
            }
        }
        if !self.is_recreated {
            self.with(into, (2, "the topic is made again", 0), |next| {
                next.is_recreated = true;
                next.broker.topic += 1;
            });
        }
        if !self.is_start_moved {
            self.with(into, (2, "the log's start moves", 0), |next| {
                next.is_start_moved = true;
                next.broker.starts[0] += 1;
            });
        }
    }

    /// Numbers of which only the order matters.
    fn normalise(&mut self, scenario: &Scenario) {
        let mut sequences = vec![0];
        for transaction in &self.broker.transactions {
            if let Transaction::Open(Some(added)) | Transaction::Prepared(Some(added)) = transaction {
                sequences.push(added.sequence);
            }
        }
        sequences.extend(self.broker.committed.values().map(|(.., sequence)| *sequence));
        sequences.sort_unstable();
        sequences.dedup();
        let rank = |sequence: u8| sequences.iter().position(|known| *known == sequence).unwrap_or(0) as u8;
        for transaction in &mut self.broker.transactions {
            if let Transaction::Open(Some(added)) | Transaction::Prepared(Some(added)) = transaction {
                added.sequence = rank(added.sequence);
            }
        }
        for (.., sequence) in self.broker.committed.values_mut() {
            *sequence = rank(*sequence);
        }
        self.broker.sequence = sequences.len() as u8 - 1;
        if scenario.in_transactions() {
            for worker in &mut self.workers {
                worker.protocol.batch = 0;
                worker.queue.iter_mut().for_each(|message| message.batch = 0);
            }
        }
    }

    /// What must hold in every state.
    fn check(&self, scenario: &Scenario) -> Option<String> {
        for partition in 0..scenario.records.len() as i32 {
            let of_this = |written: &&Written| written.topic == self.broker.topic && written.partition == partition;
            let written = |kept: &dyn Fn(Status) -> bool| -> Vec<i64> {
                let kept = self.broker.output.iter().filter(of_this).filter(|written| kept(written.status));
                kept.map(|written| written.offset).collect()
            };
            let visible = written(&|status| status == Status::Committed);
            let decided = written(&|status| status != Status::Open);
            if scenario.in_transactions() {
                if !visible.is_sorted() {
                    return Some(format!("out of order: {visible:?}"));
                }
                if visible.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Some(format!("doubled: {visible:?}"));
                }
            }
            let Some((committed, topic, _)) = self.broker.committed.get(&partition) else { continue };
            if *topic != self.broker.topic {
                continue;
            }
            let start = self.broker.starts[partition as usize];
            if let Some(lost) = (start..*committed).find(|offset| !decided.contains(offset)) {
                return Some(format!("lost: {lost}, below the committed {committed}; written {decided:?}"));
            }
        }
        None
    }

    /// Every record that the log holds is scored, where nothing more will happen.
    pub fn check_end(&self, scenario: &Scenario) -> Option<String> {
        let someone = self.workers.iter().any(|worker| worker.is_alive);
        for (partition, records) in scenario.records.iter().enumerate() {
            if !someone || scenario.is_partition_missing && partition == 1 {
                continue;
            }
            let is_written = |offset: &i64| {
                self.broker.output.iter().any(|written| {
                    written.topic == self.broker.topic
                        && written.partition == partition as i32
                        && written.offset == *offset
                        && written.status == Status::Committed
                })
            };
            if let Some(unread) = (self.broker.starts[partition]..*records).find(|offset| !is_written(offset)) {
                return Some(format!("stands still before record {unread} of partition {partition}"));
            }
        }
        None
    }
}
