//! What the results were made on and with; nothing that names the machine.

use std::path::Path;

use serde_json::{Value, json};

use crate::root;

/// librdkafka's version.
pub fn librdkafka() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// What stands after `before` in a file of the project, up to `after`.
fn pinned(file: &str, before: &str, after: char) -> String {
    let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
    let found = text.split_once(before).and_then(|(_, rest)| rest.split(after).next());
    found.unwrap_or("unknown").trim().to_owned()
}

/// ONNX Runtime's version.
pub fn onnxruntime() -> String {
    pinned("scripts/onnxruntime.txt", "onnxruntime==", ' ')
}

/// The broker's version.
pub fn kafka() -> String {
    pinned("scripts/kafka/pom.xml", "<artifactId>kafka_2.13</artifactId>\n      <version>", '<')
}

/// Cores that this program may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// For the head of a results file.
pub fn facts() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let of_cpu = |key: &str| -> String {
        let line = cpu.lines().find(|line| line.starts_with(key));
        line.and_then(|line| line.split_once(": ")).map_or("unknown", |(_, value)| value).to_owned()
    };
    let flags = of_cpu("flags");
    let vectors = ["avx2", "avx512f", "avx512bw", "avx512_vbmi"];
    let vectors: Vec<&str> = vectors.into_iter().filter(|flag| flags.split(' ').any(|has| has == *flag)).collect();
    let memory = memory_gib("MemTotal");
    // The numbers only: what follows them may name a supplier.
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    json!({
        "cores": cores(),
        "cpu": of_cpu("model name"),
        "vector_extensions": vectors,
        "memory_gib": memory,
        "linux": kernel,
        "kafka": kafka(),
        "librdkafka": librdkafka(),
        "onnxruntime": onnxruntime(),
        "fraud_scorer": env!("CARGO_PKG_VERSION"),
    })
}

/// One line of it, for tables and charts.
pub fn line() -> String {
    format!(
        "{} cores shared with the broker and the load; Kafka {}, librdkafka {}, ONNX Runtime {}",
        cores(),
        kafka(),
        librdkafka(),
        onnxruntime()
    )
}

/// The file system in memory.
const MEMORY: &str = "/dev/shm";

/// The file system in memory, where there is one with room for what the broker keeps at a time.
pub fn scratch_memory() -> Option<&'static str> {
    let writable = tempfile::tempfile_in(MEMORY).is_ok();
    (writable && memory_gib("MemAvailable") >= 10).then_some(MEMORY)
}

/// Whether a directory lies in memory.
pub fn in_memory(place: &Path) -> bool {
    place.starts_with(MEMORY)
}

/// A line of /proc/meminfo, in GiB.
fn memory_gib(line: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) >> 20
}
