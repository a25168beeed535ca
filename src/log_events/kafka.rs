//! Broker, topics, membership in the group.

use std::fmt::{Debug, Display};

use super::log_events;

log_events! {
    target: "fraud_scorer::kafka";

    /// No broker answers; work goes on when one does, nothing is lost.
    warn "broker-unreachable" "no Kafka broker can be reached; waiting for one"
    BrokerUnreachable<'a> { reason: &'a str as value }

    /// The end of `broker-unreachable`.
    info "broker-reachable" "a Kafka broker can be reached again"
    BrokerReachable {}

    /// At start-up no broker answers; said again every 30 s.
    warn "waiting-for-broker" "waiting for a Kafka broker"
    WaitingForBroker<'a> { brokers: &'a str as value, error: &'a dyn Display as display, reason: &'a str as value }

    /// The end of `waiting-for-broker`.
    info "broker-answers" "a Kafka broker answers"
    BrokerAnswers<'a> { brokers: &'a str as value }

    /// An error of librdkafka that it deals with itself.
    debug "client-error" "Kafka client error"
    ClientError<'a> { code: &'a dyn Debug as debug, reason: &'a str as value }

    /// librdkafka does not escape what it quotes in them; the next ones are read again.
    debug "statistics-unreadable" "librdkafka's statistics cannot be read"
    StatisticsUnreadable<'a> { error: &'a serde_json::Error as display }

    /// Log-ins by OAUTHBEARER: the token endpoint gave no token. Clients go on with theirs until it ends.
    warn "no-token" "no new token for Kafka; it is asked for again" (at most every 10 s)
    NoToken<'a> { reason: &'a str as value }

    /// A topic was missing, and --create-topics is given.
    info "topic-created" "created topic"
    TopicCreated<'a> { topic: &'a str as value, partitions: i32 as value }

    /// Transactions near the input topic's limit that cannot be scored will become dead letters without their value.
    warn "dead-letter-topic-smaller" "the dead-letter topic takes smaller records than the input topic: larger dead letters will lack their value; raise its max.message.bytes"
    DeadLetterTopicSmaller<'a> { input: usize as value, dead_letter: usize as value, topic: &'a str as value }

    /// The comparison behind `dead-letter-topic-smaller` could not be made.
    debug "size-limits-not-compared" "size limits are not compared"
    SizeLimitsNotCompared<'a> { error: &'a std::io::Error as display }

    /// The group gave these partitions to a scoring thread.
    info "partitions-assigned" "partitions assigned"
    PartitionsAssigned<'a> { thread: &'a str as value, partitions: &'a [i32] as debug }

    /// The group takes these partitions back; `committed` tells whether the work on them was.
    info "partitions-revoked" "partitions revoked"
    PartitionsRevoked<'a> { thread: &'a str as value, partitions: &'a [i32] as debug, committed: bool as value }

    /// This member was silent for longer than the group waits; others have its partitions.
    warn "partitions-lost" "partitions lost to another member"
    PartitionsLost<'a> { thread: &'a str as value, partitions: &'a [i32] as debug }

    /// A scoring thread leaves the group and joins it again with a new client. What was lost follows, per partition.
    warn "topic-recreated" "the input topic was deleted and made again; joining the group again"
    TopicRecreated<'a> { thread: &'a str as value, topic: &'a str as value }

    /// A scoring thread gets nowhere with the client that it has: it cannot go back to the last commit, reads nothing though there
    /// are records, or was told of no broker at all.
    warn "member-stuck" "joining the consumer group again with a new client"
    MemberStuck<'a> { thread: &'a str as value, reason: &'a str as value }

    /// A scoring thread is no member any more.
    debug "left-group" "left the consumer group"
    LeftGroup<'a> { thread: &'a str as value }

    /// The group is left when it hears of it, or when the session times out.
    warn "leaving-slow" "leaving the consumer group takes long; going on without waiting"
    LeavingSlow { seconds: u64 as value }

    /// A partition could not be given up in the usual way while the member leaves.
    debug "leaving-partitions" "giving up partitions while leaving"
    LeavingPartitions<'a> { error: &'a dyn Display as display }

    /// A late change of membership could not be answered; the member leaves anyway.
    debug "leaving-change" "answering while leaving"
    LeavingChange<'a> { error: &'a dyn Display as display, change: &'a dyn Debug as debug }

    /// At least once: offsets were not committed; after a crash now, verdicts would be repeated.
    warn "offset-commit-failed" "an offset commit failed; it is repeated with the next one" (at most every 10 s)
    OffsetCommitFailed<'a> { error: &'a dyn Display as display }

    /// The group does not take this member (its assignment strategy differs from the others', for example), or the topic is
    /// not there: librdkafka tries again, and without partitions the worker is not ready.
    warn "consumer-error" "the broker refuses the consumer something; it tries again" (at most every 10 s)
    ConsumerError<'a> { error: &'a dyn Display as display }

    /// A fault of this program: the thread ends, and with it the process.
    error "record-by-event-queue" "a record came by the event queue"
    RecordByEventQueue { partition: i32 as value, offset: i64 as value }

    /// Reading a partition failed for now.
    warn "partition-error" "partition error; librdkafka tries again" (at most every 10 s)
    PartitionError<'a> { partition: i32 as value, code: &'a dyn Debug as debug, reason: &'a str as value }

    /// Exactly once: ending a transaction that is thrown away failed; the broker aborts it by its own clock.
    debug "abort-failed" "aborting the transaction"
    AbortFailed<'a> { error: &'a dyn Display as display }

    /// The demo's reader of verdicts got an event that is no record.
    debug "audience-event" "audience"
    AudienceEvent<'a> { error: &'a dyn Display as display }
}
