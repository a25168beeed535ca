//! Watches that a worker gets on: one that has records to score and commits none is not ready, whatever keeps it.
//!
//! ```text
//!  threads ─► Progress ─┐
//!  brokers ─► ends of ──┴─► Watch: which partition stands still? ─► readiness
//!             partitions at rest
//! ```
//!
//! The causes that a thread knows of are said by itself: a partition that is left alone, work that is thrown away, output that
//! stands still. This sees what no thread can say: that it is held in a call, that a broker does not answer it or holds its
//! answers back, that librdkafka does not read on. So it has a client of its own and asks the brokers itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use crate::kafka::look::Look;
use crate::kafka::progress::{Done, NOT_BEGUN, Progress};
use crate::shutdown::Shutdown;
use crate::telemetry::readiness::Readiness;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long a partition may stand still.
const STANDSTILL: Duration = Duration::from_secs(2);

/// For how long a partition that was given away may come back where it was, as if it had not been away.
const AWAY: Duration = Duration::from_secs(10);

/// How long an answer of the brokers is waited for, and how long they may owe one.
const ANSWER: Duration = Duration::from_millis(1_500);
const OWED: Duration = Duration::from_secs(1);

/// How long a member may read nothing, though its brokers answer another client, until it gets a new client; doubled with each
/// one until something is committed.
///
/// librdkafka 2.12 may end up without brokers, or with partitions that no broker's thread reads, for ever: after an answer
/// that names no broker at all, as when a pause of the controller has fenced all of them (confluentinc/librdkafka#5301).
const STUCK: Duration = Duration::from_secs(10);
const MOST_DOUBLINGS: u32 = 5;

/// That a thread does not get on.
#[derive(Debug, PartialEq, Eq)]
struct Standstill {
    reason: String,
    /// Another client may get on.
    is_stuck: bool,
}

/// Where a partition was first seen to have more records than were committed.
#[derive(Debug)]
struct Behind {
    since: Instant,
    /// Where it began or was committed then.
    committed: i64,
    /// Since when it is not read, as between two assignments.
    away: Option<Instant>,
    commits: u64,
    emptied: u64,
}

impl Behind {
    /// Whether nothing has come of it: it is where it was, away for a while, or has begun meanwhile.
    fn stands(&mut self, committed: Option<i64>, end: Option<i64>, now: Instant) -> bool {
        let Some(committed) = committed else {
            return now.duration_since(*self.away.get_or_insert(now)) < AWAY;
        };
        self.away = None;
        if self.committed == NOT_BEGUN {
            self.committed = committed;
        }
        // Taken anew, it has not begun yet: where it was is not known to be left.
        committed == NOT_BEGUN || (committed == self.committed && end.is_some_and(|end| end > committed))
    }
}

/// What is known of one thread.
#[derive(Debug)]
struct Watch {
    limit: Duration,
    before: Done,
    behind: BTreeMap<i32, Behind>,
    /// Since when the brokers owe an answer.
    unanswered: Option<Instant>,
    /// Since when it was seen, again and again, that nothing was left of what was fetched; and when last.
    idle: Option<(Instant, Instant)>,
    /// Clients that it was given in vain.
    clients: u32,
    /// When it was given the last one, and its commits by then.
    renewed: Option<(Instant, u64)>,
}

impl Watch {
    /// `limit`: how long a partition that has records may stand still.
    fn new(limit: Duration) -> Watch {
        let (before, behind) = (Done::default(), BTreeMap::new());
        Watch { limit, before, behind, unanswered: None, idle: None, clients: 0, renewed: None }
    }

