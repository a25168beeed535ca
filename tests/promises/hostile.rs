//! Attacks on a running worker: small messages that would become large answers, and callers that take what others need.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::http::{JSON, ask};
use super::poison::good;
use super::support::broker::shared;
use super::support::bundles::{Shelf, graphs, with_graph};
use super::support::process::{ADMIN_TOKEN, Running, finish, scorer};
use super::support::topics::{Record, Topics};
use super::support::{root, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

/// Largest message that is taken, unless told otherwise.
const MOST: usize = 1 << 20;

/// Memory that any single message may cost.
const MOST_MEMORY: usize = 64 << 20;

/// A split message with an id of its own, and as many rows of zeros.
fn split(id: &str, rows: usize) -> Vec<u8> {
    let mut text = format!("{{\"transaction_id\":\"{id}\",\"columns\":[");
    (1..=28).for_each(|number| write!(text, "\"V{number}\",").unwrap());
    text.push_str("\"Amount\"],\"data\":[");
    let row = format!("[{}],", vec!["0"; 29].join(","));
    text.extend(std::iter::repeat_n(row.as_str(), rows));
    text.pop();
    text.push_str("]}");
    text.into_bytes()
}

/// POST of a body: status and answer.
fn post(address: &str, path: &str, body: &[u8]) -> (u16, String) {
    let answer = ask(address, "POST", path, &[JSON, &format!("Authorization: Bearer {ADMIN_TOKEN}")], body);
    (answer.status, answer.body)
}

/// Panics where the worker took more than a message may.
fn check_memory(worker: &Running, before: usize, what: &str) {
    let (_, most) = worker.memory();
    let taken = most.saturating_sub(before);
    assert!(taken <= MOST_MEMORY, "{what} took {} MiB", taken >> 20);
}

/// What it is, message, key, and what is said of it where it is refused.
type Attack<'a> = (&'a str, Vec<u8>, Option<&'a [u8]>, Option<&'a str>);

