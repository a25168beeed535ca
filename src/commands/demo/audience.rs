//! The demo's audience: a consumer of its own group that believes nothing and counts every verdict.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fraud_wire::dead_letter::headers;
use fraud_wire::verdict::{Decision, Verdict};
use hdrhistogram::Histogram;
use rdkafka::ClientConfig;

use crate::kafka::batch::{Entry, Record};
use crate::kafka::client::{self, Events};
use crate::kafka::consumer::NativeConsumer;
use crate::log_events;

/// How many verdicts of each decision are kept to be shown.
const EXAMPLES: usize = 2;

/// What was seen on the output topics.
pub struct Audience {
    consumer: NativeConsumer<Events>,
    dead_letter_topic: String,
    /// How often each source record was seen, by partition and offset.
    seen: HashMap<i32, Vec<u8>>,
    records: u64,
    doubled: u64,
    decisions: [u64; 3],
    dead_letters: u64,
    latency: Histogram<u64>,
    examples: HashMap<Decision, Vec<String>>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Audience {
    /// Subscribes from the beginning of both topics.
    pub fn subscribe(kafka: &ClientConfig, verdicts: &str, dead_letters: &str) -> anyhow::Result<Audience> {
        let mut base = kafka.clone();
        base.set("statistics.interval.ms", "0");
        let config = client::consumer_config(&base, "fraud-scorer-demo-audience", 0, 1);
        let consumer = client::lone_consumer(&config, Arc::default())?;
        consumer.subscribe(&[verdicts, dead_letters])?;
        Ok(Audience {
            consumer,
            dead_letter_topic: dead_letters.to_owned(),
            seen: HashMap::new(),
            records: 0,
            doubled: 0,
            decisions: [0; 3],
            dead_letters: 0,
            // Microseconds would pretend: event times are in milliseconds.
            latency: Histogram::new_with_bounds(1, 600_000, 3)?,
            examples: HashMap::new(),
            first: None,
            last: None,
        })
    }

    /// Reads what comes within `time`.
    pub fn watch(&mut self, time: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + time;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(polled) = self.consumer.poll(left) else {
                if left.is_zero() {
                    return Ok(());
                }
                continue;
            };
            match polled.entry() {
                Entry::Record(record) => self.count(Seen::read(&record, &self.dead_letter_topic)?),
                Entry::End { .. } => {}
                Entry::Error { reason, .. } => log_events::kafka::AudienceEvent { error: &reason }.log(),
            }
        }
    }

    fn count(&mut self, seen: Seen) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
        let slots = self.seen.entry(seen.partition).or_default();
        let offset = usize::try_from(seen.offset).unwrap_or(0);
        if slots.len() <= offset {
            slots.resize(offset + 1, 0);
        }
        slots[offset] = slots[offset].saturating_add(1);
        match slots[offset] {
            1 => self.records += 1,
            _ => self.doubled += 1,
        }
        let Some(verdict) = seen.verdict else {
            self.dead_letters += 1;
            return;
        };
        self.decisions[verdict.decision as usize] += 1;
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as i64);
        self.latency.saturating_record(u64::try_from(wall - verdict.event_time).unwrap_or(0).max(1));
        let examples = self.examples.entry(verdict.decision).or_default();
        if examples.len() < EXAMPLES {
            examples.push(seen.text);
        }
    }

    /// Source records seen at least once.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Delivered transactions without verdict or dead letter.
    pub fn lost(&self, delivered: u64) -> u64 {
        delivered.saturating_sub(self.records)
    }

    /// Verdicts and dead letters beyond the first of a record.
    pub fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Verdicts of a decision.
    pub fn verdicts(&self, decision: Decision) -> u64 {
        self.decisions[decision as usize]
    }

    /// Dead letters.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters
    }

    /// Latency in milliseconds at a quantile, from intended send time to receipt here.
    pub fn latency(&self, quantile: f64) -> u64 {
        self.latency.value_at_quantile(quantile)
    }

    /// A handful of verdicts as they were read.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        Decision::ALL.iter().filter_map(|decision| self.examples.get(decision)).flatten().map(String::as_str)
    }

    /// Records per second from the first to the last.
    pub fn rate(&self) -> f64 {
        match (self.first, self.last) {
            (Some(first), Some(last)) if last > first => self.records as f64 / (last - first).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// One message of an output topic, understood.
struct Seen {
    partition: i32,
    offset: i64,
    verdict: Option<Verdict>,
    text: String,
}

impl Seen {
    fn read(record: &Record<'_>, dead_letter_topic: &str) -> anyhow::Result<Seen> {
        if record.topic() == dead_letter_topic {
            let headers = record.headers();
            let number = |name: &str| -> Option<i64> {
                let (_, value) = headers.iter().find(|(header, _)| header == name)?;
                std::str::from_utf8((*value)?).ok()?.parse().ok()
            };
            let place = number(headers::SOURCE_PARTITION).zip(number(headers::SOURCE_OFFSET));
            let (partition, offset) = place.ok_or_else(|| anyhow::anyhow!("a dead letter without its source"))?;
            return Ok(Seen { partition: partition as i32, offset, verdict: None, text: String::new() });
        }
        let payload = record.payload().unwrap_or_default();
        let verdict: Verdict = serde_json::from_slice(payload)?;
        let text = String::from_utf8_lossy(payload).into_owned();
        Ok(Seen { partition: verdict.source.partition, offset: verdict.source.offset, verdict: Some(verdict), text })
    }
}
