//! The archive of verdicts holds each exactly once, with the features it was made from, whatever happens to its
//! writers.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::poison::good;
use super::support::broker::shared;
use super::support::lake::{assert_complete, count, files, rows, rows_of};
use super::support::process::{Running, finish, scorer};
use super::support::s3::S3;
use super::support::topics::{Record, Topics};
use super::support::wait_for;

/// Generous: the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

/// Found everywhere.
const NONE_MISSING: &dyn Fn(i32, i64) -> bool = &|_, _| false;

/// `fraud-scorer archive` of these topics, ready to be given more arguments.
pub fn archive(topics: &Topics, to: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = scorer();
    command.args(["archive", "--brokers", &topics.brokers, "--archive-group", &topics.group, "--http", "127.0.0.1:0"]);
    command.args(["--output-topic", &topics.output, "--input-topic", &topics.input]).arg("--to").arg(to);
    // Those who are killed are noticed as soon as the broker allows.
    command.args(["-X", "session.timeout.ms=6000", "-X", "heartbeat.interval.ms=500"]);
    command
}

/// Topics with so many verdicts, an hour of event time for each 5,000; in the split form, which has no event time, all
/// of now. The archives' group is not the worker's.
pub fn scored(partitions: i32, count: usize, producer: &[&str]) -> Topics {
    let mut topics = Topics::create(shared(), partitions);
    let worker = topics.start_worker(&[]);
    let mut command = topics.producer();
    command.args(["--rate", "5000"]);
    if !producer.contains(&"split") {
        command.args(["--event-time", "3600x", "--event-start", "2026-01-31T22:30:00Z"]);
    }
    command.args(["--seed", "5", "--count", &count.to_string()]).args(producer);
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut subscriber = topics.subscribe(&topics.output);
    subscriber.wait_for("verdicts", count, LIMIT);
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    topics.group = super::support::unique("archive");
    topics
}

/// Archives everything that is there; gives the log.
pub fn catch_up(topics: &Topics, to: &Path, arguments: &[&str]) -> String {
    let mut command = archive(topics, to);
    command.arg("--until-caught-up").args(arguments);
    let output = finish(command, LIMIT);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{log}");
    log
}

/// Makes the hour of 2026-01-31T23 impossible to write to, or possible again.
fn obstruct(folder: &Path, obstruct: bool) {
    let day = folder.join("date=2026-01-31");
    let hour = day.join("hour=23");
    fs::create_dir_all(&day).unwrap();
    if obstruct { fs::write(hour, "in the way").unwrap() } else { fs::remove_file(hour).unwrap() }
}

