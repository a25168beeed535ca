//! Who may ask: keeps the pages of other sites away from an edge that needs no password. Pure.
//!
//! The edge listens on loopback unless told otherwise, and every program of the host may ask it. A browser of that host
//! also runs the pages of strangers. They are told apart by what browsers say and pages cannot change: `Origin` and
//! `Sec-Fetch-Site` give another site away, and on a loopback listener a `Host` that is no loopback name gives away a
//! stranger's name that was made to point here (DNS rebinding). There are no CORS headers at all.

use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method};

use super::problem::Problem;
use crate::http_client;

/// Why a request is refused, if it is. `loopback`: the edge listens on a loopback address.
pub fn refusal(method: &Method, headers: &HeaderMap, loopback: bool) -> Option<Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    let host = text(HOST.as_str());
    if loopback && let Some(host) = host.filter(|host| !is_loopback(host)) {
        return Some(Problem::foreign_origin(format!(
            "host is {host:?}, but this address is only for its own machine: ask for 127.0.0.1 or localhost (a proxy \
             must send that as host), or listen elsewhere with --http"
        )));
    }
    if let Some(origin) = text(ORIGIN.as_str()) {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        if authority.is_none() || authority != host {
            return Some(Problem::foreign_origin(format!("the page that asks is of {origin:?}, not of this address")));
        }
    }
    // A link from elsewhere may open a page; nothing else may come from elsewhere.
    let navigates = *method == Method::GET && text("sec-fetch-mode") == Some("navigate");
    match text("sec-fetch-site") {
        Some("cross-site" | "same-site") if !navigates => {
            Some(Problem::foreign_origin("the page that asks is another site's"))
        }
        _ => None,
    }
}

/// Whether a `Host` names the machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    http_client::is_loopback(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: Method, headers: &[(&'static str, &str)], loopback: bool) -> bool {
        let headers =
            headers.iter().map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value")));
        refusal(&method, &headers.collect(), loopback).is_some()
    }

    #[test]
    fn programs_and_our_own_page_may_ask() {
        for headers in [
            &[("host", "127.0.0.1:9464")][..],
            &[("host", "localhost:9464")],
            &[("host", "[::1]:9464")],
            &[("host", "localhost")],
            &[],
            &[("host", "localhost:9464"), ("origin", "http://localhost:9464"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!refused(Method::POST, headers, true), "{headers:?}");
        }
        let typed = [("host", "localhost:9464"), ("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")];
        assert!(!refused(Method::GET, &typed, true));
        let link = [("host", "localhost:9464"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(!refused(Method::GET, &link, true));
        assert!(!refused(Method::POST, &[("host", "scorer.example:80")], false));
    }

    #[test]
    fn the_pages_of_others_may_not() {
        for headers in [
            &[("host", "evil.example:9464")][..],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "localhost:9464"), ("origin", "http://evil.example")],
            &[("host", "localhost:9464"), ("origin", "null")],
            &[("host", "localhost:9464"), ("origin", "http://localhost:8080")],
            &[("host", "localhost:9464"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "cors")],
            &[("host", "localhost:9464"), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")],
        ] {
            assert!(refused(Method::POST, headers, true), "{headers:?}");
        }
        assert!(refused(Method::POST, &[("host", "a.example"), ("origin", "http://b.example")], false));
    }
}
