//! Promises about where settings come from: flag > environment > file > default, for every kind of argument.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;

use clap::{Args, Parser, Subcommand};
use fraud_settings::{KafkaArguments, SettingsError, try_parse_from};
use proptest::prelude::*;

#[derive(Debug, Parser)]
#[command(name = "tool", version)]
struct Flat {
    /// Records per second
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Where to
    #[arg(long, required = true)]
    topic: String,
    /// Say less
    #[arg(long, short)]
    quiet: bool,
    #[arg(long)]
    commit_interval: Option<String>,
    /// Features to send
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
    /// Paths to watch
    #[arg(long)]
    path: Vec<String>,
    #[command(flatten)]
    kafka: KafkaArguments,
}

#[derive(Debug, Parser)]
struct Nested {
    #[arg(long, global = true, default_value = "info")]
    level: String,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    Run(Run),
    Demo {
        #[arg(long)]
        duration: Option<String>,
    },
    Store(Store),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Store {
    #[command(subcommand)]
    command: Option<OfStore>,
    #[arg(long, required = true)]
    to: Option<String>,
}

#[derive(Debug, Subcommand)]
enum OfStore {
    Clean {
        #[arg(long)]
        to: String,
    },
}

#[derive(Debug, Args)]
struct Run {
    #[arg(long, default_value_t = 1)]
    threads: usize,
    #[command(flatten)]
    kafka: KafkaArguments,
}

struct Layers {
    environment: HashMap<String, String>,
    file: Option<tempfile::NamedTempFile>,
}

impl Layers {
    fn new(environment: &[(&str, &str)], file: Option<&str>) -> Layers {
        let file = file.map(|text| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        });
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Layers { environment, file }
    }

    fn parse<P: Parser>(&self, arguments: &[&str]) -> Result<P, SettingsError> {
        let mut words: Vec<OsString> = vec!["tool".into()];
        words.extend(arguments.iter().map(OsString::from));
        if let Some(file) = &self.file {
            words.extend(["--config".into(), file.path().into()]);
        }
        try_parse_from("TOOL", words, |name| self.environment.get(name).map(OsString::from))
    }
}

fn message<P: std::fmt::Debug>(result: Result<P, SettingsError>) -> (String, u8) {
    let error = result.unwrap_err();
    (error.to_string(), error.exit_code())
}

#[test]
fn every_combination_of_layers_has_the_documented_winner() {
    for mask in 0..8_u32 {
        let (flag, variable, file) = (mask & 4 != 0, mask & 2 != 0, mask & 1 != 0);
        let environment: &[_] = if variable { &[("TOOL_RATE", "3")] } else { &[] };
        let layers = Layers::new(environment, Some(if file { "rate = 2\ntopic = \"t\"" } else { "topic = \"t\"" }));
        let parsed: Flat = layers.parse(if flag { &["--rate", "4"] } else { &[] }).unwrap();
        let expected = if flag {
            4
        } else if variable {
            3
        } else if file {
            2
        } else {
            1000
        };
        assert_eq!(parsed.rate, expected, "flag {flag}, environment {variable}, file {file}");
        assert_eq!(parsed.topic, "t", "a required argument may come from the file");
    }
}

#[test]
fn a_required_argument_may_come_from_the_environment_and_is_missed_otherwise() {
    let parsed: Flat = Layers::new(&[("TOOL_TOPIC", "t")], None).parse(&[]).unwrap();
    assert_eq!(parsed.topic, "t");
    let (text, code) = message(Layers::new(&[("TOOL_TOPIC", "")], None).parse::<Flat>(&[]));
    assert!(text.contains("--topic"), "{text}");
    assert_eq!(code, 2);
}

#[test]
fn switches_take_true_false_one_and_zero() {
    for (value, expected) in [("true", true), ("1", true), ("false", false), ("0", false)] {
        let layers = Layers::new(&[("TOOL_QUIET", value), ("TOOL_TOPIC", "t")], Some("quiet = true"));
        assert_eq!(layers.parse::<Flat>(&[]).unwrap().quiet, expected, "{value} beats the file");
        assert!(layers.parse::<Flat>(&["--quiet"]).unwrap().quiet, "the flag beats {value}");
    }
    let layers = Layers::new(&[("TOOL_QUIET", "perhaps"), ("TOOL_TOPIC", "t")], None);
    let (text, code) = message(layers.parse::<Flat>(&[]));
    assert!(text.contains("TOOL_QUIET") && text.contains("true or false"), "{text}");
    assert_eq!(code, 2);
    let (text, code) = message(Layers::new(&[("TOOL_TOPIC", "t")], Some("quiet = \"yes\"")).parse::<Flat>(&[]));
    assert!(text.contains("\"quiet\"") && text.contains("true or false"), "{text}");
    assert_eq!(code, 64);
}

