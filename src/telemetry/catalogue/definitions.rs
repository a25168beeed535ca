//! The definitions: a table in the form of code, hence its length. Order within a section is that of docs/METRICS.md.
//!
//! Names are a contract with alerts, dashboards and the console: none is renamed. A new one follows Prometheus' rules:
//! base units in the name (`_seconds`, `_bytes`), `_total` on every counter, labels of few values.

#![allow(missing_docs)] // their help says what each is

use super::{Label, Metric, Section};

/// Upper bounds of the score histogram: even, with the ends that thresholds live at.
const SCORE_BOUNDS: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];

/// Upper bounds of end-to-end latency, seconds: half a millisecond to a minute.
const LATENCY_BOUNDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of a stage's time for one batch, seconds.
const STAGE_BOUNDS: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 1.0];

/// Upper bounds of a batch's rows.
const ROWS_BOUNDS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];

/// Upper bounds of the challenger's score less the champion's: finest around no difference.
const DIFFERENCE_BOUNDS: &[f64] = &[
    -0.5, -0.2, -0.1, -0.05, -0.02, -0.01, -0.005, -0.001, -0.0001, 0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
    0.5, 1.0,
];

/// Upper bounds of a request's time, seconds: a tenth of a millisecond to the time limits.
const REQUEST_BOUNDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0];

const DECISIONS: &[&str] = &["approve", "review", "decline"];
const PATHS: &[&str] = &["/v1/score", "/invocations"];
const CLIENTS: &[&str] = &["consumer", "producer"];

/// States of a Kafka client: the first two are a consumer's, the others a producer's.
pub const CLIENT_STATES: &[&str] =
    &["steady", "rebalancing", "starting", "ready", "in-transaction", "committing", "aborting", "failed"];

/// Kinds of request failures.
pub const FAILURES: &[&str] = &["timed-out", "send", "receive"];

const DECISION: Label = Label::these("decision", DECISIONS);
const TOPIC: Label = Label::of("topic", "the input topic");
const PARTITION: Label = Label::of("partition", "partitions that this worker reads, or has read");
const PATH: Label = Label::these("path", PATHS);
const CLIENT: Label = Label::these("client", CLIENTS);
const BROKER: Label = Label::of(
    "broker",
    "a broker's id; `bootstrap` before it is known, `coordinator` for a connection to a coordinator",
);
const MODEL: Label = Label::of("model", "`name@version` of the model that serves");
const FEATURE: Label = Label::of("feature", "the model's features");
const BIN: Label = Label::of("bin", "a bin's upper edge, or the value itself; at most some 20 of a feature");
const IDENTITY: &[Label] = &[
    Label::of("name", "the bundle's"),
    Label::of("version", "as in verdicts"),
    Label::of("sha256", "of the model file"),
];

// ---- traffic -------------------------------------------------------------------------------------------------------

pub static TRANSACTIONS: Metric = Metric::counted(
    "fraud_scorer_transactions_total",
    "rows and messages",
    "Transaction rows that ended as a verdict or, as a message, as a dead letter, and were committed.",
)
.tells("Throughput. No growth while there is lag: the worker stands still.");

pub static VERDICTS: Metric =
    Metric::counted("fraud_scorer_verdicts_total", "rows", "Verdicts committed, by decision.")
        .by(&[DECISION])
        .tells("The share of declines: an attack, a changed input, or a model gone wrong.");

pub static VERDICT_AMOUNT: Metric = Metric::counted(
    "fraud_scorer_verdict_amount_total",
    "the amount's currency",
    "Sum of the amounts of the rows whose verdicts were committed, by decision; a refund counts as 0.",
)
.by(&[DECISION])
.tells("The money that was approved, held back for review, declined: what fraud and false alarms are worth.")
.absent("no model that served had the feature `--amount-feature`");

pub static DEAD_LETTERS: Metric = Metric::counted(
    "fraud_scorer_dead_letters_total",
    "messages",
    "Messages committed to the dead-letter topic, by error class.",
)
.by(&[Label::these(
    "error_class",
    &[
        "malformed-json",
        "missing-feature",
        "not-a-number",
        "wrong-shape",
        "too-large",
        "unknown-schema",
        "invalid-event-time",
        "invalid-score",
        "undeliverable",
    ],
)])
.tells("What a producer sends that cannot be scored; the class says whom to ask.");

