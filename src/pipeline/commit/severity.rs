//! What an error of the broker means for the work in hand: redo, or end. Pure.

use rdkafka::error::RDKafkaErrorCode;

use super::Interruption;
use crate::kafka::failure::Failure;

/// What a failure that will not go away by itself means; `doing` says what was tried.
pub(super) fn severity(failure: &Failure, doing: &str) -> Interruption {
    match failure.code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Interruption::Fatal(format!("{doing}: {failure}. Grant this user the rights (docs/OPERATIONS.md)"))
        }
        _ => Interruption::Redo(format!("{doing}: {failure}")),
    }
}
