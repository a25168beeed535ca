//! Drift: no alarm on traffic like the training data, how soon a shift is seen, and counts that add up over workers.
//!
//! The traffic is drawn from the profile of `models/fraud`, decoded and scored as the worker does it; the clock is
//! simulated. `cargo test --test drift -- --nocapture` prints the false alarms and the table of detection times.
//! Two tests need `promtool` (Debian's package `prometheus`); without it they say so and are left out, in CI they fail.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use fraud_producer::source::{Format, ProfileSource, Row, Source};
use fraud_scorer::drift::{Baseline, DRIFTED, DriftMonitor, DriftSettings, LEAST_ROWS, Pending, Reading, Sampler, psi};
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::decode::{Decoder, Rows};
use fraud_scorer::telemetry::drift::render_monitor;
use fraud_wire::reference::Reference;

/// Rows drawn once; windows take theirs from them at random.
const POOL: usize = 60_000;

/// Rows per second of the simulated traffic.
const RATE: usize = 1_000;

static BUNDLE: LazyLock<Bundle> =
    LazyLock::new(|| Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fraud")).unwrap());
static REFERENCE: LazyLock<Reference> =
    LazyLock::new(|| Reference::read(&BUNDLE.directory.join("reference.json")).unwrap());
static LIKE_TRAINING: LazyLock<Traffic> = LazyLock::new(|| Traffic::draw(None));

/// Scored rows.
struct Traffic {
    features: Vec<f32>,
    scores: Vec<f32>,
}

fn width() -> usize {
    BUNDLE.manifest.features.len()
}

impl Traffic {
    fn draw(fraud_share: Option<f64>) -> Traffic {
        let mut source = ProfileSource::new(&REFERENCE, fraud_share, Format::Split, 11).unwrap();
        let (mut decoder, mut rows) = (Decoder::new(&BUNDLE.manifest.features, 1 << 20), Rows::default());
        let mut row = Row::default();
        for _ in 0..POOL {
            source.next(0, &mut row).unwrap();
            decoder.decode(Some(&row.value), 0, &mut rows).unwrap();
        }
        Traffic::score(rows.features)
    }

    fn score(features: Vec<f32>) -> Traffic {
        let mut scores = Vec::new();
        BUNDLE.scorer().unwrap().score(&features, &mut scores).unwrap();
        Traffic { features, scores }
    }

    /// The same rows with the values of some columns changed by `change(value, mean, deviation, row)`, scored anew.
    fn changed(&self, columns: Range<usize>, change: impl Fn(f64, f64, f64, usize) -> f64) -> Traffic {
        let mut features = self.features.clone();
        for column in columns {
            let values = || self.features.iter().skip(column).step_by(width()).map(|value| f64::from(*value));
            let mean = values().sum::<f64>() / POOL as f64;
            let deviation = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / POOL as f64).sqrt();
            for (row, value) in values().enumerate() {
                features[row * width() + column] = change(value, mean, deviation, row) as f32;
            }
        }
        Traffic::score(features)
    }
}

/// A thread that takes rows from traffic at random.
struct Worker {
    monitor: Arc<DriftMonitor>,
    sampler: Sampler,
    pending: Pending,
    random: u64,
    features: Vec<f32>,
    scores: Vec<f32>,
}

impl Worker {
    fn new(window: Duration, rows_per_second: u32, now: Instant) -> Worker {
        let baseline = Baseline::new(&REFERENCE, &BUNDLE.manifest.features).unwrap();
        let settings = DriftSettings { window, rows_per_second };
        let monitor = Arc::new(DriftMonitor::new("fraud@1".into(), baseline, settings, now));
        Worker {
            sampler: Sampler::new(monitor.clone(), now),
            monitor,
            pending: Pending::default(),
            random: 88_172_645_463_325_252,
            features: Vec::new(),
            scores: Vec::new(),
        }
    }

