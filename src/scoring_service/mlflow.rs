//! MLflow's scoring protocol (2.x and 3.x): a request's rows as messages of the pipeline's decoder. Pure.
//!
//! | field | what it may hold | becomes |
//! |---|---|---|
//! | `dataframe_split` | `{"columns":[…],"data":[[…]]}`, `index` is ignored | the split form as it is |
//! | `dataframe_records` | `[{"V1":…},…]` | one object a record |
//! | `instances` | records, or rows of numbers in the model's column order | objects, or the split form |
//! | `inputs` | the same, or columns `{"V1":[…],…}` | objects, or the split form |
//!
//! Exactly one of them must be there; other fields (`params`) are ignored, as MLflow's own server does for a model that
//! has no parameters.

use std::borrow::Cow;
use std::collections::BTreeMap;

use fraud_wire::dead_letter::{ErrorClass, Rejection};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::pipeline::decode::Feature;

/// Messages for the decoder.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    /// In the request's order.
    pub messages: Vec<Cow<'a, [u8]>>,
    /// The field that lists them, where each is a record of its own.
    pub list: Option<&'static str>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    dataframe_split: Option<&'a RawValue>,
    #[serde(borrow)]
    dataframe_records: Option<&'a RawValue>,
    #[serde(borrow)]
    instances: Option<&'a RawValue>,
    #[serde(borrow)]
    inputs: Option<&'a RawValue>,
}

/// Reads a request for a model of `features`.
pub(super) fn messages<'a>(body: &'a [u8], features: &[Feature]) -> Result<Messages<'a>, Rejection> {
    let fields = fields(body)?;
    let named = [
        ("dataframe_split", fields.dataframe_split),
        ("dataframe_records", fields.dataframe_records),
        ("instances", fields.instances),
        ("inputs", fields.inputs),
    ];
    let mut present = named.iter().filter_map(|&(name, value)| Some((name, value?.get())));
    let (Some((name, value)), None) = (present.next(), present.next()) else {
        return Err(Rejection::new(
            ErrorClass::UnknownSchema,
            "the body must hold exactly one of dataframe_split, dataframe_records, instances and inputs",
        ));
    };
    match (name, value.as_bytes().first()) {
        ("dataframe_split", _) => Ok(whole(format!("{{\"dataframe_split\":{value}}}"))),
        ("dataframe_records" | "instances" | "inputs", Some(b'[')) => rows(name, value, features),
        ("inputs", Some(b'{')) => columns(value),
        ("inputs", _) => Err(shape("inputs must be an array of rows or an object of columns")),
        (name, _) => Err(shape(format!("{name} must be an array"))),
    }
}

fn fields(body: &[u8]) -> Result<Fields<'_>, Rejection> {
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        // Valid JSON of another kind is another mistake than text that is no JSON.
        return Err(match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => Rejection::new(ErrorClass::UnknownSchema, "the body must be a JSON object"),
            Err(error) => malformed(&error),
        });
    }
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

/// Records, or rows of numbers.
fn rows<'a>(name: &'static str, value: &'a str, features: &[Feature]) -> Result<Messages<'a>, Rejection> {
    let elements: Vec<&'a RawValue> = serde_json::from_str(value).map_err(|error| malformed(&error))?;
    let Some(first) = elements.first() else { return Err(shape(format!("{name} has no rows"))) };
    match first.get().as_bytes().first() {
        Some(b'[') if name != "dataframe_records" => {
            let names: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
            let names = serde_json::Value::from(names);
            Ok(whole(format!("{{\"columns\":{names},\"data\":{value}}}")))
        }
        Some(b'{') => {
            if let Some(other) = elements.iter().position(|element| !element.get().starts_with('{')) {
                return Err(shape(format!("{name}[{other}] must be an object as those before it are")));
            }
            let messages = elements.iter().map(|element| element.get().as_bytes().into()).collect();
            Ok(Messages { messages, list: Some(name) })
        }
        _ if name == "dataframe_records" => Err(shape("dataframe_records[0] must be an object")),
        _ => Err(shape(format!("{name}[0] must be an object, or an array in the order of the model's features"))),
    }
}

/// Columns of equal length, or single values, turned into rows.
fn columns(value: &str) -> Result<Messages<'_>, Rejection> {
    let columns: BTreeMap<String, &RawValue> = serde_json::from_str(value).map_err(|error| malformed(&error))?;
    let mut cells: Vec<Vec<&RawValue>> = Vec::with_capacity(columns.len());
    for (name, column) in &columns {
        cells.push(if column.get().starts_with('[') {
            serde_json::from_str(column.get()).map_err(|error| malformed(&error))?
        } else {
            vec![*column]
        });
        let (first, this) = (cells[0].len(), cells[cells.len() - 1].len());
        if this != first {
            return Err(shape(format!("inputs.{name} has {this} values, the columns before it have {first}")));
        }
    }
    let names = serde_json::Value::from(columns.into_keys().collect::<Vec<_>>());
    let mut text = format!("{{\"columns\":{names},\"data\":[");
    for row in 0..cells.first().map_or(0, Vec::len) {
        text.push_str(if row == 0 { "[" } else { ",[" });
        for (index, column) in cells.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(column[row].get());
        }
        text.push(']');
    }
    text.push_str("]}");
    Ok(whole(text))
}

fn whole<'a>(message: String) -> Messages<'a> {
    Messages { messages: vec![message.into_bytes().into()], list: None }
}

fn shape(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorClass::WrongShape, message)
}

fn malformed(error: &serde_json::Error) -> Rejection {
    Rejection::new(ErrorClass::MalformedJson, error.to_string())
}
