//! Over HTTP a transaction gets the verdict that the topic gives it; who asks too much is told to come back, and topics
//! are scored all the while.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::broker::shared;
use super::support::process::Running;
use super::support::topics::{Record, Topics};
use super::support::{root, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// An answer: status, headers as they were sent, body.
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The problem's name; panics when the answer is not RFC 9457's.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}{}", self.head, self.body);
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        let kind = problem["type"].as_str().unwrap();
        kind.strip_prefix("urn:fraud-scorer:problem:").unwrap().to_owned()
    }
}

pub fn ask(address: &str, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    ask_over(stream, address, method, path, headers, body)
}

/// As [`ask`], over a connection that is there.
pub fn ask_over(
    mut stream: impl Read + Write,
    address: &str,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &[u8],
) -> Answer {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let host =
        if headers.to_ascii_lowercase().contains("host:") { String::new() } else { format!("Host: {address}\r\n") };
    write!(stream, "{method} {path} HTTP/1.1\r\n{host}{headers}Connection: close\r\n").unwrap();
    write!(stream, "Content-Length: {}\r\n\r\n", body.len()).unwrap();
    // Who is refused early may find the connection closed before all is sent.
    let _ = stream.write_all(body);
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path}: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub const JSON: &str = "Content-Type: application/json";

fn score(address: &str, path: &str, body: &Value) -> Answer {
    ask(address, "POST", path, &[JSON], body.to_string().as_bytes())
}

