//! Scoring for those who ask instead of stream: one thread with an engine of its own, which scores together whatever
//! requests wait.
//!
//! ```text
//!  HTTP handlers ──try_send──► bounded queue ──► gather ─► messages ─► Engine::run ─► answers ──oneshot──► handlers
//!   (many, async)                                  ▲                      ▲
//!                                   whatever waits, no timer    another one when Serving's generation moves
//! ```
//!
//! The engine is the one of the scoring threads (`pipeline::engine`): same decoder, same model, same thresholds. It is an
//! instance of its own, so neither side ever waits for the other. There is no timer: a lone request is scored at once,
//! and requests that arrive meanwhile make the next batch. A full queue refuses at once ([`Unscored::Overloaded`]), so
//! the time a request may wait is bounded by the queue and not by the patience of those who ask.
//!
//! The thread also explains: verdicts at review or decline are answered with reasons (`crate::explain`), and the console's
//! verdicts of the topic get theirs here ([`Scoring::explain`]), where neither the topic nor the async runtime waits for it.

mod answer;
mod mlflow;
mod reasons;

use std::borrow::Cow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use fraud_wire::dead_letter::{ErrorClass, Rejection};
use tokio::sync::oneshot;

pub use self::reasons::{Explained, ToExplain};
use crate::explain::Explainer;
use crate::log_events;
use crate::mask::Mask;
use crate::model::ModelError;
use crate::model::bundle::Bundle;
use crate::model::exchange::Exchange;
use crate::pipeline::decide::Thresholds;
use crate::pipeline::decode::{Feature, most_answer_bytes};
use crate::pipeline::engine::{Engine, Outcome};

/// Requests that may wait. At some tens of thousands a second this is a wait of milliseconds.
const QUEUE: usize = 1024;

/// Most requests scored together: enough for the model to be at its best.
const MOST_REQUESTS: usize = 512;

/// Bytes of requests after which no more are gathered: large requests should not wait for each other.
const MOST_BYTES: usize = 1 << 20;

/// How often an idle service looks whether another model serves, and the least time between two exchanges.
const GENERATION_INTERVAL: Duration = Duration::from_millis(500);

/// Bytes of golden records that are looked through for examples.
const MOST_GOLDEN_BYTES: u64 = 4 << 20;

/// What serves now. The scoring threads and this service ask the same one, so that they answer alike.
pub trait Serving: Send + Sync + 'static {
    /// Moves whenever another model serves; cheap to ask.
    fn generation(&self) -> u64;

    /// A new engine of what serves.
    fn load(&self) -> Result<Served, ModelError>;
}

/// An engine, and what people may know of it.
pub struct Served {
    /// The generation it belongs to.
    pub generation: u64,
    /// Decodes and scores.
    pub engine: Engine,
    /// Says why; `None` where nothing can be said.
    pub explainer: Option<Explainer>,
    /// The model.
    pub about: About,
}

impl Served {
    /// An engine of `bundle` that rejects values over `max_message_bytes` unread.
    pub fn of(bundle: &Bundle, generation: u64, max_message_bytes: usize) -> Result<Served, ModelError> {
        let explainer = match Explainer::new(bundle) {
            Ok(explainer) => Some(explainer),
            Err(reason) => {
                let model = bundle.manifest.id();
                log_events::model::NoReasons { model: &model, reason: &reason }.log();
                None
            }
        };
        let about = About { reasons: explainer.as_ref().map(Explainer::method), ..About::of(bundle) };
        Ok(Served { generation, engine: Engine::new(bundle, max_message_bytes)?, explainer, about })
    }
}

/// A model as answers, the console and the API description show it.
#[derive(Clone, Debug)]
pub struct About {
    /// The bundle's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the model file, hexadecimal.
    pub sha256: String,
    /// What computes it: `simd` or `onnxruntime`.
    pub engine: String,
    /// Where review and decline begin.
    pub thresholds: Thresholds,
    /// What a transaction must hold.
    pub features: Vec<Feature>,
    /// Transactions to try the model with.
    pub examples: Vec<Example>,
    /// How reasons are found, in words; `None` where there are none.
    pub reasons: Option<&'static str>,
}

