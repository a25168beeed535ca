//! Files of a bundle, as those who register a model write them: manifest, reference, golden records, digital
//! signature. Each ends as a value that keeps what later code rests on, or as an error.
//!
//! ```text
//!  input, whole ─┬► manifest.toml            names stay in the bundle, features and thresholds are what they must be
//!                ├► reference.json           bins whose shares are positive and add up to 1
//!                ├► golden.jsonl             one row and one score a line
//!                └► manifest.toml.minisig    what signs one manifest signs no other
//! ```
#![no_main]

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use fraud_scorer::drift::Baseline;
use fraud_scorer::model::golden::Golden;
use fraud_scorer::model::manifest::Manifest;
use fraud_scorer::model::trust::ModelKey;
use fraud_scorer::pipeline::decode::Feature;
use fraud_wire::reference::Reference;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

/// What the seed `signature` signs, with the secret half of [`KEY`].
const SIGNED: &[u8] = include_bytes!("../seeds/manifest/manifest");

/// A key of this target alone.
const KEY: &str = "RWRmdXp6aW5nMRkSmc0LLzhXHeqlA5sX5hfM59k1Pp0FXVNTPjbjTt5l";

/// The key, and where a signature is read. That the seed is one holds this against itself: else it would never see any.
static SIGNATURES: LazyLock<(ModelKey, TempDir)> = LazyLock::new(|| {
    let (key, folder): (ModelKey, _) = (KEY.parse().expect("a key"), tempfile::tempdir().expect("a folder"));
    write(&folder, include_bytes!("../seeds/manifest/signature"));
    key.check(folder.path(), SIGNED).expect("the seed signs the seed");
    (key, folder)
});

fn write(folder: &TempDir, signature: &[u8]) {
    std::fs::write(folder.path().join("manifest.toml.minisig"), signature).expect("written");
}

fn manifest(text: &str) {
    let Ok(manifest) = Manifest::parse(text) else { return };
    let bundle = Path::new("/bundle");
    for name in manifest.files.keys().chain([&manifest.model]) {
        let path = bundle.join(name);
        assert!(path.parent() == Some(bundle) && path.as_os_str().len() == "/bundle/".len() + name.len(), "{name:?}");
    }
    for hash in manifest.files.values().chain([&manifest.sha256]) {
        let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
        assert!(hash.len() == 64 && hash.bytes().all(is_digit), "{hash}");
    }
    let names: HashSet<&str> = manifest.features.iter().map(|feature| feature.name.as_str()).collect();
    assert!(!names.is_empty() && names.len() == manifest.features.len(), "features by name");
    assert!(manifest.features.iter().all(|feature| feature.default.is_none_or(f32::is_finite)), "defaults");
    let (review, decline) = (manifest.thresholds.review(), manifest.thresholds.decline());
    assert!(0.0 <= review && review <= decline && decline <= 1.0, "{review} {decline}");
}

fn reference(text: &[u8]) {
    let Ok(reference) = serde_json::from_slice::<Reference>(text) else { return };
    if reference.validate().is_err() {
        return;
    }
    let feature =
        |(index, name): (usize, &str)| Feature { name: name.into(), default: (index % 2 == 0).then_some(0.5) };
    let names = reference.features.iter().map(|feature| feature.name.as_str());
    let features: Vec<Feature> = names.enumerate().map(feature).collect();
    let baseline = Baseline::new(&reference, &features).expect("a histogram of each feature");
    assert_eq!(baseline.width(), features.len());
    let mut slots = 0;
    for watched in baseline.features().iter().chain([baseline.score()]) {
        assert_eq!(watched.slots, slots..slots + watched.shares.len());
        slots = watched.slots.end;
        let sum: f64 = watched.shares.iter().sum();
        assert!(watched.shares.iter().all(|share| *share > 0.0) && (sum - 1.0).abs() < 1e-9, "{watched:?}");
        assert!(watched.shares.len() == watched.labels.len() && watched.shares.len() <= 20, "{watched:?}");
    }
    assert_eq!(baseline.slots(), slots);
}

fn golden(text: &[u8]) {
    let feature = |name: &str, default| Feature { name: name.into(), default };
    let features = [feature("V1", None), feature("V2", None), feature("Amount", Some(0.0))];
    let Ok(golden) = Golden::parse(text, &features) else { return };
    let rows = golden.lines.len();
    assert_eq!((golden.rows.features.len(), golden.rows.meta.len(), golden.expected.len()), (rows * 3, rows, rows));
    assert!(golden.rows.features.iter().all(|value| value.is_finite()));
}

fn signature(text: &[u8]) {
    if !text.starts_with(b"untrusted comment:") {
        return;
    }
    let (key, folder) = &*SIGNATURES;
    write(folder, text);
    if key.check(folder.path(), SIGNED).is_ok() {
        let other = [SIGNED, b"\n"].concat();
        assert!(key.check(folder.path(), &other).is_err(), "one signature of two manifests");
    }
}

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input) {
        manifest(text);
    }
    reference(input);
    golden(input);
    signature(input);
});
