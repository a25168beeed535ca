//! The load is what was asked for, whatever the broker does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fraud_producer::source::{Format, ProfileSource};
use fraud_producer::{Job, Progress, run};
use fraud_wire::reference::Reference;

use crate::support::{Broker, PATIENCE, finish};

fn profile(seed: u64) -> Box<ProfileSource> {
    let path = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/fraud/reference.json"));
    Box::new(ProfileSource::new(&Reference::read(path).unwrap(), None, Format::Object, seed).unwrap())
}

fn event_times(broker: &Broker, count: usize) -> Vec<i64> {
    broker.read(count).iter().map(|record| record.json()["event_time"].as_i64().unwrap()).collect()
}

#[test]
fn event_times_are_the_intended_send_times() {
    let broker = Broker::new(1);
    let started = Instant::now();
    let job = Job::new(&broker.kafka(), &broker.topic, profile(1)).rate(2_000).duration(Duration::from_secs(1));
    let report = run(job, &AtomicBool::new(false), |_| {}).unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.sent, 2_000);
    assert!(started.elapsed() >= Duration::from_micros(999_500), "the last record is due after 999.5 ms");
    let times = event_times(&broker, 2_000);
    for (index, time) in times.iter().enumerate() {
        let expected = times[0] + index as i64 / 2;
        assert!((0..=1).contains(&(time - expected)), "record {index} at {time}, due at {expected} or just after");
    }
}

#[test]
fn the_first_record_does_not_wait_for_the_client_to_start() {
    // Without the wait it takes half a second every time; with it, the first look at the progress already sees
    // deliveries, unless the machine is busy elsewhere at that moment: one of a few tries shows it.
    let first_delivery = || {
        let broker = Broker::new(1);
        let mut first_delivery = None;
        let job = Job::new(&broker.kafka(), &broker.topic, profile(1)).rate(1_000).count(1_000);
        let report = run(job, &AtomicBool::new(false), |progress: &Progress| {
            if progress.delivered > 0 && first_delivery.is_none() {
                first_delivery = Some(progress.elapsed);
            }
        });
        assert!(report.unwrap().is_complete());
        first_delivery.unwrap()
    };
    let tries: Vec<Duration> = (0..5).map(|_| first_delivery()).collect();
    assert!(tries.iter().any(|first| *first < Duration::from_millis(400)), "first deliveries seen after {tries:?}");
}

#[test]
fn a_slow_broker_does_not_slow_the_load() {
    let broker = Broker::new(1);
    let job = Job::new(&broker.kafka(), &broker.topic, profile(1)).rate(1_000).count(1_000);
    // Slow from the first delivery on: connecting takes several round trips.
    let (mut slow, mut most_waiting, mut sent_after) = (false, 0, Duration::ZERO);
    let report = run(job, &AtomicBool::new(false), |progress: &Progress| {
        if !slow && progress.delivered > 0 {
            broker.mock.broker_round_trip_time(1, Duration::from_secs(1)).unwrap();
            slow = true;
        }
        most_waiting = most_waiting.max(progress.sent - progress.delivered);
        if progress.sent == 1_000 && sent_after.is_zero() {
            sent_after = progress.elapsed;
        }
    });
    let report = report.unwrap();
    assert!(slow && report.is_complete(), "{report:?}");
    assert!(most_waiting > 300, "at most {most_waiting} records were under way");
    assert!(report.elapsed > sent_after, "reports came after the sending");
    broker.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let times = event_times(&broker, 1_000);
    assert_eq!(times.iter().max().unwrap() - times.iter().min().unwrap(), 999);
}

#[test]
fn a_broker_that_cannot_keep_up_does_not_prolong_the_duration() {
    let broker = Broker::new(1);
    // Ten records per round trip of 100 ms are a tenth of the rate.
    let properties = ["-X", "queue.buffering.max.messages=10", "-X", "linger.ms=0", "-X", "max.in.flight=1"];
    broker.mock.broker_round_trip_time(1, Duration::from_millis(100)).unwrap();
    let mut command = broker.producer(&["--rate", "1000", "--duration", "1s"]);
    let (code, output, error) = finish({
        command.args(properties);
        command
    });
    assert_eq!(code, 0, "{error}");
    broker.mock.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let size = broker.size();
    assert!((10..900).contains(&size), "{size} records");
    assert_eq!(output, broker.closing_line(size, size, 0));
    assert!(error.contains(&format!("{} records that were due are left out", 1_000 - size)), "{error}");
}

#[test]
fn a_duration_at_full_speed_ends_in_time() {
    let broker = Broker::new(1);
    let started = Instant::now();
    let (code, output, error) = finish(broker.producer(&["--rate", "0", "--duration", "300ms"]));
    assert_eq!(code, 0, "{error}");
    let size = broker.size();
    assert_eq!(output, broker.closing_line(size, size, 0));
    assert!(size > 100, "{size} records in 300 ms");
    assert!(started.elapsed() >= Duration::from_millis(300) && started.elapsed() < PATIENCE);
}

#[test]
fn count_and_duration_end_at_whichever_comes_first() {
    for (count, duration, expected) in [(30, "1h", 30), (1_000_000, "100ms", 50)] {
        let broker = Broker::new(1);
        let count = count.to_string();
        let arguments = ["--rate", "500", "--count", &count, "--duration", duration];
        let (code, output, error) = finish(broker.producer(&arguments));
        assert_eq!((code, output), (0, broker.closing_line(expected, expected, 0)), "{error}");
    }
}

#[test]
fn the_same_seed_sends_the_same_records() {
    let sent = |seed: &str| {
        let broker = Broker::new(1);
        let (code, _, error) = finish(broker.producer(&["--count", "200", "--rate", "0", "--seed", seed]));
        assert_eq!(code, 0, "{error}");
        let mut records: Vec<_> = broker.read(200).iter().map(|record| (record.key.clone(), record.json())).collect();
        for (_, value) in &mut records {
            value["event_time"].take();
        }
        records
    };
    let first = sent("42");
    assert_eq!(first, sent("42"));
    assert_ne!(first, sent("43"));
}

#[test]
fn progress_never_goes_back_and_ends_with_the_report() {
    let broker = Broker::new(3);
    let stop = AtomicBool::new(false);
    let mut seen = Vec::new();
    let report = run(Job::new(&broker.kafka(), &broker.topic, profile(1)), &stop, |progress: &Progress| {
        seen.push(*progress);
        stop.store(progress.sent >= 1_000, Ordering::Relaxed);
    });
    let report = report.unwrap();
    for pair in seen.windows(2) {
        assert!(pair[0].sent <= pair[1].sent && pair[0].delivered <= pair[1].delivered, "{pair:?}");
        assert!(pair[0].elapsed <= pair[1].elapsed && pair[1].limit.is_none(), "{pair:?}");
    }
    let last = seen.last().unwrap();
    assert_eq!((last.sent, last.delivered, last.failed), (report.sent, report.delivered, report.failed));
    assert!(report.is_complete() && report.sent >= 1_000 && broker.size() == report.sent, "{report:?}");
}