    /// Partitions of which nothing was committed since the look before, and those that were behind then: where their logs end
    /// is to be asked.
    fn at_rest(&mut self, done: &Done, now: Instant) -> Vec<i32> {
        let rests = |(partition, offset): &(&i32, &i64)| {
            self.before.committed.get(partition) == Some(offset) || self.behind.contains_key(partition)
        };
        let at_rest = done.committed.iter().filter(rests).map(|(partition, _)| *partition).collect();
        // Questions to brokers take their time, too.
        self.idle = self.idle.filter(|(_, last)| now.duration_since(*last) <= 2 * STANDSTILL);
        if done.emptied > self.before.emptied {
            self.idle = Some((self.idle.map_or(now, |(since, _)| since), now));
        }
        self.before.clone_from(done);
        at_rest
    }

    /// Why the thread is not ready, where it is not. `ends`: where the logs of partitions at rest end, or why that is not known;
    /// `asked`: when that was asked, `now`: when the answer came.
    fn look(
        &mut self,
        done: &Done,
        ends: Result<BTreeMap<i32, i64>, String>,
        asked: Instant,
        now: Instant,
    ) -> Option<Standstill> {
        let ends = match ends {
            Ok(ends) => ends,
            Err(error) => {
                let since = *self.unanswered.get_or_insert(asked);
                let partitions: Vec<i32> = done.committed.keys().copied().collect();
                return (now.duration_since(since) >= OWED).then(|| Standstill {
                    reason: format!("a broker of partitions {partitions:?} does not answer: {error}"),
                    is_stuck: false,
                });
            }
        };
        self.unanswered = None;
        self.behind.retain(|partition, behind| {
            behind.stands(done.committed.get(partition).copied(), ends.get(partition).copied(), asked)
        });
        for (&partition, &end) in &ends {
            let Some(&committed) = done.committed.get(&partition).filter(|committed| end > **committed) else {
                continue;
            };
            let Done { commits, emptied, .. } = *done;
            let behind = Behind { since: asked, committed, away: None, commits, emptied };
            self.behind.entry(partition).or_insert(behind);
        }
        // A thread that has always something to do, and commits, comes to every partition in turn.
        let stands_still = |behind: &Behind| {
            behind.away.is_none()
                && now.duration_since(behind.since) >= self.limit
                && (done.emptied > behind.emptied || done.commits == behind.commits)
        };
        let (partition, behind) = self.behind.iter().find(|(_, behind)| stands_still(behind))?;
        let seconds = now.duration_since(behind.since).as_secs();
        let reason = match (done.committed.get(partition), ends.get(partition)) {
            (Some(&committed), Some(end)) if committed != NOT_BEGUN => format!(
                "partition {partition} stands still: its log ends at {end}, {committed} is committed for {seconds} s"
            ),
            _ => format!("partition {partition} has not begun for {seconds} s"),
        };
        if self.renewed.is_some_and(|(_, commits)| commits != done.commits) {
            (self.clients, self.renewed) = (0, None);
        }
        // A thread that is held in a call gets on by no other client.
        let renewed = self.renewed.map_or(behind.since, |(renewed, _)| renewed.max(behind.since));
        let since = self.idle.map(|(idle, _)| idle.max(renewed));
        let wait = STUCK * 2_u32.pow(self.clients);
        let is_stuck = since.is_some_and(|since| now.duration_since(since) >= wait);
        if is_stuck {
            self.clients = (self.clients + 1).min(MOST_DOUBLINGS);
            self.renewed = Some((now, done.commits));
        }
        Some(Standstill { reason, is_stuck })
    }
}

/// The watcher of a worker's threads.
pub struct Watcher {
    /// The topic they read.
    pub input_topic: String,
    /// Properties of a member.
    pub consumer: ClientConfig,
    /// Longest time between commits while there is work.
    pub commit_interval: Duration,
    /// What is said.
    pub readiness: Readiness,
    /// When to end.
    pub shutdown: Shutdown,
    /// The threads, by name.
    pub threads: Vec<(String, Progress)>,
}

