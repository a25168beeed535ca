//! `reference.json` of a model bundle: what the training data looked like.
//!
//! Histograms of every feature and of the score are the baseline that drift is measured against. The profile, a
//! mixture of Gaussian copulas (one or more per class), is enough to draw new transactions that look like the training data
//! without containing any of it:
//!
//! ```text
//! component by share ─► g ~ N(0,1)ⁿ ─► z = L·g ─► u = Φ(z) ─► xⱼ = quantilesⱼ interpolated at uⱼ ─► rounded
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The `schema` that this code reads.
pub const SCHEMA: u32 = 1;

/// How far a sum of shares may be from 1: files keep a limited number of digits.
const SHARE_TOLERANCE: f64 = 1e-3;

/// Why a reference cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not JSON of the expected shape.
    #[error("{} is not a reference of schema {SCHEMA}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The numbers contradict each other.
    #[error("the reference is inconsistent at {place}: {reason}")]
    Inconsistent {
        /// The field, as in `features[V1].shares`.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The whole file. Unknown fields are ignored, so that newer training code stays readable.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Reference {
    /// Version of the file's shape; must be [`SCHEMA`].
    pub schema: u32,
    /// Rows of the training data.
    pub rows: u64,
    /// The same after weighting; larger where the majority class was sampled down.
    pub weighted_rows: f64,
    /// Weighted share of fraud, in 0..=1.
    pub fraud_share: f64,
    /// A histogram per feature, in the order of the model's input.
    pub features: Vec<FeatureHistogram>,
    /// The histogram of the model's score.
    pub score: Histogram,
    /// What draws look-alike transactions; absent in bundles that keep histograms alone.
    #[serde(default)]
    pub profile: Option<Profile>,
}

/// Shares of the bins (-∞, c₀], (c₀, c₁], …, (c_last, ∞).
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Histogram {
    /// Right edges of all bins but the last, strictly ascending, in the feature's unit.
    pub cuts: Vec<f64>,
    /// Share of the rows in each bin, in 0..=1: one more than `cuts`.
    pub shares: Vec<f64>,
}

/// One feature's histogram.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FeatureHistogram {
    /// The feature's name.
    pub name: String,
    /// Its bins.
    #[serde(flatten)]
    pub histogram: Histogram,
    /// Share of the rows without a value, in 0..=1.
    #[serde(default)]
    pub missing: f64,
}

/// A mixture of Gaussian copulas, one or more components per class.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Profile {
    /// Probability levels of all quantiles, strictly ascending from 0 to 1.
    pub levels: Vec<f64>,
    /// The components; their shares add up to 1.
    pub components: Vec<Component>,
}

/// One kind of transactions within a class.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Component {
    /// The class: 1 is fraud.
    pub label: u32,
    /// Share of the transactions, in 0..=1.
    pub share: f64,
    /// The features' own distributions; same names and order in every component.
    pub features: Vec<FeatureProfile>,
    /// Covariance of the raw values, n × n.
    pub covariance: Vec<Vec<f64>>,
    /// Lower triangle L of the normal scores' correlation: row i holds i + 1 numbers.
    pub correlation_cholesky: Vec<Vec<f64>>,
}

/// One feature's distribution within a component, in the feature's unit.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct FeatureProfile {
    /// The feature's name.
    pub name: String,
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub standard_deviation: f64,
    /// The value at each of the profile's levels, not descending.
    pub quantiles: Vec<f64>,
    /// Digits after the point that real values have; `None` for as many as there are.
    #[serde(default)]
    pub decimals: Option<u32>,
}

impl Reference {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// [`ReferenceError`] when it cannot be read, parsed, or contradicts itself.
    pub fn read(path: &Path) -> Result<Reference, ReferenceError> {
        let bytes =
            std::fs::read(path).map_err(|source| ReferenceError::Unreadable { path: path.to_owned(), source })?;
        let reference: Reference =
            serde_json::from_slice(&bytes).map_err(|source| ReferenceError::Json { path: path.to_owned(), source })?;
        reference.validate()?;
        Ok(reference)
    }

