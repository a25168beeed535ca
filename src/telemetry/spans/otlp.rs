//! Spans as OpenTelemetry has them: names, kinds and attributes by its semantic conventions for messaging and HTTP.
//!
//! ```text
//!  sender's span ─► process TOPIC (consumer)                  from its batch being taken to its verdicts being queued
//!                     └─► send TOPIC (producer)               from there to their commit; verdicts name it as parent
//!  sender's span ─► POST /v1/score (server)
//! ```
//!
//! What a transaction says of a person stays out: no key, no features, no transaction id. The place in the topic finds it.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::{Ended, Place, RecordSpan, RequestSpan, Span};

/// What all spans of a worker have in common.
#[derive(Clone, Debug)]
pub struct Names {
    /// Input topic.
    pub input: String,
    /// Topic of the verdicts.
    pub output: String,
    /// Topic of the dead letters.
    pub dead_letter: String,
    /// Consumer group.
    pub group: String,
}

/// Appends what a collector gets of `span`.
pub(super) fn append(names: &Names, span: Span, spans: &mut Vec<SpanData>) {
    match span {
        Span::Record(record) => spans.extend(of_record(names, &record)),
        Span::Request(request) => spans.push(of_request(&request)),
    }
}

fn of_record(names: &Names, record: &RecordSpan) -> [SpanData; 2] {
    let RecordSpan { place, partition, offset, .. } = record;
    let partition = partition.to_string();
    let (model, version) = record.model.split_once('@').unwrap_or((&record.model, ""));
    let mut attributes = vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "process"),
        KeyValue::new("messaging.operation.type", "process"),
        KeyValue::new("messaging.destination.name", names.input.clone()),
        KeyValue::new("messaging.destination.partition.id", partition.clone()),
        KeyValue::new("messaging.kafka.offset", *offset),
        KeyValue::new("messaging.consumer.group.name", names.group.clone()),
        KeyValue::new("fraud.model.name", model.to_owned()),
        KeyValue::new("fraud.model.version", version.to_owned()),
    ];
    attributes.push(match record.bytes {
        Some(bytes) => KeyValue::new("messaging.message.body.size", bytes as i64),
        None => KeyValue::new("messaging.kafka.message.tombstone", true),
    });
    let (status, topic, messages) = match record.ended {
        Ended::Verdicts { rows, score, decision } => {
            attributes.extend([
                KeyValue::new("fraud.rows", i64::from(rows)),
                KeyValue::new("fraud.score", f64::from(score)),
                KeyValue::new("fraud.decision", decision.as_str()),
            ]);
            (Status::Unset, &names.output, rows)
        }
        Ended::DeadLetter(class) => {
            attributes.push(KeyValue::new("error.type", class.as_str()));
            (Status::error(class.as_str()), &names.dead_letter, 1)
        }
    };
    let mut sending = vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "send"),
        KeyValue::new("messaging.operation.type", "send"),
        KeyValue::new("messaging.destination.name", topic.clone()),
        KeyValue::new("messaging.destination.partition.id", partition),
    ];
    if messages != 1 {
        sending.push(KeyValue::new("messaging.batch.message_count", i64::from(messages)));
    }
    let process = SpanData {
        status,
        links: link_to_sender(place),
        ..data(place, SpanKind::Consumer, format!("process {}", names.input), (record.taken, record.queued), attributes)
    };
    let times = (record.queued, record.committed);
    let send = SpanData {
        span_context: context(place, record.send_id, false),
        parent_span_id: SpanId::from_bytes(place.id),
        parent_span_is_remote: false,
        ..data(place, SpanKind::Producer, format!("send {topic}"), times, sending)
    };
    [process, send]
}

fn of_request(request: &RequestSpan) -> SpanData {
    let mut attributes = vec![
        KeyValue::new("http.request.method", "POST"),
        KeyValue::new("http.route", request.path),
        KeyValue::new("url.path", request.path),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("http.response.status_code", i64::from(request.status)),
    ];
    // What the client did wrong is no error of the server's.
    let failed = request.status >= 500;
    if failed {
        attributes.push(KeyValue::new("error.type", request.status.to_string()));
    }
    let name = format!("POST {}", request.path);
    SpanData {
        status: if failed { Status::error("") } else { Status::Unset },
        ..data(&request.place, SpanKind::Server, name, (request.began, request.ended), attributes)
    }
}

