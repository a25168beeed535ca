//! The load: one client for every service, which asks over connections that stay open.
//!
//! ```text
//!  closed loop:  each connection asks, waits, asks again           how many answers there are per second
//!  open loop:    request n is due at start + n / rate ─► whichever connection is free ─► now − due = latency of n
//! ```
//!
//! In the open loop a request's clock starts when it was due: neither a client that is held up nor a service that stalls
//! can hide the wait of the requests behind (coordinated omission). How late the client itself was is noted.
//!
//! The client has one thread for all connections, and one that keeps time where there is a rate. It does no more than it
//! must while it measures: bodies are made before, and a part of the answers is kept and looked at afterwards.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};

use crate::latency::{due, histogram, wait_until};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One answer of so many is kept to be looked at, of each connection, and no more than so many in all.
const KEEP_EVERY: u64 = 32;
const KEEP_AT_MOST: usize = 2_000;

/// From the last connection to the first request.
const HEAD_START: Duration = Duration::from_millis(20);

/// What to ask.
#[derive(Clone)]
pub struct Questions {
    pub address: SocketAddr,
    pub path: String,
    /// Asked in turn, again and again.
    pub bodies: Arc<Vec<Bytes>>,
}

/// How to ask it.
#[derive(Clone, Copy)]
pub struct Pace {
    /// Connections; in the open loop the most requests on their way at a time.
    pub connections: usize,
    /// Requests per second of an open loop; a closed loop has none.
    pub rate: Option<u64>,
    /// What is asked first and not counted.
    pub warm_up: Duration,
    /// What is counted.
    pub window: Duration,
}

/// What the client saw; times in microseconds. Of a closed loop they run from sending, of an open one from the due time.
pub struct Seen {
    pub latencies: Histogram<u64>,
    /// From due to sent; empty in a closed loop.
    pub late: Histogram<u64>,
    /// Some of the answers, each with the number of the body it answers.
    pub kept: Vec<(usize, Bytes)>,
}

/// A client at work.
pub struct Load {
    /// When counting begins and ends.
    pub opens: Instant,
    pub closes: Instant,
    answered: Arc<AtomicU64>,
    thread: JoinHandle<Result<Seen, String>>,
}

impl Load {
    /// Opens all connections and begins to ask.
    pub fn start(questions: &Questions, pace: Pace) -> Result<Load, String> {
        let answered = Arc::new(AtomicU64::new(0));
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("load".into()).spawn({
            let (questions, answered) = (questions.clone(), answered.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                LocalSet::new().block_on(&runtime, async {
                    let connections = connect_all(questions.address, pace.connections).await?;
                    let client = Client {
                        questions,
                        pace,
                        start: Instant::now() + HEAD_START,
                        answered,
                        seen: RefCell::new(Seen { latencies: histogram(), late: histogram(), kept: Vec::new() }),
                    };
                    tell.send(client.start).unwrap();
                    client.ask(connections).await
                })
            }
        });
        let thread = thread.map_err(|error| format!("no thread for the load: {error}"))?;
        let Ok(start) = told.recv() else {
            return Err(thread.join().unwrap().err().unwrap_or_default());
        };
        let opens = start + pace.warm_up;
        Ok(Load { opens, closes: opens + pace.window, answered, thread })
    }

    /// Answers so far, the warm-up's included.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for the last answers. An error where a single one was none, or did not come.
    pub fn finish(self) -> Result<Seen, String> {
        self.thread.join().unwrap()
    }
}

/// The client's thread.
struct Client {
    questions: Questions,
    pace: Pace,
    start: Instant,
    answered: Arc<AtomicU64>,
    seen: RefCell<Seen>,
}

impl Client {
    async fn ask(self, connections: Vec<Connection>) -> Result<Seen, String> {
        let (due, timer) = match self.pace.rate {
            Some(rate) => {
                let (due, timer) = self.keep_time(rate);
                (Some(Rc::new(tokio::sync::Mutex::new(due))), Some(timer))
            }
            None => (None, None),
        };
        let client = Rc::new(self);
        let mut asking = JoinSet::new();
        for (index, connection) in connections.into_iter().enumerate() {
            let (client, due) = (client.clone(), due.clone());
            asking.spawn_local(async move {
                match due {
                    Some(due) => client.as_due(connection, &due).await,
                    None => client.as_fast_as_answered(connection, index as u64).await,
                }
            });
        }
        while let Some(outcome) = asking.join_next().await {
            outcome.map_err(|error| error.to_string())??;
        }
        drop(due);
        if let Some(timer) = timer {
            timer.join().unwrap();
        }
        let client = Rc::into_inner(client).ok_or("a connection is still asking")?;
        Ok(client.seen.into_inner())
    }

