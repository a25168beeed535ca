//! Each path asks for its right; beyond loopback nothing is open by accident; TLS, and clients' certificates.
//!
//! None of it needs a broker: the edge answers as soon as the model is verified.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use openssl::ssl::{SslConnector, SslMethod, SslStream};

use super::http::{Answer, JSON, ask, ask_over};
use super::support::certificates::Certificate;
use super::support::process::{Running, finish, scorer};
use super::support::{root, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

const ACCESS: &str = "viewer    prometheus        token-of-a-viewer\n\
                      scorer    checkout.example\n\
                      analyst   ana               token-of-an-analyst\n\
                      operator  olga              token-of-an-operator\n\
                      admin     root              token-of-an-admin\n";

/// A worker whose broker never answers, at this address and with these arguments.
fn worker(address: &str, arguments: &[&str]) -> Running {
    let mut command = scorer();
    command.args(["run", "--brokers", "127.0.0.1:1", "--model", "models/fraud", "--http", address]).args(arguments);
    Running::start(command)
}

/// Waits until it has a model.
fn wait_for_model(mut probe: impl FnMut() -> Answer) {
    wait_for("a model to score with", LIMIT, || (probe().status == 200).then_some(()));
}

fn connect(
    address: &str,
    authority: &Certificate,
    client: Option<&Certificate>,
) -> Result<SslStream<TcpStream>, String> {
    let mut builder = SslConnector::builder(SslMethod::tls_client()).unwrap();
    builder.cert_store_mut().add_cert(authority.certificate.clone()).unwrap();
    if let Some(client) = client {
        builder.set_certificate(&client.certificate).unwrap();
        builder.set_private_key(&client.key).unwrap();
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    builder.build().connect("127.0.0.1", stream).map_err(|error| error.to_string())
}

#[test]
fn every_path_asks_for_its_right_and_certificates_count_as_tokens_do() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificate::authority("authority of a test");
    let (certificate, key) = authority.sign("scorer.example").write(folder.path(), "worker");
    let (authorities, _) = authority.write(folder.path(), "authority");
    let access = folder.path().join("access");
    std::fs::write(&access, ACCESS).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (access, certificate, key, authorities) = (text(&access), text(&certificate), text(&key), text(&authorities));
    let files = ["--access", &access, "--tls-cert", &certificate, "--tls-key", &key, "--tls-client-ca", &authorities];
    let mut worker = worker("127.0.0.1:0", &files);
    let address = worker.http_address();
    let (checkout, stranger) = (authority.sign("checkout.example"), authority.sign("elsewhere.example"));
    let ask = |method: &str, path: &str, token: &str, client: Option<&Certificate>, body: &str| {
        let header = format!("Authorization: Bearer {token}");
        let headers: &[&str] = if token.is_empty() { &[JSON] } else { &[JSON, &header] };
        ask_over(connect(&address, &authority, client).unwrap(), &address, method, path, headers, body.as_bytes())
    };
    wait_for_model(|| ask("GET", "/ping", "", None, ""));

    let golden = std::fs::read_to_string(root().join("models/fraud/golden.jsonl")).unwrap();
    let row = golden.lines().next().unwrap().to_owned();
    let rows = format!("{{\"dataframe_records\":[{row}]}}");
    // Path, and who may: nobody, a viewer, a scorer, an analyst, an operator, an admin.
    let table: [(&str, &str, &str, [bool; 6]); 11] = [
        ("GET", "/livez", "", [true; 6]),
        ("GET", "/ping", "", [true; 6]),
        ("GET", "/health", "", [true; 6]),
        ("GET", "/metrics", "", [false, true, false, true, true, true]),
        ("GET", "/model", "", [false, true, false, true, true, true]),
        ("GET", "/", "", [false, true, false, true, true, true]),
        ("GET", "/docs", "", [false, false, true, true, false, true]),
        ("GET", "/openapi.json", "", [false, false, true, true, false, true]),
        ("POST", "/v1/score", &row, [false, false, true, true, false, true]),
        ("POST", "/invocations", &rows, [false, false, true, true, false, true]),
        ("POST", "/admin/reload", "", [false, false, false, false, true, true]),
    ];
    let callers = [
        "",
        "token-of-a-viewer",
        "checkout.example",
        "token-of-an-analyst",
        "token-of-an-operator",
        "token-of-an-admin",
    ];
    for (method, path, body, may) in table {
        for (caller, may) in callers.iter().zip(may) {
            let (token, client) = if *caller == "checkout.example" { ("", Some(&checkout)) } else { (*caller, None) };
            let answer = ask(method, path, token, client, body);
            let expected = if may {
                200
            } else if caller.is_empty() {
                401
            } else {
                403
            };
            assert_eq!(answer.status, expected, "{method} {path} as {caller:?}: {}", answer.body);
        }
    }
    let refused = ask("GET", "/model", "", None, "");
    assert_eq!(refused.problem(), "unauthorized");
    assert!(refused.header("www-authenticate").is_some());
    assert_eq!(ask("GET", "/livez", "no-such-token-at-all", None, "").status, 200, "health asks nobody");
    assert_eq!(ask("GET", "/model", "no-such-token-at-all", None, "").status, 401);
    assert_eq!(ask("GET", "/model", "", Some(&stranger), "").status, 401, "a certificate without a role");
    // Browsers send a password.
    let mut stream = connect(&address, &authority, None).unwrap();
    let basic = openssl::base64::encode_block(b"anyone:token-of-an-analyst");
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {basic}\r\n\r\n").unwrap();
    assert!(events(stream, "snapshot").iter().any(|event| event == "verdicts"));
    let mut stream = connect(&address, &authority, None).unwrap();
    let bearer = "Authorization: Bearer token-of-a-viewer";
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\n{bearer}\r\n\r\n").unwrap();
    assert!(!events(stream, "snapshot").iter().any(|event| event == "verdicts"), "a viewer sees no transaction");

    // Certificates that another authority made, or none for a connection in the clear.
    let other = Certificate::authority("another authority");
    let forged = other.sign("checkout.example");
    let refused = connect(&address, &authority, Some(&forged)).map(|stream| {
        // With TLS 1.3 the client hears of it after its part of the handshake.
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map(|_| line)
    });
    assert!(!matches!(&refused, Ok(Ok(line)) if !line.is_empty()), "{refused:?}");
    assert!(connect(&address, &other, None).is_err(), "the worker shows whose it is");
    let mut plain = TcpStream::connect(&address).unwrap();
    plain.set_read_timeout(Some(LIMIT)).unwrap();
    // The worker may have closed it by then.
    let _ = write!(plain, "GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut line = String::new();
    let _ = BufReader::new(plain).read_line(&mut line);
    assert!(!line.contains("200"), "{line}");

    // A certificate that is renewed is taken up.
    let serial = |stream: SslStream<TcpStream>| {
        stream.ssl().peer_certificate().unwrap().serial_number().to_bn().unwrap().to_hex_str().unwrap().to_string()
    };
    let before = serial(connect(&address, &authority, None).unwrap());
    authority.sign("scorer.example").write(folder.path(), "worker");
    wait_for("the new certificate", LIMIT, || {
        (serial(connect(&address, &authority, None).unwrap()) != before).then_some(())
    });
    worker.terminate();
    let output = worker.finish(LIMIT);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("outcome=\"denied\"") && !log.contains("token-of"), "{log}");
}

/// The names of the events up to the first of this name.
fn events(stream: SslStream<TcpStream>, last: &str) -> Vec<String> {
    let mut names = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        assert!(!line.starts_with("HTTP/1.1") || line.contains("200"), "{line}");
        if let Some(name) = line.strip_prefix("event: ") {
            names.push(name.to_owned());
            if name == last {
                return names;
            }
        }
    }
    panic!("the stream ended: {names:?}");
}

