//! From record to verdict, and what interrupts it.

use std::fmt::Display;

use fraud_wire::dead_letter::ErrorClass;

use super::log_events;

log_events! {
    target: "fraud_scorer::pipeline";

    /// A record could not be scored. Counted by `fraud_scorer_dead_letters_total`; with its headers the record itself is
    /// in the dead-letter topic.
    debug "dead-letter" "dead letter"
    DeadLetter<'a> {
        partition: i32 as value, offset: i64 as value, class: ErrorClass as display, reason: &'a str as value,
    }

    /// A dead letter is larger than its topic takes: what was left out is in the record at its source only.
    error "dead-letter-in-part" "the dead-letter topic refused a record of this size: written in part; raise its max.message.bytes" (at most every 10 s)
    DeadLetterInPart<'a> {
        partition: i32 as value, offset: i64 as value, bytes: usize as value, topic: &'a str as value,
    }

    /// The broker gave a record of a partition that this thread has not, or one that it had read.
    warn "record-skipped" "skipped a record that is not ours or was read before" (at most every 10 s)
    RecordSkipped { partition: i32 as value, offset: i64 as value }

    /// A message of the batch makes the model fail; found alone, it becomes a dead letter.
    warn "batch-failed" "the model failed on a batch; scoring its messages one by one" (at most every 10 s)
    BatchFailed<'a> { error: &'a dyn Display as display, rows: usize as value }

    /// The broker does not take what has to be written: nothing is read until it does, and the worker is not ready.
    warn "output-stalled" "{stall}; consumption has stopped until they can"
    OutputStalled<'a> { thread: &'a str as value, reason: &'a str as value, stall: &'a str as said }

    /// The end of `output-stalled`.
    info "output-flows" "output flows again"
    OutputFlows<'a> { thread: &'a str as value }

    /// What was not committed cannot be any more. Counted by `fraud_scorer_redone_total`.
    warn "work-redone" "work since the last commit is thrown away and read again"
    WorkRedone<'a> { thread: &'a str as value, reason: &'a str as value }

    /// The input topic no longer holds what comes next in a partition: its retention was faster than this group, it was
    /// cut short, or it was deleted and made again. Every record that it holds is scored. Counted by
    /// `fraud_scorer_records_gone_total`.
    error "records-gone" "records are gone that were not read: the partition goes on with what its log holds"
    RecordsGone<'a> {
        partition: i32 as value, position: i64 as value, begin: i64 as value, end: i64 as value, reason: &'a str as value,
    }

    /// The group has no offset of a partition: it is a new one, its offsets expired (`offsets.retention.minutes`), or they
    /// were deleted. Where the output holds verdicts on it, the worker goes on only with `--rescore`.
    warn "begins-without-commit" "the group has no offset of a partition, which begins here"
    BeginsWithoutCommit { partition: i32 as value, offset: i64 as value }

    /// What comes of a partition's records cannot be written. Its records wait, the other partitions go on, and the worker
    /// is not ready. `fraud_scorer_partition_paused` is 1 meanwhile.
    error "partition-paused" "a partition is left alone until it is tried again"
    PartitionPaused<'a> { partition: i32 as value, seconds: u64 as value, reason: &'a str as value }

    /// The end of `partition-paused`, as far as is known yet.
    info "partition-tried-again" "a partition is tried again"
    PartitionTriedAgain { partition: i32 as value }

    /// A topic refuses what came of a record for good: another message takes its place.
    warn "message-refused" "the broker refused a message for good" (at most every 10 s)
    MessageRefused<'a> {
        partition: i32 as value, offset: i64 as value, topic: &'a str as value, reason: &'a str as value,
    }

    /// The topic of `--challenger-topic` does not take comparisons. They are dropped and counted
    /// (`fraud_scorer_challenger_dropped_total`) until it is tried again; verdicts go on.
    warn "comparisons-suspended" "comparisons are dropped for a while; verdicts are not concerned"
    ComparisonsSuspended<'a> { thread: &'a str as value, seconds: u64 as value, reason: &'a dyn Display as display }

    /// The way back to the last commit is not made yet; nothing is read until it is.
    warn "redo-failed" "starting over failed"
    RedoFailed<'a> { thread: &'a str as value, reason: &'a str as value }

    /// A scoring thread goes on with another model.
    debug "model-taken-up" "model taken up"
    ModelTakenUp<'a> { thread: &'a str as value, model: &'a str as value }

    /// The challenger gave no scores for a batch; limited for each challenger.
    warn "challenger-failed" "the challenger failed; verdicts are not concerned"
    ChallengerFailed<'a> { challenger: &'a str as value, rows: usize as value, reason: &'a str as value }

    /// The challenger failed so often that it is not asked any more.
    error "challenger-given-up" "the challenger is given up"
    ChallengerGivenUp<'a> { challenger: &'a str as value, batches: u32 as value, reason: &'a str as value }
}