#[test]
fn verdicts_are_archived_with_their_features_once_and_not_again() {
    const ROWS: usize = 9_000;
    let topics = scored(3, ROWS, &[]);
    let folder = tempfile::tempdir().unwrap();
    // Made where it is missing.
    let to = folder.path().join("new/archive");
    let log = catch_up(&topics, &to, &["--file-rows", "1000"]);
    let archived = rows(&to);
    assert_eq!(archived.len(), ROWS);
    assert_complete(&topics, &archived, NONE_MISSING);
    let names = files(&to);
    assert!(names.len() >= 9 && log.contains("verdicts archived"), "{names:?}");
    for (partition, hour) in [(0, 22), (1, 22), (2, 23)] {
        let file = format!("date=2026-01-31/hour={hour}/{}-{partition:05}-", topics.output);
        assert!(names.iter().any(|name| name.starts_with(&file)), "{file}: {names:?}");
    }
    // Not for everyone on the machine.
    for name in &names {
        let mode = fs::metadata(to.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{name}: {mode:o}");
    }
    // The first file of a partition is named by its first offset.
    let first = format!("date=2026-01-31/hour=22/{}-00000-{:020}.parquet", topics.output, 0);
    assert!(names.contains(&first), "{first}: {names:?}");

    // Nothing is left to do: no file comes, none goes, none is written again.
    let written = |names: &[String]| -> Vec<_> {
        names.iter().map(|name| fs::metadata(to.join(name)).unwrap().modified().unwrap()).collect()
    };
    let before = written(&names);
    let log = catch_up(&topics, &to, &["--file-rows", "10"]);
    assert_eq!((files(&to), written(&names)), (names, before), "{log}");
}

#[test]
fn killed_at_any_moment_each_verdict_is_archived_once() {
    const ROWS: usize = 24_000;
    let topics = scored(2, ROWS, &[]);
    let folder = tempfile::tempdir().unwrap();
    // A stable name in the group: who comes back does not wait for the session of who was killed.
    let instance = format!("group.instance.id={}", topics.group);
    for round in 0..8_u64 {
        let mut command = archive(&topics, folder.path());
        // Cuts of another size in every round: whoever finishes a cut has another idea of where it should end.
        command.args(["-X", &instance, "--file-rows", &(100 + 37 * round).to_string()]);
        let archiver = Running::start(command);
        let there = files(folder.path()).len();
        wait_for("more files", LIMIT, || (files(folder.path()).len() > there + 1).then_some(()));
        std::thread::sleep(Duration::from_millis(u64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 4));
        archiver.kill();
    }
    let killed = rows(folder.path()).len();
    catch_up(&topics, folder.path(), &["-X", &instance, "--file-rows", "100000"]);
    let archived = rows(folder.path());
    assert!(killed < ROWS, "the last round had nothing to do: make the rounds shorter");
    assert_complete(&topics, &archived, NONE_MISSING);
    assert_eq!(archived.len(), ROWS);
}

#[test]
fn a_cut_that_was_half_written_is_finished_as_it_was_begun() {
    let topics = scored(1, 6_000, &[]);
    let folder = tempfile::tempdir().unwrap();
    obstruct(folder.path(), true);
    let mut command = archive(&topics, folder.path());
    let instance = format!("group.instance.id={}", topics.group);
    command.args(["-X", &instance, "--file-rows", "4000"]);
    let mut archiver = Running::start(command);
    archiver.wait_for_log("the destination did not take a file", LIMIT);
    let (status, reasons) = archiver.get("/readyz");
    assert!(status == 503 && reasons.contains("destination: date=2026-01-31/hour=23/"), "{reasons}");
    assert!(archiver.get("/metrics").1.contains("fraud_scorer_archive_rows_total{input=\"found\"} 0\n"));
    archiver.kill();
    let half = rows(folder.path());
    assert!(!half.is_empty() && half.len() < 4_000, "{} rows are there", half.len());

    obstruct(folder.path(), false);
    let log = catch_up(&topics, folder.path(), &["-X", &instance, "--file-rows", "7"]);
    assert!(log.contains("finishing a cut that was begun before"), "{log}");
    let archived = rows(folder.path());
    assert_complete(&topics, &archived, NONE_MISSING);
    assert_eq!(archived.len(), 6_000);
    // The cut of 4,000, then those of 7 (or of an hour's end).
    let offsets: Vec<i64> = archived
        .iter()
        .filter(|row| row.file.ends_with("00000000000000000000.parquet"))
        .map(|row| row.place().1)
        .collect();
    assert!(offsets.len() > 1_000 && offsets.iter().all(|offset| *offset < 4_010), "{offsets:?}");
}

#[test]
fn a_cut_that_retention_overtook_after_it_was_uploaded_is_in_no_second_file_and_nothing_is_lost() {
    let topics = scored(1, 6_000, &[]);
    let folder = tempfile::tempdir().unwrap();
    catch_up(&topics, folder.path(), &["--file-rows", "100000"]);
    let (committed, end) = topics.committed_of(&topics.output, 0);
    assert_eq!(committed, Some(end), "an idle group has no lag, transaction markers or not");
    let whole = rows(folder.path());
    assert_complete(&topics, &whole, NONE_MISSING);
    let (middle, names) = (whole[3_000].place().1, files(folder.path()));
    for note in [format!("archive until {end} rows 6000"), format!("archive until {end}")] {
        // As if it had died before the last commit.
        topics.commit(&topics.output, 0, 0, &note);
        topics.delete_records(&topics.output, 0, middle);
        let log = catch_up(&topics, folder.path(), &[]);
        assert!(
            log.contains("finishing a cut that was begun before") && !log.contains("verdicts were deleted"),
            "{log}"
        );
        let there = rows(folder.path());
        assert_eq!((there.len(), files(folder.path())), (whole.len(), names.clone()), "{middle} of {end}: {log}");
        assert!(there == whole, "other rows");
    }
    // Where the first of its files was not uploaded, what is left of it is, and what is gone is counted.
    let first = files(folder.path()).into_iter().min().unwrap();
    let before = whole.iter().filter(|row| row.file == first).count();
    fs::remove_file(folder.path().join(&first)).unwrap();
    topics.commit(&topics.output, 0, 0, &format!("archive until {end} rows 6000"));
    let log = catch_up(&topics, folder.path(), &[]);
    let left = rows(folder.path()).len();
    assert_eq!((left, before), (6_000 - before, 2_500), "the first hour's");
    let lost = format!(
        "verdicts were deleted before they were archived: keep the topic longer partition=0 verdicts={}",
        6_000 - left
    );
    assert!(log.contains(&lost), "{lost}: {log}");
}

#[test]
fn a_member_that_was_put_out_of_the_group_harms_nothing_when_it_wakes() {
    let topics = scored(1, 6_000, &[]);
    let folder = tempfile::tempdir().unwrap();
    obstruct(folder.path(), true);
    let mut command = archive(&topics, folder.path());
    command.args(["--file-rows", "4000"]);
    let mut sleeper = Running::start(command);
    // Its cut is written down and half in its place.
    sleeper.wait_for_log("the destination did not take a file", LIMIT);
    sleeper.signal("-STOP");
    obstruct(folder.path(), false);

    // Another finishes the cut, and goes on with cuts of its own.
    let log = catch_up(&topics, folder.path(), &["--file-rows", "500"]);
    assert!(log.contains("finishing a cut that was begun before"), "{log}");
    assert_complete(&topics, &rows(folder.path()), NONE_MISSING);

    sleeper.signal("-CONT");
    sleeper.wait_for_log("partitions lost", LIMIT);
    sleeper.wait_until_ready();
    sleeper.terminate();
    let output = sleeper.finish(LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    catch_up(&topics, folder.path(), &[]);
    let archived = rows(folder.path());
    assert_complete(&topics, &archived, NONE_MISSING);
    assert_eq!(archived.len(), 6_000);
}

#[test]
fn members_come_and_go_while_verdicts_do() {
    const ROWS: usize = 30_000;
    let mut topics = Topics::create(shared(), 4);
    let worker = topics.start_worker(&[]);
    let producer = topics.start_producer(2_500, ROWS, 12);
    topics.group = super::support::unique("archive");
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = archive(&topics, folder.path());
        command.args(["--file-rows", "700", "--file-every", "2s"]);
        Running::start(command)
    };
    let enough = |count: usize| wait_for("files", LIMIT, || (files(folder.path()).len() >= count).then_some(()));
    let first = start();
    enough(4);
    let mut second = start();
    second.wait_for_log("partitions assigned", LIMIT);
    second.terminate();
    let output = second.finish(LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut third = start();
    third.wait_for_log("partitions assigned", LIMIT);
    first.kill();
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    topics.subscribe(&topics.output).wait_for("all verdicts", ROWS, LIMIT);
    worker.terminate();
    // Idle, the last cut is closed by the clock; the dead member's partitions come when its session is over.
    wait_for("all rows", LIMIT, || (count(folder.path()) >= ROWS).then_some(()));
    third.terminate();
    let output = third.finish(LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let archived = rows(folder.path());
    assert_complete(&topics, &archived, NONE_MISSING);
    assert_eq!(archived.len(), ROWS);
}

#[test]
fn a_group_that_is_rearranged_while_it_is_idle_archives_every_verdict_once() {
    let mut topics = Topics::create(shared(), 4);
    let worker = topics.start_worker(&[]);
    topics.group = super::support::unique("archive");
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut member = Running::start(archive(&topics, folder.path()));
        member.wait_for_log("partitions assigned", LIMIT);
        member
    };
    let mut verdicts = topics.subscribe(&topics.output);
    let mut sent = 0;
    // Bursts, so that a partition's end comes in a batch with verdicts; the members have then read them.
    let mut send = |count: usize, members: &mut [&mut Running]| {
        let values: Vec<String> = (0..count).map(|number| good(&format!("t{number}"))).collect();
        let in_partition = |partition: i32| {
            values.iter().map(move |value| Record { partition, value: Some(value.as_bytes()), ..Record::default() })
        };
        topics.send(&(0..4).flat_map(in_partition).collect::<Vec<_>>());
        sent += 4 * count;
        verdicts.wait_for("verdicts", sent, LIMIT);
        for member in members {
            wait_for("an idle member", LIMIT, || {
                let lag: Vec<String> = member.series("fraud_scorer_archive_lag");
                lag.iter().all(|series| series.ends_with(" 0")).then_some(())
            });
        }
    };
    let mut first = start();
    for _ in 0..3 {
        send(300, &mut [&mut first]);
        let mut second = start();
        send(1, &mut [&mut first, &mut second]);
        second.terminate();
        assert_eq!(second.finish(LIMIT).status.code(), Some(0));
        send(1, &mut [&mut first]);
    }
    first.terminate();
    assert_eq!(first.finish(LIMIT).status.code(), Some(0));
    worker.terminate();
    assert_eq!(worker.finish(LIMIT).status.code(), Some(0));
    catch_up(&topics, folder.path(), &[]);
    let archived = rows(folder.path());
    assert_complete(&topics, &archived, NONE_MISSING);
    assert_eq!(archived.len(), sent);
}

#[test]
fn an_input_topic_that_is_made_again_holds_nothing_up() {
    const BEFORE: usize = 20_000;
    const AFTER: usize = 6_000;
    let mut topics = scored(1, BEFORE, &[]);
    let folder = tempfile::tempdir().unwrap();
    // Of the verdicts; where the next one will stand.
    let first_after = topics.read(&topics.output).last().map_or(0, |verdict| verdict.offset + 1);
    topics.remake(&topics.input, 1, &[]);
    let archive_group = std::mem::replace(&mut topics.group, super::support::unique("group"));
    let worker = topics.start_worker(&[]);
    // For as long as the archive reads what the topic before had been, there is traffic in the one of today.
    let producer = topics.start_producer(400, AFTER, 13);
    topics.group = archive_group;
    let mut archiver = Running::start(archive(&topics, folder.path()));
    wait_for("everything is read, while more comes", LIMIT, || {
        let lag = archiver.series("fraud_scorer_archive_lag");
        lag.iter().any(|series| series.rsplit(' ').next().unwrap().parse::<f64>().unwrap() < 1_000.0).then_some(())
    });
    let (_, end) = topics.committed(0);
    assert!(end < AFTER as i64, "it waited while the topic grew to {end} records");
    assert_eq!(producer.finish(LIMIT).status.code(), Some(0));
    topics.subscribe(&topics.output).wait_for("all verdicts", BEFORE + AFTER, LIMIT);
    worker.terminate();
    archiver.terminate();
    archiver.finish(LIMIT);
    catch_up(&topics, folder.path(), &[]);
    let archived = rows(folder.path());
    assert_eq!(archived.len(), BEFORE + AFTER);
    // A verdict of the topic before may name a place that another transaction has now.
    let (before, after): (Vec<_>, Vec<_>) = archived.into_iter().partition(|row| row.place().1 < first_after);
    assert_eq!(before.iter().filter(|row| row.features().is_some()).count(), 0);
    assert_eq!(after.iter().filter(|row| row.features().is_some()).count(), AFTER);
}

#[test]
fn partitions_that_are_added_are_archived_with_their_features() {
    const ROWS: usize = 2_000;
    let mut topics = Topics::create(shared(), 1);
    let worker = topics.start_worker(&["-X", "topic.metadata.refresh.interval.ms=1000"]);
    let folder = tempfile::tempdir().unwrap();
    let archive_group = super::support::unique("archive");
    topics.group = archive_group;
    let mut command = archive(&topics, folder.path());
    command.args(["-X", "topic.metadata.refresh.interval.ms=1000"]);
    let mut archiver = Running::start(command);
    archiver.wait_for_log("partitions assigned", LIMIT);
    topics.grow(&topics.output, 3);
    topics.grow(&topics.input, 3);
    let values: Vec<String> = (0..ROWS).map(|number| good(&format!("t{number}"))).collect();
    let records: Vec<Record<'_>> = values
        .iter()
        .enumerate()
        .map(|(number, value)| Record {
            partition: number as i32 % 3,
            value: Some(value.as_bytes()),
            ..Record::default()
        })
        .collect();
    topics.send(&records);
    topics.subscribe(&topics.output).wait_for("verdicts of all partitions", ROWS, LIMIT);
    wait_for("everything is read", LIMIT, || {
        let gathered = format!("fraud_scorer_archive_gathered_rows {ROWS}\n");
        archiver.get("/metrics").1.contains(&gathered).then_some(())
    });
    archiver.terminate();
    assert_eq!(archiver.finish(LIMIT).status.code(), Some(0));
    worker.terminate();
    let archived = rows(folder.path());
    assert_eq!(archived.len(), ROWS);
    assert_complete(&topics, &archived, NONE_MISSING);
}

#[test]
fn inputs_that_are_gone_and_records_that_are_no_verdicts_stop_nothing() {
    const ROWS: usize = 3_000;
    let topics = scored(2, ROWS, &["--format", "split"]);
    let producer: BaseProducer = topics.client.create().unwrap();
    for value in [Some("nonsense"), Some("{}"), None, Some("{\"transaction_id\":\"x\",\"score\":2}")] {
        let mut record: BaseRecord<'_, str, str> = BaseRecord::to(&topics.output).partition(1);
        record.payload = value;
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    // The first inputs of a partition fall to retention, and all of the other.
    let records = topics.read(&topics.input);
    let ends: HashMap<i32, i64> = records.iter().map(|record| (record.partition, record.offset)).collect();
    let gone = HashMap::from([(0, 400), (1, ends[&1] + 1)]);
    let mut before = TopicPartitionList::new();
    for (partition, offset) in &gone {
        before.add_partition_offset(&topics.input, *partition, Offset::Offset(*offset)).unwrap();
    }
    let admin: AdminClient<DefaultClientContext> = topics.client.create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    runtime.block_on(admin.delete_records(&before, &options)).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let mut archiver = Running::start(archive(&topics, folder.path()));
    let missing = records.iter().filter(|record| record.offset < gone[&record.partition]).count();
    assert!(missing > 400 && missing < ROWS);
    // Nothing closes the cuts but the end.
    wait_for("everything is read", LIMIT, || {
        let gathered = format!("fraud_scorer_archive_gathered_rows {ROWS}\n");
        archiver.get("/metrics").1.contains(&gathered).then_some(())
    });
    assert_eq!((archiver.get("/livez").0, archiver.get("/readyz").0), (200, 200));
    archiver.terminate();
    let output = archiver.finish(LIMIT);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(log.contains("archived without their input's features") && log.contains("no verdict is skipped"), "{log}");
    let skipped = |log: &str| -> u32 {
        let counts = log.split("skipped=").skip(1).map(|rest| rest.trim_end().split(['\n', ' ']).next().unwrap());
        counts.map(|count| count.parse::<u32>().unwrap()).sum()
    };
    // The last of them may have come after the stop.
    assert_eq!(skipped(&log) + skipped(&catch_up(&topics, folder.path(), &[])), 4, "{log}");
    let archived = rows(folder.path());
    assert_eq!(archived.len(), ROWS);
    assert_complete(&topics, &archived, &|partition, offset| offset < gone[&partition]);
    assert_eq!(archived.iter().filter(|row| row.features().is_none()).count(), missing);
}

#[test]
fn a_person_is_removed_and_nothing_else() {
    const ROWS: usize = 600;
    let topics = scored(2, ROWS, &[]);
    let folder = tempfile::tempdir().unwrap();
    catch_up(&topics, folder.path(), &["--file-rows", "100"]);
    let (before, names) = (rows(folder.path()), files(folder.path()));
    // Rows of two files, and all of a third.
    let last = names.last().unwrap();
    let of_last = before.iter().filter(|row| row.file == *last);
    let erased: Vec<String> = before
        .iter()
        .take(1)
        .chain(&before[150..152])
        .chain(of_last)
        .map(|row| row.text("transaction_id").to_owned())
        .collect();
    let list = folder.path().join("ids");
    fs::write(&list, erased.join("\n")).unwrap();
    let erase = |to: &Path, arguments: &[&str]| {
        let mut command = scorer();
        command.args(["archive", "erase", "--to"]).arg(to).args(arguments).env("RUST_LOG", "debug");
        finish(command, LIMIT)
    };

    let output = erase(folder.path(), &["--ids-file", list.to_str().unwrap()]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains(&format!("{} rows erased; ", erased.len())), "{said}");
    assert!(!erased.iter().any(|id| said.contains(id.as_str())), "{said}");
    let left: Vec<_> =
        before.into_iter().filter(|row| !erased.iter().any(|id| id == row.text("transaction_id"))).collect();
    assert_eq!(rows(folder.path()), left);
    assert_eq!(files(folder.path()), names);
    for name in &names {
        let mode = fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o007, 0, "{name}: {mode:o}");
    }

    // The archive goes on where it was: neither what was erased comes again, nor anything else.
    catch_up(&topics, folder.path(), &[]);
    assert_eq!(rows(folder.path()), left);

    let id = left[0].text("transaction_id");
    let output = erase(folder.path(), &["--dry-run", "--id", id]);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("1 rows would be erased; 1 of "), "{output:?}");
    assert_eq!(rows(folder.path()), left);
    for (to, arguments, words) in [
        ("nowhere", ["--id", id].as_slice(), "there is no such folder"),
        (".", &[], "there is no id"),
        ("empty", &["--id", id], "there is no file of an archive"),
    ] {
        fs::create_dir_all(folder.path().join("empty")).unwrap();
        let output = erase(&folder.path().join(to), arguments);
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(64) && log.contains(words), "{words}: {log}");
    }
    fs::write(folder.path().join("broken.parquet"), "no Parquet").unwrap();
    let output = erase(folder.path(), &["--id", id]);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && log.contains("file=\"broken.parquet\""), "{log}");
    fs::remove_file(folder.path().join("broken.parquet")).unwrap();
    assert_eq!(rows(folder.path()), left[1..]);
}