pub fn golden() -> Vec<serde_json::Map<String, Value>> {
    let text = std::fs::read_to_string(root().join("models/fraud/golden.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads the console's events until it is done: the latest of each kind.
pub fn watch(address: &str, done: impl Fn(&HashMap<String, Value>) -> bool) -> HashMap<String, Value> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut seen = HashMap::new();
    let deadline = std::time::Instant::now() + LIMIT;
    while !done(&seen) {
        assert!(std::time::Instant::now() < deadline, "{seen:#?}");
        let line = lines.next().unwrap();
        if let Some(name) = line.strip_prefix("event: ") {
            let data = lines.next().unwrap();
            seen.insert(name.to_owned(), serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap());
        }
    }
    seen
}

fn worker(topics: &Topics) -> (Running, String) {
    let mut worker = topics.start_worker(&[]);
    let address = worker.http_address();
    (worker, address)
}

fn end(worker: Running) {
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_transaction_gets_the_verdict_that_its_topic_gives_it() {
    let topics = Topics::create(shared(), 1);
    let (mut worker, address) = worker(&topics);
    let transactions = &golden()[..40];
    let bodies: Vec<Vec<u8>> = transactions.iter().map(|one| json!(one).to_string().into_bytes()).collect();
    let records: Vec<Record<'_>> =
        bodies.iter().map(|body| Record { value: Some(body), ..Record::default() }).collect();
    topics.send(&records);
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts", records.len(), LIMIT);

    let predicted = score(&address, "/invocations", &json!({"dataframe_records": transactions}));
    assert_eq!(predicted.status, 200, "{}", predicted.body);
    let mut decisions = std::collections::HashSet::new();
    for (index, (from_topic, transaction)) in subscriber.seen.iter().zip(transactions).enumerate() {
        let mut from_topic: Value = serde_json::from_slice(from_topic.value.as_deref().unwrap()).unwrap();
        from_topic.as_object_mut().unwrap().remove("source");
        let over_http = score(&address, "/v1/score", &json!(transaction));
        assert_eq!(over_http.status, 200, "{}", over_http.body);
        // Reasons are told over HTTP only, and only of what is suspicious.
        let mut answer = over_http.json();
        let reasons = answer.as_object_mut().unwrap().remove("reasons");
        assert_eq!(reasons.is_some(), from_topic["decision"] != "approve", "{}", over_http.body);
        assert_eq!(answer, from_topic);
        assert_eq!(predicted.json()["predictions"][index], from_topic["score"]);
        decisions.insert(from_topic["decision"].to_string());
    }
    assert!(decisions.len() > 1, "the golden records are of more than one kind: {decisions:?}");

    // What cannot be scored has the reason its dead letter would have.
    let mut spoilt = transactions[0].clone();
    spoilt.insert("V14".into(), json!("many"));
    let refused = score(&address, "/v1/score", &json!(spoilt));
    assert_eq!((refused.status, refused.problem().as_str()), (422, "not-a-number"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("V14"));

    // Counted by themselves: the topic's numbers are the topic's. They follow the commit that the subscriber has seen.
    for line in [
        "fraud_scorer_http_requests_total{path=\"/v1/score\",status=\"200\"} 40\n",
        "fraud_scorer_http_requests_total{path=\"/v1/score\",status=\"422\"} 1\n",
        "fraud_scorer_http_request_seconds_count{path=\"/invocations\"} 1\n",
        "fraud_scorer_transactions_total 40\n",
    ] {
        wait_for(line, LIMIT, || worker.get("/metrics").1.contains(line).then_some(()));
    }
    end(worker);
}

#[test]
fn refusals_are_problem_details_whoever_refuses() {
    let topics = Topics::create(shared(), 1);
    let (worker, address) = worker(&topics);
    let huge = vec![b' '; (1 << 20) + 1];
    for (method, path, headers, body, status, problem) in [
        ("GET", "/nothing", &[][..], &b""[..], 404, "not-found"),
        ("GET", "/v1/score", &[], b"", 405, "method-not-allowed"),
        ("DELETE", "/metrics", &[], b"", 405, "method-not-allowed"),
        ("POST", "/v1/score", &[], b"{}", 415, "unsupported-media-type"),
        ("POST", "/v1/score", &["Content-Type: text/plain"], b"{}", 415, "unsupported-media-type"),
        ("POST", "/invocations", &[JSON, "Content-Encoding: gzip"], b"{}", 415, "unsupported-media-type"),
        ("POST", "/v1/score", &[JSON], b"{", 400, "malformed-json"),
        ("POST", "/v1/score", &[JSON], b"", 400, "malformed-json"),
        ("POST", "/v1/score", &[JSON], b"[]", 422, "unknown-schema"),
        ("POST", "/v1/score", &[JSON], b"{}", 422, "missing-feature"),
        ("POST", "/invocations", &[JSON], b"{}", 422, "unknown-schema"),
        ("POST", "/v1/score", &[JSON], &huge, 413, "too-large"),
        ("POST", "/v1/score", &[JSON, "Origin: http://evil.example"], b"{}", 403, "foreign-origin"),
        ("POST", "/v1/score", &[JSON, "Host: evil.example"], b"{}", 403, "foreign-origin"),
        ("GET", "/v1/events", &["Sec-Fetch-Site: cross-site"], b"", 403, "foreign-origin"),
    ] {
        let answer = ask(&address, method, path, headers, body);
        assert_eq!((answer.status, answer.problem().as_str()), (status, problem), "{method} {path} {headers:?}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
        if status == 405 {
            assert!(answer.header("allow").is_some(), "{path}: {}", answer.head);
        }
    }
    // Without an announced length the limit holds as well.
    let mut chunked = format!("{:x}\r\n", huge.len()).into_bytes();
    chunked.extend_from_slice(&huge);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "POST /v1/score HTTP/1.1\r\nHost: {address}\r\n{JSON}\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    let _ = stream.write_all(&chunked);
    let mut status = String::new();
    BufReader::new(stream).read_line(&mut status).unwrap();
    assert!(status.contains(" 413 "), "{status}");
    end(worker);
}

/// Tells a helping thread to end, also when its test panics.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_overload_is_refused_at_once_and_costs_the_topics_nothing() {
    let topics = Topics::create(shared(), 1);
    let (mut worker, address) = worker(&topics);
    let refused = || {
        let answer = score(&address, "/v1/score", &json!(golden()[0]));
        (answer.status != 200).then_some(answer)
    };
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Each sends the largest body but for its last byte: 64 of them are all that may be in flight, and the worker gives
        // each up after a while. Announced alone, they would cost nothing.
        scope.spawn(|| {
            let mut hoarders = VecDeque::new();
            let body = vec![b' '; (1 << 20) - 1];
            while !over.load(Ordering::Relaxed) {
                let mut stream = TcpStream::connect(&address).unwrap();
                let head = format!(
                    "POST /v1/score HTTP/1.1\r\nHost: {address}\r\n{JSON}\r\nContent-Length: {}\r\n\r\n",
                    1 << 20
                );
                stream.write_all(head.as_bytes()).unwrap();
                // Who is refused early may find the connection closed before all is sent.
                let _ = stream.write_all(&body);
                hoarders.push_back(stream);
                if hoarders.len() > 200 {
                    hoarders.pop_front();
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        let _over = SetOnDrop(&over);
        let answer = wait_for("a refusal", LIMIT, refused);
        assert_eq!((answer.status, answer.problem().as_str()), (503, "overloaded"));
        assert_eq!(answer.header("retry-after"), Some("1"));

        let body = json!(golden()[0]).to_string();
        let records: Vec<Record<'_>> =
            (0..500).map(|_| Record { value: Some(body.as_bytes()), ..Record::default() }).collect();
        topics.send(&records);
        topics.subscribe(&topics.output).wait_for("verdicts during the overload", records.len(), LIMIT);
        assert_eq!(worker.get("/readyz").0, 200);
        wait_for("still a refusal", LIMIT, refused);
    });
    wait_for("scores after the overload", LIMIT, || {
        (score(&address, "/v1/score", &json!(golden()[0])).status == 200).then_some(())
    });
    end(worker);
}

#[test]
fn the_console_is_told_what_happens() {
    let topics = Topics::create(shared(), 1);
    let (worker, address) = worker(&topics);
    let page = ask(&address, "GET", "/", &[], b"");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; script-src 'nonce-"));

    let suspicious: Vec<String> = golden()
        .iter()
        .filter(|one| one["expected_score"].as_f64().unwrap() > 0.6)
        .map(|one| json!(one).to_string())
        .collect();
    assert!(suspicious.len() > 3);
    let records: Vec<Record<'_>> =
        suspicious.iter().map(|body| Record { value: Some(body.as_bytes()), ..Record::default() }).collect();
    topics.send(&records);

    let seen = watch(&address, |seen| {
        seen.get("snapshot")
            .is_some_and(|snapshot: &Value| snapshot["transactions"].as_f64() == Some(records.len() as f64))
            && seen.get("verdicts").is_some_and(|list: &Value| !list.as_array().unwrap().is_empty())
    });
    assert_eq!(seen["model"]["name"], "fraud");
    assert_eq!(seen["model"]["features"].as_array().unwrap().len(), 29);
    assert!(seen["history"].is_array());
    let latest = &seen["verdicts"][0];
    assert_eq!(latest["verdict"]["decision"], "decline");
    let id = latest["verdict"]["transaction_id"].as_str().unwrap();
    let sent: Value = suspicious
        .iter()
        .map(|body| serde_json::from_str::<Value>(body).unwrap())
        .find(|sent| sent["transaction_id"] == id)
        .unwrap();
    let (shown, amount) = (latest["amount"].as_f64().unwrap(), sent["Amount"].as_f64().unwrap());
    assert!((shown - amount).abs() <= 1e-6 * amount.abs().max(1.0), "{shown} is not the amount {amount} of {id}");
    assert_eq!(seen["snapshot"]["not_ready"], json!([]));
    end(worker);
}
