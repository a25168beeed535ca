//! An audit event and the chain it belongs to: pure.
//!
//! ```text
//!  Change ─► Chain::seal: texts cut, number, hash of the event before ─► Event, as one line of JSON ─► its hash, for the next
//! ```
//!
//! The hash is of the exact bytes that are written, so that it can be verified without knowing how JSON was formatted.
//! `docs/schemas/audit.json` describes the line.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::sha256;

/// Longest text of an event, bytes; the rest is cut off. Names, addresses and reasons come from outside.
pub const MAX_TEXT_BYTES: usize = 256;

/// Largest event, bytes: seven texts, each of whose bytes may be escaped to six, and what has a length of its own.
pub const MAX_EVENT_BYTES: usize = 16 << 10;

/// What the first event of a chain names as the hash of the one before: nothing.
pub const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What it is here: `operator` and the other roles of HTTP, `registry`, `configuration`, `process`, or `unknown` where it
    /// may nothing.
    pub role: String,
    /// Where it is: an address, with its name before it where it has one; or `local`.
    pub peer: String,
}

impl Actor {
    /// An actor of this role at `peer`.
    pub fn new(role: &str, peer: impl fmt::Display) -> Actor {
        Actor { role: role.to_owned(), peer: peer.to_string() }
    }

    /// A caller without credentials that are known.
    pub fn unknown(peer: impl fmt::Display) -> Actor {
        Actor::new("unknown", peer)
    }

    /// What flags, environment and files say.
    pub fn configuration() -> Actor {
        Actor::new("configuration", "local")
    }

    /// The process itself.
    pub fn process() -> Actor {
        Actor::new("process", "local")
    }
}

/// What was done, or tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The process has its first model.
    Start,
    /// The topic is reached; the event names the last record that stands there.
    Anchor,
    /// Another model serves.
    Swap,
    /// The model before serves again.
    Rollback,
    /// There is another challenger, or none any more.
    Challenger,
    /// A request over HTTP, before it is known what it would do.
    Access,
    /// The process ends.
    Stop,
}

impl Action {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Start => "start",
            Action::Anchor => "anchor",
            Action::Swap => "swap",
            Action::Rollback => "rollback",
            Action::Challenger => "challenger",
            Action::Access => "access",
            Action::Stop => "stop",
        }
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// The actor may; what it asked for cannot be.
    Refused,
    /// The actor may not.
    Denied,
}

impl Outcome {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Denied => "denied",
        }
    }
}

/// The last record of the topic when a chain reached it, whichever process wrote it: so chains hold each other's ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// Where it stands.
    pub partition: i32,
    /// Where it stands.
    pub offset: i64,
    /// SHA-256 of its value.
    pub sha256: String,
}

/// What is to be told of a change, or of a try.
#[derive(Clone, Debug)]
pub struct Change<'a> {
    /// What was done.
    pub action: Action,
    /// What became of it.
    pub outcome: Outcome,
    /// What it was done to: a model's source, a path, a topic.
    pub target: &'a str,
    /// What was there before.
    pub before: Option<&'a str>,
    /// What is there since; `None` where nothing is, or nothing has changed.
    pub after: Option<&'a str>,
    /// Why.
    pub reason: &'a str,
}

/// One event, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The worker's `--instance-id`.
    pub instance: String,
    /// The process: random, so that a restarted worker begins a chain of its own.
    pub chain: String,
    /// Number in the chain, from 0.
    pub sequence: u64,
    /// SHA-256 of the chain's event before; [`NO_HASH`] in the first.
    pub previous: String,
    /// RFC 3339, UTC.
    pub time: String,
    /// Who.
    pub actor: Actor,
    /// What.
    pub action: Action,
    /// What became of it.
    pub outcome: Outcome,
    /// What it was done to.
    pub target: String,
    /// What was there before.
    pub before: Option<String>,
    /// What is there since.
    pub after: Option<String>,
    /// Why.
    pub reason: String,
    /// With [`Action::Anchor`], where the topic held a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
}

/// An event with its bytes and their hash.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The event.
    pub event: Event,
    /// As it is written.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub sha256: String,
}

/// Numbers the events of a process and chains them.
#[derive(Debug)]
pub struct Chain {
    instance: String,
    id: String,
    next: u64,
    previous: String,
}

impl Chain {
    /// A chain that begins; `id` is random.
    pub fn new(instance: &str, id: String) -> Chain {
        Chain { instance: bounded(instance).into_owned(), id, next: 0, previous: NO_HASH.to_owned() }
    }

