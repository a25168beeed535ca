//! The embedded development broker: librdkafka's mock cluster. Consumer groups, commits and transactions answer; it
//! keeps some 5 MB a partition in memory and forgets the oldest. For demos and fast tests, never for data.

use rdkafka::ClientConfig;
use rdkafka::bindings as sys;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};

/// How long the broker waits for further members before a new group's first assignment. librdkafka's 3 s are meant for
/// production; in a demo they are three seconds of nothing.
const REBALANCE_DELAY_MILLISECONDS: i32 = 100;

/// A broker within this process, on a free port of 127.0.0.1; gone when dropped.
pub struct EmbeddedBroker {
    /// The client that hosts the mock cluster; sends nothing itself.
    host: BaseProducer,
}

impl EmbeddedBroker {
    /// Starts it with the given topics of `partitions` each.
    pub fn start(topics: &[&str], partitions: i32) -> KafkaResult<EmbeddedBroker> {
        let host: BaseProducer = ClientConfig::new().set("test.mock.num.brokers", "1").create()?;
        // SAFETY: the handle belongs to the host client, which is alive; the setter only writes a default that groups
        // created later read, and no group exists before the address is known.
        unsafe {
            let cluster = sys::rd_kafka_handle_mock_cluster(host.client().native_ptr());
            if !cluster.is_null() {
                sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, REBALANCE_DELAY_MILLISECONDS);
            }
        }
        let broker = EmbeddedBroker { host };
        for topic in topics {
            let cluster = broker.cluster().ok_or_else(|| KafkaError::ClientCreation("no mock cluster".into()))?;
            cluster.create_topic(topic, partitions, 1)?;
        }
        Ok(broker)
    }

    /// `HOST:PORT` for `--brokers`.
    pub fn address(&self) -> String {
        self.cluster().map(|cluster| cluster.bootstrap_servers()).unwrap_or_default()
    }

    /// The cluster, for fault injection in tests.
    pub fn cluster(&self) -> Option<MockCluster<'_, DefaultProducerContext>> {
        self.host.client().mock_cluster()
    }
}
