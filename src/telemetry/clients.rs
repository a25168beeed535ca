//! Kafka clients as metrics: what each says of itself, added up over the threads of the process.
//!
//! ```text
//!  consumer, producers of a thread ─ Statistics ─► Client::report ─┬─ growth since its last report ─► totals
//!                                                                  └─ what holds now ─► its entry, gone with the client
//! ```
//!
//! Clients come and go (a redo opens producers anew) and their counts begin at zero: only what a client's counts grew by
//! is added, so the totals never fall. What holds now is summed over the clients there are. A lock is taken once per
//! report and scrape.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::catalogue::Metric;
use super::catalogue::definitions::{
    CLIENT_STATES, KAFKA_ASSIGNED, KAFKA_CLIENTS, KAFKA_CONNECTIONS, KAFKA_CONNECTS, KAFKA_DISCONNECTS, KAFKA_FAILURES,
    KAFKA_IN_FLIGHT, KAFKA_MESSAGE_BYTES, KAFKA_MESSAGES, KAFKA_PRODUCER_IDS, KAFKA_QUEUE_BYTES, KAFKA_QUEUE_MESSAGES,
    KAFKA_RECEIVED_BYTES, KAFKA_REQUESTS, KAFKA_RESPONSES, KAFKA_RETRIES, KAFKA_ROUND_TRIP, KAFKA_ROUND_TRIP_MAX,
    KAFKA_SENT_BYTES, KAFKA_THROTTLE,
};
use crate::kafka::statistics::{Broker, Messages, Statistics};

/// What a client is for, as the label `client` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads transactions.
    Consumer,
    /// Writes verdicts and dead letters.
    Producer,
}

impl Role {
    const ALL: [Role; 2] = [Role::Consumer, Role::Producer];

    fn as_str(self) -> &'static str {
        match self {
            Role::Consumer => "consumer",
            Role::Producer => "producer",
        }
    }

    fn messages(self, statistics: &Statistics) -> Messages {
        match self {
            Role::Consumer => statistics.consumed(),
            Role::Producer => statistics.produced(),
        }
    }

    fn state(self, statistics: &Statistics) -> &'static str {
        match self {
            Role::Consumer => statistics.consumer_state(),
            Role::Producer => statistics.producer_state(),
        }
    }

    /// The states that this role has.
    fn states(self) -> &'static [&'static str] {
        match self {
            Role::Consumer => &CLIENT_STATES[..2],
            Role::Producer => &CLIENT_STATES[2..],
        }
    }
}

/// A counter of a connection.
struct Counted {
    metric: &'static Metric,
    /// The label `reason`, where the metric has one.
    reason: Option<&'static str>,
    read: fn(&Broker) -> u64,
    /// How many of what is read make the metric's unit; divided by, so that decimal fractions stay short.
    per_unit: f64,
    /// Whether each report has only what came since the last; else it has what came since the client was opened.
    since_last: bool,
}

const fn counted(metric: &'static Metric, read: fn(&Broker) -> u64) -> Counted {
    Counted { metric, reason: None, read, per_unit: 1.0, since_last: false }
}

const fn failed(reason: &'static str, read: fn(&Broker) -> u64) -> Counted {
    Counted { reason: Some(reason), ..counted(&KAFKA_FAILURES, read) }
}

const fn timed(metric: &'static Metric, read: fn(&Broker) -> u64, per_unit: f64) -> Counted {
    Counted { per_unit, since_last: true, ..counted(metric, read) }
}

