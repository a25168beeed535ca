//! What an error of the broker means for the work in hand: redo, or end. Pure.

use rdkafka::error::RDKafkaErrorCode;

use super::Interruption;
use crate::kafka::failure::Failure;

/// What a failure that will not go away by itself means; `doing` says what was tried.
pub fn severity(failure: &Failure, doing: &str) -> Interruption {
    match failure.code {
        RDKafkaErrorCode::TopicAuthorizationFailed
        | RDKafkaErrorCode::GroupAuthorizationFailed
        | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
        | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Interruption::Fatal(format!("{doing}: {failure}. Grant this user the rights (docs/OPERATIONS.md)"))
        }
        RDKafkaErrorCode::InvalidTransactionTimeout => Interruption::Fatal(format!(
            "{doing}: {failure}. The broker's transaction.max.timeout.ms is below the worker's transaction.timeout.ms: raise \
             the one, or lower the other (-X transaction.timeout.ms=…)"
        )),
        RDKafkaErrorCode::UnsupportedVersion | RDKafkaErrorCode::UnsupportedFeature => Interruption::Fatal(format!(
            "{doing}: {failure}. The broker is too old for exactly once (KIP-447, Kafka 2.5): use --guarantee at-least-once"
        )),
        _ => Interruption::RollBack(format!("{doing}: {failure}")),
    }
}
