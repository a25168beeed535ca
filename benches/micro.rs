//! Micro-benchmarks of the stages: decode (against a typed serde_json visitor that checks as little as it can), model,
//! encode. `cargo bench --bench micro`; a claim is a ratio of two lines of one run.
//!
//! Decode's records are the design's: 29 features, as Python's `json.dumps` writes them, with at most six decimals or in
//! full (16 to 17 digits, what a 64-bit float takes); the same in every run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::f64::consts::TAU;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fraud_scorer::drift::{DriftSettings, Pending, Sampler};
use fraud_scorer::explain::Explainer;
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::decode::{Decoder, Rows};
use fraud_scorer::pipeline::encode::{Encoder, RowSource};
use fraud_scorer::pipeline::engine::{Engine, Outcome};
use fraud_scorer::telemetry::drift::render_monitor;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Records per measurement: larger than the first-level cache, smaller than the last.
const RECORDS: usize = 1024;

/// Which form a record has.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Split,
    Object,
}

/// How many digits its numbers have.
#[derive(Clone, Copy, PartialEq)]
enum Digits {
    SixDecimals,
    All,
}

fn bundle(name: &str) -> Bundle {
    Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)).unwrap()
}

fn names(bundle: &Bundle) -> Vec<&str> {
    bundle.manifest.features.iter().map(|feature| feature.name.as_str()).collect()
}

/// Records as a Python producer writes them: normal features, the last one (an amount) log-normal.
fn records(names: &[&str], form: Form, digits: Digits) -> Vec<Vec<u8>> {
    let mut random = Random(7);
    let columns: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    let mut record = |number: usize| {
        let mut value = |column: usize| {
            let normal = random.normal();
            let value = if column + 1 < names.len() { normal } else { (3.0 + 1.5 * normal).exp() };
            match digits {
                Digits::SixDecimals => python(format!("{value:.6}").parse().unwrap()),
                Digits::All => python(value),
            }
        };
        let values: Vec<String> = (0..names.len()).map(&mut value).collect();
        match form {
            Form::Split => format!(r#"{{"columns": [{}], "data": [[{}]]}}"#, columns.join(", "), values.join(", ")),
            Form::Object => {
                let id = uuid::Uuid::from_u64_pair(random.next(), random.next());
                let members: Vec<String> =
                    columns.iter().zip(&values).map(|(name, value)| format!("{name}: {value}")).collect();
                let time = 1_700_000_000_000 + number;
                format!(r#"{{"transaction_id": "{id}", "event_time": {time}, {}}}"#, members.join(", "))
            }
        }
        .into_bytes()
    };
    (0..RECORDS).map(&mut record).collect()
}

/// A float as Python prints it: with an exponent of two digits from 1e-4 down.
fn python(value: f64) -> String {
    if value == 0.0 || value.abs() >= 1e-4 {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once("e-").unwrap();
    format!("{mantissa}e-{exponent:0>2}")
}

/// A small generator, the same in every run (Steele, Lea and Flood, "SplitMix", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between 0 and 1, neither included.
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Box and Muller's.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (TAU * self.uniform()).cos()
    }
}

fn decode(criterion: &mut Criterion) {
    let bundle = bundle("fraud");
    let names = names(&bundle);
    for (kind, form, digits) in [
        ("split, six decimals", Form::Split, Digits::SixDecimals),
        ("object, six decimals", Form::Object, Digits::SixDecimals),
        ("split, all digits", Form::Split, Digits::All),
        ("object, all digits", Form::Object, Digits::All),
    ] {
        let records = records(&names, form, digits);
        let mut group = criterion.benchmark_group(format!("decode {kind}"));
        group.throughput(Throughput::Elements(RECORDS as u64));
        let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
        group.bench_function("ours", |bencher| {
            bencher.iter(|| {
                rows.clear();
                for record in &records {
                    decoder.decode(Some(record), 0, &mut rows).unwrap();
                }
                black_box(&rows.features);
            });
        });
        let mut out: Vec<f32> = Vec::new();
        group.bench_function("serde_json", |bencher| {
            bencher.iter(|| {
                out.clear();
                for record in &records {
                    let mut deserializer = serde_json::Deserializer::from_slice(record);
                    Message { names: &names, out: &mut out }.deserialize(&mut deserializer).unwrap();
                }
                black_box(&out);
            });
        });
        assert!(rows.features.iter().map(|value| value.to_bits()).eq(out.iter().map(|value| value.to_bits())));
        group.finish();
    }
}

fn score(criterion: &mut Criterion) {
    for name in ["fraud-lr", "fraud"] {
        let bundle = bundle(name);
        let records = records(&names(&bundle), Form::Split, Digits::SixDecimals);
        let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
        let mut group = criterion.benchmark_group(format!("engine {name}"));
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function("decode and score", |bencher| {
            bencher.iter(|| engine.run(records.iter().map(|record| Some(record.as_slice()))));
        });
        group.finish();
    }
}

fn encode(criterion: &mut Criterion) {
    let bundle = bundle("fraud-lr");
    let encoder = Encoder::new("fraud", "1", "transactions");
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (id, form) in [("the row's own id", Form::Object), ("an id by place", Form::Split)] {
        let records = records(&names(&bundle), form, Digits::SixDecimals);
        let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
        engine.run(records.iter().map(|record| Some(record.as_slice())));
        let mut buffer = Vec::new();
        group.bench_function(id, |bencher| {
            bencher.iter(|| {
                for (record, outcome) in records.iter().zip(engine.outcomes()) {
                    let Outcome::Scored(rows) = outcome else { continue };
                    for row in engine.rows(rows.clone()) {
                        let source = RowSource { partition: 3, offset: 123_456_789, row: 0 };
                        buffer.clear();
                        encoder.verdict(&mut buffer, record, &row, 1_700_000_000_000, source);
                        black_box(&buffer);
                    }
                }
            });
        });
    }
    group.finish();
}

/// What a reader with serde_json would write: features by name, or the rows of `data`, straight into a buffer.
struct Message<'a> {
    names: &'a [&'a str],
    out: &'a mut Vec<f32>,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a transaction")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (start, mut expected) = (self.out.len(), 0);
        while let Some(key) = map.next_key::<&str>()? {
            if key == "data" {
                map.next_value_seed(Data(self.out))?;
                continue;
            }
            let found = match self.names.get(expected) {
                Some(name) if *name == key => Some(expected),
                _ => self.names.iter().position(|name| *name == key),
            };
            let Some(index) = found else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if self.out.len() == start {
                self.out.resize(start + self.names.len(), f32::NAN);
            }
            self.out[start + index] = map.next_value()?;
            expected = index + 1;
        }
        Ok(())
    }
}