pub static SCORE: Metric = Metric::distributed(
    "fraud_scorer_score",
    SCORE_BOUNDS,
    "probability",
    "Probability of fraud of the committed verdicts.",
)
.tells("Whether scores still spread as they did: all of them in one bucket is a broken model or input.");

// ---- time ----------------------------------------------------------------------------------------------------------

pub static END_TO_END: Metric = Metric::distributed(
    "fraud_scorer_end_to_end_seconds",
    LATENCY_BOUNDS,
    "seconds",
    "From the transaction's Kafka timestamp to the commit of its verdict.",
)
.tells("What a subscriber waits. At least once it ends where the producer's queue has the verdict.");

pub static STAGE: Metric = Metric::distributed(
    "fraud_scorer_stage_seconds",
    STAGE_BOUNDS,
    "seconds",
    "Time of a stage for one batch (commit: of one commit).",
)
.by(&[Label::these("stage", &["decode", "inference", "produce", "commit", "challenger"])])
.tells(
    "Where a thread's time goes: `rate(…_sum)` is its share of a core. Features are computed while decoding, so there \
     is no stage of that name. Every batch, redone ones too; at least once, `commit` is only the request for one.",
);

pub static BATCH_ROWS: Metric =
    Metric::distributed("fraud_scorer_batch_rows", ROWS_BOUNDS, "rows", "Rows scored together.").tells(
        "Load: batches are small while the worker keeps up and grow with the backlog. Every batch, redone ones too.",
    );

pub static LAG: Metric =
    Metric::gauged("fraud_scorer_consumer_lag", "records", "Records of a partition that were not yet read.")
        .by(&[TOPIC, PARTITION])
        .tells("Backlog, by statistics of the last second. 0 for a partition that went to another worker.")
        .absent("before the first partition was assigned");

pub static LAG_SECONDS: Metric = Metric::gauged(
    "fraud_scorer_consumer_lag_seconds",
    "seconds",
    "Age of the last record read while there are more, else 0.",
)
.by(&[TOPIC, PARTITION])
.tells("How far behind in time; what a promise about freshness is held against.")
.absent("before the first partition was assigned");

pub static REBALANCES: Metric =
    Metric::counted("fraud_scorer_rebalances_total", "changes", "Times partitions were assigned, revoked or lost.")
        .tells("Counted by each thread. Growth without a deployment: members come and go.");

pub static REDONE: Metric = Metric::counted(
    "fraud_scorer_redone_total",
    "redos",
    "Times the work since the last commit was thrown away and read again.",
)
.tells("0 outside of broker trouble; steady growth is a partition that is stuck while lag looks small.");

pub static RECORDS_GONE: Metric = Metric::counted(
    "fraud_scorer_records_gone_total",
    "records",
    "Records that were gone from the input topic before they were read (`deleted`), 1 for each time a partition's log was \
     found shorter than it was (`truncated`), and 1 for each partition of a topic that was deleted and made again \
     (`recreated`). The partition went on with what its log holds.",
)
.by(&[TOPIC, PARTITION, Label::these("reason", &["deleted", "truncated", "recreated"])])
.tells("Any growth is loss that no worker can make good: retention is too short for the lag, or the topic was made anew.")
.absent("nothing was gone yet");

pub static PAUSED: Metric = Metric::gauged(
    "fraud_scorer_partition_paused",
    "1 or 0",
    "1 while a partition is left alone because what comes of its records cannot be written; the others go on.",
)
.by(&[TOPIC, PARTITION])
.tells("The worker is not ready meanwhile; /readyz says why. It tries again by itself.")
.absent("no partition was paused yet");

pub static READY: Metric =
    Metric::gauged("fraud_scorer_ready", "1 or 0", "1 while the worker is ready, 0 while it is not; /readyz says why.")
        .tells("A worker that waits for its broker publishes no lag: this is what shows that it stands still.");

// ---- models --------------------------------------------------------------------------------------------------------

