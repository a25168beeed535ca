//! `/v1/events`: what the console shows, as server-sent events, once a second.
//!
//! ```text
//!  metrics, readiness ─► Sampler (one task, 1 Hz) ─► Snapshot ─► watch ─┬► one stream per browser
//!                           └─► history, five minutes                     │    model, history, verdicts, snapshot
//!  suspicious verdicts ─► Latest (one task, 1 Hz) ─► list ─────► watch ───┘
//! ```
//!
//! The sampler reads the exposition that Prometheus reads: there is one set of numbers, whoever looks. Rates and
//! quantiles are computed here, over the same windows for every browser. A browser that reads slowly skips snapshots; it
//! cannot make anything grow.
//!
//! | event | when | data |
//! |---|---|---|
//! | `model` | first, and when another model serves | name, version, thresholds, features, examples, how reasons are found |
//! | `history` | first | up to 300 points of `time`, `rate`, `p50`, `p99`, `lag` |
//! | `verdicts` | first, and when there are new ones, or reasons; for those who may review | the latest at review or decline, newest first |
//! | `snapshot` | every second | [`Snapshot`] |

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::MissedTickBehavior;

use super::access::{Principal, Right};
use super::exposition::Samples;
use super::problem::Problem;
use super::suspicious::Latest;
use crate::scoring_service::{About, Scoring};
use crate::telemetry::metrics::Exposition;
use crate::telemetry::readiness::Readiness;
use crate::telemetry::suspicious;

/// How often everything is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Points of history: five minutes.
const HISTORY: usize = 300;

/// Samples over which rates and latencies are taken.
const WINDOW: usize = 10;

/// Browsers that may watch at the same time.
const CLIENTS: usize = 32;

/// How long the scoring service may take over the reasons of a second's verdicts; then they are asked for again.
const EXPLAIN_PATIENCE: Duration = Duration::from_secs(5);

/// What every browser's stream is made from.
#[derive(Clone)]
pub struct Feed {
    latest: watch::Receiver<Arc<Snapshot>>,
    verdicts: watch::Receiver<Arc<str>>,
    history: Arc<Mutex<VecDeque<Point>>>,
    clients: Arc<Semaphore>,
    scoring: Scoring,
}

/// The state of the worker at one moment. Rates are per second over the last ten seconds, times in seconds.
#[derive(Debug, Default, Serialize)]
pub struct Snapshot {
    /// Epoch milliseconds.
    time: i64,
    /// Since the process began to listen.
    uptime: f64,
    /// Version of the program.
    program: &'static str,
    /// Reasons against readiness; empty when ready.
    not_ready: Vec<String>,
    /// Rows committed since the start, and how many a second.
    transactions: f64,
    rate: f64,
    /// Verdicts by decision: approve, review, decline.
    decisions: Vec<(String, f64)>,
    decision_rates: Vec<(String, f64)>,
    /// Dead letters by class, those that occurred.
    dead_letters: Vec<(String, f64)>,
    dead_letter_rate: f64,
    /// From a transaction's timestamp to its verdict's commit; nothing without traffic.
    latency: Option<Latency>,
    /// Records not yet read, all partitions; age of the oldest partition's last record.
    lag: f64,
    lag_seconds: f64,
    partitions: usize,
    /// Histogram of scores since the start.
    score_bounds: Vec<f64>,
    score_counts: Vec<f64>,
    /// Mean time of each stage for one batch (commit: for one commit), where there were any, seconds.
    stages: Vec<(String, f64)>,
    /// Mean rows of a batch; nothing without traffic.
    batch_rows: Option<f64>,
    /// Population stability index by feature, where the worker watches drift and has seen enough rows.
    drift: Vec<(String, f64)>,
    /// That of the score, and the share of the features that drifted.
    drift_score: Option<f64>,
    drift_share: Option<f64>,
    /// Rows that drift is told from; nothing where the model has no reference to compare with.
    drift_rows: Option<f64>,
    /// Model exchanges by result, where there were any.
    swaps: Vec<(String, f64)>,
    /// `name@version` of the model in shadow.
    challenger: Option<String>,
    /// Whether the model registry answers, where there is one.
    registry: Option<bool>,
    rebalances: f64,
    redone: f64,
    /// Requests to score over HTTP, and how many a second.
    requests: f64,
    request_rate: f64,
}

/// Quantiles of the last ten seconds, seconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    p50: f64,
    p95: f64,
    p99: f64,
}

/// What the charts keep.
#[derive(Clone, Copy, Debug, Serialize)]
struct Point {
    time: i64,
    rate: f64,
    p50: Option<f64>,
    p99: Option<f64>,
    lag: f64,
}

