//! The path of a good record allocates nothing, once buffers have grown and the writers' formats are known.
//!
//! A test binary of its own: it replaces the process's allocator by one that counts.
#![allow(clippy::unwrap_used, missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use fraud_scorer::audit::{Actor, Audit};
use fraud_scorer::drift::{self, DriftSettings, Pending, Sampler};
use fraud_scorer::model::bundle::Bundle;
use fraud_scorer::model::choice::KernelChoice;
use fraud_scorer::model::exchange::{ChallengerSettings, Exchange, ExchangeSettings};
use fraud_scorer::model::source::Candidate;
use fraud_scorer::pipeline::compare::Comparer;
use fraud_scorer::pipeline::decide::Thresholds;
use fraud_scorer::pipeline::decode::{Decoder, EventTime, Rows};
use fraud_scorer::pipeline::encode::{Encoder, RowSource};
use fraud_scorer::pipeline::engine::{Engine, Outcome, ScoredRow};
use fraud_scorer::pipeline::shadow::Share;
use fraud_scorer::telemetry::metrics::{Instruments, Measured, Stage, Tally};
use fraud_scorer::telemetry::suspicious::{self, Gathered, Noticed};
use fraud_wire::dead_letter::ErrorClass;
use fraud_wire::verdict::Decision;

/// Records of a run, and of a batch.
const RECORDS: usize = 10_000;
const BATCH: usize = 500;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Bytes asked for and not given back.
    static HELD: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, counting what each thread asks it for.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get() - layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(bytes: i64) {
    // Not there any more while the thread ends.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

/// How often `work` asks for memory on this thread.
fn allocations(work: impl FnOnce()) -> usize {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

fn bundle() -> Bundle {
    named("fraud")
}

fn named(name: &str) -> Bundle {
    Bundle::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name)).unwrap()
}

