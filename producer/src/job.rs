//! What a run sends, and the run itself: due records in, delivery reports out.
//!
//! ```text
//! Job ─► run ─┬─► send:  due? ─► source ─► client ─► archive ─► label kept ─► labels that are known ─► client
//!             └─► fill_archive:  source ─► archive                    (no broker, no waiting)
//! ```
//!
//! In this order below: the order to send ([`Job`]), what is told about it ([`Progress`], [`Report`]), and the loops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fraud_settings::KafkaArguments;
use fraud_wire::label::write_label;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;

use crate::archive::{Archive, ArchiveError, ArchiveSettings, Closed};
use crate::delivery::{Connected, Kind, Offer, Sender};
use crate::event_time::{EventClock, milliseconds};
use crate::labels::{PendingLabel, PendingLabels};
use crate::pacing::Schedule;
use crate::scenario::Scenario;
use crate::source::{Row, Source};

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
    /// Speed of event time and its start, milliseconds since 1970-01-01 UTC; `None` for the moment of sending.
    pub(crate) event_speed: Option<(f64, Option<i64>)>,
    pub(crate) label_topic: Option<String>,
    pub(crate) label_delay: Duration,
    pub(crate) archive: Option<ArchiveSettings>,
    pub(crate) is_archive_only: bool,
    pub(crate) scenario: Option<Scenario>,
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
            event_speed: None,
            label_topic: None,
            label_delay: Duration::ZERO,
            archive: None,
            is_archive_only: false,
            scenario: None,
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

    /// Lets event time run `speed` times as fast as the schedule, from `start` (milliseconds since 1970-01-01 UTC) or
    /// from the moment at which the run begins.
    pub fn event_time(mut self, speed: f64, start: Option<i64>) -> Job {
        self.event_speed = Some((speed, start));
        self
    }

    /// Sends each row's label to `topic`, once event time has passed the row's by `delay`. The source must have labels.
    pub fn labels(mut self, topic: impl Into<String>, delay: Duration) -> Job {
        self.label_topic = Some(topic.into());
        self.label_delay = delay;
        self
    }

    /// Writes each row that is sent to an archive as well. The source must have labels.
    pub fn archive(mut self, settings: ArchiveSettings) -> Job {
        self.archive = Some(settings);
        self
    }

    /// Writes to the archive and sends nothing: no broker is asked, and nothing waits for its due moment, which gives
    /// the event time alone.
    pub fn archive_only(mut self) -> Job {
        self.is_archive_only = true;
        self
    }

    /// Lets something go wrong for a span of the run; without effect where only an archive is written.
    pub fn scenario(mut self, scenario: Scenario) -> Job {
        self.scenario = Some(scenario);
        self
    }

    /// The brokers it sends to, for messages.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// The clock of event time for a run that starts at this time of the wall clock.
    fn event_clock(&self, start_time: Duration) -> Option<EventClock> {
        self.event_speed.map(|(speed, start)| EventClock::new(start.unwrap_or_else(|| milliseconds(start_time)), speed))
    }

    /// The most records that can be sent; `None` when only the source or a signal ends the run.
    pub(crate) fn limit(&self) -> Option<u64> {
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
    /// What became of the labels, where they were to be sent.
    pub labels: Option<LabelReport>,
    /// Rows in the archive and where that is, where rows were to be archived.
    pub archived: Option<(u64, String)>,
}

/// What became of a run's labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LabelReport {
    /// Labels handed to the client, refused ones included.
    pub sent: u64,
    /// Labels that were not delivered.
    pub failed: u64,
    /// Labels of rows sent that become known only later than the run's last event time: never sent.
    pub not_yet_known: u64,
}

impl Report {
    /// Whether everything that was to be sent was delivered.
    pub fn is_complete(&self) -> bool {
        let has_labels = self.labels.is_none_or(|labels| labels.failed == 0);
        self.failed == 0 && self.delivered == self.sent && has_labels && self.first_error.is_none()
    }
}

/// Why the loop stopped taking records from the source.
enum End {
    /// The limit, the duration, the source's end, or a request to stop.
    Done,
    /// The source, the client or the archive cannot go on.
    Broken(String),
}

impl End {
    fn reason(self) -> Option<String> {
        match self {
            End::Done => None,
            End::Broken(reason) => Some(reason),
        }
    }
}