/// Series of one metric stand next to each other.
static COUNTED: [Counted; 12] = [
    counted(&KAFKA_CONNECTS, |broker| broker.connects),
    counted(&KAFKA_DISCONNECTS, |broker| broker.disconnects),
    counted(&KAFKA_REQUESTS, |broker| broker.tx),
    counted(&KAFKA_RESPONSES, |broker| broker.rx),
    failed("timed-out", |broker| broker.req_timeouts),
    failed("send", |broker| broker.txerrs),
    failed("receive", |broker| broker.rxerrs),
    counted(&KAFKA_RETRIES, |broker| broker.txretries),
    counted(&KAFKA_SENT_BYTES, |broker| broker.txbytes),
    counted(&KAFKA_RECEIVED_BYTES, |broker| broker.rxbytes),
    timed(&KAFKA_ROUND_TRIP, |broker| broker.rtt.sum, 1e6),
    timed(&KAFKA_THROTTLE, |broker| broker.throttle.sum, 1e3),
];

type Counts = [u64; COUNTED.len()];

/// What holds now of a client's connections to one broker.
#[derive(Clone, Copy, Debug, Default)]
struct Connection {
    up: u64,
    in_flight: u64,
    /// Longest round trip, microseconds.
    longest: u64,
}

/// One client: its last report.
#[derive(Debug)]
struct Entry {
    role: Role,
    state: &'static str,
    messages: Messages,
    assigned: u64,
    producer_ids: u64,
    /// By connection: its counts so far.
    counts: HashMap<String, Counts>,
    /// By the label `broker`.
    connections: BTreeMap<String, Connection>,
}

/// What all clients of a role have counted, those that are gone included.
#[derive(Debug, Default)]
struct Totals {
    messages: u64,
    message_bytes: u64,
    /// By the label `broker`; as many as the cluster has had brokers, and two.
    brokers: BTreeMap<String, Counts>,
}

#[derive(Debug, Default)]
struct State {
    opened: u64,
    producer_ids: u64,
    totals: [Totals; Role::ALL.len()],
    /// The clients that have reported, by their number.
    entries: BTreeMap<u64, Entry>,
}

/// The process's clients.
#[derive(Debug, Default)]
pub struct Clients {
    state: Mutex<State>,
}

/// The ones of this process.
fn clients() -> &'static Arc<Clients> {
    static CLIENTS: OnceLock<Arc<Clients>> = OnceLock::new();
    CLIENTS.get_or_init(Arc::default)
}

/// Prometheus text format.
pub(super) fn render(text: &mut String) {
    clients().render(text);
}

/// One client's part; dropped with it.
#[derive(Debug)]
pub struct Client {
    clients: Arc<Clients>,
    role: Role,
    number: u64,
}

impl Client {
    /// A client of this process was opened.
    pub fn opened(role: Role) -> Client {
        clients().clone().open(role)
    }