impl Watcher {
    /// Looks until the worker is told to stop.
    pub fn run(self) {
        // A fetch waits so long for records to come.
        let fetch_wait =
            self.consumer.get("fetch.wait.max.ms").and_then(|wait| wait.trim().parse().ok()).unwrap_or(500);
        let limit = STANDSTILL + Duration::from_millis(fetch_wait) + self.commit_interval;
        let mut client = None;
        let mut watches: Vec<(Watch, bool)> = self.threads.iter().map(|_| (Watch::new(limit), false)).collect();
        while !self.shutdown.wait(INTERVAL) {
            let mut failed = None;
            for ((name, progress), (watch, is_held)) in self.threads.iter().zip(&mut watches) {
                let (done, asked) = (progress.done(), Instant::now());
                let at_rest = watch.at_rest(&done, asked);
                // What has failed for one thread is not waited for once more for each of the others.
                let ends = match &failed {
                    _ if at_rest.is_empty() => Ok(BTreeMap::new()),
                    Some(error) => Err(String::clone(error)),
                    None => self.ends(&mut client, &at_rest),
                };
                failed = failed.or_else(|| ends.as_ref().err().cloned());
                let standstill = watch.look(&done, ends, asked, Instant::now());
                let name = format!("{name} progress");
                match &standstill {
                    Some(Standstill { reason, is_stuck }) => {
                        self.readiness.hold(&name, reason);
                        if *is_stuck {
                            progress.distrust(reason);
                        }
                    }
                    None if *is_held => self.readiness.clear(&name),
                    None => {}
                }
                *is_held = standstill.is_some();
            }
        }
    }

