//! What a run sends, and the run itself: due records in, delivery reports out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fraud_settings::KafkaArguments;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;

use crate::delivery::{Connected, Offer, Sender};
use crate::pacing::Schedule;
use crate::source::Source;

/// Records between two looks at the clock, the stop flag and the delivery reports: about a millisecond at full speed.
const BATCH: u64 = 256;

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long after `duration` records may still be sent that were due before its end. Beyond it, the broker is slower
/// than the rate, and the run would not end when it was asked to.
const LATENESS_GRACE: Duration = Duration::from_millis(500);

/// The stream of the seed's generator that keys are drawn from; the profile draws from stream 0.
const KEY_STREAM: u64 = 1;

/// A validated order to send: from where, to where, how fast, how long.
pub struct Job {
    pub(crate) client: ClientConfig,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) source: Box<dyn Source>,
    pub(crate) schedule: Schedule,
    pub(crate) count: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) seed: u64,
}

impl Job {
    /// A job as fast as possible until the source ends or someone says stop.
    pub fn new(kafka: &KafkaArguments, topic: impl Into<String>, source: Box<dyn Source>) -> Job {
        Job {
            client: kafka.client_config(),
            brokers: kafka.brokers().to_owned(),
            topic: topic.into(),
            source,
            schedule: Schedule::new(0),
            count: None,
            duration: None,
            seed: rand::random(),
        }
    }

    /// Sends `rate` records per second; 0 for as fast as possible.
    pub fn rate(mut self, rate: u64) -> Job {
        self.schedule = Schedule::new(rate);
        self
    }

    /// Stops after `count` records.
    pub fn count(mut self, count: u64) -> Job {
        self.count = Some(count);
        self
    }

    /// Stops after `duration`: at a rate, once everything due before its end is sent (half a second of lateness is
    /// forgiven, then the rest is left out with a warning).
    pub fn duration(mut self, duration: Duration) -> Job {
        self.duration = Some(duration);
        self
    }

    /// Draws the records' keys from this seed.
    pub fn seed(mut self, seed: u64) -> Job {
        self.seed = seed;
        self
    }

    /// The brokers it sends to, for messages.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The most records that can be sent; `None` when only the source or a signal ends the run.
    fn limit(&self) -> Option<u64> {
        let within = self.duration.and_then(|duration| self.schedule.within(duration));
        self.count.into_iter().chain(within).min()
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records handed to the client, refused ones included.
    pub sent: u64,
    /// Records the broker has confirmed.
    pub delivered: u64,
    /// Records that will never be delivered.
    pub failed: u64,
    /// Since the first record was due.
    pub elapsed: Duration,
    /// The most records this run can send, when that is known.
    pub limit: Option<u64>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Records handed to the client, refused ones included.
    pub sent: u64,
    /// Records the broker has confirmed.
    pub delivered: u64,
    /// Records that were not delivered.
    pub failed: u64,
    /// What went wrong first, be it a delivery or the source (a malformed row ends the run).
    pub first_error: Option<String>,
    /// From the first record's due time to the last delivery report.
    pub elapsed: Duration,
}

impl Report {
    /// Whether everything that was to be sent was delivered.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.delivered == self.sent && self.first_error.is_none()
    }
}

/// Why the loop stopped taking records from the source.
enum End {
    /// The limit, the duration, the source's end, or a request to stop.
    Done,
    /// The source or the client cannot go on.
    Broken(String),
}

/// Runs a job to its end: waits for the broker, sends, waits for every delivery report. Blocks; call it from a
/// thread of its own where that matters. Setting `stop` ends the sending, never the accounting. `progress` is called
/// about ten times a second.
///
/// # Errors
/// When nothing could be sent at all: a configuration the client refuses, no broker within `message.timeout.ms`, a
/// topic that does not exist. Whatever happens afterwards is in the [`Report`].
pub fn run(job: Job, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> anyhow::Result<Report> {
    let sender = Sender::new(&job.client, &job.brokers, &job.topic)?;
    let limit = job.limit();
    match sender.connect(stop)? {
        Connected::Partitions(partitions) => {
            let rate = job.schedule.rate();
            tracing::info!(brokers = job.brokers, topic = job.topic, partitions, rate, "sending");
        }
        Connected::Interrupted => {
            return Ok(Report { sent: 0, delivered: 0, failed: 0, first_error: None, elapsed: Duration::ZERO });
        }
    }
    let started = Instant::now();
    let mut sending = Sending { sender: &sender, started, limit, last_progress: started, sent: 0 };
    let end = sending.send(job, stop, &mut progress);
    sender.flush(|| sending.tell(&mut progress));
    sending.tell_now(&mut progress);
    let counts = sender.counts();
    let first_error = match end {
        End::Done => counts.first_error,
        End::Broken(reason) => Some(reason),
    };
    // A record without any report has not been delivered.
    let failed = sending.sent - counts.delivered;
    Ok(Report { sent: sending.sent, delivered: counts.delivered, failed, first_error, elapsed: started.elapsed() })
}

struct Sending<'a> {
    sender: &'a Sender,
    started: Instant,
    limit: Option<u64>,
    last_progress: Instant,
    sent: u64,
}

