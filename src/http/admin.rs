//! What changes the worker from outside: going back to the model before, reading a directory again.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};

use super::Edge;
use super::access::Principal;
use super::connections::Peer;
use super::problem::Problem;
use crate::audit::Actor;
use crate::model::exchange::Exchange;

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
    Extension(peer): Extension<Peer>,
    Extension(principal): Extension<Principal>,
) -> Response {
    change(edge, &peer, &principal, |exchange, actor| match exchange.rollback(&actor) {
        Ok(_) => Json(exchange.status()).into_response(),
        Err(error) => Problem::no_previous_model(error.to_string()).into_response(),
    })
    .await
}

/// `POST /admin/reload`: the serving model's directory is read again.
pub(super) async fn reload(
    State(edge): State<Edge>,
    Extension(peer): Extension<Peer>,
    Extension(principal): Extension<Principal>,
) -> Response {
    change(edge, &peer, &principal, |exchange, actor| match exchange.reload(&actor) {
        Ok(()) => Json(exchange.status()).into_response(),
        Err(refusal) => Problem::model_refused(refusal.to_string()).into_response(),
    })
    .await
}

/// Runs `work`, which hears who asked, where waiting is no harm.
async fn change(
    edge: Edge,
    peer: &Peer,
    principal: &Principal,
    work: impl FnOnce(&Exchange, Actor) -> Response + Send + 'static,
) -> Response {
    let Some(exchange) = edge.exchange.get().cloned() else { return starting() };
    let actor = principal.actor(peer);
    let done = tokio::task::spawn_blocking(move || work(&exchange, actor));
    done.await.unwrap_or_else(|error| Problem::internal(error.to_string()).into_response())
}

fn starting() -> Response {
    Problem::not_ready("no model is loaded yet: /readyz says what the worker waits for").into_response()
}