#[test]
fn lists_come_from_commas_lines_and_arrays_and_replace_each_other() {
    let layers = Layers::new(
        &[("TOOL_PATH", "/a b\n\n/c"), ("TOOL_TOPIC", "t")],
        Some("features = [\"V1\", \"V2\"]\npath = [\"/z\"]"),
    );
    let parsed: Flat = layers.parse(&[]).unwrap();
    assert_eq!(parsed.features, ["V1", "V2"]);
    assert_eq!(parsed.path, ["/a b", "/c"]);
    let parsed: Flat = layers.parse(&["--features", "V9,V8", "--path", "/only"]).unwrap();
    assert_eq!(parsed.features, ["V9", "V8"]);
    assert_eq!(parsed.path, ["/only"]);
    let layers = Layers::new(&[("TOOL_FEATURES", "V3,V4"), ("TOOL_TOPIC", "t")], None);
    assert_eq!(layers.parse::<Flat>(&[]).unwrap().features, ["V3", "V4"]);
    let (text, code) = message(Layers::new(&[], Some("topic = [\"a\", \"b\"]")).parse::<Flat>(&[]));
    assert!(text.contains("\"topic\"") && text.contains("list"), "{text}");
    assert_eq!(code, 64);
}

#[test]
fn keys_may_be_kebab_or_snake() {
    for key in ["commit-interval", "commit_interval"] {
        let layers = Layers::new(&[], Some(&format!("topic = \"t\"\n{key} = \"50ms\"")));
        assert_eq!(layers.parse::<Flat>(&[]).unwrap().commit_interval.as_deref(), Some("50ms"));
    }
}

#[test]
fn the_subcommands_table_wins_over_the_top_level() {
    let text = "threads = 2\nduration = \"9s\"\n[run]\nthreads = 3\nlevel = \"debug\"";
    let layers = Layers::new(&[], Some(text));
    let parsed: Nested = layers.parse(&["run"]).unwrap();
    assert_eq!(parsed.level, "debug");
    let Commands::Run(run) = parsed.command else { panic!("run was asked for") };
    assert_eq!(run.threads, 3);
    assert_eq!(run.kafka.brokers(), "127.0.0.1:9092");
    let parsed: Nested = layers.parse(&["demo"]).unwrap();
    let Commands::Demo { duration } = parsed.command else { panic!("demo was asked for") };
    assert_eq!(duration.as_deref(), Some("9s"));
    assert_eq!(parsed.level, "info");
    let layers = Layers { environment: HashMap::from([("TOOL_THREADS".into(), "4".into())]), ..layers };
    let Commands::Run(run) = layers.parse::<Nested>(&["run"]).unwrap().command else { panic!("run was asked for") };
    assert_eq!(run.threads, 4);
}

#[test]
fn a_subcommand_of_a_subcommand_has_the_table_of_the_first_and_the_same_variables() {
    let cleaned = |layers: &Layers, arguments: &[&str]| {
        let Commands::Store(store) = layers.parse::<Nested>(arguments).unwrap().command else { panic!("store") };
        store.command.map(|OfStore::Clean { to }| to)
    };
    let layers = Layers::new(&[], Some("[store]\nto = \"file\""));
    assert_eq!(cleaned(&layers, &["store", "clean"]).as_deref(), Some("file"));
    assert_eq!(cleaned(&layers, &["store"]), None);
    let layers = Layers { environment: HashMap::from([("TOOL_TO".into(), "environment".into())]), ..layers };
    assert_eq!(cleaned(&layers, &["store", "clean"]).as_deref(), Some("environment"));
    assert_eq!(cleaned(&layers, &["store", "clean", "--to", "flag"]).as_deref(), Some("flag"));
    let (message, code) = message(Layers::new(&[], None).parse::<Nested>(&["store"]));
    assert!(code == 2 && message.contains("--to"), "{message}");
}

#[test]
fn unknown_keys_are_named_with_the_closest_known_one() {
    let cases = [
        ("thread = 1", "\"thread\"", "\"threads\""),
        ("[run]\nbrokrs = \"a\"", "\"run.brokrs\"", "\"brokers\""),
        ("[demo]\ndurations = 1", "\"demo.durations\"", "\"duration\""),
        ("[runs]\nthreads = 1", "\"runs\"", "\"run\""),
        ("zzz = 1", "\"zzz\"", "known keys are"),
        ("layered-property = [\"a=b\"]", "\"layered-property\"", "property"),
    ];
    for (text, key, hint) in cases {
        let (message, code) = message(Layers::new(&[], Some(text)).parse::<Nested>(&["run"]));
        assert!(message.contains(key) && message.contains(hint), "{text}: {message}");
        assert_eq!(code, 64);
    }
    let (message, _) = message(Layers::new(&[], Some("[run]\nduration = \"1s\"")).parse::<Nested>(&["run"]));
    assert!(message.contains("run.duration"), "another subcommand's key in [run]: {message}");
}