    /// Scores and commits `rows` rows at `now`.
    fn work(&mut self, traffic: &Traffic, rows: usize, now: Instant) {
        self.features.clear();
        self.scores.clear();
        for _ in 0..rows {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 7;
            self.random ^= self.random << 17;
            let row = (self.random % traffic.scores.len() as u64) as usize;
            self.features.extend_from_slice(&traffic.features[row * width()..(row + 1) * width()]);
            self.scores.push(traffic.scores[row]);
        }
        self.sampler.observe(&self.features, &self.scores, now, &mut self.pending);
        self.pending.publish(now);
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn traffic_like_the_training_data_raises_no_alarm() {
    const WINDOWS: u64 = 1_000;
    for rows in [LEAST_ROWS as usize, 10_000] {
        let mut now = Instant::now();
        let mut worker = Worker::new(seconds(600), u32::MAX, now);
        let (mut alarms, mut score_alarms, mut largest, mut largest_of_score) = (0, 0, 0.0_f64, 0.0_f64);
        for _ in 0..WINDOWS {
            now += seconds(1_200);
            worker.work(&LIKE_TRAINING, rows, now);
            let reading = worker.monitor.read(now);
            assert_eq!(reading.rows, rows as u64, "each window stands alone");
            alarms += reading.features.iter().filter(|feature| feature.drifted).count();
            score_alarms += usize::from(reading.score.unwrap().drifted);
            largest = reading.features.iter().map(|feature| feature.psi).fold(largest, f64::max);
            largest_of_score = largest_of_score.max(reading.score.unwrap().psi);
        }
        println!(
            "{WINDOWS} windows of {rows} rows: {alarms} false alarms in {} looks at a feature, {score_alarms} of the score; \
             largest index {largest:.3}, of the score {largest_of_score:.3}",
            WINDOWS * width() as u64,
        );
        assert_eq!((alarms, score_alarms), (0, 0), "of features, of the score");
    }
}

/// A shift, and by when it has to be seen (seconds; `None`: not by this) with windows of ten minutes and one.
struct Shift {
    name: &'static str,
    traffic: Traffic,
    by_a_feature: [Option<u64>; 2],
    by_the_score: [Option<u64>; 2],
}

fn shifts() -> Vec<Shift> {
    let half = 0..width() / 2;
    let moved = |value: f64, _: f64, deviation: f64, _: usize| value + 0.5 * deviation;
    let spread = |value: f64, mean: f64, _: f64, _: usize| mean + 2.0_f64.sqrt() * (value - mean);
    let missing = |value: f64, _: f64, _: f64, row: usize| if row.is_multiple_of(5) { 0.0 } else { value };
    let pool = &*LIKE_TRAINING;
    // The feature in which the shift is neither easier nor harder to see than in the others.
    let typical = |change: &dyn Fn(f64, f64, f64, usize) -> f64| {
        let (now, all) = (Instant::now(), pool.changed(0..width(), change));
        let mut worker = Worker::new(seconds(600), u32::MAX, now);
        worker.work(&all, 20_000, now);
        let indexes: Vec<f64> = worker.monitor.read(now).features.iter().map(|feature| feature.psi).collect();
        let mut order: Vec<usize> = (0..width()).collect();
        order.sort_by(|a, b| indexes[*a].total_cmp(&indexes[*b]));
        let typical = order[width() / 2];
        for feature in [order[0], typical, order[width() - 1]] {
            print!("{} {:.2}  ", BUNDLE.manifest.features[feature].name, indexes[feature]);
        }
        println!("least, middle and largest index of one feature");
        pool.changed(typical..typical + 1, change)
    };
    let collapsed = Traffic { features: pool.features.clone(), scores: vec![0.001; POOL] };
    let low =
        Traffic { features: pool.features.clone(), scores: pool.scores.iter().map(|score| score / 10.0).collect() };
    let shift = |name, traffic, by_a_feature, by_the_score| Shift { name, traffic, by_a_feature, by_the_score };
    vec![
        shift("mean + 0.5 σ, one feature", typical(&moved), [Some(480), Some(60)], [None; 2]),
        shift(
            "mean + 0.5 σ, half of the features",
            pool.changed(half.clone(), moved),
            [Some(200), Some(20)],
            [None; 2],
        ),
        shift("variance × 2, one feature", typical(&spread), [Some(560), Some(56)], [None; 2]),
        shift(
            "variance × 2, half of the features",
            pool.changed(half.clone(), spread),
            [Some(300), Some(30)],
            [None; 2],
        ),
        shift("20 % missing (0 in their place), one feature", typical(&missing), [Some(400), Some(40)], [None; 2]),
        shift("20 % missing, half of the features", pool.changed(half, missing), [Some(400), Some(40)], [None; 2]),
        shift("ten times the fraud (1.8 %)", Traffic::draw(Some(0.018)), [None; 2], [None; 2]),
        shift("scores ten times lower", low, [None; 2], [Some(300), Some(30)]),
        shift("all scores the same (0.001)", collapsed, [None; 2], [Some(100), Some(10)]),
    ]
}

/// When a feature and when the score was first seen drifted, seconds after the shift, and the last reading.
fn detect(traffic: &Traffic, window: u64) -> (Option<u64>, Option<u64>, Reading) {
    let start = Instant::now();
    let mut worker = Worker::new(seconds(window), RATE as u32, start);
    for second in 0..window {
        worker.work(&LIKE_TRAINING, RATE, start + seconds(second));
    }
    let before = worker.monitor.read(start + seconds(window));
    assert_eq!(before.share(), Some(0.0), "{before:?}");
    assert!(!before.score.unwrap().drifted, "{before:?}");
    let (mut feature, mut score, mut second) = (None, None, 0);
    loop {
        let now = start + seconds(window + second);
        worker.work(traffic, RATE, now);
        second += 1;
        let reading = worker.monitor.read(now);
        feature = feature.or(reading.share().is_some_and(|share| share > 0.0).then_some(second));
        score = score.or(reading.score.is_some_and(|score| score.drifted).then_some(second));
        if second > window + window / 10 {
            return (feature, score, reading);
        }
    }
}

#[test]
fn standard_shifts_are_seen_in_time() {
    let mut table = String::from(
        "| shift at 1,000 rows/s | index afterwards: largest, score | share | feature: 10 min, 1 min | score: 10 min, 1 min |\n",
    );
    let mut wrong = String::new();
    for Shift { name, traffic, by_a_feature, by_the_score } in shifts() {
        let found = [detect(&traffic, 600), detect(&traffic, 60)];
        let (features, scores) = (found.each_ref().map(|found| found.0), found.each_ref().map(|found| found.1));
        let last = &found[0].2;
        let largest = last.features.iter().map(|feature| feature.psi).fold(0.0, f64::max);
        let score = last.score.unwrap().psi;
        let time = |times: [Option<u64>; 2]| {
            times.map(|time| time.map_or("not".to_owned(), |seconds| format!("{seconds} s"))).join(", ")
        };
        let share = last.share().unwrap();
        writeln!(table, "| {name} | {largest:.2}, {score:.2} | {share:.2} | {} | {} |", time(features), time(scores))
            .unwrap();
        for (found, limits) in [(features, by_a_feature), (scores, by_the_score)] {
            for (found, limit) in found.iter().zip(limits) {
                if limit.is_some_and(|limit| found.is_none_or(|found| found > limit)) {
                    writeln!(wrong, "{name}: {found:?}, limit {limit:?}").unwrap();
                }
            }
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong}{table}");
}

#[test]
fn the_share_counts_the_features_that_moved_and_no_others() {
    let now = Instant::now();
    let mut worker = Worker::new(seconds(600), u32::MAX, now);
    let half = LIKE_TRAINING.changed(0..10, |value, _, deviation, _| value + deviation);
    worker.work(&half, 20_000, now);
    let reading = worker.monitor.read(now);
    for (index, feature) in reading.features.iter().enumerate() {
        assert_eq!(feature.drifted, index < 10, "feature {index}: {feature:?}");
    }
    assert_eq!(reading.share(), Some(10.0 / width() as f64));
}

/// Two workers, one with traffic like the training data and one without.
fn two_workers() -> [Worker; 2] {
    let now = Instant::now();
    let shifted = LIKE_TRAINING.changed(0..3, |value, _, deviation, _| value + deviation);
    // And one a little: beyond chance, but not drifted.
    let shifted = shifted.changed(12..13, |value, _, deviation, _| value + 0.7 * deviation);
    let [mut like, mut unlike] = [(); 2].map(|()| Worker::new(seconds(3_600), u32::MAX, now));
    like.work(&LIKE_TRAINING, 9_000, now);
    unlike.work(&shifted, 3_000, now);
    [like, unlike]
}

fn rendered(monitor: &DriftMonitor) -> String {
    let mut text = String::new();
    render_monitor(monitor, Instant::now(), &mut text);
    text
}

#[test]
fn the_exposition_leaves_out_what_cannot_be_said_and_escapes_names() {
    let now = Instant::now();
    let mut reference = REFERENCE.clone();
    let mut features = BUNDLE.manifest.features.clone();
    reference.features[0].name = "a \"b\"\\".into();
    features[0].name = "a \"b\"\\".into();
    let baseline = Baseline::new(&reference, &features).unwrap();
    let text = rendered(&DriftMonitor::new("fraud@1".into(), baseline, DriftSettings::default(), now));
    assert!(text.contains("\nfraud_scorer_drift_window_rows 0\n"), "{text}");
    assert!(!text.contains("drift_psi") && !text.contains("drift_share "), "{text}");
    assert!(text.contains(r#"drift_observations_total{model="fraud@1",feature="a \"b\"\\",bin="+Inf"} 0"#), "{text}");

    let [like, _] = two_workers();
    let text = rendered(&like.monitor);
    for line in ["fraud_scorer_drift_window_rows 9000", "fraud_scorer_drift_share 0"] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("fraud_scorer_drift_psi{")).count(), width());
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    println!("{series} series, {} bytes", text.len());
    assert!(series < 1_100 && text.len() < 120_000, "{series} series, {} bytes", text.len());
}

/// Whether promtool is there; where it is not, the test is skipped with a word, but not in CI.
fn has_promtool() -> bool {
    let there = Command::new("promtool").arg("--version").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "promtool is missing: apt-get install prometheus");
    if !there {
        eprintln!("SKIPPED: promtool is missing: apt-get install prometheus");
    }
    there
}

fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool runs: apt-get install prometheus");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

#[test]
fn prometheus_accepts_the_exposition() {
    if !has_promtool() {
        return;
    }
    let [_, unlike] = two_workers();
    let (well, message) = promtool(&["check", "metrics"], &rendered(&unlike.monitor));
    assert!(well, "{message}");
}

/// The index of all workers together without recording rules, as docs/OPERATIONS.md has it; `SEEN` and `TRAINED` stand for
/// the counts of the last hour and the reference's shares.
const ONE_EXPRESSION: &str = "sum by (model, feature) (((sum by (model, feature, bin) (SEEN) + TRAINED) \
    / on (model, feature) group_left () (sum by (model, feature) (SEEN) + 1) - TRAINED) \
    * ln((sum by (model, feature, bin) (SEEN) + TRAINED) \
    / on (model, feature) group_left () (sum by (model, feature) (SEEN) + 1) / TRAINED))";

/// PromQL over the counters of two workers gives the index of their counts added up, which neither has by itself.
#[test]
fn prometheus_computes_the_index_of_all_workers_together() {
    if !has_promtool() {
        return;
    }
    let workers = two_workers();
    let mut series = String::new();
    for (number, worker) in workers.iter().enumerate() {
        for line in rendered(&worker.monitor).lines().filter(|line| line.contains("bin=")) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.replacen('{', &format!("{{instance=\"{number}\","), 1);
            let value: f64 = value.parse().unwrap();
            // A counter reaches its value in an hour, by a step each minute, and goes on like that.
            let values =
                if line.contains("_total") { format!("0+{}x120", value / 60.0) } else { format!("{value}x120") };
            writeln!(series, "      - {{series: '{name}', values: '{values}'}}").unwrap();
        }
    }
    let [one, other] = workers.each_ref().map(|worker| worker.monitor.counts());
    let together: Vec<u64> = one.iter().zip(&other).map(|(one, other)| one + other).collect();
    let baseline = workers[0].monitor.baseline();
    let mut tests = String::new();
    let mut expect = |value: &str, labels: &str, expected: f64| {
        let value = if value.contains('(') { value.to_owned() } else { format!("{value}{labels}") };
        let expression = format!("abs({value} - {expected}) < bool 0.0005");
        writeln!(tests, "      - expr: '{expression}'\n        eval_time: 100m").unwrap();
        let labels = labels.replace('}', if labels == "{}" { "model=\"fraud@1\"}" } else { ",model=\"fraud@1\"}" });
        writeln!(tests, "        exp_samples: [{{labels: '{labels}', value: 1}}]").unwrap();
    };
    let (mut drifted, mut moved) = (0, 0);
    for watched in baseline.features() {
        let index = psi(&together[watched.slots.clone()], &watched.shares).unwrap();
        if drifted == 0 {
            let label = format!("{{feature=\"{}\"}}", watched.feature.as_ref().unwrap());
            let seen = format!("increase(fraud_scorer_drift_observations_total{label}[1h])");
            let trained = format!("max by (model, feature, bin) (fraud_scorer_drift_reference_share{label})");
            let one = ONE_EXPRESSION.replace("SEEN", &seen).replace("TRAINED", &trained);
            expect(&one, &label, index);
        }
        drifted += usize::from(index > DRIFTED);
        moved += usize::from(index > DRIFTED / 5.0);
        expect("fraud_scorer:drift_psi:1h", &format!("{{feature=\"{}\"}}", watched.feature.as_ref().unwrap()), index);
    }
    let score = baseline.score();
    expect("fraud_scorer:drift_score_psi:1h", "{}", psi(&together[score.slots.clone()], &score.shares).unwrap());
    expect("fraud_scorer:drift_share:1h", "{}", drifted as f64 / width() as f64);

    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/drift.rules.yml");
    let test = format!(
        "rule_files: ['{}']\nevaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n{series}    \
         promql_expr_test:\n{tests}",
        rules.display()
    );
    let mut file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    file.write_all(test.as_bytes()).unwrap();
    let (well, message) = promtool(&["test", "rules", file.path().to_str().unwrap()], "");
    assert!(well, "{message}");
    assert!(drifted > 0 && moved > drifted, "a case on each side of the threshold: {drifted}, {moved}");
}