impl Sending<'_> {
    fn send(&mut self, job: Job, stop: &AtomicBool, progress: &mut impl FnMut(&Progress)) -> End {
        let Job { mut source, schedule, duration, seed, .. } = job;
        let started = self.started;
        let limit = self.limit.unwrap_or(u64::MAX);
        let deadline = duration.map_or(Duration::MAX, |duration| match schedule.within(duration) {
            Some(_) => duration.saturating_add(LATENESS_GRACE),
            None => duration,
        });
        let give_up = || stop.load(Ordering::Relaxed) || started.elapsed() >= deadline;
        let start_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut keys = ChaCha8Rng::seed_from_u64(seed);
        keys.set_stream(KEY_STREAM);
        let mut value = Vec::with_capacity(1024);
        let mut key = uuid::Uuid::encode_buffer();

        while self.sent < limit && !stop.load(Ordering::Relaxed) {
            let elapsed = self.started.elapsed();
            if elapsed >= deadline {
                break;
            }
            let due = schedule.due_by(elapsed).min(limit);
            let batch_end = due.min(self.sent + BATCH);
            while self.sent < batch_end {
                let intended = start_time + schedule.due(self.sent).unwrap_or(elapsed);
                let intended = i64::try_from(intended.as_millis()).unwrap_or(i64::MAX);
                match source.next(intended, &mut value) {
                    Ok(true) => {}
                    Ok(false) => return End::Done,
                    Err(error) => return End::Broken(error.to_string()),
                }
                let key = crate::source::random_uuid(&mut keys).hyphenated().encode_lower(&mut key);
                match self.offer(key, &value, intended, give_up, progress) {
                    Offer::Taken | Offer::Refused => self.sent += 1,
                    Offer::Full => break,
                    Offer::Broken(reason) => return End::Broken(reason),
                }
            }
            self.sender.poll(Duration::ZERO);
            self.tell(progress);
            if batch_end == due
                && let Some(pause) = schedule.pause(self.started.elapsed(), self.sent)
            {
                std::thread::sleep(pause);
            }
        }
        if schedule.rate() > 0 && self.sent < limit && started.elapsed() >= deadline {
            let left_out = limit - self.sent;
            tracing::warn!("the broker is slower than the rate: {left_out} records that were due are left out");
        }
        End::Done
    }

    /// Offers a record until the client takes it: a full queue is waited for, never dropped from. `Full` comes back
    /// only when it is time to give up, which the loop then finds as well.
    fn offer(
        &mut self,
        key: &str,
        value: &[u8],
        timestamp: i64,
        give_up: impl Fn() -> bool,
        progress: &mut impl FnMut(&Progress),
    ) -> Offer {
        loop {
            let offer = self.sender.offer(key, value, timestamp);
            if !matches!(offer, Offer::Full) || give_up() {
                return offer;
            }
            self.sender.poll(Duration::from_millis(5));
            self.tell(progress);
        }
    }

    fn tell(&mut self, progress: &mut impl FnMut(&Progress)) {
        if self.last_progress.elapsed() >= PROGRESS_INTERVAL {
            self.tell_now(progress);
        }
    }

    fn tell_now(&mut self, progress: &mut impl FnMut(&Progress)) {
        self.last_progress = Instant::now();
        let (delivered, failed) = self.sender.tally();
        let elapsed = self.started.elapsed();
        progress(&Progress { sent: self.sent, delivered, failed, elapsed, limit: self.limit });
    }
}
