//! Spans: what the worker did with a record whose sender traces it, for a collector of traces.
//!
//! ```text
//!  record with a sampled traceparent ─► Allowance ─► RecordSpan ─► tally ─[commit]─► bounded queue ─► exporter ─► collector
//!  (scoring thread)                        │ over               └─[redo]─► forgotten     │ full           │ not taken
//!                                          └────────────► traceparent passed on          └───► counted ◄──┘
//!  request with one (HTTP) ─► Allowance ─► RequestSpan ──────────────────────────────────► the same queue
//! ```
//!
//! Off unless there is a collector to send to ([`install`]); then trace contexts are only passed on. Sampling is the
//! sender's: a record without a sampled `traceparent` costs nothing here. Those with one are bounded by an allowance per
//! second and thread, for a sender that samples everything must not cost the others their throughput. Spans travel with the
//! tally, so work that is thrown away leaves none and the second span ends with the commit.
//!
//! Nothing here waits: a full queue or a collector that is away loses spans, and counts them
//! (`fraud_scorer_spans_total`).

mod collector;
pub mod export;
mod otlp;

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use fraud_wire::dead_letter::ErrorClass;
use fraud_wire::trace_context::{self, TRACEPARENT_BYTES, TraceContext};
use fraud_wire::verdict::Decision;
use tokio::sync::mpsc;

use super::catalogue::definitions::SPANS;

/// Spans that may wait for the exporter: seconds of them at the usual allowance, and a few megabytes at most.
const QUEUE: usize = 4096;

/// What became of a span, as the label `result` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The collector took it.
    Exported,
    /// The collector took the request, but not this span.
    Rejected,
    /// The collector did not take the request, or could not be reached.
    Unsent,
    /// More spans waited than the queue holds.
    QueueFull,
    /// It was over the allowance and not made; the trace context was passed on.
    OverLimit,
}

impl Fate {
    const ALL: [Fate; 5] = [Fate::Exported, Fate::Rejected, Fate::Unsent, Fate::QueueFull, Fate::OverLimit];

    fn as_str(self) -> &'static str {
        match self {
            Fate::Exported => "exported",
            Fate::Rejected => "rejected",
            Fate::Unsent => "unsent",
            Fate::QueueFull => "queue-full",
            Fate::OverLimit => "over-limit",
        }
    }

    fn count(self, spans: u64) {
        SPANS.counter(&[self.as_str()]).increment(spans);
    }
}

/// How many spans may be begun.
#[derive(Debug)]
pub struct Allowance {
    per_second: u32,
    since: Instant,
    left: u32,
}

impl Allowance {
    /// So many in each second.
    pub fn new(per_second: u32, now: Instant) -> Allowance {
        Allowance { per_second, since: now, left: per_second }
    }

    /// Whether one more may be.
    pub fn admits(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= Duration::from_secs(1) {
            (self.since, self.left) = (now, self.per_second);
        }
        let admitted = self.left > 0;
        self.left = self.left.saturating_sub(1);
        admitted
    }
}

/// The trace that a span belongs to, and its ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// What the sender said.
    pub parent: TraceContext,
    /// The sender's `tracestate`.
    pub state: Option<Box<str>>,
    /// Id of our span.
    pub id: [u8; 8],
}

impl Place {
    /// A new span in the sender's trace.
    fn within(parent: TraceContext, state: Option<&str>) -> Place {
        Place { parent, state: state.map(Into::into), id: random_id() }
    }
}

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ended {
    /// As so many verdicts; score and decision are those of the row with the highest score.
    Verdicts {
        /// Rows.
        rows: u32,
        /// The highest score.
        score: f32,
        /// Its decision.
        decision: Decision,
    },
    /// As a dead letter.
    DeadLetter(ErrorClass),
}

/// What was done with one record: it was processed, then what came of it was sent.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordSpan {
    /// The span of processing it, child of the sender's.
    pub place: Place,
    /// Id of the span of sending what came of it, child of the one above. Verdicts name it as their parent.
    pub send_id: [u8; 8],
    /// Partition of the input topic.
    pub partition: i32,
    /// Offset within it.
    pub offset: i64,
    /// Bytes of the value; `None` for a tombstone.
    pub bytes: Option<usize>,
    /// `name@version` of the model.
    pub model: String,
    /// When its batch was taken.
    pub taken: SystemTime,
    /// When what came of it was queued.
    pub queued: SystemTime,
    /// When that was committed.
    pub committed: SystemTime,
    /// How it ended.
    pub ended: Ended,
}

/// A request that was answered over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSpan {
    /// Child of the sender's span.
    pub place: Place,
    /// `/v1/score` or `/invocations`.
    pub path: &'static str,
    /// Status of the answer.
    pub status: u16,
    /// When its head was read.
    pub began: SystemTime,
    /// When it was answered.
    pub ended: SystemTime,
}

/// What the exporter gets.
#[derive(Clone, Debug)]
pub enum Span {
    /// A record: two spans of a trace.
    Record(Box<RecordSpan>),
    /// A request over HTTP.
    Request(RequestSpan),
}

/// Where spans go, if anywhere.
#[derive(Debug)]
struct Installed {
    queue: mpsc::Sender<Span>,
    per_second: u32,
}

static INSTALLED: OnceLock<Installed> = OnceLock::new();

/// From now on spans are made, at most `per_second` by each scoring thread and by the HTTP edge. What they are handed to;
/// `None` if that was done before in this process.
pub fn install(per_second: u32) -> Option<mpsc::Receiver<Span>> {
    let (queue, receiver) = mpsc::channel(QUEUE);
    INSTALLED.set(Installed { queue, per_second }).ok()?;
    for fate in Fate::ALL {
        fate.count(0);
    }
    Some(receiver)
}

