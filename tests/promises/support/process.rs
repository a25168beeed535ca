//! The product's own binaries as processes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::{root, wait_for};

/// The token of the workers' `/admin`.
pub const ADMIN_TOKEN: &str = "a-token-for-tests-alone";

/// The worker's binary.
pub fn scorer() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fraud-scorer"));
    command.current_dir(root()).env_remove("RUST_LOG").stdin(Stdio::null());
    // To see more of a worker that a test is not content with.
    if let Some(level) = std::env::var_os("FRAUD_SCORER_TEST_LOG") {
        command.env("RUST_LOG", level);
    }
    command
}

/// The producer's binary: another package of the workspace, built here where it was not built before. As `cargo test
/// --workspace` builds it: `cargo build` would choose other features for what both use, and compile all of that again.
pub fn producer() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let binary = BINARY.get_or_init(|| {
        let scorer = PathBuf::from(env!("CARGO_BIN_EXE_fraud-scorer"));
        let mut build = Command::new(env!("CARGO"));
        build.args(["test", "--quiet", "--locked", "--workspace", "--no-run"]).current_dir(root());
        // The test binaries may have been built for a profile or a folder other than the default.
        build.arg("--target-dir").arg(scorer.parent().unwrap().parent().unwrap());
        if scorer.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "building fraud-producer");
        scorer.with_file_name("fraud-producer")
    });
    let mut command = Command::new(binary);
    command.current_dir(root()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs a command to its end; panics when that takes longer than `limit`.
pub fn finish(mut command: Command, limit: Duration) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Running::new(child).finish(limit)
}

/// A process whose standard error is being read.
pub struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
    output: Option<std::thread::JoinHandle<Vec<u8>>>,
    /// Reads standard error into the log, to its end.
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn new(mut child: Child) -> Running {
        let log = Arc::new(Mutex::new(String::new()));
        let reader = child.stderr.take().map(|stderr| {
            let log = log.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    let mut log = log.lock().unwrap();
                    log.push_str(&line);
                    log.push('\n');
                }
            })
        });
        let output = child.stdout.take().map(|mut stdout| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).unwrap();
                bytes
            })
        });
        Running { child, log, output, reader }
    }

    /// Starts `command`.
    pub fn start(mut command: Command) -> Running {
        Running::new(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log holds `text`.
    pub fn wait_for_log(&mut self, text: &str, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.log().contains(text) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{text:?} not logged ({ended:?}):\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Resident memory now, and at its most since the last call, bytes.
    pub fn memory(&self) -> (usize, usize) {
        let pid = self.child.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let bytes = |name: &str| -> usize {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
        };
        let memory = (bytes("VmRSS:"), bytes("VmHWM:"));
        // "5": the peak begins anew (proc_pid_clear_refs(5)).
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
        memory
    }

    /// The processes that it started and that run.
    pub fn children(&self) -> Vec<u32> {
        // Each thread lists its own.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let lists = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        lists.flat_map(|list| list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>()).collect()
    }

    /// Any signal, as kill takes it.
    pub fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// Waits for its end and takes its output.
    pub fn finish(mut self, limit: Duration) -> Output {
        let status = wait_for("the process ends", limit, || self.child.try_wait().unwrap());
        let stdout = self.output.take().map(|output| output.join().unwrap()).unwrap_or_default();
        // It is done a moment after the process.
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Output { status, stdout, stderr: self.log().into_bytes() }
    }

    /// The address the worker's HTTP edge listens on.
    pub fn http_address(&mut self) -> String {
        self.wait_for_log("HTTP edge listens", Duration::from_secs(20));
        let log = self.log();
        let line = log.lines().find(|line| line.contains("HTTP edge listens")).unwrap();
        line.rsplit("address=").next().unwrap().trim().to_owned()
    }

    /// GET: status and body.
    pub fn get(&mut self, path: &str) -> (u16, String) {
        get(&self.http_address(), path)
    }

    /// POST with further header lines: status and body.
    pub fn post(&mut self, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        request(&self.http_address(), "POST", path, headers)
    }

    /// POST of who knows the token that tests' workers have: status and body.
    pub fn administer(&mut self, path: &str) -> (u16, String) {
        self.post(path, &[("Authorization", &format!("Bearer {ADMIN_TOKEN}"))])
    }

    /// A metric's series: labels and value.
    pub fn series(&mut self, name: &str) -> Vec<String> {
        let (_, text) = self.get("/metrics");
        let series = text.lines().filter_map(|line| line.strip_prefix(name)).filter(|line| line.starts_with('{'));
        series.map(str::to_owned).collect()
    }

    /// The value of a series, its labels included.
    pub fn value(&mut self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics");
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// GET of a JSON document.
    pub fn get_json(&mut self, path: &str) -> serde_json::Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Waits until /readyz says yes.
    pub fn wait_until_ready(&mut self) {
        let address = self.http_address();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (status, body) = get(&address, "/readyz");
            if status == 200 {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "not ready: {body}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of process {} ---\n{}", self.child.id(), self.log());
        }
    }
}

/// A plain HTTP/1.1 GET.
fn get(address: &str, path: &str) -> (u16, String) {
    request(address, "GET", path, &[])
}

/// A plain HTTP/1.1 request without a body. The Host is the address, unless `headers` say otherwise.
fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut lines = vec![("Host", address), ("Connection", "close"), ("Content-Length", "0")];
    for header in headers {
        lines.retain(|(name, _)| name != &header.0);
        lines.push(*header);
    }
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\n{lines}\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}
