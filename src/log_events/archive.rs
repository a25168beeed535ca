//! `fraud-scorer archive`: cuts written, inputs looked for, a destination that does not take files.

use std::fmt::{Debug, Display};
use std::time::Duration;

use super::log_events;

log_events! {
    target: "fraud_scorer::archive";

    /// The group gave these partitions of the verdicts to this member.
    info "archive-partitions-assigned" "partitions assigned"
    PartitionsAssigned<'a> { partitions: &'a [i32] as debug }

    /// The group takes these partitions back; what was gathered of them is read again by the next owner.
    info "archive-partitions-revoked" "partitions revoked: the next owner begins at the last finished cut"
    PartitionsRevoked<'a> { partitions: &'a [i32] as debug }

    /// This member was silent for longer than the group waits.
    warn "archive-partitions-lost" "partitions lost: this member was put out of the group"
    PartitionsLost<'a> { partitions: &'a [i32] as debug }

    /// A broker's answer named no broker at all: the client may have lost those it knew for good. What is not committed is read
    /// again.
    warn "archive-client-replaced" "the cluster named no broker for a while; joining the group again with a new client"
    ClientReplaced {}

    /// Nothing is read of new partitions before that is known.
    warn "archive-offsets-unknown" "committed offsets are asked for again" (at most every 10 s)
    OffsetsUnknown<'a> { error: &'a dyn Display as display }

    /// Nothing is read of a new partition before that is known.
    warn "archive-end-unknown" "a partition's end is asked for again" (at most every 10 s)
    EndUnknown<'a> { partition: i32 as value, error: &'a dyn Display as display }

    /// The group was rearranged; nothing is read before the partitions that stayed are sought where they are.
    debug "archive-not-sought" "seeking where the partitions are is tried again"
    NotSought<'a> { error: &'a dyn Display as display }

    /// Retention took the beginning of a cut that was begun before: which of its files are there is asked again.
    warn "archive-files-unknown" "the archive's files are asked for again" (at most every 10 s)
    FilesUnknown<'a> { partition: i32 as value, reason: &'a str as value }

    /// Retention was faster than the archive; those verdicts are in no file.
    error "archive-verdicts-deleted" "verdicts were deleted before they were archived: keep the topic longer"
    VerdictsDeleted { partition: i32 as value, verdicts: u64 as value }

    /// Whoever had the partition before died within a cut; it is made again, the same.
    info "archive-cut-taken-over" "finishing a cut that was begun before"
    CutTakenOver { partition: i32 as value, first: i64 as value, next: i64 as value }

    /// librdkafka deals with it.
    warn "archive-partition-error" "partition error; librdkafka tries again"
    PartitionError<'a> { partition: i32 as value, code: &'a dyn Debug as debug, reason: &'a str as value }

    /// It is counted, and in no file.
    warn "archive-no-verdict" "a record that is no verdict is skipped" (at most every 10 s)
    NoVerdict<'a> { partition: i32 as value, offset: i64 as value, reason: &'a str as value }

    /// A cut's files are there and its end is committed.
    info "archive-cut" "verdicts archived"
    Cut {
        partition: i32 as value,
        first: i64 as value,
        next: i64 as value,
        rows: u64 as value,
        files: u64 as value,
        bytes: u64 as value,
        missing: u64 as value,
        skipped: u64 as value,
    }

    /// By reason: the input was deleted, lies in another topic or partition, does not decode, or is another transaction.
    warn "archive-inputs-missing" "verdicts were archived without their input's features"
    InputsMissing {
        partition: i32 as value,
        first: i64 as value,
        next: i64 as value,
        gone: u64 as value,
        elsewhere: u64 as value,
        undecodable: u64 as value,
        another: u64 as value,
    }

    /// Files wait in the spool until it does.
    warn "archive-destination-refuses" "the destination did not take a file; nothing is committed, trying again"
    DestinationRefuses<'a> { reason: &'a str as value, pause: Duration as debug }

    /// The end of `archive-destination-refuses`.
    info "archive-destination-takes" "the destination takes files again"
    DestinationTakes {}

    /// At start-up; nothing is read before.
    warn "archive-waiting-for-destination" "waiting for the destination"
    WaitingForDestination<'a> { location: &'a dyn Display as display, reason: &'a str as value }

    /// A rebalance under way, mostly.
    warn "archive-commit-refused" "offsets were not committed; trying again"
    CommitRefused<'a> { error: &'a dyn Display as display }

    /// The consumer of inputs is not yet where it should read.
    debug "archive-inputs-sought" "inputs are sought again"
    InputsSought<'a> { partition: i32 as value, offset: i64 as value, error: &'a dyn Display as display }

    /// An error of librdkafka that it deals with itself.
    debug "archive-inputs-error" "reading inputs"
    InputsError<'a> { reason: &'a dyn Display as display }

    /// Without the right to read them nothing is archived, and it is not ready.
    error "archive-inputs-forbidden" "inputs may not be read: grant READ on the input topic" (at most every 10 s)
    InputsForbidden<'a> { partition: i32 as value, reason: &'a str as value }

    /// The bundle given here is not the one that scored it.
    debug "archive-input-undecodable" "an input that was scored does not decode"
    InputUndecodable<'a> { partition: i32 as value, offset: i64 as value, reason: &'a str as value }

    /// Nothing was lost: nothing was read.
    info "archive-stopped-early" "stopped before the destination and a broker were reached; nothing was read"
    StoppedEarly {}

    /// `fraud-scorer archive erase` has looked through the archive. `ids` is how many it was given; the ids themselves are in no
    /// log.
    info "archive-erased" "the archive was looked through for rows to erase"
    Erased<'a> {
        location: &'a dyn Display as display,
        ids: usize as value,
        dry_run: bool as value,
        files: u64 as value,
        rewritten: u64 as value,
        rows: u64 as value,
        failed: u64 as value,
    }

    /// A file of the archive, or its list, could not be read or written: rows may be left in it. Run it again.
    error "archive-not-erased" "a file of the archive was not looked through, or not written"
    NotErased<'a> { file: &'a str as value, reason: &'a str as value }

    /// The end of a stop, or of `--until-caught-up`.
    info "archive-drained" "all that was read is archived; left the consumer group"
    Drained {}
}