    /// Checks that the numbers fit together, so that nobody who uses them has to.
    ///
    /// # Errors
    /// [`ReferenceError::Inconsistent`] with the first field that does not fit.
    pub fn validate(&self) -> Result<(), ReferenceError> {
        ensure(self.schema == SCHEMA, "schema", || format!("{} is not {SCHEMA}", self.schema))?;
        ensure(is_share(self.fraud_share), "fraud_share", || "must lie in 0..=1".to_owned())?;
        ensure(!self.features.is_empty(), "features", || "there are none".to_owned())?;
        for feature in &self.features {
            let place = format!("features[{}]", feature.name);
            ensure(is_share(feature.missing), &place, || "missing must lie in 0..=1".to_owned())?;
            feature.histogram.validate(&place, feature.missing)?;
        }
        self.score.validate("score", 0.0)?;
        self.profile.as_ref().map_or(Ok(()), Profile::validate)
    }
}

impl Histogram {
    /// `missing` may or may not be counted among the shares.
    fn validate(&self, place: &str, missing: f64) -> Result<(), ReferenceError> {
        ensure(self.shares.len() == self.cuts.len() + 1, place, || {
            format!(
                "{} cuts make {} bins, but there are {} shares",
                self.cuts.len(),
                self.cuts.len() + 1,
                self.shares.len()
            )
        })?;
        ensure(is_strictly_ascending(&self.cuts), place, || "cuts must be finite and ascend strictly".to_owned())?;
        ensure(self.shares.iter().all(|&share| is_share(share)), place, || "shares must lie in 0..=1".to_owned())?;
        let sum: f64 = self.shares.iter().sum();
        let fits = (sum - 1.0).abs() <= SHARE_TOLERANCE || (sum + missing - 1.0).abs() <= SHARE_TOLERANCE;
        ensure(fits, place, || format!("shares add up to {sum}, not to 1"))
    }
}

impl Profile {
    /// Names of the features, in the order of every component.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.components
            .iter()
            .take(1)
            .flat_map(|component| component.features.iter().map(|feature| feature.name.as_str()))
    }

    /// Checks that levels, quantiles and matrices fit together.
    ///
    /// # Errors
    /// [`ReferenceError::Inconsistent`] with the first field that does not fit.
    pub fn validate(&self) -> Result<(), ReferenceError> {
        let levels = &self.levels;
        let spans = is_strictly_ascending(levels) && levels.first() == Some(&0.0) && levels.last() == Some(&1.0);
        ensure(spans, "profile.levels", || "must ascend strictly from 0 to 1".to_owned())?;
        ensure(!self.components.is_empty(), "profile.components", || "there are none".to_owned())?;
        for component in &self.components {
            self.validate_component(component)?;
        }
        let sum: f64 = self.components.iter().map(|component| component.share).sum();
        ensure((sum - 1.0).abs() <= SHARE_TOLERANCE, "profile.components", || {
            format!("shares add up to {sum}, not to 1")
        })
    }

    fn validate_component(&self, component: &Component) -> Result<(), ReferenceError> {
        let place = format!("profile.components[label {}]", component.label);
        let count = component.features.len();
        ensure(is_share(component.share), &place, || "share must lie in 0..=1".to_owned())?;
        ensure(count > 0, &place, || "it has no features".to_owned())?;
        ensure(component.features.iter().map(|feature| feature.name.as_str()).eq(self.names()), &place, || {
            "features must be the same, in the same order, in every component".to_owned()
        })?;
        for feature in &component.features {
            let place = format!("{place}.features[{}]", feature.name);
            ensure(feature.quantiles.len() == self.levels.len(), &place, || {
                format!("{} quantiles for {} levels", feature.quantiles.len(), self.levels.len())
            })?;
            let sorted = feature.quantiles.is_sorted() && feature.quantiles.iter().all(|value| value.is_finite());
            ensure(sorted, &place, || "quantiles must be finite and not descend".to_owned())?;
            let moments = feature.mean.is_finite() && feature.standard_deviation >= 0.0;
            ensure(moments, &place, || "mean or standard_deviation is no number that can be".to_owned())?;
            ensure(feature.decimals.is_none_or(|decimals| decimals <= 15), &place, || {
                "decimals beyond 15 have no meaning for a double".to_owned()
            })?;
        }
        let square = component.covariance.len() == count && component.covariance.iter().all(|row| row.len() == count);
        ensure(square, &place, || format!("covariance must be {count} × {count}"))?;
        let cholesky = &component.correlation_cholesky;
        let triangular =
            cholesky.len() == count && cholesky.iter().enumerate().all(|(index, row)| row.len() == index + 1);
        ensure(triangular, &place, || format!("correlation_cholesky must be a lower triangle of {count} rows"))?;
        let finite = cholesky.iter().chain(&component.covariance).flatten().all(|value| value.is_finite());
        ensure(finite, &place, || "covariance and correlation_cholesky must be finite".to_owned())
    }
}

