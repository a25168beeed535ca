//! What is wrong with the chains on a topic: pure, record by record, in the order of the log.
//!
//! ```text
//!  record ─► one event of JSON? ─► its chain: next in sequence? names the hash before? ─► an anchor? is that record still so?
//!    └─► next offset? (a hole: something was removed)                                          └─► Report, per chain
//! ```
//!
//! A topic whose log starts above 0 has lost its beginning, by retention or by request: a chain that begins in the middle is
//! then no fault, but said. Everywhere else something that is missing is one.

use std::collections::HashMap;

use super::event::{Anchor, Event, MAX_EVENT_BYTES, NO_HASH};
use crate::digest::sha256;

/// Faults that are listed; more are counted.
const MOST_LISTED: usize = 1000;

/// Reads a topic's records and remembers what they promise of each other.
#[derive(Debug, Default)]
pub struct Verifier {
    /// Hash of each record, by partition and offset: some 150 bytes each, for a topic of few records.
    hashes: HashMap<(i32, i64), String>,
    /// Where the log of a partition starts, and the next offset.
    logs: HashMap<i32, (i64, i64)>,
    chains: HashMap<String, ChainReport>,
    report: Report,
}

/// What is known of a chain.
#[derive(Clone, Debug)]
pub struct ChainReport {
    /// The worker.
    pub instance: String,
    /// The process.
    pub chain: String,
    /// Events on the topic.
    pub events: u64,
    /// Sequence and time of the first.
    pub first: (u64, String),
    /// Sequence and time of the last.
    pub last: (u64, String),
    /// Faults, those that are not listed included.
    pub faults: usize,
    /// What is no fault, but to be known.
    pub note: Option<String>,
    is_anchored: bool,
    last_hash: String,
}

/// The outcome.
#[derive(Debug, Default)]
pub struct Report {
    /// The chains, in the order of their first events.
    pub chains: Vec<ChainReport>,
    /// What is wrong, each with its place; the first thousand.
    pub listed: Vec<String>,
    /// How much is wrong.
    pub faults: usize,
    /// Records.
    pub records: u64,
}

impl Verifier {
    /// A partition whose log starts at `start`; its records follow.
    pub fn begin(&mut self, partition: i32, start: i64) {
        self.logs.insert(partition, (start, start));
    }

    /// The next record of a partition.
    pub fn look(&mut self, partition: i32, offset: i64, value: &[u8]) {
        self.report.records += 1;
        self.pass_over(partition, offset);
        let place = format!("partition {partition} offset {offset}");
        let hash = sha256(value);
        let event = match value.len() {
            ..=MAX_EVENT_BYTES => serde_json::from_slice::<Event>(value).map_err(|error| error.to_string()),
            length => Err(format!("{length} bytes, of which an event has {MAX_EVENT_BYTES} at most")),
        };
        match event {
            Ok(event) => self.follow(event, partition, offset, &place, hash.clone()),
            Err(reason) => self.report.fault(format!("{place}: no audit event: {reason}")),
        }
        self.hashes.insert((partition, offset), hash);
    }

    /// No more records of a partition, whose log ends at `end`.
    pub fn end(&mut self, partition: i32, end: i64) {
        self.pass_over(partition, end);
    }

    /// All was read.
    pub fn finish(mut self) -> Report {
        let mut chains: Vec<ChainReport> = self.chains.into_values().collect();
        chains.sort_by(|left, right| (&left.first.1, &left.chain).cmp(&(&right.first.1, &right.chain)));
        for chain in chains.iter_mut().filter(|chain| !chain.is_anchored && chain.first.0 == 0) {
            chain.faults += 1;
            self.report.fault(format!(
                "chain {}: no anchor: the event is missing, or the process was killed in its first moment",
                chain.chain
            ));
        }
        Report { chains, ..self.report }
    }

    /// What lies between the record before and `offset`.
    fn pass_over(&mut self, partition: i32, offset: i64) {
        let (_, next) = self.logs.entry(partition).or_insert((offset, offset));
        let hole = (*next < offset).then_some((*next, offset - 1));
        *next = offset + 1;
        if let Some((from, to)) = hole {
            self.report.fault(format!(
                "partition {partition}: nothing stands from offset {from} to {to}: removed, or not written by a worker"
            ));
        }
    }

