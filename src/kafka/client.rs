//! What every Kafka client of the worker shares: its default properties, where its log lines go, its last error.

use std::sync::atomic::{AtomicBool, AtomicI16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::consumer::{Membership, NativeConsumer};
use super::lines;
use super::native::Reports;
use crate::log_events;

/// Largest value a client may send: librdkafka's own upper bound, so that a dead letter is refused by the topic's limit
/// (which can be raised) and never by ours.
const MAX_MESSAGE_BYTES: &str = "1000000000";

/// Consumer properties the user did not set.
const CONSUMER_DEFAULTS: &[(&str, &str)] = &[
    ("auto.offset.reset", "earliest"), // a new group begins with what is there: nothing lost
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("isolation.level", "read_committed"),
    // A batch that was damaged on its way, or on the broker's disk, is an error and no record.
    ("check.crcs", "true"),
    // A worker that dies is noticed after this long (librdkafka's default is 45 s).
    ("session.timeout.ms", "10000"),
    ("heartbeat.interval.ms", "2000"),
    // librdkafka waits a whole second when its local queue was full once; a fast consumer starves meanwhile.
    ("fetch.queue.backoff.ms", "5"),
    // Bounds the records waiting in memory per scoring thread: some 15,000 of the usual size.
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "100000"),
    ("statistics.interval.ms", "1000"), // feeds the lag metrics and those of the clients
];

/// Producer properties the user did not set.
const PRODUCER_DEFAULTS: &[(&str, &str)] = &[
    ("acks", "all"),
    // Under load, one request at a time makes the next ones larger by themselves. With more in flight, librdkafka's network
    // thread goes round without sleeping while messages wait behind a request of their own partition.
    ("max.in.flight.requests.per.connection", "1"),
    ("batch.num.messages", "10000"),
    // Bounds undelivered verdicts in memory per producer; when full, the thread stops consuming.
    ("queue.buffering.max.messages", "50000"),
    // Must hold the largest record that can be read (receive.message.max.bytes, 100 MB), or its dead letter would never
    // find room; with messages of the usual size the count above is reached long before.
    ("queue.buffering.max.kbytes", "131072"),
    ("message.max.bytes", MAX_MESSAGE_BYTES),
    ("compression.type", "none"),
    // Feeds the metrics of the clients; a consumer's, which lag hangs on, come more often.
    ("statistics.interval.ms", "5000"),
];

