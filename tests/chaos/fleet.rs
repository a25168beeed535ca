//! The workers and the archive as processes, and a sampler that looks for those who say they are ready and do not work.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::support::process::{Running, scorer};
use super::support::topics::Topics;
use super::traffic::Traffic;

/// How long committed offsets may stand still under lag while the worker says that it is ready.
const STANDS_STILL: Duration = Duration::from_secs(5);

/// For how long a worker may drain.
const DRAIN: Duration = Duration::from_secs(60);

pub struct Member {
    pub name: String,
    pub running: Running,
    address: String,
    is_frozen: bool,
}

pub struct Fleet {
    pub topics: Topics,
    proxied: String,
    guarantee: &'static str,
    pub members: Mutex<Vec<Member>>,
    started: AtomicUsize,
    /// Where the clock of the first member is set, if it can be.
    pub clock: Option<PathBuf>,
    /// Who reads which partition, as the group says.
    pub owners: Mutex<HashMap<i32, String>>,
    pub committed: Mutex<HashMap<i32, i64>>,
    pub samples: AtomicUsize,
    /// How often committed offsets were looked at.
    pub looks: AtomicUsize,
    /// Samples of a worker that says it is ready and does not work.
    pub idle: Mutex<Vec<String>>,
    /// Since when a worker says that it is ready, asked once a second.
    ready: Mutex<HashMap<String, Instant>>,
    /// Those of them that stood still for twice as long as that takes: these fail a run.
    pub long_idle: Mutex<Vec<String>>,
    is_ended: AtomicBool,
}

/// The library that fakes a process's clock.
pub fn faketime() -> Option<&'static str> {
    const PATHS: [&str; 2] = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    ];
    PATHS.into_iter().find(|path| std::path::Path::new(path).exists())
}

impl Fleet {
    pub fn new(topics: Topics, proxied: String, guarantee: &'static str, clock: Option<PathBuf>) -> Fleet {
        if let Some(clock) = &clock {
            std::fs::write(clock, "+0").unwrap();
        }
        Fleet {
            topics,
            proxied,
            guarantee,
            members: Mutex::default(),
            started: AtomicUsize::new(0),
            clock,
            owners: Mutex::default(),
            committed: Mutex::default(),
            samples: AtomicUsize::new(0),
            looks: AtomicUsize::new(0),
            idle: Mutex::default(),
            ready: Mutex::default(),
            long_idle: Mutex::default(),
            is_ended: AtomicBool::new(false),
        }
    }

    /// Starts one more worker; does not wait until it is ready.
    pub fn start(&self) {
        let number = self.started.fetch_add(1, Ordering::SeqCst);
        let name = format!("w{number}");
        let mut command = scorer();
        command.args(["run", "--brokers", &self.proxied, "--group", &self.topics.group, "--http", "127.0.0.1:0"]);
        command.args(["--input-topic", &self.topics.input, "--output-topic", &self.topics.output]);
        command.args(["--dead-letter-topic", &self.topics.dead_letter, "--guarantee", self.guarantee]);
        command.args(["--instance-id", &name, "-X", &format!("client.id={name}")]);
        command.args(["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=1000"]);
        command.args(["-X", "topic.metadata.refresh.interval.ms=2000"]);
        if let Some((clock, library)) = self.clock.as_ref().zip(faketime()).filter(|_| number == 0) {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_CACHE_DURATION", "1");
            // What a clock that is set does not touch.
            command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        }
        let mut running = Running::start(command);
        let address = running.http_address();
        self.members.lock().unwrap().push(Member { name, running, address, is_frozen: false });
    }

    pub fn len(&self) -> usize {
        self.members.lock().unwrap().len()
    }

    pub fn name(&self, index: usize) -> String {
        self.members.lock().unwrap()[index].name.clone()
    }

    pub fn kill(&self, index: usize) {
        let member = self.members.lock().unwrap().remove(index);
        member.running.kill();
    }

    /// Stops or continues a worker as it stands.
    pub fn freeze(&self, index: usize, is_frozen: bool) {
        let mut members = self.members.lock().unwrap();
        members[index].running.signal(if is_frozen { "-STOP" } else { "-CONT" });
        members[index].is_frozen = is_frozen;
    }

