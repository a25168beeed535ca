//! A sender's trace goes on: its context reaches verdict, dead letter and answer, and with a collector the worker's own spans
//! stand in it. A collector that is away costs spans and nothing else.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;

use super::support::broker::shared;
use super::support::process::Running;
use super::support::topics::{Received, Record, Topics, faults};
use super::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-1bf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const STATE: &str = "rojo=00f067aa0ba902b7, tenant@vendor=x";

/// Names with values.
type Headers<'a> = Vec<(&'a str, &'a str)>;

fn transaction(id: &str) -> String {
    let features: Vec<String> = (1..=28).map(|number| format!("\"V{number}\":0.5")).collect();
    format!("{{\"transaction_id\":\"{id}\",\"event_time\":1700000000000,{},\"Amount\":12.5}}", features.join(","))
}

fn two_rows() -> String {
    let names: Vec<String> = (1..=28).map(|number| format!("\"V{number}\"")).collect();
    let row = format!("[{}]", ["0.25"; 29].join(","));
    format!("{{\"columns\":[{},\"Amount\"],\"data\":[{row},{row}]}}", names.join(","))
}

/// Sends values with headers and gives the verdicts of all of them, read in order.
fn verdicts_of(topics: &Topics, records: &[(&str, Headers<'_>)], rows: usize) -> Vec<Received> {
    let records: Vec<Record<'_>> = records
        .iter()
        .map(|(value, headers)| Record {
            value: Some(value.as_bytes()),
            headers: headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect(),
            ..Record::default()
        })
        .collect();
    topics.send(&records);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts", rows, LIMIT);
    assert_eq!(faults(&subscriber.seen, rows), Vec::<String>::new());
    subscriber.seen.clone()
}

#[test]
fn a_trace_context_goes_from_transaction_to_verdict_and_dead_letter() {
    let later_version = "cc-2cf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-will-be";
    let known_part = "00-2cf7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let too_long = format!("vendor={},other={0}", "x".repeat(256));
    // What comes, and what goes out with the verdict.
    let cases: Vec<(Headers<'_>, Option<&str>, Option<&str>)> = vec![
        (vec![], None, None),
        (vec![("traceparent", SAMPLED)], Some(SAMPLED), None),
        (vec![("tracestate", STATE), ("other", "header"), ("traceparent", SAMPLED)], Some(SAMPLED), Some(STATE)),
        (vec![("traceparent", UNSAMPLED), ("tracestate", STATE)], Some(UNSAMPLED), Some(STATE)),
        (vec![("traceparent", later_version)], Some(known_part), None),
        (vec![("traceparent", SAMPLED), ("tracestate", "Not A List")], Some(SAMPLED), None),
        (vec![("traceparent", SAMPLED), ("tracestate", &too_long)], Some(SAMPLED), None),
        (vec![("tracestate", STATE)], None, None),
        (vec![("traceparent", ""), ("tracestate", STATE)], None, None),
        (
            vec![("traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01"), ("tracestate", STATE)],
            None,
            None,
        ),
        (vec![("traceparent", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01")], None, None),
        (vec![("traceparent", "not one"), ("tracestate", STATE)], None, None),
        (vec![("traceparent", "not one"), ("traceparent", SAMPLED)], Some(SAMPLED), None),
    ];
    for guarantee in ["exactly-once", "at-least-once"] {
        let topics = Topics::create(shared(), 1);
        let worker = topics.start_worker(&["--guarantee", guarantee]);
        let values: Vec<String> = (0..cases.len()).map(|index| transaction(&index.to_string())).collect();
        let records: Vec<_> =
            values.iter().zip(&cases).map(|(value, (headers, ..))| (value.as_str(), headers.clone())).collect();
        let verdicts = verdicts_of(&topics, &records, records.len());
        for (verdict, (headers, parent, state)) in verdicts.iter().zip(&cases) {
            assert_eq!(verdict.header("traceparent").as_deref(), *parent, "{headers:?}");
            assert_eq!(verdict.header("tracestate").as_deref(), *state, "{headers:?}");
            assert_eq!(verdict.header("other"), None, "headers of other kinds stay behind");
        }

        // A dead letter is the record as it was, valid context or not.
        let poisons: Vec<Record<'_>> = cases
            .iter()
            .map(|(headers, ..)| Record {
                value: Some(b"{"),
                headers: headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect(),
                ..Record::default()
            })
            .collect();
        topics.send(&poisons);
        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("dead letters", poisons.len(), LIMIT);
        for (letter, (headers, ..)) in letters.seen.iter().zip(&cases) {
            let own = letter.headers[..headers.len()]
                .iter()
                .map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_deref().unwrap()).unwrap()));
            assert_eq!(own.collect::<Vec<_>>(), *headers);
        }
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}

/// A span as a collector got it.
#[derive(Clone, Debug)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: SpanKind,
    state: String,
    error: bool,
    began: u64,
    ended: u64,
    attributes: HashMap<String, String>,
    service: String,
}

/// A collector that speaks OTLP over HTTP: it takes requests while it is up, or answers with a status of the test's.
struct Collector {
    address: String,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    requests: usize,
    tokens: Vec<String>,
    refuse_with: Option<&'static str>,
    reject: bool,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let collector = Collector { address: listener.local_addr().unwrap().to_string(), seen: Arc::default() };
        let seen = collector.seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = seen.clone();
                std::thread::spawn(move || while answer(&stream, &seen).is_some() {});
            }
        });
        collector
    }

    fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    fn set(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
    }

    /// Waits until spans enough came, and gives all.
    fn wait_for(&self, what: &str, done: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        wait_for(what, LIMIT, || {
            let seen = self.seen.lock().unwrap();
            done(&seen.spans).then(|| seen.spans.clone())
        })
    }
}