/// A transaction of the bundle's golden records.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Example {
    /// `ordinary` or `suspicious`.
    pub kind: &'static str,
    /// Its features by name, as a JSON object; without those that are masked.
    pub transaction: serde_json::Map<String, serde_json::Value>,
}

impl About {
    /// What `bundle` says of itself; not whether there are reasons.
    fn of(bundle: &Bundle) -> About {
        let manifest = &bundle.manifest;
        About {
            name: manifest.name.clone(),
            version: manifest.version.clone(),
            sha256: manifest.sha256.clone(),
            engine: bundle.engine.name().to_owned(),
            thresholds: manifest.thresholds,
            features: manifest.features.clone(),
            examples: examples(bundle),
            reasons: None,
        }
    }
}

/// Of the golden records, the one in the middle of those that are approved, and the one with the highest score. Not simply
/// the middle of all: training keeps more suspicious ones than there are in the traffic. None where the bundle has no
/// golden records: they are a convenience of the console.
fn examples(bundle: &Bundle) -> Vec<Example> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(bundle.directory.join("golden.jsonl"))
        .and_then(|file| file.take(MOST_GOLDEN_BYTES).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let mut records: Vec<(f64, serde_json::Map<String, serde_json::Value>)> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Map<_, _>>(line).ok())
        .filter_map(|record| Some((record.get("expected_score")?.as_f64()?, record)))
        .collect();
    records.sort_by(|left, right| left.0.total_cmp(&right.0));
    let example = |kind, index: usize| {
        let known = |name: &String| bundle.manifest.features.iter().any(|feature| feature.name == *name);
        let (_, record) = records.get(index)?;
        let transaction =
            record.iter().filter(|(name, _)| known(name)).map(|(name, value)| (name.clone(), value.clone()));
        Some(Example { kind, transaction: transaction.collect() })
    };
    let review = f64::from(bundle.manifest.thresholds.review());
    let approved = records.iter().filter(|(score, _)| *score < review).count();
    let last = records.len().saturating_sub(1);
    [example("ordinary", approved / 2), example("suspicious", last)].into_iter().flatten().collect()
}

impl Serving for Exchange {
    fn generation(&self) -> u64 {
        self.serving().number
    }

    fn load(&self) -> Result<Served, ModelError> {
        let model = self.serving();
        Served::of(&model.bundle, model.number, self.max_message_bytes())
    }
}

/// Which protocol a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A transaction as topics carry it; answered with verdicts.
    Verdict,
    /// MLflow's scoring protocol; answered with predictions.
    Mlflow,
}

/// Why a request has no scores.
#[derive(Debug, thiserror::Error)]
pub enum Unscored {
    /// What was asked for cannot be scored.
    #[error("{}", .0.message)]
    Rejected(Rejection),
    /// No model is loaded yet.
    #[error("the model is not loaded yet")]
    NotReady,
    /// More requests wait than the queue holds.
    #[error("{QUEUE} requests wait already")]
    Overloaded,
    /// The service ended.
    #[error("the scoring service has ended; see the worker's log")]
    Ended,
}

/// A handle on the service; it can be asked before there is a model, and says so.
#[derive(Clone)]
pub struct Scoring(Arc<Shared>);

struct Shared {
    max_request_bytes: usize,
    mask: Mask,
    queue: OnceLock<SyncSender<Asked>>,
    about: RwLock<Option<Arc<About>>>,
}

/// What waits for the thread.
enum Asked {
    /// To be scored, together with others.
    Score(Job),
    /// To be explained.
    Explain(Vec<ToExplain>, oneshot::Sender<Vec<Explained>>),
}

/// A request on its way through the thread.
struct Job {
    protocol: Protocol,
    body: Bytes,
    reply: oneshot::Sender<Result<Vec<u8>, Rejection>>,
}

impl Scoring {
    /// A service without a model, for requests of at most `max_request_bytes`. Answers hold everything; in what is known
    /// of the model, the fields of `mask` have no values.
    pub fn new(max_request_bytes: usize, mask: Mask) -> Scoring {
        Scoring(Arc::new(Shared { max_request_bytes, mask, queue: OnceLock::new(), about: RwLock::new(None) }))
    }