const NO_MODEL: &str = "until the model is verified, at the start";

pub static MODEL_INFO: Metric =
    Metric::gauged("fraud_scorer_model_info", "1", "1 for the model that scores, by name, version and sha256.")
        .by(IDENTITY)
        .tells("Which version serves where; exactly one series of a worker.")
        .absent(NO_MODEL);

pub static MODEL_ENGINE: Metric = Metric::gauged(
    "fraud_scorer_model_engine",
    "1",
    "1 for what computes the model: simd (our kernel) or onnxruntime, and how or why.",
)
.by(&[Label::these("engine", &["simd", "onnxruntime"]), Label::of("detail", "how it computes, or why not the kernel")])
.tells("A worker that fell back to ONNX Runtime, and why; exactly one series of a worker.")
.absent(NO_MODEL);

pub static MODEL_TRAINED: Metric = Metric::gauged(
    "fraud_scorer_model_trained_timestamp_seconds",
    "seconds since 1970",
    "Time of the newest transaction that the model that scores has learnt from.",
)
.tells("The model's age: `time()` less this.")
.absent("the manifest has no `training.trained_until`");

pub static MODEL_SWAPS: Metric = Metric::counted(
    "fraud_scorer_model_swaps_total",
    "models",
    "Models that asked to serve, by what became of it, and rollbacks.",
)
.by(&[Label::these("result", &["swapped", "refused", "rolled-back"])])
.tells("A new version that was refused, which `/model` explains.");

pub static REGISTRY_REACHABLE: Metric = Metric::gauged(
    "fraud_scorer_registry_reachable",
    "1 or 0",
    "1 while the model registry answers, 0 while it does not.",
)
.tells("While 0, new versions do not arrive; the model that serves goes on.")
.absent("no alias of a registry is followed");

// ---- challenger ----------------------------------------------------------------------------------------------------

const NO_CHALLENGER: &str = "before the first comparison with a challenger";

pub static CHALLENGER_INFO: Metric =
    Metric::gauged("fraud_scorer_challenger_info", "1", "1 for the model that scores in the shadow.")
        .by(IDENTITY)
        .tells("Which challenger runs.")
        .absent("without a challenger");

pub static CHALLENGER_DIFFERENCE: Metric = Metric::distributed(
    "fraud_scorer_challenger_score_difference",
    DIFFERENCE_BOUNDS,
    "probability",
    "The challenger's score less the champion's, of rows whose verdicts were committed.",
)
.tells("How far the two disagree; negative: the challenger is less suspicious.")
.absent(NO_CHALLENGER);

pub static CHALLENGER_DECISIONS: Metric = Metric::counted(
    "fraud_scorer_challenger_decisions_total",
    "rows",
    "Rows by the decision of the champion and that of the challenger.",
)
.by(&[Label::these("champion", DECISIONS), Label::these("challenger", DECISIONS)])
.tells("Which decisions would change.")
.absent(NO_CHALLENGER);

pub static CHALLENGER_FLIP_AMOUNT: Metric = Metric::counted(
    "fraud_scorer_challenger_flip_amount_total",
    "the amount's currency",
    "Sum of the amounts of rows that the challenger decides differently; a refund counts as 0.",
)
.by(&[Label::these("champion", DECISIONS), Label::these("challenger", DECISIONS)])
.tells("The money that the change of decisions concerns; no series where both decide alike.")
.absent(NO_CHALLENGER);

pub static CHALLENGER_FAILURES: Metric = Metric::counted(
    "fraud_scorer_challenger_failures_total",
    "rows",
    "Rows for which the challenger gave no probability.",
)
.tells("A challenger that should not be promoted. Every batch, redone ones too.")
.absent(NO_CHALLENGER);

pub static CHALLENGER_DROPPED: Metric = Metric::counted(
    "fraud_scorer_challenger_dropped_total",
    "comparisons",
    "Comparisons that were not written because the topic of `--challenger-topic` did not take one shortly before.",
)
.tells("The topic is gone, full or forbidden. Verdicts and the other metrics of the challenger are not concerned.")
.absent("none was dropped yet");

// ---- drift ---------------------------------------------------------------------------------------------------------