/// `base` with `defaults` for what it lacks and `fixed` whatever it says.
fn layered(base: &ClientConfig, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
    let mut config = base.clone();
    for (key, value) in defaults {
        if config.get(key).is_none() {
            config.set(*key, *value);
        }
    }
    for (key, value) in fixed {
        config.set(*key, *value);
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// A transaction is open for the commit interval, and then its end needs several round trips.
const TRANSACTION_END: Duration = Duration::from_secs(1);

/// SASL mechanisms that clients of this build can use for as long as they run.
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];

/// Why the worker cannot keep its promises with these properties, each of which librdkafka takes; with the fix.
/// `transactions` is the commit interval where there are any.
pub fn conflict(base: &ClientConfig, transactions: Option<Duration>) -> Option<String> {
    let is = |key: &str, value: &str| base.get(key).is_some_and(|set| set.trim().eq_ignore_ascii_case(value));
    if is("group.protocol", "consumer") {
        return Some(
            "group.protocol=consumer: the worker answers changes of its partitions by the classic protocol, which every \
             broker knows; leave it out"
                .to_owned(),
        );
    }
    for key in ["sasl.mechanism", "sasl.mechanisms"] {
        if let Some(mechanism) = base.get(key).filter(|_| !MECHANISMS.iter().any(|known| is(key, known))) {
            return Some(format!(
                "{key}={mechanism}: this build logs in by {}; it has neither Kerberos (GSSAPI) nor AWS_MSK_IAM",
                MECHANISMS.join(", ")
            ));
        }
    }
    let interval = transactions?;
    if is("isolation.level", "read_uncommitted") {
        return Some(
            "isolation.level=read_uncommitted: exactly once, input that was aborted would be scored, and offsets would be \
             read while they are still being committed; leave it out, or use --guarantee at-least-once"
                .to_owned(),
        );
    }
    let timeout = base.get("transaction.timeout.ms")?.trim().parse().map(Duration::from_millis).ok()?;
    (timeout < interval + TRANSACTION_END).then(|| {
        format!(
            "transaction.timeout.ms={}: the broker would abort transactions before their end, which comes up to \
             --commit-interval {}ms after their beginning and takes up to {} s; set it to {} or more, or leave it out",
            timeout.as_millis(),
            interval.as_millis(),
            TRANSACTION_END.as_secs(),
            (interval + TRANSACTION_END).as_millis()
        )
    })
}

/// The transactional id of a scoring thread: distinct for distinct groups, instances and threads, whatever characters
/// they hold, since the group's length at the end says where the group ends. Begins with `GROUP-`: ACLs name that prefix.
pub fn transactional_id(group: &str, instance: &str, thread: usize) -> String {
    format!("{group}-{instance}-{thread}-{}", group.len())
}

/// Properties of a scoring thread's consumer. Offsets are committed by the pipeline alone. A static member's name is one
/// thread's: with more than one `threads`, each has the name with its number behind it.
pub fn consumer_config(base: &ClientConfig, group: &str, thread: usize, threads: usize) -> ClientConfig {
    let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    let mut config = layered(base, CONSUMER_DEFAULTS, &fixed);
    if let Some(name) = base.get("group.instance.id").filter(|_| threads > 1) {
        config.set("group.instance.id", format!("{name}-{thread}"));
    }
    config
}

/// Properties of an exactly-once thread's producer.
///
/// The transaction times out at the broker after `transaction.timeout.ms`: how long a subscriber waits at most for the
/// rows behind those of a worker that was killed.
pub fn transactional_config(base: &ClientConfig, transactional_id: &str) -> ClientConfig {
    let defaults = [
        ("transaction.timeout.ms", "15000"),
        // Nobody sees a verdict before its commit, and a commit sends at once what still waits: fewer, larger requests.
        ("linger.ms", "100"),
    ];
    let base = layered(base, &defaults, &[("transactional.id", transactional_id)]);
    layered(&base, PRODUCER_DEFAULTS, &[])
}

/// Properties of an at-least-once thread's producer: idempotent, so that a retry neither doubles nor reorders, and
/// without a time limit, so that an outage of the broker stops consumption instead of dropping verdicts.
pub fn idempotent_config(base: &ClientConfig) -> ClientConfig {
    let defaults = [
        ("message.timeout.ms", "0"),
        // A verdict leaves at once; those that come while a request is under way share the next.
        ("linger.ms", "0"),
    ];
    let base = layered(base, &defaults, &[("enable.idempotence", "true")]);
    layered(&base, PRODUCER_DEFAULTS, &[])
}

/// Properties of a client that only asks questions.
pub fn plain_config(base: &ClientConfig) -> ClientConfig {
    layered(base, &[("message.max.bytes", MAX_MESSAGE_BYTES)], &[])
}

/// What librdkafka reports to a client that is no member of a group.
pub struct Events {
    /// The last word on its brokers.
    pub health: Arc<BrokerHealth>,
    /// A topic that it reads was deleted and made again since it was opened; seen where `debug=metadata` is on.
    pub is_recreated: AtomicBool,
    /// The user wants to see librdkafka's debug lines.
    pub is_debugged: bool,
}

/// Has librdkafka write the lines of one more debug context, by which it tells what it tells in no other way. Returns whether
/// the user wants to see debug lines.
pub fn overhear(config: &mut ClientConfig, context: &str) -> bool {
    let debug = config.get("debug").unwrap_or_default().to_owned();
    config.set("debug", format!("{debug}{}{context}", if debug.is_empty() { "" } else { "," }));
    config.set_log_level(RDKafkaLogLevel::Debug);
    !debug.is_empty()
}

impl Events {
    /// `is_debugged`: the user wants to see librdkafka's debug lines.
    pub fn new(health: Arc<BrokerHealth>, is_debugged: bool) -> Events {
        Events { health, is_recreated: AtomicBool::new(false), is_debugged }
    }
}

impl Reports for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(version) = lines::offset_commit_version(facility, message) {
            self.health.offset_commits.fetch_min(version, Ordering::Relaxed);
        }
        self.health.hear(facility, message);
        if lines::changed_topic_id(facility, message).is_some_and(|(_, before, _)| before != lines::NO_TOPIC_ID) {
            self.is_recreated.store(true, Ordering::Relaxed);
        }
        if self.is_debugged || !matches!(level, RDKafkaLogLevel::Debug) {
            log(level, facility, message);
        }
    }

    fn error(&self, code: RDKafkaErrorCode, reason: &str) {
        self.health.report(code, reason);
    }
}