    /// SIGTERM. It has drained (0), or says that work was thrown away just then, which is read again (1).
    pub fn drain(&self, index: usize) -> Result<(), String> {
        let member = self.members.lock().unwrap().remove(index);
        member.running.terminate();
        let output = member.running.finish(DRAIN);
        let says_so = String::from_utf8_lossy(&output.stderr).contains("it is read again at the next start");
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1) if says_so => Ok(()),
            code => Err(format!(
                "{} ended with {code:?} when it was asked to stop:\n{}",
                member.name,
                tail(&String::from_utf8_lossy(&output.stderr))
            )),
        }
    }

    /// Records that were gone before they were read, as the workers count them.
    pub fn gone(&self) -> f64 {
        let metrics = |member: &Member| get(&member.address, "/metrics").map(|(_, text)| text).unwrap_or_default();
        let texts: Vec<String> = self.members.lock().unwrap().iter().map(metrics).collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .filter(|line| line.starts_with("fraud_scorer_records_gone_total{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Every worker's word on why it is not ready, and its last lines.
    pub fn state(&self) -> String {
        let mut state = String::new();
        for member in self.members.lock().unwrap().iter() {
            let ready = if member.is_frozen { None } else { get(&member.address, "/readyz") };
            state += &format!("--- {} {ready:?}\n{}\n", member.name, tail(&member.running.log()));
        }
        state
    }

    pub fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
    }

    /// Looks at the workers once a second.
    pub fn sample(self: &Arc<Fleet>, client: &ClientConfig, traffic: &Arc<Traffic>) -> JoinHandle<()> {
        let (fleet, traffic, mut config) = (self.clone(), traffic.clone(), client.clone());
        // Offsets that a dead member's transaction may still replace are as good as any here.
        config.set("group.id", &self.topics.group).set("isolation.level", "read_uncommitted");
        std::thread::spawn(move || {
            let once_a_second = |mut look: Box<dyn FnMut() + '_>| {
                while !fleet.is_ended.load(Ordering::SeqCst) {
                    let began = Instant::now();
                    look();
                    std::thread::sleep(Duration::from_secs(1).saturating_sub(began.elapsed()));
                }
            };
            let consumer: BaseConsumer = config.create().unwrap();
            let mut moved = HashMap::new();
            std::thread::scope(|scope| {
                // By itself: brokers that do not answer must not make the samples fewer.
                scope.spawn(|| once_a_second(Box::new(|| fleet.ask_ready())));
                once_a_second(Box::new(|| fleet.look(&consumer, &traffic, &mut moved)));
            });
        })
    }

    /// Asks every worker that runs whether it is ready.
    fn ask_ready(&self) {
        // Asked without holding the lock: a process may answer late.
        let asked: Vec<(String, String)> = {
            let members = self.members.lock().unwrap();
            members.iter().filter(|member| !member.is_frozen).map(|m| (m.name.clone(), m.address.clone())).collect()
        };
        self.ready.lock().unwrap().retain(|name, _| asked.iter().any(|(asked, _)| asked == name));
        for (name, address) in asked {
            self.samples.fetch_add(1, Ordering::Relaxed);
            let is_ready = get(&address, "/readyz").is_some_and(|(status, _)| status == 200);
            let mut ready = self.ready.lock().unwrap();
            if is_ready {
                ready.entry(name).or_insert_with(Instant::now);
            } else {
                ready.remove(&name);
            }
        }
    }

    /// What cannot be asked is as it was, and nothing is said of those who may have gone on meanwhile.
    fn look(&self, consumer: &BaseConsumer, traffic: &Traffic, moved: &mut HashMap<i32, (Standing, Instant)>) {
        let partitions = traffic.partitions.load(Ordering::SeqCst) as i32;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition(&self.topics.input, partition);
        }
        let committed = consumer.committed_offsets(list, Duration::from_secs(2));
        let mut is_known = committed.is_ok();
        if let Ok(found) = committed {
            let mut committed = self.committed.lock().unwrap();
            for element in found.elements() {
                match element.offset() {
                    Offset::Offset(offset) => committed.insert(element.partition(), offset),
                    _ => committed.remove(&element.partition()),
                };
            }
        }
        if let Ok(groups) = consumer.fetch_group_list(Some(&self.topics.group), Duration::from_secs(2))
            && let Some(group) = groups.groups().first()
        {
            let mut owners = self.owners.lock().unwrap();
            owners.clear();
            for member in group.members() {
                for partition in assigned(member.assignment().unwrap_or_default(), &self.topics.input) {
                    owners.insert(partition, member.client_id().to_owned());
                }
            }
        } else {
            is_known = false;
        }
        self.looks.fetch_add(1, Ordering::SeqCst);
        let now = Instant::now();
        for partition in 0..partitions {
            let standing = (
                self.committed.lock().unwrap().get(&partition).copied().unwrap_or(0),
                self.owners.lock().unwrap().get(&partition).cloned(),
            );
            let has_lag = traffic.end_of(partition as i16) > standing.0;
            let entry = moved.entry(partition).or_insert_with(|| (standing.clone(), now));
            if entry.0 != standing || !has_lag {
                *entry = (standing, now);
            }
        }
        if !is_known {
            return;
        }
        let ready = self.ready.lock().unwrap().clone();
        for (name, since) in ready {
            let stood = |moved: Instant| now.duration_since(moved.max(since));
            let stands_still = moved
                .iter()
                .find(|(_, ((_, owner), moved))| owner.as_ref() == Some(&name) && stood(*moved) >= STANDS_STILL);
            let Some((partition, ((committed, _), moved))) = stands_still else { continue };
            let (end, seconds) = (traffic.end_of(*partition as i16), stood(*moved).as_secs_f64());
            let idle =
                format!("{name} is ready; partition {partition} stands at {committed} of {end} for {seconds:.0} s");
            let members = self.members.lock().unwrap();
            let log = members.iter().find(|member| member.name == name).map(|member| tail(&member.running.log()));
            println!("{idle}\n{}", log.unwrap_or_default());
            if stood(*moved) >= 2 * STANDS_STILL {
                self.long_idle.lock().unwrap().push(idle.clone());
            }
            self.idle.lock().unwrap().push(idle);
        }
    }
}

/// What is committed of a partition, and who reads it.
type Standing = (i64, Option<String>);

/// The partitions of a topic in a member's assignment (the consumer protocol's own format).
fn assigned(bytes: &[u8], wanted: &str) -> Vec<i32> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut take = |count: usize| -> &[u8] {
        let (taken, left) = rest.split_at(count.min(rest.len()));
        rest = left;
        taken
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte));
    let mut partitions = Vec::new();
    for _ in 0..number(take(4)) {
        let length = number(take(2)) as usize;
        let is_wanted = take(length) == wanted.as_bytes();
        for _ in 0..number(take(4)) {
            let partition = number(take(4)) as i32;
            if is_wanted {
                partitions.push(partition);
            }
        }
    }
    partitions
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// GET: status and body; `None` where no answer comes within two seconds.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let address: SocketAddr = address.parse().ok()?;
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
