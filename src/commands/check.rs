//! `fraud-scorer check`: the doctor. One line per question, with the fix where the answer is no; exit 1 on any failure.

use std::io::Write;
use std::time::Duration;

use fraud_settings::KafkaArguments;

use super::Failure;
use super::model::ModelArguments;
use super::run::WorkerArguments;
use crate::drift;
use crate::kafka::oauth;
use crate::kafka::startup::{Inquiry, StartupError};
use crate::model::bundle::Bundle;
use crate::model::choice::ModelEngine;
use crate::model::exchange::{ExchangeSettings, Gate, Verification};
use crate::model::manifest::Manifest;
use crate::model::runtime;
use crate::model::session::newest_readable;
use crate::model::source::{Candidate, ModelSource};
use crate::model::trees::verify::Agreement;
use crate::pipeline::shadow::Columns;
use crate::shutdown::Shutdown;
use crate::transaction::Guarantee;
use crate::worker::WorkerSettings;

/// How long one question to the broker may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `check`: those of `run`, so that what is checked is what will run.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    kafka: KafkaArguments,

    #[command(flatten)]
    worker: WorkerArguments,

    /// Check only what needs no broker
    #[arg(long)]
    offline: bool,
}

/// Prints findings and remembers whether one was bad.
#[derive(Default)]
struct Report {
    failures: usize,
}

impl Report {
    fn good(&mut self, what: &str, finding: impl std::fmt::Display) {
        print(format_args!("ok    {what}: {finding}"));
    }

    fn bad(&mut self, what: &str, finding: impl std::fmt::Display) {
        print(format_args!("FAIL  {what}: {finding}"));
        self.failures += 1;
    }
}

/// A line of the report; a reader who has seen enough (`… | head`) is no reason to panic.
pub(super) fn print(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Asks all questions.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let mut report = Report::default();
    let settings = match arguments.worker.settings(&arguments.kafka) {
        Ok(settings) => {
            report.good(
                "settings",
                format!("{:?}, {} thread(s), group {}", settings.guarantee, settings.threads, settings.group),
            );
            Some(settings)
        }
        Err(failure) => {
            report.bad("settings", format!("{:#}", failure.reason));
            None
        }
    };
    match runtime::environment().map(|_| runtime::find_library()) {
        Ok(path) => {
            let newest = newest_readable().map_or_else(String::new, |(ir_version, operator_set)| {
                format!(", reads models up to IR version {ir_version} and operator set {operator_set}")
            });
            let path = path.map_or_else(|reason| reason, |path| path.display().to_string());
            report.good("ONNX Runtime", path + &newest);
        }
        Err(error) => report.bad("ONNX Runtime", error),
    }
    let exchange = settings.as_ref().map(|settings| {
        let verification = Verification::by_this_program(arguments.worker.verify_timeout, Shutdown::default());
        ExchangeSettings { verification: verification.ok(), ..settings.exchange() }
    });
    let serving = check_bundle(&mut report, &arguments, exchange.as_ref());
    check_challenger(&mut report, &arguments, exchange.as_ref(), serving.as_ref());
    match settings {
        Some(settings) if !arguments.offline => check_kafka(&mut report, &settings),
        _ => {}
    }
    match report.failures {
        0 => Ok(()),
        failures => Err(Failure::at_run_time(anyhow::anyhow!("{failures} of the checks failed"))),
    }
}

/// Which version the registry names, and its files.
fn check_registry(report: &mut Report, arguments: &ModelArguments) -> Option<Candidate> {
    let model = match &arguments.model {
        ModelSource::Directory(directory) => return Some(Candidate::of_directory(directory)),
        ModelSource::Registry(model) => model,
    };
    let fetched = arguments.registry().map_err(anyhow::Error::from).and_then(|registry| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok((runtime.block_on(registry.get(model))?, registry.server().to_owned()))
    });
    match fetched {
        Ok((fetched, server)) => {
            report.good("registry", format!("{model} is version {} at {server}", fetched.version.version));
            Some(fetched.candidate)
        }
        Err(error) => {
            report.bad("registry", format!("{error:#}"));
            None
        }
    }
}

/// The bundle that would serve; its manifest, if it is good.
fn check_bundle(report: &mut Report, arguments: &Arguments, exchange: Option<&ExchangeSettings>) -> Option<Manifest> {
    let candidate = check_registry(report, &arguments.worker.source)?;
    let bundle = match load(&candidate, arguments, exchange) {
        Ok(bundle) => bundle,
        Err(reason) => {
            report.bad("model bundle", reason);
            return None;
        }
    };
    let manifest = &bundle.manifest;
    let directory = bundle.directory.display();
    report.good(
        "model bundle",
        format!("{} in {directory}: {} features, hash and signature match", manifest.id(), manifest.features.len()),
    );
    if let Err(error) = arguments.worker.mask().check(manifest.feature_names()) {
        report.bad("mask", error);
    }
    report.good("engine", engine(&bundle.engine));
    report.good(
        "thresholds",
        format!("review from {}, decline from {}", manifest.thresholds.review(), manifest.thresholds.decline()),
    );
    match bundle.golden_records {
        0 => report.good("golden records", "none in this bundle: scores are not held against training's"),
        count => {
            report.good("golden records", format!("{count} match, largest difference {:e}", bundle.golden_difference))
        }
    }
    match drift::baseline(&bundle.directory, manifest) {
        Ok(Some(baseline)) => {
            report.good("drift", format!("watched against {} training rows", baseline.reference_rows()))
        }
        Ok(None) => report.good("drift", "not watched: no reference.json in this bundle"),
        Err(error) => report.bad("drift", error),
    }
    for (key, value) in manifest.training.iter().filter(|(_, value)| !value.is_table() && !value.is_array()) {
        report.good("training", format!("{key} = {value}"));
    }
    Some(bundle.manifest)
}

