//! The dead letter: a record that could not be scored, byte for byte, with the reason in its headers.

use std::fmt;
use std::str::FromStr;

/// Why a record could not be scored. The text form is the value of the `error.class` header and metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorClass {
    /// Not JSON (RFC 8259): syntax, encoding, nesting deeper than the limit, a duplicate key, no value at all.
    MalformedJson,
    /// A required feature is absent or null.
    MissingFeature,
    /// A feature's value is not a number that a 32-bit float can hold.
    NotANumber,
    /// A split message whose rows and columns do not fit each other.
    WrongShape,
    /// The value exceeds the size limit; it was not parsed.
    TooLarge,
    /// JSON, but neither the object nor the split form.
    UnknownSchema,
    /// `event_time` is neither epoch milliseconds nor RFC 3339.
    InvalidEventTime,
    /// The model failed on this row or gave something other than a probability.
    InvalidScore,
    /// Scored, but the broker refuses the verdict for good: the topic is compacted and the record has no key, or its time
    /// stamp is out of the topic's range.
    Undeliverable,
}

impl ErrorClass {
    /// Every class; the index of each is `class as usize`.
    pub const ALL: [ErrorClass; 9] = [
        ErrorClass::MalformedJson,
        ErrorClass::MissingFeature,
        ErrorClass::NotANumber,
        ErrorClass::WrongShape,
        ErrorClass::TooLarge,
        ErrorClass::UnknownSchema,
        ErrorClass::InvalidEventTime,
        ErrorClass::InvalidScore,
        ErrorClass::Undeliverable,
    ];

    /// The class as it is printed in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorClass::MalformedJson => "malformed-json",
            ErrorClass::MissingFeature => "missing-feature",
            ErrorClass::NotANumber => "not-a-number",
            ErrorClass::WrongShape => "wrong-shape",
            ErrorClass::TooLarge => "too-large",
            ErrorClass::UnknownSchema => "unknown-schema",
            ErrorClass::InvalidEventTime => "invalid-event-time",
            ErrorClass::InvalidScore => "invalid-score",
            ErrorClass::Undeliverable => "undeliverable",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for ErrorClass {
    type Err = UnknownErrorClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ErrorClass::ALL.into_iter().find(|class| class.as_str() == text).ok_or_else(|| UnknownErrorClass(text.into()))
    }
}

/// A text that names no [`ErrorClass`].
#[derive(Debug, thiserror::Error)]
#[error("unknown error class {0:?}")]
pub struct UnknownErrorClass(String);

/// Names of the headers a dead letter carries beside those the record already had.
pub mod headers {
    /// [`super::ErrorClass`] as text.
    pub const CLASS: &str = "error.class";
    /// One sentence that names the field.
    pub const MESSAGE: &str = "error.message";
    /// Input topic.
    pub const SOURCE_TOPIC: &str = "source.topic";
    /// Partition of the input topic, decimal.
    pub const SOURCE_PARTITION: &str = "source.partition";
    /// Offset in that partition, decimal.
    pub const SOURCE_OFFSET: &str = "source.offset";
    /// The record's Kafka timestamp, epoch milliseconds, decimal; -1 where it had none.
    pub const SOURCE_TIMESTAMP: &str = "source.timestamp";
    /// Version of the worker that gave up on the record.
    pub const WORKER_VERSION: &str = "worker.version";
    /// Present only where the dead-letter topic refuses a record of this size: bytes of the value left out, decimal.
    pub const VALUE_OMITTED: &str = "error.value-omitted";
    /// As [`VALUE_OMITTED`], for the record's own headers, where leaving out the value was not enough.
    pub const HEADERS_OMITTED: &str = "error.headers-omitted";
    /// As [`VALUE_OMITTED`], for the key, where leaving out value and headers was not enough.
    pub const KEY_OMITTED: &str = "error.key-omitted";
    /// Present only where the dead-letter topic takes no record without a key and this one had none: the key is the
    /// record's place, `topic-partition-offset`.
    pub const KEY_ADDED: &str = "error.key-added";

    /// Whether a name is one of a dead letter's own, or may become one.
    pub fn is_ours(name: &str) -> bool {
        name.starts_with("error.")
            || [SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET, SOURCE_TIMESTAMP, WORKER_VERSION].contains(&name)
    }
}

/// The reason a record became a dead letter: a value, not a failure of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The class, for headers, metrics and filters.
    pub class: ErrorClass,
    /// One sentence that names the field, for people.
    pub message: String,
}

impl Rejection {
    /// A rejection of `class` explained by `message`.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Rejection { class, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_reads_back_from_its_text_and_stands_at_its_index() {
        for (index, class) in ErrorClass::ALL.into_iter().enumerate() {
            assert_eq!(class.as_str().parse::<ErrorClass>().ok(), Some(class));
            assert_eq!(class as usize, index);
        }
        assert!("unheard-of".parse::<ErrorClass>().is_err());
    }
}
