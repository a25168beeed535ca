//! What librdkafka calls of a member of the group: it is written down for [`super::Subscription`], which asks between batches.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;

use crate::kafka::client::{self, BrokerHealth};
use crate::kafka::consumer::{Membership, Rebalance};
use crate::kafka::failure::Failure;
use crate::kafka::lines;
use crate::kafka::native::Reports;
use crate::kafka::progress::Progress;
use crate::kafka::statistics::{PartitionLag, Statistics};
use crate::log_events;
use crate::telemetry::clients::Client;

/// What librdkafka calls.
pub struct Events {
    pub(super) topic: String,
    pub(super) changes: Mutex<Vec<(bool, Vec<i32>)>>,
    pub(super) leaving: AtomicBool,
    pub(super) health: Arc<BrokerHealth>,
    pub(super) lag: Mutex<Vec<PartitionLag>>,
    pub(super) progress: Progress,
    /// Partitions whose position librdkafka found outside of their log.
    pub(super) resets: Mutex<Vec<i32>>,
    /// The topic's id (KIP-516), as the broker named it last.
    pub(super) topic_id: Mutex<Option<String>>,
    /// The user wants to see librdkafka's debug lines.
    pub(super) is_debugged: bool,
    pub(super) metrics: Client,
}

impl Reports for Events {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some((_, _, id)) = lines::changed_topic_id(facility, message).filter(|(topic, ..)| *topic == self.topic)
            && let Ok(mut known) = self.topic_id.lock()
        {
            *known = Some(id.to_owned());
        }
        self.health.hear(facility, message);
        if matches!(level, RDKafkaLogLevel::Debug) && !self.is_debugged {
            return;
        }
        if let Some(partition) = lines::reset_partition(facility, message)
            && let Ok(mut resets) = self.resets.lock()
        {
            resets.push(partition);
        }
        client::log(level, facility, message);
    }

    fn error(&self, code: RDKafkaErrorCode, reason: &str) {
        self.health.report(code, reason);
    }

    fn statistics(&self, json: &[u8]) {
        let Some(statistics) = Statistics::read(json) else { return };
        if statistics.is_connected() {
            self.health.reached();
        }
        self.metrics.report(&statistics);
        if let Ok(mut slot) = self.lag.lock() {
            *slot = statistics.lag(&self.topic);
        }
    }
}

impl Membership for Events {
    /// Only writes the change down: see the module's words. The exception is a member that is leaving, whose work is
    /// committed already: closing waits for an answer, and what is accepted is revoked again at once.
    fn rebalanced(&self, rebalance: Rebalance<'_>) {
        if self.leaving.load(Ordering::Acquire) {
            if let Err(error) = rebalance.answer() {
                log_events::kafka::LeavingPartitions { error: &error }.log();
            }
        } else if let Ok(mut changes) = self.changes.lock() {
            changes.push((rebalance.is_assigned, rebalance.partitions()));
        }
    }

    /// At least once: the next commit after one that failed carries the same or later offsets.
    fn commit_ended(&self, committed: Result<&[(i32, i64)], &Failure>) {
        match committed {
            Ok(offsets) => self.progress.note(offsets.iter().copied()),
            Err(error) => log_events::kafka::OffsetCommitFailed { error }.log(),
        }
    }
}
