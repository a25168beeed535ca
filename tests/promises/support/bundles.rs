//! Bundles for tests, made from those of the checkout.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::engine::{Engine, Outcome};
use fraud_wire::verdict::Decision;
use sha2::{Digest, Sha256};

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
        let manifest = hashed(&next, &edit(&next, manifest));
        fs::write(next.join("manifest.toml"), manifest).unwrap();
        let _ = fs::remove_dir_all(self.path());
        fs::rename(next, self.path()).unwrap();
    }
}

/// The manifest with the hashes of the files that it lists as they are now, without those that are gone.
pub fn hashed(directory: &Path, manifest: &str) -> String {
    let line = |line: &str| {
        let Some((name, _)) = line.strip_prefix('"').and_then(|rest| rest.split_once("\" = \"")) else {
            return Some(line.to_owned());
        };
        let path = directory.join(name);
        // A pipe would be waited for.
        let content = if fs::metadata(&path).ok()?.is_file() { fs::read(path).ok()? } else { Vec::new() };
        let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        Some(format!("\"{name}\" = \"{hash}\""))
    };
    manifest.lines().filter_map(line).collect::<Vec<_>>().join("\n") + "\n"
}

/// ONNX graphs that no training would export: 29 inputs by the name `input`, one output by the name `probability`.
pub mod graphs {
    use fraud_trees::onnx::wire::Writer;

    /// TensorProto's names of types.
    const FLOAT: i64 = 1;
    const INT64: i64 = 7;
    const BOOL: i64 = 9;

    fn node(graph: &mut Writer, operator: &str, inputs: &[&str], output: &str, attribute: impl FnOnce(&mut Writer)) {
        graph.message(1, |node| {
            for input in inputs {
                node.bytes(1, input.as_bytes());
            }
            node.bytes(2, output.as_bytes()).bytes(4, operator.as_bytes());
            attribute(node);
        });
    }

    fn none(_: &mut Writer) {}

    /// A tensor of these dimensions; in a file of its own where `bytes` are none.
    fn tensor(graph: &mut Writer, name: &str, kind: i64, dimensions: &[i64], bytes: Result<&[u8], &str>) {
        graph.message(5, |tensor| {
            for dimension in dimensions {
                tensor.integer(1, *dimension);
            }
            tensor.integer(2, kind).bytes(8, name.as_bytes());
            match bytes {
                Ok(bytes) => {
                    tensor.bytes(9, bytes);
                }
                Err(place) => {
                    tensor.message(13, |entry| {
                        entry.bytes(1, b"location").bytes(2, place.as_bytes());
                    });
                    tensor.integer(14, 1);
                }
            }
        });
    }

    /// An input (11) or an output (12); `None`: any number of rows.
    fn value(graph: &mut Writer, field: u64, name: &str, kind: i64, dimensions: &[Option<i64>]) {
        graph.message(field, |value| {
            value.bytes(1, name.as_bytes());
            value.message(2, |of| {
                of.message(1, |tensor| {
                    tensor.integer(1, kind);
                    tensor.message(2, |shape| {
                        for dimension in dimensions {
                            shape.message(1, |one| {
                                match dimension {
                                    Some(size) => one.integer(1, *size),
                                    None => one.bytes(2, b"rows"),
                                };
                            });
                        }
                    });
                });
            });
        });
    }

    /// sigmoid(f(input × 0)), where `middle` makes `t` of `s`.
    fn model(weights: Result<&[u8], &str>, middle: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut file = Writer::default();
        file.integer(1, 8);
        file.message(7, |graph| {
            node(graph, "MatMul", &["input", "w"], "s", none);
            middle(graph);
            node(graph, "Sigmoid", &["t"], "probability", none);
            graph.bytes(2, b"graph");
            tensor(graph, "w", FLOAT, &[29, 1], weights);
            value(graph, 11, "input", FLOAT, &[None, Some(29)]);
            value(graph, 12, "probability", FLOAT, &[None, Some(1)]);
        });
        file.message(8, |operators| {
            operators.integer(2, 17);
        });
        file.0
    }

    const ZEROS: Result<&[u8], &str> = Ok(&[0; 29 * 4]);

    /// Scores 0.5, always.
    pub fn half() -> Vec<u8> {
        model(ZEROS, |graph| node(graph, "Identity", &["s"], "t", none))
    }

    /// Has weights that nothing uses, of which ONNX Runtime warns.
    pub fn with_unused_weights() -> Vec<u8> {
        model(ZEROS, |graph| {
            node(graph, "Identity", &["s"], "t", none);
            tensor(graph, "left_over", FLOAT, &[1], Ok(&[0; 4]));
        })
    }

    /// Its weights lie in another file.
    pub fn with_external_weights(place: &str) -> Vec<u8> {
        model(Err(place), |graph| node(graph, "Identity", &["s"], "t", none))
    }

    /// Makes a constant of so many floats.
    pub fn with_constant(floats: i64) -> Vec<u8> {
        model(ZEROS, |graph| {
            node(graph, "ConstantOfShape", &["shape"], "big", none);
            node(graph, "ReduceSum", &["big"], "sum", |node| {
                node.message(5, |attribute| {
                    attribute.bytes(1, b"keepdims").integer(3, 0).integer(20, 2);
                });
            });
            node(graph, "Add", &["s", "sum"], "t", none);
            tensor(graph, "shape", INT64, &[1], Ok(&floats.to_le_bytes()));
        })
    }

    /// Loops, for practical purposes, for ever.
    pub fn endless() -> Vec<u8> {
        model(ZEROS, |graph| {
            node(graph, "Loop", &["times", "condition", "s"], "t", |node| {
                node.message(5, |attribute| {
                    attribute.bytes(1, b"body").integer(20, 5);
                    attribute.message(6, |body| {
                        // The names of both outputs are needed: the condition that goes on, and the value.
                        self::node(body, "Identity", &["condition_in"], "condition_out", none);
                        self::node(body, "Identity", &["value_in"], "value_out", none);
                        body.bytes(2, b"body");
                        value(body, 11, "turn", INT64, &[]);
                        value(body, 11, "condition_in", BOOL, &[]);
                        value(body, 11, "value_in", FLOAT, &[None, Some(1)]);
                        value(body, 12, "condition_out", BOOL, &[]);
                        value(body, 12, "value_out", FLOAT, &[None, Some(1)]);
                    });
                });
            });
            tensor(graph, "times", INT64, &[], Ok(&(1_i64 << 62).to_le_bytes()));
            tensor(graph, "condition", BOOL, &[], Ok(&[1]));
        })
    }
}

/// The manifest of models/fraud for another graph of `graphs`, which is written into the directory.
pub fn with_graph(directory: &Path, manifest: &str, graph: &[u8]) -> String {
    fs::write(directory.join("model.onnx"), graph).unwrap();
    fs::remove_file(directory.join("golden.jsonl")).unwrap();
    let _ = fs::remove_file(directory.join("reference.json"));
    let hash: String = Sha256::digest(graph).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut table: toml::Table = manifest.parse().unwrap();
    table.insert("sha256".into(), hash.into());
    table["output"] = toml::Value::Table("tensor = \"probability\"\ncolumn = 0".parse().unwrap());
    table["input"]["tensor"] = "input".into();
    table.to_string()
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
