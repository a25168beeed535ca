//! The embedded development broker: librdkafka's mock cluster. Consumer groups, commits and transactions answer; it
//! keeps some 5 MB a partition in memory and forgets the oldest. For demos and fast tests, never for data.

use rdkafka::error::KafkaResult;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

/// A broker within this process, on a free port of 127.0.0.1; gone when dropped.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts it with the given topics of `partitions` each.
    pub fn start(topics: &[&str], partitions: i32) -> KafkaResult<EmbeddedBroker> {
        let cluster = MockCluster::new(1)?;
        for topic in topics {
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(EmbeddedBroker { cluster })
    }

    /// `HOST:PORT` for `--brokers`.
    pub fn address(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// The cluster, for fault injection in tests.
    pub fn cluster(&self) -> &MockCluster<'static, DefaultProducerContext> {
        &self.cluster
    }
}
