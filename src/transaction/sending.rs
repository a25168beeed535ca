//! Messages into the producers' queues, and what failed of them.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;

use super::committer::Committer;
pub use super::refusals::Refusal;
use super::{Guarantee, Interruption, severity};
use crate::kafka::failure::Failure;
use crate::kafka::outbox::{Kind, Outgoing, Produced, Undelivered};
use crate::log_events;

/// Wait for room in a full queue.
const FULL_WAIT: Duration = Duration::from_millis(1);

impl Committer {
    /// Messages of this kind and of this size or more are refused by their topic; `usize::MAX` where none was yet.
    pub fn size_limit(&self, kind: Kind) -> usize {
        self.size_limits.refused[kind as usize]
    }

    /// What the broker refused of a record, when it was written before.
    #[inline]
    pub fn refusal(&self, partition: i32, offset: i64) -> Option<&Refusal> {
        self.refusals.of(partition, offset)
    }

    /// Whether comparisons are written: not for a while after their topic did not take one.
    pub fn takes_comparisons(&mut self) -> bool {
        self.comparisons.is_over(Instant::now())
    }

    /// Queues verdicts or comparisons (key and value each) of one partition in order, waiting while the queue is full: this is where
    /// the worker stops consuming when verdicts cannot be delivered.
    pub fn send_together<'a>(
        &mut self,
        (kind, topic): (Kind, &str),
        partition: i32,
        messages: impl ExactSizeIterator<Item = (Option<&'a [u8]>, &'a [u8])> + Clone,
    ) -> Result<(), Interruption> {
        let (mut sent, count) = (0, messages.len());
        self.compared |= kind == Kind::Comparison;
        let largest = || messages.clone().map(|(key, value)| key.map_or(0, <[u8]>::len) + value.len()).max();
        self.until_queued(
            (kind, topic),
            partition,
            || largest().unwrap_or(0),
            |committer| {
                let rest = messages.clone().skip(sent);
                let outbox = &committer.outboxes[committer.current];
                let batch = committer.batch;
                match outbox.send_together((kind, topic), partition, batch, rest, &mut committer.buffer)? {
                    Produced::All => Ok(true),
                    Produced::Full(queued) => {
                        sent += queued;
                        Ok(sent == count)
                    }
                }
            },
        )
    }

    /// Queues one message with headers of its own, waiting while the queue is full.
    pub fn send(&mut self, message: &Outgoing<'_>) -> Result<(), Interruption> {
        self.until_queued(
            (message.kind, message.topic),
            message.partition,
            || message.size(),
            |committer| committer.outbox().send(message, committer.batch).map(|produced| produced == Produced::All),
        )
    }

    /// Sends until all is queued; `size` is the largest message's.
    fn until_queued(
        &mut self,
        (kind, topic): (Kind, &str),
        partition: i32,
        size: impl Fn() -> usize,
        mut send: impl FnMut(&mut Committer) -> Result<bool, Failure>,
    ) -> Result<(), Interruption> {
        let mut waiting: Option<Instant> = None;
        loop {
            match send(self) {
                Ok(true) => {
                    if waiting.is_some() {
                        self.flows_again();
                    }
                    return Ok(());
                }
                Ok(false) => {
                    let began = *waiting.get_or_insert_with(Instant::now);
                    self.outbox().flush(FULL_WAIT);
                    self.check_failures()?;
                    self.check_timeout(began, "verdicts cannot be delivered")?;
                }
                Err(failure) if failure.code == RDKafkaErrorCode::MessageSizeTooLarge => {
                    let refused = &mut self.size_limits.refused[kind as usize];
                    *refused = size().min(*refused);
                    return Err(Interruption::RollBack(format!("a message for {topic} is too large for this client")));
                }
                // Nothing of the call is queued: the verdicts go on without their comparisons.
                Err(failure) if kind == Kind::Comparison => {
                    self.suspend_comparisons(&failure);
                    return Ok(());
                }
                Err(failure) if kind == Kind::Verdict && failure.code == RDKafkaErrorCode::UnknownPartition => {
                    return Err(self.no_partition(partition));
                }
                Err(failure) => return Err(self.judge(&failure, "sending")),
            }
        }
    }

    /// Ends a batch's sending.
    pub fn end_batch(&mut self) -> Result<(), Interruption> {
        self.outbox().serve(Duration::ZERO);
        self.check_failures()
    }

    /// A message that failed for good: the work it belongs to must be done again. At least once, a comparison's failure
    /// concerns no other message; in a transaction it takes the others with it, once.
    pub fn check_failures(&mut self) -> Result<(), Interruption> {
        let Some(Undelivered { kind, partition, failure }) = self.outbox().failure() else { return Ok(()) };
        match kind {
            Kind::Comparison => {
                self.suspend_comparisons(&failure);
                if self.settings.guarantee == Guarantee::AtLeastOnce {
                    self.outbox().forgive_comparison();
                    return Ok(());
                }
                Err(Interruption::RollBack(format!("delivering a comparison: {failure}")))
            }
            Kind::Verdict if failure.code == RDKafkaErrorCode::UnknownPartition => Err(self.no_partition(partition)),
            _ => Err(self.judge(&failure, "delivering")),
        }
    }

    /// The input topic has a partition that the output topic has not, or not yet.
    fn no_partition(&self, partition: i32) -> Interruption {
        let (output, input) = (&self.topics[0], &self.settings.input_topic);
        let reason = format!(
            "topic {output} has no partition {partition}, {input} has: give both the same count (kafka-topics.sh --alter)"
        );
        Interruption::Partition { partition, reason }
    }

    fn suspend_comparisons(&mut self, failure: &Failure) {
        let wait = self.comparisons.begin(Instant::now());
        log_events::pipeline::ComparisonsSuspended {
            thread: &self.settings.name,
            seconds: wait.as_secs(),
            reason: &failure,
        }
        .log();
    }

    /// What a failure means. A transaction in which one topic is forbidden fails whole, and the broker does not say which:
    /// while comparisons are written, theirs is tried without first.
    pub(super) fn judge(&mut self, failure: &Failure, doing: &str) -> Interruption {
        let in_transaction = self.settings.guarantee == Guarantee::ExactlyOnce;
        if in_transaction && self.compared && failure.code == RDKafkaErrorCode::TopicAuthorizationFailed {
            self.suspend_comparisons(failure);
            return Interruption::RollBack(format!("{doing}: {failure}"));
        }
        severity(failure, doing)
    }
}
