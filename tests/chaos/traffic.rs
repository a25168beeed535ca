//! An open-loop producer of numbered transactions, and what the broker said of each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

/// Where a transaction stands in the input topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// How often the topic had been made when it was sent; 0: it is not known to stand there.
    pub topic: u8,
    pub partition: i16,
    pub offset: i64,
}

pub struct Traffic {
    pub rate: AtomicU64,
    pub is_paused: AtomicBool,
    is_ended: AtomicBool,
    pub partitions: AtomicUsize,
    /// How often the input topic was made.
    pub topic: AtomicUsize,
    /// So many of the next ones have no key.
    pub keyless: AtomicUsize,
    pub sent: AtomicUsize,
    settled: AtomicUsize,
    /// By number.
    pub places: Mutex<Vec<Place>>,
    /// By topic and partition, the offset behind the last one.
    pub ends: Mutex<HashMap<(u8, i16), i64>>,
}

struct Reports(Arc<Traffic>, u8);

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        if let Ok(message) = result {
            let place = Place { topic: self.1, partition: message.partition() as i16, offset: message.offset() };
            self.0.places.lock().unwrap()[number] = place;
            let mut ends = self.0.ends.lock().unwrap();
            let end = ends.entry((place.topic, place.partition)).or_default();
            *end = (*end).max(place.offset + 1);
        }
        self.0.settled.fetch_add(1, Ordering::Relaxed);
    }
}

impl Traffic {
    pub fn start(config: &ClientConfig, topic: &str, partitions: usize, rate: u64) -> (Arc<Traffic>, JoinHandle<()>) {
        let traffic = Arc::new(Traffic {
            rate: AtomicU64::new(rate),
            is_paused: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
            partitions: AtomicUsize::new(partitions),
            topic: AtomicUsize::new(1),
            keyless: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            places: Mutex::default(),
            ends: Mutex::default(),
        });
        let (shared, mut config, topic) = (traffic.clone(), config.clone(), topic.to_owned());
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0").set("linger.ms", "20");
        config
            .set("topic.metadata.refresh.interval.ms", "500")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "1000000");
        let thread = std::thread::spawn(move || shared.run(&config, &topic));
        (traffic, thread)
    }

    /// Sends nothing from now on, and waits until the broker has answered for all that was sent.
    pub fn pause(&self, limit: Duration) -> Result<(), String> {
        self.is_paused.store(true, Ordering::SeqCst);
        // A round that is under way.
        std::thread::sleep(Duration::from_millis(100));
        let deadline = Instant::now() + limit;
        while self.settled.load(Ordering::SeqCst) < self.sent.load(Ordering::SeqCst) {
            if Instant::now() > deadline {
                return Err("the producer's records are not delivered".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    pub fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
    }

    /// Records that stand in the topic of now.
    pub fn end_of(&self, partition: i16) -> i64 {
        let topic = self.topic.load(Ordering::SeqCst) as u8;
        self.ends.lock().unwrap().get(&(topic, partition)).copied().unwrap_or(0)
    }

    fn run(self: Arc<Traffic>, config: &ClientConfig, name: &str) {
        let mut topic = self.topic.load(Ordering::SeqCst) as u8;
        let open =
            |topic| -> BaseProducer<Reports> { config.create_with_context(Reports(self.clone(), topic)).unwrap() };
        let mut producer = open(topic);
        let features: Vec<String> = (1..=28).map(|number| format!("\"V{number}\":0.5")).collect();
        let rest = format!(",{},\"Amount\":12.5}}", features.join(","));
        let (mut due, mut last, mut number) = (0.0, Instant::now(), 0);
        while !self.is_ended.load(Ordering::SeqCst) {
            producer.poll(Duration::from_millis(5));
            let passed = last.elapsed().as_secs_f64();
            last = Instant::now();
            if self.is_paused.load(Ordering::SeqCst) {
                due = 0.0;
                continue;
            }
            let now = self.topic.load(Ordering::SeqCst) as u8;
            if now != topic {
                topic = now;
                producer = open(topic);
            }
            due += passed * self.rate.load(Ordering::Relaxed) as f64;
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
            while due >= 1.0 {
                let partitions = self.partitions.load(Ordering::Relaxed);
                let payload = format!("{{\"transaction_id\":\"t{number}\",\"event_time\":{time}{rest}");
                let key = number.to_string();
                let is_keyless = self.keyless.load(Ordering::Relaxed) > 0;
                let mut record =
                    BaseRecord::with_opaque_to(name, number).partition((number % partitions) as i32).payload(&payload);
                if !is_keyless {
                    record = record.key(&key);
                }
                {
                    let mut places = self.places.lock().unwrap();
                    places.resize(number + 1, Place::default());
                }
                if producer.send(record).is_err() {
                    break;
                }
                if is_keyless {
                    self.keyless.fetch_sub(1, Ordering::Relaxed);
                }
                number += 1;
                self.sent.store(number, Ordering::SeqCst);
                due -= 1.0;
            }
        }
        let _ = producer.flush(Duration::from_secs(60));
    }
}