    /// What people must not see of a transaction.
    pub fn mask(&self) -> &Mask {
        &self.0.mask
    }

    /// Largest request, bytes.
    pub fn max_request_bytes(&self) -> usize {
        self.0.max_request_bytes
    }

    /// Largest answer, bytes.
    pub fn most_answer_bytes(&self) -> usize {
        most_answer_bytes(self.0.max_request_bytes)
    }

    /// The model that answers; `None` before [`Scoring::open`].
    pub fn about(&self) -> Option<Arc<About>> {
        self.0.about.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Loads what serves and starts the thread. A second call changes nothing.
    pub fn open(&self, serving: Arc<dyn Serving>) -> Result<(), ModelError> {
        let served = serving.load()?;
        let (sender, receiver) = sync_channel(QUEUE);
        if self.0.queue.set(sender).is_err() {
            return Ok(());
        }
        self.0.publish(&served.about);
        // The thread ends with the last handle: it must not hold one itself.
        let (shared, asked_for) = (Arc::downgrade(&self.0), served.generation);
        let batcher = Batcher { shared, serving, served, asked_for, asked_at: Instant::now() };
        let thread = std::thread::Builder::new().name("scoring-http".into()).spawn(move || batcher.run(&receiver));
        if let Err(error) = thread {
            // The receiver went with the closure: requests are answered with Unscored::Ended.
            log_events::http::ScoringNotStarted { error: &error }.log();
        }
        Ok(())
    }

    /// Scores one request; the JSON of its answer.
    pub async fn score(&self, protocol: Protocol, body: Bytes) -> Result<Vec<u8>, Unscored> {
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Score(Job { protocol, body, reply }))?;
        answer.await.map_err(|_| Unscored::Ended)?.map_err(Unscored::Rejected)
    }

    /// Says of each of `rows` why it scored as it did, in their order.
    pub async fn explain(&self, rows: Vec<ToExplain>) -> Result<Vec<Explained>, Unscored> {
        let (reply, answer) = oneshot::channel();
        self.ask(Asked::Explain(rows, reply))?;
        answer.await.map_err(|_| Unscored::Ended)
    }

    fn ask(&self, asked: Asked) -> Result<(), Unscored> {
        let queue = self.0.queue.get().ok_or(Unscored::NotReady)?;
        queue.try_send(asked).map_err(|refused| match refused {
            TrySendError::Full(_) => Unscored::Overloaded,
            TrySendError::Disconnected(_) => Unscored::Ended,
        })
    }
}

impl Shared {
    fn publish(&self, about: &About) {
        let mut about = about.clone();
        for example in &mut about.examples {
            example.transaction.retain(|name, _| !self.mask.hides(name));
        }
        *self.about.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(Arc::new(about));
    }
}

/// The thread's side.
struct Batcher {
    shared: std::sync::Weak<Shared>,
    serving: Arc<dyn Serving>,
    served: Served,
    /// The generation that was last asked for, and when. What could not be loaded is not asked for again.
    asked_for: u64,
    asked_at: Instant,
}

