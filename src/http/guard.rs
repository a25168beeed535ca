//! Who may ask: each request passes here before its handler, health left out.
//!
//! ```text
//!  request ─► host ─► origin ─► credentials ─► right of the path ─► handler, which finds the [`Principal`]
//!              └ 403 ──┘            └ 401           └ 401, 403
//! ```
//!
//! A browser on a machine that can reach the address also runs the pages of strangers. They are told apart by what browsers
//! say and pages cannot change: `Origin` and `Sec-Fetch-Site` give another site away, and a `Host` that is not the worker's
//! gives away a stranger's name that was made to point here (DNS rebinding). There are no CORS headers at all.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Access, Denied, Principal, Right, roles_with};
use super::connections::Peer;
use super::problem::Problem;
use crate::audit::{Actor, Audit};
use crate::http_client;

/// Whose requests are answered.
pub struct Guard {
    /// By which names.
    pub hosts: Hosts,
    /// To whom.
    pub access: Access,
    /// Where denied tries are told.
    pub audit: Audit,
}

impl Guard {
    /// Hands the request on if its sender has `right`, and leaves the [`Principal`] among its extensions.
    pub async fn pass(self: Arc<Guard>, right: Right, mut request: Request, next: Next) -> Response {
        match self.judge(right, &request) {
            Ok(principal) => {
                request.extensions_mut().insert(principal);
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        }
    }

    fn judge(&self, right: Right, request: &Request) -> Result<Principal, Problem> {
        if let Some(problem) = refusal(request.method(), request.uri(), request.headers(), &self.hosts) {
            return Err(problem);
        }
        // Each connection has one.
        let Some(peer) = request.extensions().get::<Peer>() else { return Err(Problem::internal("no peer")) };
        let denied = |actor: Actor, denied| {
            let problem = problem(denied, right);
            self.audit.denied(&actor, request.uri().path(), problem.detail());
            problem
        };
        let principal = self.access.principal(request.headers(), &peer.certificate_names);
        let principal = principal.map_err(|reason| denied(Actor::unknown(peer.address.ip()), reason))?;
        let allowed = self.access.allows(&principal, right);
        allowed.map_err(|reason| denied(principal.actor(peer), reason))?;
        Ok(principal)
    }
}

/// How the caller could ask instead.
fn problem(denied: Denied, right: Right) -> Problem {
    match denied {
        Denied::Unknown => Problem::unauthorized(
            "the credentials are missing or unknown: send Authorization: Bearer with a token of --access (or with \
             FRAUD_SCORER_ADMIN_TOKEN), or show a client certificate that --access names",
        ),
        Denied::Forbidden => Problem::forbidden(&format!("this takes the role {}", roles_with(right))),
        Denied::Off => Problem::forbidden(
            "this worker lets no caller do this: start it with --access FILE, or with FRAUD_SCORER_ADMIN_TOKEN for a \
             single admin, and send Authorization: Bearer with a token",
        ),
    }
}

/// The names by which the worker may be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    /// Whether it listens on a loopback address, where only the machine's own names are good without further ones.
    pub is_loopback: bool,
    /// Names of `--allowed-hosts`; beyond loopback, where there are none every name is good.
    pub allowed: Vec<String>,
}

impl Hosts {
    /// Whether a request may call the worker by this `Host`.
    fn accept(&self, host: &str) -> bool {
        let name = without_port(host);
        if http_client::is_loopback(name) || self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return true;
        }
        // A page is of the site that its address names: none can make a stranger's name out of an IP address.
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        !self.is_loopback && (self.allowed.is_empty() || is_address)
    }
}

/// Why a request is refused for where it comes from, if it is.
pub fn refusal(method: &Method, uri: &Uri, headers: &HeaderMap, hosts: &Hosts) -> Option<Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    // A host in the request line counts instead of the header (RFC 9112, 3.2.2).
    let host = uri.authority().map(|authority| authority.as_str()).or_else(|| text(HOST.as_str()));
    if let Some(host) = host.filter(|host| !hosts.accept(host)) {
        return Some(Problem::foreign_origin(format!(
            "host is {host:?}, by which this worker is not asked: ask for 127.0.0.1 or localhost on its own machine (a proxy \
             must send that as host), or name it in --allowed-hosts"
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

/// The name or address in a `Host`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(method: Method, headers: &[(&'static str, &str)], is_loopback: bool) -> bool {
        refused_by(method, "/", headers, &Hosts { is_loopback, allowed: Vec::new() })
    }

    fn refused_by(method: Method, uri: &str, headers: &[(&'static str, &str)], hosts: &Hosts) -> bool {
        let headers =
            headers.iter().map(|(name, value)| ((*name).parse().expect("name"), value.parse().expect("value")));
        refusal(&method, &uri.parse().expect("a URI"), &headers.collect(), hosts).is_some()
    }

    #[test]
    fn names_that_were_allowed_may_be_asked_for_and_addresses_cannot_be_bent() {
        let allowed = vec!["scorer.example".to_owned()];
        let (near, far) =
            (Hosts { is_loopback: true, allowed: allowed.clone() }, Hosts { is_loopback: false, allowed });
        for (host, by_near, by_far) in [
            ("scorer.example", true, true),
            ("Scorer.Example:9464", true, true),
            ("localhost:9464", true, true),
            ("10.1.2.3:9464", false, true),
            ("[2001:db8::1]:9464", false, true),
            ("evil.example", false, false),
            ("10.1.2.3.evil.example", false, false),
            ("scorer.example.evil.example", false, false),
            ("", false, false),
        ] {
            let headers = &[("host", host)];
            assert_eq!(!refused_by(Method::GET, "/model", headers, &near), by_near, "{host}");
            assert_eq!(!refused_by(Method::GET, "/model", headers, &far), by_far, "{host}");
        }
    }

    #[test]
    fn a_host_in_the_request_line_counts_instead_of_the_header() {
        let hosts = Hosts { is_loopback: true, allowed: Vec::new() };
        let headers = &[("host", "localhost:9464")];
        assert!(refused_by(Method::POST, "http://evil.example/v1/score", headers, &hosts));
        assert!(!refused_by(Method::POST, "http://localhost:9464/v1/score", headers, &hosts));
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
