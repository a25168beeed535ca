//! What waiting mends is waited for; the rest ends at once with a sentence that says what to do.

use std::io::{Read, Write};
use std::time::Duration;

use super::support::broker::{Broker, SASL_USER, free_port, shared};
use super::support::process::{Running, finish, producer, scorer};
use super::support::topics::{Record, Topics};
use super::support::{root, unique, wait_for};

const LIMIT: Duration = Duration::from_secs(60);

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_broker_that_is_down_is_waited_for() {
    let mut broker = Broker::start();
    let topics = Topics::create(&broker, 2);
    broker.crash();
    let mut worker = Running::start(topics.worker());
    worker.wait_for_log("waiting for a Kafka broker", LIMIT);
    let (status, body) = worker.get("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("waiting for a Kafka broker"), "{body}");
    broker.up();
    worker.wait_until_ready();
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn stopping_while_waiting_for_a_broker_is_no_failure() {
    let mut command = scorer();
    command.args(["run", "--brokers", "127.0.0.1:1", "--http", "127.0.0.1:0"]);
    let mut worker = Running::start(command);
    worker.wait_for_log("waiting for a Kafka broker", LIMIT);
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_missing_topic_ends_at_once_and_create_topics_makes_it() {
    let topics = Topics::create(shared(), 3);
    let missing = unique("nowhere");
    let mut command = topics.worker();
    command.args(["--output-topic", &missing]);
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(64));
    let message = stderr(&output);
    assert!(message.contains(&missing) && message.contains("--create-topics"), "{message}");

    let mut command = topics.worker();
    command.args(["--output-topic", &missing, "--create-topics"]);
    let mut worker = Running::start(command);
    worker.wait_until_ready();
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    let subscriber = topics.subscribe(&missing);
    assert!(subscriber.seen.is_empty());
    assert_eq!(subscriber.partition_count(), 3, "as many partitions as the input");
}

#[test]
fn an_output_topic_with_other_partitions_is_refused() {
    let mut topics = Topics::create(shared(), 3);
    topics.output = unique("verdicts");
    topics.make(&topics.output, 2, "1000000");
    let output = finish(topics.worker(), LIMIT);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("has 2 partitions") && stderr(&output).contains("--alter"), "{}", stderr(&output));
}

#[test]
fn wrong_credentials_end_at_once_and_right_ones_work() {
    let broker = Broker::start_with_sasl();
    let topics = Topics::create(&broker, 1);
    let properties = |password: &str| {
        let user = SASL_USER.0;
        format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={user}\nsasl.password={password}"
        )
    };
    let mut command = topics.worker();
    command.env("FRAUD_SCORER_PROPERTY", properties("wrong-password"));
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("sasl.password"), "{}", stderr(&output));
    assert!(!stderr(&output).contains("wrong-password"), "no secret in a log: {}", stderr(&output));

    let mut command = topics.worker();
    command.env("FRAUD_SCORER_PROPERTY", properties(SASL_USER.1));
    let mut worker = Running::start(command);
    worker.wait_until_ready();
    topics.send(&[Record { value: Some(b"poison"), ..Record::default() }]);
    let mut letters = topics.subscribe(&topics.dead_letter);
    letters.wait_for("a dead letter over SASL", 1, LIMIT);
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_broken_bundle_ends_at_once_with_the_reason() {
    let topics = Topics::create(shared(), 1);
    let mut command = topics.worker();
    command.args(["--model", "models/none"]);
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("manifest.toml"), "{}", stderr(&output));
}

#[test]
fn settings_that_make_no_sense_are_refused_before_anything_starts() {
    for (arguments, code, names) in [
        (vec!["run", "--output-topic", "transactions"], 64, "must be different topics"),
        (vec!["run", "-X", "no.such.property=1"], 64, "no.such.property"),
        (vec!["run", "-X", "isolation.level=read_uncommitted"], 64, "--guarantee at-least-once"),
        (vec!["run", "-X", "group.protocol=consumer"], 64, "group.protocol=consumer"),
        (vec!["run", "-X", "transaction.timeout.ms=2000", "--commit-interval", "9s"], 64, "set it to 10000 or more"),
        (vec!["check", "--offline", "-X", "group.protocol=consumer"], 1, "failed"),
        (vec!["run", "--guarantee", "at-most-once"], 2, "exactly-once"),
        (vec!["run", "--commit-interval", "1h"], 2, "1ms to 10s"),
        (vec!["run", "--threads", "0"], 2, "--threads"),
        (vec!["fly"], 2, "fly"),
    ] {
        let mut command = scorer();
        command.args(&arguments);
        let output = finish(command, LIMIT);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(names), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn flag_beats_environment_beats_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fraud-scorer.toml");
    std::fs::write(&file, "model = \"models/from-file\"\n[run]\ngroup = \"g\"\n").unwrap();
    let outcome = |environment: bool, flag: bool| {
        let mut command = scorer();
        command.args(["check", "--offline", "--config"]).arg(&file);
        if environment {
            command.env("FRAUD_SCORER_MODEL", "models/from-environment");
        }
        if flag {
            command.args(["--model", "models/from-flag"]);
        }
        String::from_utf8(finish(command, LIMIT).stdout).unwrap()
    };
    assert!(outcome(false, false).contains("models/from-file"));
    assert!(outcome(true, false).contains("models/from-environment"));
    assert!(outcome(true, true).contains("models/from-flag"));
}

#[test]
fn the_doctor_finds_what_is_wrong_and_what_is_right() {
    let topics = Topics::create(shared(), 2);
    let check = |arguments: &[&str]| {
        let mut command = scorer();
        command.args(["check", "--brokers", &topics.brokers, "--input-topic", &topics.input]);
        command.args(["--output-topic", &topics.output, "--dead-letter-topic", &topics.dead_letter]).args(arguments);
        let output = finish(command, LIMIT);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, report) = check(&[]);
    assert_eq!(code, Some(0), "{report}");
    for question in ["settings", "ONNX Runtime", "model bundle", "golden records", "broker", "topic"] {
        assert!(report.lines().any(|line| line.starts_with("ok ") && line.contains(question)), "{question}: {report}");
    }
    let (code, report) = check(&["--output-topic", "nowhere", "--model", "models/none"]);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report.lines().filter(|line| line.starts_with("FAIL")).count(), 2, "{report}");
    let (code, report) = check(&["--brokers", "127.0.0.1:1"]);
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("does not answer"), "{report}");
    assert!(root().join("models/fraud").is_dir());
}

