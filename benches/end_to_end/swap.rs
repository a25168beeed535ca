//! One model for another, again and again, under load: every record has its verdict once and in order, every verdict names
//! a model that served, and memory stays flat.
//!
//! ```text
//!  loader at a steady rate ─► worker ─► audience: offset after offset, version in value and header
//!                               ▲
//!        this thread: replace the directory, POST /admin/reload, reload, POST /admin/rollback, reload …
//! ```

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fraud_wire::verdict::Verdict;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::json;

use crate::contender::{ADMIN_TOKEN, Contender, Guarantee};
use crate::measure::{Bench, Running};
use crate::report::{Spread, write_json};
use crate::topics::PARTITIONS;
use crate::workload::{Loader, Model};

/// The models' versions, in the order of [`Model::ALL`]: a linear model, and trees.
const VERSIONS: [&str; 2] = ["1", "2"];

/// Name of both.
const NAME: &str = "bench";

/// Every so many swaps are a rollback, the others a reload through all gates.
const ROLLBACK_EVERY: u32 = 3;

/// How long verdicts may stay away.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the audience counts.
#[derive(Default)]
struct Seen {
    verdicts: AtomicU64,
    by_version: [AtomicU64; 2],
    done: AtomicBool,
}

/// Swaps as often as asked; says whether all went well.
pub fn run(bench: &Bench) -> bool {
    let input = "swap";
    bench.admin.create(input, &[]);
    let job = bench.job(input, 5);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let directory = folder.path().join("bundle");
    put(folder.path(), &directory, 0);
    let mut arguments = bench.options.worker.clone();
    arguments.extend(["--model".into(), directory.display().to_string()]);
    let worker = Contender { model: None, ..Contender::worker(Model::Lr, Guarantee::ExactlyOnce, 2, &arguments) };
    let seen = Seen::default();
    let stop = AtomicBool::new(false);
    eprintln!("  swap: {} times at {} records/s", bench.options.swaps, bench.options.swap_rate);
    let (swaps, sent) = std::thread::scope(|scope| {
        let audience = scope.spawn(|| watch(&bench.broker.address(), &job.output, &seen));
        let loader = scope.spawn(|| load_steadily(bench, input, &stop));
        let outcome = Running::start(&worker, &job).and_then(|mut running| {
            let swaps = swap_all(bench, &mut running, job.port, folder.path(), &directory, &seen);
            stop.store(true, Ordering::Relaxed);
            let sent = loader.join().unwrap();
            // All that was sent is scored before the worker ends: nothing may come after.
            let deadline = Instant::now() + PATIENCE;
            while seen.verdicts.load(Ordering::Relaxed) < sent && Instant::now() < deadline && running.check().is_ok() {
                std::thread::sleep(Duration::from_millis(50));
            }
            running.stop();
            swaps.map(|swaps| (swaps, sent))
        });
        stop.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        seen.done.store(true, Ordering::Relaxed);
        audience.join().unwrap();
        outcome.unwrap_or_else(|error| panic!("{error}"))
    });
    bench.admin.delete(&[&job.output, input]);
    report(bench, &swaps, sent, &seen)
}

/// What one swap was.
struct Swap {
    rollback: bool,
    seconds: f64,
    rss_bytes: u64,
}

fn swap_all(
    bench: &Bench,
    running: &mut Running,
    port: u16,
    folder: &Path,
    directory: &Path,
    seen: &Seen,
) -> Result<Vec<Swap>, String> {
    wait_for_more(running, seen, 0)?;
    let mut swaps = Vec::new();
    for number in 1..=bench.options.swaps {
        running.check()?;
        let rollback = number % ROLLBACK_EVERY == 0;
        if !rollback {
            put(folder, directory, number as usize % VERSIONS.len());
        }
        let began = Instant::now();
        let path = if rollback { "/admin/rollback" } else { "/admin/reload" };
        let (status, body) = post(port, path).map_err(|error| running.complaint(&format!("{path}: {error}")))?;
        if status != 200 {
            return Err(running.complaint(&format!("swap {number}: {path} answered {status}: {body}")));
        }
        swaps.push(Swap { rollback, seconds: began.elapsed().as_secs_f64(), rss_bytes: running.tree.rss() });
        // At work: a swap that nobody notices would show nothing.
        wait_for_more(running, seen, seen.verdicts.load(Ordering::Relaxed))?;
        if number % 100 == 0 {
            eprintln!("    {number} swaps, {} MB", running.tree.rss() / 1_000_000);
        }
    }
    Ok(swaps)
}