const UNWATCHED: &str = "the bundle has no usable `reference.json`, or `--drift-sample 0`";
const FEW_ROWS: &str = "fewer than 1,000 rows within the window, or drift is not watched";

pub static DRIFT_WINDOW_ROWS: Metric =
    Metric::gauged("fraud_scorer_drift_window_rows", "rows", "Rows that were looked at within the drift window.")
        .tells("How much the index rests on.")
        .absent(UNWATCHED);

pub static DRIFT_PSI: Metric =
    Metric::gauged("fraud_scorer_drift_psi", "index", "Population stability index of a feature within the window.")
        .by(&[FEATURE])
        .tells("Which features no longer look like the training data; above 0.1 one counts as drifted.")
        .absent(FEW_ROWS);

pub static DRIFT_SCORE_PSI: Metric = Metric::gauged(
    "fraud_scorer_drift_score_psi",
    "index",
    "Population stability index of the model's score within the window.",
)
.tells("Whether the model's opinion of the traffic has moved, whatever feature moved it.")
.absent(FEW_ROWS);

pub static DRIFT_SHARE: Metric = Metric::gauged(
    "fraud_scorer_drift_share",
    "0 to 1",
    "Share of the features that drifted within the window, 0 to 1.",
)
.tells("One number to alert on: above one half the model judges what it was not trained on.")
.absent(FEW_ROWS);

pub static DRIFT_OBSERVATIONS: Metric = Metric::counted(
    "fraud_scorer_drift_observations_total",
    "rows",
    "Rows looked at, by feature and bin (its upper edge).",
)
.by(&[MODEL, FEATURE, BIN])
.tells("Adds up over workers and windows: PromQL computes the index of all of them (`drift.rules.yml`).")
.absent(UNWATCHED);

pub static DRIFT_REFERENCE: Metric =
    Metric::gauged("fraud_scorer_drift_reference_share", "0 to 1", "Share of the training data in a feature's bin.")
        .by(&[MODEL, FEATURE, BIN])
        .tells("What the counts are compared with.")
        .absent(UNWATCHED);

pub static DRIFT_SCORE_OBSERVATIONS: Metric = Metric::counted(
    "fraud_scorer_drift_score_observations_total",
    "rows",
    "Rows looked at, by bin of the score (its upper edge).",
)
.by(&[MODEL, BIN])
.tells("As for features.")
.absent(UNWATCHED);

pub static DRIFT_SCORE_REFERENCE: Metric = Metric::gauged(
    "fraud_scorer_drift_score_reference_share",
    "0 to 1",
    "Share of the training data in a bin of the score.",
)
.by(&[MODEL, BIN])
.tells("As for features.")
.absent(UNWATCHED);

// ---- HTTP ----------------------------------------------------------------------------------------------------------

pub static HTTP_REQUESTS: Metric =
    Metric::counted("fraud_scorer_http_requests_total", "requests", "Scoring requests over HTTP, by path and status.")
        .by(&[PATH, Label::of("status", "the status codes that were answered")])
        .tells("Load and refusals of the scoring API: 4xx is the asker's, 503 is overload.")
        .absent("before the first scoring request");

pub static HTTP_SECONDS: Metric = Metric::distributed(
    "fraud_scorer_http_request_seconds",
    REQUEST_BOUNDS,
    "seconds",
    "From a scoring request's head to its answer, the arrival of its body included.",
)
.by(&[PATH])
.tells("What who asks over HTTP waits.");

// ---- tracing -------------------------------------------------------------------------------------------------------

pub static SPANS: Metric =
    Metric::counted("fraud_scorer_spans_total", "spans", "Spans for the collector of traces, by what became of them.")
        .by(&[Label::these("result", &["exported", "rejected", "unsent", "queue-full", "over-limit"])])
        .tells("Whether traces are whole; anything but `exported` is lost.")
        .absent("no collector of traces");

// ---- Kafka clients -------------------------------------------------------------------------------------------------

const NO_STATISTICS: &str = "until the clients' first statistics, or `-X statistics.interval.ms=0`";

