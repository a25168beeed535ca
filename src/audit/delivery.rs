//! The thread that brings events to the topic: one at a time, in order, until each is there.
//!
//! ```text
//!  the topic's last record ─► anchor event ─► the queue's first ─► Outbox ─► delivered? next │ failed? a new producer, again
//! ```
//!
//! Events are few, so one request each costs nothing, and what failed is known. A topic that is away, closed or full stops
//! nothing else: `/readyz` warns, and the queue waits.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use super::{Action, Actor, Anchor, Audit, Change, Outcome};
use crate::digest::sha256;
use crate::kafka::client::{self, BrokerHealth};
use crate::kafka::look::Look;
use crate::kafka::outbox::{Kind, Outbox, Outgoing, Produced};
use crate::log_events;
use crate::telemetry::readiness::Readiness;

/// The partition of the topic that has the events: one, so that they have an order.
pub const PARTITION: i32 = 0;

/// How long an event may be on its way until it is said.
const SLOW: Duration = Duration::from_secs(2);

/// Pause after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the clients are served while nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// How often it is looked whether an event has arrived.
const STEP: Duration = Duration::from_millis(10);

/// How long the topic's last record may take.
const LOOK: Duration = Duration::from_secs(5);

/// Whose warning it is, for readiness.
const WARNING: &str = "audit";

/// Where events go.
pub struct Delivery {
    /// The worker's properties.
    pub kafka: ClientConfig,
    /// The worker's group, which is not joined: a client that reads needs one.
    pub group: String,
    /// The topic.
    pub topic: String,
    /// Where it is said that events do not arrive.
    pub readiness: Readiness,
}

/// What a turn came to.
enum Turn {
    Done,
    Failed(String),
    /// The process has ended meanwhile.
    Ended,
}

