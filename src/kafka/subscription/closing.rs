//! The end of a membership, for as long as it may be waited for.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::Events;
use crate::kafka::consumer::NativeConsumer;
use crate::log_events;

/// How long closing a member is waited for; it goes on without us.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Closes a consumer by dropping it: partitions revoked, LeaveGroup sent. That waits for the coordinator, and librdkafka's waits
/// are by the wall clock: where that is set back, they may take as long as it jumped.
pub(super) fn close(consumer: Arc<NativeConsumer<Events>>) {
    let (closed, is_closed) = channel();
    let close = move || {
        drop(consumer);
        let _ = closed.send(());
    };
    // Where there is no thread to be had, the closure has been dropped, and the consumer with it.
    let closing = std::thread::Builder::new().name("leaving".into()).spawn(close).is_ok();
    if closing && is_closed.recv_timeout(CLOSE_TIMEOUT).is_err() {
        log_events::kafka::LeavingSlow { seconds: CLOSE_TIMEOUT.as_secs() }.log();
    }
}