/// A broker that has listeners nobody can use, and no transactions.
fn odd_broker(key_store: &std::path::Path, advertised: u16, tls: u16) -> Broker {
    Broker::start_with(&format!(
        "listeners=LISTENERS,ELSEWHERE://127.0.0.1:{advertised},TLS://127.0.0.1:{tls}\n\
         advertised.listeners=ADVERTISED,ELSEWHERE://broker-7.invalid:19093,TLS://127.0.0.1:{tls}\n\
         listener.security.protocol.map=CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT,ELSEWHERE:PLAINTEXT,TLS:SSL\n\
         listener.name.tls.ssl.keystore.location={}\nlistener.name.tls.ssl.keystore.type=PKCS12\n\
         listener.name.tls.ssl.keystore.password=password\nlistener.name.tls.ssl.key.password=password\n\
         transaction.state.log.replication.factor=3\n",
        key_store.display()
    ))
}

#[test]
fn what_the_worker_will_need_and_cannot_reach_is_named_by_the_doctor_and_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let key_store = folder.path().join("keys.p12");
    let made = std::process::Command::new("keytool")
        .args(["-genkeypair", "-alias", "broker", "-keyalg", "EC", "-dname", "CN=127.0.0.1", "-storetype", "PKCS12"])
        .args(["-storepass", "password", "-keypass", "password", "-keystore"])
        .arg(&key_store)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (advertised, tls) = (free_port(), free_port());
    let broker = odd_broker(&key_store, advertised, tls);
    let topics = Topics::create(&broker, 2);
    let check = |brokers: &str, properties: &[&str]| {
        let mut command = scorer();
        command.args(["check", "--brokers", brokers, "--input-topic", &topics.input]);
        command.args(["--output-topic", &topics.output, "--dead-letter-topic", &topics.dead_letter]);
        command.args(properties.iter().flat_map(|property| ["-X", property]));
        let output = finish(command, LIMIT);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let has = |report: &str, kind: &str, words: &str| {
        assert!(report.lines().any(|line| line.starts_with(kind) && line.contains(words)), "{words}: {report}");
    };
    // The broker answers, but by an address that leads nowhere.
    let report = check(&format!("127.0.0.1:{advertised}"), &[]);
    has(&report, "ok ", "broker");
    has(&report, "FAIL", "broker-7.invalid:19093");
    // Its certificate is signed by nobody we know.
    let report = check(&format!("127.0.0.1:{tls}"), &["security.protocol=ssl"]);
    has(&report, "FAIL", "certificate");
    let mut command = topics.worker();
    command.args(["--brokers", &format!("127.0.0.1:{tls}"), "-X", "security.protocol=ssl"]);
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("certificate"), "{}", stderr(&output));
    // Its transactions want three brokers.
    let report = check(&topics.brokers, &[]);
    has(&report, "ok ", "group coordinator");
    has(&report, "FAIL", "the coordinator of transactional id");

    let mut worker = Running::start(topics.worker());
    wait_for("not ready, and why", LIMIT, || {
        let (status, body) = worker.get("/readyz");
        (status == 503 && body.contains("the transaction coordinator does not answer")).then_some(())
    });
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0), "nothing was read");
}

#[test]
fn a_member_that_its_group_refuses_says_why_and_is_not_ready() {
    let topics = Topics::create(shared(), 2);
    let first = topics.start_worker(&[]);
    let mut command = topics.worker();
    command.args(["-X", "partition.assignment.strategy=range"]);
    let mut second = Running::start(command);
    second.wait_for_log("the broker refuses the consumer something", LIMIT);
    wait_for("not ready, and why", LIMIT, || {
        let (status, body) = second.get("/readyz");
        (status == 503 && body.contains("InconsistentGroupProtocol")).then_some(())
    });
    for worker in [first, second] {
        worker.terminate();
        assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    }
}

