//! Where the worker's time goes: `perf` on a worker at full load, drawn as a flame graph.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::contender::{Contender, Guarantee};
use crate::flame::Stacks;
use crate::measure::{Bench, Running};
use crate::report::write;
use crate::topics::Ends;

/// Samples per second: not a round number, so that it keeps no step with timers.
const FREQUENCY: &str = "397";

/// How much of a stack is copied per sample: the code keeps no frame pointers, so `perf` unwinds the copy.
const CALL_GRAPH: &str = "dwarf,16384";

/// Profiles the worker with each model.
pub fn run(bench: &Bench) {
    for &model in &bench.options.models {
        let worker = bench.worker(model, Guarantee::ExactlyOnce, 1);
        eprintln!("  profiling {}", worker.label());
        let stacks = profile(bench, &worker).unwrap_or_else(|error| panic!("{error}"));
        println!("\n{}: samples by function, without what it calls\n", worker.label());
        for (function, share) in stacks.heaviest(25) {
            println!("{:>5.1} %  {function}", share * 100.0);
        }
        let title = format!("{}: CPU time at full load, {} samples", worker.label(), stacks.total());
        write(&bench.options, &format!("profile-{}.svg", model.name()), &stacks.svg(&title));
    }
}

fn profile(bench: &Bench, worker: &Contender) -> Result<Stacks, String> {
    let job = bench.job(&bench.input, 5);
    let ends = Ends::of(&job.brokers, &job.output);
    let mut running = Running::start(worker, &job)?;
    let patience = Instant::now() + Duration::from_secs(60);
    while ends.sum().unwrap_or(0) == 0 {
        running.check()?;
        if Instant::now() > patience {
            return Err(running.complaint("no output"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(worker.warm_up);
    let data = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("perf.data");
    let mut record = Command::new("perf");
    record.args(["record", "--quiet", "-F", FREQUENCY, "--call-graph", CALL_GRAPH]);
    record.arg("-o").arg(&data).args([
        "-p",
        &running.id().to_string(),
        "--",
        "sleep",
        &bench.options.seconds.to_string(),
    ]);
    let status = record.status().map_err(|error| format!("perf: {error}; Debian: apt-get install linux-perf"))?;
    if !status.success() {
        return Err(format!("perf record: {status}; it needs root or kernel.perf_event_paranoid ≤ 1"));
    }
    running.stop();
    bench.admin.delete(&[&job.output]);
    let mut script = Command::new("perf");
    script.args(["script", "--no-inline", "-F", "comm,ip,sym,dso", "-i"]).arg(&data).stderr(Stdio::null());
    let output = script.output().map_err(|error| format!("perf: {error}"))?;
    let _ = std::fs::remove_file(&data);
    Ok(Stacks::read(&String::from_utf8_lossy(&output.stdout)))
}
