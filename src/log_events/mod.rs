//! What the log can say: one definition per occurrence, and no log line without one.
//!
//! ```text
//!  code that notices ─► log_events::model::Swapped { … }.log() ─► level, target, `event`, fields, sentence
//!                                     │
//!                                     └─► catalogue() ─► docs/LOGS.md
//! ```
//!
//! A definition is a struct whose fields are what the line tells. It has a level, a sentence for people, and a name for
//! machines that stays the same when the sentence is improved: the field `event` of the JSON form (the text form leaves
//! it out). Its target, which `RUST_LOG` filters by, is the topic (`fraud_scorer::kafka`), not the source file.
//!
//! Levels: **error** needs somebody, **warn** may, **info** tells what changed, **debug** is for whoever looks for
//! something. What a stream of bad records could repeat for each of them is `debug`, or is limited: the first is written
//! at once, then at most one per interval, which tells how many it stands for (`suppressed`).

mod limit;

pub mod archive;
pub mod audit;
pub mod drift;
pub mod http;
pub mod kafka;
pub mod librdkafka;
pub mod lifecycle;
pub mod model;
pub mod pipeline;
pub mod tracing;

pub(crate) use self::limit::RateLimit;

/// What is written down of an event, for the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Value of the field `event`; never changes once released.
    pub event: &'static str,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// What `RUST_LOG` filters by.
    pub target: &'static str,
    /// The sentence; `{name}` stands for what differs from line to line.
    pub message: &'static str,
    /// What it means.
    pub meaning: &'static str,
    /// Fields with how they are written; `said` ones are part of the sentence.
    fields: &'static [(&'static str, &'static str)],
    /// Seconds between two lines, at least, where it is limited.
    pub at_most_every: Option<u64>,
}

impl Definition {
    /// Names of the fields of its own.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().filter(|(_, kind)| *kind != "said").map(|(name, _)| *name)
    }
}

/// All definitions, by topic.
pub fn catalogue() -> impl Iterator<Item = &'static Definition> {
    [
        lifecycle::DEFINITIONS,
        kafka::DEFINITIONS,
        pipeline::DEFINITIONS,
        model::DEFINITIONS,
        drift::DEFINITIONS,
        audit::DEFINITIONS,
        http::DEFINITIONS,
        tracing::DEFINITIONS,
        archive::DEFINITIONS,
        librdkafka::DEFINITIONS,
    ]
    .into_iter()
    .flatten()
}

/// Defines the events of a topic.
///
/// ```text
///  /// What it means.
///  LEVEL "event-name" "the sentence" [(at most every SECONDS s)]
///  Name<'a> { field: Type as KIND, … }
/// ```
///
/// KIND is `value` (text, number or flag as such), `display`, `debug`, or `said`: not a field, but named in the sentence.
macro_rules! log_events {
    (
        target: $target:literal;
        $(
            $(#[doc = $meaning:literal])+
            $level:ident $event:literal $message:literal $((at most every $seconds:literal s))?
            $name:ident $(<$life:lifetime>)? { $($field:ident: $type:ty as $kind:ident),* $(,)? }
        )+
    ) => {
        /// The definitions of this topic.
        pub(super) const DEFINITIONS: &[super::Definition] = &[$(
            super::Definition {
                event: $event,
                level: stringify!($level),
                target: $target,
                message: $message,
                meaning: concat!($($meaning),+),
                fields: &[$((stringify!($field), stringify!($kind))),*],
                at_most_every: log_events!(@seconds $($seconds)?),
            },
        )+];
        $(
            $(#[doc = $meaning])+
            #[derive(Clone, Copy)]
            #[allow(missing_docs, reason = "the names of a log line's fields tell what they are")]
            pub struct $name $(<$life>)? { $(pub $field: $type),* }

            impl $(<$life>)? $name $(<$life>)? {
                /// Writes the line.
                pub fn log(self) {
                    let $name { $($field),* } = self;
                    $(
                        static LIMIT: super::RateLimit = super::RateLimit::every_seconds($seconds);
                        let Some(suppressed) = LIMIT.admit() else { return };
                    )?
                    ::tracing::$level!(
                        target: $target,
                        event = $event,
                        $($field = log_events!(@$kind $field),)*
                        $(suppressed = log_events!(@suppressed suppressed $seconds),)?
                        $message
                    );
                }
            }
        )+
    };
    (@seconds) => { None };
    (@seconds $seconds:literal) => { Some($seconds) };
    (@value $field:ident) => { $field };
    (@display $field:ident) => { ::tracing::field::display($field) };
    (@debug $field:ident) => { ::tracing::field::debug($field) };
    (@said $field:ident) => { ::tracing::field::Empty };
    (@suppressed $count:ident $seconds:literal) => { ($count > 0).then_some($count) };
}
use log_events;

#[cfg(test)]
mod tests;