impl Feed {
    /// Starts the two tasks; they live as long as the runtime.
    pub fn start(metrics: Exposition, readiness: Readiness, scoring: Scoring) -> Feed {
        let (sender, latest) = watch::channel(Arc::new(Snapshot::default()));
        let history = Arc::new(Mutex::new(VecDeque::with_capacity(HISTORY)));
        let shared = history.clone();
        tokio::spawn(async move {
            let mut sampler = Sampler::new();
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
                let mut snapshot = sampler.sample(&Samples::read(&metrics.render()), now);
                snapshot.not_ready = readiness.reasons();
                let mut points = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                if points.len() == HISTORY {
                    points.pop_front();
                }
                points.push_back(snapshot.point());
                drop(points);
                if sender.send(Arc::new(snapshot)).is_err() {
                    return;
                }
            }
        });
        let clients = Arc::new(Semaphore::new(CLIENTS));
        let (sender, verdicts) = watch::channel(Arc::from("[]"));
        tokio::spawn(follow_verdicts(sender, scoring.clone(), clients.clone()));
        Feed { latest, verdicts, history, clients, scoring }
    }
}

/// Keeps the list of suspicious verdicts. A task of its own: numbers do not wait for reasons.
async fn follow_verdicts(sender: watch::Sender<Arc<str>>, scoring: Scoring, clients: Arc<Semaphore>) {
    let mut latest = Latest::new(scoring.mask().clone());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        latest.add(suspicious::since(latest.newest()));
        let watched = clients.available_permits() < CLIENTS;
        let (serials, rows) = if watched { latest.unexplained() } else { Default::default() };
        if !rows.is_empty()
            && let Ok(Ok(answers)) = tokio::time::timeout(EXPLAIN_PATIENCE, scoring.explain(rows)).await
        {
            latest.explain(&serials, answers);
        }
        if let Some(list) = latest.changed()
            && sender.send(list).is_err()
        {
            return;
        }
    }
}

/// One browser's stream.
struct Watcher {
    feed: Feed,
    waiting: VecDeque<Event>,
    about: Option<Arc<About>>,
    began: bool,
    reviews: bool,
    _seat: OwnedSemaphorePermit,
}

/// `/v1/events`.
pub async fn stream(State(feed): State<Feed>, Extension(principal): Extension<Principal>) -> Response {
    let Ok(seat) = feed.clients.clone().try_acquire_owned() else {
        return Problem::overloaded(format!("{CLIENTS} consoles are open already")).into_response();
    };
    let reviews = principal.may(Right::Review);
    let watcher = Watcher { feed, waiting: VecDeque::new(), about: None, began: false, reviews, _seat: seat };
    let events = unfold(watcher, |mut watcher| async move {
        loop {
            if let Some(event) = watcher.waiting.pop_front() {
                return Some((Ok::<_, Infallible>(event), watcher));
            }
            watcher.next().await?;
        }
    });
    Sse::new(events).into_response()
}

impl Watcher {
    /// Puts the next second's events in line; `None` when there will be no more.
    async fn next(&mut self) -> Option<()> {
        if self.began {
            self.feed.latest.changed().await.ok()?;
        }
        let about = self.feed.scoring.about();
        if let Some(about) = about.filter(|about| self.about.as_ref().is_none_or(|sent| !Arc::ptr_eq(sent, about))) {
            self.waiting.push_back(event("model", &Model::of(&about, self.reviews)));
            self.about = Some(about);
        }
        let first = !std::mem::replace(&mut self.began, true);
        if first {
            let history = self.feed.history.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            self.waiting.push_back(event("history", &*history));
        }
        if self.reviews && (first || self.feed.verdicts.has_changed().ok()?) {
            let list = self.feed.verdicts.borrow_and_update().clone();
            self.waiting.push_back(Event::default().event("verdicts").data(list));
        }
        let snapshot = self.feed.latest.borrow_and_update().clone();
        if snapshot.time > 0 {
            self.waiting.push_back(event("snapshot", &*snapshot));
        }
        Some(())
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    // Numbers and text in plain structures: always JSON, and JSON has no line breaks.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_else(|_| "null".to_owned()))
}

/// The model as the console shows it.
#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    version: &'a str,
    sha256: &'a str,
    engine: &'a str,
    review: f32,
    decline: f32,
    features: Vec<ModelFeature<'a>>,
    /// How reasons are found; null where there are none.
    reasons: Option<&'static str>,
    examples: &'a [crate::scoring_service::Example],
}

#[derive(Serialize)]
struct ModelFeature<'a> {
    name: &'a str,
    default: Option<f32>,
}

