//! What was learned about the sizes that topics take. Pure.
//!
//! A broker refuses whole batches, and the report of each message in one says the same: too large. A message of at least
//! `batch.size` always travels alone, so a refusal of that size is the message's own; any other only says that batches
//! are too large for this topic, and makes them smaller until it is clear.

use rdkafka::ClientConfig;

use crate::kafka::outbox::Kind;

const KINDS: usize = Kind::ALL.len();

/// What was learned so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SizeLimits {
    /// Largest batch that is sent, bytes: librdkafka's `batch.size`.
    pub(super) batch_bytes: usize,
    /// Messages of this size or more are refused, by kind; `usize::MAX` where none was yet.
    pub(super) refused: [usize; KINDS],
}

impl SizeLimits {
    /// Nothing learned yet.
    pub(super) fn new(producer: &ClientConfig) -> Self {
        // librdkafka's default, just below the broker's default max.message.bytes.
        let batch_bytes = producer.get("batch.size").and_then(|bytes| bytes.parse().ok()).unwrap_or(1_000_000);
        SizeLimits { batch_bytes, refused: [usize::MAX; KINDS] }
    }

    /// Takes the largest refused sizes of a producer that is given up; 0 where none was refused.
    pub(super) fn learn(&mut self, largest_refused: [usize; KINDS]) {
        let batch_bytes = self.batch_bytes;
        for (refused, size) in self.refused.iter_mut().zip(largest_refused).filter(|(_, size)| *size > 0) {
            if size >= batch_bytes {
                *refused = size.min(*refused);
            } else {
                self.batch_bytes = self.batch_bytes.min((batch_bytes / 4).max(size));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_a_whole_batch_makes_batches_smaller_until_it_is_clear() {
        let mut limits = SizeLimits { batch_bytes: 1_000_000, refused: [usize::MAX; KINDS] };
        limits.learn([0; KINDS]);
        assert_eq!(limits, SizeLimits { batch_bytes: 1_000_000, refused: [usize::MAX; KINDS] });
        // Verdicts of 300 bytes refused together: no verdict is too large, the batch was.
        limits.learn([300, 0, 0, 0]);
        assert_eq!(limits, SizeLimits { batch_bytes: 250_000, refused: [usize::MAX; KINDS] });
        // A dead letter larger than a batch travelled alone.
        limits.learn([0, 500_000, 0, 0]);
        assert_eq!(limits, SizeLimits { batch_bytes: 250_000, refused: [usize::MAX, 500_000, usize::MAX, usize::MAX] });
        // One below the batch's size may have had company: next time it will not.
        limits.learn([200_000, 0, 0, 0]);
        assert_eq!(limits.batch_bytes, 200_000);
        limits.learn([200_000, 0, 0, 0]);
        assert_eq!(limits, SizeLimits { batch_bytes: 200_000, refused: [200_000, 500_000, usize::MAX, usize::MAX] });
    }
}
