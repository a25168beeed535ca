//! `fraud-scorer run`: the worker process. Raw arguments become [`WorkerSettings`] here.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fraud_settings::{KafkaArguments, parse_duration};

use super::Failure;
use super::http::HttpArguments;
use super::model::ModelArguments;
use super::otlp::OtlpArguments;
use crate::audit::delivery::Delivery;
use crate::audit::{Action, Actor, Audit, Change, Outcome};
use crate::drift::DriftSettings;
use crate::http::{self, Edge};
use crate::kafka::client::conflict;
use crate::kafka::startup::{StartupError, Topics};
use crate::log_events;
use crate::mask::Mask;
use crate::model::choice::KernelChoice;
use crate::model::exchange::{ChallengerSettings, ChallengerSlot, ChampionSlot, Verification};
use crate::model::registry::follower::Follower;
use crate::model::source::{Candidate, ModelSource};
use crate::pipeline::shadow::Share;
use crate::scoring_service::Scoring;
use crate::shutdown::Shutdown;
use crate::signals::Signals;
use crate::telemetry::metrics;
use crate::telemetry::readiness::Readiness;
use crate::telemetry::spans::export::{Exporter, Names};
use crate::transaction::Guarantee;
use crate::worker::service::Outcome as Ended;
use crate::worker::{StartError, Worker, WorkerSettings, open_exchange};

/// Beyond the drain: how long leaving the group may take before the process ends regardless.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// Of that: how long the last spans may take.
const SPANS_GRACE: Duration = Duration::from_secs(2);

/// And the last audit events.
const AUDIT_GRACE: Duration = Duration::from_secs(2);

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArguments,

    /// Worker settings.
    #[command(flatten)]
    pub worker: WorkerArguments,

    /// The HTTP edge.
    #[command(flatten)]
    pub http: HttpArguments,

    /// Spans.
    #[command(flatten)]
    pub otlp: OtlpArguments,
}

/// What a worker is, apart from where its broker lives.
#[derive(Clone, Debug, clap::Args)]
pub struct WorkerArguments {
    /// Consumer group; workers of one group share the partitions
    #[arg(long, default_value = "fraud-scorer")]
    pub group: String,

    /// Topic of the transactions
    #[arg(long, value_name = "TOPIC", default_value = "transactions")]
    pub input_topic: String,

    /// Topic of the verdicts; needs as many partitions as the input topic
    #[arg(long, value_name = "TOPIC", default_value = "verdicts")]
    pub output_topic: String,

    /// Topic of what could not be scored
    #[arg(long, value_name = "TOPIC", default_value = "transactions.dlq")]
    pub dead_letter_topic: String,

    /// Where the model comes from.
    #[command(flatten)]
    pub source: ModelArguments,

    /// A second model, named like --model, that scores the same transactions in the shadow of the first: compared in the
    /// metrics, never in a verdict. An alias may name no version yet
    #[arg(long, value_name = "SOURCE")]
    pub challenger: Option<ModelSource>,

    /// Share of the records that the challenger scores, 0 to 1; always the same ones
    #[arg(long, value_name = "SHARE", default_value = "1", value_parser = parse_share)]
    pub challenger_share: Share,

    /// Topic of the comparisons with the challenger, row by row; needs as many partitions as the input topic
    /// [default: none is written]
    #[arg(long, value_name = "TOPIC")]
    pub challenger_topic: Option<String>,

    /// Topic of the audit: who changed what, and who tried to, as a chain of events of each process. Only the workers should
    /// be able to write there [default: none is written, the log has them]
    #[arg(long, value_name = "TOPIC")]
    pub audit_topic: Option<String>,

    /// Feature that is the amount at stake: shown by the console, summed up by decision, and where champion and challenger
    /// decide differently
    #[arg(long, value_name = "FEATURE", default_value = "Amount")]
    pub amount_feature: String,

    /// Fields that the console hides, separated by commas: transaction_id, key, or a feature's name. Topics, the archive and
    /// answers over HTTP are data and hold them all the same
    #[arg(long, value_name = "FIELD", value_delimiter = ',')]
    pub mask: Vec<String>,

    /// What computes the model
    #[arg(long, value_enum, default_value_t = KernelChoice::Auto)]
    pub kernel: KernelChoice,