/// Answers one request; `None` where the connection is over.
fn answer(stream: &TcpStream, seen: &Mutex<Seen>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut token) = (String::new(), 0, String::new());
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert_eq!(line.trim_end(), "POST /v1/traces HTTP/1.1");
    loop {
        line.clear();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "content-type" => assert_eq!(value, "application/x-protobuf"),
            "x-token" => value.clone_into(&mut token),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    let mut seen = seen.lock().unwrap();
    seen.requests += 1;
    seen.tokens.push(token);
    if let Some(status) = seen.refuse_with {
        return write!(&mut &*stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").ok();
    }
    // ExportTraceServiceResponse { partial_success: { rejected_spans: 1, error_message: "no" } }
    let body: &[u8] = if seen.reject { &[0x0a, 0x06, 0x08, 0x01, 0x12, 0x02, b'n', b'o'] } else { &[] };
    seen.spans.extend(spans_of(request));
    drop(seen);
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: {}\r\n\r\n", body.len());
    (&mut &*stream).write_all(&[head.as_bytes(), body].concat()).ok()
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let text = |value: Option<&opentelemetry_proto::tonic::common::v1::AnyValue>| match &value.unwrap().value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => panic!("{other:?}"),
    };
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut spans = Vec::new();
    for resource in request.resource_spans {
        let about = resource.resource.unwrap().attributes;
        let service =
            about.iter().find(|pair| pair.key == "service.name").map(|pair| text(pair.value.as_ref())).unwrap();
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                trace: hexadecimal(&span.trace_id),
                id: hexadecimal(&span.span_id),
                parent: hexadecimal(&span.parent_span_id),
                kind: span.kind(),
                error: span.status.as_ref().is_some_and(|status| status.code == 2),
                state: span.trace_state,
                name: span.name,
                began: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                attributes: span.attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect(),
                service: service.clone(),
            });
        }
    }
    spans
}

/// The value of a series of the worker's spans.
fn counted(worker: &mut Running, result: &str) -> u64 {
    let prefix = format!("{{result=\"{result}\"}} ");
    let series = worker.series("fraud_scorer_spans_total");
    series.iter().find_map(|line| line.strip_prefix(&prefix)).map_or(0, |value| value.parse().unwrap())
}

