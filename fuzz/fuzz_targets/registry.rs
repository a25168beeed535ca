//! What an MLflow server answers, and what those who register a version have it answer: read to a value or an error,
//! and no files from anywhere but the server's own store and the stores that were named.
//!
//! ```text
//!  input, one JSON object ─┬► version    of the model that was asked for, with a number that can be part of a path
//!                          ├► URI ─► location ─[of a run: the run's]─► allowed only in its place
//!                          ├► listing    names stay in the folder that they are put into
//!                          └► refusal
//! ```
//! Fields that an answer does not have are ignored: so one object can be all answers to one worker.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use fraud_scorer::model::registry::answers::{DownloadUri, Listing, Refusal, RunAnswer, VersionAnswer};
use fraud_scorer::model::registry::location::{Location, Store};
use fraud_scorer::model::source::RegisteredModel;
use libfuzzer_sys::fuzz_target;

/// What `--model-store` names.
static STORES: LazyLock<[Store; 2]> =
    LazyLock::new(|| ["s3://models/fraud", "file:///srv/mlflow"].map(|uri| Store::parse(uri).expect("a store")));

fn version(body: &[u8]) {
    let model: RegisteredModel = "fraud@champion".parse().expect("a model");
    let Ok(answer) = serde_json::from_slice::<VersionAnswer>(body) else { return };
    if let Ok(version) = answer.version_of(&model) {
        assert_eq!(version.name, "fraud");
        assert!(!version.version.is_empty() && version.version.bytes().all(|digit| digit.is_ascii_digit()));
    }
}

fn location(body: &[u8]) {
    let server = "http://mlflow.example:5000/base".parse().expect("an address");
    let Ok(DownloadUri { artifact_uri: uri }) = serde_json::from_slice(body) else { return };
    let mut found = Location::parse(&uri, Some(&server));
    if let Ok(Location::Run { below, .. }) = &found {
        let Ok(answer) = serde_json::from_slice::<RunAnswer>(body) else { return };
        found = Location::parse(&answer.artifact_uri(), Some(&server)).and_then(|root| root.join(below.clone()));
    }
    let Ok(location) = found else { return };
    if location.is_allowed(&*STORES) {
        assert!(lies_where_it_may(&location), "{uri}: {location:?}");
    }
}

/// By other means than the code's: as the text of a path whose `..` are followed.
fn lies_where_it_may(location: &Location) -> bool {
    let is_plain = |part: &String| !matches!(part.as_str(), "" | "." | "..") && !part.contains(['/', '\\', '\0', '\n']);
    match location {
        Location::Proxied(path) => path.iter().all(is_plain),
        Location::Bucket { bucket, prefix } => {
            let key = prefix.join("/");
            bucket == "models" && (key == "fraud" || key.starts_with("fraud/")) && prefix.iter().all(is_plain)
        }
        Location::Local(path) => {
            let mut parts = Vec::new();
            for part in path.to_str().expect("made of text").split('/') {
                match part {
                    "" | "." => {}
                    ".." => _ = parts.pop(),
                    name => parts.push(name),
                }
            }
            parts.starts_with(&["srv", "mlflow"])
        }
        Location::Run { .. } => false,
    }
}

fn listing(body: &[u8]) {
    let Ok(listing) = serde_json::from_slice::<Listing>(body) else { return };
    let folder = Path::new("/cache/7");
    for name in listing.files.iter().flat_map(|entry| entry.plain_name()) {
        let path: PathBuf = folder.join(name);
        assert!(path.parent() == Some(folder) && path.file_name().is_some_and(|file| file == name), "{name:?}");
    }
}

fuzz_target!(|body: &[u8]| {
    version(body);
    location(body);
    listing(body);
    let _ = serde_json::from_slice::<Refusal>(body);
});
