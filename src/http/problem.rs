//! Errors as problem details (RFC 9457): every refusal of the edge has this form, whoever refuses.
//!
//! `type` is a URN whose last part is stable and made for programs; `detail` is for people and names the field and the
//! fix. A rejected transaction has the class its dead letter would have.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use fraud_wire::dead_letter::{ErrorClass, Rejection};

/// Before the name of a problem.
pub const TYPE_PREFIX: &str = "urn:fraud-scorer:problem:";

/// When to come back after an overload, seconds: what waits is worked off in far less.
const RETRY_SOON: u32 = 1;

/// Why a request has no other answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    kind: &'static str,
    title: &'static str,
    status: StatusCode,
    detail: String,
    /// Seconds.
    retry_after: Option<u32>,
}

/// A kind of problem, as the API description lists it: name, status, title.
pub type Kind = (&'static str, StatusCode, &'static str);

/// Every kind that is not a class of rejected transactions.
pub const KINDS: [Kind; 14] = [
    ("not-found", StatusCode::NOT_FOUND, "No such path"),
    ("method-not-allowed", StatusCode::METHOD_NOT_ALLOWED, "The path has other methods"),
    ("unsupported-media-type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body is of another type"),
    ("foreign-origin", StatusCode::FORBIDDEN, "Another site's page may not ask"),
    ("slow-request", StatusCode::REQUEST_TIMEOUT, "The body took too long to arrive"),
    ("unreadable-body", StatusCode::BAD_REQUEST, "The body broke off"),
    ("not-ready", StatusCode::SERVICE_UNAVAILABLE, "There is no model yet"),
    ("overloaded", StatusCode::SERVICE_UNAVAILABLE, "Too many requests wait"),
    ("time-limit", StatusCode::SERVICE_UNAVAILABLE, "Scoring took too long"),
    ("unauthorized", StatusCode::UNAUTHORIZED, "Credentials are missing or unknown"),
    ("forbidden", StatusCode::FORBIDDEN, "Not for everyone"),
    ("no-previous-model", StatusCode::CONFLICT, "There is no model to go back to"),
    ("model-refused", StatusCode::UNPROCESSABLE_ENTITY, "The bundle did not pass a gate"),
    ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
];

impl Problem {
    fn of(name: &'static str, detail: impl Into<String>) -> Problem {
        // The name is one of the list's: the test below asks for all of them.
        let found = KINDS.iter().find(|(kind, ..)| *kind == name).copied();
        let (kind, status, title) = found.unwrap_or((name, StatusCode::INTERNAL_SERVER_ERROR, "Internal error"));
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_SOON);
        Problem { kind, title, status, detail: detail.into(), retry_after }
    }

    /// No route has the path.
    pub fn not_found(path: &str) -> Problem {
        let shown: String = path.chars().take(200).collect();
        Problem::of("not-found", format!("nothing is at {shown}; /docs lists what there is"))
    }

    /// The path's routes have other methods; the header `allow` lists them.
    pub fn method_not_allowed(method: &str) -> Problem {
        let shown: String = method.chars().take(40).collect();
        Problem::of("method-not-allowed", format!("{shown} is not among the methods that header allow lists"))
    }

    /// Not JSON by its headers.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Problem {
        Problem::of("unsupported-media-type", detail)
    }

    /// Asked by a page that is not ours.
    pub fn foreign_origin(detail: impl Into<String>) -> Problem {
        Problem::of("foreign-origin", detail)
    }

    /// The body did not arrive in time.
    pub fn slow_request(seconds: u64) -> Problem {
        Problem::of("slow-request", format!("the body did not arrive within {seconds} s"))
    }

    /// The body broke off.
    pub fn unreadable_body(detail: impl Into<String>) -> Problem {
        Problem::of("unreadable-body", detail)
    }

    /// No model is loaded yet.
    pub fn not_ready(detail: impl Into<String>) -> Problem {
        Problem::of("not-ready", detail)
    }

    /// More is asked than can be done.
    pub fn overloaded(detail: impl Into<String>) -> Problem {
        Problem::of("overloaded", detail)
    }

    /// The answer did not come in time.
    pub fn time_limit(seconds: u64) -> Problem {
        Problem::of("time-limit", format!("there were no scores within {seconds} s"))
    }

    /// A body over the limit, whether its length was announced or not.
    pub fn too_large(limit: usize) -> Problem {
        let detail = format!("the body has more than {limit} bytes; split it, or raise --max-message-bytes");
        Problem::from(Rejection::new(ErrorClass::TooLarge, detail))
    }

    /// Without credentials that are known; the detail says how to show some.
    pub fn unauthorized(how: &str) -> Problem {
        Problem::of("unauthorized", how)
    }

    /// Only for those who show that they may; the detail says how.
    pub fn forbidden(how: &str) -> Problem {
        Problem::of("forbidden", how)
    }

    /// A rollback without anything to go back to.
    pub fn no_previous_model(detail: impl Into<String>) -> Problem {
        Problem::of("no-previous-model", detail)
    }

    /// A bundle that did not pass a gate; the detail names it.
    pub fn model_refused(detail: impl Into<String>) -> Problem {
        Problem::of("model-refused", detail)
    }

    /// A fault of ours.
    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::of("internal", detail)
    }

    /// What it says to people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

/// Status and title of a rejected transaction.
pub fn of_class(class: ErrorClass) -> (StatusCode, &'static str) {
    match class {
        ErrorClass::MalformedJson => (StatusCode::BAD_REQUEST, "The body is not JSON"),
        ErrorClass::MissingFeature => (StatusCode::UNPROCESSABLE_ENTITY, "A required feature is missing"),
        ErrorClass::NotANumber => (StatusCode::UNPROCESSABLE_ENTITY, "A feature is not a number"),
        ErrorClass::WrongShape => (StatusCode::UNPROCESSABLE_ENTITY, "Rows and columns do not fit each other"),
        ErrorClass::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "The body is too large"),
        ErrorClass::UnknownSchema => (StatusCode::UNPROCESSABLE_ENTITY, "The body has an unknown form"),
        ErrorClass::InvalidEventTime => (StatusCode::UNPROCESSABLE_ENTITY, "event_time is not a time"),
        ErrorClass::InvalidScore => (StatusCode::INTERNAL_SERVER_ERROR, "The model failed"),
        ErrorClass::Undeliverable => (StatusCode::INTERNAL_SERVER_ERROR, "The answer cannot be delivered"),
    }
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Problem {
        let (status, title) = of_class(rejection.class);
        Problem { kind: rejection.class.as_str(), title, status, detail: rejection.message, retry_after: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": format!("{TYPE_PREFIX}{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            // A browser asks its user for a name and a password, which is the token.
            headers.append(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"fraud-scorer\""));
            let basic = HeaderValue::from_static("Basic realm=\"fraud-scorer\", charset=\"UTF-8\"");
            headers.append(header::WWW_AUTHENTICATE, basic);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_of_a_listed_kind() {
        for problem in [
            Problem::not_found("/x"),
            Problem::method_not_allowed("PUT"),
            Problem::unsupported_media_type(""),
            Problem::foreign_origin(""),
            Problem::slow_request(1),
            Problem::unreadable_body(""),
            Problem::not_ready(""),
            Problem::overloaded(""),
            Problem::time_limit(1),
            Problem::unauthorized(""),
        ] {
            assert_ne!(problem.status, StatusCode::INTERNAL_SERVER_ERROR, "{problem:?}");
            assert_eq!(problem.retry_after.is_some(), problem.status == StatusCode::SERVICE_UNAVAILABLE);
        }
    }
}
