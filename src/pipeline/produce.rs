//! Produce: outcomes become messages in the committer's queue, in input order. Same key, same partition as the record.
//!
//! ```text
//!  record, rows ─► verdict appended to `values` ─┐
//!  record, rows ─► verdict appended to `values` ─┤ one partition's run ─► one call
//!  …                                             ┘
//!  a dead letter, a traced verdict ─► headers of its own ─► a call of its own
//! ```
//!
//! Verdicts of one partition that follow each other are sent together: the call costs as much for a thousand as for one.
//! What has headers of its own (a dead letter, a verdict with a trace context) goes by itself; a traced verdict first
//! sends what waits before it, so that order within the partition holds. Dead letters go to another topic and need not.

use std::borrow::Cow;
use std::ffi::CStr;
use std::ops::Range;
use std::time::{Instant, SystemTime};

use fraud_wire::dead_letter::{self, ErrorClass, Rejection};
use fraud_wire::trace_context::{
    MOST_TRACESTATE_BYTES, TRACEPARENT_BYTES, TRACEPARENT_HEADER, TRACESTATE_HEADER, TraceContext,
};
use fraud_wire::verdict::Decision;

use super::decode::EventTime;
use super::encode::{Encoder, RowSource};
use super::engine::{Outcome, ScoredRow};
use crate::kafka::batch::Record;
use crate::kafka::outbox::{Headers, Kind, Outgoing};
use crate::log_events;
use crate::model::exchange::{LoadedModel, ThreadModel};
use crate::telemetry::metrics::Tally;
use crate::telemetry::spans::{self, Ended, Place, RecordSpan, Tracer};
use crate::telemetry::suspicious::Noticed;
use crate::transaction::Interruption;
use crate::transaction::committer::Committer;

const TRACEPARENT: &CStr = c"traceparent";
const TRACESTATE: &CStr = c"tracestate";
const _: () = assert!(TRACEPARENT.count_bytes() == TRACEPARENT_HEADER.len());
const _: () = assert!(TRACESTATE.count_bytes() == TRACESTATE_HEADER.len());

/// Bytes of verdicts that are gathered at most before they are sent: bounds the buffer, and keeps it in the cache.
const GATHERED_BYTES: usize = 256 * 1024;

/// Where messages go.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Topic of the verdicts; its partitions are the input's.
    pub output: String,
    /// Topic of the dead letters.
    pub dead_letter: String,
    /// Partitions of the dead-letter topic.
    pub dead_letter_partitions: i32,
    /// Topic of the comparisons with the challenger, if they are written; its partitions are the input's.
    pub challenger: Option<String>,
}

/// Writes the messages of one thread.
pub struct Writer {
    destination: Destination,
    amount_feature: String,
    /// The model's column of the amount at stake.
    amount: Option<usize>,
    /// Verdicts that wait to be sent.
    verdicts: Gathered,
    /// Makes spans of sampled records, if they go anywhere.
    tracer: Option<Tracer>,
    /// When the batch was taken that is being written.
    taken: Instant,
}

/// The trace of a record whose sender named one.
struct Trace<'a> {
    outgoing: spans::Outgoing<'a>,
    span: Option<OpenSpan>,
}

/// A span of ours within it: of processing the record, with the id of the one of sending what came of it.
struct OpenSpan {
    place: Place,
    send_id: [u8; 8],
}

/// Messages of one partition that wait to be sent, one after the other.
#[derive(Default)]
pub(super) struct Gathered {
    /// Their values.
    pub(super) values: Vec<u8>,
    waiting: Vec<Waiting>,
}

/// A message in `values`.
#[derive(Clone, Copy)]
struct Waiting {
    /// Index of its record in the batch: whose key it has.
    record: u32,
    /// Where it ends; it begins where the one before ends.
    end: u32,
}

impl Gathered {
    /// Forgets what a batch that was interrupted may have left.
    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.waiting.clear();
    }

    /// Enough to be sent.
    pub(super) fn is_full(&self) -> bool {
        self.values.len() >= GATHERED_BYTES
    }

    /// What was appended to the values is the message of this record of the batch.
    pub(super) fn end_message(&mut self, record: usize) {
        self.waiting.push(Waiting { record: record as u32, end: self.values.len() as u32 });
    }

    /// Sends what waits.
    pub(super) fn send(
        &mut self,
        kind: Kind,
        topic: &str,
        records: &[Record<'_>],
        committer: &mut Committer,
    ) -> Result<(), Interruption> {
        let Some(first) = self.waiting.first() else { return Ok(()) };
        let partition = records[first.record as usize].partition();
        let (values, waiting) = (&self.values, &self.waiting);
        let messages = (0..waiting.len()).map(|index| {
            let begin = if index == 0 { 0 } else { waiting[index - 1].end as usize };
            let Waiting { record, end } = waiting[index];
            (records[record as usize].key(), &values[begin..end as usize])
        });
        committer.send_together((kind, topic), partition, messages)?;
        self.clear();
        Ok(())
    }
}