impl<'a> Model<'a> {
    /// `reviews`: whether it is for someone who may see transactions, which examples are.
    fn of(about: &'a About, reviews: bool) -> Model<'a> {
        let feature = |feature: &'a crate::pipeline::decode::Feature| ModelFeature {
            name: &feature.name,
            default: feature.default,
        };
        Model {
            name: &about.name,
            version: &about.version,
            sha256: &about.sha256,
            engine: &about.engine,
            review: about.thresholds.review(),
            decline: about.thresholds.decline(),
            features: about.features.iter().map(feature).collect(),
            reasons: about.reasons,
            examples: if reviews { &about.examples } else { &[] },
        }
    }
}

impl Snapshot {
    fn point(&self) -> Point {
        let quantile = |of: fn(&Latency) -> f64| self.latency.as_ref().map(of);
        Point {
            time: self.time,
            rate: self.rate,
            p50: quantile(|latency| latency.p50),
            p99: quantile(|latency| latency.p99),
            lag: self.lag,
        }
    }
}

/// Turns totals into rates: remembers the last window's.
struct Sampler {
    began: Instant,
    past: VecDeque<Totals>,
}

/// What rates are taken of.
struct Totals {
    /// Epoch milliseconds.
    time: i64,
    transactions: f64,
    decisions: Vec<(String, f64)>,
    dead_letters: f64,
    requests: f64,
    latency: Vec<f64>,
    stages: Vec<Sum>,
    batches: Sum,
}

/// Sum and count of a histogram's values.
#[derive(Default)]
struct Sum {
    label: String,
    sum: f64,
    count: f64,
}

impl Sum {
    /// Those of a histogram, by one of its labels.
    fn all(samples: &Samples, name: &str, label: &str) -> Vec<Sum> {
        let counts = samples.by_label(&format!("{name}_count"), label);
        let sums = samples.by_label(&format!("{name}_sum"), label);
        sums.into_iter().zip(counts).map(|((label, sum), (_, count))| Sum { label, sum, count }).collect()
    }

    /// The mean of what came since `before`.
    fn mean_since(&self, before: &Sum) -> Option<f64> {
        let count = self.count - before.count;
        (count > 0.0).then(|| (self.sum - before.sum) / count)
    }
}

impl Sampler {
    fn new() -> Sampler {
        Sampler { began: Instant::now(), past: VecDeque::with_capacity(WINDOW + 1) }
    }

    /// The snapshot of `samples`, taken at `now` (epoch milliseconds).
    fn sample(&mut self, samples: &Samples, now: i64) -> Snapshot {
        let (latency_bounds, latency) = samples.histogram("fraud_scorer_end_to_end_seconds");
        let (score_bounds, score_counts) = samples.histogram("fraud_scorer_score");
        let dead_letters = samples.by_label("fraud_scorer_dead_letters_total", "error_class");
        let totals = Totals {
            time: now,
            transactions: samples.sum("fraud_scorer_transactions_total"),
            decisions: samples.by_label("fraud_scorer_verdicts_total", "decision"),
            dead_letters: dead_letters.iter().map(|(_, count)| count).sum(),
            requests: samples.sum("fraud_scorer_http_requests_total"),
            latency,
            stages: Sum::all(samples, "fraud_scorer_stage_seconds", "stage"),
            batches: Sum::all(samples, "fraud_scorer_batch_rows", "").pop().unwrap_or_default(),
        };
        let before = self.past.front().unwrap_or(&totals);
        let seconds = (now - before.time).max(1) as f64 / 1000.0;
        let rate = |now: f64, before: f64| (now - before).max(0.0) / seconds;
        let decision_before =
            |name: &str| before.decisions.iter().find(|(other, _)| other == name).map_or(0.0, |(_, count)| *count);
        let in_window: Vec<f64> =
            totals.latency.iter().zip(&before.latency).map(|(now, before)| (now - before).max(0.0)).collect();
        let stage = |now: &Sum| {
            let before = before.stages.iter().find(|before| before.label == now.label)?;
            Some((now.label.clone(), now.mean_since(before)?))
        };
        let quantile = |share| quantile(&latency_bounds, &in_window, share);
        let shadow = samples.all("fraud_scorer_challenger_info").iter().find(|info| info.value > 0.0);
        let snapshot = Snapshot {
            time: now,
            uptime: self.began.elapsed().as_secs_f64(),
            program: env!("CARGO_PKG_VERSION"),
            not_ready: Vec::new(),
            transactions: totals.transactions,
            rate: rate(totals.transactions, before.transactions),
            decision_rates: totals
                .decisions
                .iter()
                .map(|(name, count)| (name.clone(), rate(*count, decision_before(name))))
                .collect(),
            decisions: totals.decisions.clone(),
            dead_letters: dead_letters.into_iter().filter(|(_, count)| *count > 0.0).collect(),
            dead_letter_rate: rate(totals.dead_letters, before.dead_letters),
            latency: (|| Some(Latency { p50: quantile(0.5)?, p95: quantile(0.95)?, p99: quantile(0.99)? }))(),
            lag: samples.sum("fraud_scorer_consumer_lag"),
            lag_seconds: samples
                .all("fraud_scorer_consumer_lag_seconds")
                .iter()
                .map(|partition| partition.value)
                .fold(0.0, f64::max),
            partitions: samples.all("fraud_scorer_consumer_lag").len(),
            score_bounds,
            score_counts,
            stages: totals.stages.iter().filter_map(stage).collect(),
            batch_rows: totals.batches.mean_since(&before.batches),
            drift: samples.by_label("fraud_scorer_drift_psi", "feature"),
            drift_score: samples.only("fraud_scorer_drift_score_psi"),
            drift_share: samples.only("fraud_scorer_drift_share"),
            drift_rows: samples.only("fraud_scorer_drift_window_rows"),
            swaps: samples.by_label("fraud_scorer_model_swaps_total", "result"),
            challenger: shadow.map(|info| format!("{}@{}", info.label("name"), info.label("version"))),
            registry: samples.only("fraud_scorer_registry_reachable").map(|value| value > 0.0),
            rebalances: samples.sum("fraud_scorer_rebalances_total"),
            redone: samples.sum("fraud_scorer_redone_total"),
            requests: totals.requests,
            request_rate: rate(totals.requests, before.requests),
        };
        if self.past.len() == WINDOW {
            self.past.pop_front();
        }
        self.past.push_back(totals);
        snapshot
    }
}

