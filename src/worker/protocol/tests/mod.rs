//! The protocol in every interleaving of a small cluster: breadth first, so that what goes wrong is shown by the shortest way
//! there.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

mod cluster;

use self::cluster::{Action, Around, Cluster, Scenario};
use super::{Effect, Event, Failed, Protocol};
use crate::kafka::position::{Next, Offsets};
use crate::transaction::Guarantee;
use crate::transaction::rules::Rule;
use crate::worker::positions::Run;

const EXACTLY_ONCE: Scenario = Scenario {
    name: "exactly once: partitions move",
    guarantee: Guarantee::ExactlyOnce,
    records: &[2],
    is_group_new: false,
    moves: 1,
    crashes: 0,
    faults: 0,
    timeouts: 0,
    refused: None,
    is_partition_missing: false,
    is_recreated: false,
    is_start_moved: false,
    is_cut_short: false,
    is_stale_delivered: false,
    is_stopped: false,
    without: None,
    without_around: None,
};

/// The small ones first: most of what goes wrong without a rule is found there.
const SCENARIOS: [Scenario; 18] = [
    Scenario { name: "exactly once: answers are lost, calls fail", moves: 0, faults: 3, ..EXACTLY_ONCE },
    Scenario { name: "exactly once: a transaction times out", moves: 0, timeouts: 1, records: &[3], ..EXACTLY_ONCE },
    Scenario { name: "exactly once: a refused message", moves: 0, faults: 1, refused: Some(1), ..EXACTLY_ONCE },
    Scenario {
        name: "exactly once: the output lacks a partition",
        records: &[2, 1],
        moves: 0,
        is_partition_missing: true,
        ..EXACTLY_ONCE
    },
    Scenario { name: "exactly once: the topic is made again", moves: 0, faults: 1, is_recreated: true, ..EXACTLY_ONCE },
    Scenario {
        name: "exactly once: retention, and a record delivered twice",
        moves: 0,
        faults: 1,
        is_start_moved: true,
        is_stale_delivered: true,
        ..EXACTLY_ONCE
    },
    Scenario { name: "exactly once: a log is cut short", moves: 0, faults: 1, is_cut_short: true, ..EXACTLY_ONCE },
    Scenario { name: "exactly once: a drain", moves: 0, faults: 1, is_stopped: true, ..EXACTLY_ONCE },
    AT_LEAST_ONCE,
    Scenario { name: "at least once: a log is cut short", moves: 0, is_cut_short: true, ..AT_LEAST_ONCE },
    Scenario { name: "at least once: a drain", moves: 0, faults: 2, is_stopped: true, ..AT_LEAST_ONCE },
    Scenario {
        name: "exactly once: a refused message while partitions move",
        records: &[1],
        refused: Some(0),
        ..EXACTLY_ONCE
    },
    Scenario { name: "exactly once: a new group", records: &[1], is_group_new: true, ..EXACTLY_ONCE },
    Scenario {
        name: "exactly once: an answer is lost while partitions move",
        faults: 1,
        records: &[1],
        ..EXACTLY_ONCE
    },
    EXACTLY_ONCE,
    Scenario { name: "exactly once: a worker crashes", crashes: 1, ..EXACTLY_ONCE },
    Scenario {
        name: "exactly once: the topic is made again while partitions move",
        records: &[1],
        is_recreated: true,
        ..EXACTLY_ONCE
    },
    Scenario {
        name: "exactly once: a log is cut short while partitions move",
        records: &[1],
        is_cut_short: true,
        ..EXACTLY_ONCE
    },
];

const AT_LEAST_ONCE: Scenario =
    Scenario { name: "at least once: partitions move", guarantee: Guarantee::AtLeastOnce, faults: 1, ..EXACTLY_ONCE };

/// More states than any scenario has: one that needs them must be made smaller.
const MOST_STATES: usize = 1_500_000;

/// A state that was seen: how it was reached.
type Seen = HashMap<u64, (u64, Action)>;

/// What came of a search.
struct Found {
    states: usize,
    violation: Option<(String, Vec<String>)>,
}

fn hash(state: &Cluster) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// The way to a state, one action after the other: which worker, what, and at which offset.
fn way(seen: &Seen, mut state: u64) -> Vec<String> {
    let mut actions = Vec::new();
    while let Some((before, (worker, action, offset))) = seen.get(&state).filter(|(before, _)| *before != state) {
        actions.push(format!("{worker} {action} {offset}"));
        state = *before;
    }
    actions.reverse();
    actions
}