/// Records in the object form and in the split form (of one to three rows), numbers of every usual length.
fn records(bundle: &Bundle) -> [Vec<String>; 2] {
    let names: Vec<&str> = bundle.manifest.features.iter().map(|feature| feature.name.as_str()).collect();
    let value = |record: usize, column: usize| {
        let value = ((record * 31 + column * 7919) % 20_011) as f64 / 5003.0 - 2.0;
        match record % 4 {
            0 => format!("{value:.6}"),
            1 => format!("{value}"),
            2 => format!("{:.1}e-1", value * 10.0),
            _ => format!("{}", (value * 100.0).round()),
        }
    };
    let object = |record: usize| {
        let members: Vec<String> =
            names.iter().enumerate().map(|(column, name)| format!(r#""{name}": {}"#, value(record, column))).collect();
        let time = 1_700_000_000_000 + record;
        format!(r#"{{"transaction_id": "transaction é {record}", "event_time": {time}, {}}}"#, members.join(", "))
    };
    let split = |record: usize| {
        let row = |row: usize| {
            let values: Vec<String> = (0..names.len()).map(|column| value(record + row, column)).collect();
            format!("[{}]", values.join(", "))
        };
        let rows: Vec<String> = (0..=record % 3).map(row).collect();
        format!(r#"{{"columns": {}, "data": [{}]}}"#, serde_json::json!(names), rows.join(", "))
    };
    [(0..RECORDS).map(object).collect(), (0..RECORDS).map(split).collect()]
}

#[test]
fn decoding_warm_records_allocates_nothing() {
    let bundle = bundle();
    for records in records(&bundle) {
        let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
        let mut run = || {
            for batch in records.chunks(BATCH) {
                rows.clear();
                for (number, record) in batch.iter().enumerate() {
                    decoder.decode(Some(record.as_bytes()), number as u32, &mut rows).unwrap();
                }
                assert!(rows.len() >= batch.len());
            }
        };
        run();
        assert_eq!(allocations(run), 0, "{}", records[0]);
    }
}

#[test]
fn records_that_are_parsed_hardly_allocate() {
    let bundle = bundle();
    // White space of their own, each: hardly two messages are alike, so they are parsed.
    for records in records(&bundle) {
        let odd =
            |(number, record): (usize, String)| record.replacen(": ", &format!(":{}", " ".repeat(number % 97)), 1);
        let records: Vec<String> = records.into_iter().enumerate().map(odd).collect();
        let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
        let mut run = || {
            rows.clear();
            for record in &records {
                decoder.decode(Some(record.as_bytes()), 0, &mut rows).unwrap();
            }
        };
        run();
        run();
        // What is left is learning, which is seldom; a template of 29 features takes some 50 allocations.
        let count = allocations(run);
        assert!(count <= RECORDS / 5, "{count} for {}", records[0]);
    }
}

#[test]
fn encoding_allocates_nothing() {
    let bundle = bundle();
    let encoder = Encoder::new("fraud", "1", "transactions");
    let thresholds: Thresholds = bundle.manifest.thresholds;
    for records in records(&bundle) {
        let (mut decoder, mut rows) = (Decoder::new(&bundle.manifest.features, 1 << 20), Rows::default());
        for (number, record) in records.iter().enumerate() {
            decoder.decode(Some(record.as_bytes()), number as u32, &mut rows).unwrap();
        }
        let mut buffer = Vec::new();
        let mut run = || {
            for (number, meta) in rows.meta.iter().enumerate() {
                let score = number as f32 / rows.meta.len() as f32;
                let row = ScoredRow { meta, score, decision: thresholds.decide(score) };
                let EventTime::Milliseconds(time) = meta.event_time else {
                    encode(&encoder, &mut buffer, &records, &row, 0);
                    continue;
                };
                encode(&encoder, &mut buffer, &records, &row, time);
            }
        };
        run();
        assert_eq!(allocations(run), 0, "{}", records[0]);
    }
}

fn encode(encoder: &Encoder, buffer: &mut Vec<u8>, records: &[String], row: &ScoredRow<'_>, time: i64) {
    let source = RowSource { partition: 3, offset: i64::from(row.meta.record), row: row.meta.row };
    buffer.clear();
    encoder.verdict(buffer, records[row.meta.record as usize].as_bytes(), row, time, source);
    assert!(buffer.ends_with(b"}}"));
}

/// Counting rows and batches, and adding them to the process's metrics at a commit.
#[test]
fn counting_allocates_nothing_once_timestamps_have_room() {
    let instruments = Instruments::default();
    let (mut tally, mut measured) = (Tally::default(), Measured::default());
    let mut run = || {
        for batch in 0..RECORDS / BATCH {
            for row in 0..BATCH {
                let score = row as f32 / BATCH as f32;
                tally.verdict(Decision::ALL[row % 3], score, Some((batch * BATCH + row) as i64), Some(score * 100.0));
            }
            tally.dead_letter(ErrorClass::TooLarge);
            measured.stage(Stage::Decode, Duration::from_micros(batch as u64));
            measured.batch(BATCH);
        }
        instruments.committed(&mut tally, RECORDS as i64);
        instruments.measured(&mut measured);
    };
    run();
    assert_eq!(allocations(run), 0);
}

/// Every row looked at, every batch committed, the window sliding: nothing; and what it holds is bounded.
#[test]
fn watching_drift_allocates_nothing_once_the_window_is_full() {
    let bundle = bundle();
    let width = bundle.manifest.features.len();
    let settings = DriftSettings { rows_per_second: u32::MAX, ..DriftSettings::default() };
    let (start, held) = (Instant::now(), HELD.get());
    let monitor = drift::open(&bundle.directory, &bundle.manifest, settings).unwrap();
    let mut sampler = Sampler::new(monitor.clone(), start);
    let mut pending = [Pending::default(), Pending::default()];
    let features: Vec<f32> = (0..BATCH * width).map(|index| index as f32 / 1_000.0 - 5.0).collect();
    let scores = vec![0.01; BATCH];
    let test_data = features.capacity() * size_of::<f32>() + scores.capacity() * size_of::<f32>();
    let mut run = |minutes: std::ops::Range<u64>| {
        for minute in minutes {
            let now = start + Duration::from_secs(60 * minute);
            for pending in &mut pending {
                sampler.observe(&features, &scores, now, pending);
                pending.publish(now);
            }
        }
    };
    run(0..20);
    let held = HELD.get() - held - test_data as i64;
    println!("{held} bytes held by a monitor and a thread's two sets of counts");
    assert!((1_000..100_000).contains(&held), "{held} bytes");
    assert_eq!(allocations(|| run(20..60)), 0);
    assert_eq!(monitor.read(start + Duration::from_secs(60 * 59)).rows, 10 * 2 * BATCH as u64);
}

/// What the console is shown: verdict, row and score of a few suspicious rows of each commit.
#[test]
fn noticing_suspicious_rows_allocates_nothing() {
    let bundle = bundle();
    let records = &records(&bundle)[0];
    let encoder = Encoder::new("fraud", "1", "transactions");
    let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
    let (mut buffer, mut gathered, mut noticed) = (Vec::new(), Gathered::default(), 0);
    let mut run = || {
        for batch in records.chunks(BATCH) {
            engine.run(batch.iter().map(|record| Some(record.as_bytes())));
            let scored = allocations(|| {
                for index in 0..engine.row_count() {
                    let row = engine.row(index);
                    encode(&encoder, &mut buffer, batch, &row, 0);
                    if !gathered.has_room() {
                        gathered.publish();
                    }
                    gathered.add(&Noticed {
                        verdict: &buffer,
                        features: engine.features_of(index),
                        score: row.score,
                        amount: engine.features_of(index).last().copied(),
                        model: 1,
                    });
                    noticed += 1;
                }
                gathered.publish();
            });
            assert!(noticed <= RECORDS || scored == 0, "{scored} allocations");
        }
    };
    run();
    run();
    assert_eq!(noticed, 2 * RECORDS);
    let kept = suspicious::since(0);
    assert_eq!((kept.len(), kept[0].features.as_slice()), (suspicious::KEPT, engine.features_of(BATCH - 1)));
}

/// Decode, score, decide, encode: what is allocated is the model run's, per batch, whatever the batch holds.
#[test]
fn scoring_allocates_per_batch_and_not_per_record() {
    let encoder = Encoder::new("fraud", "1", "transactions");
    let of = |bundle: Bundle| records(&bundle).map(|records| (bundle.clone(), records));
    // Trees in the kernel, and a linear model.
    for (bundle, records) in [of(named("fraud")), of(named("fraud-lr"))].into_iter().flatten() {
        let mut engine = Engine::new(&bundle, 1 << 20).unwrap();
        let mut buffer = Vec::new();
        let mut run = |size: usize| {
            for batch in records.chunks(size) {
                engine.run(batch.iter().map(|record| Some(record.as_bytes())));
                for outcome in engine.outcomes() {
                    let Outcome::Scored(rows) = outcome else { panic!("{outcome:?}") };
                    for row in engine.rows(rows.clone()) {
                        encode(&encoder, &mut buffer, batch, &row, 0);
                    }
                }
            }
        };
        run(BATCH);
        let batches = RECORDS / BATCH;
        let of_large = allocations(|| run(BATCH));
        let of_small = allocations(|| run(BATCH / 10));
        println!("{of_large} allocations in {batches} batches, {of_small} in {}", 10 * batches);
        assert!(of_large <= 20 * batches, "{of_large} allocations in {batches} batches of {BATCH}");
        // As many per batch, be it large or small: none is a record's.
        assert_eq!(of_small, 10 * of_large);
    }
}

/// The challenger as well: on all rows as they are, on a share of them, and with columns of its own.
#[test]
fn a_challenger_allocates_per_batch_and_not_per_record() {
    let folder = tempfile::tempdir().unwrap();
    let mapped = folder.path();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/fraud");
    std::fs::copy(directory.join("model.onnx"), mapped.join("model.onnx")).unwrap();
    let manifest = std::fs::read_to_string(directory.join("manifest.toml")).unwrap();
    // Of [files] none is there.
    let manifest = manifest.lines().filter(|line| !line.starts_with('"')).collect::<Vec<_>>().join("\n");
    let manifest = manifest.replace("version = \"1\"", "version = \"2\"");
    let manifest = manifest.replace("{ name = \"V10\" }", "{ name = \"other\", default = 0.5 }");
    std::fs::write(mapped.join("manifest.toml"), manifest).unwrap();

    let records = &records(&bundle())[0];
    for (challenger, share) in [(directory.as_path(), 1.0), (directory.as_path(), 0.3), (mapped, 1.0), (mapped, 0.3)] {
        let settings = ExchangeSettings {
            kernel: KernelChoice::Auto,
            key: None,
            threads: 1,
            max_message_bytes: 1 << 20,
            max_batch: BATCH,
            input_topic: "transactions".into(),
            challenger: ChallengerSettings { share: Share::new(share).unwrap() },
            drift: DriftSettings::default(),
            verification: None,
            audit: Audit::default(),
        };
        let exchange = Exchange::open(settings, Candidate::of_directory(directory.clone())).unwrap();
        let challenger = Some(Candidate::of_directory(challenger.to_owned()));
        exchange.challenge(challenger, &Actor::configuration()).unwrap();
        let seat = exchange.seat(0);
        let (mut model, mut challenger) = (seat.first().unwrap(), seat.first_challenger().unwrap());
        let shadow = challenger.shadow.as_deref_mut().unwrap();
        shadow.fit(&model.model).unwrap();
        let mut comparer = Comparer::new("transactions", None, "Amount".into());
        comparer.between(&model.model, shadow.model());
        let (mut buffer, mut tally, mut compared) = (Vec::new(), Tally::default(), 0);
        let mut run = |size: usize| {
            for (number, batch) in records.chunks(size).enumerate() {
                model.engine.run(batch.iter().map(|record| Some(record.as_bytes())));
                let places = (0..batch.len()).map(|index| (0, (number * size + index) as i64));
                assert_eq!(shadow.run(&model.engine, places), 0);
                for row in shadow.compared() {
                    let comparison = comparer.compare(&model.engine, shadow, row);
                    assert!(comparison.amount.is_some());
                    tally.comparison(&comparison);
                    let row = model.engine.row(row.row);
                    let source = RowSource { partition: 3, offset: 917, row: 0 };
                    buffer.clear();
                    let payload = batch[row.meta.record as usize].as_bytes();
                    comparer.encode(&mut buffer, payload, &row, 1_700_000_000_000, source, &comparison);
                    compared += 1;
                }
            }
        };
        run(BATCH);
        run(BATCH / 10);
        let batches = RECORDS / BATCH;
        let of_large = allocations(|| run(BATCH));
        let of_small = allocations(|| run(BATCH / 10));
        println!("share {share}: {of_large} allocations in {batches} batches, {of_small} in {}", 10 * batches);
        assert!(of_large <= 40 * batches, "{of_large} allocations in {batches} batches of {BATCH}");
        assert_eq!(of_small, 10 * of_large, "as many per batch, be it large or small");
        let part = f64::from(compared) / (4 * RECORDS) as f64;
        assert!((part - share).abs() < 0.03, "{part} of the rows");
    }
}
