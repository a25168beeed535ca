//! Models from an MLflow server: an alias is followed, and without the server a worker goes on.
//!
//! The registry, its cache and its follower are held against a real server; what a worker does with them, as a process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use fraud_scorer::model::choice::KernelChoice;
use fraud_scorer::model::registry::follower::Follower;
use fraud_scorer::model::registry::{Registry, RegistryError, RegistrySettings};
use fraud_scorer::model::source::{Candidate, ModelSource, Offer, Registered, RegisteredModel};
use fraud_scorer::shutdown::Shutdown;
use fraud_scorer::telemetry::readiness::Readiness;
use serde_json::json;

use super::support::broker::shared;
use super::support::bundles::Shelf;
use super::support::mlflow::Mlflow;
use super::support::process::{Running, finish, scorer};
use super::support::root;
use super::support::topics::{Record, Topics};

const LIMIT: Duration = Duration::from_secs(120);

fn bundle() -> PathBuf {
    root().join("models/fraud")
}

/// A copy of the committed bundle, with something changed.
fn changed(change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(bundle()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    change(folder.path());
    folder
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from:?} stands in {}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn champion() -> RegisteredModel {
    "fraud@champion".parse().unwrap()
}

fn registry(server: &Mlflow, cache: &Path) -> Registry {
    let poll = Duration::from_millis(200);
    let settings = RegistrySettings::new(Some(&server.address()), Some(cache.to_owned()), poll, &[], |_| None);
    Registry::new(settings.unwrap()).unwrap()
}

/// Verifies what it is offered as a worker does, and remembers.
struct Recorder {
    serving: Mutex<Option<Registered>>,
    offers: Mutex<Vec<String>>,
    withdrawn: Mutex<usize>,
}

impl Offer for Recorder {
    fn offer(&self, candidate: Candidate) -> Result<(), String> {
        let version = candidate.registered.as_ref().unwrap().version.clone();
        let outcome = candidate.load(KernelChoice::Auto, None).map_err(|error| error.to_string());
        let mark = if outcome.is_ok() { "accepted" } else { "refused" };
        self.offers.lock().unwrap().push(format!("{version} {mark}"));
        outcome.map(|bundle| {
            assert_eq!(bundle.manifest.version, version, "verdicts name the registry's version");
            *self.serving.lock().unwrap() = candidate.registered;
        })
    }

    fn serving(&self) -> Option<Registered> {
        self.serving.lock().unwrap().clone()
    }

    fn withdrawn(&self) {
        *self.withdrawn.lock().unwrap() += 1;
    }
}

/// A follower that is driven turn by turn.
struct Followed {
    runtime: tokio::runtime::Runtime,
    follower: Follower,
    recorder: Arc<Recorder>,
    readiness: Readiness,
}

impl Followed {
    fn start(registry: Registry) -> Followed {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (readiness, shutdown) = (Readiness::default(), Shutdown::default());
        let begun = runtime.block_on(registry.open(&champion(), &readiness, &shutdown)).unwrap().unwrap();
        let recorder = Arc::new(Recorder {
            serving: Mutex::new(begun.candidate.registered.clone()),
            offers: Mutex::default(),
            withdrawn: Mutex::default(),
        });
        let offer: Arc<dyn Offer> = recorder.clone();
        let follower = Follower::new(Arc::new(registry), champion(), Some(begun), offer, readiness.clone());
        Followed { runtime, follower, recorder, readiness }
    }

    fn turn(&mut self) {
        self.runtime.block_on(self.follower.turn());
    }

    fn offers(&self) -> Vec<String> {
        std::mem::take(&mut self.recorder.offers.lock().unwrap())
    }

    fn serving(&self) -> String {
        self.recorder.serving().unwrap().version
    }

    fn warning(&self) -> String {
        self.readiness.warnings().join("\n")
    }
}

#[test]
fn an_alias_is_followed_through_refusals_outages_and_its_own_removal() {
    let mut server = Mlflow::start();
    let cache = tempfile::tempdir().unwrap();
    let corrupt = changed(|bundle| fs::write(bundle.join("model.onnx"), b"not what was hashed").unwrap());
    let misnamed = changed(|bundle| edit(&bundle.join("manifest.toml"), "name = \"fraud\"", "name = \"chargebacks\""));
    let half = tempfile::tempdir().unwrap();
    fs::copy(bundle().join("model.onnx"), half.path().join("model.onnx")).unwrap();
    let versions: Vec<String> = [bundle(), bundle(), corrupt.path().into(), misnamed.path().into(), half.path().into()]
        .iter()
        .map(|bundle| server.register(bundle))
        .collect();
    assert_eq!(versions, ["1", "2", "3", "4", "5"]);

    server.point("champion", "1");
    let mut followed = Followed::start(registry(&server, cache.path()));
    followed.turn();
    assert_eq!((followed.serving(), followed.offers().len()), ("1".into(), 0), "it has begun with that");

    server.point("champion", "2");
    followed.turn();
    followed.turn();
    assert_eq!((followed.serving(), followed.offers()), ("2".into(), vec!["2 accepted".into()]));
    assert_eq!(followed.warning(), "");

    for (version, says) in [("3", "sha256"), ("4", "chargebacks"), ("5", "manifest.toml")] {
        server.point("champion", version);
        followed.turn();
        followed.turn();
        assert_eq!(followed.serving(), "2");
        // One that has no manifest is not even offered.
        let expected = if version == "5" { vec![] } else { vec![format!("{version} refused")] };
        assert_eq!(followed.offers(), expected, "once");
        let warning = followed.warning();
        assert!(warning.contains(&format!("version {version} was refused")), "{warning}");
        assert!(warning.contains(says) && warning.contains("fraud@2 goes on"), "{warning}");
    }

    server.crash();
    followed.turn();
    let warning = followed.warning();
    assert!(warning.contains("registry unreachable") && warning.contains("fraud@2 goes on"), "{warning}");
    server.up();
    followed.turn();
    assert!(followed.warning().contains("version 5 was refused"), "{}", followed.warning());

    server.unpoint("champion");
    followed.turn();
    followed.turn();
    let warning = followed.warning();
    assert!(warning.contains("alias is gone") && warning.contains("set_registered_model_alias"), "{warning}");
    assert_eq!((followed.serving(), *followed.recorder.withdrawn.lock().unwrap()), ("2".into(), 1));

    server.point("champion", "1");
    followed.turn();
    assert_eq!((followed.serving(), followed.offers()), ("1".into(), vec!["1 accepted".into()]));
    assert_eq!(followed.warning(), "");
    let kept: Vec<String> = fs::read_dir(cache.path().join("fraud"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().split('-').next().unwrap().to_owned())
        .collect();
    assert_eq!(kept.len(), 3, "two versions and where the alias leads; nothing of what was refused: {kept:?}");
}

#[test]
fn a_version_is_found_wherever_its_source_says_its_files_are() {
    let server = Mlflow::start();
    let cache = tempfile::tempdir().unwrap();
    let (run, folder) = server.create_run();
    server.upload(&bundle(), &format!("{folder}/bundle"));
    let of_run = server.create_version(&format!("runs:/{run}/bundle"), json!({"run_id": run}));
    // A name that must be encoded on its way.
    server.upload(&bundle(), &format!("{folder}/card fraud"));
    let direct = server.create_version(&format!("{folder}/card fraud"), json!({"run_id": run}));
    let logged = server.register(&bundle());
    let elsewhere = server.create_version("gs://models/fraud", json!({}));
    let registry = registry(&server, cache.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let get = |version: &str| runtime.block_on(registry.get(&format!("fraud/{version}").parse().unwrap()));
    for version in [&direct, &of_run, &logged] {
        let fetched = get(version).unwrap_or_else(|error| panic!("{version}: {error}"));
        for entry in fs::read_dir(bundle()).unwrap() {
            let name = entry.unwrap().file_name();
            let here = fs::read(fetched.candidate.directory.join(&name)).unwrap();
            assert!(here == fs::read(bundle().join(&name)).unwrap(), "{version}: {name:?} is as it was uploaded");
        }
    }
    let error = get(&elsewhere).unwrap_err();
    assert!(matches!(error, RegistryError::Artifact { .. }) && error.to_string().contains("gs://"), "{error}");
    let error = get("99").unwrap_err();
    assert!(matches!(error, RegistryError::Nothing { .. }), "{error}");
}

/// `run` with the model that the alias names.
fn worker(topics: &Topics, server: &Mlflow, cache: &Path) -> std::process::Command {
    let mut command = topics.worker();
    command.args(["--model", "mlflow:fraud@champion", "--model-poll", "200ms", "--model-cache"]).arg(cache);
    command.env("MLFLOW_TRACKING_URI", server.address());
    command
}

/// Sends transactions one by one, and reads their verdicts.
struct Probe<'a> {
    topics: &'a Topics,
    sent: usize,
}

impl Probe<'_> {
    /// The version in the verdict of one transaction more.
    fn version(&mut self) -> String {
        let golden = fs::read_to_string(bundle().join("golden.jsonl")).unwrap();
        self.topics.send(&[Record { value: golden.lines().next().map(str::as_bytes), ..Record::default() }]);
        self.sent += 1;
        let mut verdicts = self.topics.subscribe(&self.topics.output);
        verdicts.wait_for("a verdict", self.sent, LIMIT);
        verdicts.seen.last().unwrap().verdict().model.version
    }
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_worker_starts_from_an_alias_and_without_the_server_from_its_cache() {
    let mut server = Mlflow::start();
    let (topics, cache) = (Topics::create(shared(), 1), tempfile::tempdir().unwrap());

    // Nothing there yet: it says how to set the alias.
    let output = finish(worker(&topics, &server, cache.path()), LIMIT);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("set_registered_model_alias(\"fraud\", \"champion\""), "{}", stderr(&output));

    server.register(&bundle());
    let version = server.register(&bundle());
    server.point("champion", &version);
    let mut running = Running::start(worker(&topics, &server, cache.path()));
    running.wait_until_ready();
    assert_eq!(running.get("/readyz"), (200, "ready\n".into()));
    assert_eq!(Probe { topics: &topics, sent: 0 }.version(), version, "the registry's number, not the manifest's");

    server.crash();
    super::support::wait_for("a warning in /readyz", LIMIT, || {
        let (status, body) = running.get("/readyz");
        assert_eq!(status, 200, "still ready: {body}");
        body.contains("warning: registry unreachable").then_some(())
    });
    assert!(running.get("/metrics").1.contains("fraud_scorer_registry_reachable 0"));
    running.terminate();
    assert_eq!(running.finish(LIMIT).status.code(), Some(0));

    let mut running = Running::start(worker(&topics, &server, cache.path()));
    running.wait_until_ready();
    running.wait_for_log("starting from the model cache", LIMIT);
    server.up();
    super::support::wait_for("the warning goes", LIMIT, || (running.get("/readyz").1 == "ready\n").then_some(()));
    assert!(running.get("/metrics").1.contains("fraud_scorer_registry_reachable 1"));
    running.terminate();
    assert_eq!(running.finish(LIMIT).status.code(), Some(0));

    // A version under another model's name is refused before anything is read.
    let misnamed = changed(|bundle| edit(&bundle.join("manifest.toml"), "name = \"fraud\"", "name = \"chargebacks\""));
    let refused = server.register(misnamed.path());
    server.point("champion", &refused);
    let empty = tempfile::tempdir().unwrap();
    let output = finish(worker(&topics, &server, empty.path()), LIMIT);
    assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    assert!(stderr(&output).contains("chargebacks"), "{}", stderr(&output));

    // Where another version has served already, that one does, and what is wrong with the new one is said.
    let mut running = Running::start(worker(&topics, &server, cache.path()));
    running.wait_until_ready();
    running.wait_for_log("starting with the one that served last", LIMIT);
    super::support::wait_for("the refusal in /readyz", LIMIT, || {
        let (status, body) = running.get("/readyz");
        (status == 200 && body.contains(&format!("version {refused} was refused"))).then_some(())
    });
    assert_eq!(running.get_json("/model")["serving"]["version"], version.as_str());
    running.terminate();
    assert_eq!(running.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_running_worker_swaps_to_where_the_alias_moves_and_refuses_what_is_broken() {
    let server = Mlflow::start();
    let (topics, cache) = (Topics::create(shared(), 1), tempfile::tempdir().unwrap());
    let corrupt = changed(|bundle| fs::write(bundle.join("model.onnx"), b"not what was hashed").unwrap());
    let versions = [server.register(&bundle()), server.register(&bundle()), server.register(corrupt.path())];
    server.point("champion", &versions[0]);
    let mut running = Running::start(worker(&topics, &server, cache.path()));
    running.wait_until_ready();
    let mut probe = Probe { topics: &topics, sent: 0 };
    assert_eq!(probe.version(), versions[0]);

    server.point("champion", &versions[1]);
    super::support::wait_for("verdicts of the new version", LIMIT, || (probe.version() == versions[1]).then_some(()));
    server.point("champion", &versions[2]);
    super::support::wait_for("the refusal in /readyz", LIMIT, || {
        let (status, body) = running.get("/readyz");
        assert_eq!(status, 200, "still ready: {body}");
        body.contains(&format!("version {} was refused", versions[2])).then_some(())
    });
    assert_eq!(probe.version(), versions[1], "what served goes on");
    let metrics = running.get("/metrics").1;
    for line in ["model_swaps_total{result=\"swapped\"} 1", "model_swaps_total{result=\"refused\"} 1"] {
        assert!(metrics.contains(&format!("fraud_scorer_{line}")), "{line}:\n{metrics}");
    }
    running.terminate();
    assert_eq!(running.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_registry_that_is_down_is_waited_for_where_nothing_is_cached() {
    let mut server = Mlflow::start();
    server.point("champion", &server.register(&bundle()));
    server.crash();
    let (topics, cache) = (Topics::create(shared(), 1), tempfile::tempdir().unwrap());
    let mut running = Running::start(worker(&topics, &server, cache.path()));
    running.wait_for_log("waiting for the model registry", LIMIT);
    let (status, body) = running.get("/readyz");
    assert!(status == 503 && body.contains("waiting for the model registry"), "{status} {body}");
    server.up();
    running.wait_until_ready();
    running.terminate();
    assert_eq!(running.finish(LIMIT).status.code(), Some(0));

    server.crash();
    let other = tempfile::tempdir().unwrap();
    let mut running = Running::start(worker(&topics, &server, other.path()));
    running.wait_for_log("waiting for the model registry", LIMIT);
    running.terminate();
    assert_eq!(running.finish(LIMIT).status.code(), Some(0), "stopping while it waits is no failure");
}

#[test]
fn the_doctor_asks_the_registry_and_checks_what_it_names() {
    let server = Mlflow::start();
    let cache = tempfile::tempdir().unwrap();
    server.point("champion", &server.register(&bundle()));
    let check = |model: &str, server: &str| {
        let mut command = scorer();
        command.args(["check", "--offline", "--model", model, "--mlflow-uri", server, "--model-cache"]);
        command.arg(cache.path()).env("MLFLOW_TRACKING_TOKEN", "hush-hush");
        let output = finish(command, LIMIT);
        assert!(!stderr(&output).contains("hush-hush"), "no secret in a log");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, report) = check("mlflow:fraud@champion", &server.address());
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("ok    registry: mlflow:fraud@champion is version 1"), "{report}");
    assert!(report.contains("ok    model bundle: fraud@1"), "{report}");
    for (model, server, says) in [
        ("mlflow:fraud@challenger", server.address(), "challenger"),
        ("mlflow:fraud/7", server.address(), "fraud/7"),
        ("mlflow:fraud@champion", "http://127.0.0.1:1".into(), "MLFLOW_TRACKING_URI"),
        ("mlflow:fraud@champion", "http://me:hush-hush@127.0.0.1:1".into(), "MLFLOW_TRACKING_PASSWORD"),
    ] {
        let (code, report) = check(model, &server);
        let failed = report.lines().find(|line| line.starts_with("FAIL  registry")).unwrap_or_default();
        assert!(code == Some(1) && failed.contains(says) && !report.contains("hush-hush"), "{report}");
    }
    assert!("mlflow:fraud".parse::<ModelSource>().is_err());
}

/// As much of S3 as reading needs: a bundle's files below `fraud/` in the bucket `models`, for one access key.
async fn object_store(uri: axum::http::Uri, headers: axum::http::HeaderMap, method: axum::http::Method) -> Response {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !authorization.contains("Credential=test-access-key/") {
        return (axum::http::StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response();
    }
    let stamp = "2026-01-01T00:00:00.000Z";
    if uri.query().is_some_and(|query| query.contains("list-type=2")) {
        let content = |entry: fs::DirEntry| {
            let (name, size) = (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len());
            format!(
                "<Contents><Key>fraud/{name}</Key><LastModified>{stamp}</LastModified><ETag>\"{size}\"</ETag>\
                 <Size>{size}</Size></Contents>"
            )
        };
        let contents: String = fs::read_dir(bundle()).unwrap().map(|entry| content(entry.unwrap())).collect();
        return format!("<ListBucketResult>{contents}</ListBucketResult>").into_response();
    }
    let Some(bytes) = uri.path().strip_prefix("/models/fraud/").and_then(|name| fs::read(bundle().join(name)).ok())
    else {
        return axum::http::StatusCode::NOT_FOUND.into_response();
    };
    let (size, modified) = (bytes.len(), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT".to_owned()));
    if method == axum::http::Method::HEAD {
        return ([("content-length", size.to_string()), modified], axum::body::Body::empty()).into_response();
    }
    let range = headers["range"].to_str().unwrap().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (from, to): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
    let part = [("content-range", format!("bytes {from}-{to}/{size}")), modified];
    (axum::http::StatusCode::PARTIAL_CONTENT, part, bytes[from..=to].to_vec()).into_response()
}

#[test]
fn files_in_an_object_store_come_with_the_environments_credentials() {
    let server = Mlflow::start();
    server.point("champion", &server.create_version("s3://models/fraud", json!({})));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move { axum::serve(listener, axum::Router::new().fallback(object_store)).await });
    let check = |key: &str, store: &str| {
        let cache = tempfile::tempdir().unwrap();
        let mut command = scorer();
        command.args(["check", "--offline", "--model", "mlflow:fraud@champion", "--model-cache"]).arg(cache.path());
        command.args(["--model-store", store]);
        command.env("MLFLOW_TRACKING_URI", server.address()).env("AWS_ENDPOINT_URL", &endpoint);
        command.env("AWS_ACCESS_KEY_ID", key).env("AWS_SECRET_ACCESS_KEY", "hush-hush").env("AWS_REGION", "eu-west-1");
        let output = finish(command, LIMIT);
        let report = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(!report.contains("hush-hush") && !stderr(&output).contains("hush-hush"), "no secret in a log");
        (output.status.code(), report)
    };
    // Whoever registers a model may not send our credentials anywhere.
    for store in ["s3://models/other", "s3://other", "file:///models"] {
        let (code, report) = check("test-access-key", store);
        assert!(code == Some(1) && report.contains("--model-store"), "{report}");
    }
    let (code, report) = check("test-access-key", "s3://models");
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains("ok    model bundle: fraud@1"), "{report}");
    let (code, report) = check("another-key", "s3://models/fraud");
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains("AWS_ACCESS_KEY_ID"), "{report}");
}

#[test]
fn a_registered_version_without_golden_records_or_hashes_does_not_serve() {
    let server = Mlflow::start();
    let (topics, cache) = (Topics::create(shared(), 1), tempfile::tempdir().unwrap());
    for (edit, says) in [
        (
            (|directory, manifest| {
                fs::remove_file(directory.join("golden.jsonl")).unwrap();
                manifest
            }) as fn(&Path, String) -> String,
            "needs golden records",
        ),
        (
            |_, manifest| manifest.lines().filter(|line| !line.starts_with("\"golden")).collect::<Vec<_>>().join("\n"),
            "[files]",
        ),
    ] {
        let shelf = Shelf::with("fraud", "1");
        shelf.put_edited("fraud", "1", edit);
        let version = server.register(&shelf.path());
        server.point("champion", &version);
        let output = finish(worker(&topics, &server, cache.path()), LIMIT);
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
    }
}