/// Runs a job to its end: waits for the broker, sends, waits for every delivery report. Blocks; call it from a
/// thread of its own where that matters. Setting `stop` ends the sending, never the accounting. `progress` is called
/// about ten times a second.
///
/// # Errors
/// When nothing could be sent at all: an archive that cannot be written to, a configuration the client refuses, no
/// broker within `message.timeout.ms`, a topic that does not exist. Whatever happens afterwards is in the [`Report`].
pub fn run(mut job: Job, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> anyhow::Result<Report> {
    let settings = job.archive.take();
    let archive = settings.map(|settings| Archive::open(&settings, job.source.names())).transpose()?;
    match archive {
        Some(archive) if job.is_archive_only => Ok(fill_archive(job, archive, stop, progress)),
        archive => send(job, archive, stop, &mut progress),
    }
}

fn send(
    job: Job,
    archive: Option<Archive>,
    stop: &AtomicBool,
    progress: &mut impl FnMut(&Progress),
) -> anyhow::Result<Report> {
    let sender = Sender::new(&job.client, &job.brokers, &job.topic, job.label_topic.as_deref())?;
    let connected = sender.connect(stop)?;
    let mut sending = Sending::new(&sender, &job, archive);
    let end = match connected {
        Connected::Partitions(partitions) => {
            let rate = job.schedule.rate();
            tracing::info!(brokers = job.brokers, topic = job.topic, partitions, rate, "sending");
            sending.send(job, stop, progress)
        }
        Connected::Interrupted => End::Done,
    };
    sender.flush(|| sending.tell(progress));
    sending.tell_now(progress);
    Ok(sending.report(end))
}

/// Writes all rows to the archive, as fast as possible.
fn fill_archive(job: Job, mut archive: Archive, stop: &AtomicBool, mut progress: impl FnMut(&Progress)) -> Report {
    let limit = job.limit();
    let start_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let clock = job.event_clock(start_time).unwrap_or_else(|| EventClock::new(milliseconds(start_time), 1.0));
    let Job { mut source, schedule, .. } = job;
    let started = Instant::now();
    let (mut row, mut rows, mut last_progress) = (Row::default(), 0, started);
    let end = loop {
        if rows >= limit.unwrap_or(u64::MAX) || stop.load(Ordering::Relaxed) {
            break End::Done;
        }
        match source.next(clock.at(schedule.due(rows).unwrap_or_default()), &mut row) {
            Ok(true) => {}
            Ok(false) => break End::Done,
            Err(error) => break End::Broken(error.to_string()),
        }
        if let Err(error) = archive.add(&row, source.as_ref()) {
            break End::Broken(error.to_string());
        }
        rows += 1;
        if rows % BATCH == 0 && last_progress.elapsed() >= PROGRESS_INTERVAL {
            last_progress = Instant::now();
            // Written counts as delivered: it is as far as these rows go.
            progress(&Progress { sent: rows, delivered: rows, failed: 0, elapsed: started.elapsed(), limit });
        }
    };
    let (archived, error) = close(archive);
    let first_error = end.reason().or(error);
    let elapsed = started.elapsed();
    Report { sent: 0, delivered: 0, failed: 0, first_error, elapsed, labels: None, archived: Some(archived) }
}

/// Where the row that is due at `due` comes from.
fn source_at<'a>(due: Duration, scenario: &'a mut Option<Scenario>, own: &'a mut dyn Source) -> &'a mut dyn Source {
    match scenario {
        Some(scenario) => scenario.source(due, own),
        None => own,
    }
}

/// Closes an archive: its rows and its place, and what went wrong.
fn close(archive: Archive) -> ((u64, String), Option<String>) {
    let location = archive.location();
    let Closed { rows, error } = archive.close();
    ((rows, location), error.map(|error: ArchiveError| error.to_string()))
}

struct Sending<'a> {
    sender: &'a Sender,
    started: Instant,
    /// The wall clock at `started`, since 1970-01-01 UTC.
    start_time: Duration,
    limit: Option<u64>,
    last_progress: Instant,
    sent: u64,
    /// `None` where event time is the moment of sending.
    event_clock: Option<EventClock>,
    /// `None` where labels are not sent.
    labels: Option<Labels>,
    /// `None` where rows are not archived.
    archive: Option<Archive>,
}

