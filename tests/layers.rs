//! Imports point down: a module uses those below it, and none above.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The modules of the crate from the lowest to the highest; those of one line may use each other's types.
const LAYERS: &[&[&str]] = &[
    &["shutdown", "http_client", "log_events", "bounded_read", "digest", "mask"],
    &["telemetry"],
    &["kafka"],
    &["audit"],
    &["transaction"],
    &["model", "drift", "explain", "pipeline"],
    &["worker", "scoring_service", "archive"],
    &["http", "signals"],
    &["commands"],
    &["cli"],
];

/// Imports that point up today. Each is to go; one that has gone must leave this list.
const UPWARDS: &[(&str, &str)] =
    &[("telemetry", "drift"), ("telemetry", "kafka"), ("telemetry", "pipeline"), ("commands", "cli")];

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        // Tests may use what they like.
        let is_test = path.file_stem().is_some_and(|name| name == "tests");
        if path.is_dir() && !is_test {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            into.push(path);
        }
    }
}

/// What each module of the crate uses of the others, by `crate::` paths outside of tests and comments.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let within = file.strip_prefix(&root).unwrap().with_extension("");
        let module = within.components().next().unwrap().as_os_str().to_str().unwrap().to_owned();
        if module == "lib" || module == "main" {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let production = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for line in production.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for rest in line.split("crate::").skip(1) {
                let name: String =
                    rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                if name != module && !name.is_empty() {
                    imports.entry(module.clone()).or_default().insert(name);
                }
            }
        }
    }
    imports
}

#[test]
fn imports_point_down() {
    let layer = |module: &str| {
        let found = LAYERS.iter().position(|layer| layer.contains(&module));
        found.unwrap_or_else(|| panic!("give the module {module} its layer"))
    };
    let mut upwards = BTreeSet::new();
    for (module, used) in &imports() {
        for used in used.iter().filter(|used| layer(used) > layer(module)) {
            upwards.insert((module.clone(), used.clone()));
        }
    }
    let known: BTreeSet<_> = UPWARDS.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect();
    assert_eq!(upwards, known, "left: imports that point up; right: those that are known");
}