#[test]
fn a_person_is_removed_from_a_bucket() {
    let topics = scored(1, 200, &[]);
    let mut store = S3::down();
    store.up();
    let mut command = archive(&topics, "s3://lake/fraud/verdicts/");
    command.envs(store.environment()).args(["--until-caught-up", "--file-rows", "100"]);
    assert_eq!(finish(command, LIMIT).status.code(), Some(0));
    let read = || -> Vec<_> { store.keys().iter().flat_map(|key| rows_of(key, store.object(key))).collect() };
    let before = read();
    let mut command = scorer();
    command.envs(store.environment()).args(["archive", "erase", "--to", "s3://lake/fraud/verdicts/"]);
    command.args(["--id", before[150].text("transaction_id")]);
    let output = finish(command, LIMIT);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let mut left = before;
    left.remove(150);
    assert_eq!(read(), left);
}

#[test]
fn what_cannot_work_is_refused_with_what_to_do() {
    let topics = Topics::create(shared(), 1);
    let folder = tempfile::tempdir().unwrap();
    let occupied = folder.path().join("file");
    fs::write(&occupied, "not a folder").unwrap();
    let refused = |command: Command, code: i32, words: &str| {
        let output = finish(command, LIMIT);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && log.contains(words), "{:?} {words}: {log}", output.status);
    };
    refused(archive(&topics, &occupied), 64, "cannot write to --to");
    let mut command = archive(&topics, folder.path());
    command.args(["--output-topic", "nowhere"]);
    refused(command, 64, "topic nowhere does not exist");
    let mut command = archive(&topics, folder.path());
    command.args(["--output-topic", &topics.input]);
    refused(command, 64, "are different topics");
    let mut command = archive(&topics, folder.path());
    command.args(["--model", "/nowhere"]);
    refused(command, 64, "--model /nowhere");
    let mut command = archive(&topics, folder.path());
    command.args(["--spool", "/nowhere"]);
    refused(command, 64, "--spool /nowhere");
    refused(
        {
            let mut command = scorer();
            command.arg("archive");
            command
        },
        2,
        "--to <LOCATION>",
    );
    refused(archive(&topics, "gs://bucket"), 2, "expected a folder or s3://bucket/prefix");
}

