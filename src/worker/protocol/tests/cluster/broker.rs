//! What happens outside of the workers' loops: messages are settled, commit threads go on, the group moves partitions.

use super::*;

impl Cluster {
    /// The partitions are this worker's from now on.
    pub(super) fn assign(&mut self, to: usize) {
        self.broker.generation += 1;
        self.broker.owner = to;
        let worker = &mut self.workers[to];
        if worker.is_alive {
            worker.generation = self.broker.generation;
            worker.changes.push_back("assigned");
        }
    }

    pub(super) fn abort(&mut self, index: usize, then: Transaction) {
        self.broker.output.retain(|written| written.producer != index || written.status != Status::Open);
        self.broker.transactions[index] = then;
    }

    /// A prepared transaction's markers are written.
    pub(super) fn complete(&mut self, scenario: &Scenario, index: usize) {
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
                self.broker.committed.insert(partition, (next, topic, sequence));
            }
        }
    }

    /// The commit thread of a worker.
    pub(super) fn commit_thread_acts(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
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

    pub(super) fn end_pending(&mut self, number: usize, committed: bool) {
        let worker = &mut self.workers[number];
        worker.pending.pop_front();
        if worker.is_alive {
            worker.outcomes.push_back(committed);
        }
    }

    /// Messages are delivered in order, fail, or are refused.
    pub(super) fn messages_settle(&self, scenario: &Scenario, number: usize, into: &mut Vec<(Action, Cluster)>) {
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
                    let Message { partition, offset, epoch, topic, .. } = *message;
                    next.broker.output.push(Written { topic, partition, offset, epoch, producer: index, status });
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

    pub(super) fn broker_acts(&self, scenario: &Scenario, into: &mut Vec<(Action, Cluster)>) {
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
        if !self.is_cut_short {
            self.with(into, (2, "a leader without the log's last record takes over", 0), |next| {
                next.is_cut_short = true;
                next.broker.cut = Some(scenario.records[0] - 1);
            });
        }
        if !self.is_start_moved {
            self.with(into, (2, "the log's start moves", 0), |next| {
                next.is_start_moved = true;
                next.broker.starts[0] += 1;
            });
        }
    }
}
