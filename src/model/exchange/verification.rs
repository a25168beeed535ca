//! Verification of a candidate in a process of its own, so that whatever it does there harms nobody.
//!
//! ```text
//!  candidate ─► fraud-scorer verify: limits of memory ─► the gates, an engine per thread, warm-up ─► exit code, refusal
//!                  └─ ended after --verify-timeout, or when this process ends
//! ```
//!
//! A graph is a program: it may loop without end, and ask for more memory than there is. What passed there is loaded here
//! by the same code.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::gates::{Gate, Refusal};
use super::{ExchangeSettings, Samples, prepare};
use crate::model::source::Candidate;
use crate::shutdown::Shutdown;

/// Memory that a verification may take, beside [`FILE_TIMES`] the bundle's files.
const MOST_BYTES: u64 = 2 << 30;
const FILE_TIMES: u64 = 8;

/// Longest refusal that is taken from the other process, bytes.
const MOST_REFUSAL_BYTES: u64 = 16 << 10;

/// How often it is looked whether the other process has ended.
const INTERVAL: Duration = Duration::from_millis(10);

/// How candidates are verified before this process loads them.
#[derive(Clone, Debug)]
pub struct Verification {
    program: PathBuf,
    timeout: Duration,
    shutdown: Shutdown,
}

/// A refusal on its way here.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    gate: Gate,
    reason: String,
}

impl Verification {
    /// By this program itself, within `timeout`; ends early where the process is told to stop.
    ///
    /// # Errors
    /// The program cannot be found.
    pub fn by_this_program(timeout: Duration, shutdown: Shutdown) -> std::io::Result<Verification> {
        // The file that runs, also where another version has been put in its place meanwhile.
        let own = Path::new("/proc/self/exe");
        let program = if own.exists() { own.to_owned() } else { std::env::current_exe()? };
        Ok(Verification { program, timeout, shutdown })
    }

    /// Has the candidate pass its bundle's gates in another process.
    pub(super) fn run(&self, settings: &ExchangeSettings, candidate: &Candidate) -> Result<(), Refusal> {
        let refuse = |reason: String| Err(Refusal::new(Gate::Limits, reason).of(&candidate.origin));
        let mut command = Command::new(&self.program);
        command.arg("verify").arg("--directory").arg(&candidate.directory);
        if let Some(registered) = &candidate.registered {
            command.arg("--registered-name").arg(&registered.name);
            command.arg("--registered-version").arg(&registered.version);
        }
        if let Some(kernel) = settings.kernel.to_possible_value() {
            command.arg("--kernel").arg(kernel.get_name());
        }
        if let Some(key) = &settings.key {
            command.arg("--model-key").arg(key.line());
        }
        command.arg("--threads").arg(settings.threads.to_string());
        command.arg("--max-message-bytes").arg(settings.max_message_bytes.to_string());
        command.arg("--max-batch").arg(settings.max_batch.to_string());
        command.arg("--most-bytes").arg(most_bytes(&candidate.directory).to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => Ended(child),
            Err(error) => return refuse(format!("no process to verify it in: {error}")),
        };
        let began = Instant::now();
        let status = loop {
            match child.0.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.shutdown.is_requested() => return refuse("this process is asked to stop".into()),
                Ok(None) if began.elapsed() >= self.timeout => {
                    let seconds = self.timeout.as_secs_f64();
                    return refuse(format!(
                        "it was not verified within {seconds} s (--verify-timeout): the graph loops without end, or is too \
                         slow for this machine"
                    ));
                }
                Ok(None) => std::thread::sleep(INTERVAL),
                Err(error) => return refuse(format!("the process that verifies it cannot be waited for: {error}")),
            }
        };
        if status.success() {
            return Ok(());
        }
        Err(told(&mut child.0).unwrap_or_else(|| Refusal::new(Gate::Limits, died(status))).of(&candidate.origin))
    }
}

impl ExchangeSettings {
    /// Has the candidate verified in another process, where these settings say so.
    ///
    /// # Errors
    /// Why it may not serve; at the gate [`Gate::Limits`] where that process did not come to an end.
    pub fn verify(&self, candidate: &Candidate) -> Result<(), Refusal> {
        self.verification.as_ref().map_or(Ok(()), |verification| verification.run(self, candidate))
    }
}

/// A process that does not outlive who waits for it.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Memory for a bundle: large models need more.
fn most_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file);
    MOST_BYTES.saturating_add(sizes.map(|file| file.len()).sum::<u64>().saturating_mul(FILE_TIMES))
}

/// What the process said, if it said something. It fits the pipe, so it is read when the process has ended.
fn told(child: &mut Child) -> Option<Refusal> {
    let mut text = String::new();
    child.stdout.take()?.take(MOST_REFUSAL_BYTES).read_to_string(&mut text).ok()?;
    let Told { gate, reason } = serde_json::from_str(text.lines().last()?).ok()?;
    Some(Refusal::new(gate, reason))
}

fn died(status: ExitStatus) -> String {
    format!(
        "the process that verified it died ({status}): the graph or the golden records ask for more memory than a bundle of \
         this size may, or crash ONNX Runtime"
    )
}

/// The other side: in this process, which may take `most_bytes` and ends with the one that began it. Returns a refusal as
/// the line that [`Verification::run`] reads.
pub fn verify_here(settings: &ExchangeSettings, candidate: Candidate, most_bytes: u64) -> Result<(), String> {
    limit_this_process(most_bytes);
    let refusal = match prepare(settings, &Samples::default(), candidate, 1, &[]) {
        Ok(_) => return Ok(()),
        Err(refusal) => refusal,
    };
    let mut reason = refusal.reason;
    // Escaped it may grow sixfold.
    reason.truncate(reason.floor_char_boundary(MOST_REFUSAL_BYTES as usize / 8));
    Err(serde_json::to_string(&Told { gate: refusal.gate, reason }).unwrap_or_default())
}

/// Best effort: where the system knows no such limit, the time limit is left.
fn limit_this_process(most_bytes: u64) {
    use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let limit = Rlimit { current: Some(most_bytes), maximum: Some(most_bytes) };
    let _ = setrlimit(Resource::Data, limit);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Where memory runs out for all, this one goes first (proc_pid_oom_score_adj(5)).
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
}
