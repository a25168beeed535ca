//! A call to the broker that failed, as librdkafka judges it: the one error type of the worker's Kafka calls.

use std::ffi::c_int;
use std::fmt;

use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The code that a number stands for; `Unknown` for one that these bindings do not list. Brokers of a later Kafka send such.
pub fn code(number: c_int) -> RDKafkaErrorCode {
    sys::rd_kafka_resp_err_t::try_from(number).map_or(RDKafkaErrorCode::Unknown, RDKafkaErrorCode::from)
}

/// Words for a code, by its number where it has none.
pub fn words(number: c_int) -> String {
    match sys::rd_kafka_resp_err_t::try_from(number) {
        Ok(known) => RDKafkaErrorCode::from(known).to_string(),
        Err(_) => format!("error {number}, which librdkafka does not know"),
    }
}

/// What failed, and whether repeating the same call may help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// librdkafka's code.
    pub code: RDKafkaErrorCode,
    /// librdkafka's words.
    pub reason: String,
    /// The same call may succeed later; the transaction and the client are still good.
    pub transient: bool,
}

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { code, reason, .. } = self;
        // The words for a code begin with its name.
        if reason.starts_with(&format!("{code:?}")) {
            formatter.write_str(reason)
        } else {
            write!(formatter, "{reason} ({code:?})")
        }
    }
}

impl Failure {
    /// What librdkafka's number stands for.
    pub fn of(number: c_int) -> Failure {
        use RDKafkaErrorCode as Code;
        let code = code(number);
        let transient = matches!(
            code,
            Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::BrokerTransportFailure
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::CoordinatorLoadInProgress
                | Code::WaitingForCoordinator
        );
        Failure { code, reason: words(number), transient }
    }

    /// A failure that does not go away by itself.
    pub fn lasting(code: RDKafkaErrorCode, reason: impl Into<String>) -> Failure {
        Failure { code, reason: reason.into(), transient: false }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        Failure::lasting(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_nobody_listed_are_shown_by_number() {
        assert_eq!(code(10), RDKafkaErrorCode::MessageSizeTooLarge);
        assert_eq!((code(4711), code(-4711)), (RDKafkaErrorCode::Unknown, RDKafkaErrorCode::Unknown));
        assert!(words(4711).contains("4711"));
        assert!(!words(87).contains("87"), "{}", words(87));
    }
}