impl Membership for Events {}

/// A consumer that is no member of a group.
///
/// # Errors
/// librdkafka refuses the configuration.
pub fn lone_consumer(config: &ClientConfig, health: Arc<BrokerHealth>) -> Result<NativeConsumer<Events>, KafkaError> {
    NativeConsumer::open(config, Events::new(health, true))
}

/// The last word of a client's background threads about its brokers.
#[derive(Debug)]
pub struct BrokerHealth {
    down: AtomicBool,
    refused: AtomicBool,
    /// A client may have lost all its brokers for good.
    lost: AtomicBool,
    last: Mutex<Option<String>>,
    /// The highest version of TxnOffsetCommit that all brokers know which were asked.
    offset_commits: AtomicI16,
}

impl Default for BrokerHealth {
    fn default() -> BrokerHealth {
        let (down, refused, lost) = (AtomicBool::default(), AtomicBool::default(), AtomicBool::default());
        BrokerHealth { down, refused, lost, last: Mutex::default(), offset_commits: AtomicI16::new(i16::MAX) }
    }
}

impl BrokerHealth {
    /// The highest version of TxnOffsetCommit that all brokers know which were asked; `i16::MAX` where none was.
    pub fn offset_commits(&self) -> i16 {
        self.offset_commits.load(Ordering::Relaxed)
    }

    /// Notes a client-wide error and logs it once per change.
    pub fn report(&self, code: RDKafkaErrorCode, reason: &str) {
        match code {
            // No error: clients that ask for it are told so of a partition's end.
            RDKafkaErrorCode::PartitionEOF => return,
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed | RDKafkaErrorCode::SSL => {
                self.refused.store(true, Ordering::Relaxed);
            }
            RDKafkaErrorCode::AllBrokersDown if !self.down.swap(true, Ordering::Relaxed) => {
                log_events::kafka::BrokerUnreachable { reason }.log();
            }
            _ => log_events::kafka::ClientError { code: &code, reason }.log(),
        }
        // AllBrokersDown follows the error that tells why: keep that one.
        if code != RDKafkaErrorCode::AllBrokersDown
            && let Ok(mut last) = self.last.lock()
        {
            *last = Some(reason.to_owned());
        }
    }

    /// Notes that a broker answered.
    pub fn reached(&self) {
        if self.down.swap(false, Ordering::Relaxed) {
            log_events::kafka::BrokerReachable {}.log();
        }
    }

    /// Hears a line of a client's log.
    pub(super) fn hear(&self, facility: &str, line: &str) {
        if lines::names_no_broker(facility, line) {
            self.lost.store(true, Ordering::Relaxed);
        }
    }