fn ensure(holds: bool, place: &str, reason: impl FnOnce() -> String) -> Result<(), ReferenceError> {
    if holds {
        return Ok(());
    }
    Err(ReferenceError::Inconsistent { place: place.to_owned(), reason: reason() })
}

fn is_share(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

fn is_strictly_ascending(values: &[f64]) -> bool {
    values.iter().all(|value| value.is_finite()) && values.windows(2).all(|pair| pair[0] < pair[1])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn small() -> Value {
        let feature = |name: &str| json!({"name": name, "mean": 0.0, "standard_deviation": 1.0, "quantiles": [-1.0, 0.0, 2.0], "decimals": 2});
        let component = |label: u32, share: f64| {
            json!({"label": label, "share": share, "features": [feature("V1"), feature("Amount")],
                   "covariance": [[1.0, 0.0], [0.0, 1.0]], "correlation_cholesky": [[1.0], [0.6, 0.8]], "new": 1})
        };
        json!({
            "schema": 1, "rows": 10, "weighted_rows": 12.5, "fraud_share": 0.1, "unknown": {"ignored": true},
            "features": [{"name": "V1", "cuts": [0.0, 1.0], "shares": [0.2, 0.3, 0.5], "missing": 0.0},
                         {"name": "Amount", "cuts": [], "shares": [0.9], "missing": 0.1}],
            "score": {"cuts": [0.5], "shares": [0.9, 0.1]},
            "profile": {"levels": [0.0, 0.5, 1.0], "components": [component(0, 0.9), component(1, 0.1)]}
        })
    }

    fn parse(value: Value) -> Result<Reference, ReferenceError> {
        let reference: Reference = serde_json::from_value(value).unwrap();
        reference.validate().map(|()| reference)
    }

    #[test]
    fn a_reference_with_unknown_fields_is_accepted_and_reads_back() {
        let reference = parse(small()).unwrap();
        assert_eq!(reference.profile.as_ref().unwrap().names().collect::<Vec<_>>(), ["V1", "Amount"]);
        let again: Reference = serde_json::from_slice(&serde_json::to_vec(&reference).unwrap()).unwrap();
        again.validate().unwrap();
        assert_eq!(again.features[0].histogram, reference.features[0].histogram);
    }

    #[test]
    fn the_profile_may_be_absent() {
        let mut value = small();
        value.as_object_mut().unwrap().remove("profile");
        assert!(parse(value).unwrap().profile.is_none());
    }

    #[test]
    fn every_contradiction_is_named() {
        let cases = [
            ("/schema", json!(2), "schema"),
            ("/fraud_share", json!(1.5), "fraud_share"),
            ("/features", json!([]), "features"),
            ("/features/0/shares", json!([0.5, 0.5]), "features[V1]"),
            ("/features/0/shares", json!([0.5, 0.5, 0.5]), "features[V1]"),
            ("/features/0/shares", json!([-0.5, 0.5, 1.0]), "features[V1]"),
            ("/features/0/cuts", json!([1.0, 1.0]), "features[V1]"),
            ("/features/1/missing", json!(-0.1), "features[Amount]"),
            ("/score/shares", json!([0.9, 0.2]), "score"),
            ("/profile/levels", json!([0.0, 0.5, 0.9]), "profile.levels"),
            ("/profile/levels", json!([0.0, 0.5, 0.7, 1.0]), "features[V1]"),
            ("/profile/components", json!([]), "profile.components"),
            ("/profile/components/0/share", json!(0.5), "profile.components"),
            ("/profile/components/1/features/0/name", json!("V2"), "label 1"),
            ("/profile/components/1/features/0/quantiles", json!([0.0, -1.0, 2.0]), "features[V1]"),
            ("/profile/components/1/features/1/decimals", json!(40), "features[Amount]"),
            ("/profile/components/0/features/1/standard_deviation", json!(-1.0), "features[Amount]"),
            ("/profile/components/0/covariance", json!([[1.0, 0.0]]), "label 0"),
            ("/profile/components/0/correlation_cholesky", json!([[1.0], [0.6]]), "label 0"),
        ];
        for (pointer, replacement, place) in cases {
            let mut value = small();
            *value.pointer_mut(pointer).unwrap() = replacement;
            let message = parse(value).unwrap_err().to_string();
            assert!(message.contains(place), "{pointer}: {message}");
        }
    }

    #[test]
    fn errors_of_reading_name_the_file() {
        let error = Reference::read(Path::new("/nowhere/reference.json")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/reference.json"), "{error}");
    }
}
