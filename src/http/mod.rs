//! The HTTP edge: `/metrics`, `/livez`, `/readyz`. Reads what the pipeline publishes; never touches its path.
//!
//! Bound to loopback unless told otherwise. It runs on the process's small tokio runtime, scoring threads do not.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::telemetry::metrics::Exposition;
use crate::telemetry::readiness::Readiness;

/// Where the HTTP edge listens unless told otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// What the handlers read.
#[derive(Clone)]
pub struct Edge {
    /// Renders the metrics.
    pub metrics: Exposition,
    /// Reasons against readiness.
    pub readiness: Readiness,
}

/// Listens on `address`; on [`DEFAULT_ADDRESS`] where none was asked for, or on a free port where a second worker of
/// this host has taken that.
pub async fn listen(address: Option<SocketAddr>) -> std::io::Result<TcpListener> {
    if let Some(address) = address {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind(DEFAULT_ADDRESS).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            tracing::warn!(address = %DEFAULT_ADDRESS, "address in use, taking a free port; choose one with --http");
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        outcome => outcome,
    }
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, edge: Edge) -> std::io::Result<()> {
    axum::serve(listener, router(edge)).await
}

fn router(edge: Edge) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(edge)
}

async fn metrics(State(edge): State<Edge>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], edge.metrics.render())
}

async fn ready(State(edge): State<Edge>) -> impl IntoResponse {
    let reasons = edge.readiness.reasons();
    let warnings: String = edge.readiness.warnings().iter().map(|text| format!("warning: {text}\n")).collect();
    if reasons.is_empty() {
        (StatusCode::OK, format!("ready\n{warnings}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n{warnings}", reasons.join("\n")))
    }
}
