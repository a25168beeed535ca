//! One contender's run, measured from outside: its committed offsets, its CPU time, its memory.

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::support::broker::Broker;
use crate::support::process::finish;
use crate::support::topics::Topics;
use crate::support::unique;

/// Partitions of the loaded topic.
const PARTITIONS: i32 = 4;

/// A run that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(300);

/// What a run cost.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub records: u64,
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_rss_bytes: u64,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.records as f64 / self.wall.as_secs_f64()
    }

    pub fn per_cpu_second(&self) -> f64 {
        self.records as f64 / self.cpu.as_secs_f64()
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>9.0} per CPU-second {:>9.0} per second", self.per_cpu_second(), self.per_second())
    }
}

/// A topic of `records` split-form transactions, drawn from the committed bundle's profile.
pub fn load_topic(broker: &Broker, records: u64) -> Topics {
    let topics = Topics::create(broker, PARTITIONS);
    let mut producer = topics.producer();
    producer.args(["--rate", "0", "--format", "split", "--seed", "1", "--count", &records.to_string(), "--quiet"]);
    let output = finish(producer, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    topics
}

/// Runs the worker over the whole topic in a group of its own.
pub fn run_worker(topics: &Topics, model: &str, arguments: &[&str], records: u64) -> Measured {
    let group = unique("bench");
    let output = unique("bench-verdicts");
    topics.make(&output, PARTITIONS, "1000000");
    let mut worker = topics.worker();
    worker.args(["--group", &group, "--output-topic", &output, "--model", model]).args(arguments);
    let mut child = worker.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let progress = Committed::of(topics, &group);
    let deadline = Instant::now() + LIMIT;
    let wait = |at_least: u64| loop {
        let committed = progress.count();
        if committed >= at_least {
            return committed;
        }
        assert!(Instant::now() < deadline, "{committed} of {records} committed");
        std::thread::sleep(Duration::from_millis(5));
    };
    let first = wait(1);
    let (began, cpu) = (Instant::now(), cpu_time(child.id()));
    let last = wait(records);
    let measured = Measured {
        records: last - first,
        wall: began.elapsed(),
        cpu: cpu_time(child.id()) - cpu,
        peak_rss_bytes: peak_rss(child.id()),
    };
    end(&mut child);
    measured
}

/// Runs one of this program's references as a process of its own; it prints what it measured of itself.
pub fn run_reference(topics: &Topics, arguments: &[&str], records: u64) -> Measured {
    let output_topic = unique("bench-reference");
    topics.make(&output_topic, PARTITIONS, "1000000");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("--reference").args(arguments);
    command.args([&topics.brokers, &topics.input, &output_topic, &records.to_string()]);
    let output = finish(command, LIMIT);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<f64> = text.split_whitespace().map(|number| number.parse().unwrap()).collect();
    Measured {
        records: numbers[0] as u64,
        wall: Duration::from_secs_f64(numbers[1]),
        cpu: Duration::from_secs_f64(numbers[2]),
        peak_rss_bytes: numbers[3] as u64,
    }
}

fn end(child: &mut Child) {
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(child.wait().unwrap().success(), "the worker ends cleanly");
}

/// A group's committed offsets, read from outside the group's members.
struct Committed {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl Committed {
    fn of(topics: &Topics, group: &str) -> Committed {
        let mut config = topics.client.clone();
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(&topics.input, 0, PARTITIONS - 1);
        Committed { consumer: config.set("group.id", group).create().unwrap(), partitions }
    }

    fn count(&self) -> u64 {
        let offsets = self.consumer.committed_offsets(self.partitions.clone(), Duration::from_secs(10));
        let offsets =
            offsets.map(|list| list.elements().iter().filter_map(|element| element.offset().to_raw()).collect());
        offsets
            .unwrap_or_else(|_| Vec::new())
            .into_iter()
            .filter(|offset| *offset > 0)
            .map(|offset| offset as u64)
            .sum()
    }
}

/// User and system time of a process so far.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 on every Linux this runs on.
    Duration::from_millis(ticks * 10)
}

/// Highest resident memory of a process so far, bytes.
pub fn peak_rss(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