pub static KAFKA_CLIENTS: Metric = Metric::gauged(
    "fraud_scorer_kafka_clients",
    "clients",
    "Clients of librdkafka by what they do: consumers within the group, producers with their transaction.",
)
.by(&[CLIENT, Label::these("state", CLIENT_STATES)])
.tells(
    "Consumers are `steady` or `rebalancing`; producers `starting` (no producer id yet), `ready`, `in-transaction`, \
     `committing`, `aborting` or `failed`. A consumer that stays in `rebalancing`, or a producer in `starting` or \
     `failed`, makes no progress.",
)
.absent(NO_STATISTICS);

pub static KAFKA_ASSIGNED: Metric = Metric::gauged(
    "fraud_scorer_kafka_assigned_partitions",
    "partitions",
    "Partitions that the group has assigned to this worker.",
)
.tells("How evenly work is spread; over all workers it is the input topic's count.")
.absent(NO_STATISTICS);

pub static KAFKA_CONNECTIONS: Metric = Metric::gauged(
    "fraud_scorer_kafka_connections",
    "connections",
    "Connections to a broker that are up.",
)
.by(&[CLIENT, BROKER])
.tells(
    "0 of a broker that leads a partition: it cannot be reached. Connections are made when they are needed, so 0 of a \
     broker that is not is nothing.",
)
.absent(NO_STATISTICS);

pub static KAFKA_CONNECTS: Metric = Metric::counted(
    "fraud_scorer_kafka_connects_total",
    "attempts",
    "Attempts to connect to a broker, those that failed and names that did not resolve included.",
)
.by(&[CLIENT, BROKER])
.tells("Steady growth: a broker, a name or a login that does not work.")
.absent(NO_STATISTICS);

pub static KAFKA_DISCONNECTS: Metric = Metric::counted(
    "fraud_scorer_kafka_disconnects_total",
    "connections",
    "Connections to a broker that ended, for whatever reason.",
)
.by(&[CLIENT, BROKER])
.tells("A network or a proxy that cuts connections. One that is idle for minutes may be closed by the broker.")
.absent(NO_STATISTICS);

pub static KAFKA_REQUESTS: Metric =
    Metric::counted("fraud_scorer_kafka_requests_total", "requests", "Requests sent to a broker.")
        .by(&[CLIENT, BROKER])
        .tells("Load on the broker; with the messages, how many of them share a request.")
        .absent(NO_STATISTICS);

pub static KAFKA_RESPONSES: Metric =
    Metric::counted("fraud_scorer_kafka_responses_total", "responses", "Responses received from a broker.")
        .by(&[CLIENT, BROKER])
        .tells("What the mean round trip is over.")
        .absent(NO_STATISTICS);

pub static KAFKA_FAILURES: Metric = Metric::counted(
    "fraud_scorer_kafka_request_failures_total",
    "requests",
    "Requests that timed out, and errors of sending and receiving.",
)
.by(&[CLIENT, BROKER, Label::these("reason", FAILURES)])
.tells("0 in good times. `timed-out`: the broker is reached but does not answer.")
.absent(NO_STATISTICS);

pub static KAFKA_RETRIES: Metric =
    Metric::counted("fraud_scorer_kafka_request_retries_total", "requests", "Requests that were sent again.")
        .by(&[CLIENT, BROKER])
        .tells("A leader that moved, a replica that is missing: trouble that passes by itself, unless it stays.")
        .absent(NO_STATISTICS);

pub static KAFKA_SENT_BYTES: Metric =
    Metric::counted("fraud_scorer_kafka_sent_bytes_total", "bytes", "Bytes sent to a broker.")
        .by(&[CLIENT, BROKER])
        .tells("Network, by broker: verdicts go out with the producer's.")
        .absent(NO_STATISTICS);

pub static KAFKA_RECEIVED_BYTES: Metric =
    Metric::counted("fraud_scorer_kafka_received_bytes_total", "bytes", "Bytes received from a broker.")
        .by(&[CLIENT, BROKER])
        .tells("Network, by broker: transactions come in with the consumer's, compressed as they are on the topic.")
        .absent(NO_STATISTICS);