/// A broker of before Kafka 2.5, as far as its first answer says: the real one's with a lower version of TxnOffsetCommit.
fn old_broker(real: &str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, real) = (listener.local_addr().unwrap().to_string(), real.to_owned());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut broker) = (client.unwrap(), std::net::TcpStream::connect(&real).unwrap());
            let (mut from, mut to) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || {
                let mut length = [0; 4];
                broker.read_exact(&mut length).unwrap();
                let mut answer = vec![0; u32::from_be_bytes(length) as usize];
                broker.read_exact(&mut answer).unwrap();
                let place = answer.windows(4).position(|bytes| bytes == [0, 28, 0, 0]).expect("TxnOffsetCommit from 0");
                answer[place + 5] = 2;
                client.write_all(&length).and_then(|()| client.write_all(&answer)).unwrap();
                std::io::copy(&mut broker, &mut client)
            });
        }
    });
    address
}

#[test]
fn a_broker_that_cannot_fence_members_is_refused_where_exactly_once_rests_on_it() {
    let topics = Topics::create(shared(), 1);
    let brokers = old_broker(&shared().address());
    let mut command = topics.worker();
    command.args(["--brokers", &brokers]);
    let output = finish(command, LIMIT);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(64), "{text}");
    assert!(text.contains("KIP-447") && text.contains("--guarantee at-least-once"), "{text}");
    let mut worker = topics.start_worker(&["--brokers", &brokers, "--guarantee", "at-least-once"]);
    worker.wait_until_ready();
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn properties_that_load_code_are_refused_and_load_none() {
    let folder = tempfile::tempdir().unwrap();
    let (library, source, ran) = (folder.path().join("x.so"), folder.path().join("x.c"), folder.path().join("ran"));
    let text = format!(
        "#include <stdio.h>\n__attribute__((constructor)) static void run(void) {{ fclose(fopen(\"{}\", \"w\")); }}\n",
        ran.display()
    );
    std::fs::write(&source, text).unwrap();
    let built = std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success());
    let property = format!("plugin.library.paths={}", library.display());
    let file = folder.path().join("fraud-scorer.toml");
    std::fs::write(&file, format!("[kafka]\n\"plugin.library.paths\" = \"{}\"\n", library.display())).unwrap();
    let mut environment = scorer();
    environment.arg("run").env("FRAUD_SCORER_PROPERTY", &property);
    let mut commands = vec![environment];
    for arguments in [&["run"][..], &["check"], &["check", "--offline"], &["archive", "--to", "nowhere"]] {
        let (mut by_flag, mut by_file) = (scorer(), scorer());
        by_flag.args(arguments).args(["-X", &property]);
        by_file.args(arguments).arg("--config").arg(&file);
        commands.extend([by_flag, by_file]);
    }
    let mut sender = producer();
    sender.args(["-X", &property]);
    commands.push(sender);
    for command in commands {
        let shown = format!("{command:?}");
        let is_check = shown.contains("\"check\"");
        let output = finish(command, LIMIT);
        let text = stderr(&output) + &String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(if is_check { 1 } else { 64 }), "{shown}: {text}");
        assert!(text.contains("plugin.library.paths") && text.contains("refused"), "{shown}: {text}");
        assert!(!ran.exists(), "{shown} ran code");
    }
}

#[test]
fn what_weakens_tls_is_said_at_each_start_and_in_check() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("archive");
    let weak = ["-X", "security.protocol=ssl", "-X", "enable.ssl.certificate.verification=false"];
    let mut sender = producer();
    sender.args(["--brokers", "127.0.0.1:1"]);
    let mut commands = vec![sender];
    for arguments in [&["run"][..], &["check"], &["check", "--offline"], &["archive", "--to", to.to_str().unwrap()]] {
        let mut command = scorer();
        command.args(arguments).args(["--brokers", "127.0.0.1:1"]);
        if !arguments.contains(&"check") {
            command.args(["--http", "127.0.0.1:0"]);
        }
        commands.push(command);
    }
    for mut command in commands {
        command.args(weak);
        let shown = format!("{command:?}");
        let running = Running::start(command);
        wait_for(&shown, LIMIT, || {
            running.log().contains("enable.ssl.certificate.verification=false: any host can pass").then_some(())
        });
        running.kill();
    }
    // So are credentials that anyone on the way can read.
    let mut command = scorer();
    command.args(["check", "--offline", "--model", "mlflow:fraud@champion"]);
    command.env("MLFLOW_TRACKING_URI", "http://mlflow.invalid:5000");
    command.env("MLFLOW_TRACKING_USERNAME", "me").env("MLFLOW_TRACKING_PASSWORD", "hush");
    let text = stderr(&finish(command, LIMIT));
    assert!(text.contains("can be read on its way") && text.contains("http://mlflow.invalid:5000"), "{text}");
    assert!(!text.contains("hush"), "{text}");
}
