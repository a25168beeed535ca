//! The exporter: what waits in the queue goes to the collector, batch by batch, on the process's small runtime.
//!
//! ```text
//!  queue ─► gather (512 spans or a second) ─► POST ─► taken ─► counted as exported (or rejected, as the answer says)
//!                                               └─► not taken ─► counted as unsent, and a pause: 1 s doubling to 30 s
//! ```
//!
//! A batch is sent once: spans that a collector did not take are not worth the memory of keeping them, nor the load of
//! asking again. During a pause the queue fills and then drops. An outage is one line in the log, and another at its end.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use reqwest::Url;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::collector::Collector;
pub use super::otlp::Names;
use super::{Fate, Span, install, otlp};
use crate::log_events;

/// Spans sent together, unless a second is over first.
const BATCH: usize = 512;

/// How long a span waits for others.
const GATHERING: Duration = Duration::from_secs(1);

/// Pause after a batch that was not taken; doubled each time up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSettings {
    /// Address that takes traces.
    pub endpoint: Url,
    /// Records that get spans, per second and scoring thread.
    pub records_per_second: u32,
}

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The HTTP client.
    #[error("the client for --otlp-endpoint: {0}")]
    Client(#[from] reqwest::Error),
    /// One of OpenTelemetry's variables.
    #[error("{0}")]
    Variable(String),
    /// Spans already go somewhere.
    #[error("spans are exported already in this process")]
    Twice,
}

/// The task that exports.
pub struct Exporter {
    task: JoinHandle<()>,
    stop: Arc<Notify>,
}

impl Exporter {
    /// From now on spans are made, and sent as `settings` say; what spans call the worker's topics is in `names`.
    ///
    /// # Errors
    /// [`ExportError`], before anything was changed.
    pub fn start(settings: ExportSettings, names: Names, runtime: &Runtime) -> Result<Exporter, ExportError> {
        let collector = Collector::new(settings.endpoint, |name| std::env::var(name).ok())?;
        let queue = install(settings.records_per_second).ok_or(ExportError::Twice)?;
        let records_per_second = settings.records_per_second;
        log_events::tracing::ExportOn { endpoint: &collector.address(), records_per_second }.log();
        let stop = Arc::new(Notify::new());
        let export = Export { queue, names, collector, outage: None, stop: stop.clone() };
        Ok(Exporter { task: runtime.spawn(export.run()), stop })
    }

    /// Sends what waits, for as long as `limit` at most.
    pub async fn finish(self, limit: Duration) {
        self.stop.notify_one();
        if timeout(limit, self.task).await.is_err() {
            log_events::tracing::SpansLeft {}.log();
        }
    }
}

/// Since when the collector takes nothing.
struct Outage {
    pause: Duration,
    unsent: u64,
}

struct Export {
    queue: mpsc::Receiver<Span>,
    names: Names,
    collector: Collector,
    outage: Option<Outage>,
    stop: Arc<Notify>,
}

impl Export {
    async fn run(mut self) {
        let stop = self.stop.clone();
        let mut stopping = std::pin::pin!(stop.notified());
        let mut stopped = false;
        while let Some(batch) = self.gather(&mut stopping, &mut stopped).await {
            let pause = self.send(batch).await;
            if let Some(pause) = pause.filter(|_| !stopped) {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stopping.as_mut() => stopped = true,
                }
            }
            if stopped {
                self.queue.close();
            }
        }
    }

    /// The next spans to send together; `None` at the end. Once stopped, whatever waits.
    async fn gather(
        &mut self,
        stopping: &mut std::pin::Pin<&mut impl Future<Output = ()>>,
        stopped: &mut bool,
    ) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        let mut until: Option<Instant> = None;
        while batch.len() < BATCH {
            let span = tokio::select! {
                biased;
                span = self.queue.recv() => span,
                () = stopping.as_mut(), if !*stopped => {
                    *stopped = true;
                    self.queue.close();
                    continue;
                }
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => break,
            };
            let Some(span) = span else { break };
            until.get_or_insert_with(|| Instant::now() + GATHERING);
            otlp::append(&self.names, span, &mut batch);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// Sends a batch; where the collector does not take it, how long to leave it alone.
    async fn send(&mut self, batch: Vec<SpanData>) -> Option<Duration> {
        let count = batch.len() as u64;
        match self.collector.take(batch).await {
            Ok(rejected) => {
                if let Some(outage) = self.outage.take() {
                    let endpoint = self.collector.address();
                    log_events::tracing::CollectorReachable { endpoint: &endpoint, unsent: outage.unsent }.log();
                }
                let lost = rejected.count.min(count);
                if lost > 0 {
                    log_events::tracing::SpansRejected { rejected: lost, reason: &rejected.reason }.log();
                }
                Fate::Rejected.count(lost);
                Fate::Exported.count(count - lost);
                None
            }
            Err(error) => {
                if self.outage.is_none() {
                    let endpoint = self.collector.address();
                    log_events::tracing::CollectorUnreachable { endpoint: &endpoint, error: &error }.log();
                }
                Fate::Unsent.count(count);
                let outage = self.outage.get_or_insert(Outage { pause: FIRST_PAUSE, unsent: 0 });
                let pause = outage.pause;
                outage.pause = LONGEST_PAUSE.min(pause * 2);
                outage.unsent += count;
                Some(pause)
            }
        }
    }
}