pub static KAFKA_ROUND_TRIP: Metric = Metric::counted(
    "fraud_scorer_kafka_round_trip_seconds_total",
    "seconds",
    "Sum of the times from requests to their responses.",
)
.by(&[CLIENT, BROKER])
.tells(
    "The mean round trip: its rate by that of the responses. A consumer's request for records waits at the broker for \
     up to `fetch.wait.max.ms` (500 ms) when there are none; a producer's waits for the replicas.",
)
.absent(NO_STATISTICS);

pub static KAFKA_ROUND_TRIP_MAX: Metric = Metric::gauged(
    "fraud_scorer_kafka_round_trip_max_seconds",
    "seconds",
    "Longest time from a request to its response within the last interval of statistics.",
)
.by(&[CLIENT, BROKER])
.tells("A broker that is slow now and then, which a mean hides. 0 where none was answered.")
.absent(NO_STATISTICS);

pub static KAFKA_THROTTLE: Metric = Metric::counted(
    "fraud_scorer_kafka_throttle_seconds_total",
    "seconds",
    "Sum of the times that a broker has throttled this worker for.",
)
.by(&[CLIENT, BROKER])
.tells("Growth: a quota is reached, and the broker slows the worker down on purpose.")
.absent(NO_STATISTICS);

pub static KAFKA_IN_FLIGHT: Metric = Metric::gauged(
    "fraud_scorer_kafka_requests_in_flight",
    "requests",
    "Requests to a broker that wait to be sent or to be answered.",
)
.by(&[CLIENT, BROKER])
.tells("A pile behind one broker.")
.absent(NO_STATISTICS);

pub static KAFKA_MESSAGES: Metric = Metric::counted(
    "fraud_scorer_kafka_messages_total",
    "messages",
    "Messages that consumers received and producers sent, redone ones too.",
)
.by(&[CLIENT])
.tells("Against `transactions_total`: work that was done more than once.")
.absent(NO_STATISTICS);

pub static KAFKA_MESSAGE_BYTES: Metric =
    Metric::counted("fraud_scorer_kafka_message_bytes_total", "bytes", "Bytes of these messages, with their framing.")
        .by(&[CLIENT])
        .tells("Mean sizes of transactions and verdicts.")
        .absent(NO_STATISTICS);

pub static KAFKA_QUEUE_MESSAGES: Metric = Metric::gauged(
    "fraud_scorer_kafka_queue_messages",
    "messages",
    "Messages that wait in this process: fetched and not yet taken, or produced and not yet delivered.",
)
.by(&[CLIENT])
.tells(
    "The producer's near `queue.buffering.max.messages` (50,000 of each): verdicts cannot be delivered as fast as they \
     are made. The consumer's at 0 under lag: the broker or the network is the bottleneck, not the worker.",
)
.absent(NO_STATISTICS);

pub static KAFKA_QUEUE_BYTES: Metric =
    Metric::gauged("fraud_scorer_kafka_queue_bytes", "bytes", "Bytes of these messages.")
        .by(&[CLIENT])
        .tells("Memory: bounded by `queued.max.messages.kbytes` and `queue.buffering.max.kbytes`.")
        .absent(NO_STATISTICS);

pub static KAFKA_PRODUCER_IDS: Metric = Metric::counted(
    "fraud_scorer_kafka_producer_ids_total",
    "ids",
    "Producer ids that brokers gave out to this worker's producers.",
)
.tells("One of each producer at its start. More: producers that were fenced or opened anew.")
.absent(NO_STATISTICS);

// ---- audit ---------------------------------------------------------------------------------------------------------

pub static AUDIT_EVENTS: Metric = Metric::counted(
    "fraud_scorer_audit_events_total",
    "events",
    "Audit events: changes of models, starts, ends and tries, by what became of them.",
)
.by(&[Label::these("outcome", &["done", "refused", "denied"])])
.tells("Whether something was changed, or tried.");

pub static AUDIT_DENIED: Metric = Metric::counted(
    "fraud_scorer_audit_denied_total",
    "requests",
    "Requests over HTTP that were denied, those without an event of their own included.",
)
.tells("Rising: tokens are tried, or an old one is still in use.");

