//! Bundles for tests, made from those of the checkout.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::engine::{Engine, Outcome};
use fraud_wire::verdict::Decision;

use super::root;
use super::topics::Received;

/// A bundle directory whose contents are replaced at will.
pub struct Shelf {
    folder: tempfile::TempDir,
}

impl Shelf {
    /// A directory that holds `models/NAME` as `fraud` of this version.
    pub fn with(name: &str, version: &str) -> Shelf {
        let shelf = Shelf { folder: tempfile::tempdir().unwrap() };
        shelf.put(name, version);
        shelf
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("bundle")
    }

    /// Replaces the contents by `models/NAME` as `fraud` of this version.
    pub fn put(&self, name: &str, version: &str) {
        self.put_edited(name, version, |_, manifest| manifest);
    }

    /// As [`Shelf::put`]; `edit` gets the directory and the manifest's text, and gives another.
    pub fn put_edited(&self, name: &str, version: &str, edit: impl FnOnce(&Path, String) -> String) {
        let next = self.folder.path().join("next");
        fs::create_dir(&next).unwrap();
        for entry in fs::read_dir(root().join("models").join(name)).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), next.join(entry.file_name())).unwrap();
        }
        let manifest = fs::read_to_string(next.join("manifest.toml")).unwrap();
        let (own_name, own_version) = (format!("name = \"{name}\"\n"), "version = \"1\"\n");
        assert!(manifest.contains(&own_name) && manifest.contains(own_version));
        let manifest = manifest.replacen(&own_name, "name = \"fraud\"\n", 1);
        let manifest = manifest.replacen(own_version, &format!("version = \"{version}\"\n"), 1);
        fs::write(next.join("manifest.toml"), edit(&next, manifest)).unwrap();
        let _ = fs::remove_dir_all(self.path());
        fs::rename(next, self.path()).unwrap();
    }
}

/// What a bundle's model makes of each record (of one row), by partition and offset.
pub fn opinions(bundle: &Path, input: &[Received]) -> HashMap<(i32, i64), (f32, Decision)> {
    let mut engine = Engine::new(&Bundle::load(bundle).unwrap(), 1 << 20).unwrap();
    let opinion = |record: &Received| {
        engine.run(std::iter::once(record.value.as_deref()));
        let [Outcome::Scored(rows)] = engine.outcomes() else { panic!("{:?}", engine.outcomes()) };
        let row = engine.rows(rows.clone()).next().unwrap();
        ((record.partition, record.offset), (row.score, row.decision))
    };
    input.iter().map(opinion).collect()
}