/// The labels on their way, and the buffers they are written into.
struct Labels {
    pending: PendingLabels,
    /// Event time from a row to its label, in milliseconds.
    delay: i64,
    sent: u64,
    identifier: String,
    value: Vec<u8>,
}

impl Sending<'_> {
    fn new<'a>(sender: &'a Sender, job: &Job, archive: Option<Archive>) -> Sending<'a> {
        let started = Instant::now();
        let start_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let limit = job.limit();
        let event_clock = job.event_clock(start_time);
        // The last row's event time, where the schedule gives it; a file's own times may go anywhere.
        let last_due = limit.filter(|_| !job.source.has_event_times()).and_then(|limit| limit.checked_sub(1));
        let last_event_time = last_due.and_then(|last| job.schedule.due(last)).map(|due| match event_clock {
            Some(clock) => clock.at(due),
            None => milliseconds(start_time + due),
        });
        let labels = job.label_topic.as_ref().map(|_| Labels {
            pending: PendingLabels::new(last_event_time.unwrap_or(i64::MAX)),
            delay: milliseconds(job.label_delay),
            sent: 0,
            identifier: String::new(),
            value: Vec::new(),
        });
        Sending { sender, started, start_time, limit, last_progress: started, sent: 0, event_clock, labels, archive }
    }

    fn send(&mut self, job: Job, stop: &AtomicBool, progress: &mut impl FnMut(&Progress)) -> End {
        let Job { mut source, schedule, duration, seed, mut scenario, .. } = job;
        let started = self.started;
        let limit = self.limit.unwrap_or(u64::MAX);
        let deadline = duration.map_or(Duration::MAX, |duration| match schedule.within(duration) {
            Some(_) => duration.saturating_add(LATENESS_GRACE),
            None => duration,
        });
        let give_up = || stop.load(Ordering::Relaxed) || started.elapsed() >= deadline;
        let mut keys = ChaCha8Rng::seed_from_u64(seed);
        keys.set_stream(KEY_STREAM);
        let mut row = Row { value: Vec::with_capacity(1024), ..Row::default() };
        let mut text = uuid::Uuid::encode_buffer();

        while self.sent < limit && !stop.load(Ordering::Relaxed) {
            let elapsed = self.started.elapsed();
            if elapsed >= deadline {
                break;
            }
            let due = schedule.due_by(elapsed).min(limit);
            let due = scenario.as_ref().map_or(due, |scenario| scenario.released(schedule, elapsed, due));
            let batch_end = due.min(self.sent + BATCH);
            while self.sent < batch_end {
                let due = schedule.due(self.sent).unwrap_or(elapsed);
                let timestamp = milliseconds(self.start_time + due);
                let event_time = self.event_clock.map_or(timestamp, |clock| clock.at(due));
                match source_at(due, &mut scenario, source.as_mut()).next(event_time, &mut row) {
                    Ok(true) => {}
                    Ok(false) => return End::Done,
                    Err(error) => return End::Broken(error.to_string()),
                }
                let is_spoiled = scenario.as_mut().is_some_and(|scenario| scenario.spoil(due, &mut row.value));
                let key = crate::source::random_uuid(&mut keys);
                let key_text = key.hyphenated().encode_lower(&mut text);
                match self.offer(Kind::Transaction, key_text, &row.value, timestamp, give_up, progress) {
                    Offer::Taken => {
                        self.sent += 1;
                        // What is no transaction is no row of an archive, and nobody learns whether it was fraud.
                        if is_spoiled {
                            continue;
                        }
                        if let Some(archive) = &mut self.archive
                            && let Err(error) = archive.add(&row, source_at(due, &mut scenario, source.as_mut()))
                        {
                            return End::Broken(error.to_string());
                        }
                        if let Err(end) = self.label(&row, key, timestamp, give_up, progress) {
                            return end;
                        }
                    }
                    Offer::Refused => self.sent += 1,
                    Offer::Full => break,
                    Offer::Broken(reason) => return End::Broken(reason),
                }
            }
            self.sender.poll(Duration::ZERO);
            self.tell(progress);
            if batch_end == due {
                let elapsed = self.started.elapsed();
                let held_back = scenario.as_ref().and_then(|scenario| scenario.pause(elapsed));
                if let Some(pause) = held_back.or_else(|| schedule.pause(elapsed, self.sent)) {
                    std::thread::sleep(pause);
                }
            }
        }
        if schedule.rate() > 0 && self.sent < limit && started.elapsed() >= deadline {
            let left_out = limit - self.sent;
            tracing::warn!("the broker is slower than the rate: {left_out} records that were due are left out");
        }
        End::Done
    }

    /// Notes a sent row's label, then sends every label that is known by the row's event time.
    fn label(
        &mut self,
        row: &Row,
        key: uuid::Uuid,
        timestamp: i64,
        give_up: impl Fn() -> bool + Copy,
        progress: &mut impl FnMut(&Progress),
    ) -> Result<(), End> {
        let Some(mut labels) = self.labels.take() else { return Ok(()) };
        let end = match labels.note(row, key, self.sent) {
            Ok(()) => self.send_known(&mut labels, timestamp, give_up, progress),
            Err(reason) => Err(End::Broken(reason)),
        };
        self.labels = Some(labels);
        end
    }

    /// What the client does not take before it is time to give up stays unsent.
    fn send_known(
        &mut self,
        labels: &mut Labels,
        timestamp: i64,
        give_up: impl Fn() -> bool + Copy,
        progress: &mut impl FnMut(&Progress),
    ) -> Result<(), End> {
        let mut key_text = uuid::Uuid::encode_buffer();
        while let Some(known) = labels.pending.next_known() {
            let key = known.key.hyphenated().encode_lower(&mut key_text);
            labels.write(&known);
            match self.offer(Kind::Label, key, &labels.value, timestamp, give_up, progress) {
                Offer::Taken | Offer::Refused => {
                    labels.pending.sent();
                    labels.sent += 1;
                }
                Offer::Full => return Ok(()),
                Offer::Broken(reason) => return Err(End::Broken(reason)),
            }
        }
        Ok(())
    }

    /// Offers a record until the client takes it: a full queue is waited for, never dropped from. `Full` comes back
    /// only when it is time to give up, which the loop then finds as well.
    fn offer(
        &mut self,
        kind: Kind,
        key: &str,
        value: &[u8],
        timestamp: i64,
        give_up: impl Fn() -> bool,
        progress: &mut impl FnMut(&Progress),
    ) -> Offer {
        loop {
            let offer = self.sender.offer(kind, key, value, timestamp);
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
        let (delivered, failed) = self.sender.tally(Kind::Transaction);
        let elapsed = self.started.elapsed();
        progress(&Progress { sent: self.sent, delivered, failed, elapsed, limit: self.limit });
    }

    fn report(self, end: End) -> Report {
        let elapsed = self.started.elapsed();
        let (archived, archive_error) = self.archive.map(close).unzip();
        let first_error = end.reason().or_else(|| self.sender.first_error()).or(archive_error.flatten());
        let (delivered, _) = self.sender.tally(Kind::Transaction);
        let labels = self.labels.map(|labels| LabelReport {
            sent: labels.sent,
            failed: labels.sent - self.sender.tally(Kind::Label).0,
            not_yet_known: labels.pending.not_yet_known(),
        });
        // A record without any report has not been delivered.
        let failed = self.sent - delivered;
        Report { sent: self.sent, delivered, failed, first_error, elapsed, labels, archived }
    }
}

impl Labels {
    /// Takes note of a sent row: its label waits, and event time is where the row is.
    fn note(&mut self, row: &Row, key: uuid::Uuid, index: u64) -> Result<(), String> {
        let (Some(transaction), Some(label)) = (row.transaction, row.label) else {
            return Err("the source has no labels to send: leave out --label-topic".to_owned());
        };
        let known_at = row.event_time.saturating_add(self.delay);
        let pending = PendingLabel { known_at, row: index, key, transaction, label };
        self.pending.add(pending).map_err(|error| error.to_string())?;
        self.pending.advance(row.event_time);
        Ok(())
    }

    fn write(&mut self, known: &PendingLabel) {
        use std::fmt::Write as _;
        self.identifier.clear();
        // Writing to a String cannot fail.
        _ = write!(self.identifier, "{}", known.transaction);
        self.value.clear();
        write_label(&mut self.value, &self.identifier, known.label, known.known_at);
    }
}
