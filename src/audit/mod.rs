//! The audit: who changed what while the process ran, and who tried to. Each event is in the log and, with `--audit-topic`, on
//! a topic, chained so that one that is missing there is noticed ([0017](../../docs/adr/0017-audit-chain.md)).
//!
//! ```text
//!  model::exchange ─ record ─┐                            ┌─► log: `audit`
//!  http ───────────── denied ┴► Chain: numbered, hashed ──┴─► bounded queue ─► delivery (a thread) ─► --audit-topic
//!                                                                    fraud-scorer audit verify: Verifier ◄─┘
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`event`] | an event, its bytes, its hash, the chain: pure |
//! | [`denials`] | which denied tries are events of their own: pure |
//! | [`delivery`] | the thread that brings events to the topic |
//! | [`verify`] | what is wrong with a topic's chains: pure |
//!
//! A change waits for no topic: it takes a lock for a moment, and the queue is what waits.

pub mod delivery;
pub mod denials;
pub mod event;
pub mod verify;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::denials::Denials;
pub use self::event::{Action, Actor, Anchor, Change, Outcome};
use self::event::{Chain, Event};
use crate::log_events;
use crate::telemetry::catalogue::definitions::{AUDIT_DENIED, AUDIT_EVENTS, AUDIT_LOST, AUDIT_WAITING};

/// Events that wait for the topic, at most: hours of denied tries, and some 16 MiB if each is as large as can be.
const MOST_WAITING: usize = 1024;

/// Where changes are told; a handle to be cloned. [`Audit::default`] is one for processes without a worker.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// Something waits, or the end has come.
    changed: Condvar,
}

struct State {
    chain: Chain,
    denials: Denials,
    /// Events on their way to the topic, oldest first; `None` where there is no topic.
    waiting: Option<VecDeque<Vec<u8>>>,
    /// A thread brings them there.
    is_delivering: bool,
    /// Until when that thread may go on, once the process ends.
    deadline: Option<Instant>,
}

impl Default for Audit {
    fn default() -> Audit {
        Audit::new("", false)
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Audit")
    }
}

impl Audit {
    /// A chain that begins. `instance` is the worker's id; `has_topic`: events wait until [`Audit::deliver`] takes them.
    pub fn new(instance: &str, has_topic: bool) -> Audit {
        let state = State {
            chain: Chain::new(instance, uuid::Uuid::new_v4().to_string()),
            denials: Denials::default(),
            waiting: has_topic.then(VecDeque::new),
            is_delivering: false,
            deadline: None,
        };
        Audit { inner: Arc::new(Inner { state: Mutex::new(state), changed: Condvar::new() }) }
    }

    /// A change, or one that was refused.
    pub fn record(&self, actor: &Actor, change: &Change<'_>) {
        self.state().record(actor, change, None);
        self.inner.changed.notify_all();
    }

    /// A try to use `path` that was denied. The first is an event; further ones are told together.
    pub fn denied(&self, actor: &Actor, path: &str, reason: &str) {
        AUDIT_DENIED.counter(&[]).increment(1);
        let mut state = self.state();
        if state.denials.add(&actor.peer, Instant::now()) {
            state.record(actor, &denied(path, reason), None);
            self.inner.changed.notify_all();
        }
    }

    /// Tells of denied tries that had no event of their own, if it is time to; to be called now and then, and at the end.
    pub fn tell_denied(&self, is_end: bool) {
        let mut state = self.state();
        let Some(due) = state.denials.due(Instant::now(), is_end) else { return };
        let reason = format!("{} more tries were denied since the last such event", due.tries);
        state.record(&Actor::unknown(due.peers), &denied("HTTP", &reason), None);
        self.inner.changed.notify_all();
    }