pub static AUDIT_WAITING: Metric = Metric::gauged(
    "fraud_scorer_audit_waiting",
    "events",
    "Audit events that are not on the topic of `--audit-topic` yet; 0 without one.",
)
.tells("Above 0 for long: the topic is away, closed or full; `/readyz` says why.");

pub static AUDIT_LOST: Metric = Metric::counted(
    "fraud_scorer_audit_lost_total",
    "events",
    "Audit events that the topic will not have, for too many waited or the process ended. The log has them.",
)
.tells("Anything above 0: `fraud-scorer audit verify` will name a gap.");

// ---- archive -------------------------------------------------------------------------------------------------------

const NO_ARCHIVE: &str = "in a worker: `fraud-scorer archive` shows it, on its own address";

pub static ARCHIVE_ROWS: Metric = Metric::counted(
    "fraud_scorer_archive_rows_total",
    "verdicts",
    "Verdicts in committed files, by whether their input was found.",
)
.by(&[Label::these("input", &["found", "missing"])])
.tells("Throughput of the archive.")
.absent(NO_ARCHIVE);

pub static ARCHIVE_FILES: Metric =
    Metric::counted("fraud_scorer_archive_files_total", "files", "Files in committed cuts.")
        .tells("Bytes by files: whether files are large enough for who reads them.")
        .absent(NO_ARCHIVE);

pub static ARCHIVE_BYTES: Metric =
    Metric::counted("fraud_scorer_archive_bytes_total", "bytes", "Bytes of files in committed cuts.")
        .tells("What the archive will cost.")
        .absent(NO_ARCHIVE);

pub static ARCHIVE_MISSING: Metric = Metric::counted(
    "fraud_scorer_archive_inputs_missing_total",
    "verdicts",
    "Verdicts archived without their input's features, by reason.",
)
.by(&[Label::these("reason", &["gone", "elsewhere", "undecodable", "another"])])
.tells("`gone`: the input topic is kept for too short. Anything else: another model or topic than was scored with.")
.absent(NO_ARCHIVE);

pub static ARCHIVE_SKIPPED: Metric = Metric::counted(
    "fraud_scorer_archive_skipped_total",
    "records",
    "Records of the verdicts' topic that are no verdicts and are in no file, by reason.",
)
.by(&[Label::these("reason", &["tombstone", "malformed", "score"])])
.tells("Somebody else writes to the verdicts' topic.")
.absent(NO_ARCHIVE);

pub static ARCHIVE_FAILURES: Metric = Metric::counted(
    "fraud_scorer_archive_write_failures_total",
    "attempts",
    "Times the destination did not take a file; each is tried again.",
)
.tells("The destination is away, full, or closed to us.")
.absent(NO_ARCHIVE);

pub static ARCHIVE_LOST: Metric = Metric::counted(
    "fraud_scorer_archive_lost_total",
    "verdicts",
    "Verdicts that their topic no longer held when they were to be archived.",
)
.tells("Anything above 0: the archive has a hole; keep the topic longer.")
.absent(NO_ARCHIVE);

pub static ARCHIVE_LAG: Metric =
    Metric::gauged("fraud_scorer_archive_lag", "verdicts", "Verdicts of a partition that were not yet read.")
        .by(&[Label::of("partition", "partitions of the verdicts that this member reads, or has read")])
        .tells("Whether one more member is needed.")
        .absent(NO_ARCHIVE);

pub static ARCHIVE_AGE: Metric = Metric::gauged(
    "fraud_scorer_archive_unarchived_seconds",
    "seconds",
    "Age of the oldest verdict that was read and is in no committed file, else 0.",
)
.tells("Far above `--file-every`: nothing is written.")
.absent(NO_ARCHIVE);

pub static ARCHIVE_GATHERED: Metric = Metric::gauged("fraud_scorer_archive_gathered_rows", "rows", "Rows in memory.")
    .tells("What memory the archive needs.")
    .absent(NO_ARCHIVE);

pub static ARCHIVE_OPEN: Metric = Metric::gauged("fraud_scorer_archive_open_files", "files", "Files under way.")
    .tells("Many: event times are scattered over hours.")
    .absent(NO_ARCHIVE);