    /// Takes what the client says of itself.
    pub fn report(&self, statistics: &Statistics) {
        let mut state = self.clients.lock();
        let State { producer_ids, totals, entries, .. } = &mut *state;
        let (role, totals) = (self.role, &mut totals[self.role as usize]);
        let entry = entries.entry(self.number).or_insert_with(|| Entry {
            role,
            state: "",
            messages: Messages::default(),
            assigned: 0,
            producer_ids: 0,
            counts: HashMap::new(),
            connections: BTreeMap::new(),
        });
        let messages = role.messages(statistics);
        totals.messages += messages.passed.saturating_sub(entry.messages.passed);
        totals.message_bytes += messages.passed_bytes.saturating_sub(entry.messages.passed_bytes);
        *producer_ids += statistics.producer_ids().saturating_sub(entry.producer_ids);
        (entry.state, entry.messages) = (role.state(statistics), messages);
        (entry.assigned, entry.producer_ids) = (statistics.assigned(), statistics.producer_ids());
        entry.connections.clear();
        for broker in statistics.brokers.values() {
            let Some(label) = broker.label() else { continue };
            let before = entry.counts.entry(broker.connection().to_owned()).or_default();
            let sums = totals.brokers.entry(label.clone()).or_default();
            for ((counted, before), sum) in COUNTED.iter().zip(before).zip(sums) {
                let now = (counted.read)(broker);
                *sum += if counted.since_last { now } else { now.saturating_sub(*before) };
                *before = now;
            }
            let connection = entry.connections.entry(label).or_default();
            connection.up += u64::from(broker.is_up());
            connection.in_flight += broker.in_flight();
            connection.longest = connection.longest.max(broker.rtt.max);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.clients.lock().entries.remove(&self.number);
    }
}

impl Clients {
    fn open(self: Arc<Self>, role: Role) -> Client {
        let mut state = self.lock();
        state.opened += 1;
        let number = state.opened;
        drop(state);
        Client { clients: self, role, number }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prometheus text format; nothing before the first report.
    fn render(&self, text: &mut String) {
        let state = self.lock();
        let roles: BTreeSet<Role> =
            Role::ALL.into_iter().filter(|role| !state.totals[*role as usize].brokers.is_empty()).collect();
        if roles.is_empty() {
            return;
        }
        let entries = |role: Role| state.entries.values().filter(move |entry| entry.role == role);
        let of_role = |text: &mut String, metric: &Metric, value: &dyn Fn(Role) -> u64| {
            metric.describe(text);
            roles.iter().for_each(|role| metric.sample(text, &[role.as_str()], value(*role)));
        };

        KAFKA_CLIENTS.describe(text);
        for role in &roles {
            for name in role.states() {
                let count = entries(*role).filter(|entry| entry.state == *name).count();
                KAFKA_CLIENTS.sample(text, &[role.as_str(), name], count);
            }
        }
        KAFKA_ASSIGNED.describe(text);
        KAFKA_ASSIGNED.sample(text, &[], entries(Role::Consumer).map(|entry| entry.assigned).sum::<u64>());
        KAFKA_PRODUCER_IDS.describe(text);
        KAFKA_PRODUCER_IDS.sample(text, &[], state.producer_ids);
        of_role(text, &KAFKA_MESSAGES, &|role| state.totals[role as usize].messages);
        of_role(text, &KAFKA_MESSAGE_BYTES, &|role| state.totals[role as usize].message_bytes);
        of_role(text, &KAFKA_QUEUE_MESSAGES, &|role| entries(role).map(|entry| entry.messages.waiting).sum());
        of_role(text, &KAFKA_QUEUE_BYTES, &|role| entries(role).map(|entry| entry.messages.waiting_bytes).sum());

        let connections = |text: &mut String, metric: &Metric, value: &dyn Fn(&[Connection]) -> f64| {
            metric.describe(text);
            for role in &roles {
                for broker in state.totals[*role as usize].brokers.keys() {
                    let of_broker = entries(*role).filter_map(|entry| entry.connections.get(broker).copied());
                    let of_broker: Vec<Connection> = of_broker.collect();
                    metric.sample(text, &[role.as_str(), broker], value(&of_broker));
                }
            }
        };
        connections(text, &KAFKA_CONNECTIONS, &|all| all.iter().map(|connection| connection.up).sum::<u64>() as f64);
        connections(text, &KAFKA_IN_FLIGHT, &|all| all.iter().map(|one| one.in_flight).sum::<u64>() as f64);
        connections(text, &KAFKA_ROUND_TRIP_MAX, &|all| {
            all.iter().map(|connection| connection.longest).max().unwrap_or(0) as f64 / 1e6
        });

        let mut described = None;
        for (index, counted) in COUNTED.iter().enumerate() {
            if described.replace(counted.metric.name) != Some(counted.metric.name) {
                counted.metric.describe(text);
            }
            for role in &roles {
                for (broker, counts) in &state.totals[*role as usize].brokers {
                    let mut labels = vec![role.as_str(), broker.as_str()];
                    labels.extend(counted.reason);
                    counted.metric.sample(text, &labels, counts[index] as f64 / counted.per_unit);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(tx: u64, rtt: u64, messages: u64, state: &str) -> Statistics {
        let json = format!(
            r#"{{"msg_cnt":3,"msg_size":30,"txmsgs":{messages},"txmsg_bytes":{messages}0,"brokers":{{
                "a":{{"nodename":"h:1","nodeid":1,"source":"learned","state":"UP","tx":{tx},"rtt":{{"sum":{rtt},"max":{rtt}}},
                      "waitresp_cnt":1,"req_timeouts":{tx}}},
                "b":{{"nodename":"h:2","nodeid":2,"source":"learned","state":"DOWN"}}}},
               "eos":{{"idemp_state":"Assigned","txn_state":"{state}","epoch_cnt":1}}}}"#
        );
        Statistics::read(json.as_bytes()).expect("JSON")
    }

    fn shown(clients: &Clients) -> String {
        let mut text = String::new();
        clients.render(&mut text);
        text
    }

    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            let line = format!("fraud_scorer_kafka_{line}");
            assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn counters_go_on_when_a_client_is_closed_and_what_holds_now_goes_with_it() {
        let clients = Arc::new(Clients::default());
        let open = || clients.clone().open(Role::Producer);
        let (one, other) = (open(), open());
        assert_eq!(shown(&clients), "", "nothing has reported");
        one.report(&statistics(10, 2_000_000, 100, "InTransaction"));
        one.report(&statistics(15, 500_000, 150, "InTransaction"));
        other.report(&statistics(1, 250_000, 7, "Ready"));
        let text = shown(&clients);
        check(
            &text,
            &[
                "requests_total{client=\"producer\",broker=\"1\"} 16",
                "requests_total{client=\"producer\",broker=\"2\"} 0",
                "round_trip_seconds_total{client=\"producer\",broker=\"1\"} 2.75",
                "round_trip_max_seconds{client=\"producer\",broker=\"1\"} 0.5",
                "request_failures_total{client=\"producer\",broker=\"1\",reason=\"timed-out\"} 16",
                "connections{client=\"producer\",broker=\"1\"} 2",
                "connections{client=\"producer\",broker=\"2\"} 0",
                "requests_in_flight{client=\"producer\",broker=\"1\"} 2",
                "messages_total{client=\"producer\"} 157",
                "message_bytes_total{client=\"producer\"} 1570",
                "queue_messages{client=\"producer\"} 6",
                "producer_ids_total 2",
                "clients{client=\"producer\",state=\"in-transaction\"} 1",
                "clients{client=\"producer\",state=\"failed\"} 0",
            ],
        );
        assert!(!text.contains("client=\"consumer\""), "none has reported:\n{text}");

        drop(one);
        let again = open();
        again.report(&statistics(4, 0, 2, "Ready"));
        check(
            &shown(&clients),
            &[
                "requests_total{client=\"producer\",broker=\"1\"} 20",
                "messages_total{client=\"producer\"} 159",
                "connections{client=\"producer\",broker=\"1\"} 2",
                "queue_messages{client=\"producer\"} 6",
                "producer_ids_total 3",
                "clients{client=\"producer\",state=\"in-transaction\"} 0",
                "clients{client=\"producer\",state=\"ready\"} 2",
            ],
        );
        drop((other, again));
        check(
            &shown(&clients),
            &[
                "requests_total{client=\"producer\",broker=\"1\"} 20",
                "connections{client=\"producer\",broker=\"1\"} 0",
                "clients{client=\"producer\",state=\"ready\"} 0",
            ],
        );
    }

    #[test]
    fn a_broker_whose_id_becomes_known_is_not_counted_twice() {
        let clients = Arc::new(Clients::default());
        let client = clients.clone().open(Role::Consumer);
        let report = |id: i32, tx: u64| {
            let json = format!(
                r#"{{"brokers":{{"x/{id}":{{"nodename":"h:1","nodeid":{id},"source":"configured","tx":{tx}}}}}}}"#
            );
            client.report(&Statistics::read(json.as_bytes()).expect("JSON"));
        };
        report(-1, 3);
        report(7, 5);
        check(
            &shown(&clients),
            &[
                "requests_total{client=\"consumer\",broker=\"bootstrap\"} 3",
                "requests_total{client=\"consumer\",broker=\"7\"} 2",
            ],
        );
    }
}