    /// The process ends: waits up to `limit` until the topic has every event, and says how many it has not.
    pub fn close(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        state.deadline = Some(deadline);
        self.inner.changed.notify_all();
        while state.is_delivering && state.waiting() > 0 && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            state = self.inner.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let lost = state.waiting();
        if lost > 0 {
            AUDIT_LOST.counter(&[]).increment(lost as u64);
            log_events::audit::Lost { events: lost, reason: "the process ends" }.log();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn waiting(&self) -> usize {
        self.waiting.as_ref().map_or(0, VecDeque::len)
    }

    /// Under one lock, so that the order of the log and of the topic is the chain's.
    fn record(&mut self, actor: &Actor, change: &Change<'_>, anchor: Option<Anchor>) {
        let sealed = self.chain.seal(jiff::Timestamp::now().to_string(), actor, change, anchor);
        log(&sealed.event, &sealed.sha256);
        AUDIT_EVENTS.counter(&[change.outcome.as_str()]).increment(1);
        let is_lost = match &mut self.waiting {
            Some(waiting) if waiting.len() < MOST_WAITING => {
                waiting.push_back(sealed.bytes);
                false
            }
            Some(_) => true,
            None => false,
        };
        if is_lost {
            log_events::audit::Lost { events: 1, reason: "too many wait for the topic" }.log();
        }
        // Shown from the first event on, be they zero.
        AUDIT_DENIED.counter(&[]).increment(0);
        AUDIT_LOST.counter(&[]).increment(u64::from(is_lost));
        self.show_waiting();
    }

    fn show_waiting(&self) {
        AUDIT_WAITING.gauge(&[]).set(self.waiting() as f64);
    }
}

fn denied<'a>(path: &'a str, reason: &'a str) -> Change<'a> {
    let (action, outcome) = (Action::Access, Outcome::Denied);
    Change { action, outcome, target: path, before: None, after: None, reason }
}

fn log(event: &Event, sha256: &str) {
    log_events::audit::Audited {
        instance: &event.instance,
        chain: &event.chain,
        sequence: event.sequence,
        previous: &event.previous,
        sha256,
        time: &event.time,
        role: &event.actor.role,
        peer: &event.actor.peer,
        action: event.action.as_str(),
        outcome: event.outcome.as_str(),
        on: &event.target,
        before: event.before.as_deref(),
        after: event.after.as_deref(),
        reason: &event.reason,
    }
    .log();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(audit: &Audit) -> Vec<Event> {
        let state = audit.state();
        let waiting = state.waiting.iter().flatten();
        waiting.map(|bytes| serde_json::from_slice(bytes).expect("an event")).collect()
    }

    #[test]
    fn without_a_topic_nothing_waits() {
        let audit = Audit::default();
        audit.denied(&Actor::unknown("127.0.0.1"), "/admin/rollback", "no token");
        audit.close(Duration::from_secs(60));
        assert_eq!(audit.state().waiting(), 0);
    }

    #[test]
    fn fifty_denied_tries_are_two_events() {
        let audit = Audit::new("pod-0", true);
        for _ in 0..50 {
            audit.denied(&Actor::unknown("127.0.0.1"), "/admin/rollback", "no token");
        }
        audit.tell_denied(false);
        assert_eq!(waiting(&audit).len(), 1);
        audit.tell_denied(true);
        let events = waiting(&audit);
        assert_eq!((events.len(), events[0].target.as_str()), (2, "/admin/rollback"));
        assert_eq!((events[1].actor.peer.as_str(), events[1].sequence), ("127.0.0.1", 1));
        assert!(events[1].reason.starts_with("49 more tries"), "{}", events[1].reason);
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_stay() {
        let audit = Audit::new("pod-0", true);
        for _ in 0..MOST_WAITING + 3 {
            audit.record(&Actor::process(), &denied("/admin", "a test"));
        }
        let events = waiting(&audit);
        assert_eq!(events.len(), MOST_WAITING);
        assert!(events.iter().enumerate().all(|(index, event)| event.sequence == index as u64));
        // No thread would take them: it does not wait.
        audit.close(Duration::from_secs(60));
    }
}
