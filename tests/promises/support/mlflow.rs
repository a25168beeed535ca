//! A real MLflow server from the project's Python environment, on a free loopback port, and a publisher of bundles.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{root, script, wait_for};

/// Name of the registered model that [`Mlflow::register`] makes versions of: the committed bundle's.
pub const MODEL: &str = "fraud";

/// A server with a database and files of its own; stopped when dropped, or when the test process ends however it does.
pub struct Mlflow {
    directory: tempfile::TempDir,
    port: u16,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    guard: Option<Child>,
}

impl Mlflow {
    /// A server with nothing registered.
    pub fn start() -> Mlflow {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // The server closes idle connections after five seconds, perhaps just when one is used again.
        let http = reqwest::Client::builder()
            .pool_max_idle_per_host(0)
            .no_proxy()
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let mut server = Mlflow { directory: tempfile::tempdir().unwrap(), port, runtime, http, guard: None };
        server.up();
        server
    }

    /// `http://HOST:PORT`.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it (again), on the same port and data; returns when it answers.
    pub fn up(&mut self) {
        let directory = self.directory.path();
        let log = fs::File::options().create(true).append(true).open(directory.join("log")).unwrap();
        // The server has children of its own. They are one process group, which ends with the guard's standard input.
        let mut guard = Command::new("bash");
        guard.arg("-c").arg(r#"setsid "$@" </dev/null & server=$!; cat >/dev/null; kill -9 -- -$server; wait $server"#);
        guard.arg("guard").arg(mlflow()).args(["server", "--host", "127.0.0.1", "--workers", "1"]);
        guard.arg("--port").arg(self.port.to_string());
        guard.arg("--backend-store-uri").arg(format!("sqlite:///{}", directory.join("mlflow.db").display()));
        guard.arg("--artifacts-destination").arg(directory.join("artifacts"));
        guard.env("MLFLOW_DISABLE_TELEMETRY", "true").env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false");
        guard.current_dir(directory).stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        self.guard = Some(guard.spawn().unwrap());
        // Most of this is Python importing; on a loaded machine that takes a while.
        let limit = Duration::from_secs(180);
        let deadline = std::time::Instant::now() + limit;
        while !self.is_healthy() {
            let text = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(std::time::Instant::now() < deadline, "the MLflow server does not answer:\n{}", text());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn is_healthy(&self) -> bool {
        let health = self.http.get(format!("{}/health", self.address())).timeout(Duration::from_secs(2));
        self.send(health).is_ok_and(|response| response.status().is_success())
    }

    /// A request looks for its runtime when it is sent, not when it is waited for.
    fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
        self.runtime.block_on(async { request.send().await })
    }

    /// Ends it without a farewell; its data stay.
    pub fn crash(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().unwrap();
            let port = self.port;
            wait_for("the server's port is closed", Duration::from_secs(20), || {
                std::net::TcpStream::connect(("127.0.0.1", port)).is_err().then_some(())
            });
        }
    }

    /// Uploads a bundle as MLflow 3 does, registers it as a new version of [`MODEL`], and gives the version's number.
    pub fn register(&self, bundle: &Path) -> String {
        let body = json!({"experiment_id": "0", "name": MODEL});
        let model = self.call(Method::POST, "logged-models", body)["model"]["info"].clone();
        self.upload(bundle, model["artifact_uri"].as_str().unwrap());
        let id = model["model_id"].as_str().unwrap();
        self.create_version(&format!("models:/{id}"), json!({"model_id": id}))
    }

    /// A run's id and where its files belong.
    pub fn create_run(&self) -> (String, String) {
        let run = self.call(Method::POST, "runs/create", json!({"experiment_id": "0"}))["run"]["info"].clone();
        (run["run_id"].as_str().unwrap().to_owned(), run["artifact_uri"].as_str().unwrap().to_owned())
    }

    /// Puts a directory's files to a URI of the artefact store, through the server.
    pub fn upload(&self, bundle: &Path, uri: &str) {
        let folder = uri.strip_prefix("mlflow-artifacts:/").unwrap();
        for entry in fs::read_dir(bundle).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let url = format!("{}/api/2.0/mlflow-artifacts/artifacts/{folder}/{name}", self.address());
            let request = self.http.put(url).body(fs::read(&path).unwrap());
            let status = self.send(request).unwrap().status();
            assert!(status.is_success(), "{name}: {status}");
        }
    }

    /// Registers what lies at `source` as a new version of [`MODEL`]. What the server keeps itself has an `owner`:
    /// `model_id` or `run_id`.
    pub fn create_version(&self, source: &str, owner: Value) -> String {
        let model = json!({"name": MODEL});
        if self.try_call(Method::GET, &format!("registered-models/get?name={MODEL}"), Value::Null).is_err() {
            self.call(Method::POST, "registered-models/create", model);
        }
        let mut version = owner;
        version["name"] = MODEL.into();
        version["source"] = source.into();
        let answer = self.call(Method::POST, "model-versions/create", version);
        answer["model_version"]["version"].as_str().unwrap().to_owned()
    }

    /// Lets the alias stand at the version.
    pub fn point(&self, alias: &str, version: &str) {
        let body = json!({"name": MODEL, "alias": alias, "version": version});
        self.call(Method::POST, "registered-models/alias", body);
    }

    /// Removes the alias.
    pub fn unpoint(&self, alias: &str) {
        self.call(Method::DELETE, "registered-models/alias", json!({"name": MODEL, "alias": alias}));
    }

    /// One call of MLflow's REST interface; panics where it is refused.
    pub fn call(&self, method: Method, path: &str, body: Value) -> Value {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn try_call(&self, method: Method, path: &str, body: Value) -> Result<Value, String> {
        let url = format!("{}/api/2.0/mlflow/{path}", self.address());
        let mut request = self.http.request(method, url);
        if !body.is_null() {
            request = request.header("Content-Type", "application/json").body(body.to_string());
        }
        self.runtime.block_on(async {
            let response = request.send().await.map_err(|error| error.to_string())?;
            let ok = response.status().is_success();
            let text = response.text().await.map_err(|error| error.to_string())?;
            if ok { serde_json::from_str(&text).map_err(|error| error.to_string()) } else { Err(text) }
        })
    }
}

impl Drop for Mlflow {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// The program, from the environment of `training/`; made where it is not there.
fn mlflow() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = root().join(".runtime/venv/bin/mlflow");
        if !program.is_file() {
            script("python-env.sh", &[]);
        }
        program
    })
}
