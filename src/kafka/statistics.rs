//! librdkafka's statistics: the few of its many fields that are of use here, read from the JSON of one client. Pure.
//!
//! ```text
//!  librdkafka, every statistics.interval.ms ─► JSON ─► Statistics ─┬─► lag of the partitions (consumers)
//!                                                                  └─► telemetry::clients: metrics of all clients
//! ```
//!
//! What the fields mean: STATISTICS.md of librdkafka. Times are microseconds where not said otherwise.

use std::collections::HashMap;

use serde::Deserialize;

use crate::log_events;

/// What one client says of itself.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Its connections, by names that do not matter here.
    pub brokers: HashMap<String, Broker>,
    topics: HashMap<String, Topic>,
    /// A producer's messages in memory.
    msg_cnt: u64,
    /// And their bytes.
    msg_size: u64,
    txmsgs: u64,
    txmsg_bytes: u64,
    rxmsgs: u64,
    rxmsg_bytes: u64,
    cgrp: Option<Membership>,
    eos: Option<Identity>,
}

/// A connection; counts are since the client was opened.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Broker {
    name: String,
    nodename: String,
    nodeid: i32,
    source: String,
    state: String,
    /// Requests that wait to be sent.
    outbuf_cnt: u64,
    /// Requests that wait for their response.
    waitresp_cnt: u64,
    /// Since something came last; -1: nothing has.
    rxidle: i64,
    /// Requests sent.
    pub tx: u64,
    /// Bytes sent.
    pub txbytes: u64,
    /// Errors of sending.
    pub txerrs: u64,
    /// Requests sent again.
    pub txretries: u64,
    /// Requests that timed out.
    pub req_timeouts: u64,
    /// Responses received.
    pub rx: u64,
    /// Bytes received.
    pub rxbytes: u64,
    /// Errors of receiving.
    pub rxerrs: u64,
    /// Attempts to connect.
    pub connects: u64,
    /// Connections that ended.
    pub disconnects: u64,
    /// Times from request to response.
    pub rtt: Window,
    /// Times that the broker throttled this client for, milliseconds.
    pub throttle: Window,
}

