//! The HTTP edge. Reads what the pipeline publishes; never touches its path.
//!
//! | path | what it is | right | where |
//! |---|---|---|---|
//! | `/livez`, `/readyz` | for supervisors | none | here |
//! | `/ping`, `/health` | what MLflow's scoring server has for supervisors | none | here |
//! | `/metrics` | for Prometheus | look | here |
//! | `/v1/score`, `/invocations` | scores for those who ask | score | [`score`], `scoring_service` |
//! | `/openapi.json`, `/docs` | the description of these | score | [`openapi`] |
//! | `/`, `/v1/events` | the console and what feeds it; verdicts take the right to review | look | [`console`], [`events`] |
//! | `/model` | what serves, what did, and what happened | look | `admin` |
//! | `/admin/rollback`, `/admin/reload` | another model | operate | `admin` |
//!
//! [`connections`] accepts and bounds them, over TLS where it has a certificate. Bound to loopback unless told otherwise;
//! [`guard`] keeps other sites' pages out and asks for each path's right ([`access`]). It runs on the process's small tokio
//! runtime, scoring threads do not. Every refusal is a [`problem::Problem`].

pub mod access;
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
#[cfg(feature = "tls")]
pub mod tls;

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

use self::access::Right;
use self::connections::Limits;
pub use self::connections::Transport;
use self::events::Feed;
use self::guard::Guard;
use self::problem::Problem;
use self::score::Gate;
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
    /// There once the first model is verified.
    exchange: Arc<OnceLock<Exchange>>,
}

impl Edge {
    /// What is there from the start.
    pub fn new(metrics: Exposition, readiness: Readiness, scoring: Scoring) -> Edge {
        Edge { metrics, exposing: Arc::new(Semaphore::new(1)), readiness, scoring, exchange: Arc::default() }
    }

    /// The worker's models, once there are any: from now on the edge scores, broker or not.
    pub fn open(&self, exchange: &Exchange) -> Result<(), ModelError> {
        // Set once; a second worker of the process would show the first's.
        let _ = self.exchange.set(exchange.clone());
        self.scoring.open(Arc::new(exchange.clone()))
    }
}

/// Listens on `address`; on `default` where none was asked for, or on a free port where another process of this host has
/// taken that.
pub async fn listen(address: Option<SocketAddr>, default: SocketAddr) -> std::io::Result<TcpListener> {
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

/// Where the edge listens, how, and to whom.
pub struct Door {
    /// Where.
    pub listener: TcpListener,
    /// How bytes go over its connections.
    pub transport: Transport,
    /// Whose requests are answered.
    pub guard: Arc<Guard>,
}

impl Door {
    async fn serve(self, router: Router) -> std::io::Result<()> {
        #[cfg(feature = "tls")]
        if let Transport::Tls(tls) = &self.transport {
            tokio::spawn(tls.clone().follow());
        }
        let router = router
            .fallback(async |uri: Uri| Problem::not_found(uri.path()))
            .method_not_allowed_fallback(async |method: Method| Problem::method_not_allowed(method.as_str()));
        connections::serve(self.listener, self.transport, router, Limits::default()).await
    }
}

/// Serves until the process ends.
pub async fn serve(door: Door, edge: Edge) -> std::io::Result<()> {
    let feed = Feed::start(edge.metrics.clone(), edge.readiness.clone(), edge.scoring.clone());
    let router = router(edge, feed, &door.guard);
    door.serve(router).await
}

/// Serves `/metrics`, `/livez` and `/readyz` alone, for a process that does not score, until it ends.
pub async fn serve_metrics<R>(door: Door, render: R, readiness: Readiness) -> std::io::Result<()>
where
    R: Fn() -> String + Clone + Send + Sync + 'static,
{
    let exposing = Arc::new(Semaphore::new(1));
    let looking = Router::new().route("/metrics", get(async move || exposed(exposing, render).await));
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(async move || standing(&readiness)))
        .merge(asking_for(Right::Look, looking, &door.guard));
    door.serve(router).await
}

fn router(edge: Edge, feed: Feed, guard: &Arc<Guard>) -> Router {
    let gate = Gate::new(edge.scoring.clone());
    let scoring = Router::new()
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
        .route("/docs", get(openapi::page));
    let looking = Router::new()
        .route("/metrics", get(metrics))
        .route("/model", get(admin::model))
        .with_state(edge.clone())
        .route("/", get(console::page))
        .route("/v1/events", get(events::stream).with_state(feed));
    let operating = Router::new()
        .route("/admin/rollback", post(admin::rollback))
        .route("/admin/reload", post(admin::reload))
        .with_state(edge.clone());
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/ping", get(ping))
        .route("/health", get(ping))
        .with_state(edge)
        .merge(asking_for(Right::Score, scoring, guard))
        .merge(asking_for(Right::Look, looking, guard))
        .merge(asking_for(Right::Operate, operating, guard))
}

/// These paths, for those who have the right.
fn asking_for(right: Right, paths: Router, guard: &Arc<Guard>) -> Router {
    let guard = guard.clone();
    paths.route_layer(from_fn(move |request: Request, next: Next| guard.clone().pass(right, request, next)))
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
