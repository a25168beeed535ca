//! What changes the worker from outside: going back to the model before, reading a directory again. And who may.
//!
//! Two ways in. With a token (`Authorization: Bearer …`) from anywhere. Without one configured, only from this host, at an
//! edge that listens on loopback: then whoever can connect could as well send the process a signal. A browser on this host
//! can be made to connect by any page that it shows, so without a token a request with an `Origin`, or for a `Host` that is
//! not loopback (a name that was bent to 127.0.0.1), is refused.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Edge;
use super::guard::is_loopback as names_loopback;
use super::problem::Problem;
use crate::log_events;
use crate::model::exchange::Exchange;

/// Characters that a token has at least: what can be guessed is no secret.
pub const SHORTEST_TOKEN: usize = 16;

/// Who may use `/admin/…`.
pub struct Admin {
    /// The edge can only be reached from this host.
    on_loopback: bool,
    /// Digest of the token, where there is one.
    token: Option<[u8; 32]>,
}

impl Admin {
    /// For an edge that listens on `address`; `token` lets in whoever knows it, and nobody else.
    pub fn new(address: SocketAddr, token: Option<String>) -> Admin {
        Admin { on_loopback: address.ip().is_loopback(), token: token.map(|token| digest(token.as_bytes())) }
    }

    /// Whether a request of `peer` with these headers may; the error says how it could.
    fn allows(&self, peer: SocketAddr, headers: &HeaderMap) -> Result<(), &'static str> {
        if let Some(expected) = &self.token {
            let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
            // Digests are compared: where they begin to differ says nothing about the token.
            return match given.is_some_and(|given| digest(given) == *expected) {
                true => Ok(()),
                false => Err("the token is missing or wrong: send Authorization: Bearer with the worker's \
                              FRAUD_SCORER_ADMIN_TOKEN"),
            };
        }
        if !self.on_loopback || !peer.ip().to_canonical().is_loopback() {
            return Err("only this host may, at an address of loopback; for others set FRAUD_SCORER_ADMIN_TOKEN (or \
                        --admin-token-file) and send Authorization: Bearer with it");
        }
        if headers.contains_key(header::ORIGIN) {
            return Err("requests of web pages are refused; set FRAUD_SCORER_ADMIN_TOKEN to allow them with a token");
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        match host.is_some_and(names_loopback) {
            true => Ok(()),
            false => Err("the Host header must name a loopback address, such as 127.0.0.1"),
        }
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// `GET /model`: what serves, what did, and what happened.
pub(super) async fn model(State(edge): State<Edge>) -> Response {
    match edge.exchange.get() {
        Some(exchange) => Json(exchange.status()).into_response(),
        None => starting(),
    }
}

/// `POST /admin/rollback`: the model before serves again.
pub(super) async fn rollback(
    State(edge): State<Edge>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    change(edge, peer, headers, |exchange, why| match exchange.rollback(&why) {
        Ok(_) => Json(exchange.status()).into_response(),
        Err(error) => Problem::no_previous_model(error.to_string()).into_response(),
    })
    .await
}

/// `POST /admin/reload`: the serving model's directory is read again.
pub(super) async fn reload(
    State(edge): State<Edge>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    change(edge, peer, headers, |exchange, _| match exchange.reload() {
        Ok(()) => Json(exchange.status()).into_response(),
        Err(refusal) => Problem::model_refused(refusal.to_string()).into_response(),
    })
    .await
}

/// Asks whether the request may, then runs `work` where waiting is no harm.
async fn change(
    edge: Edge,
    peer: SocketAddr,
    headers: HeaderMap,
    work: impl FnOnce(&Exchange, String) -> Response + Send + 'static,
) -> Response {
    if let Err(how) = edge.admin.allows(peer, &headers) {
        log_events::http::AdminRefused { peer, reason: how }.log();
        return Problem::forbidden(how).into_response();
    }
    let Some(exchange) = edge.exchange.get().cloned() else { return starting() };
    let done = tokio::task::spawn_blocking(move || work(&exchange, format!("asked for by {}", peer.ip())));
    done.await.unwrap_or_else(|error| Problem::internal(error.to_string()).into_response())
}

fn starting() -> Response {
    Problem::not_ready("no model is loaded yet: /readyz says what the worker waits for").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(listens_on: &str, token: Option<&str>, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let admin = Admin::new(listens_on.parse().expect("an address"), token.map(str::to_owned));
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).expect("a value"))
        });
        admin.allows(SocketAddr::new(peer.parse().expect("an address"), 5), &headers.collect()).is_ok()
    }

    #[test]
    fn without_a_token_only_this_host_may() {
        let host = ("host", "127.0.0.1:9464");
        assert!(ask("127.0.0.1:9464", None, "127.0.0.1", &[host]));
        assert!(ask("[::1]:9464", None, "::1", &[("host", "[::1]:9464")]));
        assert!(ask("127.0.0.1:9464", None, "127.0.0.1", &[("host", "LocalHost")]));
        assert!(!ask("0.0.0.0:9464", None, "127.0.0.1", &[host]), "others could reach it");
        assert!(!ask("127.0.0.1:9464", None, "192.168.0.7", &[host]));
    }

    #[test]
    fn without_a_token_web_pages_may_not() {
        let host = ("host", "127.0.0.1:9464");
        assert!(!ask("127.0.0.1:9464", None, "127.0.0.1", &[host, ("origin", "http://127.0.0.1:9464")]));
        assert!(!ask("127.0.0.1:9464", None, "127.0.0.1", &[]));
        for bent in ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "localhost:x", "[::1", "[::1]x", ""]
        {
            assert!(!ask("127.0.0.1:9464", None, "127.0.0.1", &[("host", bent)]), "{bent:?}");
        }
    }

    #[test]
    fn with_a_token_who_knows_it_may_from_anywhere_and_nobody_else() {
        let token = Some("0123456789abcdef");
        let right = ("authorization", "Bearer 0123456789abcdef");
        assert!(ask("0.0.0.0:9464", token, "192.168.0.7", &[right]));
        assert!(!ask("127.0.0.1:9464", token, "127.0.0.1", &[("host", "127.0.0.1")]));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "Bearer "] {
            assert!(!ask("0.0.0.0:9464", token, "192.168.0.7", &[("authorization", wrong)]), "{wrong}");
        }
    }
}