/// Values since the client's last statistics.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Window {
    /// Their sum.
    pub sum: u64,
    /// The largest.
    pub max: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Topic {
    partitions: HashMap<i32, Partition>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Partition {
    partition: i32,
    desired: bool,
    /// The broker that it is read from; -1: none.
    broker: i32,
    /// Records fetched and not yet taken; of all partitions together where they deliver into one queue, as ours do.
    fetchq_cnt: u64,
    fetchq_size: u64,
    app_offset: i64,
    hi_offset: i64,
    ls_offset: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Membership {
    join_state: String,
    assignment_size: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Identity {
    idemp_state: String,
    txn_state: String,
    epoch_cnt: u64,
}

/// How far behind one partition's records a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionLag {
    /// The partition.
    pub partition: i32,
    /// Records between the last one handed to the pipeline and the end of the partition.
    pub records: i64,
}

/// What waits in a client's memory, and what passed through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Messages received or sent since the client was opened.
    pub passed: u64,
    /// Their bytes.
    pub passed_bytes: u64,
    /// Messages that wait: to be taken, or to be delivered.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
}

impl Statistics {
    /// Reads one client's statistics. librdkafka does not escape what it quotes (a reason for a rebalance, say), so what it
    /// writes is not always JSON: then there are none this time.
    pub fn read(json: &[u8]) -> Option<Statistics> {
        let read = serde_json::from_slice(json);
        read.inspect_err(|error| log_events::kafka::StatisticsUnreadable { error }.log()).ok()
    }

    /// A connection is up.
    pub fn is_connected(&self) -> bool {
        self.brokers.values().any(Broker::is_up)
    }

    /// Lag of the assigned partitions of `topic` that were read from.
    pub fn lag(&self, topic: &str) -> Vec<PartitionLag> {
        let partitions = self.topics.get(topic).into_iter().flat_map(|topic| topic.partitions.values());
        let read = partitions.filter(|partition| partition.desired && partition.app_offset >= 0);
        read.map(|partition| PartitionLag {
            partition: partition.partition,
            records: (partition.ls_offset.max(partition.hi_offset) - partition.app_offset).max(0),
        })
        .collect()
    }

    /// A consumer's messages.
    pub fn consumed(&self) -> Messages {
        let partitions = || self.topics.values().flat_map(|topic| topic.partitions.values());
        // All partitions deliver into one queue, and each of them tells of all of it.
        let waiting = partitions().map(|partition| partition.fetchq_cnt).max();
        let waiting_bytes = partitions().map(|partition| partition.fetchq_size).max();
        Messages {
            passed: self.rxmsgs,
            passed_bytes: self.rxmsg_bytes,
            waiting: waiting.unwrap_or(0),
            waiting_bytes: waiting_bytes.unwrap_or(0),
        }
    }

    /// A producer's messages.
    pub fn produced(&self) -> Messages {
        Messages {
            passed: self.txmsgs,
            passed_bytes: self.txmsg_bytes,
            waiting: self.msg_cnt,
            waiting_bytes: self.msg_size,
        }
    }

    /// Partitions that the group has assigned to a consumer.
    pub fn assigned(&self) -> u64 {
        self.cgrp.as_ref().map_or(0, |membership| membership.assignment_size)
    }

    /// Ids that a producer was given.
    pub fn producer_ids(&self) -> u64 {
        self.eos.as_ref().map_or(0, |identity| identity.epoch_cnt)
    }

    /// What a consumer does within its group, as the metric names it.
    pub fn consumer_state(&self) -> &'static str {
        let steady = self.cgrp.as_ref().is_some_and(|membership| membership.join_state == "steady");
        if steady { "steady" } else { "rebalancing" }
    }

    /// What a producer does with its transaction, or without one with its id, as the metric names it.
    pub fn producer_state(&self) -> &'static str {
        let Some(Identity { idemp_state, txn_state, .. }) = &self.eos else { return "starting" };
        match (txn_state.as_str(), idemp_state.as_str()) {
            (_, "FatalError") | ("AbortableError" | "FatalError", _) => "failed",
            ("InTransaction", _) => "in-transaction",
            ("BeginCommit" | "CommittingTransaction" | "CommitNotAcked", _) => "committing",
            ("BeginAbort" | "AbortingTransaction" | "AbortedNotAcked", _) => "aborting",
            ("Ready" | "ReadyNotAcked", _) => "ready",
            // Not transactional: there is only the id.
            ("Init", "Assigned") => "ready",
            _ => "starting",
        }
    }
}

impl Broker {
    /// The connection is up.
    pub fn is_up(&self) -> bool {
        self.state == "UP"
    }

    /// Requests that wait to be sent or answered.
    pub fn in_flight(&self) -> u64 {
        self.outbuf_cnt + self.waitresp_cnt
    }

    /// The broker, as the metrics name it; `None` for what is no connection.
    pub fn label(&self) -> Option<String> {
        match self.source.as_str() {
            "internal" => None,
            "logical" => Some("coordinator".into()),
            _ if self.nodeid >= 0 => Some(self.nodeid.to_string()),
            _ => Some("bootstrap".into()),
        }
    }