#[test]
fn beyond_loopback_nothing_is_open_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Certificate::authority("authority of a test");
    let (certificate, key) = authority.sign("scorer.example").write(folder.path(), "worker");
    let (_, other_key) = authority.sign("other.example").write(folder.path(), "other");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let tokens = file("tokens", "admin root token-of-an-admin\n");
    let names = file("names", "scorer checkout.example\n");
    let short = file("short", "viewer a secret\n");
    let role = file("role", "king a token-of-a-king-that-is-long\n");
    let garbage = file("garbage", "no certificate");
    let far = "0.0.0.0:0";
    for (arguments, told) in [
        (vec!["--http", far], "--http-open"),
        (vec!["--http", "[::]:0"], "--http-open"),
        (vec!["--http", far, "--access", &tokens], "--tls-cert"),
        (vec!["--http", far, "--tls-cert", certificate, "--tls-key", key], "--access"),
        (vec!["--access", &names], "--tls-client-ca"),
        (
            vec!["--access", &tokens, "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", certificate],
            "--access",
        ),
        (vec!["--access", &short], "line 1: a token has at least 16 characters"),
        (vec!["--access", &role], "line 1: no such role"),
        (vec!["--access", "no/such/file"], "--access no/such/file"),
        (vec!["--tls-cert", &garbage, "--tls-key", key], "garbage"),
        (vec!["--tls-cert", certificate, "--tls-key", other_key.to_str().unwrap()], "not the key of the certificate"),
    ] {
        for subcommand in [&["run", "--model", "models/fraud"][..], &["archive", "--to", "/nowhere"]] {
            let mut command = scorer();
            command.args(subcommand).args(["--brokers", "127.0.0.1:1"]).args(&arguments);
            let output = finish(command, LIMIT);
            let log = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{subcommand:?} {arguments:?}: {log}");
            assert!(log.contains(told) && !log.contains("secret"), "{arguments:?}: {log}");
        }
    }
    // Opened on purpose, and asked by names that were named.
    let mut worker = worker(far, &["--http-open", "--allowed-hosts", "scorer.example"]);
    let address = worker.http_address().replace("0.0.0.0", "127.0.0.1");
    wait_for_model(|| ask(&address, "GET", "/ping", &[], b""));
    for (host, path, status) in [
        ("scorer.example", "/metrics", 200),
        ("10.0.0.7:9464", "/model", 200),
        ("evil.example", "/metrics", 403),
        ("evil.example", "/model", 403),
        ("evil.example", "/admin/reload", 403),
        ("evil.example", "/readyz", 503),
        ("evil.example", "/livez", 200),
    ] {
        let method = if path.starts_with("/admin") { "POST" } else { "GET" };
        let answer = ask(&address, method, path, &[&format!("Host: {host}")], b"");
        assert_eq!(answer.status, status, "{host} {path}: {}", answer.body);
    }
    assert_eq!(ask(&address, "POST", "/admin/reload", &[], b"").problem(), "forbidden");
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}