    /// The closed loop of one connection; the bodies go round, each connection takes every so-manieth.
    async fn as_fast_as_answered(&self, mut connection: Connection, index: u64) -> Result<(), String> {
        let opens = self.start + self.pace.warm_up;
        let closes = opens + self.pace.window;
        tokio::time::sleep_until(self.start.into()).await;
        let mut number = index;
        loop {
            let asked = Instant::now();
            if asked >= closes {
                return Ok(());
            }
            let answer = self.answer(&mut connection, number).await?;
            if asked >= opens {
                self.note(asked, number, answer);
            }
            number += self.pace.connections as u64;
        }
    }

    /// One connection's share of the open loop: takes what is due whenever it is free.
    async fn as_due(
        &self,
        mut connection: Connection,
        due: &tokio::sync::Mutex<UnboundedReceiver<Due>>,
    ) -> Result<(), String> {
        loop {
            let Some(Due { number, at, counts }) = due.lock().await.recv().await else { return Ok(()) };
            let late = at.elapsed();
            let answer = self.answer(&mut connection, number).await?;
            if counts {
                self.seen.borrow_mut().late.saturating_record(late.as_micros() as u64);
                self.note(at, number, answer);
            }
        }
    }

    /// A thread that says what is due. The runtime's own timer knows whole milliseconds only.
    fn keep_time(&self, rate: u64) -> (UnboundedReceiver<Due>, JoinHandle<()>) {
        let (send, receive) = unbounded_channel();
        let (start, warm_up) = (self.start, (self.pace.warm_up.as_secs_f64() * rate as f64) as u64);
        let count = warm_up + (self.pace.window.as_secs_f64() * rate as f64) as u64;
        let thread = std::thread::spawn(move || {
            for number in 0..count {
                let at = start + due(number, rate);
                wait_until(at);
                // Nobody listens any more once a connection has failed.
                if send.send(Due { number, at, counts: number >= warm_up }).is_err() {
                    return;
                }
            }
        });
        (receive, thread)
    }

    async fn answer(&self, connection: &mut Connection, number: u64) -> Result<Bytes, String> {
        let body = self.questions.bodies[self.body(number)].clone();
        let (status, answer) = connection.ask(Method::POST, &self.questions.path, body).await?;
        if status != StatusCode::OK {
            return Err(refused(status, &answer));
        }
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }

    fn note(&self, since: Instant, number: u64, answer: Bytes) {
        let mut seen = self.seen.borrow_mut();
        seen.latencies.saturating_record(since.elapsed().as_micros().max(1) as u64);
        let round = number / self.pace.connections as u64;
        if round.is_multiple_of(KEEP_EVERY) && seen.kept.len() < KEEP_AT_MOST {
            seen.kept.push((self.body(number), answer));
        }
    }

    fn body(&self, number: u64) -> usize {
        (number % self.questions.bodies.len() as u64) as usize
    }
}

/// A request of the open loop.
struct Due {
    number: u64,
    at: Instant,
    /// Not of the warm-up.
    counts: bool,
}

/// Asks each body once, one after the other; the answers' statuses and bodies.
pub fn ask_each(questions: &Questions, method: &Method) -> Result<Vec<(StatusCode, Bytes)>, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(questions.address).await?;
        let mut answers = Vec::with_capacity(questions.bodies.len());
        for body in questions.bodies.iter() {
            answers.push(connection.ask(method.clone(), &questions.path, body.clone()).await?);
        }
        Ok(answers)
    })
}

/// An answer that is none, for a person.
pub fn refused(status: StatusCode, answer: &[u8]) -> String {
    format!("answered {status}: {}", String::from_utf8_lossy(&answer[..answer.len().min(500)]))
}

async fn connect_all(address: SocketAddr, count: usize) -> Result<Vec<Connection>, String> {
    let mut connections = Vec::with_capacity(count);
    for _ in 0..count {
        connections.push(Connection::open(address).await?);
    }
    Ok(connections)
}

/// A connection that stays open.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Connection, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connecting: {error}"))?;
        // Requests are written whole: waiting for more to send would only delay them.
        stream.set_nodelay(true).map_err(|error| format!("connecting: {error}"))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| format!("connecting: {error}"))?;
        // What goes wrong with it shows where it is asked over.
        tokio::spawn(connection);
        let host = HeaderValue::from_str(&address.to_string()).map_err(|error| error.to_string())?;
        Ok(Connection { sender, host })
    }

    async fn ask(&mut self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let request = Request::builder().method(method).uri(path).header(HOST, self.host.clone());
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let answer = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        };
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|error| format!("no answer: {error}")),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}