/// Visits every state; ends at the first that must not be.
fn search(scenario: &Scenario) -> Found {
    let first = Cluster::new(scenario);
    let mut seen = Seen::from([(hash(&first), (hash(&first), (2, "", 0)))]);
    let (mut frontier, mut next) = (vec![(hash(&first), first)], Vec::new());
    let mut successors = Vec::new();
    while !frontier.is_empty() {
        assert!(seen.len() < MOST_STATES, "{}: too many states", scenario.name);
        for (before, state) in frontier.drain(..) {
            state.successors(scenario, &mut successors);
            if successors.is_empty()
                && let Some(violation) = state.check_end(scenario)
            {
                return Found { states: seen.len(), violation: Some((violation, way(&seen, before))) };
            }
            for (action, state) in successors.drain(..) {
                let hash = hash(&state);
                if seen.contains_key(&hash) {
                    continue;
                }
                seen.insert(hash, (before, action));
                if let Some(violation) = &state.violation {
                    return Found { states: seen.len(), violation: Some((violation.clone(), way(&seen, hash))) };
                }
                next.push((hash, state));
            }
        }
        std::mem::swap(&mut frontier, &mut next);
    }
    Found { states: seen.len(), violation: None }
}

#[test]
fn no_interleaving_loses_doubles_reorders_or_stands_still() {
    for scenario in SCENARIOS {
        let began = Instant::now();
        let Found { states, violation } = search(&scenario);
        println!("{}: {states} states, {:.1} s", scenario.name, began.elapsed().as_secs_f64());
        if let Some((violation, way)) = violation {
            panic!("{}: {violation}, after {}", scenario.name, way.join(" | "));
        }
        assert!(states > 100, "{}: only {states} states", scenario.name);
    }
}

/// A rule that is taken away is missed in some scenario.
fn assert_missed(without: impl Fn(Scenario) -> Scenario, name: &str) {
    let found = SCENARIOS.into_iter().find_map(|scenario| {
        let found = search(&without(scenario)).violation?;
        Some((scenario.name, found.0, found.1.len()))
    });
    println!("without {name}: {found:?}");
    assert!(found.is_some(), "nothing goes wrong without {name}");
}

#[test]
fn each_rule_of_the_protocol_is_needed() {
    for rule in [
        Rule::SettledBeforeSubmit,
        Rule::FailuresAfterDeliveries,
        Rule::OneCommitAtATime,
        Rule::FailureTakesAll,
        Rule::CommitBeforeRelease,
        Rule::RewindToCommitted,
        Rule::NothingTwice,
        Rule::OffsetsOfThisTopic,
        Rule::EpochsAreCompared,
        Rule::LoopsAreNotReady,
        Rule::PartitionsStopAlone,
        Rule::DrainedMeansCommitted,
    ] {
        assert_missed(|scenario| Scenario { without: Some(rule), ..scenario }, &format!("{rule:?}"));
    }
}

#[test]
fn each_rule_around_it_is_needed() {
    for rule in [Around::GenerationIsChecked, Around::OffsetsAreStable, Around::LaterOffsetsWin] {
        assert_missed(|scenario| Scenario { without_around: Some(rule), ..scenario }, &format!("{rule:?}"));
    }
}

#[test]
fn a_thread_that_threw_work_away_twice_is_ready_again_when_nothing_is_left_to_read() {
    let next = |offset| Offsets::from([(0, Next::at(offset))]);
    for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
        let mut protocol = Protocol::new(guarantee);
        protocol.step(Event::Assigned(vec![0]));
        protocol.step(Event::Begun { partition: 0, next: Next::at(7), commit: false });
        protocol.step(Event::Failed(Failed::Work));
        assert!(protocol.step(Event::Failed(Failed::Work)).contains(&Effect::HoldReadiness));
        // Not before it is back.
        assert_eq!(protocol.step(Event::CaughtUp), []);
        protocol.step(Event::Rewound(&next(7)));
        // Nor with work that may be thrown away once more.
        protocol.step(Event::BatchBegins);
        protocol.positions_mut().read(&Run::of(0, 7, 0));
        protocol.step(Event::Queued(&next(8)));
        assert_eq!(protocol.step(Event::CaughtUp), []);
        assert!(protocol.step(Event::Failed(Failed::Work)).contains(&Effect::HoldReadiness));
        protocol.step(Event::Rewound(&next(7)));
        assert_eq!(protocol.step(Event::CaughtUp), []);
        // What was thrown away is gone from the log.
        protocol.step(Event::Begun { partition: 0, next: Next::at(8), commit: false });
        assert_eq!(protocol.step(Event::CaughtUp), [Effect::ClearReadiness]);
    }
}
