//! The faults: each is injected, checked to have happened, and healed.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Random;
use super::archiver::Archiver;
use super::checker::Checker;
use super::cluster::Cluster;
use super::fleet::{Fleet, faketime};
use super::proxy::Network;
use super::support::broker::quota;
use super::traffic::Traffic;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Fault {
    WorkerKilled,
    WorkerFrozen,
    ArchiveKilled,
    RollingRestart,
    LeaderKilled,
    CoordinatorKilled,
    NetworkCut,
    NetworkSlow,
    NetworkNarrow,
    Scaled,
    PartitionsAdded,
    TopicMadeAgain,
    RetentionOvertakes,
    DiskFull,
    Quota,
    MessageRefused,
    ClockJumped,
}

use Fault::*;

impl Fault {
    /// For the table.
    pub fn words(self) -> &'static str {
        match self {
            WorkerKilled => "worker killed (SIGKILL)",
            WorkerFrozen => "worker frozen beyond its session (SIGSTOP)",
            ArchiveKilled => "archive killed (SIGKILL)",
            RollingRestart => "rolling restart of the brokers",
            LeaderKilled => "leader of an input partition killed",
            CoordinatorKilled => "transaction coordinator killed in mid-transaction",
            NetworkCut => "network between workers and brokers cut",
            NetworkSlow => "network delayed",
            NetworkNarrow => "network narrowed",
            Scaled => "workers scaled 1 → 4 → 3",
            PartitionsAdded => "partitions added, the input's first",
            TopicMadeAgain => "input topic deleted and made again",
            RetentionOvertakes => "retention overtakes the group",
            DiskFull => "a broker's disk full",
            Quota => "a quota on a worker's client",
            MessageRefused => "messages that the output topic refuses",
            ClockJumped => "one worker's clock jumps",
        }
    }
}

/// Everything that runs.
pub struct World {
    pub cluster: Cluster,
    pub fleet: Arc<Fleet>,
    pub traffic: Arc<Traffic>,
    pub checker: Arc<Checker>,
    pub archiver: Archiver,
    /// Records that may be lost, since the log lost them: topic, partition (all where `None`), below.
    pub excused: Vec<(u8, Option<i16>, i64)>,
}

const LIMIT: Duration = Duration::from_secs(120);