    /// How long a model may take to be verified before it serves
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = parse_duration)]
    pub verify_timeout: Duration,

    /// What subscribers may rely on
    #[arg(long, value_enum, default_value_t = Guarantee::ExactlyOnce)]
    pub guarantee: Guarantee,

    /// Scoring threads; one keeps about one core busy
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    /// Exactly once: how long a verdict waits at most until it is visible, its commit included; a transaction ends sooner
    /// where that costs the broker little. At least once: longest time between commits of offsets
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = parse_interval)]
    pub commit_interval: Duration,

    /// Exactly once: how long a transaction grows at least, to spare the brokers
    #[arg(long, value_name = "DURATION", default_value = "0ms", value_parser = parse_duration)]
    pub min_commit_interval: Duration,

    /// How long a shutdown may wait for the last commit
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration)]
    pub drain_timeout: Duration,

    /// Most records scored together
    #[arg(long, value_name = "RECORDS", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_batch: u32,

    /// Largest transaction that is parsed; larger ones are dead letters
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub max_message_bytes: u32,

    /// Create missing topics
    #[arg(long)]
    pub create_topics: bool,

    /// Partitions of a created input topic; outputs take the input's count
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    pub partitions: i32,

    /// Score partitions again that the group has no offset of (expired, or deleted) though the output topic holds verdicts
    /// on them; without this the worker ends there
    #[arg(long)]
    pub rescore: bool,

    /// Names this worker for the broker's transactions; must be unique within the group. A stable name (a pod's) lets a
    /// restarted worker take over at once instead of after the transaction's time-out [default: random]
    #[arg(long, value_name = "ID")]
    pub instance_id: Option<String>,

    /// How far back drift is looked for: less is quicker to see it, but takes 1,000 rows to say anything
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_drift_window)]
    pub drift_window: Duration,

    /// Rows looked at for drift per second and scoring thread, at most; 0 looks at none
    #[arg(long, value_name = "ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub drift_sample: u32,
}

fn parse_share(text: &str) -> Result<Share, String> {
    text.parse::<f64>().map_err(|error| error.to_string()).and_then(Share::new)
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if (Duration::from_millis(1)..=Duration::from_secs(10)).contains(&interval) {
        Ok(interval)
    } else {
        Err("expected 1ms to 10s (a transaction must end before transaction.timeout.ms, 15 s by default)".into())
    }
}

fn parse_drift_window(text: &str) -> Result<Duration, String> {
    let window = parse_duration(text)?;
    if (Duration::from_secs(10)..=Duration::from_secs(7 * 24 * 3600)).contains(&window) {
        Ok(window)
    } else {
        Err("expected 10s to 168h".into())
    }
}

impl WorkerArguments {
    /// What is hidden from those who look.
    pub fn mask(&self) -> Mask {
        Mask::new(self.mask.clone(), &self.amount_feature)
    }

    /// The validated settings of a worker on these brokers.
    pub fn settings(&self, kafka: &KafkaArguments) -> Result<WorkerSettings, Failure> {
        let (client, tokens) = super::kafka_client(kafka)?;
        let transactions = (self.guarantee == Guarantee::ExactlyOnce).then_some(self.commit_interval);
        if let Some(reason) = conflict(&client, transactions) {
            return Err(Failure::configuration(anyhow::anyhow!(reason)));
        }
        if self.min_commit_interval > self.commit_interval {
            let (least, most) = (self.min_commit_interval, self.commit_interval);
            let message = format!("--min-commit-interval {least:?} is longer than --commit-interval {most:?}");
            return Err(Failure::configuration(anyhow::anyhow!("{message}: lower the one or raise the other")));
        }
        let topics: Vec<&String> = [&self.input_topic, &self.output_topic, &self.dead_letter_topic]
            .into_iter()
            .chain(&self.challenger_topic)
            .chain(&self.audit_topic)
            .collect();
        if (1..topics.len()).any(|index| topics[..index].contains(&topics[index])) {
            let message = "--input-topic, --output-topic, --dead-letter-topic, --challenger-topic and --audit-topic must be \
                           different topics";
            return Err(Failure::configuration(anyhow::anyhow!("{message}, not {topics:?}")));
        }
        let instance_id = self.instance_id.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        Ok(WorkerSettings {
            audit: Audit::new(&instance_id, self.audit_topic.is_some()),
            kafka: client,
            tokens,
            group: self.group.clone(),
            topics: Topics {
                input: self.input_topic.clone(),
                output: self.output_topic.clone(),
                dead_letter: self.dead_letter_topic.clone(),
                challenger: self.challenger_topic.clone(),
                audit: self.audit_topic.clone(),
                create: self.create_topics,
                partitions: self.partitions,
            },
            challengers: ChallengerSettings { share: self.challenger_share },
            amount_feature: self.amount_feature.clone(),
            verification: None,
            kernel: self.kernel,
            key: self.source.model_key.clone(),
            guarantee: self.guarantee,
            threads: usize::from(self.threads),
            instance_id,
            rescore: self.rescore,
            max_batch: self.max_batch as usize,
            max_message_bytes: self.max_message_bytes as usize,
            commit_interval: self.commit_interval,
            min_commit_interval: self.min_commit_interval,
            drain_timeout: self.drain_timeout,
            drift: DriftSettings { window: self.drift_window, rows_per_second: self.drift_sample },
        })
    }
}

