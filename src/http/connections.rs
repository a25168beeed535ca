//! Connections: accepted one by one, bounded in number, and none that says nothing, sends nothing or reads nothing for long.
//!
//! ```text
//!  accept ─► waiting (─► TLS) ─── head of a request ──┬─► health, metrics: answered where it waits
//!            (so many: the oldest is closed)           └─► all else: takes a seat (so many: 503) ─► answered ─► waiting
//! ```
//!
//! Each connection costs memory and a file descriptor that Kafka's need too. What asks for the health of the process takes no
//! seat, so neither the callers of the public paths nor those who do nothing keep a supervisor out: a connection without a
//! seat makes room for newer ones, and whoever asks as soon as it is connected is among the newest.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use super::problem::Problem;
use crate::log_events;

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Requests that are answered at the same time, health and metrics left out.
    pub seats: usize,
    /// Connections without a seat.
    pub waiting: usize,
    /// How long a connection may go without a whole request head.
    pub head: Duration,
    /// How long the other side may read nothing of an answer.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { seats: 512, waiting: 256, head: Duration::from_secs(30), write: Duration::from_secs(10) }
    }
}

/// Largest request head, bytes; ours are a few hundred.
const MOST_HEAD_BYTES: usize = 32 << 10;

/// Wait after a failed accept: file descriptors may come free again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Paths that supervisors and Prometheus ask.
const HEALTH: [&str; 5] = ["/livez", "/readyz", "/metrics", "/ping", "/health"];

/// Names of one client certificate that are looked at.
#[cfg(feature = "tls")]
pub(super) const MOST_NAMES: usize = 16;

/// Who is at the other end of a connection; among the extensions of each of its requests.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The names in its client certificate, if it showed one that was verified.
    pub certificate_names: Arc<[String]>,
}

/// How bytes go over a connection.
#[derive(Clone, Default)]
pub enum Transport {
    /// As they are.
    #[default]
    Plain,
    /// Encrypted.
    #[cfg(feature = "tls")]
    Tls(Arc<super::tls::Tls>),
}

/// Serves `router` on `listener` until the process ends. Handlers find the [`Peer`].
pub(super) async fn serve(
    listener: TcpListener,
    transport: Transport,
    router: Router,
    limits: Limits,
) -> std::io::Result<()> {
    let seats = Arc::new(Semaphore::new(limits.seats));
    let waiting = Arc::new(Waiting { most: limits.waiting, places: Mutex::default() });
    let router = TowerToHyperService::new(router);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let place = Place::take(&waiting);
                let served = Served { router: router.clone(), seats: seats.clone(), limits };
                tokio::spawn(connect(stream, peer, transport.clone(), served, place));
            }
            Err(error) => {
                log_events::http::NotAccepted { error: &error }.log();
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// What every connection is answered from.
struct Served {
    router: TowerToHyperService<Router>,
    seats: Arc<Semaphore>,
    limits: Limits,
}

async fn connect(stream: TcpStream, address: SocketAddr, transport: Transport, served: Served, place: Place) {
    // Answers are small and written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    match transport {
        Transport::Plain => {
            answer(stream, Peer { address, certificate_names: Arc::default() }, served, &place).await;
        }
        #[cfg(feature = "tls")]
        Transport::Tls(tls) => tokio::select! {
            accepted = tokio::time::timeout(served.limits.head, tls.accept(stream)) => match accepted {
                Ok(Ok((stream, certificate_names))) => {
                    answer(stream, Peer { address, certificate_names }, served, &place).await;
                }
                Ok(Err(error)) => log_events::http::ConnectionFailed { peer: address, error: &error }.log(),
                Err(_) => {
                    let error = "no TLS handshake in time";
                    log_events::http::ConnectionFailed { peer: address, error: &error }.log();
                }
            },
            () = place.own.closed.notified() => {}
        },
    }
    place.leave();
}

async fn answer<S>(stream: S, peer: Peer, served: Served, place: &Place)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let Served { router, seats, limits } = served;
    let address = peer.address;
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write));
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let router = router.clone();
        let needs_seat = !HEALTH.contains(&request.uri().path());
        let seat = needs_seat.then(|| place.sit(&seats)).flatten();
        if !needs_seat {
            place.renew();
        }
        async move {
            if needs_seat && seat.is_none() {
                let full = format!("{} requests are being answered already", limits.seats);
                return Ok(Problem::overloaded(full).into_response());
            }
            let answered: Result<Response, Infallible> = router.call(request).await;
            answered.map(|response| response.map(|body| Body::new(Seated { body, _seat: seat })))
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(MOST_HEAD_BYTES);
    let connection = builder.serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            log_events::http::ConnectionFailed { peer: address, error: &error }.log();
        },
        // Dropped as it stands.
        () = place.own.closed.notified() => {}
    }
}

