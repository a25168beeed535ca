//! What an error of the broker means: try again, redo, or end. Pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::Interruption;

/// The same call may succeed later.
pub(super) fn is_transient(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => !error.is_fatal() && !error.txn_requires_abort() && error.is_retriable(),
        KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut | RDKafkaErrorCode::RequestTimedOut) => true,
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
    }
}

/// What an error that will not go away by itself means for the work in hand; `doing` says what was tried.
pub(super) fn severity(error: &KafkaError, doing: &str) -> Interruption {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => Interruption::Fatal(format!("{doing}: {error}. Grant this user the rights (docs/OPERATIONS.md)")),
        _ => Interruption::Redo(format!("{doing}: {error}")),
    }
}