    fn follow(&mut self, event: Event, partition: i32, offset: i64, place: &str, hash: String) {
        let start = self.logs.get(&partition).map_or(0, |(start, _)| *start);
        let mut faults = Vec::new();
        let chain = self.chains.entry(event.chain.clone()).or_insert_with(|| {
            let note = (event.sequence > 0 && start > 0).then(|| {
                format!(
                    "begins at sequence {}: earlier events are no longer on the topic, whose log starts at offset {start}",
                    event.sequence
                )
            });
            if event.sequence > 0 && note.is_none() {
                faults.push(format!("begins at sequence {}: what was before is missing", event.sequence));
            }
            if event.sequence == 0 && event.previous != NO_HASH {
                faults.push("the first event names one before it".to_owned());
            }
            let first = (event.sequence, event.time.clone());
            ChainReport {
                instance: event.instance.clone(),
                chain: event.chain.clone(),
                events: 0,
                last: first.clone(),
                first,
                faults: 0,
                note,
                is_anchored: false,
                last_hash: String::new(),
            }
        });
        let next = chain.last.0.saturating_add(u64::from(chain.events > 0));
        if chain.instance != event.instance {
            faults.push(format!("is of instance {:?}, its chain of {:?}", event.instance, chain.instance));
        }
        if event.sequence < next {
            faults.push(format!("sequence {} after {}: doubled, or out of order", event.sequence, chain.last.0));
        } else {
            match event.sequence - next {
                0 if chain.events > 0 && event.previous != chain.last_hash => {
                    faults.push(format!("does not name the hash of sequence {}: one was changed", chain.last.0));
                }
                0 => {}
                1 => faults.push(format!("sequence {next} before it is missing")),
                _ => faults.push(format!("sequences {next} to {} before it are missing", event.sequence - 1)),
            }
            chain.last = (event.sequence, event.time);
            chain.last_hash = hash;
        }
        chain.events += 1;
        chain.is_anchored |= event.action == super::Action::Anchor;
        if let Some(anchor) = event.anchor {
            faults.extend(broken(&anchor, self.hashes.get(&(anchor.partition, anchor.offset)), &self.logs, offset));
        }
        chain.faults += faults.len();
        let name = format!("{place}, chain {} sequence {}", event.chain, event.sequence);
        for fault in faults {
            self.report.fault(format!("{name}: {fault}"));
        }
    }
}

/// What is wrong with an anchor of a record at `offset`.
fn broken(anchor: &Anchor, found: Option<&String>, logs: &HashMap<i32, (i64, i64)>, offset: i64) -> Option<String> {
    let Anchor { partition, offset: anchored, sha256 } = anchor;
    let what = format!("the anchor names offset {anchored} of partition {partition}");
    match found {
        Some(found) if found == sha256 => None,
        Some(_) => Some(format!("{what}, where another record stands now: it was changed, or records were removed")),
        // Gone with the log's beginning.
        None if logs.get(partition).is_some_and(|(start, _)| anchored < start) => None,
        None if *anchored >= offset => Some(format!("{what}, which comes after it: records were removed")),
        None => Some(format!("{what}, where nothing stands now: it was removed")),
    }
}

