use std::path::{Path, PathBuf};
use std::thread::spawn;
use std::time::Duration;

use super::*;
use crate::model::source::Registered;
use crate::pipeline::shadow::Share;

fn settings() -> ExchangeSettings {
    ExchangeSettings {
        kernel: KernelChoice::Auto,
        key: None,
        threads: 1,
        max_message_bytes: 1 << 20,
        max_batch: 256,
        input_topic: "transactions".into(),
        challenger: ChallengerSettings { share: Share::ALL },
        drift: DriftSettings::default(),
        verification: None,
        audit: Audit::default(),
    }
}

fn actor() -> Actor {
    Actor::new("admin", "127.0.0.1")
}

fn bundle(name: &str) -> Candidate {
    Candidate::of_directory(Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name))
}

/// A copy of models/fraud without golden records, edited.
fn edited(folder: &Path, edit: impl Fn(String) -> String) -> Candidate {
    let directory: PathBuf = folder.join("bundle");
    std::fs::create_dir_all(&directory).unwrap();
    let from = bundle("fraud").directory;
    std::fs::copy(from.join("model.onnx"), directory.join("model.onnx")).unwrap();
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    // Of [files] none is there.
    let manifest: Vec<&str> = manifest.lines().filter(|line| !line.starts_with('"')).collect();
    let manifest = manifest.join("\n");
    std::fs::write(directory.join("manifest.toml"), edit(manifest)).unwrap();
    Candidate::of_directory(directory)
}

/// A scoring thread's turns until `done`.
fn turns(
    seat: &Seat,
    mine: &mut ThreadModel,
    shadow: &mut ThreadChallenger,
    done: impl Fn(&ThreadModel, &ThreadChallenger) -> bool,
) {
    let began = Instant::now();
    while !done(mine, shadow) {
        assert!(began.elapsed() < Duration::from_secs(60), "not taken up");
        let mut changed = seat.is_outdated(mine) && seat.exchange(mine);
        changed |= seat.has_other_challenger(shadow) && seat.exchange_challenger(shadow);
        if let Some(shadow) = shadow.shadow.as_deref_mut().filter(|_| changed) {
            let _ = shadow.fit(&mine.model);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_registered_model_has_the_registrys_version_and_must_agree_in_name() {
    let registered = |name: &str, version: &str| Candidate {
        registered: Some(Registered { name: name.into(), version: version.into() }),
        origin: format!("mlflow:{name}@champion"),
        ..bundle("fraud")
    };
    let exchange = Exchange::open(settings(), registered("fraud", "7")).unwrap();
    assert_eq!(exchange.serving().id(), "fraud@7");
    assert_eq!(exchange.seat(0).first().unwrap().model.id(), "fraud@7");
    let refusal = exchange.offer(registered("other", "8"), &actor()).unwrap_err();
    assert_eq!((refusal.gate, refusal.origin.as_str()), (Gate::Manifest, "mlflow:other@champion"));
    assert!(refusal.reason.contains("\"other\"") && refusal.reason.contains("\"fraud\""), "{refusal}");
    let refusal = exchange.reload(&actor()).unwrap_err();
    assert!(refusal.reason.contains("alias"), "{refusal}");
    assert_eq!(exchange.rollback(&actor()).unwrap_err(), NoPrevious);
    assert_eq!(exchange.serving().id(), "fraud@7");
}

#[test]
fn a_challenger_comes_and_goes_and_rests_where_it_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    // A serving model that does not read V10, which the challenger wants.
    let other = edited(folder.path(), |manifest| {
        let manifest = manifest.replace("version = \"1\"", "version = \"2\"");
        manifest.replace("{ name = \"V10\" }", "{ name = \"other\", default = 0.0 }")
    });
    let exchange = Exchange::open(settings(), bundle("fraud")).unwrap();
    let seat = exchange.seat(0);
    let (mut mine, mut shadow) = (seat.first().unwrap(), seat.first_challenger().unwrap());
    assert!(shadow.shadow.is_none() && seat.first_challenger().is_none());
    let shown = |exchange: &Exchange| serde_json::to_value(exchange.status()).unwrap();

    let asking = exchange.clone();
    let offered = spawn(move || asking.challenge(Some(bundle("fraud-lr")), &actor()));
    turns(&seat, &mut mine, &mut shadow, |_, shadow| shadow.shadow.is_some());
    offered.join().unwrap().unwrap();
    assert!(shadow.shadow.as_ref().unwrap().is_active());
    assert_eq!(shown(&exchange)["challenger"]["name"], "fraud-lr");

    let asking = exchange.clone();
    let offered = spawn(move || asking.offer(other, &actor()));
    turns(&seat, &mut mine, &mut shadow, |mine, _| mine.model.id() == "fraud@2");
    offered.join().unwrap().unwrap();
    assert!(!shadow.shadow.as_ref().unwrap().is_active());
    let challenger = &shown(&exchange)["challenger"];
    assert_eq!(challenger["active"], false);
    assert!(challenger["reason"].as_str().unwrap().contains("it wants V10,"), "{challenger}");

    let asking = exchange.clone();
    let back = spawn(move || asking.rollback(&actor()));
    turns(&seat, &mut mine, &mut shadow, |mine, _| mine.model.id() == "fraud@1");
    assert_eq!(back.join().unwrap().unwrap().id(), "fraud@1");
    assert!(shadow.shadow.as_ref().unwrap().is_active(), "it goes on");
    assert_eq!(shown(&exchange)["rolled_back_from"], "fraud@2");

    let asking = exchange.clone();
    let offered = spawn(move || asking.challenge(None, &actor()));
    turns(&seat, &mut mine, &mut shadow, |_, shadow| shadow.shadow.is_none());
    offered.join().unwrap().unwrap();
    let status = shown(&exchange);
    assert!(status["challenger"].is_null());
    let results: Vec<&str> =
        status["history"].as_array().unwrap().iter().map(|event| event["result"].as_str().unwrap()).collect();
    assert_eq!(results, ["challenger-changed", "rolled-back", "swapped", "challenger-changed"]);
}

#[test]
fn a_candidate_that_rejects_what_was_scored_is_refused_with_the_features_name() {
    let folder = tempfile::tempdir().unwrap();
    let wants_more = edited(folder.path(), |manifest| {
        let manifest = manifest.replace("version = \"1\"", "version = \"2\"");
        manifest.replace("{ name = \"V10\" }", "{ name = \"V99\" }")
    });
    let exchange = Exchange::open(settings(), bundle("fraud")).unwrap();
    let golden = std::fs::read_to_string(bundle("fraud").directory.join("golden.jsonl")).unwrap();
    exchange.seat(0).samples().leave(golden.lines().take(8).map(str::as_bytes));
    let refusal = exchange.offer(wants_more, &actor()).unwrap_err();
    assert_eq!(refusal.gate, Gate::Canary);
    assert!(refusal.reason.contains("8 of 8 recent transactions") && refusal.reason.contains("V99"), "{refusal}");
}
