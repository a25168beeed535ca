//! `/v1/score` and `/invocations`: a request's body to the scoring service, its answer back, within bounds.
//!
//! ```text
//!  headers ─► media type, size ─► body within the time limit ─► scoring service ─► answer, read in time
//!                │                     │                          │                  │
//!                415, 413              408, 413, 503              4xx, 503           503, cut off   (problem+json)
//! ```
//!
//! The bytes of all bodies and answers in flight are bounded ([`in_flight`]). What is over the bound is refused at once and
//! told when to come back, so an overload costs those who cause it and neither memory nor the scoring of topics.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use fraud_wire::trace_context::{self, TRACEPARENT_HEADER, TRACESTATE_HEADER, TraceContext};

use super::in_flight::{self, Answer, Budget};
use super::problem::Problem;
use crate::scoring_service::{Protocol, Scoring, Unscored};
use crate::telemetry::requests::{self, Path};
use crate::telemetry::spans::{self, Tracer};

/// How long a body may take to arrive, and then its scores.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// Header of an answer that tells whoever traces the request which span of ours belongs to it (a W3C draft, beside Trace
/// Context): only where there is one.
const TRACERESPONSE: &str = "traceresponse";

/// Admits requests to the scoring service.
#[derive(Clone)]
pub struct Gate {
    scoring: Scoring,
    budget: Budget,
    tracer: Option<Arc<Mutex<Tracer>>>,
}

impl Gate {
    /// A gate before `scoring`.
    pub fn new(scoring: Scoring) -> Gate {
        Gate {
            budget: Budget::new(scoring.most_answer_bytes()),
            scoring,
            tracer: Tracer::new().map(|tracer| Arc::new(Mutex::new(tracer))),
        }
    }

    /// The service behind it.
    pub fn scoring(&self) -> &Scoring {
        &self.scoring
    }

    /// Answers a request of either protocol.
    pub async fn answer(&self, protocol: Protocol, request: Request) -> Response {
        let (began, began_at) = (Instant::now(), SystemTime::now());
        let span = self.begin_span(request.headers());
        let mut response = match self.scores(protocol, request).await {
            Ok(answer) => {
                let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
                (json, Body::new(answer)).into_response()
            }
            Err(problem) => problem.into_response(),
        };
        let (path, name) = match protocol {
            Protocol::Verdict => (Path::Score, "/v1/score"),
            Protocol::Mlflow => (Path::Invocations, "/invocations"),
        };
        let status = response.status().as_u16();
        requests::answered(path, status, began.elapsed());
        if let Some(span) = span {
            if let Ok(header) = HeaderValue::from_bytes(&span.parent.sent_by(span.id)) {
                response.headers_mut().insert(TRACERESPONSE, header);
            }
            spans::answered(span, name, status, began_at);
        }
        response
    }

    /// A span of this request, where its sender traces it and spans go anywhere.
    fn begin_span(&self, headers: &HeaderMap) -> Option<spans::Place> {
        let tracer = self.tracer.as_ref()?;
        let mut named = headers.get_all(TRACEPARENT_HEADER).iter();
        let context = TraceContext::parse(named.next()?.as_bytes())?;
        if named.next().is_some() {
            // Two parents are none.
            return None;
        }
        // Several lines of a header are one list.
        let lines: Vec<&[u8]> = headers.get_all(TRACESTATE_HEADER).iter().map(HeaderValue::as_bytes).collect();
        let state = lines.join(&b',');
        let state = trace_context::tracestate(&state);
        tracer.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).begin(&context, state, 1)
    }

    async fn scores(&self, protocol: Protocol, request: Request) -> Result<Answer, Problem> {
        check_media_type(request.headers())?;
        let limit = self.scoring.max_request_bytes();
        if announced_length(request.headers()).is_some_and(|bytes| bytes > limit) {
            return Err(Problem::too_large(limit));
        }
        let mut held = self.budget.hold();
        let body = tokio::time::timeout(TIME_LIMIT, in_flight::read(request.into_body(), limit, &mut held)).await;
        let body = body.map_err(|_| Problem::slow_request(TIME_LIMIT.as_secs()))??;
        let json = match tokio::time::timeout(TIME_LIMIT, self.scoring.score(protocol, body)).await {
            Ok(Ok(json)) => json,
            Ok(Err(Unscored::Rejected(rejection))) => return Err(rejection.into()),
            Ok(Err(unready @ (Unscored::NotReady | Unscored::Ended))) => {
                return Err(Problem::not_ready(unready.to_string()));
            }
            Ok(Err(full @ Unscored::Overloaded)) => return Err(Problem::overloaded(full.to_string())),
            Err(_) => return Err(Problem::time_limit(TIME_LIMIT.as_secs())),
        };
        held.grow(json.len())?;
        Ok(Answer::new(json, held))
    }
}

fn announced_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Only JSON in UTF-8, uncompressed. That it must be said also keeps HTML forms of other sites out: they cannot say it.
fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("unreadable"));
    let Some(media_type) = text(header::CONTENT_TYPE) else {
        return Err(Problem::unsupported_media_type("header content-type is missing: send application/json"));
    };
    let mut parts = media_type.split(';').map(str::trim);
    let is_json = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/json"));
    let parameter = parts.find(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        !(name.eq_ignore_ascii_case("charset") && value.trim_matches('"').eq_ignore_ascii_case("utf-8"))
    });
    if !is_json || parameter.is_some() {
        let detail = format!("content-type is {media_type:?}: send application/json, in UTF-8");
        return Err(Problem::unsupported_media_type(detail));
    }
    match text(header::CONTENT_ENCODING) {
        None | Some("identity") => Ok(()),
        Some(other) => {
            Err(Problem::unsupported_media_type(format!("content-encoding is {other:?}: send the body uncompressed")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(headers: &[(&'static str, &str)]) -> bool {
        let headers =
            headers.iter().map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value")));
        check_media_type(&headers.collect()).is_ok()
    }

    #[test]
    fn only_plain_json_is_read() {
        assert!(accepted(&[("content-type", "application/json")]));
        assert!(accepted(&[("content-type", "Application/JSON; charset=UTF-8")]));
        for headers in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "application/json; charset=latin-1")],
            &[("content-type", "application/json; boundary=x")],
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ] {
            assert!(!accepted(headers), "{headers:?}");
        }
    }
}
