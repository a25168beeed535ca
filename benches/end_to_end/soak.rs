//! Memory at full load: records are written beside the worker for as long as asked, and its resident memory is looked
//! at every second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::contender::Guarantee;
use crate::measure::{Bench, Running};
use crate::report::{Spread, write_json};
use crate::topics::Ends;
use crate::workload::Loader;

/// How far the load keeps ahead of the worker: enough that it never waits.
const AHEAD: u64 = 1_000_000;

/// Records written between two looks at the lead.
const PORTION: u64 = 50_000;

/// Well over [`AHEAD`] records of a partition's share, so that nothing unread is deleted, and no more.
const INPUT: &[(&str, &str)] = &[("segment.bytes", "67108864"), ("retention.bytes", "536870912")];

/// Runs the worker as long as asked; says whether its memory stayed flat and small.
pub fn run(bench: &Bench) -> bool {
    let input = "soak";
    bench.admin.create(input, INPUT);
    let job = bench.job(input, 5);
    let model = *bench.options.models.iter().max().unwrap();
    let worker = bench.worker(model, Guarantee::ExactlyOnce, 1);
    let done = AtomicBool::new(false);
    let duration = bench.options.duration;
    eprintln!("  soak: {} for {} s", worker.label(), duration.as_secs());
    let samples = std::thread::scope(|scope| {
        scope.spawn(|| keep_ahead(bench, input, &job.output, &done));
        let samples = Running::start(&worker, &job).and_then(|mut running| {
            let samples = sample(bench, &mut running, &job.output, duration);
            running.stop();
            samples
        });
        done.store(true, Ordering::Relaxed);
        samples
    });
    let samples = samples.unwrap_or_else(|error| panic!("{error}"));

    let memory: Vec<f64> = samples.iter().map(|sample| sample.rss_bytes as f64 / 1e6).collect();
    let quarter = (memory.len() / 4).max(1);
    let median = |part: &[f64]| Spread::of(part.iter().copied()).unwrap().median;
    let (first, last) = (median(&memory[..quarter]), median(&memory[memory.len() - quarter..]));
    let most = memory.iter().copied().fold(0.0, f64::max);
    let growth = (last / first - 1.0) * 100.0;
    let scored = samples[samples.len() - 1].records;
    let flat = growth <= bench.options.growth;
    let small = most <= bench.options.most_memory as f64;
    println!("\nMemory at full load, {}, {scored} records in {} s\n", worker.label(), duration.as_secs());
    println!("resident, median of the first quarter  {first:>7.1} MB");
    println!("resident, median of the last quarter   {last:>7.1} MB");
    println!("growth (at most {} %)                   {growth:>7.1} %  {}", bench.options.growth, verdict(flat));
    println!("largest (at most {} MB)               {most:>7.1} MB  {}\n", bench.options.most_memory, verdict(small));
    let samples: Vec<_> =
        samples.iter().map(|sample| json!([sample.second, sample.records, sample.rss_bytes])).collect();
    let results = json!({
        "worker": worker.label(), "seconds": duration.as_secs(), "records": scored,
        "first_quarter_mb": first, "last_quarter_mb": last, "largest_mb": most, "growth_percent": growth,
        "samples": {"columns": ["second", "records", "rss_bytes"], "rows": samples},
    });
    write_json(&bench.options, "soak.json", results);
    flat && small
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "FAILED" }
}

struct Sample {
    second: u64,
    records: u64,
    rss_bytes: u64,
}

fn sample(bench: &Bench, running: &mut Running, output: &str, duration: Duration) -> Result<Vec<Sample>, String> {
    let ends = Ends::of(&bench.broker.address(), output);
    let patience = Instant::now() + Duration::from_secs(90);
    while ends.sum().unwrap_or(0) == 0 {
        running.check()?;
        if Instant::now() > patience {
            return Err(running.complaint("no output"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < duration {
        std::thread::sleep(Duration::from_secs(1));
        running.check()?;
        let Some(records) = ends.sum() else { continue };
        samples.push(Sample { second: began.elapsed().as_secs(), records, rss_bytes: running.tree.rss() });
        if let [.., before, now] = &samples[..]
            && before.records == now.records
        {
            eprintln!("    second {}: nothing was scored", now.second);
        }
    }
    Ok(samples)
}

/// Writes records so that the worker has [`AHEAD`] of them to read, until it is done.
fn keep_ahead(bench: &Bench, input: &str, output: &str, done: &AtomicBool) {
    let brokers = bench.broker.address();
    let scored = Ends::of(&brokers, output);
    let mut loader = Loader::new(&brokers, input, &bench.records);
    let mut written = 0;
    while !done.load(Ordering::Relaxed) {
        if written > scored.sum().unwrap_or(0) + AHEAD {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        loader.send(PORTION);
        loader.finish();
        written += PORTION;
    }
}
