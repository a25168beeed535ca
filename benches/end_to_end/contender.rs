//! What is measured: a command with a contract. benches/README.md tells the contract to whoever brings a contender.
//!
//! ```text
//!  Contender (what to run) + Job (on which topics) ─► Command ─► process group, watched from outside by `measure`
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::root;
use crate::workload::Model;

/// The token of the worker's `/admin`.
pub const ADMIN_TOKEN: &str = "a-token-for-benchmarks";

/// The commit interval that contenders are told, and the worker's default.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// What a contender promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// A record's verdict is visible once, whatever happens.
    ExactlyOnce,
    /// A record's verdict may be repeated after a crash.
    AtLeastOnce,
}

impl Guarantee {
    /// Both.
    pub const ALL: [Guarantee; 2] = [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce];

    /// As flags and tables say it.
    pub fn name(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnce => "exactly-once",
            Guarantee::AtLeastOnce => "at-least-once",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnce => "eos",
            Guarantee::AtLeastOnce => "alo",
        }
    }
}

/// What a contender's process is.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// `fraud-scorer run`, with further arguments.
    Worker(Vec<String>),
    /// One of this program's own references, by name.
    Reference(&'static str),
    /// Somebody else's command.
    Peer(Vec<String>),
}

/// One line of a table: a command under one model, guarantee and number of threads.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As the table says it; with model, guarantee, threads and processes it tells contenders apart.
    pub name: String,
    /// What it is made of.
    pub version: String,
    /// What it runs.
    pub program: Program,
    /// The fraud-scorer program, where it runs the worker.
    pub worker: PathBuf,
    /// The model it scores; the references move records and score none.
    pub model: Option<Model>,
    /// What it promises; pass-through promises nothing.
    pub guarantee: Option<Guarantee>,
    /// Scoring threads of each process.
    pub threads: usize,
    /// Processes, all of one group.
    pub processes: usize,
    /// Further variables.
    pub environment: BTreeMap<String, String>,
    /// Where its command runs.
    pub directory: PathBuf,
    /// What is dropped after the first output.
    pub warm_up: Duration,
    /// The window, where it is not the harness's.
    pub window: Option<Duration>,
    /// Ends a run early.
    pub records: Option<u64>,
}

/// Where a contender works in one run.
#[derive(Clone, Debug)]
pub struct Job {
    pub brokers: String,
    pub input: String,
    pub output: String,
    pub dead_letter: String,
    pub group: String,
    /// The producer's linger that contenders are told, milliseconds.
    pub linger: u32,
    /// A free port.
    pub port: u16,
}

impl Contender {
    /// The worker with its default settings.
    pub fn worker(model: Model, guarantee: Guarantee, threads: usize, further: &[String]) -> Contender {
        Contender {
            name: "fraud-scorer".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            program: Program::Worker(further.to_vec()),
            worker: env!("CARGO_BIN_EXE_fraud-scorer").into(),
            model: Some(model),
            guarantee: Some(guarantee),
            threads,
            processes: 1,
            environment: BTreeMap::new(),
            directory: root().to_owned(),
            warm_up: Duration::from_secs(1),
            window: None,
            records: None,
        }
    }

    /// A reference of `reference.rs` that keeps the contract.
    pub fn reference(name: &'static str, guarantee: Option<Guarantee>) -> Contender {
        Contender {
            name: name.into(),
            version: format!("librdkafka {}", crate::machine::librdkafka()),
            program: Program::Reference(name),
            model: None,
            guarantee,
            ..Contender::worker(Model::Lr, Guarantee::AtLeastOnce, 1, &[])
        }
    }

    /// Name and variant, as progress lines and tables say it.
    pub fn label(&self) -> String {
        let mut label = self.name.clone();
        if let Some(model) = self.model {
            label += &format!(", {}", model.name());
        }
        if let (Some(guarantee), Some(_)) = (self.guarantee, self.model) {
            label += &format!(", {}", guarantee.name());
        }
        if self.processes > 1 {
            label += &format!(", {} processes", self.processes);
        }
        if self.threads > 1 {
            label += &format!(", {} threads", self.threads);
        }
        label
    }

    /// Whether it serves the worker's metrics on the job's port.
    pub fn has_metrics(&self) -> bool {
        matches!(self.program, Program::Worker(_)) && self.processes == 1
    }

    /// The command of one of its processes.
    pub fn command(&self, job: &Job) -> Command {
        let model = self.model.unwrap_or(Model::Lr);
        let mut command = match &self.program {
            Program::Worker(further) => {
                let mut command = Command::new(&self.worker);
                command.args(["run", "--brokers", &job.brokers, "--group", &job.group]);
                command.args(["--input-topic", &job.input, "--output-topic", &job.output]);
                command.args(["--dead-letter-topic", &job.dead_letter]);
                command.arg("--model").arg(model.bundle());
                command.args(["--guarantee", self.guarantee.map_or("exactly-once", Guarantee::name)]);
                command.args(["--threads", &self.threads.to_string()]);
                let port = if self.processes == 1 { job.port } else { 0 };
                command.args(["--http", &format!("127.0.0.1:{port}")]).args(further);
                command.env_remove("RUST_LOG");
                command
            }
            Program::Reference(name) => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["reference", name]);
                command
            }
            Program::Peer(words) => {
                let mut command = Command::new(resolve(&self.directory, &words[0]));
                command.args(&words[1..]);
                command
            }
        };
        command.current_dir(&self.directory);
        command.env("BROKERS", &job.brokers).env("IN", &job.input).env("OUT", &job.output).env("GROUP", &job.group);
        command.env("MODEL", model.onnx()).env("MODEL_NAME", model.name()).env("BUNDLE", model.bundle());
        command.env("THREADS", self.threads.to_string());
        command.env("GUARANTEE", self.guarantee.unwrap_or(Guarantee::AtLeastOnce).code());
        command.env("COMMIT_MS", COMMIT_INTERVAL.as_millis().to_string()).env("LINGER", job.linger.to_string());
        command.env("PORT", job.port.to_string());
        command.env("ORT_DYLIB_PATH", onnxruntime_library());
        command.env("FRAUD_SCORER_ADMIN_TOKEN", ADMIN_TOKEN);
        command.envs(&self.environment);
        command
    }
}

/// ONNX Runtime, for programs that lie elsewhere than it does.
pub fn onnxruntime_library() -> PathBuf {
    root().join(".runtime/onnxruntime/libonnxruntime.so")
}

/// `./program` is meant from the directory the command runs in; a bare name is looked for in PATH.
pub fn resolve(directory: &Path, program: &str) -> PathBuf {
    if program.contains('/') { directory.join(program) } else { PathBuf::from(program) }
}
