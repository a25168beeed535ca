//! A small cluster: one broker, two workers that perform the real protocol's effects one at a time, everything between them
//! in any order.
//!
//! What librdkafka and the broker do is modelled as far as the guarantees rest on it: transactions with fencing and two
//! phases (KIP-98), offsets with the member's generation (KIP-447), fetches of offsets that wait for open ones
//! (`require_stable`), messages that are delivered in order, fail, or are refused.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

mod broker;
mod scenario;
mod worker;

pub use self::scenario::{Around, Scenario};
use super::super::{Effect, Event, Failed, Protocol};
use crate::kafka::position::{Committed, Next, Offsets, Reset, Restart, restart};
use crate::transaction::Step;
use crate::transaction::rules::{Rule, Rules};
use crate::worker::positions::Run;

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
    epoch: i32,
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
    /// Partition 0: from here on the log is of a later leader.
    cut: Option<i64>,
    output: Vec<Written>,
    /// Two of each worker.
    transactions: [Transaction; 4],
    /// The group's offsets, the topic they are of, and when they were added.
    committed: BTreeMap<i32, (Next, u8, u8)>,
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
    epoch: i32,
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
    /// Next offset that its consumer delivers, with the leader of the record before it.
    fetch: BTreeMap<i32, Next>,
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
    is_cut_short: bool,
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
                cut: None,
                output: Vec::new(),
                transactions: Default::default(),
                committed: partitions
                    .iter()
                    .filter(|_| !scenario.is_group_new)
                    .map(|&partition| (partition, (Next::at(0), 0, 0)))
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
            is_cut_short: !scenario.is_cut_short,
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

    /// The leader that wrote a record.
    fn epoch_of(&self, partition: i32, offset: i64) -> i32 {
        i32::from(partition == 0 && self.broker.cut.is_some_and(|cut| offset >= cut))
    }

    /// What must hold in every state.
    fn check(&self, scenario: &Scenario) -> Option<String> {
        for partition in 0..scenario.records.len() as i32 {
            let of_this = |written: &&Written| written.topic == self.broker.topic && written.partition == partition;
            let written = |kept: &dyn Fn(Status) -> bool| -> Vec<(i32, i64)> {
                let kept = self.broker.output.iter().filter(of_this).filter(|written| kept(written.status));
                kept.map(|written| (written.epoch, written.offset)).collect()
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
            // Behind where the logs part, an offset of the earlier leader says nothing: the broker knows by its epoch.
            let cut = self.broker.cut.filter(|_| partition == 0 && committed.epoch < 1).unwrap_or(i64::MAX);
            let mut below = start..committed.offset.min(cut);
            if let Some(lost) = below.find(|&offset| !decided.contains(&(self.epoch_of(partition, offset), offset))) {
                return Some(format!("lost: {lost}, below the committed {committed:?}; written {decided:?}"));
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
                        && written.epoch == self.epoch_of(partition as i32, *offset)
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
