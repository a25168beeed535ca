//! Micro-benchmarks of the stages: decode (against a typed serde_json visitor that checks as little as it can), model,
//! encode. `cargo bench --bench micro`; a claim is a ratio of two lines of one run.
#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::pipeline::decode::{Decoder, Rows};
use fraud_scorer::pipeline::encode::{Encoder, RowSource};
use fraud_scorer::pipeline::engine::{Engine, Outcome};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Records per measurement: larger than the first-level cache, smaller than the last.
const RECORDS: usize = 1024;

fn bundle(name: &str) -> Bundle {
    Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)).unwrap()
}

/// The golden records, repeated, in both forms.
fn records(bundle: &Bundle) -> [(&'static str, Vec<Vec<u8>>); 2] {
    let golden = std::fs::read_to_string(bundle.directory.join("golden.jsonl")).unwrap();
    let golden: Vec<serde_json::Value> = golden.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = bundle.manifest.features.iter().map(|feature| feature.name.as_str()).collect();
    let object = golden.iter().map(|record| record.to_string().into_bytes());
    let split = golden.iter().map(|record| {
        let row: Vec<&serde_json::Value> = names.iter().map(|name| &record[*name]).collect();
        serde_json::json!({"columns": names, "data": [row]}).to_string().into_bytes()
    });
    let repeat = |records: Vec<Vec<u8>>| records.iter().cycle().take(RECORDS).cloned().collect();
    [("object", repeat(object.collect())), ("split", repeat(split.collect()))]
}

fn decode(criterion: &mut Criterion) {
    let bundle = bundle("fraud");
    let names: Vec<&str> = bundle.manifest.features.iter().map(|feature| feature.name.as_str()).collect();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    for (form, records) in records(&bundle) {
        let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
        group.bench_with_input(BenchmarkId::new("ours", form), &records, |bencher, records| {
            bencher.iter(|| {
                rows.clear();
                for record in records {
                    decoder.decode(Some(record), 0, &mut rows).unwrap();
                }
                black_box(&rows.features);
            });
        });
        let mut out: Vec<f32> = Vec::new();
        group.bench_with_input(BenchmarkId::new("serde_json", form), &records, |bencher, records| {
            bencher.iter(|| {
                out.clear();
                for record in records {
                    let mut deserializer = serde_json::Deserializer::from_slice(record);
                    Message { names: &names, out: &mut out }.deserialize(&mut deserializer).unwrap();
                }
                black_box(&out);
            });
        });
    }
    group.finish();
}

fn score_and_encode(criterion: &mut Criterion) {
    for name in ["fraud-lr", "fraud"] {
        let bundle = bundle(name);
        let [_, (_, records)] = records(&bundle);
        let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
        let mut group = criterion.benchmark_group(format!("engine {name}"));
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function("decode and score", |bencher| {
            bencher.iter(|| engine.run(records.iter().map(|record| Some(record.as_slice()))));
        });
        let encoder = Encoder::new("fraud", "1", "transactions");
        group.bench_function("encode", |bencher| {
            bencher.iter_batched_ref(
                || Vec::with_capacity(512),
                |buffer| {
                    for (record, outcome) in records.iter().zip(engine.outcomes()) {
                        let Outcome::Scored(rows) = outcome else { continue };
                        for row in engine.rows(rows.clone()) {
                            let source = RowSource { partition: 3, offset: 123_456_789, row: 0 };
                            encoder.verdict(buffer, record, &row, 1_700_000_000_000, source);
                            black_box(&buffer);
                        }
                    }
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
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

criterion_group!(benches, decode, score_and_encode);
criterion_main!(benches);