/// Runs the worker until a signal ends it.
pub fn execute(arguments: Arguments) -> Result<(), Failure> {
    let mut settings = arguments.worker.settings(&arguments.kafka)?;
    let spans = arguments.otlp.settings(|name| std::env::var(name).ok()).map_err(Failure::configuration)?;
    let metrics = metrics::install().context("metrics recorder")?;
    let (readiness, shutdown) = (Readiness::default(), Shutdown::default());
    readiness.hold("start", "starting");
    let verification = Verification::by_this_program(arguments.worker.verify_timeout, shutdown.clone());
    settings.verification = Some(verification.context("finding this program")?);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let exporter = match spans {
        Some(spans) => Some(Exporter::start(spans, names(&settings), &runtime).map_err(Failure::configuration)?),
        None => None,
    };
    let audit = settings.audit.clone();
    let door = arguments.http.open(http::DEFAULT_ADDRESS, &audit, &runtime)?;
    let mask = arguments.worker.mask();
    let edge = Edge::new(metrics, readiness.clone(), Scoring::new(settings.max_message_bytes, mask.clone()));
    runtime.spawn(http::serve(door, edge.clone()));
    {
        let _guard = runtime.enter();
        runtime.spawn(Signals::listen()?.request(shutdown.clone()));
    }
    end_in_time(settings.drain_timeout + LEAVE_GRACE, &shutdown);

    let Some(mut opened) = arguments.worker.source.open(&runtime, &readiness, &shutdown)? else {
        log_events::lifecycle::StoppedBeforeRegistry {}.log();
        return Ok(());
    };
    let challenger = match &arguments.worker.challenger {
        Some(ModelSource::Directory(directory)) => Some(Candidate::of_directory(directory)),
        _ => None,
    };
    let exchange = match open_exchange(&settings, opened.candidate.clone(), challenger.clone(), &readiness) {
        Err(_) if shutdown.is_requested() => {
            log_events::lifecycle::StoppedBeforeBroker {}.log();
            return Ok(());
        }
        // What served last need not suffer from what is refused now; the follower says so as long as that stands.
        Err(StartError::Model(refusal)) if opened.take_last() => {
            log_events::model::StartedFromLast { origin: &opened.candidate.directory.display(), refusal: &refusal }
                .log();
            open_exchange(&settings, opened.candidate.clone(), challenger, &readiness)
        }
        outcome => outcome,
    }
    .map_err(Failure::configuration)?;
    mask.check(exchange.serving().manifest.feature_names()).map_err(Failure::configuration)?;
    edge.open(&exchange).map_err(Failure::configuration)?;
    if !super::await_token(&settings.tokens, &readiness, &shutdown)? {
        log_events::lifecycle::StoppedBeforeBroker {}.log();
        return Ok(());
    }
    let worker = match Worker::start(&settings, &exchange, &readiness, &shutdown) {
        Ok(worker) => worker,
        Err(StartError::Kafka(StartupError::Stopped)) => {
            log_events::lifecycle::StoppedBeforeBroker {}.log();
            return Ok(());
        }
        Err(error) if error.is_configuration() => return Err(Failure::configuration(error)),
        Err(error) => return Err(Failure::at_run_time(error)),
    };
    if let Some(topic) = &settings.topics.audit {
        let (kafka, group, topic) = (settings.kafka.clone(), settings.group.clone(), topic.clone());
        audit
            .deliver(Delivery { kafka, group, topic, readiness: readiness.clone() })
            .context("cannot start a thread")?;
    }
    let registry = opened.registered.as_ref().map(|from| from.registry.clone());
    if let Some(ModelSource::Registry(model)) = &arguments.worker.challenger {
        let registry = match registry {
            Some(registry) => registry,
            None => Arc::new(arguments.worker.source.registry().map_err(Failure::configuration)?),
        };
        let slot = Arc::new(ChallengerSlot(exchange.clone(), Actor::new("registry", registry.host())));
        let follower = Follower::new(registry, model.clone(), None, slot, readiness.clone());
        // The first look is now, not after the first pause.
        follower.wake().notify_one();
        runtime.spawn(follower.run(shutdown.clone()));
    }
    if let Some(from) = opened.registered.filter(|from| from.moves()) {
        let offer = Arc::new(ChampionSlot(exchange, Actor::new("registry", from.registry.host())));
        let follower = Follower::new(from.registry, from.model, Some(from.fetched), offer, readiness.clone());
        follower.wake().notify_one();
        runtime.spawn(follower.run(shutdown.clone()));
    }
    while !shutdown.wait(Duration::from_millis(500)) {
        audit.tell_denied(false);
    }
    let outcome = worker.join();
    end_audit(&audit, &outcome);
    if let Some(exporter) = exporter {
        runtime.block_on(exporter.finish(SPANS_GRACE));
    }
    // A model that is just being verified is not waited for.
    runtime.shutdown_background();
    if !outcome.failures.is_empty() {
        return Err(Failure::at_run_time(anyhow::anyhow!(outcome.failures.join("; "))));
    }
    if outcome.undrained > 0 {
        let message = "stopped before everything read was committed; it is read again at the next start";
        return Err(Failure::at_run_time(anyhow::anyhow!(message)));
    }
    log_events::lifecycle::Drained {}.log();
    Ok(())
}