/// Polls until `ready`, or says what did not come.
pub fn wait(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    while !ready() {
        if Instant::now() > deadline {
            return Err(format!("{what}: not within {limit:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

impl World {
    /// Records in the log that are not committed.
    pub fn lag(&self) -> i64 {
        let committed = self.fleet.committed.lock().unwrap().clone();
        let partitions = self.traffic.partitions.load(Ordering::SeqCst) as i32;
        let lag = |partition: i32| {
            (self.traffic.end_of(partition as i16) - committed.get(&partition).copied().unwrap_or(0)).max(0)
        };
        (0..partitions).map(lag).sum()
    }

    /// Waits until the workers have caught up.
    pub fn recover(&self) -> Result<Duration, String> {
        let began = Instant::now();
        // Committed offsets are looked at once a second: one look that began after this.
        let looks = self.fleet.looks.load(Ordering::SeqCst) + 2;
        wait("a look", LIMIT, || self.fleet.looks.load(Ordering::SeqCst) >= looks)?;
        let most = 2 * self.traffic.rate.load(Ordering::Relaxed) as i64;
        let sent = || self.traffic.sent.load(Ordering::Relaxed);
        let before = sent();
        wait("transactions are sent", LIMIT, || sent() > before)?;
        wait("the workers catch up", LIMIT, || self.lag() <= most)
            .map_err(|error| format!("{error}: lag {}\n{}", self.lag(), self.fleet.state()))?;
        Ok(began.elapsed())
    }

    pub fn inject(&mut self, fault: Fault, random: &mut Random) -> Result<(), String> {
        let some = |random: &mut Random, from: u64, to: u64| Duration::from_millis(random.between(from, to));
        match fault {
            WorkerKilled => {
                let victim = random.below(self.fleet.len());
                self.fleet.kill(victim);
                std::thread::sleep(some(random, 0, 8_000));
                self.fleet.start();
            }
            WorkerFrozen => {
                let victim = random.below(self.fleet.len());
                let name = self.fleet.name(victim);
                self.fleet.freeze(victim, true);
                // Its session ends after six seconds.
                std::thread::sleep(Duration::from_secs(7));
                let put_out = wait("the group goes on without the frozen worker", LIMIT, || {
                    !self.fleet.owners.lock().unwrap().values().any(|owner| *owner == name)
                });
                std::thread::sleep(some(random, 0, 4_000));
                self.fleet.freeze(victim, false);
                put_out?;
            }
            ArchiveKilled => {
                self.archiver.kill();
                std::thread::sleep(some(random, 0, 3_000));
                self.archiver.start();
            }
            RollingRestart => {
                for index in 0..3 {
                    self.cluster.nodes[index].stop()?;
                    self.cluster.nodes[index].start();
                    self.cluster.nodes[index].wait_until_up();
                    self.cluster.wait_until_whole(LIMIT)?;
                }
            }
            LeaderKilled => {
                let partition = random.below(self.traffic.partitions.load(Ordering::SeqCst)) as i32;
                let leader = self.cluster.leader(&self.fleet.topics.input, partition).ok_or("no leader is known")?;
                self.restart(leader, some(random, 500, 8_000))?;
            }
            CoordinatorKilled => {
                let name = self.fleet.name(random.below(self.fleet.len()));
                let group = &self.fleet.topics.group;
                let id = format!("{group}-{name}-0-{}-{}", group.len(), random.below(2));
                let partition = java_hash(&id).unsigned_abs() % 6;
                let topic = "__transaction_state";
                let Some(leader) = self.cluster.leader(topic, partition as i32) else {
                    return Err(format!("{topic} [{partition}] has no leader"));
                };
                self.restart(leader, some(random, 500, 8_000))?;
            }
            NetworkCut => {
                let which: Vec<usize> = if random.below(2) == 0 { vec![random.below(3)] } else { vec![0, 1, 2] };
                which.iter().for_each(|&index| self.cluster.proxies[index].set(Network::Cut));
                std::thread::sleep(Duration::from_millis(500));
                let passed: u64 = which.iter().map(|&index| self.cluster.proxies[index].passed()).sum();
                std::thread::sleep(some(random, 1_000, 12_000));
                let after: u64 = which.iter().map(|&index| self.cluster.proxies[index].passed()).sum();
                which.iter().for_each(|&index| self.cluster.proxies[index].set(Network::Whole));
                if passed != after {
                    return Err(format!("{} bytes passed a network that is cut", after - passed));
                }
            }
            NetworkSlow => {
                let delay = random.between(20, 400);
                self.cluster.proxies.iter().for_each(|proxy| proxy.set(Network::Delay(delay)));
                std::thread::sleep(some(random, 3_000, 8_000));
                self.cluster.proxies.iter().for_each(|proxy| proxy.set(Network::Whole));
            }
            NetworkNarrow => {
                let rate = random.between(20_000, 200_000);
                self.cluster.proxies.iter().for_each(|proxy| proxy.set(Network::Narrow(rate)));
                std::thread::sleep(some(random, 3_000, 8_000));
                self.cluster.proxies.iter().for_each(|proxy| proxy.set(Network::Whole));
            }
            Scaled => {
                while self.fleet.len() > 1 {
                    self.fleet.drain(random.below(self.fleet.len()))?;
                }
                self.recover()?;
                while self.fleet.len() < 4 {
                    self.fleet.start();
                }
                self.recover()?;
                self.fleet.drain(random.below(4))?;
            }
            PartitionsAdded => {
                let topics = &self.fleet.topics;
                let partitions = self.traffic.partitions.load(Ordering::SeqCst) + 1;
                topics.grow(&topics.input, partitions);
                self.traffic.partitions.store(partitions, Ordering::SeqCst);
                std::thread::sleep(some(random, 0, 5_000));
                topics.grow(&topics.output, partitions);
                topics.grow(&topics.dead_letter, partitions);
                self.checker.partitions.store(partitions, Ordering::SeqCst);
            }
            TopicMadeAgain => {
                self.checker.is_expecting.store(false, Ordering::SeqCst);
                self.traffic.pause(LIMIT)?;
                let topics = &self.fleet.topics;
                let partitions = self.traffic.partitions.load(Ordering::SeqCst) as i32;
                topics.delete(&topics.input);
                super::make(topics, &topics.input, partitions, &[]);
                let before = self.traffic.topic.fetch_add(1, Ordering::SeqCst) as u8;
                self.excused.push((before, None, i64::MAX));
                // The broker has forgotten the group's offsets with the topic.
                self.fleet.committed.lock().unwrap().clear();
                self.traffic.is_paused.store(false, Ordering::SeqCst);
                self.checker.is_expecting.store(true, Ordering::SeqCst);
                // An empty topic has been caught up with before anything is read.
                let traffic = &self.traffic;
                let has_records = || (0..partitions).all(|partition| traffic.end_of(partition as i16) > 0);
                wait("every partition of the new topic has records", LIMIT, has_records)?;
            }
            RetentionOvertakes => {
                let partition = random.below(self.traffic.partitions.load(Ordering::SeqCst)) as i16;
                // A group without a committed offset begins where the log begins: it would miss nothing.
                let there = self.traffic.end_of(partition).max(1);
                let committed = |fleet: &Fleet| fleet.committed.lock().unwrap().get(&i32::from(partition)).copied();
                wait("the partition is read", LIMIT, || committed(&self.fleet) >= Some(there))?;
                let before = self.fleet.gone();
                let members = self.fleet.len();
                (0..members).for_each(|index| self.fleet.freeze(index, true));
                let read = self.traffic.end_of(partition);
                std::thread::sleep(some(random, 1_000, 3_000));
                // No member can have read what came since.
                wait("records that are not read", LIMIT, || self.traffic.end_of(partition) > read)?;
                let end = self.traffic.end_of(partition);
                let topics = &self.fleet.topics;
                topics.delete_records(&topics.input, i32::from(partition), end);
                self.excused.push((self.traffic.topic.load(Ordering::SeqCst) as u8, Some(partition), end));
                (0..members).for_each(|index| self.fleet.freeze(index, false));
                wait("the workers count what is gone", LIMIT, || self.fleet.gone() > before)
                    .map_err(|error| format!("{error}: partition {partition} below {end}\n{}", self.fleet.state()))?;
            }
            DiskFull => {
                let small = self.cluster.small.clone().ok_or("no small file system")?;
                let filler = small.join("filler");
                let script = "cat /dev/zero >\"$1/filler\"; [[ $(df --output=avail \"$1\" | tail -1) -lt 64 ]]";
                let mut fill = Command::new("bash");
                fill.args(["-c", script, "fill"]).arg(&small).stderr(std::process::Stdio::null());
                let filled = fill.status().unwrap();
                let ended = wait("the broker without room ends", LIMIT, || !self.cluster.nodes[2].is_running());
                fs::remove_file(&filler).map_err(|error| error.to_string())?;
                if !filled.success() {
                    return Err("the disk could not be filled".into());
                }
                ended?;
                self.restart(2, some(random, 0, 3_000))?;
            }
            Quota => {
                let victim = self.fleet.name(random.below(self.fleet.len()));
                let brokers = &self.fleet.topics.brokers;
                let rates = "producer_byte_rate=20000,consumer_byte_rate=20000";
                quota(brokers, &victim, &["--add-config", rates])?;
                std::thread::sleep(some(random, 3_000, 8_000));
                quota(brokers, &victim, &["--delete-config", "producer_byte_rate,consumer_byte_rate"])?;
            }
            MessageRefused => {
                let letters = |world: &World| {
                    let seen = world.checker.seen.lock().unwrap();
                    (seen.distinct + seen.doubled).saturating_sub(seen.verdicts)
                };
                let before = letters(self);
                self.traffic.keyless.store(random.between(1, 6) as usize, Ordering::SeqCst);
                wait("refused messages become dead letters", LIMIT, || letters(self) > before)
                    .map_err(|error| format!("{error}\n{}", self.fleet.state()))?;
            }
            ClockJumped => {
                let clock = self.fleet.clock.as_ref().filter(|_| faketime().is_some()).ok_or("no clock to set")?;
                let sign = if random.below(2) == 0 { '+' } else { '-' };
                fs::write(clock, format!("{sign}{}", random.between(60, 1_800))).unwrap();
                std::thread::sleep(some(random, 2_000, 6_000));
                fs::write(clock, "+0").unwrap();
            }
        }
        Ok(())
    }

    fn restart(&mut self, node: usize, after: Duration) -> Result<(), String> {
        self.cluster.nodes[node].crash();
        std::thread::sleep(after);
        self.cluster.nodes[node].start();
        self.cluster.nodes[node].wait_until_up();
        self.cluster.wait_until_whole(LIMIT)
    }
}

/// `String.hashCode` of Java, of which the broker makes a transactional id's partition.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit as i16)))
}