/// A span at `place`, child of the sender's.
fn data(
    place: &Place,
    kind: SpanKind,
    name: String,
    (start, end): (SystemTime, SystemTime),
    attributes: Vec<KeyValue>,
) -> SpanData {
    SpanData {
        span_context: context(place, place.id, false),
        parent_span_id: SpanId::from_bytes(place.parent.parent_id),
        parent_span_is_remote: true,
        span_kind: kind,
        name: Cow::Owned(name),
        start_time: start,
        // A clock that was set back must not end a span before it began.
        end_time: end.max(start),
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("fraud-scorer")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn context(place: &Place, id: [u8; 8], remote: bool) -> SpanContext {
    let state = place.state.as_deref().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    SpanContext::new(
        TraceId::from_bytes(place.parent.trace_id),
        SpanId::from_bytes(id),
        TraceFlags::new(place.parent.flags()),
        remote,
        state,
    )
}

/// The conventions ask a consumer for a link to where the message was made, whether or not that is its parent too.
fn link_to_sender(place: &Place) -> SpanLinks {
    let mut links = SpanLinks::default();
    links.links.push(Link::new(context(place, place.parent.parent_id, true), Vec::new(), 0));
    links
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use fraud_wire::dead_letter::ErrorClass;
    use fraud_wire::trace_context::TraceContext;
    use fraud_wire::verdict::Decision;

    use super::*;

    fn names() -> Names {
        let name = str::to_owned;
        Names { input: name("in"), output: name("out"), dead_letter: name("dlq"), group: name("group") }
    }

    fn record(ended: Ended) -> RecordSpan {
        let header = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let at = |milliseconds| UNIX_EPOCH + Duration::from_millis(milliseconds);
        RecordSpan {
            place: Place {
                parent: TraceContext::parse(header).expect("valid"),
                state: Some("vendor=x".into()),
                id: [1; 8],
            },
            send_id: [2; 8],
            partition: 3,
            offset: 917,
            bytes: Some(525),
            model: "fraud@7".to_owned(),
            taken: at(1000),
            queued: at(1002),
            committed: at(1100),
            ended,
        }
    }

    fn value(span: &SpanData, key: &str) -> Option<String> {
        span.attributes.iter().find(|pair| pair.key.as_str() == key).map(|pair| pair.value.to_string())
    }

    #[test]
    fn a_scored_record_is_processed_within_the_senders_span_and_sent_within_that() {
        let ended = Ended::Verdicts { rows: 2, score: 0.75, decision: Decision::Review };
        let [process, send] = of_record(&names(), &record(ended));
        assert_eq!((process.name.as_ref(), send.name.as_ref()), ("process in", "send out"));
        assert_eq!((process.span_kind.clone(), send.span_kind.clone()), (SpanKind::Consumer, SpanKind::Producer));
        let trace = process.span_context.trace_id();
        assert_eq!(
            (trace.to_string().as_str(), send.span_context.trace_id()),
            ("0af7651916cd43dd8448eb211c80319c", trace)
        );
        assert_eq!(process.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(send.parent_span_id, process.span_context.span_id());
        assert_eq!(send.span_context.span_id().to_bytes(), [2; 8], "what verdicts name");
        assert_eq!((process.start_time, process.end_time), (record(ended).taken, record(ended).queued));
        assert_eq!((send.start_time, send.end_time), (record(ended).queued, record(ended).committed));
        assert_eq!(process.span_context.trace_state().header(), "vendor=x");
        assert_eq!(process.links.links.len(), 1);
        for (key, expected) in [
            ("messaging.destination.name", "in"),
            ("messaging.destination.partition.id", "3"),
            ("messaging.kafka.offset", "917"),
            ("messaging.consumer.group.name", "group"),
            ("messaging.message.body.size", "525"),
            ("fraud.model.name", "fraud"),
            ("fraud.model.version", "7"),
            ("fraud.rows", "2"),
            ("fraud.score", "0.75"),
            ("fraud.decision", "review"),
        ] {
            assert_eq!(value(&process, key).as_deref(), Some(expected), "{key}");
        }
        assert_eq!(value(&send, "messaging.batch.message_count").as_deref(), Some("2"));
        assert_eq!(process.status, Status::Unset);
    }

    #[test]
    fn a_dead_letter_is_an_error_with_its_class() {
        let tombstone = RecordSpan { bytes: None, ..record(Ended::DeadLetter(ErrorClass::MalformedJson)) };
        let [process, send] = of_record(&names(), &tombstone);
        assert_eq!(process.status, Status::error("malformed-json"));
        assert_eq!(value(&process, "error.type").as_deref(), Some("malformed-json"));
        assert_eq!(value(&process, "messaging.kafka.message.tombstone").as_deref(), Some("true"));
        assert_eq!((send.name.as_ref(), value(&send, "messaging.batch.message_count")), ("send dlq", None));
        assert_eq!(send.status, Status::Unset, "the letter itself was sent");
    }

    #[test]
    fn only_our_own_failures_are_errors_of_a_request() {
        let place = record(Ended::DeadLetter(ErrorClass::TooLarge)).place;
        let request = |status| {
            let (began, ended) = (UNIX_EPOCH + Duration::from_secs(2), UNIX_EPOCH + Duration::from_secs(1));
            of_request(&RequestSpan { place: place.clone(), path: "/v1/score", status, began, ended })
        };
        assert_eq!(request(422).status, Status::Unset);
        assert_eq!(request(503).status, Status::error(""));
        assert_eq!(request(200).end_time, request(200).start_time, "never before it began");
    }
}