impl Batcher {
    /// Scores what waits until nobody can ask any more.
    fn run(mut self, queue: &Receiver<Asked>) {
        let mut waiting = Waiting::default();
        loop {
            match queue.recv_timeout(GENERATION_INTERVAL) {
                Ok(asked) => waiting.gather(asked, queue),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.follow();
            // Who hung up or ran out of patience needs no scores.
            waiting.jobs.retain(|job| !job.reply.is_closed());
            if !waiting.jobs.is_empty() {
                self.score(std::mem::take(&mut waiting.jobs));
            }
            // Behind the scores: nobody's transaction waits for an explanation.
            for (rows, reply) in waiting.explanations.drain(..) {
                let _ = reply.send(rows.iter().map(|row| reasons::explain(&mut self.served, row)).collect());
            }
        }
    }

    /// Takes the engine of another model when that one serves now; not more often than twice a second, for loading one
    /// holds up the requests that wait.
    fn follow(&mut self) {
        let generation = self.serving.generation();
        if generation == self.asked_for || self.asked_at.elapsed() < GENERATION_INTERVAL {
            return;
        }
        (self.asked_for, self.asked_at) = (generation, Instant::now());
        match self.serving.load() {
            Ok(served) => {
                self.asked_for = served.generation;
                if let Some(shared) = self.shared.upgrade() {
                    shared.publish(&served.about);
                }
                self.served = served;
            }
            Err(error) => log_events::http::ScoringKeepsModel { error: &error }.log(),
        }
    }

    fn score(&mut self, jobs: Vec<Job>) {
        let Served { engine, explainer, about, .. } = &mut self.served;
        let most_bytes = engine.most_answer_bytes();
        let requests: Vec<Result<Request<'_>, Rejection>> =
            jobs.iter().map(|job| Request::read(job.protocol, &job.body, &about.features, most_bytes)).collect();
        let payloads = requests.iter().flatten().flat_map(|request| &request.messages);
        engine.run(payloads.map(|message| Some(message.as_ref())));

        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        let mut outcomes = engine.outcomes();
        let mut answers = Vec::with_capacity(jobs.len());
        for request in requests {
            answers.push(request.and_then(|request| {
                let (own, rest) = outcomes.split_at(request.messages.len());
                outcomes = rest;
                request.answer(own, engine, explainer, about, now)
            }));
        }
        for (job, answer) in jobs.into_iter().zip(answers) {
            let _ = job.reply.send(answer);
        }
    }
}

/// What the thread does next.
#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    explanations: Vec<(Vec<ToExplain>, oneshot::Sender<Vec<Explained>>)>,
}

impl Waiting {
    /// Takes what waits behind `first`.
    fn gather(&mut self, first: Asked, queue: &Receiver<Asked>) {
        let (mut bytes, mut next) = (0, Some(first));
        while let Some(asked) = next {
            match asked {
                Asked::Score(job) => {
                    bytes += job.body.len();
                    self.jobs.push(job);
                }
                Asked::Explain(rows, reply) => self.explanations.push((rows, reply)),
            }
            let enough = self.jobs.len() + self.explanations.len() >= MOST_REQUESTS || bytes >= MOST_BYTES;
            next = if enough { None } else { queue.try_recv().ok() };
        }
    }
}

/// A request as messages of the pipeline's decoder.
struct Request<'a> {
    protocol: Protocol,
    messages: Vec<Cow<'a, [u8]>>,
    /// What the messages are called in the request, for errors: `dataframe_records`.
    list: Option<&'static str>,
}

impl<'a> Request<'a> {
    fn read(
        protocol: Protocol,
        body: &'a [u8],
        features: &[Feature],
        most_bytes: usize,
    ) -> Result<Request<'a>, Rejection> {
        match protocol {
            Protocol::Verdict => Ok(Request { protocol, messages: vec![body.into()], list: None }),
            Protocol::Mlflow => mlflow::messages(body, features, most_bytes)
                .map(|mlflow::Messages { messages, list }| Request { protocol, messages, list }),
        }
    }

    /// The answer's JSON, or why the request is rejected: whole, as a message of a topic is.
    fn answer(
        &self,
        outcomes: &[Outcome],
        engine: &Engine,
        explainer: &mut Option<Explainer>,
        about: &About,
        now: i64,
    ) -> Result<Vec<u8>, Rejection> {
        let mut scored = Vec::with_capacity(outcomes.len());
        for (index, (message, outcome)) in self.messages.iter().zip(outcomes).enumerate() {
            match outcome {
                Outcome::Scored(rows) => scored.push((message.as_ref(), rows.clone())),
                Outcome::Rejected(rejection) => return Err(self.placed(index, rejection)),
            }
        }
        match self.protocol {
            Protocol::Verdict => answer::verdicts(&scored, engine, explainer, about, now),
            Protocol::Mlflow => Ok(answer::predictions(&scored, engine)),
        }
    }

    fn placed(&self, index: usize, rejection: &Rejection) -> Rejection {
        match self.list {
            // A record's own size is never what is wrong: the request's was checked.
            Some(list) if rejection.class != ErrorClass::TooLarge => {
                Rejection::new(rejection.class, format!("{list}[{index}]: {}", rejection.message))
            }
            _ => rejection.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
