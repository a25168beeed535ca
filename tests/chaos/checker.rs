//! An independent reader of all that is committed: every number, how often, in which order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

#[derive(Default)]
pub struct Seen {
    /// How often, by number.
    pub times: Vec<u8>,
    pub distinct: usize,
    pub doubled: usize,
    pub disordered: usize,
    /// The first ones that went wrong, in words.
    pub faults: Vec<String>,
    /// Verdicts; the rest are dead letters.
    pub verdicts: usize,
    /// The longest time without anything new while something was outstanding.
    pub longest_stall: Duration,
    /// The last verdict's number, by partition. Dead letters of several partitions may share one.
    last: HashMap<i32, usize>,
}

pub struct Checker {
    pub seen: Mutex<Seen>,
    pub partitions: AtomicUsize,
    /// Something is outstanding, and nothing was paused on purpose.
    pub is_expecting: AtomicBool,
    is_ended: AtomicBool,
}

impl Checker {
    pub fn start(
        client: &ClientConfig,
        output: &str,
        letters: &str,
        partitions: usize,
    ) -> (Arc<Checker>, JoinHandle<()>) {
        let checker = Arc::new(Checker {
            seen: Mutex::default(),
            partitions: AtomicUsize::new(partitions),
            is_expecting: AtomicBool::new(false),
            is_ended: AtomicBool::new(false),
        });
        let mut config = client.clone();
        config.set("group.id", "checker").set("isolation.level", "read_committed").set("enable.auto.commit", "false");
        config.set("fetch.wait.max.ms", "100").set("auto.offset.reset", "error");
        let consumer: BaseConsumer = config.create().unwrap();
        let (shared, topics) = (checker.clone(), [output.to_owned(), letters.to_owned()]);
        let thread = std::thread::spawn(move || shared.run(&consumer, &topics));
        (checker, thread)
    }

    pub fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
    }

    fn run(&self, consumer: &BaseConsumer, topics: &[String; 2]) {
        let (mut assigned, mut progress) = (0, Instant::now());
        while !self.is_ended.load(Ordering::SeqCst) {
            let partitions = self.partitions.load(Ordering::SeqCst);
            if partitions > assigned {
                let mut list = TopicPartitionList::new();
                for topic in topics {
                    for partition in assigned..partitions {
                        list.add_partition_offset(topic, partition as i32, Offset::Offset(0)).unwrap();
                    }
                }
                consumer.incremental_assign(&list).unwrap();
                assigned = partitions;
            }
            let found = consumer.poll(Duration::from_millis(100));
            if !self.is_expecting.load(Ordering::SeqCst) {
                progress = Instant::now();
            }
            let mut seen = self.seen.lock().unwrap();
            seen.longest_stall = seen.longest_stall.max(progress.elapsed());
            if let Some(Ok(message)) = found {
                progress = Instant::now();
                let is_verdict = message.topic() == topics[0];
                match number(message.payload().unwrap_or_default()) {
                    Some(number) => seen.note(number, is_verdict, message.partition(), message.offset()),
                    None => seen.fault(format!("no number in {} at {}", message.topic(), message.offset())),
                }
            }
        }
    }
}

impl Seen {
    fn fault(&mut self, fault: String) {
        if self.faults.len() < 20 {
            self.faults.push(fault);
        }
    }

    fn note(&mut self, number: usize, is_verdict: bool, partition: i32, offset: i64) {
        self.verdicts += usize::from(is_verdict);
        if self.times.len() <= number {
            self.times.resize(number + 1, 0);
        }
        self.times[number] = self.times[number].saturating_add(1);
        if self.times[number] == 1 {
            self.distinct += 1;
        } else {
            self.doubled += 1;
            self.fault(format!("t{number} once more, at {offset} of partition {partition} (verdict: {is_verdict})"));
        }
        let last = if is_verdict { self.last.insert(partition, number) } else { None };
        if last.is_some_and(|last| last > number) {
            self.disordered += 1;
            self.fault(format!("t{number} after t{last:?}, at {offset} of partition {partition}"));
        }
    }
}

/// The number in a verdict or in a transaction.
fn number(payload: &[u8]) -> Option<usize> {
    const BEFORE: &[u8] = b"\"transaction_id\":\"t";
    let begin = payload.windows(BEFORE.len()).position(|bytes| bytes == BEFORE)? + BEFORE.len();
    let digits: Vec<u8> = payload[begin..].iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}
