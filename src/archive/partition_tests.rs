#![allow(clippy::unwrap_used)]

use std::time::Duration;

use fraud_wire::verdict::{Decision, ModelVersion, Source, Verdict};

use super::super::verdicts::NotAVerdict;
use super::*;

const HOUR: i64 = 3_600_000;

fn verdict(offset: i64, event_time: i64) -> VerdictRecord {
    let content = Ok(Verdict {
        transaction_id: offset.to_string(),
        score: 0.5,
        decision: Decision::Review,
        label: 0,
        model: ModelVersion { name: "fraud".to_owned(), version: "1".to_owned() },
        event_time,
        source: Source { topic: "transactions".to_owned(), partition: 0, offset, row: 0 },
    });
    VerdictRecord { partition: 0, offset, timestamp: offset, content }
}

/// A partition whose cut is planned, by whoever did not say its rows.
fn planned(next: i64, until: i64) -> Partition {
    Partition::new(0, next, Some((Plan { until, rows: None }, Finished::default())), 0)
}

/// First and next offset of a cut, and its hours with the rows of each.
type Shown = (i64, i64, Vec<(i64, u64)>);

/// Adds verdicts in turn and gives the cuts that were closed meanwhile: first and next offset, hours with the rows of
/// each.
fn cuts(partition: &mut Partition, rows: u64, verdicts: &[VerdictRecord]) -> Vec<Shown> {
    let layout = Layout::new(&["V1".to_owned()]).unwrap();
    let policy = CutPolicy { rows, time: Duration::from_secs(3600), files: 3 };
    let around = Surroundings { layout: &layout, policy: &policy, spool: Path::new("/nowhere") };
    let mut cuts = Vec::new();
    for record in verdicts {
        partition.add(record, Ok(&[1.0]), &around).unwrap();
        cuts.extend(partition.take_sealed());
    }
    let shown = |cut: SealedCut| {
        let files = cut.files.iter().map(|(&hour, file)| (hour, file.rows)).collect();
        (cut.first, cut.next, files)
    };
    cuts.into_iter().map(shown).collect()
}

#[test]
fn a_cut_has_a_file_per_hour_and_ends_at_its_rows() {
    let mut partition = Partition::new(0, 0, None, 0);
    let verdicts: Vec<_> = [(5, 0), (6, HOUR), (9, 1), (10, 2)].map(|(offset, time)| verdict(offset, time)).into();
    assert_eq!(cuts(&mut partition, 3, &verdicts), [(5, 10, vec![(0, 2), (1, 1)])]);
    assert!(!partition.is_empty());
    partition.seal_for_the_end();
    let rest = partition.take_sealed().unwrap();
    assert_eq!((rest.first, rest.next, rest.is_planned), (10, 11, false));
    assert!(partition.is_empty());
}

#[test]
fn a_planned_cut_is_done_again_exactly_whatever_the_policy_says_now() {
    let verdicts: Vec<_> = [5, 6, 9, 10, 12].map(|offset| verdict(offset, 0)).into();
    let mut partition = planned(5, 11);
    assert_eq!(cuts(&mut partition, 2, &verdicts), [(5, 11, vec![(0, 4)])]);
    // Not yet read to its end, it is nobody's to send.
    let mut partition = planned(5, 11);
    assert_eq!(cuts(&mut partition, 2, &verdicts[..3]), []);
    partition.seal_for_the_end();
    assert!(partition.take_sealed().is_none() && partition.is_empty());
    // The record at 10 is gone: the cut still ends before 12.
    let without: Vec<_> = [5, 6, 9, 12].map(|offset| verdict(offset, 0)).into();
    let mut partition = planned(5, 11);
    assert_eq!(cuts(&mut partition, 100, &without), [(5, 11, vec![(0, 3)])]);
    // And where nothing comes behind it, the partition's end tells.
    let mut partition = planned(5, 11);
    assert_eq!(cuts(&mut partition, 100, &without[..3]), []);
    partition.end = Some(11);
    partition.seal_if_due(&CutPolicy { rows: 100, time: Duration::MAX, files: 3 }, Some((0, false)));
    assert!(partition.take_sealed().is_none(), "verdicts before the end wait for their inputs");
    partition.seal_if_due(&CutPolicy { rows: 100, time: Duration::MAX, files: 3 }, Some((0, true)));
    let cut = partition.take_sealed().unwrap();
    assert_eq!((cut.first, cut.next, cut.is_planned), (5, 11, true));
}

#[test]
fn a_planned_cut_that_lost_its_beginning_leaves_finished_files_and_knows_what_is_gone() {
    let finished = Finished { folders: [cut::folder(0)].into(), rows: 2 };
    let plan = Plan { until: 11, rows: Some(5) };
    let mut partition = Partition::new(0, 5, Some((plan, finished)), 0);
    // Of the offsets 5 to 8 nothing is left: two rows of hour 0, which are archived, and one of hour 1, which is not.
    let left: Vec<_> = [(9, 1), (10, HOUR), (12, 0)].map(|(offset, time)| verdict(offset, time)).into();
    let layout = Layout::new(&["V1".to_owned()]).unwrap();
    let policy = CutPolicy { rows: 100, time: Duration::MAX, files: 3 };
    let around = Surroundings { layout: &layout, policy: &policy, spool: Path::new("/nowhere") };
    left.iter().for_each(|record| partition.add(record, Ok(&[1.0]), &around).unwrap());
    let cut = partition.take_sealed().unwrap();
    assert_eq!((cut.first, cut.next, cut.rows, cut.tally.lost), (9, 11, 3, 2));
    assert_eq!(cut.files.keys().copied().collect::<Vec<_>>(), [1]);
}

#[test]
fn what_is_no_verdict_is_counted_and_passed() {
    let mut partition = Partition::new(0, 0, None, 0);
    let refused = NotAVerdict { reason: Reason::Malformed, message: String::new() };
    let bad = VerdictRecord { partition: 0, offset: 1, timestamp: 1, content: Err(refused) };
    let verdicts = [verdict(0, 0), bad, verdict(2, 0)];
    let layout = Layout::new(&["V1".to_owned()]).unwrap();
    let policy = CutPolicy { rows: 3, time: Duration::from_secs(3600), files: 3 };
    let around = Surroundings { layout: &layout, policy: &policy, spool: Path::new("/nowhere") };
    for (record, features) in verdicts.iter().zip([Ok([1.0].as_slice()), Ok(&[]), Err(Missing::Gone)]) {
        partition.add(record, features, &around).unwrap();
    }
    let cut = partition.take_sealed().unwrap();
    assert_eq!((cut.first, cut.next, cut.files[&0].rows), (0, 3, 2));
    assert_eq!((cut.tally.found, cut.tally.missing, cut.tally.skipped), (1, [1, 0, 0, 0], [0, 1, 0]));
}

#[test]
fn event_times_all_over_the_calendar_do_not_keep_files_open() {
    let mut partition = Partition::new(0, 0, None, 0);
    let verdicts: Vec<_> = (0..7).map(|offset| verdict(offset, offset * HOUR)).collect();
    let cuts = cuts(&mut partition, 100, &verdicts);
    assert_eq!(cuts.iter().map(|(first, next, _)| (*first, *next)).collect::<Vec<_>>(), [(0, 3), (3, 6)]);
}
