//! The HTTP edge: `/metrics`, `/livez`, `/readyz`, `/model`, and `/admin/…`. Reads what the pipeline publishes; never
//! touches its path.
//!
//! ```text
//!  GET  /metrics, /livez, /readyz, /model ─► read
//!  POST /admin/rollback, /admin/reload    ─► admin: may they? ─► exchange (on a thread that may wait)
//! ```
//!
//! Bound to loopback unless told otherwise. It runs on the process's small tokio runtime, scoring threads do not.

mod admin;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;

pub use self::admin::{Admin, SHORTEST_TOKEN};
use crate::model::exchange::Exchange;
use crate::telemetry::metrics::Exposition;
use crate::telemetry::readiness::Readiness;

/// Where the HTTP edge listens unless told otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// What the handlers read.
#[derive(Clone)]
pub struct Edge {
    metrics: Exposition,
    readiness: Readiness,
    admin: Arc<Admin>,
    /// There once the first model is verified.
    exchange: Arc<OnceLock<Exchange>>,
}

impl Edge {
    /// What is there from the start.
    pub fn new(metrics: Exposition, readiness: Readiness, admin: Admin) -> Edge {
        Edge { metrics, readiness, admin: Arc::new(admin), exchange: Arc::default() }
    }

    /// The worker's models, once there are any.
    pub fn exchange(&self, exchange: Exchange) {
        // Set once; a second worker of the process would show the first's.
        let _ = self.exchange.set(exchange);
    }
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
    axum::serve(listener, router(edge).into_make_service_with_connect_info::<SocketAddr>()).await
}

fn router(edge: Edge) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/model", get(admin::model))
        .route("/admin/rollback", post(admin::rollback))
        .route("/admin/reload", post(admin::reload))
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