/// The sections, in the document's order.
pub static SECTIONS: &[Section] = &[
    Section {
        title: "Traffic and decisions",
        text: "Counted when committed: what is thrown away and done again counts once.",
        metrics: &[&TRANSACTIONS, &VERDICTS, &VERDICT_AMOUNT, &DEAD_LETTERS, &SCORE],
    },
    Section {
        title: "Time, lag and progress",
        text: "",
        metrics: &[
            &END_TO_END,
            &STAGE,
            &BATCH_ROWS,
            &LAG,
            &LAG_SECONDS,
            &REBALANCES,
            &REDONE,
            &RECORDS_GONE,
            &PAUSED,
            &READY,
        ],
    },
    Section {
        title: "Models",
        text: "",
        metrics: &[&MODEL_INFO, &MODEL_ENGINE, &MODEL_TRAINED, &MODEL_SWAPS, &REGISTRY_REACHABLE],
    },
    Section {
        title: "Challenger",
        text: "Champion and challenger on the same rows; counted when committed.",
        metrics: &[
            &CHALLENGER_INFO,
            &CHALLENGER_DIFFERENCE,
            &CHALLENGER_DECISIONS,
            &CHALLENGER_FLIP_AMOUNT,
            &CHALLENGER_FAILURES,
            &CHALLENGER_DROPPED,
        ],
    },
    Section {
        title: "Drift",
        text: "[What the index means](MODELS.md#drift). A sample of the rows, counted when committed.",
        metrics: &[
            &DRIFT_WINDOW_ROWS,
            &DRIFT_PSI,
            &DRIFT_SCORE_PSI,
            &DRIFT_SHARE,
            &DRIFT_OBSERVATIONS,
            &DRIFT_REFERENCE,
            &DRIFT_SCORE_OBSERVATIONS,
            &DRIFT_SCORE_REFERENCE,
        ],
    },
    Section { title: "HTTP", text: "", metrics: &[&HTTP_REQUESTS, &HTTP_SECONDS] },
    Section {
        title: "Audit",
        text: "[Who changed what](OPERATIONS.md#audit).",
        metrics: &[&AUDIT_EVENTS, &AUDIT_DENIED, &AUDIT_WAITING, &AUDIT_LOST],
    },
    Section { title: "Tracing", text: "", metrics: &[&SPANS] },
    Section {
        title: "Kafka clients",
        text: "What librdkafka says of itself, added up over the worker's threads: a consumer of each every second, \
               producers (exactly once two of each thread, and one for the audit) every five. `client` tells the two roles apart. Counters go \
               on when a client is closed and another opened; what one has counted since its last word is lost with it.",
        metrics: &[
            &KAFKA_CLIENTS,
            &KAFKA_ASSIGNED,
            &KAFKA_CONNECTIONS,
            &KAFKA_CONNECTS,
            &KAFKA_DISCONNECTS,
            &KAFKA_REQUESTS,
            &KAFKA_RESPONSES,
            &KAFKA_FAILURES,
            &KAFKA_RETRIES,
            &KAFKA_SENT_BYTES,
            &KAFKA_RECEIVED_BYTES,
            &KAFKA_ROUND_TRIP,
            &KAFKA_ROUND_TRIP_MAX,
            &KAFKA_THROTTLE,
            &KAFKA_IN_FLIGHT,
            &KAFKA_MESSAGES,
            &KAFKA_MESSAGE_BYTES,
            &KAFKA_QUEUE_MESSAGES,
            &KAFKA_QUEUE_BYTES,
            &KAFKA_PRODUCER_IDS,
        ],
    },
    Section {
        title: "Archive",
        text: "Of [`fraud-scorer archive`](ARCHIVE.md); counted when a cut is committed.",
        metrics: &[
            &ARCHIVE_ROWS,
            &ARCHIVE_FILES,
            &ARCHIVE_BYTES,
            &ARCHIVE_MISSING,
            &ARCHIVE_SKIPPED,
            &ARCHIVE_FAILURES,
            &ARCHIVE_LOST,
            &ARCHIVE_LAG,
            &ARCHIVE_AGE,
            &ARCHIVE_GATHERED,
            &ARCHIVE_OPEN,
        ],
    },
];