    /// A client was told of no broker at all, and may have lost those it knew for good: others are to take its place.
    pub fn has_lost_brokers(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// As [`BrokerHealth::has_lost_brokers`]; from now on it is about new clients.
    pub fn take_lost(&self) -> bool {
        self.lost.swap(false, Ordering::Relaxed)
    }

    /// No broker can be reached.
    pub fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }

    /// A broker was reached and refused this client's credentials or certificate.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// The last reason given, in librdkafka's words.
    pub fn last_error(&self) -> String {
        self.last.lock().ok().and_then(|last| last.clone()).unwrap_or_else(|| "no answer".into())
    }
}

/// A line of librdkafka's own log. A broker going away is routine for a client that waits: nothing here is an error of
/// ours.
pub fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            log_events::librdkafka::Critical { facility, line }.log();
        }
        RDKafkaLogLevel::Debug => log_events::librdkafka::Debug { facility, line }.log(),
        _ => log_events::librdkafka::Line { facility, line }.log(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_decides_over_defaults_but_not_over_offsets() {
        let mut base = ClientConfig::new();
        base.set("session.timeout.ms", "30000").set("enable.auto.commit", "true");
        let config = consumer_config(&base, "g", 0, 1);
        assert_eq!(config.get("session.timeout.ms"), Some("30000"));
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
    }

    #[test]
    fn what_the_worker_cannot_live_with_is_refused_with_the_fix() {
        let second = Duration::from_secs(1);
        for (key, value, exactly_once, at_least_once) in [
            ("isolation.level", "read_uncommitted", true, false),
            ("isolation.level", "read_committed", false, false),
            ("group.protocol", "consumer", true, true),
            ("group.protocol", "classic", false, false),
            ("sasl.mechanism", "OAUTHBEARER", false, false),
            ("sasl.mechanism", "GSSAPI", true, true),
            ("sasl.mechanisms", "AWS_MSK_IAM", true, true),
            ("sasl.mechanism", "SCRAM-SHA-512", false, false),
            ("sasl.mechanism", "plain", false, false),
            ("transaction.timeout.ms", "1999", true, false),
            ("transaction.timeout.ms", "2000", false, false),
        ] {
            let mut base = ClientConfig::new();
            base.set(key, value);
            for (transactions, refused) in [(Some(second), exactly_once), (None, at_least_once)] {
                let reason = conflict(&base, transactions);
                assert_eq!(reason.is_some(), refused, "{key}={value} {transactions:?}");
                assert!(reason.is_none_or(|reason| reason.starts_with(&format!("{key}={value}: "))));
            }
        }
    }

    #[test]
    fn distinct_groups_instances_and_threads_have_distinct_transactional_ids() {
        let names = ["a", "a-a", "a-a-a", "1", "1-a", "3-a-a", "-", "--", "a-1", "a-1-1", "1-1"];
        let mut ids = std::collections::HashSet::new();
        for group in names {
            for instance in names {
                for thread in [0, 1, 11] {
                    assert!(ids.insert(transactional_id(group, instance, thread)), "{group} {instance} {thread}");
                }
            }
        }
    }

    #[test]
    fn threads_of_a_static_member_have_names_of_their_own() {
        let mut base = ClientConfig::new();
        base.set("group.instance.id", "pod-0");
        assert_eq!(consumer_config(&base, "g", 0, 1).get("group.instance.id"), Some("pod-0"));
        assert_eq!(consumer_config(&base, "g", 1, 2).get("group.instance.id"), Some("pod-0-1"));
    }

    #[test]
    fn librdkafka_accepts_every_property() {
        let base = ClientConfig::new();
        for config in [
            consumer_config(&base, "g", 0, 1),
            transactional_config(&base, "t"),
            idempotent_config(&base),
            plain_config(&base),
        ] {
            config.create_native_config().expect("known properties with valid values");
        }
        transactional_config(&base, "t").create::<rdkafka::producer::BaseProducer>().expect("valid together");
        idempotent_config(&base).create::<rdkafka::producer::BaseProducer>().expect("valid together");
    }
}