#[test]
fn a_bucket_is_waited_for_and_then_filled_like_a_folder() {
    const ROWS: usize = 6_000;
    let topics = scored(2, ROWS, &[]);
    let mut store = S3::down();
    let mut command = archive(&topics, "s3://lake/fraud/verdicts/");
    command.envs(store.environment()).args(["--until-caught-up", "--file-rows", "1500"]);
    let mut archiver = Running::start(command);
    archiver.wait_for_log("waiting for the destination", LIMIT);
    let (status, reasons) = archiver.get("/readyz");
    assert!(status == 503 && reasons.contains("destination: "), "{reasons}");
    store.up();
    let output = archiver.finish(LIMIT);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(0) && !log.contains("not-in-any-log"), "{log}");

    let keys = store.keys();
    assert!(keys.len() >= 4 && keys.iter().all(|key| key.starts_with("fraud/verdicts/date=2026-0")), "{keys:?}");
    let archived: Vec<_> = keys.iter().flat_map(|key| rows_of(key, store.object(key))).collect();
    assert_complete(&topics, &archived, NONE_MISSING);
    assert_eq!(archived.len(), ROWS);

    let mut elsewhere = archive(&topics, "s3://no-such-bucket/verdicts");
    elsewhere.envs(store.environment());
    let output = finish(elsewhere, LIMIT);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && log.contains("cannot write to --to s3://no-such-bucket"), "{log}");
}