impl Report {
    fn fault(&mut self, text: String) {
        self.faults += 1;
        if self.listed.len() < MOST_LISTED {
            self.listed.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Chain;
    use super::super::{Action, Actor, Change, Outcome};
    use super::*;

    const CHANGE: Change<'_> = Change {
        action: Action::Swap,
        outcome: Outcome::Done,
        target: "mlflow:fraud@champion",
        before: Some("fraud@1"),
        after: Some("fraud@2"),
        reason: "a test",
    };

    /// Appends a process's events: a start, its anchor, `changes`, a stop.
    fn append(log: &mut Vec<Vec<u8>>, chain: &str, changes: usize) {
        let actor = Actor::process();
        let anchor =
            log.last().map(|value| Anchor { partition: 0, offset: log.len() as i64 - 1, sha256: sha256(value) });
        let mut chain = Chain::new("pod-0", chain.into());
        let mut seal = |action, anchor| {
            let change = Change { action, ..CHANGE };
            log.push(chain.seal(format!("2026-12-01T00:00:{:02}Z", log.len()), &actor, &change, anchor).bytes);
        };
        seal(Action::Start, None);
        seal(Action::Anchor, anchor);
        (0..changes).for_each(|_| seal(Action::Swap, None));
        seal(Action::Stop, None);
    }

    /// Three processes, one after the other.
    fn log() -> Vec<Vec<u8>> {
        let mut log = Vec::new();
        append(&mut log, "a", 3);
        append(&mut log, "b", 2);
        append(&mut log, "c", 0);
        log
    }

    /// Reads the values from offset `start` on, each at the next offset.
    fn verify(log: &[Vec<u8>], start: i64) -> Report {
        let mut verifier = Verifier::default();
        verifier.begin(0, start);
        for (index, value) in log.iter().enumerate() {
            verifier.look(0, start + index as i64, value);
        }
        verifier.end(0, start + log.len() as i64);
        verifier.finish()
    }

    #[test]
    fn what_is_whole_has_no_fault() {
        let report = verify(&log(), 0);
        assert_eq!((report.faults, report.listed.len(), report.records), (0, 0, 14));
        let chains: Vec<_> = report.chains.iter().map(|chain| (chain.chain.as_str(), chain.events)).collect();
        assert_eq!(chains, [("a", 6), ("b", 5), ("c", 3)]);
        assert_eq!((report.chains[1].first.0, report.chains[1].last.0), (0, 4));
    }

    /// Each record but the very last, which no other one knows yet.
    #[test]
    fn each_event_that_is_removed_is_missed() {
        for removed in 0..log().len() - 1 {
            let mut log = log();
            log.remove(removed);
            let report = verify(&log, 0);
            assert!(report.faults > 0, "{removed}: {report:?}");
            assert!(
                report.listed.iter().any(|fault| fault.contains("missing") || fault.contains("anchor")),
                "{report:?}"
            );
        }
    }

    #[test]
    fn each_event_that_is_removed_in_place_leaves_a_hole() {
        for removed in 0..log().len() {
            let mut verifier = Verifier::default();
            verifier.begin(0, 0);
            for (offset, value) in log().iter().enumerate().filter(|(offset, _)| *offset != removed) {
                verifier.look(0, offset as i64, value);
            }
            verifier.end(0, log().len() as i64);
            let hole = format!("nothing stands from offset {removed} to {removed}");
            assert!(verifier.finish().listed.iter().any(|fault| fault.contains(&hole)), "{removed}");
        }
    }

    #[test]
    fn each_event_that_is_changed_is_named_by_what_follows_it() {
        for changed in 0..log().len() - 1 {
            let mut log = log();
            let text = String::from_utf8(log[changed].clone()).expect("UTF-8").replace("a test", "a lie");
            log[changed] = text.into_bytes();
            let report = verify(&log, 0);
            let named = |fault: &String| fault.contains("was changed") || fault.contains("another record stands");
            assert!(report.listed.iter().any(named), "{changed}: {report:?}");
        }
    }

    #[test]
    fn each_event_that_is_doubled_is_named() {
        for doubled in 0..log().len() {
            let mut log = log();
            log.insert(doubled, log[doubled].clone());
            let report = verify(&log, 0);
            assert!(report.listed.iter().any(|fault| fault.contains("doubled")), "{doubled}: {report:?}");
        }
    }

    #[test]
    fn each_two_events_that_are_swapped_are_named() {
        for first in 0..log().len() - 1 {
            let mut log = log();
            log.swap(first, first + 1);
            assert!(verify(&log, 0).faults > 0, "{first}");
        }
    }

    #[test]
    fn a_whole_chain_that_is_removed_is_missed_by_the_anchor_of_a_later_one() {
        let whole = log();
        let without_b: Vec<_> = [&whole[..6], &whole[11..]].concat();
        let report = verify(&without_b, 0);
        assert_eq!(report.faults, 1, "{report:?}");
        assert!(report.listed[0].contains("chain c sequence 1: the anchor names offset 10"), "{report:?}");
    }

    #[test]
    fn chains_that_were_written_at_the_same_time_are_told_apart() {
        let actor = Actor::process();
        let (mut left, mut right) = (Chain::new("pod-0", "l".into()), Chain::new("pod-1", "r".into()));
        let mut log = Vec::new();
        for action in [Action::Start, Action::Anchor, Action::Swap, Action::Stop] {
            for chain in [&mut left, &mut right] {
                log.push(chain.seal(format!("{:02}", log.len()), &actor, &Change { action, ..CHANGE }, None).bytes);
            }
        }
        let report = verify(&log, 0);
        assert_eq!((report.faults, report.chains.len()), (0, 2), "{report:?}");
    }

    #[test]
    fn a_beginning_that_retention_cut_off_is_said_and_is_no_fault() {
        let report = verify(&log()[3..], 3);
        assert_eq!(report.faults, 0, "{report:?}");
        let note = report.chains[0].note.as_deref().expect("a note");
        assert!(note.contains("begins at sequence 3") && note.contains("starts at offset 3"), "{note}");
        // With the log's beginning there it is missing.
        let report = verify(&log()[3..], 0);
        assert!(report.listed[0].contains("begins at sequence 3: what was before is missing"), "{report:?}");
    }

    #[test]
    fn what_is_no_event_is_named_with_its_place_and_not_parsed_where_it_is_too_large() {
        let mut log = log();
        log.push(b"no JSON".to_vec());
        log.push(vec![b'['; MAX_EVENT_BYTES + 1]);
        let report = verify(&log, 0);
        assert_eq!(report.faults, 2, "{report:?}");
        assert!(report.listed[0].starts_with("partition 0 offset 14: no audit event"), "{report:?}");
        assert!(report.listed[1].contains("16385 bytes"), "{report:?}");
    }

    #[test]
    fn a_chain_without_its_anchor_and_one_of_two_instances_are_named() {
        let actor = Actor::process();
        let start = Change { action: Action::Start, ..CHANGE };
        let first = Chain::new("pod-0", "a".into()).seal("0".into(), &actor, &start, None);
        let mut other = Chain::new("pod-1", "a".into());
        other.seal("0".into(), &actor, &start, None);
        let second = other.seal("1".into(), &actor, &CHANGE, None);
        let report = verify(&[first.bytes, second.bytes], 0);
        let says = |text: &str| report.listed.iter().any(|fault| fault.contains(text));
        assert!(says("is of instance \"pod-1\"") && says("chain a: no anchor"), "{report:?}");
        assert_eq!(report.chains[0].faults, report.faults);
    }
}
