//! What changes the worker from outside: going back to the model before, reading a directory again. And who may: whoever
//! knows the token (`Authorization: Bearer …`), and without a token nobody. That a request comes from this host says little:
//! others have accounts there, and a proxy there speaks for strangers.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Edge;
use super::problem::Problem;
use crate::audit::Actor;
use crate::log_events;
use crate::model::exchange::Exchange;

/// Characters that a token has at least: what can be guessed is no secret.
pub const SHORTEST_TOKEN: usize = 16;

/// Who may use `/admin/…`.
pub struct Admin {
    /// Digest of the token, where there is one.
    token: Option<[u8; 32]>,
}

impl Admin {
    /// `token` lets in whoever knows it; without one nobody may.
    pub fn new(token: Option<String>) -> Admin {
        Admin { token: token.map(|token| digest(token.as_bytes())) }
    }

    /// Whether a request with these headers may; the error says how it could.
    fn allows(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        let Some(expected) = &self.token else {
            return Err(
                "this worker has no admin token: start it with FRAUD_SCORER_ADMIN_TOKEN (or --admin-token-file), \
                        and send Authorization: Bearer with it",
            );
        };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        // Digests are compared: where they begin to differ says nothing about the token.
        match given.is_some_and(|given| digest(given) == *expected) {
            true => Ok(()),
            false => Err("the token is missing or wrong: send Authorization: Bearer with the worker's \
                          FRAUD_SCORER_ADMIN_TOKEN"),
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
    change(edge, "/admin/rollback", peer, headers, |exchange, actor| match exchange.rollback(&actor) {
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
    change(edge, "/admin/reload", peer, headers, |exchange, actor| match exchange.reload(&actor) {
        Ok(()) => Json(exchange.status()).into_response(),
        Err(refusal) => Problem::model_refused(refusal.to_string()).into_response(),
    })
    .await
}

/// Asks whether the request may, then runs `work` where waiting is no harm.
async fn change(
    edge: Edge,
    path: &'static str,
    peer: SocketAddr,
    headers: HeaderMap,
    work: impl FnOnce(&Exchange, Actor) -> Response + Send + 'static,
) -> Response {
    if let Err(how) = edge.admin.allows(&headers) {
        log_events::http::AdminRefused { peer, reason: how }.log();
        edge.audit.denied(peer.ip(), path, how);
        return Problem::forbidden(how).into_response();
    }
    let Some(exchange) = edge.exchange.get().cloned() else { return starting() };
    let actor = Actor::new("admin", peer.ip());
    let done = tokio::task::spawn_blocking(move || work(&exchange, actor));
    done.await.unwrap_or_else(|error| Problem::internal(error.to_string()).into_response())
}

fn starting() -> Response {
    Problem::not_ready("no model is loaded yet: /readyz says what the worker waits for").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(token: Option<&str>, headers: &[(&'static str, &str)]) -> bool {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_str(value).expect("a value"))
        });
        Admin::new(token.map(str::to_owned)).allows(&headers.collect()).is_ok()
    }

    #[test]
    fn who_knows_the_token_may_and_nobody_else() {
        let token = Some("0123456789abcdef");
        assert!(ask(token, &[("authorization", "Bearer 0123456789abcdef")]));
        assert!(!ask(token, &[("host", "127.0.0.1")]));
        for wrong in ["Bearer 0123456789abcdeF", "Bearer 0123456789abcde", "Basic 0123456789abcdef", "Bearer "] {
            assert!(!ask(token, &[("authorization", wrong)]), "{wrong}");
        }
    }

    #[test]
    fn without_a_token_nobody_may() {
        for headers in [&[("host", "127.0.0.1:9464")][..], &[("authorization", "Bearer ")], &[]] {
            assert!(!ask(None, headers), "{headers:?}");
        }
    }
}