/// Where in the buckets `share` of the counts lies, evenly spread within a bucket; the last bound for what lies beyond it.
fn quantile(bounds: &[f64], counts: &[f64], share: f64) -> Option<f64> {
    let total: f64 = counts.iter().sum();
    if total <= 0.0 {
        return None;
    }
    let mut left = share * total;
    for (index, count) in counts.iter().enumerate() {
        if left <= *count {
            let lower = if index == 0 { 0.0 } else { bounds[index - 1] };
            let upper = bounds.get(index).copied().unwrap_or(lower);
            return Some(lower + (upper - lower) * left / count.max(f64::MIN_POSITIVE));
        }
        left -= count;
    }
    bounds.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_where_the_counts_do() {
        let bounds = [0.1, 0.2, 0.4];
        assert_eq!(quantile(&bounds, &[0.0; 4], 0.5), None);
        assert_eq!(quantile(&bounds, &[0.0, 10.0, 0.0, 0.0], 0.5), Some(0.15000000000000002));
        assert_eq!(quantile(&bounds, &[9.0, 0.0, 1.0, 0.0], 0.95), Some(0.30000000000000004));
        assert_eq!(quantile(&bounds, &[0.0, 0.0, 0.0, 3.0], 0.99), Some(0.4), "beyond the last bound");
    }

    fn text(transactions: f64, declines: f64, fast: f64, slow: f64) -> String {
        format!(
            "fraud_scorer_transactions_total {transactions}\n\
             fraud_scorer_verdicts_total{{decision=\"decline\"}} {declines}\n\
             fraud_scorer_end_to_end_seconds_bucket{{le=\"0.1\"}} {fast}\n\
             fraud_scorer_end_to_end_seconds_bucket{{le=\"0.2\"}} {}\n\
             fraud_scorer_end_to_end_seconds_bucket{{le=\"+Inf\"}} {}\n\
             fraud_scorer_stage_seconds_sum{{stage=\"decode\"}} {}\n\
             fraud_scorer_stage_seconds_count{{stage=\"decode\"}} {transactions}\n\
             fraud_scorer_drift_psi{{feature=\"V1\"}} 0.3\nfraud_scorer_drift_share 0.5\n",
            fast + slow,
            fast + slow,
            transactions * 0.25
        )
    }

    #[test]
    fn rates_and_latencies_are_the_windows() {
        let mut sampler = Sampler::new();
        let first = sampler.sample(&Samples::read(&text(1000.0, 10.0, 1000.0, 0.0)), 0);
        assert_eq!((first.rate, first.latency.is_none()), (0.0, true), "totals from before say nothing of now");
        let mut last = first;
        for second in 1..=30 {
            let done = 1000.0 + 200.0 * f64::from(second);
            let metrics = text(done, 10.0 + f64::from(second), 1000.0, done - 1000.0);
            last = sampler.sample(&Samples::read(&metrics), i64::from(second) * 1000);
        }
        assert_eq!(last.rate, 200.0);
        assert_eq!(last.decision_rates, [("decline".to_owned(), 1.0)]);
        assert_eq!(last.latency.map(|latency| latency.p50), Some(0.15000000000000002), "only the window's");
        assert_eq!(last.stages, [("decode".to_owned(), 0.25)]);
        assert_eq!(last.drift, [("V1".to_owned(), 0.3)]);
        assert_eq!((last.drift_share, last.drift_rows), (Some(0.5), None));
    }
}
