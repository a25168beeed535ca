//! OAUTHBEARER: tokens of a token endpoint let the worker in, and new ones keep it in when the old ones end.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::poison::good;
use super::support::broker::{Broker, free_port};
use super::support::process::{Running, finish, scorer};
use super::support::topics::{Record, Topics};
use super::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// Seconds that a token is good: short, and long enough for a busy machine to log in again in the last fifth of it.
const LIFETIME: u64 = 20;

/// Client id and secret, as a form and then in base64: `worker:s%26t`.
const CREDENTIALS: &str = "d29ya2VyOnMlMjZ0";

/// URL-safe base64 without padding.
fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sixes = |chunk: &[u8]| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        (0..=chunk.len()).map(|place| ALPHABET[(bits >> (18 - 6 * place) & 63) as usize] as char).collect::<String>()
    };
    text.as_bytes().chunks(3).map(sixes).collect()
}

/// A token endpoint; counts the tokens it gave.
fn token_endpoint() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, given) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counter = given.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let (mut line, mut length, mut known) = (String::new(), 0, false);
            while reader.read_line(&mut line).unwrap() > 2 {
                let header = line.trim().to_ascii_lowercase();
                if let Some(value) = header.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
                known |= line.trim().ends_with(&format!("Basic {CREDENTIALS}"));
                line.clear();
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let asked = String::from_utf8(body).unwrap() == "grant_type=client_credentials&scope=kafka";
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            let claims = format!("{{\"sub\":\"worker\",\"scope\":\"kafka\",\"iat\":{now},\"exp\":{}}}", now + LIFETIME);
            let token = format!("{}.{}.", base64(r#"{"alg":"none"}"#), base64(&claims));
            let (status, body) = if known && asked {
                counter.fetch_add(1, Ordering::Relaxed);
                ("200 OK", format!("{{\"access_token\":\"{token}\",\"token_type\":\"Bearer\"}}"))
            } else {
                ("401 Unauthorized", r#"{"error":"invalid_client","error_description":"who are you"}"#.to_owned())
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
            write!(reader.get_mut(), "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        }
    });
    (port, given)
}

#[test]
fn tokens_of_an_endpoint_are_refreshed_before_they_end() {
    let port = free_port();
    let broker = Broker::start_with(&format!(
        "listeners=LISTENERS,TOKENS://127.0.0.1:{port}\nadvertised.listeners=ADVERTISED,TOKENS://127.0.0.1:{port}\n\
         listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,TOKENS:SASL_PLAINTEXT\n\
         sasl.enabled.mechanisms=OAUTHBEARER\nlistener.name.tokens.connections.max.reauth.ms=3600000\n\
         listener.name.tokens.oauthbearer.sasl.jaas.config=\
         org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";\n"
    ));
    let topics = Topics::create(&broker, 1);
    let (endpoint, given) = token_endpoint();
    let brokers = format!("127.0.0.1:{port}");
    let properties = |secret: &str| {
        format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\nsasl.oauthbearer.method=oidc\n\
             sasl.oauthbearer.client.id=worker\nsasl.oauthbearer.client.secret={secret}\nsasl.oauthbearer.scope=kafka\n\
             sasl.oauthbearer.token.endpoint.url=http://127.0.0.1:{endpoint}/token"
        )
    };
    let check = |properties: &str| {
        let mut command = scorer();
        command.env("FRAUD_SCORER_PROPERTY", properties).args(["check", "--brokers", &brokers]);
        command.args(["--input-topic", &topics.input, "--output-topic", &topics.output]);
        command.args(["--dead-letter-topic", &topics.dead_letter]);
        let output = finish(command, LIMIT);
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, report) = check(&properties("s&t"));
    assert!(code == Some(0) && report.contains("ok    token"), "{report}");
    let unsecured = "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=OAUTHBEARER\n\
                     enable.sasl.oauthbearer.unsecure.jwt=true\nsasl.oauthbearer.config=principal=w lifeSeconds=8";
    let (code, report) = check(unsecured);
    assert_eq!(code, Some(0), "{report}");
    let (code, report) = check(&properties("wrong-secret"));
    assert!(code == Some(1) && report.contains("invalid_client who are you"), "{report}");
    assert!(!report.contains("wrong-secret"), "{report}");

    let start = |properties: &str| {
        let mut command = topics.worker();
        command.args(["--brokers", &brokers]).env("FRAUD_SCORER_PROPERTY", properties);
        command
    };
    let output = finish(start(&properties("wrong-secret")), LIMIT);
    assert_eq!(output.status.code(), Some(64), "{}", String::from_utf8_lossy(&output.stderr));

    let before = given.load(Ordering::Relaxed);
    let mut worker = Running::start(start(&properties("s&t")));
    worker.wait_until_ready();
    let mut verdicts = topics.subscribe(&topics.output);
    // The second of them comes after the end of the token that the worker started with.
    for round in 1..=2 {
        wait_for("another token", LIMIT, || (given.load(Ordering::Relaxed) > before + round).then_some(()));
        let value = good("t");
        let record = || Record { value: Some(value.as_bytes()), ..Record::default() };
        topics.send(&(0..10).map(|_| record()).collect::<Vec<_>>());
        verdicts.wait_for("verdicts", 10 * round, LIMIT);
        worker.wait_until_ready();
    }
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}
