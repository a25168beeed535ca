//! `manifest.toml`: what a bundle promises. Raw TOML becomes a checked [`Manifest`] here and nowhere else.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path};

use serde::Deserialize;

use super::ModelError;
use super::trust::Demands;
use crate::pipeline::decide::Thresholds;
use crate::pipeline::decode::{Feature, RESERVED_KEYS};

/// Bundle names and versions stand in headers, metrics and JSON: keep them short.
const MAX_NAME_BYTES: usize = 200;

/// How far a golden record's score may lie from training's: f32 noise through another implementation, no more.
pub const GOLDEN_TOLERANCE: f32 = 1e-5;

/// The most that a manifest may ask for instead: quantised and 16-bit graphs lie that far from the model they were made of.
const MOST_TOLERANCE: f32 = 0.1;

/// A checked manifest.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// Name of the model, e.g. `fraud`.
    pub name: String,
    /// Version of the model, e.g. `3`.
    pub version: String,
    /// What the model does; only `classifier` so far.
    pub kind: Kind,
    /// File name of the ONNX model within the bundle.
    pub model: String,
    /// Lower-case hexadecimal SHA-256 of that file.
    pub sha256: String,
    /// Name of the input tensor, float32 `[rows, features]`.
    pub input: String,
    /// Features in the tensor's column order.
    pub features: Vec<Feature>,
    /// The output tensor.
    pub output: Output,
    /// Where review and decline begin.
    pub thresholds: Thresholds,
    /// How far a golden record's score may lie from training's.
    pub tolerance: f32,
    /// Lower-case hexadecimal SHA-256 of further files of the bundle, by name.
    pub files: BTreeMap<String, String>,
    /// Whatever training wrote down; shown, never interpreted.
    pub training: toml::Table,
}

/// What a model does with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Gives the probability of fraud.
    Classifier,
}

/// The tensor that holds the probabilities.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// Its name; float32 `[rows, classes]`, `[rows, 1]` or `[rows]`.
    pub tensor: String,
    /// Column of the positive class; absent for `[rows]`.
    pub column: Option<usize>,
    /// The positive class by its name in the graph, in place of the column.
    #[serde(default)]
    pub class: Option<Class>,
}

/// The name of a class: a text, or an integer as its decimal.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "RawClass")]
pub struct Class(pub String);

#[derive(Deserialize)]
#[serde(untagged)]
enum RawClass {
    Text(String),
    Integer(i64),
}

impl From<RawClass> for Class {
    fn from(raw: RawClass) -> Class {
        match raw {
            RawClass::Text(text) => Class(text),
            RawClass::Integer(integer) => Class(integer.to_string()),
        }
    }
}

