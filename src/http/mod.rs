//! The HTTP edge. Reads what the pipeline publishes; never touches its path.
//!
//! | path | what it is | where |
//! |---|---|---|
//! | `/metrics`, `/livez`, `/readyz` | for Prometheus and supervisors | here |
//! | `/v1/score`, `/invocations` | scores for those who ask | [`score`], `scoring_service` |
//! | `/ping`, `/health` | what MLflow's scoring server has for supervisors | here |
//! | `/openapi.json`, `/docs` | the description of these | [`openapi`] |
//! | `/`, `/v1/events` | the console and what feeds it | [`console`], [`events`] |
//! | `/model` | what serves, what did, and what happened | `admin` |
//! | `/admin/rollback`, `/admin/reload` | another model, for those who may | `admin` |
//!
//! [`connections`] accepts and bounds them. Bound to loopback unless told otherwise; [`guard`] keeps other sites' pages out.
//! It runs on the process's small tokio runtime, scoring threads do not. Every refusal is a [`problem::Problem`].

mod connections;
pub mod console;
pub mod events;
mod exposition;
pub mod guard;
pub mod openapi;
pub mod problem;
pub mod score;

mod admin;
mod in_flight;
mod suspicious;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use self::admin::{Admin, SHORTEST_TOKEN};
use self::connections::Limits;
use self::events::Feed;
use self::problem::Problem;
use self::score::Gate;
use crate::audit::Audit;
use crate::log_events;
use crate::model::ModelError;
use crate::model::exchange::Exchange;
use crate::scoring_service::{Protocol, Scoring};
use crate::telemetry::metrics::Exposition;
use crate::telemetry::readiness::Readiness;

/// Where the HTTP edge listens unless told otherwise.
pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// What the handlers read.
#[derive(Clone)]
pub struct Edge {
    metrics: Exposition,
    exposing: Arc<Semaphore>,
    readiness: Readiness,
    /// Scores those who ask.
    scoring: Scoring,
    admin: Arc<Admin>,
    /// Where denied tries are told.
    audit: Audit,
    /// There once the first model is verified.
    exchange: Arc<OnceLock<Exchange>>,
}

impl Edge {
    /// What is there from the start.
    pub fn new(metrics: Exposition, readiness: Readiness, scoring: Scoring, admin: Admin, audit: Audit) -> Edge {
        let (exposing, admin) = (Arc::new(Semaphore::new(1)), Arc::new(admin));
        Edge { metrics, exposing, readiness, scoring, admin, audit, exchange: Arc::default() }
    }

    /// The worker's models, once there are any: from now on the edge scores, broker or not.
    pub fn open(&self, exchange: &Exchange) -> Result<(), ModelError> {
        // Set once; a second worker of the process would show the first's.
        let _ = self.exchange.set(exchange.clone());
        self.scoring.open(Arc::new(exchange.clone()))
    }
}

/// Listens on `address`; on [`DEFAULT_ADDRESS`] where none was asked for, or on a free port where a second worker of
/// this host has taken that.
pub async fn listen(address: Option<SocketAddr>) -> std::io::Result<TcpListener> {
    listen_on(address, DEFAULT_ADDRESS).await
}

/// As [`listen`], with another address to begin with.
pub async fn listen_on(address: Option<SocketAddr>, default: SocketAddr) -> std::io::Result<TcpListener> {
    if let Some(address) = address {
        return TcpListener::bind(address).await;
    }
    match TcpListener::bind(default).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            log_events::lifecycle::HttpAddressInUse { address: default }.log();
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
        }
        outcome => outcome,
    }
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, edge: Edge) -> std::io::Result<()> {
    let loopback = listener.local_addr()?.ip().is_loopback();
    let feed = Feed::start(edge.metrics.clone(), edge.readiness.clone(), edge.scoring.clone());
    connections::serve(listener, router(edge, feed, loopback), Limits::default()).await
}

/// Serves `/metrics`, `/livez` and `/readyz` alone, for a process that does not score, until it ends.
pub async fn serve_metrics<R>(listener: TcpListener, render: R, readiness: Readiness) -> std::io::Result<()>
where
    R: Fn() -> String + Clone + Send + Sync + 'static,
{
    let exposing = Arc::new(Semaphore::new(1));
    let router = Router::new()
        .route("/metrics", get(async move || exposed(exposing, render).await))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(async move || standing(&readiness)))
        .fallback(async |uri: Uri| Problem::not_found(uri.path()))
        .method_not_allowed_fallback(async |method: Method| Problem::method_not_allowed(method.as_str()));
    connections::serve(listener, router, Limits::default()).await
}

fn router(edge: Edge, feed: Feed, loopback: bool) -> Router {
    let gate = Gate::new(edge.scoring.clone());
    let guarded = Router::new()
        .route(
            "/v1/score",
            post(async |State(gate): State<Gate>, request| gate.answer(Protocol::Verdict, request).await),
        )
        .route(
            "/invocations",
            post(async |State(gate): State<Gate>, request| gate.answer(Protocol::Mlflow, request).await),
        )
        .route("/openapi.json", get(async |State(gate): State<Gate>| openapi::document(gate.scoring())))
        .with_state(gate)
        .route("/docs", get(openapi::page))
        .route("/", get(console::page))
        .route("/v1/events", get(events::stream).with_state(feed))
        .route_layer(from_fn(move |request: Request, next: Next| guarded(loopback, request, next)));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/model", get(admin::model))
        .route("/admin/rollback", post(admin::rollback))
        .route("/admin/reload", post(admin::reload))
        .route("/ping", get(ping))
        .route("/health", get(ping))
        .with_state(edge)
        .merge(guarded)
        .fallback(async |uri: Uri| Problem::not_found(uri.path()))
        .method_not_allowed_fallback(async |method: Method| Problem::method_not_allowed(method.as_str()))
}

async fn guarded(loopback: bool, request: Request, next: Next) -> Response {
    match guard::refusal(request.method(), request.headers(), loopback) {
        Some(problem) => problem.into_response(),
        None => next.run(request).await,
    }
}

/// As MLflow's scoring server answers: whether there is a model to score with.
async fn ping(State(edge): State<Edge>) -> Response {
    match edge.scoring.about() {
        Some(_) => "\n".into_response(),
        None => Problem::not_ready("the model is not loaded yet").into_response(),
    }
}

async fn metrics(State(edge): State<Edge>) -> Response {
    let metrics = edge.metrics.clone();
    exposed(edge.exposing, move || metrics.render()).await
}

/// Writing all metrics down takes a while: one at a time does it, and beside the thread that answers, so that a crowd that asks
/// for them keeps nobody else waiting.
async fn exposed(turn: Arc<Semaphore>, render: impl FnOnce() -> String + Send + 'static) -> Response {
    let _turn = turn.acquire().await;
    match tokio::task::spawn_blocking(render).await {
        Ok(metrics) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics).into_response(),
        Err(error) => Problem::internal(error.to_string()).into_response(),
    }
}

async fn ready(State(edge): State<Edge>) -> impl IntoResponse {
    standing(&edge.readiness)
}

fn standing(readiness: &Readiness) -> impl IntoResponse + use<> {
    let reasons = readiness.reasons();
    let warnings: String = readiness.warnings().iter().map(|text| format!("warning: {text}\n")).collect();
    if reasons.is_empty() {
        (StatusCode::OK, format!("ready\n{warnings}"))
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n{warnings}", reasons.join("\n")))
    }
}