impl Writer {
    /// A writer to `destination`; the amount at stake is the model's feature of that name.
    pub fn new(destination: Destination, amount_feature: String) -> Writer {
        let (verdicts, tracer) = (Gathered::default(), Tracer::new());
        Writer { destination, amount_feature, amount: None, verdicts, tracer, taken: Instant::now() }
    }

    /// From now on the verdicts are this model's. Says whether it reads an amount.
    pub fn fit(&mut self, model: &LoadedModel) -> bool {
        let features = &model.manifest.features;
        self.amount = features.iter().position(|feature| feature.name == self.amount_feature);
        self.amount.is_some()
    }

    /// Queues the messages of a batch, `taken` then, that `model`'s engine has just run on `records`.
    pub fn write(
        &mut self,
        (records, taken): (&[Record<'_>], Instant),
        model: &ThreadModel,
        committer: &mut Committer,
        tally: &mut Tally,
    ) -> Result<(), Interruption> {
        self.taken = taken;
        self.verdicts.clear();
        let mut partition = None;
        for (index, (record, outcome)) in records.iter().zip(model.engine.outcomes()).enumerate() {
            if partition != Some(record.partition()) || self.verdicts.is_full() {
                self.send_waiting(records, committer)?;
                partition = Some(record.partition());
            }
            let refusal = committer.refusal(record.partition(), record.offset());
            match outcome {
                Outcome::Scored(_) if let Some(reason) = refusal.and_then(|refusal| refusal.verdict.clone()) => {
                    let rejection = self.undeliverable(record, &reason);
                    self.dead_letter(record, &rejection, model, committer, tally)?;
                }
                Outcome::Scored(rows) => self.verdicts(records, index, model, rows.clone(), committer, tally)?,
                Outcome::Rejected(rejection) => {
                    self.dead_letter(record, rejection, model, committer, tally)?;
                }
            }
        }
        self.send_waiting(records, committer)
    }

    /// Sends the verdicts that wait.
    fn send_waiting(&mut self, records: &[Record<'_>], committer: &mut Committer) -> Result<(), Interruption> {
        self.verdicts.send(Kind::Verdict, &self.destination.output, records, committer)
    }

    #[allow(clippy::too_many_arguments)] // one batch's context; a struct for it would only be unpacked here
    fn verdicts(
        &mut self,
        records: &[Record<'_>],
        index: usize,
        model: &ThreadModel,
        rows: Range<usize>,
        committer: &mut Committer,
        tally: &mut Tally,
    ) -> Result<(), Interruption> {
        let record = &records[index];
        if rows.len() > 1
            && let Some(rejection) = too_large_together(record, model, rows.clone())
        {
            return self.dead_letter(record, &rejection, model, committer, tally);
        }
        let limit = committer.size_limit(Kind::Verdict);
        if limit != usize::MAX
            && let Some(rejection) = self.first_too_large(record, model, rows.clone(), limit)
        {
            // One row's verdict that its topic does not take rejects the message: whole or not at all.
            return self.dead_letter(record, &rejection, model, committer, tally);
        }
        let timestamp = record.timestamp();
        let trace = self.trace(record);
        let first = rows.start;
        for row in model.engine.rows(rows.clone()) {
            let begin = self.verdicts.values.len();
            self.verdict(record, timestamp, &row, model);
            let amount = self.amount.map(|column| model.engine.features_of(first + row.meta.row as usize)[column]);
            tally.verdict(row.decision, row.score, timestamp, amount);
            if row.decision != Decision::Approve && tally.suspicious.has_room() {
                let index = first + row.meta.row as usize;
                tally.suspicious.add(&Noticed {
                    verdict: &self.verdicts.values[begin..],
                    features: model.engine.features_of(index),
                    score: row.score,
                    amount,
                    model: model.model.number,
                });
            }
            let Some(trace) = &trace else {
                self.verdicts.end_message(index);
                continue;
            };
            let value = self.verdicts.values.split_off(begin);
            self.send_waiting(records, committer)?;
            let message = self.traced(record, &value, Encoder::traced_headers(&trace.outgoing));
            committer.send(&message)?;
        }
        if let Some(span) = trace.and_then(|trace| trace.span) {
            let suspicious = model.engine.rows(rows.clone()).max_by(|one, other| one.score.total_cmp(&other.score));
            if let Some(ScoredRow { score, decision, .. }) = suspicious {
                let ended = Ended::Verdicts { rows: rows.len() as u32, score, decision };
                tally.spans.add(self.end(span, record, model, ended));
            }
        }
        Ok(())
    }

    /// The trace of a record, if its sender named one; with a span of ours, if the sender samples it and spans go anywhere.
    #[inline]
    fn trace<'a>(&mut self, record: &Record<'a>) -> Option<Trace<'a>> {
        let traceparent = record.header(TRACEPARENT)?;
        let (context, mut outgoing) = spans::read(traceparent, || record.header(TRACESTATE))?;
        let span = self.begin(&context, outgoing.tracestate);
        if let Some(OpenSpan { send_id, .. }) = &span {
            outgoing.now_from(&context, *send_id);
        }
        Some(Trace { outgoing, span })
    }

    fn begin(&mut self, context: &TraceContext, tracestate: Option<&str>) -> Option<OpenSpan> {
        let place = self.tracer.as_mut()?.begin(context, tracestate, 2)?;
        Some(OpenSpan { place, send_id: spans::random_id() })
    }

    /// The spans of a record whose messages are queued. Committed they are later, and only then they count.
    fn end(&self, span: OpenSpan, record: &Record<'_>, model: &ThreadModel, ended: Ended) -> RecordSpan {
        let queued = SystemTime::now();
        RecordSpan {
            place: span.place,
            send_id: span.send_id,
            partition: record.partition(),
            offset: record.offset(),
            bytes: record.payload().map(<[u8]>::len),
            model: model.model.id(),
            taken: queued.checked_sub(self.taken.elapsed()).unwrap_or(queued),
            queued,
            committed: queued,
            ended,
        }
    }

    /// Appends one verdict to those that wait.
    #[inline]
    fn verdict(&mut self, record: &Record<'_>, timestamp: Option<i64>, row: &ScoredRow<'_>, model: &ThreadModel) {
        let event_time = match row.meta.event_time {
            EventTime::Milliseconds(time) => time,
            EventTime::Absent => timestamp.unwrap_or(0),
        };
        let source = RowSource { partition: record.partition(), offset: record.offset(), row: row.meta.row };
        model.encoder.verdict(&mut self.verdicts.values, record.payload().unwrap_or_default(), row, event_time, source);
    }

    fn traced<'a>(&'a self, record: &Record<'a>, value: &'a [u8], headers: Headers<'a>) -> Outgoing<'a> {
        Outgoing {
            kind: Kind::Verdict,
            topic: &self.destination.output,
            partition: record.partition(),
            key: record.key(),
            value: Some(value),
            headers,
        }
    }

    /// Only asked once the output topic has refused a verdict.
    #[cold]
    fn first_too_large(
        &mut self,
        record: &Record<'_>,
        model: &ThreadModel,
        rows: Range<usize>,
        limit: usize,
    ) -> Option<Rejection> {
        let topic = self.destination.output.clone();
        let traceparent = record.header(TRACEPARENT);
        // Whoever is named as the parent in the end, the size is the same.
        let trace = traceparent.and_then(|header| spans::read(header, || record.header(TRACESTATE)));
        model.engine.rows(rows).find_map(|row| {
            let begin = self.verdicts.values.len();
            self.verdict(record, record.timestamp(), &row, model);
            let value = self.verdicts.values.split_off(begin);
            let headers = match &trace {
                Some((_, outgoing)) => Encoder::traced_headers(outgoing),
                None => Headers::new(),
            };
            let size = self.traced(record, &value, headers).size();
            let message = || {
                format!(
                    "the verdict on row {} has {size} bytes with its key, more than topic {topic} takes: shorten \
                     transaction_id or the key, or raise the topic's max.message.bytes",
                    row.meta.row
                )
            };
            (size >= limit).then(|| Rejection::new(ErrorClass::TooLarge, message()))
        })
    }

    /// The output topic refused this record's verdict, for good.
    #[cold]
    fn undeliverable(&self, record: &Record<'_>, reason: &str) -> Rejection {
        let (partition, offset, topic) = (record.partition(), record.offset(), self.destination.output.as_str());
        log_events::pipeline::MessageRefused { partition, offset, topic, reason }.log();
        let key =
            if record.key().is_none() { ". The record has no key: a compacted topic takes none without" } else { "" };
        Rejection::new(ErrorClass::Undeliverable, format!("topic {topic} refused the verdict: {reason}{key}"))
    }

    /// Its headers are the record's own, trace context included: redriven, it goes on with the trace where it was.
    fn dead_letter(
        &mut self,
        record: &Record<'_>,
        rejection: &Rejection,
        model: &ThreadModel,
        committer: &mut Committer,
        tally: &mut Tally,
    ) -> Result<(), Interruption> {
        let (partition, offset) = (record.partition(), record.offset());
        log_events::pipeline::DeadLetter { partition, offset, class: rejection.class, reason: &rejection.message }
            .log();
        let own = record.headers();
        let headers = |own| model.encoder.dead_letter_headers(own, rejection, partition, offset, record.timestamp());
        let mut message = Outgoing {
            kind: Kind::DeadLetter,
            topic: &self.destination.dead_letter,
            partition: partition % self.destination.dead_letter_partitions,
            key: record.key(),
            value: record.payload(),
            headers: headers(&own),
        };
        let limit = committer.size_limit(Kind::DeadLetter);
        if message.size() >= limit {
            // The topic takes no record of this size: better a letter without its contents than a partition that
            // stands. They are left out in the order in which they can be found again at the source.
            let (bytes, topic) = (message.size(), message.topic);
            log_events::pipeline::DeadLetterInPart { partition, offset, bytes, topic }.log();
            if let Some(value) = message.value.take() {
                message.headers.push(count(dead_letter::headers::VALUE_OMITTED, value.len()));
            }
            if message.size() >= limit && !own.is_empty() {
                let bytes = own.iter().map(|(name, value)| name.len() + value.map_or(0, <[u8]>::len)).sum();
                message.headers = headers(&[]);
                message.headers.push(count(dead_letter::headers::HEADERS_OMITTED, bytes));
                if let Some(value) = record.payload() {
                    message.headers.push(count(dead_letter::headers::VALUE_OMITTED, value.len()));
                }
            }
            if message.size() >= limit
                && let Some(key) = message.key.take()
            {
                message.headers.push(count(dead_letter::headers::KEY_OMITTED, key.len()));
            }
        }
        let place;
        if let Some((reason, times)) = committer.refusal(partition, offset).and_then(|refusal| refusal.letter.clone()) {
            let topic = message.topic;
            log_events::pipeline::MessageRefused { partition, offset, topic, reason: &reason }.log();
            if times > 1 || message.key.is_some() {
                let reason = format!("topic {topic} refuses the dead letter of offset {offset}: {reason}");
                return Err(Interruption::Partition { partition, reason });
            }
            // Most likely the topic is compacted: better a letter with a key than a partition that stands.
            place = format!("{}-{partition}-{offset}", model.encoder.topic());
            message.key = Some(place.as_bytes());
            message.headers.push((dead_letter::headers::KEY_ADDED.into(), Some(b"true".as_slice().into())));
        }
        committer.send(&message)?;
        tally.dead_letter(rejection.class);
        if self.tracer.is_some()
            && let Some(span) = self.trace(record).and_then(|trace| trace.span)
        {
            tally.spans.add(self.end(span, record, model, Ended::DeadLetter(rejection.class)));
        }
        Ok(())
    }
}

/// Each verdict on a row of a message repeats the message's id and key: a small message of many rows could become gigabytes.
/// Counted before any is written, each at its longest.
fn too_large_together(record: &Record<'_>, model: &ThreadModel, rows: Range<usize>) -> Option<Rejection> {
    let traced = record
        .header(TRACEPARENT)
        .map_or(0, |_| TRACEPARENT_HEADER.len() + TRACEPARENT_BYTES + TRACESTATE_HEADER.len() + MOST_TRACESTATE_BYTES);
    let each = model.encoder.most_bytes_without_id() + record.key().map_or(0, <[u8]>::len) + traced;
    let (count, most) = (rows.len(), model.engine.most_answer_bytes());
    let bytes = model.engine.rows(rows).map(|row| each + row.meta.transaction_id.bytes()).sum::<usize>();
    let message = || {
        format!(
            "the verdicts on its {count} rows would have {bytes} bytes with their keys, the limit is {most} (8 × \
             --max-message-bytes): send it in parts, or shorten transaction_id or the key"
        )
    };
    (bytes > most).then(|| Rejection::new(ErrorClass::TooLarge, message()))
}

/// A header that says how many bytes were left out.
fn count(name: &'static str, bytes: usize) -> (Cow<'static, str>, Option<Cow<'static, [u8]>>) {
    (name.into(), Some(bytes.to_string().into_bytes().into()))
}