#[derive(Deserialize)]
struct RawManifest {
    name: String,
    version: String,
    #[serde(default = "classifier")]
    kind: Kind,
    model: String,
    sha256: String,
    input: RawInput,
    output: Output,
    thresholds: RawThresholds,
    #[serde(default)]
    golden: RawGolden,
    #[serde(default)]
    files: BTreeMap<String, String>,
    #[serde(default)]
    training: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInput {
    tensor: String,
    features: Vec<RawFeature>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFeature {
    name: String,
    default: Option<f32>,
    missing: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawGolden {
    tolerance: Option<f32>,
}

impl RawFeature {
    /// What stands for a value that is not there.
    fn default(&self) -> Result<Option<f32>, String> {
        let name = &self.name;
        match (self.missing.as_deref(), self.default) {
            (Some("nan"), None) => Ok(Some(f32::NAN)),
            (Some("nan"), Some(_)) => Err(format!(
                "input.features: {name:?} has both missing and default: missing = \"nan\" lets NaN reach the graph, \
                 default puts a number there"
            )),
            (Some(other), _) => Err(format!("input.features: missing = {other:?} of {name:?} must be \"nan\"")),
            (None, Some(default)) if !default.is_finite() => Err(format!(
                "input.features: the default of {name:?} must be a finite number; missing = \"nan\" lets NaN reach the \
                 graph"
            )),
            (None, default) => Ok(default),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawThresholds {
    review: f32,
    decline: f32,
}

fn classifier() -> Kind {
    Kind::Classifier
}

/// Of a file in the bundle's directory itself, which neither `.` nor `/` nor `a/b` is.
fn is_file_name(name: &str) -> bool {
    matches!(Path::new(name).components().next(), Some(Component::Normal(part)) if part == name)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub fn read(path: &Path) -> Result<Manifest, ModelError> {
        Manifest::read_as(path, &Demands::default())
    }

    /// Reads and checks the manifest at `path`, its digital signature first where one is asked for.
    pub fn read_as(path: &Path, demands: &Demands) -> Result<Manifest, ModelError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ModelError::Unreadable { path: path.to_owned(), source })?;
        if let Some((key, directory)) = demands.key.as_ref().zip(path.parent()) {
            key.check(directory, text.as_bytes())?;
        }
        Manifest::parse(&text).map_err(|reason| ModelError::Manifest { path: path.to_owned(), reason })
    }

    /// Checks a manifest's text; the error names the field.
    pub fn parse(text: &str) -> Result<Manifest, String> {
        let raw: RawManifest = toml::from_str(text).map_err(|error| error.to_string())?;
        for (field, value) in [("name", &raw.name), ("version", &raw.version)] {
            if value.is_empty() || value.len() > MAX_NAME_BYTES || value.chars().any(char::is_control) {
                return Err(format!("{field} must be 1 to {MAX_NAME_BYTES} bytes without control characters"));
            }
        }
        if !is_file_name(&raw.model) {
            return Err(format!("model = {:?} must be a file name within the bundle", raw.model));
        }
        if !is_sha256(&raw.sha256) {
            return Err("sha256 must be 64 hexadecimal digits (as sha256sum prints them)".into());
        }
        for (name, sha256) in &raw.files {
            if !is_file_name(name) {
                return Err(format!("files: {name:?} must be a file name within the bundle"));
            }
            if !is_sha256(sha256) {
                return Err(format!("files: {name:?} must be 64 hexadecimal digits (as sha256sum prints them)"));
            }
        }
        if raw.input.features.is_empty() {
            return Err("input.features is empty: list the columns of the input tensor in order".into());
        }
        let mut names = HashSet::new();
        for feature in &raw.input.features {
            if feature.name.is_empty() || RESERVED_KEYS.contains(&feature.name.as_str()) {
                return Err(format!("input.features: {:?} cannot be a feature's name", feature.name));
            }
            if !names.insert(&feature.name) {
                return Err(format!("input.features names {:?} twice", feature.name));
            }
        }
        if let (Some(column), Some(Class(class))) = (raw.output.column, &raw.output.class) {
            return Err(format!("output has both column = {column} and class = {class:?}: give one of them"));
        }
        let thresholds = Thresholds::new(raw.thresholds.review, raw.thresholds.decline)
            .map_err(|reason| format!("thresholds: {reason}"))?;
        let tolerance = raw.golden.tolerance.unwrap_or(GOLDEN_TOLERANCE);
        if !(0.0..=MOST_TOLERANCE).contains(&tolerance) {
            return Err(format!("golden.tolerance = {tolerance} must lie in [0, {MOST_TOLERANCE}]"));
        }
        let feature = |raw: RawFeature| Ok(Feature { default: raw.default()?, name: raw.name });
        let features = raw.input.features.into_iter().map(feature).collect::<Result<_, String>>()?;
        Ok(Manifest {
            name: raw.name,
            version: raw.version,
            kind: raw.kind,
            model: raw.model,
            sha256: raw.sha256.to_ascii_lowercase(),
            input: raw.input.tensor,
            features,
            output: raw.output,
            thresholds,
            tolerance,
            files: raw.files.into_iter().map(|(name, sha256)| (name, sha256.to_ascii_lowercase())).collect(),
            training: raw.training,
        })
    }

    /// Names of the features, in their order.
    pub fn feature_names(&self) -> impl Iterator<Item = &str> + Clone {
        self.features.iter().map(|feature| feature.name.as_str())
    }

    /// A row of every feature's default, 0 where it has none.
    pub fn row_of_defaults(&self) -> Vec<f32> {
        self.features.iter().map(|feature| feature.default.unwrap_or(0.0)).collect()
    }

    /// `name@version`, as in headers and logs.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(replace: &str, by: &str) -> String {
        let text = format!(
            "name = \"fraud\"\nversion = \"3\"\nmodel = \"model.onnx\"\nsha256 = \"{}\"\n\
             [input]\ntensor = \"input\"\nfeatures = [{{ name = \"V1\" }}, {{ name = \"Amount\", default = 0.0 }}]\n\
             [output]\ntensor = \"probabilities\"\ncolumn = 1\n[thresholds]\nreview = 0.35\ndecline = 0.9\n",
            "a".repeat(64)
        );
        assert!(text.contains(replace), "{replace:?} is part of the manifest");
        text.replacen(replace, by, 1)
    }

    #[test]
    fn the_required_fields_are_enough() {
        let manifest = Manifest::parse(&text("", "")).expect("valid");
        assert_eq!(manifest.id(), "fraud@3");
        assert_eq!(manifest.kind, Kind::Classifier);
        assert_eq!(manifest.features[1], Feature { name: "Amount".into(), default: Some(0.0) });
    }

    #[test]
    fn what_else_a_manifest_may_say() {
        assert_eq!(Manifest::parse(&text("", "")).expect("valid").tolerance, GOLDEN_TOLERANCE);
        let tolerant = text("[thresholds]", "[golden]\ntolerance = 0.05\n[thresholds]");
        assert_eq!(Manifest::parse(&tolerant).expect("valid").tolerance, 0.05);
        let gaps = Manifest::parse(&text("default = 0.0", "missing = \"nan\"")).expect("valid").features;
        assert!(gaps[1].default.is_some_and(f32::is_nan));
        assert_eq!(gaps, gaps.clone(), "a gap is the same gap");
        assert_ne!(gaps[1], Feature { name: "Amount".into(), default: Some(0.0) });
    }

    #[test]
    fn every_fault_names_its_field() {
        for (replace, by, names) in [
            ("name = \"fraud\"\n", "", "name"),
            ("version = \"3\"\n", "", "version"),
            ("\"fraud\"", "\"\"", "name"),
            ("model.onnx", "../model.onnx", "model"),
            ("model.onnx", ".", "model"),
            ("model.onnx", "/", "model"),
            ("model.onnx", "model.onnx/", "model"),
            ("aaaa", "zzzz", "sha256"),
            ("{ name = \"V1\" }, ", "{ name = \"Amount\" }, ", "Amount"),
            ("\"V1\"", "\"event_time\"", "event_time"),
            ("default = 0.0", "default = nan", "missing = \"nan\""),
            ("default = 0.0", "default = 0.0, missing = \"nan\"", "Amount"),
            ("default = 0.0", "missing = \"zero\"", "Amount"),
            ("[thresholds]", "[golden]\ntolerance = 0.2\n[thresholds]", "golden.tolerance"),
            ("[thresholds]", "[golden]\ntolerance = nan\n[thresholds]", "golden.tolerance"),
            ("[thresholds]", "[golden]\ntolerence = 0.01\n[thresholds]", "tolerence"),
            ("default = 0.0", "defualt = 0.0", "defualt"),
            ("review = 0.35", "review = 0.95", "thresholds"),
            ("decline = 0.9", "decline = 1.5", "thresholds"),
            ("review = 0.35\n", "", "review"),
            ("[output]\ntensor = \"probabilities\"", "[output]", "tensor"),
            ("tensor = \"probabilities\"", "tensor = \"probabilities\"\nclass = 1", "class"),
            ("sha256", "kind = \"ranking\"\nsha256", "kind"),
            ("[input]", "[files]\n\"../golden.jsonl\" = \"\"\n[input]", "golden"),
            ("[input]", "[files]\n\"golden.jsonl\" = \"abc\"\n[input]", "golden"),
        ] {
            let error = Manifest::parse(&text(replace, by)).expect_err(by);
            assert!(error.contains(names), "{by:?}: {error}");
        }
    }
}
