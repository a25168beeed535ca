//! The catalogue is what the documentation says, and the only way into the log.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{catalogue, kafka, librdkafka, model};

/// Where the catalogue is written down for people.
const DOCUMENT: &str = "docs/LOGS.md";

fn document() -> String {
    let mut text = String::from(include_str!("introduction.md"));
    let mut target = "";
    for definition in catalogue() {
        if definition.target != target {
            target = definition.target;
            let _ = write!(
                text,
                "\n## {target}\n\n| event | level | sentence | meaning | fields |\n|---|---|---|---|---|\n"
            );
        }
        let fields: Vec<String> = definition.fields().map(|name| format!("`{name}`")).collect();
        let limit = definition.at_most_every.map(|seconds| format!(" At most one in {seconds} s.")).unwrap_or_default();
        let (event, level, message) = (definition.event, definition.level, definition.message);
        let (meaning, fields) = (definition.meaning.trim(), fields.join(", "));
        let _ = writeln!(text, "| `{event}` | {level} | {message} | {meaning}{limit} | {fields} |");
    }
    text
}

#[test]
fn the_document_lists_every_event() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(DOCUMENT);
    if std::env::var_os("FRAUD_SCORER_WRITE_DOCS").is_some() {
        std::fs::write(&path, document()).expect("the document can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == document(), "{DOCUMENT} is out of date: run make docs");
}

#[test]
fn names_are_unique_and_of_one_form() {
    let mut seen = HashSet::new();
    for definition in catalogue() {
        let event = definition.event;
        assert!(seen.insert(event), "{event} twice");
        assert!(event.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-'), "{event}");
        assert!(!definition.fields().any(|field| ["event", "message", "level", "target"].contains(&field)), "{event}");
        assert!(definition.meaning.trim().ends_with('.'), "{event}: a whole sentence");
    }
    assert!(seen.len() > 50, "all topics are listed");
}

#[test]
fn nothing_is_logged_past_the_catalogue() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut found, mut files) = (vec![root.clone()], Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of sources").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.starts_with(root.join("log_events"))
            {
                files += 1;
                let text = std::fs::read_to_string(&path).expect("a source file");
                let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "event!("];
                let calls = |line: &&str| {
                    line.contains("use tracing::")
                        || macros.iter().any(|name| line.contains(&format!("tracing::{name}")))
                };
                found.extend(text.lines().filter(calls).map(|line| format!("{}: {line}", path.display())));
            }
        }
    }
    assert!(files > 50, "the sources are there");
    assert_eq!(found, Vec::<String>::new(), "give it a definition in src/log_events");
}

/// What is written as JSON while `work` runs.
fn logged(work: impl FnOnce()) -> Vec<serde_json::Value> {
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().map_or(Ok(0), |mut buffer| buffer.write(bytes))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(::tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .json()
        .flatten_event(true)
        .finish();
    ::tracing::subscriber::with_default(subscriber, work);
    let text = String::from_utf8(buffer.0.lock().expect("lock").clone()).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an object per line")).collect()
}

#[test]
fn an_event_is_written_as_it_is_defined() {
    let lines = logged(|| {
        kafka::PartitionsAssigned { thread: "scoring-0", partitions: &[1, 2] }.log();
        let took = std::time::Duration::from_millis(1500);
        model::RolledBack { from: "fraud@2", to: "fraud@1", why: "asked for", took, threads_behind: 0 }.log();
        librdkafka::Line { facility: "FAIL", line: "127.0.0.1:1/bootstrap: {refused}" }.log();
    });
    let expected = [
        serde_json::json!({
            "level": "INFO", "target": "fraud_scorer::kafka", "event": "partitions-assigned",
            "message": "partitions assigned", "thread": "scoring-0", "partitions": "[1, 2]",
        }),
        serde_json::json!({
            "level": "WARN", "target": "fraud_scorer::model", "event": "model-rolled-back",
            "message": "model rolled back", "from": "fraud@2", "to": "fraud@1", "why": "asked for", "took": "1.5s",
            "threads_behind": 0,
        }),
        serde_json::json!({
            "level": "DEBUG", "target": "librdkafka", "event": "librdkafka-line",
            "message": "127.0.0.1:1/bootstrap: {refused}", "facility": "FAIL",
        }),
    ];
    assert_eq!(lines.len(), expected.len());
    for (mut line, expected) in lines.into_iter().zip(expected) {
        line.as_object_mut().expect("an object").remove("timestamp").expect("a time");
        assert_eq!(line, expected);
    }
}

#[test]
fn what_repeats_with_every_record_is_limited() {
    let lines = logged(|| {
        for offset in 0..1000 {
            super::pipeline::RecordSkipped { partition: 0, offset }.log();
        }
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].get("suppressed"), None, "it stands for itself");
}