    /// Names the connection as long as its counts go on: neither a broker's id, which becomes known on the way, nor a
    /// coordinator's address, which moves, begins another.
    pub fn connection(&self) -> &str {
        if self.source == "logical" { &self.name } else { &self.nodename }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_read() {
        // As librdkafka 2.12 writes it, shortened.
        let json = br#"{ "name": "rdkafka#consumer-1", "type": "consumer", "msg_cnt":0, "brokers":{
            "127.0.0.1:9092/bootstrap": {"name":"127.0.0.1:9092/bootstrap", "nodeid":-1, "nodename":"127.0.0.1:9092",
              "source":"configured", "state":"INIT", "outbuf_cnt":1, "waitresp_cnt":2, "tx":3, "rtt":{"min":1,"sum":9}},
            "GroupCoordinator": {"name":"GroupCoordinator", "nodeid":1, "nodename":"127.0.0.1:9092", "source":"logical",
              "state":"UP", "toppars":{ "t-0": {"topic":"t"}}},
            ":0/internal": {"name":":0/internal", "nodeid":-1, "source":"internal", "state":"UP"}},
          "topics":{ "t": { "topic":"t", "partitions":{
            "0": {"partition":0, "desired":true, "fetchq_cnt":7, "fetchq_size":70, "app_offset":10, "hi_offset":15, "ls_offset":12},
            "1": {"partition":1, "desired":true, "fetchq_cnt":7, "fetchq_size":70, "app_offset":20, "hi_offset":19, "ls_offset":19},
            "2": {"partition":2, "desired":true, "app_offset":-1001, "hi_offset":4, "ls_offset":4},
            "-1": {"partition":-1, "desired":false, "app_offset":0}}}},
          "cgrp": { "state": "up", "join_state": "steady", "assignment_size": 3 }, "tx":9, "rxmsgs":5, "rxmsg_bytes":55}"#;
        let statistics = Statistics::read(json).expect("JSON");
        let mut lag = statistics.lag("t");
        lag.sort_by_key(|lag| lag.partition);
        let of = |partition, records| PartitionLag { partition, records };
        assert_eq!(lag, [of(0, 5), of(1, 0)], "no lag is known of a partition that was not read from");
        assert!(statistics.lag("other").is_empty());
        let messages = Messages { passed: 5, passed_bytes: 55, waiting: 7, waiting_bytes: 70 };
        assert_eq!(statistics.consumed(), messages, "one queue, though two partitions tell of it");
        assert_eq!((statistics.assigned(), statistics.consumer_state()), (3, "steady"));
        assert!(statistics.is_connected());
        let broker = |name: &str| &statistics.brokers[name];
        let bootstrap = broker("127.0.0.1:9092/bootstrap");
        assert_eq!((bootstrap.label().as_deref(), bootstrap.connection()), (Some("bootstrap"), "127.0.0.1:9092"));
        assert_eq!((bootstrap.in_flight(), bootstrap.tx, bootstrap.rtt.sum), (3, 3, 9));
        let coordinator = broker("GroupCoordinator");
        assert_eq!(
            (coordinator.label().as_deref(), coordinator.connection()),
            (Some("coordinator"), "GroupCoordinator")
        );
        assert_eq!(broker(":0/internal").label(), None);
        assert!(Statistics::read(br#"{"cgrp": {"rebalance_reason": "it said "no""}}"#).is_none());
    }

    #[test]
    fn a_producers_state_is_that_of_its_transaction_or_else_of_its_id() {
        for (idempotence, transaction, state) in [
            ("Init", "Init", "starting"),
            ("WaitPID", "WaitPID", "starting"),
            ("Assigned", "Init", "ready"),
            ("Assigned", "ReadyNotAcked", "ready"),
            ("Assigned", "InTransaction", "in-transaction"),
            ("Assigned", "CommitNotAcked", "committing"),
            ("WaitTxnAbort", "AbortingTransaction", "aborting"),
            ("Assigned", "AbortableError", "failed"),
            ("FatalError", "Init", "failed"),
            ("DrainBump", "Init", "starting"),
        ] {
            let json = format!(
                r#"{{"msg_cnt":4,"msg_size":40,"txmsgs":9,"txmsg_bytes":90,
                    "eos":{{"idemp_state":"{idempotence}","txn_state":"{transaction}","epoch_cnt":2}}}}"#
            );
            let statistics = Statistics::read(json.as_bytes()).expect("JSON");
            assert_eq!(statistics.producer_state(), state, "{idempotence}, {transaction}");
            assert_eq!(statistics.producer_ids(), 2);
            let messages = Messages { passed: 9, passed_bytes: 90, waiting: 4, waiting_bytes: 40 };
            assert_eq!(statistics.produced(), messages);
        }
    }
}