    /// The next event, at `time`.
    pub fn seal(&mut self, time: String, actor: &Actor, change: &Change<'_>, anchor: Option<Anchor>) -> Sealed {
        let owned = |text: &str| bounded(text).into_owned();
        let event = Event {
            instance: self.instance.clone(),
            chain: self.id.clone(),
            sequence: self.next,
            previous: self.previous.clone(),
            time,
            actor: Actor { role: owned(&actor.role), peer: owned(&actor.peer) },
            action: change.action,
            outcome: change.outcome,
            target: owned(change.target),
            before: change.before.map(owned),
            after: change.after.map(owned),
            reason: owned(change.reason),
            anchor,
        };
        // Texts and numbers can always be written.
        let bytes = serde_json::to_vec(&event).unwrap_or_default();
        let sha256 = sha256(&bytes);
        self.next += 1;
        self.previous.clone_from(&sha256);
        Sealed { event, bytes, sha256 }
    }
}

/// A model as events name it, with the scores from which on it says `review` and `decline`. An overlong name leaves room for
/// the rest.
pub fn model(id: &str, sha256: &str, review: f32, decline: f32) -> String {
    format!("{} (sha256 {sha256}, review {review}, decline {decline})", cut(id, MAX_TEXT_BYTES - 140))
}

fn bounded(text: &str) -> Cow<'_, str> {
    cut(text, MAX_TEXT_BYTES)
}

fn cut(text: &str, most: usize) -> Cow<'_, str> {
    const MARK: &str = "…";
    match text.len() <= most {
        true => text.into(),
        false => format!("{}{MARK}", &text[..text.floor_char_boundary(most - MARK.len())]).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(reason: &str) -> Change<'_> {
        Change {
            action: Action::Rollback,
            outcome: Outcome::Done,
            target: "mlflow:fraud@champion",
            before: Some("fraud@2"),
            after: Some("fraud@1"),
            reason,
        }
    }

    #[test]
    fn events_are_numbered_and_name_the_hash_of_the_exact_bytes_before() {
        let mut chain = Chain::new("pod-0", "c".into());
        let seal = |chain: &mut Chain| chain.seal("t".into(), &Actor::process(), &change("asked for"), None);
        let (first, second) = (seal(&mut chain), seal(&mut chain));
        assert_eq!((first.event.sequence, first.event.previous.as_str()), (0, NO_HASH));
        assert_eq!((second.event.sequence, second.event.previous), (1, sha256(&first.bytes)));
        assert_eq!(serde_json::from_slice::<Event>(&first.bytes).expect("an event"), first.event);
    }

    #[test]
    fn texts_from_outside_are_cut_and_the_largest_event_is_no_larger_than_said() {
        let long = "\u{1}".repeat(100_000);
        let mut chain = Chain::new(&long, "5f0c6c38-2f43-4c8b-8d5c-2f8c4a3e9f10".into());
        let change = Change { target: &long, before: Some(&long), after: Some(&long), ..change(&long) };
        let anchor = Anchor { partition: i32::MAX, offset: i64::MAX, sha256: NO_HASH.into() };
        let sealed = chain.seal("t".repeat(40), &Actor::new(&long, &long), &change, Some(anchor));
        assert!(sealed.bytes.len() <= MAX_EVENT_BYTES, "{}", sealed.bytes.len());
        assert!(sealed.event.reason.len() <= MAX_TEXT_BYTES && sealed.event.reason.ends_with('…'));
        assert_eq!(cut("ab€", 4), "a…");
        assert!(model(&"é".repeat(300), NO_HASH, 0.123_456_79, 0.999_999_9).len() <= MAX_TEXT_BYTES);
        assert_eq!(model("fraud@1", "4be1", 0.1, 0.5), "fraud@1 (sha256 4be1, review 0.1, decline 0.5)");
    }

    #[test]
    fn events_keep_to_their_schema() {
        let schema = include_str!("../../docs/schemas/audit.json");
        let schema = serde_json::from_str(schema).expect("the schema is JSON");
        let validator = jsonschema::validator_for(&schema).expect("a valid schema");
        let mut chain = Chain::new("pod-0", uuid::Uuid::new_v4().to_string());
        let actions = [
            Action::Start,
            Action::Anchor,
            Action::Swap,
            Action::Rollback,
            Action::Challenger,
            Action::Access,
            Action::Stop,
        ];
        for action in actions {
            for outcome in [Outcome::Done, Outcome::Refused, Outcome::Denied] {
                let change = Change { action, outcome, before: None, ..change("a \"reason\"") };
                let anchor = (action == Action::Anchor).then(|| Anchor {
                    partition: 0,
                    offset: 7,
                    sha256: sha256(b"the record before"),
                });
                let time = jiff::Timestamp::now().to_string();
                let sealed = chain.seal(time, &Actor::new("admin", "127.0.0.1"), &change, anchor);
                let value: serde_json::Value = serde_json::from_slice(&sealed.bytes).expect("JSON");
                validator.validate(&value).unwrap_or_else(|error| panic!("{value}: {error}"));
                assert_eq!((&value["action"], &value["outcome"]), (&action.as_str().into(), &outcome.as_str().into()));
            }
        }
        assert!(!validator.is_valid(&serde_json::json!({"instance": "pod-0", "sequence": 0})));
    }
}
