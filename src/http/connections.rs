//! Connections: accepted one by one, so many at a time, and none that sends nothing for long.
//!
//! Each connection costs memory and a file descriptor that Kafka's need too, so their number is bounded; who comes then
//! waits in the system's queue. A connection on which no whole request head arrives in time is closed, idle ones
//! included: a seat cannot be held by doing nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::log_events;

/// What connections may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at the same time: consoles, Prometheus, supervisors, and callers that keep theirs open.
    pub most: usize,
    /// How long a connection may go without a whole request head.
    pub head: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { most: 512, head: Duration::from_secs(30) }
    }
}

/// Largest request head, bytes; ours are a few hundred.
const MOST_HEAD_BYTES: usize = 32 << 10;

/// Wait after a failed accept: file descriptors may come free again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until the process ends. Handlers find the peer's address as [`ConnectInfo`].
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits) -> std::io::Result<()> {
    let seats = Arc::new(Semaphore::new(limits.most));
    let router = TowerToHyperService::new(router);
    loop {
        let Ok(seat) = seats.clone().acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    answer(stream, peer, router, limits.head).await;
                    drop(seat);
                });
            }
            Err(error) => {
                log_events::http::NotAccepted { error: &error }.log();
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn answer(stream: TcpStream, peer: SocketAddr, router: TowerToHyperService<Router>, head_limit: Duration) {
    // Answers are small and written whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(head_limit).max_buf_size(MOST_HEAD_BYTES);
    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
        log_events::http::ConnectionFailed { peer, error: &error }.log();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn silent_connections_give_their_seats_back() {
        let limits = Limits { most: 2, head: Duration::from_millis(300) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let peer = get(async |ConnectInfo(peer): ConnectInfo<SocketAddr>| peer.to_string());
        tokio::spawn(serve(listener, Router::new().route("/", peer), limits));

        // One says nothing, one stops in the middle of a request's head: all seats are taken.
        let _silent = TcpStream::connect(address).await.unwrap();
        let mut halting = TcpStream::connect(address).await.unwrap();
        halting.write_all(b"GET / HTTP/1.1\r\nHos").await.unwrap();
        let mut third = TcpStream::connect(address).await.unwrap();
        third.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let read = third.read_to_string(&mut answer);
        tokio::time::timeout(Duration::from_secs(60), read).await.expect("a seat in time").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.ends_with(&third.local_addr().unwrap().to_string()), "{answer}");
    }
}