#[test]
fn sampled_records_and_requests_have_spans_within_their_senders_traces() {
    let collector = Collector::start();
    for guarantee in ["exactly-once", "at-least-once"] {
        let topics = Topics::create(shared(), 1);
        let mut command = topics.worker();
        command.args(["--guarantee", guarantee, "--otlp-endpoint", &collector.endpoint()]);
        command.env("OTEL_SERVICE_NAME", guarantee).env("OTEL_EXPORTER_OTLP_HEADERS", "x-token=hush%20hush");
        let mut worker = Running::start(command);
        worker.wait_until_ready();
        let (one, two) = (transaction("one"), two_rows());
        let records = [
            (one.as_str(), vec![("traceparent", SAMPLED), ("tracestate", STATE)]),
            (one.as_str(), vec![("traceparent", UNSAMPLED)]),
            (one.as_str(), vec![]),
            (two.as_str(), vec![("traceparent", SAMPLED)]),
            ("{", vec![("traceparent", SAMPLED)]),
            (one.as_str(), vec![("traceparent", "not one")]),
        ];
        let verdicts = verdicts_of(&topics, &records, 6);
        let mine = |span: &&Span| span.service == guarantee;
        let spans = collector.wait_for("spans", |spans| spans.iter().filter(mine).count() >= 6);
        let spans: Vec<&Span> = spans.iter().filter(mine).collect();
        assert_eq!(spans.len(), 6, "two of each sampled record: {spans:#?}");
        let named = |name: &str, offset: &str| {
            let process = spans
                .iter()
                .find(|span| span.name.starts_with("process") && span.attributes["messaging.kafka.offset"] == offset);
            let process = (*process.unwrap()).clone();
            if name == "process" {
                process
            } else {
                spans.iter().copied().find(|span| span.parent == process.id).unwrap().clone()
            }
        };
        // The verdict goes on from the worker's span, which goes on from the sender's.
        let (process, send) = (named("process", "0"), named("send", "0"));
        assert_eq!(process.name, format!("process {}", topics.input));
        assert_eq!((process.kind, send.kind), (SpanKind::Consumer, SpanKind::Producer));
        assert_eq!(process.trace, "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(process.parent, "b7ad6b7169203331");
        assert_eq!(send.name, format!("send {}", topics.output));
        let expected = format!("00-{}-{}-01", send.trace, send.id);
        assert_eq!(verdicts[0].header("traceparent").unwrap(), expected);
        assert_eq!(verdicts[0].header("tracestate").as_deref(), Some(STATE));
        assert_eq!(process.state.replace(' ', ""), STATE.replace(' ', ""));
        assert!(process.began <= process.ended && process.ended == send.began && send.began <= send.ended);
        let verdict = verdicts[0].verdict();
        for (key, value) in [
            ("messaging.system", "kafka"),
            ("messaging.destination.name", &topics.input),
            ("messaging.destination.partition.id", "0"),
            ("messaging.consumer.group.name", &topics.group),
            ("messaging.message.body.size", &one.len().to_string()),
            ("fraud.model.name", "fraud"),
            ("fraud.model.version", &verdict.model.version),
            ("fraud.decision", verdict.decision.as_str()),
            ("fraud.score", &f64::from(verdict.score).to_string()),
            ("fraud.rows", "1"),
        ] {
            assert_eq!(process.attributes[key], value, "{key}");
        }
        assert!(!process.error);
        // What is not sampled, or no context at all, is passed on or dropped as without a collector.
        assert_eq!(verdicts[1].header("traceparent").as_deref(), Some(UNSAMPLED));
        assert_eq!((verdicts[2].header("traceparent"), verdicts[5].header("traceparent")), (None, None));
        // One message, one span, however many rows.
        let send = named("send", "3");
        assert_eq!(send.attributes["messaging.batch.message_count"], "2");
        for verdict in &verdicts[3..5] {
            assert_eq!(verdict.header("traceparent").unwrap(), format!("00-{}-{}-01", send.trace, send.id));
        }
        // A dead letter is an error of the record's span, and itself as it came.
        let (process, send) = (named("process", "4"), named("send", "4"));
        assert!(process.error && !send.error);
        assert_eq!(process.attributes["error.type"], "malformed-json");
        assert_eq!(send.name, format!("send {}", topics.dead_letter));
        let mut letters = topics.subscribe(&topics.dead_letter);
        letters.wait_for("the dead letter", 1, LIMIT);
        assert_eq!(letters.seen[0].header("traceparent").as_deref(), Some(SAMPLED));

        check_requests(&mut worker, &collector, guarantee);

        wait_for("spans are counted", LIMIT, || (counted(&mut worker, "exported") == 8).then_some(()));
        for result in ["rejected", "unsent", "queue-full", "over-limit"] {
            assert_eq!(counted(&mut worker, result), 0, "{result}");
        }
        worker.terminate();
        let output = worker.finish(LIMIT);
        assert_eq!(output.status.code(), Some(0));
        assert!(!String::from_utf8_lossy(&output.stderr).contains("hush"), "no secret in a log");
    }
    assert!(collector.seen.lock().unwrap().tokens.iter().all(|token| token == "hush hush"));
}

/// A request that is sampled has a span and is told which, whatever the answer; others are answered without.
fn check_requests(worker: &mut Running, collector: &Collector, service: &str) {
    let address = worker.http_address();
    let answers = [
        (Some(SAMPLED), transaction("x"), "200"),
        (Some(SAMPLED), "{".to_owned(), "400"),
        (Some(UNSAMPLED), transaction("x"), "200"),
        (Some("not one"), transaction("x"), "200"),
        (None, transaction("x"), "200"),
    ];
    let mut told = Vec::new();
    for (parent, body, status) in &answers {
        let header = parent.map_or(String::new(), |parent| format!("traceparent: {parent}\r\n"));
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(
            stream,
            "POST /v1/score HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             {header}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        told.push(text.lines().find_map(|line| line.strip_prefix("traceresponse: ").map(str::to_owned)));
    }
    assert!(told[0].is_some() && told[1].is_some() && told[2..].iter().all(Option::is_none), "{told:?}");
    let of_requests = |span: &&Span| span.service == service && span.kind == SpanKind::Server;
    let spans = collector.wait_for("spans of requests", |spans| spans.iter().filter(of_requests).count() >= 2);
    let spans: Vec<&Span> = spans.iter().filter(of_requests).collect();
    assert_eq!(spans.len(), 2);
    for (told, (_, _, status)) in told.iter().flatten().zip(&answers) {
        let span = spans.iter().find(|span| *told == format!("00-{}-{}-01", span.trace, span.id)).unwrap();
        assert_eq!((span.name.as_str(), span.parent.as_str()), ("POST /v1/score", "b7ad6b7169203331"));
        assert_eq!(span.attributes["http.response.status_code"], *status);
        assert!(!span.error);
    }
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let collector = Collector::start();
    collector.set(|seen| seen.refuse_with = Some("503 Service Unavailable"));
    let topics = Topics::create(shared(), 1);
    let mut worker = topics.start_worker(&["--otlp-endpoint", &collector.endpoint()]);
    let one = transaction("one");
    let records: Vec<_> = (0..50).map(|_| (one.as_str(), vec![("traceparent", SAMPLED)])).collect();
    verdicts_of(&topics, &records, 50);
    wait_for("lost spans are counted", LIMIT, || (counted(&mut worker, "unsent") >= 100).then_some(()));
    // A second batch in the same outage.
    topics.send(&[Record {
        value: Some(one.as_bytes()),
        headers: vec![("traceparent", SAMPLED.as_bytes())],
        ..Record::default()
    }]);
    wait_for("more lost spans", LIMIT, || (counted(&mut worker, "unsent") >= 102).then_some(()));
    assert_eq!(counted(&mut worker, "exported"), 0);
    assert_eq!(worker.log().matches("the collector takes no spans").count(), 1, "once per outage");

    collector.set(|seen| seen.refuse_with = None);
    topics.send(&[Record {
        value: Some(one.as_bytes()),
        headers: vec![("traceparent", SAMPLED.as_bytes())],
        ..Record::default()
    }]);
    collector.wait_for("spans after the outage", |spans| spans.len() >= 2);
    worker.wait_for_log("the collector takes spans again", LIMIT);

    // It takes the next ones but for one.
    collector.set(|seen| seen.reject = true);
    topics.send(&[Record {
        value: Some(one.as_bytes()),
        headers: vec![("traceparent", SAMPLED.as_bytes())],
        ..Record::default()
    }]);
    wait_for("a rejected span is counted", LIMIT, || (counted(&mut worker, "rejected") == 1).then_some(()));
    assert_eq!(counted(&mut worker, "exported"), 3);

    // Nobody listens there any more, and the end waits for nobody.
    collector.set(|seen| seen.refuse_with = Some("503 Service Unavailable"));
    worker.terminate();
    assert_eq!(worker.finish(Duration::from_secs(20)).status.code(), Some(0));
}

#[test]
fn who_samples_everything_gets_a_share_of_spans_and_all_verdicts() {
    let collector = Collector::start();
    let topics = Topics::create(shared(), 1);
    let mut worker = topics.start_worker(&["--otlp-endpoint", &collector.endpoint(), "--otlp-spans-per-second", "5"]);
    let one = transaction("one");
    let records: Vec<_> = (0..400).map(|_| (one.as_str(), vec![("traceparent", SAMPLED)])).collect();
    let verdicts = verdicts_of(&topics, &records, 400);
    let passed_on =
        verdicts.iter().filter(|verdict| verdict.header("traceparent").as_deref() == Some(SAMPLED)).count() as u64;
    assert!((1..400).contains(&passed_on), "{passed_on} have no span");
    wait_for("every record is accounted for", LIMIT, || {
        let fates = (counted(&mut worker, "over-limit"), counted(&mut worker, "exported"));
        (fates == (2 * passed_on, 2 * (400 - passed_on))).then_some(())
    });
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}
