//! `/openapi.json` and the page that shows it, `/docs`.
//!
//! What does not change is the file `openapi.json` beside this one, written by hand and held against the running edge by
//! tests/http/test_api.py. Added when asked for: the features of the model that serves, the size limit, and the
//! kinds of problems with their statuses.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use fraud_wire::dead_letter::ErrorClass;
use serde_json::{Map, Value, json};

use super::console::html;
use super::problem::{KINDS, TYPE_PREFIX, of_class};
use crate::log_events;
use crate::pipeline::decode::Feature;
use crate::scoring_service::{About, Scoring};

const TEMPLATE: &str = include_str!("openapi.json");
const PAGE: &str = include_str!("docs.html");

/// `/openapi.json`.
pub fn document(scoring: &Scoring) -> Response {
    match describe(scoring.about().as_deref(), scoring.max_request_bytes()) {
        Ok(document) => Json(document).into_response(),
        Err(error) => {
            log_events::http::ApiDescriptionBroken { error: &error }.log();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// `/docs`.
pub async fn page() -> Response {
    html(PAGE)
}

/// The description for a model and a size limit (bytes).
fn describe(about: Option<&About>, max_request_bytes: usize) -> serde_json::Result<Value> {
    let mut document: Value = serde_json::from_str(TEMPLATE)?;
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    let schemas = &mut document["components"]["schemas"];
    schemas["Problem"]["properties"]["type"]["enum"] =
        problems().map(|(name, ..)| format!("{TYPE_PREFIX}{name}")).collect::<Vec<_>>().into();
    document["x-problems"] = problems()
        .map(|(name, status, title)| json!({"name": name, "status": status.as_u16(), "title": title}))
        .collect();
    document["x-limits"] = json!({"max_request_bytes": max_request_bytes});
    if let Some(about) = about {
        add_model(&mut document, about);
    }
    Ok(document)
}

/// Every kind of problem, rejected transactions first.
fn problems() -> impl Iterator<Item = (&'static str, StatusCode, &'static str)> {
    let classes = ErrorClass::ALL.into_iter().map(|class| {
        let (status, title) = of_class(class);
        (class.as_str(), status, title)
    });
    classes.chain(KINDS)
}

fn add_model(document: &mut Value, about: &About) {
    let schemas = &mut document["components"]["schemas"];
    let required: Vec<&str> = required(&about.features).collect();
    let names: Vec<&str> = about.features.iter().map(|feature| feature.name.as_str()).collect();
    let number = || json!({"$ref": "#/components/schemas/Number"});
    for record in ["Transaction", "Record"] {
        let properties: Map<String, Value> = about
            .features
            .iter()
            .map(|feature| {
                let value = match feature.default {
                    Some(default) => json!({"anyOf": [number(), {"type": "null"}], "default": default}),
                    None => number(),
                };
                (feature.name.clone(), value)
            })
            .collect();
        if let Some(known) = schemas[record]["properties"].as_object_mut() {
            known.extend(properties);
        }
        schemas[record]["required"] = json!(required);
    }
    // One way to write the columns is described: the model's own. Others (any order, further names) are accepted too.
    schemas["Split"]["properties"]["columns"] = json!({"const": names});
    let row = json!({
        "type": "array", "minItems": names.len(), "maxItems": names.len(), "items": number()
    });
    schemas["Split"]["properties"]["data"]["items"] = row.clone();
    schemas["Row"] = row;
    if let Some(example) = about.examples.iter().find(|example| example.kind == "suspicious") {
        let transaction = Value::Object(example.transaction.clone());
        let example = |path: &str, value: Value| {
            (format!("/paths/~1{path}/post/requestBody/content/application~1json/example"), value)
        };
        for (pointer, value) in [
            example("v1~1score", transaction.clone()),
            example("invocations", json!({"dataframe_records": [transaction]})),
        ] {
            if let Some(place) = document.pointer_mut(&pointer) {
                *place = value;
            }
        }
    }
    document["x-model"] = json!({"name": about.name, "version": about.version, "sha256": about.sha256});
}

fn required(features: &[Feature]) -> impl Iterator<Item = &str> {
    features.iter().filter(|feature| feature.default.is_none()).map(|feature| feature.name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::decide::Thresholds;

    #[test]
    fn the_description_names_the_features_of_the_model() {
        let about = About {
            name: "fraud".into(),
            version: "3".into(),
            sha256: "a".into(),
            engine: "simd".into(),
            thresholds: Thresholds::new(0.1, 0.9).expect("valid"),
            features: vec![
                Feature { name: "V1".into(), default: None },
                Feature { name: "Amount".into(), default: Some(0.0) },
            ],
            examples: Vec::new(),
            reasons: None,
        };
        let document = describe(Some(&about), 77).expect("JSON");
        let transaction = &document["components"]["schemas"]["Transaction"];
        assert_eq!(transaction["required"], json!(["V1"]));
        assert!(transaction["properties"]["Amount"].is_object() && transaction["properties"]["event_time"].is_object());
        assert_eq!(
            document["components"]["schemas"]["Split"]["properties"]["columns"]["const"],
            json!(["V1", "Amount"])
        );
        assert_eq!(document["x-limits"]["max_request_bytes"], 77);
    }

    #[test]
    fn every_problem_is_among_the_answers_of_the_paths_that_give_it() {
        let document = describe(None, 1).expect("JSON");
        let anywhere = ["not-found", "method-not-allowed", "internal"];
        let of_admin = ["forbidden", "no-previous-model", "model-refused"];
        let lists = |path: &str, status: StatusCode| {
            document["paths"][path]["post"]["responses"][status.as_u16().to_string()].is_object()
        };
        for (name, status, _) in problems().filter(|(name, ..)| !anywhere.contains(name)) {
            if of_admin.contains(&name) {
                assert!(
                    ["/admin/rollback", "/admin/reload"].iter().any(|path| lists(path, status)),
                    "{name}: {status}"
                );
            } else {
                assert!(["/v1/score", "/invocations"].iter().all(|path| lists(path, status)), "{name}: {status}");
            }
        }
    }
}
