//! The console at `/`: one page that needs nothing from elsewhere, fed by `/v1/events`.
//!
//! Its script and style stand in the page and carry a nonce that is new with every answer; the content security policy
//! lets nothing else run, load or be asked. What comes from outside (ids, names) is only ever inserted as text.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

const PAGE: &str = include_str!("console.html");

/// Stands in a page where the nonce goes.
const NONCE: &str = "{{nonce}}";

/// `/`.
pub async fn page() -> Response {
    html(PAGE)
}

/// A page of ours with the headers that confine it.
pub(super) fn html(page: &str) -> Response {
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = page.replace(NONCE, &nonce).into_response();
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Made of ASCII above: it always is a header's value.
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_load_nothing_from_elsewhere_and_insert_only_text() {
        for page in [PAGE, include_str!("docs.html")] {
            for forbidden in [
                "http://",
                "https://",
                "src=",
                "@import",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                " style=\"",
                " onclick",
            ] {
                let found = page.replace("http://www.w3.org/2000/svg", "");
                assert!(!found.contains(forbidden), "{forbidden}");
            }
            assert_eq!(page.matches("<script").count(), page.matches("<script nonce=\"{{nonce}}\">").count());
            assert_eq!(page.matches("<style").count(), page.matches("<style nonce=\"{{nonce}}\">").count());
        }
    }

    #[test]
    fn every_answer_has_a_nonce_of_its_own() {
        let policies = [html(PAGE), html(PAGE)].map(|page| page.headers()[header::CONTENT_SECURITY_POLICY].clone());
        assert_ne!(policies[0], policies[1]);
    }
}