#[test]
fn values_of_the_wrong_type_name_key_or_variable() {
    let (text, code) = message(Layers::new(&[], Some("topic = \"t\"\nrate = \"fast\"")).parse::<Flat>(&[]));
    assert!(text.contains("\"rate\"") && text.contains("fast"), "{text}");
    assert_eq!(code, 64);
    let (text, code) = message(Layers::new(&[("TOOL_RATE", "fast")], None).parse::<Flat>(&["--topic", "t"]));
    assert!(text.contains("TOOL_RATE") && text.contains("fast"), "{text}");
    assert_eq!(code, 2);
    let overridden: Flat = Layers::new(&[("TOOL_RATE", "fast")], None).parse(&["--topic", "t", "--rate", "5"]).unwrap();
    assert_eq!(overridden.rate, 5, "a variable that the flag overrides is not looked at");
}

#[test]
fn the_file_may_be_named_by_the_environment_and_must_exist() {
    let layers = Layers::new(&[], Some("topic = \"from the file\""));
    let path = layers.file.as_ref().unwrap().path().to_str().unwrap().to_owned();
    let parsed: Flat = Layers::new(&[("TOOL_CONFIG", &path)], None).parse(&[]).unwrap();
    assert_eq!(parsed.topic, "from the file");
    let (text, code) = message(Layers::new(&[("TOOL_CONFIG", "/nowhere.toml")], None).parse::<Flat>(&["--topic", "t"]));
    assert!(text.contains("/nowhere.toml"), "{text}");
    assert_eq!(code, 64);
    let parsed: Flat =
        Layers::new(&[("TOOL_CONFIG", "/nowhere.toml")], None).parse(&["--topic", "t", "--config", &path]).unwrap();
    assert_eq!(parsed.topic, "t");
}

#[test]
fn properties_merge_key_by_key() {
    let layers = Layers::new(
        &[("TOOL_PROPERTY", "sasl.password=environment\nclient.id=environment"), ("TOOL_TOPIC", "t")],
        Some("[kafka]\nsasl.password = \"file\"\nclient.id = \"file\"\nsasl.username = \"file\"\nlinger.ms = 7"),
    );
    let parsed: Flat = layers.parse(&["-X", "client.id=flag", "--brokers", "b:1"]).unwrap();
    let config = parsed.kafka.client_config();
    assert_eq!(config.get("bootstrap.servers"), Some("b:1"));
    assert_eq!(config.get("client.id"), Some("flag"));
    assert_eq!(config.get("sasl.password"), Some("environment"));
    assert_eq!(config.get("sasl.username"), Some("file"));
    assert_eq!(config.get("linger.ms"), Some("7"));
    let shown = format!("{parsed:?}");
    assert!(!shown.contains("sasl.password=environment"), "{shown}");
}

#[test]
fn a_malformed_property_is_refused_without_being_repeated_from_the_environment() {
    let layers = Layers::new(&[("TOOL_PROPERTY", "client.id=a\nhunter2"), ("TOOL_TOPIC", "t")], None);
    let (text, code) = message(layers.parse::<Flat>(&[]));
    assert!(text.contains("line 2") && text.contains("security.protocol=SASL_SSL"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert_eq!(code, 2);
    let (text, code) = message(Layers::new(&[], None).parse::<Flat>(&["--topic", "t", "-X", "linger.ms"]));
    assert!(text.contains("expected key=value"), "{text}");
    assert_eq!(code, 2);
}

#[test]
fn help_names_the_variables_but_never_their_values() {
    let layers = Layers::new(&[("TOOL_PROPERTY", "sasl.password=hunter2")], None);
    for flag in ["-h", "--help"] {
        let (text, code) = message(layers.parse::<Flat>(&[flag]));
        assert_eq!(code, 0);
        for variable in ["TOOL_RATE", "TOOL_COMMIT_INTERVAL", "TOOL_PROPERTY", "TOOL_CONFIG", "TOOL_BROKERS"] {
            assert!(text.contains(&format!("[env: {variable}]")), "{text}");
        }
        assert!(!text.contains("hunter2") && !text.contains("layered"), "{text}");
    }
    let (text, _) = message(Layers::new(&[], None).parse::<Nested>(&["run", "--help"]));
    assert!(text.contains("TOOL_THREADS"), "{text}");
}

proptest! {
    #[test]
    fn any_text_reaches_the_argument_unchanged(value in "[^\\p{C}]{1,40}") {
        let literal = toml_string(&value);
        let layers = Layers::new(&[("TOOL_COMMIT_INTERVAL", &value)], Some(&format!("topic = {literal}")));
        let parsed: Flat = layers.parse(&[]).unwrap();
        prop_assert_eq!(parsed.commit_interval.as_deref(), Some(value.as_str()));
        prop_assert_eq!(parsed.topic, value);
    }

    #[test]
    fn any_property_value_survives(value in "[ -~]{0,40}") {
        let layers = Layers::new(&[], Some(&format!("topic = \"t\"\n[kafka]\nclient.id = {}", toml_string(&value))));
        let parsed: Flat = layers.parse(&[]).unwrap();
        let config = parsed.kafka.client_config();
        prop_assert_eq!(config.get("client.id"), Some(value.as_str()));
    }
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
