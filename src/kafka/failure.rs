//! A call to the broker that failed, as librdkafka judges it: the one error type of the worker's Kafka calls.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What failed, and whether repeating the same call may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} ({code:?})")]
pub struct Failure {
    /// librdkafka's code.
    pub code: RDKafkaErrorCode,
    /// librdkafka's words.
    pub reason: String,
    /// The same call may succeed later; the transaction and the client are still good.
    pub transient: bool,
}

impl Failure {
    /// A failure that does not go away by itself.
    pub fn lasting(code: RDKafkaErrorCode, reason: impl Into<String>) -> Failure {
        Failure { code, reason: reason.into(), transient: false }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Failure {
        let transient = match &error {
            KafkaError::ConsumerCommit(code) => matches!(
                code,
                RDKafkaErrorCode::OperationTimedOut
                    | RDKafkaErrorCode::RequestTimedOut
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::CoordinatorNotAvailable
                    | RDKafkaErrorCode::NotCoordinator
                    | RDKafkaErrorCode::CoordinatorLoadInProgress
                    | RDKafkaErrorCode::WaitingForCoordinator
            ),
            _ => false,
        };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
        Failure { code, reason: error.to_string(), transient }
    }
}
