//! The models and the records, as `benches/workload/make.py` made them, and how they get into a topic.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::{Deserialize, Serialize};

use crate::root;
use crate::topics::PARTITIONS;

/// The two models of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Model {
    /// Logistic regression behind a scaler.
    Lr,
    /// XGBoost, 200 trees of depth 6.
    Xgb,
}

impl Model {
    /// Both.
    pub const ALL: [Model; 2] = [Model::Lr, Model::Xgb];

    /// As files and tables say it.
    pub fn name(self) -> &'static str {
        match self {
            Model::Lr => "lr",
            Model::Xgb => "xgb",
        }
    }

    /// As charts say it.
    pub fn title(self) -> &'static str {
        match self {
            Model::Lr => "logistic regression",
            Model::Xgb => "XGBoost, 200 trees of depth 6",
        }
    }

    /// Its bundle's directory.
    pub fn bundle(self) -> PathBuf {
        folder().join(self.name())
    }

    /// Its ONNX file.
    pub fn onnx(self) -> PathBuf {
        self.bundle().join("model.onnx")
    }
}

fn folder() -> PathBuf {
    root().join(".runtime/bench")
}

/// The distinct records, in memory.
pub struct Records {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Records {
    /// Reads them; panics with what to do where there are none.
    pub fn read() -> Records {
        let path = folder().join("records.jsonl");
        let text = std::fs::read(&path)
            .unwrap_or_else(|error| panic!("{}: {error}; scripts/bench.sh makes them", path.display()));
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
        Records { text, ends }
    }

    /// The record of number `number` in an endless repetition of them all.
    pub fn get(&self, number: u64) -> &[u8] {
        let line = (number % self.ends.len() as u64) as usize;
        let start = if line == 0 { 0 } else { self.ends[line - 1] + 1 };
        &self.text[start..self.ends[line]]
    }

    /// Writes the first `count` of that repetition to a file, one a line.
    pub fn write(&self, path: &Path, count: u64) {
        let mut file = BufWriter::new(File::create(path).unwrap());
        for number in 0..count {
            file.write_all(self.get(number)).unwrap();
            file.write_all(b"\n").unwrap();
        }
        file.flush().unwrap();
    }

    /// Mean length.
    pub fn mean_bytes(&self) -> f64 {
        (self.text.len() - self.ends.len()) as f64 / self.ends.len() as f64
    }
}

/// Writes records to a topic as fast as it takes them: record n to partition n mod [`PARTITIONS`], keyed by n.
pub struct Loader<'a> {
    records: &'a Records,
    producer: BaseProducer,
    topic: &'a str,
    next: u64,
}

impl<'a> Loader<'a> {
    pub fn new(brokers: &str, topic: &'a str, records: &'a Records) -> Loader<'a> {
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("linger.ms", "50").set("batch.size", "900000");
        config.set("batch.num.messages", "10000").set("queue.buffering.max.messages", "200000");
        config.set("delivery.report.only.error", "true");
        Loader { records, producer: config.create().unwrap(), topic, next: 0 }
    }

    /// Sends `count` more.
    pub fn send(&mut self, count: u64) {
        let mut key = itoa::Buffer::new();
        for number in self.next..self.next + count {
            let mut message = BaseRecord::to(self.topic)
                .partition((number % u64::from(PARTITIONS.unsigned_abs())) as i32)
                .key(key.format(number).as_bytes())
                .payload(self.records.get(number));
            loop {
                match self.producer.send(message) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                        message = again;
                        self.producer.poll(Duration::from_millis(5));
                    }
                    Err((error, _)) => panic!("loading {}: {error}", self.topic),
                }
            }
            if number % 1000 == 0 {
                self.producer.poll(Duration::ZERO);
            }
        }
        self.next += count;
    }

    /// Waits until all is delivered.
    pub fn finish(&self) {
        self.producer.flush(Duration::from_secs(120)).unwrap();
    }
}

/// Loads `count` records into `topic`; says how long it took.
pub fn load(brokers: &str, topic: &str, records: &Records, count: u64) {
    let began = Instant::now();
    let mut loader = Loader::new(brokers, topic, records);
    loader.send(count);
    loader.finish();
    eprintln!(
        "loaded {count} records of {:.0} bytes into {PARTITIONS} partitions in {:.1} s",
        records.mean_bytes(),
        began.elapsed().as_secs_f64()
    );
}