/// Hands a span over, or drops it where too many wait.
fn hand_over(span: Span) {
    let Some(installed) = INSTALLED.get() else { return };
    if let Err(refused) = installed.queue.try_send(span) {
        let (mpsc::error::TrySendError::Full(span) | mpsc::error::TrySendError::Closed(span)) = refused;
        Fate::QueueFull.count(span.count());
    }
}

impl Span {
    /// Spans that a collector gets.
    fn count(&self) -> u64 {
        match self {
            Span::Record(_) => 2,
            Span::Request(_) => 1,
        }
    }
}

/// Whoever begins spans: a scoring thread, the HTTP edge. `None` where spans go nowhere.
#[derive(Debug)]
pub struct Tracer {
    allowance: Allowance,
}

impl Tracer {
    /// A tracer, if spans go anywhere.
    pub fn new() -> Option<Tracer> {
        let installed = INSTALLED.get()?;
        Some(Tracer { allowance: Allowance::new(installed.per_second, Instant::now()) })
    }

    /// Begins a span in the sender's trace, where the sender samples it and the allowance admits it.
    pub fn begin(&mut self, context: &TraceContext, state: Option<&str>, spans: u64) -> Option<Place> {
        if !context.is_sampled() {
            return None;
        }
        if !self.allowance.admits(Instant::now()) {
            Fate::OverLimit.count(spans);
            return None;
        }
        Some(Place::within(*context, state))
    }
}

/// The trace context that goes out with what came of a record or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing<'a> {
    /// As it came, or with a span of ours in the sender's place. Of a later version than is known it is what is known.
    pub traceparent: [u8; TRACEPARENT_BYTES],
    /// As it came.
    pub tracestate: Option<&'a str>,
}

impl Outgoing<'_> {
    /// Lets `span` be the parent of what receivers do.
    pub fn now_from(&mut self, context: &TraceContext, span: [u8; 8]) {
        self.traceparent = context.sent_by(span);
    }
}

/// Reads a trace context; `None` where `traceparent` is not valid, and with it `tracestate` means nothing.
pub fn read<'a>(
    traceparent: &[u8],
    tracestate: impl FnOnce() -> Option<&'a [u8]>,
) -> Option<(TraceContext, Outgoing<'a>)> {
    let context = TraceContext::parse(traceparent)?;
    let as_it_came = <[u8; TRACEPARENT_BYTES]>::try_from(traceparent).ok().filter(|header| header.starts_with(b"00"));
    let traceparent = as_it_came.unwrap_or_else(|| context.sent_by(context.parent_id));
    Some((context, Outgoing { traceparent, tracestate: tracestate().and_then(trace_context::tracestate) }))
}

/// Spans of what is not committed yet.
#[derive(Debug, Default)]
pub struct Pending(Vec<RecordSpan>);

impl Pending {
    /// Takes a span along to the commit.
    pub fn add(&mut self, span: RecordSpan) {
        self.0.push(span);
    }

    /// The work was thrown away.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The work was committed now.
    pub fn publish(&mut self) {
        if self.0.is_empty() {
            return;
        }
        let committed = SystemTime::now();
        for span in self.0.drain(..) {
            hand_over(Span::Record(Box::new(RecordSpan { committed, ..span })));
        }
    }
}

/// A request of the HTTP edge was answered.
pub fn answered(place: Place, path: &'static str, status: u16, began: SystemTime) {
    hand_over(Span::Request(RequestSpan { place, path, status, began, ended: SystemTime::now() }));
}

/// A span's id: random, not zero.
pub fn random_id() -> [u8; 8] {
    // The second half of a version 4 UUID: 62 random bits, and two that are never both zero.
    let bytes = uuid::Uuid::new_v4().into_bytes();
    let mut id = [0; 8];
    id.copy_from_slice(&bytes[8..]);
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn so_many_are_admitted_in_each_second() {
        let start = Instant::now();
        let mut allowance = Allowance::new(2, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let admitted: Vec<bool> =
            [0, 1, 2, 999, 1000, 1001, 1002, 1999, 9000].map(|milliseconds| allowance.admits(at(milliseconds))).into();
        assert_eq!(admitted, [true, true, false, false, true, true, false, false, true]);
        assert!(!Allowance::new(0, start).admits(start));
    }

    #[test]
    fn a_context_goes_out_as_it_came_until_a_span_takes_its_place() {
        let (context, mut outgoing) = read(HEADER, || Some(b"vendor=x")).expect("valid");
        assert_eq!((outgoing.traceparent.as_slice(), outgoing.tracestate), (HEADER, Some("vendor=x")));
        outgoing.now_from(&context, [0xab; 8]);
        assert_eq!(&outgoing.traceparent, b"00-0af7651916cd43dd8448eb211c80319c-abababababababab-01");
        assert_eq!(outgoing.tracestate, Some("vendor=x"));
    }

    #[test]
    fn a_later_version_goes_out_as_the_one_that_is_known() {
        let long = format!("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-{}", "x".repeat(10_000));
        let (_, outgoing) = read(long.as_bytes(), || None).expect("valid");
        assert_eq!(outgoing.traceparent, HEADER);
        let unknown_flags = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-f1";
        assert_eq!(&read(unknown_flags, || None).expect("valid").1.traceparent, unknown_flags, "not ours to change");
    }

    #[test]
    fn an_invalid_tracestate_is_dropped_alone_and_an_invalid_traceparent_with_it() {
        let (_, outgoing) = read(HEADER, || Some(b"Not Valid")).expect("valid");
        assert_eq!(outgoing.tracestate, None);
        assert_eq!(read(b"00-1", || panic!("not looked at")), None);
    }

    #[test]
    fn ids_differ() {
        assert_ne!(random_id(), random_id());
    }
}
