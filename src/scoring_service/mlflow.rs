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

use fraud_wire::dead_letter::{ErrorClass, Rejection};

use crate::pipeline::decode::Feature;
use crate::pipeline::json::{Kind, Reader, SyntaxError};

/// Messages for the decoder.
#[derive(Debug)]
pub(super) struct Messages<'a> {
    /// In the request's order.
    pub messages: Vec<Cow<'a, [u8]>>,
    /// The field that lists them, where each is a record of its own.
    pub list: Option<&'static str>,
}

/// The fields that hold rows.
const FIELDS: [&str; 4] = ["dataframe_split", "dataframe_records", "instances", "inputs"];

/// Reads a request for a model of `features`, whose rows may have `most_bytes` of them. What is no number where one belongs
/// is left to the decoder, which names the feature.
pub(super) fn messages<'a>(body: &'a [u8], features: &[Feature], most_bytes: usize) -> Result<Messages<'a>, Rejection> {
    let values = fields(body)?;
    let mut present = FIELDS.iter().zip(values).filter_map(|(&name, value)| Some((name, value?)));
    let (Some((name, value)), None) = (present.next(), present.next()) else {
        return Err(Rejection::new(
            ErrorClass::UnknownSchema,
            "the body must hold exactly one of dataframe_split, dataframe_records, instances and inputs",
        ));
    };
    match (name, value[0]) {
        ("dataframe_split", _) => Ok(whole([b"{\"dataframe_split\":", value, b"}"].concat())),
        ("dataframe_records" | "instances" | "inputs", b'[') => rows(name, value, features, most_bytes),
        ("inputs", b'{') => columns(value),
        ("inputs", _) => Err(shape("inputs must be an array of rows or an object of columns")),
        (name, _) => Err(shape(format!("{name} must be an array"))),
    }
}

/// The values of the fields that are there and not null.
fn fields(body: &[u8]) -> Result<[Option<&[u8]>; FIELDS.len()], Rejection> {
    let mut reader = Reader::new(body);
    if reader.kind() != Kind::Object {
        // Valid JSON of another kind is another mistake than text that is no JSON.
        reader.skip(0).and_then(|()| reader.end()).map_err(malformed)?;
        return Err(Rejection::new(ErrorClass::UnknownSchema, "the body must be a JSON object"));
    }
    let mut values = [None; FIELDS.len()];
    for (name, value) in members(&mut reader, 1)? {
        let Some(field) = FIELDS.iter().position(|field| *field == name) else { continue };
        if values[field].replace(value).is_some() {
            return Err(Rejection::new(ErrorClass::MalformedJson, format!("the key {name} appears twice")));
        }
    }
    reader.end().map_err(malformed)?;
    Ok(values.map(|value| value.filter(|value| *value != b"null")))
}

/// A key and its value.
type Member<'a> = (Cow<'a, str>, &'a [u8]);

/// The members of an object, in order.
fn members<'a>(reader: &mut Reader<'a>, depth: u32) -> Result<Vec<Member<'a>>, Rejection> {
    reader.eat(b'{');
    let mut members = Vec::new();
    while let Some(key) = reader.key(members.is_empty()).map_err(malformed)? {
        let half = || Rejection::new(ErrorClass::MalformedJson, "text holds half a surrogate pair");
        members.push((key.unescape().ok_or_else(half)?, value(reader, depth)?));
    }
    Ok(members)
}

/// The elements of an array.
fn elements(array: &[u8]) -> Result<Vec<&[u8]>, Rejection> {
    let mut reader = Reader::new(array);
    reader.eat(b'[');
    let mut elements = Vec::new();
    while reader.element(elements.is_empty()).map_err(malformed)? {
        elements.push(value(&mut reader, 2)?);
    }
    Ok(elements)
}

/// The text of the value that stands next.
fn value<'a>(reader: &mut Reader<'a>, depth: u32) -> Result<&'a [u8], Rejection> {
    reader.space();
    let start = reader.position();
    reader.skip_loosely(depth).map_err(malformed)?;
    Ok(reader.since(start))
}

/// Records, or rows of numbers.
fn rows<'a>(
    name: &'static str,
    value: &'a [u8],
    features: &[Feature],
    most_bytes: usize,
) -> Result<Messages<'a>, Rejection> {
    let elements = elements(value)?;
    let Some(first) = elements.first() else { return Err(shape(format!("{name} has no rows"))) };
    match first[0] {
        b'[' if name != "dataframe_records" => {
            let names: Vec<&str> = features.iter().map(|feature| feature.name.as_str()).collect();
            Ok(whole([format!("{{\"columns\":{},\"data\":", quoted(names)).as_bytes(), value, b"}"].concat()))
        }
        b'{' => {
            // As one message may, they become no more than so much.
            if elements.len() * features.len() * size_of::<f32>() > most_bytes {
                let message =
                    format!("{name} has rows of more than {most_bytes} bytes of features: send them in parts");
                return Err(Rejection::new(ErrorClass::TooLarge, message));
            }
            if let Some(other) = elements.iter().position(|element| element[0] != b'{') {
                return Err(shape(format!("{name}[{other}] must be an object as those before it are")));
            }
            Ok(Messages { messages: elements.into_iter().map(Cow::from).collect(), list: Some(name) })
        }
        _ if name == "dataframe_records" => Err(shape("dataframe_records[0] must be an object")),
        _ => Err(shape(format!("{name}[0] must be an object, or an array in the order of the model's features"))),
    }
}

/// Columns of equal length, or single values, turned into rows.
fn columns(value: &[u8]) -> Result<Messages<'_>, Rejection> {
    let columns = members(&mut Reader::new(value), 2)?;
    let mut cells: Vec<Vec<&[u8]>> = Vec::with_capacity(columns.len());
    for (name, column) in &columns {
        cells.push(if column[0] == b'[' { elements(column)? } else { vec![*column] });
        let (first, this) = (cells[0].len(), cells[cells.len() - 1].len());
        if this != first {
            return Err(shape(format!("inputs.{name} has {this} values, the columns before it have {first}")));
        }
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_ref()).collect();
    let mut text = format!("{{\"columns\":{},\"data\":[", quoted(names)).into_bytes();
    for row in 0..cells.first().map_or(0, Vec::len) {
        text.extend_from_slice(if row == 0 { b"[" } else { b",[" });
        for (index, column) in cells.iter().enumerate() {
            if index > 0 {
                text.push(b',');
            }
            text.extend_from_slice(column[row]);
        }
        text.push(b']');
    }
    text.extend_from_slice(b"]}");
    Ok(whole(text))
}

fn quoted(names: Vec<&str>) -> serde_json::Value {
    serde_json::Value::from(names)
}

fn whole<'a>(message: Vec<u8>) -> Messages<'a> {
    Messages { messages: vec![message.into()], list: None }
}

fn shape(message: impl Into<String>) -> Rejection {
    Rejection::new(ErrorClass::WrongShape, message)
}

fn malformed(SyntaxError { at, what }: SyntaxError) -> Rejection {
    Rejection::new(ErrorClass::MalformedJson, format!("{what} at byte {at}"))
}
