//! Settings reach the run from every layer, and mistakes end with the right exit code and a way out.

use crate::support::{Broker, binary, file, finish};

#[test]
fn flag_beats_environment_beats_file() {
    let broker = Broker::new(1);
    let config =
        file(&format!("topic = \"{}\"\nrate = 0\ncount = 1\nquiet = true\n[kafka]\nlinger.ms = 1\n", broker.topic));
    for (environment, flag, expected) in [(None, None, 1), (Some("2"), None, 2), (Some("2"), Some("3"), 3)] {
        let mut command = binary();
        command.args(["--brokers", &broker.address]).env("FRAUD_PRODUCER_CONFIG", config.path());
        command.envs(environment.map(|count| ("FRAUD_PRODUCER_COUNT", count)));
        command.args(flag.map(|count| format!("--count={count}")));
        let (code, output, error) = finish(command);
        assert_eq!((code, output), (0, broker.closing_line(expected, expected, 0)), "{error}");
        assert_eq!(error, "", "the file says quiet");
    }
    assert_eq!(broker.size(), 1 + 2 + 3);
}

#[test]
fn bad_usage_exits_with_2() {
    let jsonl = file("{}\n");
    let path = jsonl.path().to_str().unwrap();
    let cases: [(&[&str], &str); 40] = [
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--rate", "fast"], "--rate"),
        (&["--duration", "10"], "500ms"),
        (&["--fraud-share", "1.5"], "share from 0 to 1"),
        (&["--source", "simulator"], "possible values: profile, csv, jsonl"),
        (&["--source", "csv"], "--csv FILE"),
        (&["--csv", path, "--jsonl", path], "give one"),
        (&["--source", "profile", "--jsonl", path], "leave out"),
        (&["--jsonl", path, "--fraud-share", "0.5"], "--fraud-share"),
        (&["--event-time", "file", "--format", "split", "--csv", path], "--event-time file"),
        (&["--event-time", "fast"], "1440x"),
        (&["--event-time", "10x", "--jsonl", path], "--event-time with a speed"),
        (&["--event-time", "10x", "--format", "split"], "--event-time with a speed"),
        (&["--event-start", "0"], "--event-start needs"),
        (&["--event-start", "yesterday", "--event-time", "1x"], "RFC 3339"),
        (&["--label-topic", "transactions"], "another topic"),
        (&["--label-topic", "labels", "--format", "split"], "--format object"),
        (&["--label-topic", "labels", "--jsonl", path], "lines have no label"),
        (&["--label-delay", "7d"], "--label-delay needs"),
        (&["--drift", "1.5"], "strength from 0 to 1"),
        (&["--drift", "1", "--jsonl", path], "--drift goes with"),
        (&["--drift-start", "soon"], "RFC 3339"),
        (&["--archive", "gs://lake"], "s3://bucket/prefix"),
        (&["--archive", "rows", "--jsonl", path], "lines have no label"),
        (&["--archive-only"], "needs --archive"),
        (&["--archive-only", "--archive", "rows"], "--count or --duration"),
        (&["--archive-only", "--archive", "rows", "--count", "1", "--rate", "0"], "--rate above 0"),
        (
            &["--archive-only", "--archive", "rows", "--count", "1", "--label-topic", "labels"],
            "leave out --label-topic",
        ),
        (&["--scenario", "earthquake"], "possible values: normal, fraud-spike, distribution-shift, poison, stall"),
        (&["--scenario-for", "10s"], "need a --scenario"),
        (&["--scenario-strength", "0.5"], "need a --scenario"),
        (&["--scenario", "fraud-spike", "--jsonl", path], "--source profile only"),
        (&["--scenario", "distribution-shift", "--drift", "1"], "exclude --drift"),
        (&["--scenario", "poison", "--jsonl", path], "--source profile or csv"),
        (&["--scenario", "poison", "--scenario-strength", "1.5"], "a share from 0 to 1"),
        (&["--scenario", "distribution-shift", "--scenario-strength", "11"], "0 to 10"),
        (&["--scenario", "stall"], "needs --scenario-for"),
        (&["--scenario", "stall", "--scenario-for", "1s", "--rate", "0"], "--rate above 0"),
        (&["--scenario", "stall", "--scenario-for", "5s", "--duration", "5s"], "must end before --duration"),
        (
            &["--scenario", "poison", "--archive-only", "--archive", "rows", "--count", "1"],
            "--archive-only sends nothing",
        ),
    ];
    for (arguments, part) in cases {
        let mut command = binary();
        let (code, output, error) = finish({
            command.args(arguments);
            command
        });
        assert_eq!((code, output.as_str()), (2, ""), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn bad_configuration_exits_with_64() {
    let unknown = file("rates = 5\n");
    let empty = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&["--config", unknown.path().to_str().unwrap()], "\"rates\"; did you mean \"rate\"?"),
        (&["--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["-X", "linger.msec=5"], "linger.msec"),
        (&["-X", "linger.ms=soon"], "linger.ms"),
        (&["-X", "acks=1", "-X", "enable.idempotence=true"], "does not accept"),
        (&["--model", empty.path().to_str().unwrap()], "reference.json"),
        (&["--csv", "/nowhere.csv"], "/nowhere.csv"),
    ];
    for (arguments, part) in cases {
        let mut command = binary();
        let (code, output, error) = finish({
            command.args(arguments);
            command
        });
        assert_eq!((code, output.as_str()), (64, ""), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: {error}");
    }
}

#[test]
fn a_secret_on_the_command_line_works_but_is_warned_about() {
    let broker = Broker::new(1);
    let secret = ["--count", "1", "-X", "ssl.key.password=hunter2"];
    let (code, output, error) = finish(broker.producer(&secret));
    assert_eq!((code, output), (0, broker.closing_line(1, 1, 0)), "{error}");
    assert!(error.contains("ssl.key.password") && error.contains("FRAUD_PRODUCER_PROPERTY"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    let mut command = broker.producer(&["--count", "1"]);
    command.env("FRAUD_PRODUCER_PROPERTY", "ssl.key.password=hunter2");
    let (code, _, error) = finish(command);
    assert_eq!(code, 0);
    assert!(!error.contains("FRAUD_PRODUCER_PROPERTY") && !error.contains("hunter2"), "{error}");
}

#[test]
fn help_lists_only_what_exists() {
    let mut command = binary();
    let (code, output, _) = finish({
        command.arg("--help");
        command
    });
    assert_eq!(code, 0);
    assert!(output.contains("[env: FRAUD_PRODUCER_RATE]") && output.contains("--config"), "{output}");
    assert!(!output.contains("simulator"), "{output}");
}

#[test]
fn log_lines_can_be_json() {
    let broker = Broker::new(1);
    let (code, _, error) = finish(broker.producer(&["--count", "1", "--log-format", "json"]));
    assert_eq!(code, 0, "{error}");
    assert!(!error.is_empty());
    for line in error.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["message"].is_string(), "{line}");
    }
}
