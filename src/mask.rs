//! What `--mask` hides: fields of a transaction that those who look at the worker must not see.
//!
//! ```text
//!  --mask transaction_id,V1 ─► Mask ─┬► the console's verdicts (http/suspicious.rs): "masked" in place of the value
//!                                    └► examples in the console and the API's description (scoring_service): left out
//! ```
//!
//! Pure. Masking is for what people look at. Topics, the archive and answers to those who sent a transaction are data
//! and hold everything. The log and spans need no mask: they name fields and places, and never hold a field's value.

/// What stands in place of a hidden value.
pub const MASKED: &str = "masked";

/// The id of a transaction.
pub const TRANSACTION_ID: &str = "transaction_id";

/// Fields that may be hidden whatever the model: the id, and the record's key.
const ALWAYS: [&str; 2] = [TRANSACTION_ID, "key"];

/// The hidden fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mask {
    fields: Vec<String>,
    hides_amount: bool,
}

/// A field that is neither an id nor a feature.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--mask names {name}, which the model does not have: it may name {possible}")]
pub struct UnknownField {
    name: String,
    possible: String,
}

impl Mask {
    /// Hides these fields; `amount_feature` is the feature that the console shows as the amount.
    pub fn new(fields: Vec<String>, amount_feature: &str) -> Mask {
        let hides_amount = fields.iter().any(|field| field == amount_feature);
        Mask { fields, hides_amount }
    }

    /// Whether the field of this name is hidden.
    pub fn hides(&self, field: &str) -> bool {
        self.fields.iter().any(|hidden| hidden == field)
    }

    /// Whether the amount at stake is.
    pub fn hides_amount(&self) -> bool {
        self.hides_amount
    }

    /// Checks the names against the features of the model that serves first. A later model may lack some of them.
    ///
    /// # Errors
    /// The first name that is neither an id nor one of `features`: most likely misspelt, so that its field would show.
    pub fn check<'a>(&self, features: impl Iterator<Item = &'a str> + Clone) -> Result<(), UnknownField> {
        let possible = ALWAYS.into_iter().chain(features);
        match self.fields.iter().find(|field| !possible.clone().any(|name| name == *field)) {
            None => Ok(()),
            Some(name) => {
                let possible = possible.collect::<Vec<_>>().join(", ");
                Err(UnknownField { name: name.clone(), possible })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(fields: &[&str]) -> Mask {
        Mask::new(fields.iter().map(|field| (*field).to_owned()).collect(), "Amount")
    }

    #[test]
    fn what_is_named_is_hidden_and_nothing_else() {
        let some = mask(&["transaction_id", "V1"]);
        assert!(some.hides("transaction_id") && some.hides("V1"));
        assert!(!some.hides("V2") && !some.hides("v1") && !some.hides_amount());
        assert!(mask(&["Amount"]).hides_amount() && !Mask::default().hides("transaction_id"));
    }

    #[test]
    fn a_name_that_is_neither_an_id_nor_a_feature_is_refused_with_what_is_possible() {
        let features = ["V1", "Amount"].into_iter();
        assert_eq!(mask(&["key", "transaction_id", "Amount"]).check(features.clone()), Ok(()));
        let error = mask(&["V1", "amount"]).check(features).expect_err("misspelt").to_string();
        assert!(error.contains("--mask names amount") && error.ends_with("transaction_id, key, V1, Amount"), "{error}");
    }
}