/// Connections without a seat, the oldest first.
struct Waiting {
    most: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// The turn that was given last.
    last: u64,
    /// By the turn in which they came.
    closes: BTreeMap<u64, Arc<Notify>>,
}

impl Waiting {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// One connection's place.
#[derive(Clone)]
struct Place {
    waiting: Arc<Waiting>,
    own: Arc<Own>,
}

#[derive(Default)]
struct Own {
    /// Its turn among those that wait; 0 where it does not.
    turn: AtomicU64,
    closed: Arc<Notify>,
}

impl Place {
    /// The newest of those that wait; closes the oldest where they are too many.
    fn take(waiting: &Arc<Waiting>) -> Place {
        let place = Place { waiting: waiting.clone(), own: Arc::default() };
        place.renew();
        place
    }

    /// From now on it is the newest.
    fn renew(&self) {
        self.leave();
        let mut places = self.waiting.places();
        places.last += 1;
        let turn = places.last;
        places.closes.insert(turn, self.own.closed.clone());
        self.own.turn.store(turn, Ordering::Relaxed);
        while places.closes.len() > self.waiting.most {
            let Some((_, oldest)) = places.closes.pop_first() else { break };
            oldest.notify_one();
        }
    }

    /// It waits no more.
    fn leave(&self) {
        let turn = self.own.turn.swap(0, Ordering::Relaxed);
        if turn != 0 {
            self.waiting.places().closes.remove(&turn);
        }
    }

    /// Takes one of the seats, if there is one.
    fn sit(&self, seats: &Arc<Semaphore>) -> Option<Seat> {
        let permit = seats.clone().try_acquire_owned().ok()?;
        self.leave();
        Some(Seat { place: self.clone(), _permit: permit })
    }
}

/// Held until a request is answered; then its connection waits for the next one.
struct Seat {
    place: Place,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.place.renew();
    }
}

/// An answer's body that holds a seat.
struct Seated {
    body: Body,
    _seat: Option<Seat>,
}

impl hyper::body::Body for Seated {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: Limits =
        Limits { seats: 2, waiting: 4, head: Duration::from_millis(300), write: Duration::from_millis(300) };

    const PATIENCE: Duration = Duration::from_secs(60);

    /// What nobody reads to its end by accident: more than a socket's buffers hold.
    const LARGE: usize = 64 << 20;

    async fn start(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async |Extension(peer): Extension<Peer>| peer.address.to_string()))
            .route("/large", get(async || vec![b' '; LARGE]))
            .route("/livez", get(async || "ok\n"));
        tokio::spawn(serve(listener, Transport::Plain, router, limits));
        address
    }

    async fn ask(address: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    /// The first bytes of an answer; nothing where the connection was closed without one.
    async fn head(stream: &mut TcpStream) -> String {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer in time");
        String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
    }

    #[tokio::test]
    async fn silent_connections_are_closed() {
        let address = start(LIMITS).await;
        // One says nothing, one stops in the middle of a request's head.
        let mut silent = TcpStream::connect(address).await.unwrap();
        let mut halting = TcpStream::connect(address).await.unwrap();
        halting.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
        let mut third = ask(address, "/").await;
        let answer = head(&mut third).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with(&third.local_addr().unwrap().to_string()), "{answer}");
        assert_eq!(head(&mut silent).await, "");
        // It may be told why.
        let told = head(&mut halting).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
    }

    #[tokio::test]
    async fn connections_that_wait_make_room_for_newer_ones() {
        let address = start(Limits { head: PATIENCE * 2, ..LIMITS }).await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            idle.push(TcpStream::connect(address).await.unwrap());
            assert!(head(&mut ask(address, "/livez").await).await.ends_with("ok\n"));
        }
        assert_eq!(head(&mut idle[0]).await, "", "the oldest was closed");
    }

    #[tokio::test]
    async fn health_is_answered_when_all_seats_are_taken_and_who_reads_nothing_loses_his() {
        let address = start(LIMITS).await;
        let mut taken = Vec::new();
        for _ in 0..LIMITS.seats {
            let mut stream = ask(address, "/large").await;
            assert!(head(&mut stream).await.starts_with("HTTP/1.1 200 OK"));
            taken.push(stream);
        }
        assert!(head(&mut ask(address, "/livez").await).await.ends_with("ok\n"));
        // Nothing is read from here on: their connections are closed, and their seats are free.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let answer = head(&mut ask(address, "/").await).await;
            if answer.starts_with("HTTP/1.1 200 OK") {
                break;
            }
            assert!(answer.starts_with("HTTP/1.1 503") && tokio::time::Instant::now() < deadline, "{answer}");
        }
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, taken[0].read_to_end(&mut rest)).await.expect("closed");
        assert!(read.is_err() || rest.len() < LARGE, "it was cut off");
    }
}