fn wait_for_more(running: &mut Running, seen: &Seen, than: u64) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while seen.verdicts.load(Ordering::Relaxed) <= than {
        running.check()?;
        if Instant::now() > deadline {
            return Err(running.complaint("no verdicts"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn report(bench: &Bench, swaps: &[Swap], sent: u64, seen: &Seen) -> bool {
    let verdicts = seen.verdicts.load(Ordering::Relaxed);
    let by_version = seen.by_version.each_ref().map(|count| count.load(Ordering::Relaxed));
    let memory: Vec<f64> = swaps.iter().map(|swap| swap.rss_bytes as f64 / 1e6).collect();
    // The first tenth fills buffers, arenas and caches.
    let settled = &memory[memory.len() / 10..];
    let quarter = (settled.len() / 4).max(1);
    let median = |part: &[f64]| Spread::of(part.iter().copied()).unwrap().median;
    let (first, last) = (median(&settled[..quarter]), median(&settled[settled.len() - quarter..]));
    let growth = (last / first - 1.0) * 100.0;
    let time = |rollback: bool| {
        let times = swaps.iter().filter(|swap| swap.rollback == rollback).map(|swap| swap.seconds * 1e3);
        Spread::of(times).map_or(String::new(), |found| found.to_string())
    };
    let complete = verdicts == sent;
    let both = by_version.iter().all(|count| *count > 0);
    let flat = growth <= bench.options.growth;
    let verdict = |good: bool| if good { "ok" } else { "FAILED" };
    println!("\n{} swaps at {} records/s\n", swaps.len(), bench.options.swap_rate);
    println!("records sent {sent}, verdicts {verdicts}, each once and in order    {}", verdict(complete));
    println!("verdicts of version 1: {}, of version 2: {}    {}", by_version[0], by_version[1], verdict(both));
    println!("milliseconds, median (min–max): swap {}, rollback {}", time(false), time(true));
    println!("resident, median of the first quarter  {first:>7.1} MB (after a tenth of the swaps)");
    println!("resident, median of the last quarter   {last:>7.1} MB");
    println!("growth (at most {} %)                   {growth:>7.1} %  {}\n", bench.options.growth, verdict(flat));
    let rows: Vec<_> = swaps.iter().map(|swap| json!([swap.rollback, swap.seconds, swap.rss_bytes])).collect();
    let results = json!({
        "swaps": swaps.len(), "records_per_second": bench.options.swap_rate, "records": sent, "verdicts": verdicts,
        "by_version": by_version, "first_quarter_mb": first, "last_quarter_mb": last, "growth_percent": growth,
        "each": {"columns": ["rollback", "seconds", "rss_bytes"], "rows": rows},
    });
    write_json(&bench.options, "swap.json", results);
    complete && both && flat
}

/// Puts a model's bundle, under the common name and its version, in the place of what lies there.
fn put(folder: &Path, directory: &Path, index: usize) {
    let model = Model::ALL[index];
    let next = folder.join("next");
    std::fs::create_dir(&next).unwrap();
    for file in ["model.onnx", "golden.jsonl"] {
        std::fs::copy(model.bundle().join(file), next.join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(model.bundle().join("manifest.toml")).unwrap();
    let line = |line: &str| match line.split_once(" = ") {
        Some(("name", _)) => format!("name = \"{NAME}\"\n"),
        Some(("version", _)) => format!("version = \"{}\"\n", VERSIONS[index]),
        _ => format!("{line}\n"),
    };
    std::fs::write(next.join("manifest.toml"), manifest.lines().map(line).collect::<String>()).unwrap();
    let _ = std::fs::remove_dir_all(directory);
    std::fs::rename(next, directory).unwrap();
}

/// Sends records at the rate asked for, in portions of a hundredth of a second; gives how many.
fn load_steadily(bench: &Bench, input: &str, stop: &AtomicBool) -> u64 {
    let brokers = bench.broker.address();
    let mut loader = Loader::new(&brokers, input, &bench.records);
    let (began, mut sent) = (Instant::now(), 0);
    while !stop.load(Ordering::Relaxed) {
        let due = (began.elapsed().as_secs_f64() * bench.options.swap_rate as f64) as u64;
        loader.send(due - sent);
        sent = due;
        std::thread::sleep(Duration::from_millis(10));
    }
    loader.finish();
    sent
}

/// Reads every verdict and holds it against the one that has to come: the next offset of its partition, one of the two
/// versions. Memory does not grow with the run.
fn watch(brokers: &str, output: &str, seen: &Seen) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("isolation.level", "read_committed").set("group.id", "audience");
    config.set("enable.auto.commit", "false").set("log_level", "3");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(output, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let mut next = [0_i64; PARTITIONS as usize];
    while !seen.done.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else { continue };
        let verdict: Verdict = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let expected = &mut next[message.partition() as usize];
        assert_eq!(verdict.source.partition, message.partition());
        assert_eq!(
            verdict.source.offset,
            *expected,
            "lost, doubled or out of order in partition {}",
            message.partition()
        );
        *expected += 1;
        let version = VERSIONS.iter().position(|version| *version == verdict.model.version);
        let version = version.unwrap_or_else(|| panic!("a version that never served: {:?}", verdict.model));
        let header = message.headers().map(|headers| headers.get(0)).and_then(|header| header.value);
        assert_eq!(header, Some(format!("{NAME}@{}", verdict.model.version).as_bytes()), "header and value agree");
        seen.by_version[version].fetch_add(1, Ordering::Relaxed);
        seen.verdicts.fetch_add(1, Ordering::Relaxed);
    }
}

fn post(port: u16, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n");
    write!(stream, "{head}Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned())))
}