impl Audit {
    /// Starts the thread that delivers.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn deliver(&self, delivery: Delivery) -> std::io::Result<()> {
        let thread =
            Thread { audit: self.clone(), delivery, outbox: None, health: Arc::default(), sent: 0, said: false };
        self.state().is_delivering = true;
        std::thread::Builder::new().name("audit".into()).spawn(move || thread.run()).map(drop)
    }

    /// The event that is to go first, waiting up to [`IDLE`] for one; `Err` at the end.
    fn first(&self) -> Result<Option<Vec<u8>>, ()> {
        let state = self.state();
        let is_idle = |state: &mut super::State| state.waiting() == 0 && state.deadline.is_none();
        let state = self.inner.changed.wait_timeout_while(state, IDLE, is_idle);
        let state = state.unwrap_or_else(PoisonError::into_inner).0;
        match state.waiting.as_ref().and_then(|waiting| waiting.front()) {
            Some(first) if state.deadline.is_none_or(|deadline| Instant::now() < deadline) => Ok(Some(first.clone())),
            None if state.deadline.is_none() => Ok(None),
            _ => Err(()),
        }
    }

    /// The first event has arrived.
    fn arrived(&self) {
        let mut state = self.state();
        state.waiting.as_mut().and_then(|waiting| waiting.pop_front());
        state.show_waiting();
        self.inner.changed.notify_all();
    }

    fn has_ended(&self) -> bool {
        self.state().deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

struct Thread {
    audit: Audit,
    delivery: Delivery,
    outbox: Option<Outbox>,
    health: Arc<BrokerHealth>,
    /// Events given to producers, for their batch's number.
    sent: usize,
    /// It is said that events do not arrive.
    said: bool,
}

impl Thread {
    fn run(mut self) {
        let mut is_anchored = false;
        while let Ok(first) = self.audit.first() {
            if let Some(outbox) = &self.outbox {
                outbox.serve(Duration::ZERO);
            }
            let turn = match first {
                None => continue,
                Some(_) if !is_anchored => self.anchor(),
                Some(event) => self.send(&event),
            };
            match turn {
                Turn::Done if !is_anchored => is_anchored = true,
                Turn::Done => {
                    self.audit.arrived();
                    self.well();
                }
                Turn::Failed(reason) => {
                    self.trouble(&reason);
                    self.outbox = None;
                    let state = self.audit.state();
                    let has_time = |state: &mut super::State| state.deadline.is_none();
                    drop(self.audit.inner.changed.wait_timeout_while(state, PAUSE, has_time));
                    // Shorter at the end, but not without any.
                    std::thread::sleep(STEP);
                }
                Turn::Ended => break,
            }
        }
        let mut state = self.audit.state();
        state.is_delivering = false;
        self.audit.inner.changed.notify_all();
    }

    /// Puts an event into the chain that names the topic's last record.
    fn anchor(&self) -> Turn {
        let Delivery { kafka, group, topic, .. } = &self.delivery;
        let last = match Look::new(&client::consumer_config(kafka, group, 0, 1)) {
            Ok(look) => look.last(topic, PARTITION, LOOK).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let last = match last {
            Ok(last) => last,
            Err(reason) => return Turn::Failed(format!("its last record cannot be read: {reason}")),
        };
        let change = Change {
            action: Action::Anchor,
            outcome: Outcome::Done,
            target: topic,
            before: None,
            after: None,
            reason: if last.is_some() { "reached the topic" } else { "reached the topic, which is empty" },
        };
        let anchor = last.map(|seen| {
            let (offset, sha256) = (seen.offset, sha256(&seen.value));
            Anchor { partition: PARTITION, offset, sha256 }
        });
        self.audit.state().record(&Actor::process(), &change, anchor);
        Turn::Done
    }

    fn send(&mut self, event: &[u8]) -> Turn {
        let topic = self.delivery.topic.clone();
        let outbox = match self.outbox.take() {
            Some(outbox) => outbox,
            None => {
                let config = client::idempotent_config(&self.delivery.kafka);
                match Outbox::open(&config, &[&topic], self.health.clone()) {
                    Ok(outbox) => outbox,
                    Err(error) => return Turn::Failed(error.to_string()),
                }
            }
        };
        self.sent = self.sent.wrapping_add(1);
        let message = Outgoing {
            kind: Kind::Audit,
            topic: &topic,
            partition: PARTITION,
            // None: a topic that is compacted by mistake refuses the event, and forgets none.
            key: None,
            value: Some(event),
            headers: Vec::new(),
        };
        match outbox.send(&message, self.sent) {
            Ok(Produced::All) => {}
            Ok(Produced::Full(_)) => return Turn::Failed("the producer takes no event".into()),
            Err(failure) => return Turn::Failed(failure.to_string()),
        }
        let began = Instant::now();
        while outbox.undelivered(self.sent) > 0 {
            if self.audit.has_ended() {
                return Turn::Ended;
            }
            if self.health.take_lost() {
                return Turn::Failed("the cluster named no broker for a while".into());
            }
            if began.elapsed() > SLOW && !self.said {
                let reason = self.health.last_error();
                self.trouble(&reason);
            }
            outbox.serve(STEP);
        }
        if let Some(undelivered) = outbox.failure() {
            return Turn::Failed(undelivered.failure.to_string());
        }
        self.outbox = Some(outbox);
        Turn::Done
    }

    fn trouble(&mut self, reason: &str) {
        let (topic, events) = (&self.delivery.topic, self.audit.state().waiting());
        let text = format!("audit events are not on {topic} yet, {events} wait: {reason}");
        self.delivery.readiness.warn(WARNING, text);
        log_events::audit::NotDelivered { topic, events, reason }.log();
        self.said = true;
    }

    fn well(&mut self) {
        if std::mem::take(&mut self.said) {
            self.delivery.readiness.clear_warning(WARNING);
            log_events::audit::DeliveredAgain { topic: &self.delivery.topic }.log();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify::Verifier;
    use crate::kafka::embedded::EmbeddedBroker;

    #[test]
    fn events_of_two_processes_reach_the_topic_whole_and_the_second_holds_the_first() {
        const LIMIT: Duration = Duration::from_secs(60);
        let broker = EmbeddedBroker::start(&["audit"], 1).expect("a broker");
        let mut kafka = ClientConfig::new();
        kafka.set("bootstrap.servers", broker.address()).set("fetch.wait.max.ms", "5");
        let change = |action| Change {
            action,
            outcome: Outcome::Done,
            target: "a test",
            before: None,
            after: None,
            reason: "a test",
        };
        for _ in 0..2 {
            let audit = Audit::new("pod-0", true);
            audit.record(&Actor::process(), &change(Action::Start));
            let (topic, group, readiness) = ("audit".to_owned(), "group".to_owned(), Readiness::default());
            audit.deliver(Delivery { kafka: kafka.clone(), group, topic, readiness }).expect("a thread");
            audit.record(&Actor::process(), &change(Action::Stop));
            audit.close(LIMIT);
            assert_eq!(audit.state().waiting(), 0);
        }
        let look = Look::new(&client::consumer_config(&kafka, "group", 0, 1)).expect("a client");
        let (start, end) = look.bounds("audit", PARTITION, LIMIT).expect("an answer");
        let (mut verifier, mut anchors) = (Verifier::default(), Vec::new());
        verifier.begin(PARTITION, start);
        let read = look.read("audit", PARTITION, start, LIMIT, |seen| {
            verifier.look(PARTITION, seen.offset, &seen.value);
            let event: super::super::event::Event = serde_json::from_slice(&seen.value).expect("an event");
            anchors.extend(event.anchor.map(|anchor| anchor.offset));
            seen.offset + 1 < end
        });
        read.expect("the records");
        verifier.end(PARTITION, end);
        let report = verifier.finish();
        assert_eq!((report.records, report.chains.len(), report.faults), (6, 2, 0), "{report:?}");
        assert_eq!(anchors, [2], "the topic was empty for the first");
    }
}