struct Data<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Data<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Data<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut rows: A) -> Result<(), A::Error> {
        while rows.next_element_seed(Row(self.0))?.is_some() {}
        Ok(())
    }
}

struct Row<'a>(&'a mut Vec<f32>);

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while let Some(value) = values.next_element()? {
            self.0.push(value);
        }
        Ok(())
    }
}

/// What drift adds to decoding and scoring as the worker does it (at most 1,000 rows looked at per second and thread),
/// and what its parts cost: to look at every row of a batch, to commit, to show it.
fn drift(criterion: &mut Criterion) {
    let bundle = bundle("fraud-lr");
    let records = records(&names(&bundle), Form::Split, Digits::SixDecimals);
    let open = |rows_per_second| {
        let settings = DriftSettings { rows_per_second, ..DriftSettings::default() };
        fraud_scorer::drift::open(&bundle.directory, &bundle.manifest, settings)
    };
    let mut group = criterion.benchmark_group("drift");
    group.throughput(Throughput::Elements(RECORDS as u64));
    let mut pending = Pending::default();
    for (id, rows_per_second) in [("not watched", 0), ("1,000 rows/s looked at", 1_000)] {
        let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
        engine.watch(open(rows_per_second));
        group.bench_function(format!("decode and score, {id}"), |bencher| {
            bencher.iter(|| {
                engine.run(records.iter().map(|record| Some(record.as_slice())));
                engine.observe_drift(Instant::now(), &mut pending);
            });
        });
    }
    let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
    for record in &records {
        decoder.decode(Some(record), 0, &mut rows).unwrap();
    }
    let (monitor, scores) = (open(u32::MAX).unwrap(), vec![0.5; RECORDS]);
    let mut sampler = Sampler::new(monitor.clone(), Instant::now());
    group.bench_function("look at every row", |bencher| {
        bencher.iter(|| sampler.observe(&rows.features, &scores, Instant::now(), &mut pending));
    });
    group.finish();
    let width = bundle.manifest.features.len();
    criterion.bench_function("drift/look at a row and commit", |bencher| {
        bencher.iter(|| {
            sampler.observe(&rows.features[..width], &scores[..1], Instant::now(), &mut pending);
            pending.publish(Instant::now());
        });
    });
    let mut text = String::new();
    criterion.bench_function("drift/compute and show", |bencher| {
        bencher.iter(|| {
            text.clear();
            render_monitor(&monitor, Instant::now(), &mut text);
        });
    });
}

/// Why a row scored as it did, row by row: the shipped models, and the 200 trees of depth 6 that the worker is measured
/// with, where `make bench` has made them.
fn explain(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("explain");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, directory) in [
        ("shipped trees", root.join("models/fraud")),
        ("shipped linear model", root.join("models/fraud-lr")),
        ("200 trees of depth 6", root.join(".runtime/bench/xgb")),
    ] {
        let Ok(bundle) = Bundle::load(&directory) else { continue };
        let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
        let text = std::fs::read_to_string(directory.join("golden.jsonl")).unwrap();
        engine.run(text.lines().map(|line| Some(line.as_bytes())));
        // Those that are explained are those of high scores; they differ most from what is ordinary.
        let mut rows: Vec<usize> = (0..engine.row_count()).collect();
        rows.sort_by(|&one, &other| engine.row(other).score.total_cmp(&engine.row(one).score));
        rows.truncate(50);
        let mut explainer = Explainer::new(&bundle).unwrap();
        group.throughput(Throughput::Elements(rows.len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for &row in &rows {
                    black_box(explainer.reasons(engine.features_of(row), engine.row(row).score).len());
                }
            });
        });
    }
    group.finish();
}

/// A minute in all: the times are steady, it is the ratios that count.
fn brief() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! { name = benches; config = brief(); targets = decode, score, encode, drift, explain }
criterion_main!(benches);
