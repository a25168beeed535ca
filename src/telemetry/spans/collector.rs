//! The collector: OTLP over HTTP with OpenTelemetry's own messages (protobuf), and its own environment variables.
//!
//! A request is sent once, within a time limit, without redirects (they could carry a token to another host). The answer
//! says how many spans were rejected; no more of it is read than that needs.

use std::fmt::Write as _;
use std::time::Duration;

use opentelemetry::Key;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanData;
use percent_encoding::percent_decode_str;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, Url};

use super::export::ExportError;
use crate::http_client;

/// How long a request may take, unless a variable says otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read.
const MOST_ANSWER_BYTES: usize = 64 << 10;

/// What the service is called, unless a variable says otherwise.
const SERVICE: &str = "fraud-scorer";

/// Spans of a request that the collector took and yet not all of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rejected {
    /// How many.
    pub(super) count: u64,
    /// Why, in the collector's words.
    pub(super) reason: String,
}

/// Where spans are sent to.
pub(super) struct Collector {
    client: Client,
    endpoint: Url,
    headers: HeaderMap,
    resource: ResourceAttributesWithSchema,
}

impl Collector {
    /// The one at `endpoint`. `variable` looks an environment variable up.
    ///
    /// # Errors
    /// A variable that says nothing usable, by its name and never with its value, which may be a secret.
    pub(super) fn new(endpoint: Url, variable: impl Fn(&str) -> Option<String>) -> Result<Collector, ExportError> {
        let (time_limit, headers) = (time_limit(&variable)?, headers(&variable)?);
        let builder = match either(&variable, "CERTIFICATE") {
            None => http_client::builder(None),
            Some((name, path)) => std::fs::read(path)
                .map_err(|error| error.to_string())
                .and_then(|pem| http_client::builder(Some(&pem)))
                .map_err(|error| format!("{name}: {error}")),
        };
        let client = builder.map_err(ExportError::Variable)?.timeout(time_limit).build()?;
        let resource = ResourceAttributesWithSchema::from(&resource());
        Ok(Collector { client, endpoint, headers, resource })
    }

    /// The address for people: without a query, which may hold a token.
    pub(super) fn address(&self) -> String {
        let mut shown = self.endpoint.clone();
        shown.set_query(None);
        shown.to_string()
    }

    /// Sends spans; what the collector rejected of them. The error says why it took none.
    pub(super) async fn take(&self, spans: Vec<SpanData>) -> Result<Rejected, String> {
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, &self.resource) };
        let sent = self
            .client
            .post(self.endpoint.clone())
            .headers(self.headers.clone())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(request.encode_to_vec())
            .send();
        let response = sent.await.map_err(in_words)?;
        match response.status().as_u16() {
            200..=299 => Ok(rejected(response).await),
            status @ (401 | 403) => Err(format!("it answers {status}: a token belongs in OTEL_EXPORTER_OTLP_HEADERS")),
            status @ (404 | 405) => Err(format!("it answers {status}: is this an address for OTLP over HTTP?")),
            status => Err(format!("it answers {status}")),
        }
    }
}

/// What an answer says of spans that were not taken. An answer that says nothing readable rejects none.
async fn rejected(mut response: Response) -> Rejected {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > MOST_ANSWER_BYTES {
            return Rejected::default();
        }
        body.extend_from_slice(&chunk);
    }
    let answer = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
    let partial = answer.partial_success.unwrap_or_default();
    Rejected { count: u64::try_from(partial.rejected_spans).unwrap_or(0), reason: partial.error_message }
}

/// A client's error with its causes, without the address.
fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

/// The variable for traces, else the one for everything; with its name.
fn either(variable: &impl Fn(&str) -> Option<String>, what: &str) -> Option<(String, String)> {
    [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")].into_iter().find_map(|name| {
        let value = variable(&name)?.trim().to_owned();
        (!value.is_empty()).then_some((name, value))
    })
}

fn time_limit(variable: &impl Fn(&str) -> Option<String>) -> Result<Duration, ExportError> {
    let Some((name, value)) = either(variable, "TIMEOUT") else { return Ok(TIME_LIMIT) };
    match value.parse() {
        Ok(milliseconds @ 1..=600_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(ExportError::Variable(format!("{name} is {value:?}: expected milliseconds, 1 to 600000"))),
    }
}

/// `name=value,name=value`, percent-encoded.
fn headers(variable: &impl Fn(&str) -> Option<String>) -> Result<HeaderMap, ExportError> {
    let mut headers = HeaderMap::new();
    let Some((variable, list)) = either(variable, "HEADERS") else { return Ok(headers) };
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let header = entry.split_once('=').and_then(|(name, value)| {
            let decoded: Vec<u8> = percent_decode_str(value.trim()).collect();
            let mut value = HeaderValue::from_bytes(&decoded).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
        });
        let (name, value) = header.ok_or_else(|| {
            ExportError::Variable(format!(
                "{variable}: expected name=value, separated by commas, values percent-encoded"
            ))
        })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// What OpenTelemetry's variables say of this service.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let name = told.get(&Key::from_static_str("service.name")).map(|value| value.to_string());
    if name.is_some_and(|name| !name.starts_with("unknown_service")) {
        return told;
    }
    Resource::builder().with_service_name(SERVICE).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables<'a>(known: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| known.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn headers_are_read_from_their_variable() {
        let (all, traces) = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS");
        let read = |known: &[(&str, &str)]| headers(&variables(known)).map_err(|error| error.to_string());
        let found = read(&[(all, "Authorization=Bearer%20a%3Db%2C, x-tenant = one ,")]).expect("valid");
        assert_eq!(
            (found["authorization"].as_bytes(), found["x-tenant"].as_bytes()),
            (&b"Bearer a=b,"[..], &b"one"[..])
        );
        assert!(found["authorization"].is_sensitive());
        let found = read(&[(all, "a=1"), (traces, "b=2")]).expect("valid");
        assert!(found.get("a").is_none() && found["b"] == "2", "the one for traces decides");
        assert!(read(&[]).expect("none").is_empty());
        for wrong in ["hush", "na me=hush", "a=hush%0A"] {
            let error = read(&[(all, wrong)]).expect_err(wrong);
            assert!(error.contains(all) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn the_time_limit_is_in_milliseconds() {
        let name = "OTEL_EXPORTER_OTLP_TIMEOUT";
        let read = |value| time_limit(&variables(&[(name, value)])).map_err(|error| error.to_string());
        assert_eq!(read("1500"), Ok(Duration::from_millis(1500)));
        assert_eq!(read(""), Ok(TIME_LIMIT));
        for wrong in ["0", "10s", "-1", "600001"] {
            assert!(read(wrong).expect_err(wrong).contains(name));
        }
    }

    #[test]
    fn the_address_is_shown_without_what_may_be_a_secret() {
        let endpoint = Url::parse("https://collector:4318/v1/traces?token=hush").expect("an address");
        let collector = Collector::new(endpoint, |_| None).expect("a collector");
        assert_eq!(collector.address(), "https://collector:4318/v1/traces");
    }

    #[test]
    fn an_unreadable_certificate_is_told_by_its_variable() {
        let endpoint = Url::parse("https://collector:4318/v1/traces").expect("an address");
        let known = [("OTEL_EXPORTER_OTLP_CERTIFICATE", "/not/there")];
        let error = Collector::new(endpoint, variables(&known)).err().expect("refused").to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_CERTIFICATE"), "{error}");
    }
}