/// The last events: denied tries that were not told yet, and how the worker ended.
fn end_audit(audit: &Audit, ended: &Ended) {
    audit.tell_denied(true);
    let failures = ended.failures.join("; ");
    let reason = match ended.undrained {
        _ if !failures.is_empty() => failures.as_str(),
        0 => "asked to stop; everything read was committed",
        _ => "asked to stop; not everything read was committed",
    };
    let (action, outcome) = (Action::Stop, Outcome::Done);
    audit.record(&Actor::process(), &Change { action, outcome, target: "worker", before: None, after: None, reason });
    audit.close(AUDIT_GRACE);
}

/// What spans call the worker's topics.
fn names(settings: &WorkerSettings) -> Names {
    Names {
        input: settings.topics.input.clone(),
        output: settings.topics.output.clone(),
        dead_letter: settings.topics.dead_letter.clone(),
        group: settings.group.clone(),
    }
}

/// Ends the process if leaving hangs (a broker that answers nothing, a model that is just being loaded) for longer than `limit`
/// from the first signal on, or when a second one will not have it wait.
pub(super) fn end_in_time(limit: Duration, shutdown: &Shutdown) {
    let shutdown = shutdown.clone();
    let watch = move || {
        while !shutdown.wait(Duration::from_secs(60)) {}
        let began = std::time::Instant::now();
        let mut aborted = None;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            if shutdown.is_aborted() {
                aborted.get_or_insert_with(std::time::Instant::now);
            }
            if began.elapsed() > limit || aborted.is_some_and(|since| since.elapsed() > Duration::from_secs(1)) {
                super::tell("error: leaving took too long; uncommitted work is read again at the next start");
                std::process::exit(i32::from(fraud_settings::exit_code::FAILED));
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("drain-watch".into()).spawn(watch) {
        log_events::lifecycle::DrainNotWatched { error: &error }.log();
    }
}