/// The candidate's bundle, as a worker would take it: verified in a process of its own first.
fn load(candidate: &Candidate, arguments: &Arguments, exchange: Option<&ExchangeSettings>) -> Result<Bundle, String> {
    exchange.map_or(Ok(()), |exchange| exchange.verify(candidate)).map_err(|refusal| match refusal.gate {
        Gate::Limits => refusal.to_string(),
        _ => refusal.reason,
    })?;
    candidate
        .load(arguments.worker.kernel, arguments.worker.source.model_key.as_ref())
        .map_err(|error| error.to_string())
}

/// The challenger's bundle, and whether the serving model's rows are enough for it.
fn check_challenger(
    report: &mut Report,
    arguments: &Arguments,
    exchange: Option<&ExchangeSettings>,
    serving: Option<&Manifest>,
) {
    let Some(source) = &arguments.worker.challenger else { return };
    let asked = ModelArguments { model: source.clone(), ..arguments.worker.source.clone() };
    let Some(candidate) = check_registry(report, &asked) else { return };
    let bundle = match load(&candidate, arguments, exchange) {
        Ok(bundle) => bundle,
        Err(reason) => return report.bad("challenger", reason),
    };
    // What is wrong with the serving model's bundle has its own line.
    let Some(serving) = serving else { return };
    match Columns::between(&serving.features, &bundle.manifest.features) {
        Ok(_) => {
            report.good("challenger", format!("{} in {}", bundle.manifest.id(), candidate.directory.display()));
        }
        Err(reason) => report.bad("challenger", reason),
    }
}

fn engine(engine: &ModelEngine) -> String {
    match engine.agreement() {
        None => format!("ONNX Runtime ({})", engine.detail()),
        Some(Agreement { rows, difference }) => {
            format!("kernel ({}); {rows} rows differ from ONNX Runtime by {difference:.1e} at most", engine.detail())
        }
    }
}

fn check_kafka(report: &mut Report, settings: &WorkerSettings) {
    let brokers = settings.kafka.get("bootstrap.servers").unwrap_or_default();
    if let Some(tokens) = &settings.tokens {
        match oauth::fetch_once(tokens) {
            Ok(()) => report.good("token", "the token endpoint gave one"),
            Err(reason) => return report.bad("token", reason),
        }
    }
    let inquiry = match Inquiry::new(&settings.kafka) {
        Ok(inquiry) => inquiry,
        Err(error) => return report.bad("broker", error),
    };
    let mut found = Vec::new();
    let topics = &settings.topics;
    let topics = [&topics.input, &topics.output, &topics.dead_letter].into_iter();
    let topics = topics.chain(&settings.topics.challenger).chain(&settings.topics.audit);
    let wanted = topics.clone().count();
    for topic in topics {
        match inquiry.partitions(topic, PATIENCE) {
            Ok(Some(partitions)) => found.push((topic, partitions)),
            Ok(None) => {
                let error = StartupError::MissingTopic { topic: topic.clone(), brokers: brokers.into() };
                report.bad("topic", error);
            }
            Err(StartupError::Unanswered(error)) => {
                return report.bad("broker", format!("{brokers} does not answer ({error}: {}): is it running, is the address right? `make kafka` starts one here", inquiry.last_error()));
            }
            Err(error) => return report.bad("broker", error),
        }
    }
    report.good("broker", format!("{brokers} answers"));
    for (topic, partitions) in &found {
        report.good("topic", format!("{topic} has {partitions} partitions"));
    }
    let mut ask = |what: &str, answer: Result<(), StartupError>| match answer {
        Ok(()) => report.good(what, "answers"),
        Err(error) => report.bad(what, error),
    };
    let leaders = found.iter().try_for_each(|(topic, _)| inquiry.ask_leaders(topic, PATIENCE));
    ask("leaders", leaders);
    ask("group coordinator", inquiry.ask_group_coordinator(&settings.group, &settings.topics.input, PATIENCE));
    if settings.guarantee == Guarantee::ExactlyOnce {
        ask("transaction coordinator", inquiry.ask_transaction_coordinator(&settings.group, PATIENCE));
        ask("fencing of members", inquiry.check_fencing());
    }
    let Some(&(input, expected)) = found.first().filter(|_| found.len() == wanted) else { return };
    // Dead letters may have as many partitions as they like, and the audit uses the first of its own.
    let is_free =
        |topic: &String| *topic == settings.topics.dead_letter || settings.topics.audit.as_ref() == Some(topic);
    for &(output, partitions) in found[1..].iter().filter(|(topic, _)| !is_free(topic)) {
        if partitions != expected {
            let (input, output) = (input.clone(), output.clone());
            report.bad("topics", StartupError::PartitionCount { input, output, expected, found: partitions });
        }
    }
}