#[test]
fn a_small_message_never_becomes_a_large_answer() {
    let rows_in = |bytes: usize| (bytes - 2_000) / 61;
    let long_id = "A".repeat(130_000);
    let largest_id = "A".repeat(1024);
    let key = vec![b'k'; 300_000];
    let attacks: [Attack<'_>; 5] = [
        ("190 KB with a long id", split(&long_id, 1_000), None, Some("transaction_id has 130000 bytes")),
        ("1 MB with a long id", split(&long_id, rows_in(MOST) - 3_000), None, Some("transaction_id has 130000 bytes")),
        ("1 MB of rows with the longest id", split(&largest_id, rows_in(MOST)), None, Some("send it in parts")),
        ("a large key", split("id", 1_000), Some(&key), Some("shorten transaction_id or the key")),
        // What is no attack: a full message whose answers stay within bounds.
        ("1 MB of rows", split("id", rows_in(MOST)), None, None),
    ];
    let topics = Topics::create(shared(), 1);
    let mut worker = topics.start_worker(&[]);
    let address = worker.http_address();
    let mut verdicts = topics.subscribe(&topics.output);
    let mut letters = topics.subscribe(&topics.dead_letter);
    // What the first messages of any kind cost is not theirs: buffers, connections.
    let warm = split("warm", 1_000);
    topics.send(&[Record { value: Some(&warm), ..Record::default() }]);
    verdicts.wait_for("first verdicts", 1_000, LIMIT);
    let mut seen = 1_000;
    for (index, (what, message, key, refused)) in attacks.iter().enumerate() {
        assert!(message.len() <= MOST, "{what}: {} bytes", message.len());
        let (before, _) = worker.memory();
        let after = good(&format!("after-{index}"));
        let attack = Record { key: *key, value: Some(message), ..Record::default() };
        topics.send(&[attack, Record { value: Some(after.as_bytes()), ..Record::default() }]);
        seen += if refused.is_some() { 1 } else { rows_in(MOST) + 1 };
        verdicts.wait_for(what, seen, LIMIT);
        check_memory(&worker, before, what);
        let last = verdicts.seen.last().unwrap().verdict().transaction_id;
        assert_eq!(last, format!("after-{index}"));
        let Some(says) = refused else { continue };
        let known = letters.seen.len();
        letters.wait_for(what, known + 1, LIMIT);
        let letter = letters.seen.last().unwrap();
        assert_eq!(letter.header("error.class").as_deref(), Some("too-large"), "{what}");
        let reason = letter.header("error.message").unwrap();
        assert!(reason.contains(says), "{what}: {reason}");
    }
    // And over HTTP, where there is no key.
    for (what, message, _, refused) in attacks.iter().filter(|(_, _, key, _)| key.is_none()) {
        let (before, _) = worker.memory();
        let (status, answer) = post(&address, "/v1/score", message);
        check_memory(&worker, before, what);
        match refused {
            Some(says) => {
                let says = says.replace("send it in parts", "send the rows in parts");
                assert_eq!(status, 413, "{what}: {answer}");
                assert!(answer.contains("problem:too-large") && answer.contains(&says), "{what}: {answer}");
            }
            None => assert_eq!(status, 200, "{what}"),
        }
    }
    // Records of nothing would become whole rows.
    let nothing = format!("{{\"dataframe_records\":[{}{{}}]}}", "{},".repeat(MOST / 3 - 20));
    let (before, _) = worker.memory();
    let (status, answer) = post(&address, "/invocations", nothing.as_bytes());
    check_memory(&worker, before, "a list of nothing");
    assert!(status == 413 && answer.contains("dataframe_records has rows of more than"), "{status} {answer}");
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn consoles_cost_little_whatever_ids_they_show_and_however_slowly_they_are_read() {
    let topics = Topics::create(shared(), 1);
    let mut worker = topics.start_worker(&[]);
    let address = worker.http_address();
    let golden = std::fs::read_to_string(root().join("models/fraud/golden.jsonl")).unwrap();
    let mut rows = golden.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut row = rows.find(|row| row["expected_score"].as_f64() > Some(0.9)).unwrap();
    row["transaction_id"] = "A".repeat(1024).into();
    let row = row.to_string();
    let suspicious = vec![Record { value: Some(row.as_bytes()), ..Record::default() }; 100];
    topics.send(&suspicious);
    let mut verdicts = topics.subscribe(&topics.output);
    verdicts.wait_for("suspicious verdicts", suspicious.len(), LIMIT);
    let (before, _) = worker.memory();
    let open = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        stream
    };
    let silent: Vec<TcpStream> = (0..31).map(|_| open()).collect();
    let mut lists = 0;
    for line in BufReader::new(open()).lines() {
        if line.unwrap() == "event: verdicts" {
            lists += 1;
            topics.send(&suspicious);
        }
        if lists == 6 {
            break;
        }
    }
    assert_eq!(lists, 6);
    check_memory(&worker, before, "32 consoles");
    drop(silent);
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn health_is_told_and_transactions_are_scored_whatever_strangers_do_with_their_connections() {
    let topics = Topics::create(shared(), 1);
    let mut worker = topics.start_worker(&[]);
    let address = worker.http_address();
    let host = format!("Host: {address}\r\n");
    let announced =
        format!("POST /v1/score HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: {MOST}\r\n\r\n");
    let endless = format!(
        "POST /v1/score HTTP/1.1\r\n{host}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    // More than there are seats of any kind, where that is what they are after.
    for (what, count, says, still_scores) in [
        ("say nothing", 900, String::new(), true),
        ("begin a request", 900, "GET /livez HTTP/1.1\r\n".to_owned(), true),
        ("read no answers", 900, format!("GET /metrics HTTP/1.1\r\n{host}\r\n").repeat(100), true),
        ("announce bodies", 400, announced, true),
        ("begin bodies without an end", 400, endless, true),
        ("watch the console and read nothing", 100, format!("GET /v1/events HTTP/1.1\r\n{host}\r\n"), true),
        ("read no pages", 900, format!("GET / HTTP/1.1\r\n{host}\r\n").repeat(300), false),
    ] {
        let strangers: Vec<TcpStream> = (0..count)
            .map(|_| {
                let mut stream = TcpStream::connect(&address).unwrap();
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(says.as_bytes());
                stream
            })
            .collect();
        for path in ["/livez", "/readyz", "/metrics"] {
            let asked = Instant::now();
            let (status, _) = worker.get(path);
            assert!(status == 200 && asked.elapsed() < Duration::from_secs(2), "{what}: {path} {:?}", asked.elapsed());
        }
        if still_scores {
            let (status, answer) = post(&address, "/v1/score", good("x").as_bytes());
            assert_eq!(status, 200, "{what}: {answer}");
        }
        drop(strangers);
    }
    // All of them are gone, and with them what they held.
    wait_for("scores", LIMIT, || (post(&address, "/v1/score", good("x").as_bytes()).0 == 200).then_some(()));
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

/// A bundle with a golden record of a megabyte: so many rows, or one with a field that no model has.
fn with_a_large_golden_record(directory: &Path, manifest: &str, rows: usize) -> String {
    let manifest = with_graph(directory, manifest, &graphs::half());
    let mut golden = split("golden", rows);
    golden.pop();
    if rows == 1 {
        write!(golden, ",\"note\":\"{}\"", "x".repeat(MOST - 5_000)).unwrap();
    }
    golden.extend_from_slice(b",\"expected_score\":0.5}\n");
    std::fs::write(directory.join("golden.jsonl"), golden).unwrap();
    manifest
}

#[test]
fn a_candidate_harms_nobody_whatever_its_graph_does() {
    let topics = Topics::create(shared(), 1);
    let shelf = Shelf::with("fraud", "1");
    let path = shelf.path();
    let mut worker = topics.start_worker(&["--model", path.to_str().unwrap(), "--verify-timeout", "8s"]);
    let address = worker.http_address();
    shelf.put("fraud-lr", "2");
    assert_eq!(worker.administer("/admin/reload").0, 200);

    // One that never ends: while it is verified, the way back is open and the worker is well.
    shelf.put_edited("fraud", "3", |directory, manifest| with_graph(directory, &manifest, &graphs::endless()));
    std::thread::scope(|scope| {
        let offered = scope.spawn(|| post(&address, "/admin/reload", b""));
        wait_for("a process that verifies", LIMIT, || worker.children().first().copied());
        let asked = Instant::now();
        let (status, body) = post(&address, "/admin/rollback", b"");
        assert_eq!(status, 200, "{body}");
        assert!(asked.elapsed() < Duration::from_secs(1), "the way back took {:?}", asked.elapsed());
        assert!(!offered.is_finished(), "it was rolled back while a candidate was verified");
        let (status, body) = offered.join().unwrap();
        assert_eq!(status, 422, "{body}");
        assert!(body.contains("refused at the gate limits") && body.contains("--verify-timeout"), "{body}");
    });
    assert_eq!(worker.get_json("/model")["serving"]["version"], "1");
    assert!(worker.series("fraud_scorer_model_swaps_total").contains(&"{result=\"refused\"} 1".to_owned()));

    // Those that want more memory than there is, or weights that no hash covers.
    let (before, _) = worker.memory();
    for (graph, says) in [
        (graphs::with_constant(1_000_000_000), ""),
        (graphs::with_constant(1 << 40), ""),
        (graphs::with_external_weights("../fraud/model.onnx"), "another file"),
        (graphs::with_external_weights("/dev/zero"), "another file"),
        (graphs::with_external_weights("*/_ORT_MEM_ADDR_/*"), "another file"),
    ] {
        shelf.put_edited("fraud", "3", |directory, manifest| with_graph(directory, &manifest, &graph));
        let (status, body) = worker.administer("/admin/reload");
        assert!(status == 422 && body.contains("refused at the gate") && body.contains(says), "{status} {body}");
    }
    check_memory(&worker, before, "refused candidates");

    // One whose golden record is large serves if it is a single row, and the worker does not keep the memory of a thousand.
    let rows = (MOST - 5_000) / 61;
    shelf.put_edited("fraud", "3", |directory, manifest| with_a_large_golden_record(directory, &manifest, rows));
    let (status, body) = worker.administer("/admin/reload");
    assert!(status == 422 && body.contains("write one transaction a line"), "{status} {body}");
    shelf.put_edited("fraud", "3", |directory, manifest| with_a_large_golden_record(directory, &manifest, 1));
    let (status, body) = worker.administer("/admin/reload");
    assert_eq!(status, 200, "{body}");
    let (_, most) = worker.memory();
    assert!(most.saturating_sub(before) <= 4 * MOST_MEMORY, "{} MiB for a golden record", (most - before) >> 20);
    let mut verdicts = topics.subscribe(&topics.output);
    topics.send(&[Record { value: Some(good("x").as_bytes()), ..Record::default() }]);
    verdicts.wait_for("a verdict", 1, LIMIT);
    assert_eq!(verdicts.seen[0].verdict().model.version, "3");
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_worker_can_be_stopped_while_its_first_model_is_verified() {
    let shelf = Shelf::with("fraud", "1");
    shelf.put_edited("fraud", "1", |directory, manifest| with_graph(directory, &manifest, &graphs::endless()));
    let mut command = scorer();
    command.args(["run", "--brokers", "127.0.0.1:1", "--http", "127.0.0.1:0", "--model"]).arg(shelf.path());
    let mut worker = Running::start(command);
    let _ = worker.http_address();
    let child = wait_for("a process that verifies", LIMIT, || worker.children().first().copied());
    assert_eq!(worker.get("/readyz").0, 503);
    worker.terminate();
    let asked = Instant::now();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    wait_for("the process ends, too", LIMIT, || (!Path::new(&format!("/proc/{child}")).exists()).then_some(()));
}

#[test]
fn the_doctor_comes_to_an_end_whatever_the_bundle() {
    let check = |edit: &dyn Fn(&Path, String) -> String| {
        let shelf = Shelf::with("fraud", "1");
        shelf.put_edited("fraud", "1", edit);
        let mut command = scorer();
        command.args(["check", "--offline", "--verify-timeout", "5s", "--model"]).arg(shelf.path());
        let output = finish(command, LIMIT);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    };
    let pipe = |name: &'static str| {
        move |directory: &Path, manifest: String| {
            std::fs::remove_file(directory.join(name)).unwrap();
            assert!(Command::new("mkfifo").arg(directory.join(name)).status().unwrap().success());
            manifest
        }
    };
    for name in ["model.onnx", "golden.jsonl", "reference.json"] {
        let text = check(&pipe(name));
        assert!(text.contains("FAIL") && text.contains("no regular file"), "{name}: {text}");
    }
    for (graph, says) in [
        (graphs::endless(), "was not verified within 5 s"),
        (graphs::with_constant(1_000_000_000), "FAIL  model bundle"),
        (graphs::with_external_weights("w.bin"), "lie in another file"),
    ] {
        let text = check(&|directory, manifest| with_graph(directory, &manifest, &graph));
        assert!(text.contains("FAIL  model bundle") && text.contains(says), "{text}");
    }
}

/// A key, its public half as `minisign -G` prints it, and what `minisign -S` writes for these bytes.
struct Signer {
    pair: minisign::KeyPair,
}

impl Signer {
    fn new() -> Signer {
        Signer { pair: minisign::KeyPair::generate_unencrypted_keypair().unwrap() }
    }

    fn public(&self) -> String {
        self.pair.pk.to_base64()
    }

    fn sign(&self, directory: &Path) {
        let manifest = std::fs::File::open(directory.join("manifest.toml")).unwrap();
        let signature = minisign::sign(Some(&self.pair.pk), &self.pair.sk, manifest, None, None).unwrap();
        std::fs::write(directory.join("manifest.toml.minisig"), signature.to_string()).unwrap();
    }
}

fn change(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}");
    std::fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn files_of_a_bundle_that_nobody_vouches_for_are_refused() {
    let shelf = Shelf::with("fraud", "1");
    let check = |arguments: &[&str]| {
        let mut command = scorer();
        command.args(["check", "--offline", "--model"]).arg(shelf.path()).args(arguments);
        let output = finish(command, LIMIT);
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let refused = |arguments: &[&str], says: &[&str]| {
        let (code, text) = check(arguments);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("FAIL  model bundle") && says.iter().all(|says| text.contains(says)), "{says:?}: {text}");
    };
    assert_eq!(check(&[]).0, Some(0));
    // What decides whether it scores as in training, and what drift is measured against.
    for file in ["golden.jsonl", "reference.json"] {
        let path = shelf.path().join(file);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text} ")).unwrap();
        refused(&[], &[file, "sha256"]);
        std::fs::remove_file(&path).unwrap();
        refused(&[], &[file]);
        std::fs::write(&path, text).unwrap();
        let manifest = std::fs::read_to_string(shelf.path().join("manifest.toml")).unwrap();
        change(&shelf.path().join("manifest.toml"), &format!("\"{file}\" = "), &format!("\"other-{file}\" = "));
        refused(&[], &[file, "[files]"]);
        std::fs::write(shelf.path().join("manifest.toml"), manifest).unwrap();
    }
    assert_eq!(check(&[]).0, Some(0));

    // With a key, the manifest is signed by it or is not even parsed.
    let (signer, stranger) = (Signer::new(), Signer::new());
    let key = signer.public();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.pub");
    std::fs::write(&file, signer.pair.pk.to_box().unwrap().to_string()).unwrap();
    let manifest = shelf.path().join("manifest.toml");
    refused(&["--model-key", &key], &["manifest.toml.minisig", "minisign -S"]);
    stranger.sign(&shelf.path());
    refused(&["--model-key", &key], &["manifest.toml.minisig", "another key"]);
    signer.sign(&shelf.path());
    for key in [key.as_str(), file.to_str().unwrap()] {
        let (code, text) = check(&["--model-key", key]);
        assert_eq!(code, Some(0), "{text}");
    }
    change(&manifest, "decline = 0.5", "decline = 0.6");
    refused(&["--model-key", &key], &["manifest.toml.minisig"]);
    assert_eq!(check(&[]).0, Some(0), "without a key, thresholds may be changed");
    std::fs::write(&manifest, "[[[").unwrap();
    refused(&["--model-key", &key], &["manifest.toml.minisig"]);
    let (code, text) = check(&["--model-key", "RWnonsense"]);
    assert!(code == Some(2) && text.contains("--model-key"), "{code:?} {text}");

    // A worker asks the same of every model that is to serve.
    shelf.put("fraud", "1");
    signer.sign(&shelf.path());
    let topics = Topics::create(shared(), 1);
    let path = shelf.path();
    let mut worker = topics.start_worker(&["--model", path.to_str().unwrap(), "--model-key", &key]);
    for signs in [None, Some(&stranger)] {
        shelf.put("fraud-lr", "2");
        signs.into_iter().for_each(|signer| signer.sign(&shelf.path()));
        let (status, body) = worker.administer("/admin/reload");
        assert!(status == 422 && body.contains("refused at the gate hash"), "{status} {body}");
    }
    signer.sign(&shelf.path());
    assert_eq!(worker.administer("/admin/reload").0, 200);
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}