    /// Where the logs of partitions end.
    fn ends(&self, client: &mut Option<Look>, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, String> {
        let opened = match client.take() {
            Some(opened) => opened,
            None => Look::new(&self.consumer).map_err(|error| error.to_string())?,
        };
        let ends = opened.ends(&self.input_topic, partitions, ANSWER).map_err(|error| error.to_string())?;
        // One that failed is not asked again: it may hold on to the leaders of a topic that was made again.
        *client = Some(opened);
        Ok(ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(3);

    fn done(committed: &[(i32, i64)], commits: u64, emptied: u64) -> Done {
        Done { committed: committed.iter().copied().collect(), commits, emptied }
    }

    /// What a thread had done, and where the logs of partitions at rest end.
    type State<'a> = (Done, &'a [(i32, i64)]);

    /// Looks once a second, for as long as there are states.
    fn reasons(states: &[State<'_>]) -> Vec<Option<String>> {
        let (mut watch, began) = (Watch::new(LIMIT), Instant::now());
        let mut look = |second: usize, (done, ends): &State<'_>| {
            let now = began + Duration::from_secs(second as u64);
            let at_rest = watch.at_rest(done, now);
            let ends = ends.iter().copied().filter(|(partition, _)| at_rest.contains(partition)).collect();
            watch.look(done, Ok(ends), now, now).map(|standstill| standstill.reason)
        };
        states.iter().enumerate().map(|(second, state)| look(second, state)).collect()
    }

    #[test]
    fn a_partition_that_has_records_and_stands_still_is_named() {
        let states: Vec<State<'_>> =
            (0..5).map(|second| (done(&[(0, 10), (1, second as i64)], second, second), &[(0, 12)][..])).collect();
        let reasons = reasons(&states);
        assert_eq!(reasons[..4], [None, None, None, None]);
        let reason = "partition 0 stands still: its log ends at 12, 10 is committed for 3 s";
        assert_eq!(reasons[4].as_deref(), Some(reason));
    }

    #[test]
    fn one_that_has_not_begun_is_named_too() {
        let states: Vec<State<'_>> = (0..5).map(|second| (done(&[(0, NOT_BEGUN)], 0, second), &[(0, 0)][..])).collect();
        assert_eq!(reasons(&states)[4].as_deref(), Some("partition 0 has not begun for 3 s"));
    }

    #[test]
    fn one_that_is_taken_anew_and_comes_to_nothing_has_stood_still_all_the_time() {
        let rest = |second: u64| (done(&[(0, 10)], 0, second), &[(0, 12)][..]);
        let away = |second: u64| (done(&[], 0, second), &[][..]);
        let new = |second: u64| (done(&[(0, NOT_BEGUN)], 0, second), &[(0, 12)][..]);
        let said = |states: &[State<'_>]| reasons(states).pop().flatten();
        let begun = "partition 0 stands still: its log ends at 12, 10 is committed for 4 s";
        assert_eq!(said(&[rest(0), rest(1), away(2), new(3), rest(4), rest(5)]).as_deref(), Some(begun));
        let anew = "partition 0 has not begun for 4 s";
        assert_eq!(said(&[rest(0), rest(1), away(2), away(3), new(4), new(5)]).as_deref(), Some(anew));
        // Not while it is away, and not if it got on meanwhile.
        assert_eq!(said(&[rest(0), rest(1), away(2), away(3), away(4), away(5)]), None);
        let on: State<'_> = (done(&[(0, 11)], 1, 5), &[(0, 12)]);
        assert_eq!(said(&[rest(0), rest(1), away(2), new(3), new(4), on]), None);
    }

    #[test]
    fn a_partition_at_its_end_may_rest_for_ever_and_one_record_after_it_is_no_standstill() {
        let mut states: Vec<State<'_>> = vec![(done(&[(0, 10)], 7, 7), &[(0, 10)]); 20];
        states.extend(vec![(done(&[(0, 10)], 7, 8), &[(0, 11)][..]); 3]);
        states.extend(vec![(done(&[(0, 11)], 8, 9), &[(0, 11)][..]); 3]);
        assert!(reasons(&states).iter().all(Option::is_none));
    }

    #[test]
    fn a_thread_that_is_busy_comes_to_every_partition_in_turn() {
        let states: Vec<State<'_>> =
            (0..20).map(|second| (done(&[(0, 10), (1, second as i64)], second, 5), &[(0, 12)][..])).collect();
        assert!(reasons(&states).iter().all(Option::is_none));
        // Unless it commits nothing at all.
        let states: Vec<State<'_>> = vec![(done(&[(0, 10)], 4, 5), &[(0, 12)]); 20];
        assert!(reasons(&states)[4].is_some());
    }

    #[test]
    fn a_member_that_reads_nothing_gets_another_client_ever_more_seldom() {
        let (mut watch, began) = (Watch::new(LIMIT), Instant::now());
        let mut stuck_at = |committed: i64, commits: u64, from: u64, to: u64| -> Vec<u64> {
            let is_stuck = |second: &u64| {
                // A new client finds nothing fetched, too.
                let (done, now) = (done(&[(0, committed)], commits, *second), began + Duration::from_secs(*second));
                let ends = watch.at_rest(&done, now).into_iter().map(|partition| (partition, 12)).collect();
                watch.look(&done, Ok(ends), now, now).is_some_and(|standstill| standstill.is_stuck)
            };
            (from..to).filter(is_stuck).collect()
        };
        assert_eq!(stuck_at(10, 5, 0, 100), [11, 31, 71]);
        // It got on, and stands still once more.
        assert_eq!(stuck_at(11, 6, 100, 125), [110]);
    }

    #[test]
    fn brokers_that_do_not_answer_are_named() {
        let (mut watch, began) = (Watch::new(LIMIT), Instant::now());
        let done = done(&[(3, 10)], 0, 0);
        let after = |seconds| began + Duration::from_secs(seconds);
        let soon = began + Duration::from_millis(300);
        assert_eq!(watch.look(&done, Err("away".into()), after(0), soon), None);
        let standstill = watch.look(&done, Err("timed out".into()), soon, after(2));
        let reason = "a broker of partitions [3] does not answer: timed out".into();
        assert_eq!(standstill, Some(Standstill { reason, is_stuck: false }));
        assert_eq!(watch.look(&done, Ok(BTreeMap::new()), after(3), after(3)), None);
        assert_eq!(watch.look(&done, Err("away".into()), after(4), after(4)), None);
    }
}
