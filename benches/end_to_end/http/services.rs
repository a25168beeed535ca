//! Who answers: the worker, and the services of `benches/peers/http/services.toml`. The contract for them is in
//! benches/README.md.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::load::{Questions, ask_each};
use super::questions::Form;
use crate::contender::{Contender, Guarantee, Job, Program};
use crate::measure::{Bench, Running};
use crate::options::Options;
use crate::peers::set_up;
use crate::reaper::remove_at_end;
use crate::root;
use crate::workload::Model;

/// How long a service may take until it is ready: MLflow's takes long.
const PATIENCE: Duration = Duration::from_secs(90);

/// Where it is asked for one row or for many, and how.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub path: String,
    pub form: Form,
}

/// One line of the tables: a way to ask a service.
#[derive(Clone, Debug)]
pub struct Face {
    pub name: String,
    /// For requests of one row.
    pub one: Ask,
    /// For requests of several.
    pub many: Ask,
    pub ours: bool,
}

impl Face {
    pub fn ask(&self, rows: usize) -> &Ask {
        if rows == 1 { &self.one } else { &self.many }
    }
}

/// A process (or a group of them) that answers.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    pub version: String,
    program: Program,
    environment: BTreeMap<String, String>,
    /// Answers 200 when it may be asked.
    ready: String,
    pub faces: Vec<Face>,
    models: Vec<Model>,
    /// Only measured where every service is.
    brief: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    service: Vec<Entry>,
}

/// A service's entry; benches/README.md explains the fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    version: String,
    ready: String,
    one: Ask,
    many: Ask,
    #[serde(default)]
    models: Option<Vec<Model>>,
    #[serde(default)]
    setup: Vec<String>,
    command: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    brief: bool,
}

/// The worker with both of its faces.
pub fn ours(options: &Options) -> Service {
    let face = |path: &str, one, many| Face {
        name: format!("fraud-scorer {path}"),
        one: Ask { path: path.into(), form: one },
        many: Ask { path: path.into(), form: many },
        ours: true,
    };
    Service {
        name: "fraud-scorer".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        program: Program::Worker(options.worker.clone()),
        environment: BTreeMap::new(),
        ready: "/readyz".into(),
        faces: vec![
            face("/v1/score", Form::Object, Form::Split),
            face("/invocations", Form::DataframeSplit, Form::DataframeSplit),
        ],
        models: Model::ALL.to_vec(),
        brief: false,
    }
}

/// Whether what was asked for leaves any service but the worker.
pub fn is_wanted(options: &Options) -> bool {
    !entries(options).is_empty()
}

/// Those of the file that were asked for.
fn entries(options: &Options) -> Vec<Entry> {
    let path = root().join(&options.services);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file: File = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let wanted = |entry: &Entry| options.only.as_ref().is_none_or(|only| entry.name.contains(only.as_str()));
    file.service.into_iter().filter(wanted).collect()
}

/// Those that were asked for and could be set up.
pub fn others(options: &Options, failures: &mut Vec<String>) -> Vec<Service> {
    let mut services = Vec::new();
    for entry in entries(options) {
        eprintln!("  setting up {}", entry.name);
        match set_up(&entry.setup, root()) {
            Ok(()) => services.push(entry.into()),
            Err(error) => failures.push(format!("{}: {error}", entry.name)),
        }
    }
    services
}

impl From<Entry> for Service {
    fn from(entry: Entry) -> Service {
        Service {
            name: entry.name.clone(),
            version: entry.version,
            program: Program::Peer(entry.command),
            environment: entry.environment,
            ready: entry.ready,
            faces: vec![Face { name: entry.name, one: entry.one, many: entry.many, ours: false }],
            models: entry.models.unwrap_or_else(|| Model::ALL.to_vec()),
            brief: entry.brief,
        }
    }
}

impl Service {
    /// Whether it takes part for `model`.
    pub fn has(&self, model: Model) -> bool {
        self.models.contains(&model)
    }

    /// Whether it takes part everywhere.
    pub fn in_full(&self) -> bool {
        !self.brief
    }

    /// Starts it and waits until it may be asked. The worker's topics are empty: it serves HTTP alone.
    pub fn start(&self, bench: &Bench, quiet: &str, model: Model) -> Result<Started, String> {
        let folder = tempfile::Builder::new().prefix("service-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        remove_at_end(folder.path());
        let mut environment = self.environment.clone();
        environment.insert("SCRATCH".into(), folder.path().display().to_string());
        let contender = Contender {
            name: self.name.clone(),
            version: self.version.clone(),
            program: self.program.clone(),
            environment,
            ..Contender::worker(model, Guarantee::ExactlyOnce, 1, &[])
        };
        let job = bench.job(quiet, 5);
        let running = Running::start(&contender, &job)?;
        let address = SocketAddr::from(([127, 0, 0, 1], job.port));
        let mut started = Started { running, address, job, _folder: folder };
        started.wait_until_ready(&self.ready)?;
        Ok(started)
    }
}

/// A service that runs.
pub struct Started {
    pub running: Running,
    pub address: SocketAddr,
    job: Job,
    _folder: tempfile::TempDir,
}

impl Started {
    fn wait_until_ready(&mut self, path: &str) -> Result<(), String> {
        let question = Questions { address: self.address, path: path.into(), bodies: vec![Bytes::new()].into() };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = ask_each(&question, &Method::GET);
            if matches!(outcome.as_deref(), Ok([(StatusCode::OK, _)])) {
                return Ok(());
            }
            self.running.check()?;
            if Instant::now() > deadline {
                let what = format!("{path} answers {outcome:?} after {} s", PATIENCE.as_secs());
                return Err(self.running.complaint(&what));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it.
    pub fn stop(mut self, bench: &Bench) {
        self.running.stop();
        bench.admin.delete(&[&self.job.output]);
    }
}
