//! Three real brokers, each also a controller, each behind a proxy for the workers. Clients of the test's own reach them
//! directly.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::faults::wait;
use super::proxy::Proxy;
use super::support::broker::{self, Running, free_port};

/// Data of the third broker are on a file system of this size, so that it can be full.
const SMALL_DISK: &str = "3g";

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub proxies: Vec<Proxy>,
    _directory: tempfile::TempDir,
    /// Where the small file system is mounted; `None`: this user may not.
    pub small: Option<PathBuf>,
}

pub struct Node {
    pub id: usize,
    port: u16,
    directory: PathBuf,
    running: Option<Running>,
}

impl Cluster {
    pub fn start() -> Cluster {
        let directory = tempfile::tempdir().unwrap();
        let ports: Vec<[u16; 3]> = (0..3).map(|_| [free_port(), free_port(), free_port()]).collect();
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(index, ports)| format!("{}@127.0.0.1:{}", index + 1, ports[2])).collect();
        let proxies: Vec<Proxy> = ports.iter().map(|ports| Proxy::start(ports[1])).collect();
        let small = mount(&directory.path().join("small"));
        let mut nodes = Vec::new();
        for (index, [port, workers, controller]) in ports.into_iter().enumerate() {
            let id = index + 1;
            let home = directory.path().join(id.to_string());
            fs::create_dir(&home).unwrap();
            let data = small.as_ref().filter(|_| id == 3).map_or(home.join("data"), |small| small.join("data"));
            let text = format!(
                "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
                 listeners=DIRECT://127.0.0.1:{port},WORKERS://127.0.0.1:{workers},CONTROLLER://127.0.0.1:{controller}\n\
                 advertised.listeners=DIRECT://127.0.0.1:{port},WORKERS://127.0.0.1:{}\n\
                 listener.security.protocol.map=DIRECT:PLAINTEXT,WORKERS:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
                 controller.listener.names=CONTROLLER\ninter.broker.listener.name=DIRECT\nlog.dirs={}\n\
                 broker.session.timeout.ms=6000\nbroker.heartbeat.interval.ms=500\n\
                 auto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
                 default.replication.factor=3\nmin.insync.replicas=2\n\
                 offsets.topic.replication.factor=3\noffsets.topic.num.partitions=3\n\
                 transaction.state.log.replication.factor=3\ntransaction.state.log.min.isr=2\n\
                 transaction.state.log.num.partitions=6\nlog.segment.bytes=16777216\n\
                 log.retention.bytes=67108864\nlog.retention.check.interval.ms=10000\n\
                 num.network.threads=2\nnum.io.threads=4\n",
                voters.join(","),
                proxies[index].port,
                data.display()
            );
            let properties = home.join("server.properties");
            fs::write(&properties, text).unwrap();
            broker::format(&properties, "Y2hhb3MtY2hhb3MtY2hhbw");
            nodes.push(Node { id, port, directory: home, running: None });
        }
        nodes.iter_mut().for_each(Node::start);
        nodes.iter().for_each(Node::wait_until_up);
        Cluster { nodes, proxies, _directory: directory, small }
    }

    /// A client's configuration, past the proxies.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        let brokers: Vec<String> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        config.set("bootstrap.servers", brokers.join(","));
        config
    }

    /// The brokers as the workers reach them.
    pub fn proxied(&self) -> String {
        let brokers: Vec<String> = self.proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port)).collect();
        brokers.join(",")
    }

    /// The broker that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> Option<usize> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(5)).ok()?;
        let partitions = metadata.topics().first()?.partitions();
        let leader = partitions.iter().find(|found| found.id() == partition)?.leader();
        self.nodes.iter().position(|node| node.id as i32 == leader)
    }

    /// Waits until every partition of every topic has all its replicas.
    pub fn wait_until_whole(&self, limit: Duration) -> Result<(), String> {
        let consumer: BaseConsumer = self.client().create().unwrap();
        let deadline = Instant::now() + limit;
        let mut missing = "no answer".to_owned();
        while Instant::now() < deadline {
            if let Ok(metadata) = consumer.fetch_metadata(None, Duration::from_secs(5)) {
                let mut lacking = metadata.topics().iter().flat_map(|topic| {
                    let lacks = topic.partitions().iter().filter(|partition| partition.isr().len() < 3);
                    lacks.map(|partition| format!("{} [{}]", topic.name(), partition.id()))
                });
                match lacking.next() {
                    None if metadata.brokers().len() == 3 => return Ok(()),
                    found => missing = format!("{found:?}"),
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Err(format!("the cluster is not whole within {limit:?}: {missing}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter_mut().for_each(Node::crash);
        if let Some(small) = &self.small {
            let _ = Command::new("umount").arg(small).status();
        }
    }
}

/// Mounts a file system in memory, where this user may.
fn mount(at: &Path) -> Option<PathBuf> {
    fs::create_dir(at).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={SMALL_DISK}"), "tmpfs"]).arg(at).stderr(Stdio::null());
    mount.status().is_ok_and(|status| status.success()).then(|| at.to_owned())
}

impl Node {
    /// Starts it (again); does not wait.
    pub fn start(&mut self) {
        self.running = Some(Running::start(&self.directory));
    }

    pub fn wait_until_up(&self) {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", format!("127.0.0.1:{}", self.port));
        broker::wait_until_up(&client, &self.directory);
    }

    /// SIGKILL.
    pub fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        let pattern = broker::pattern(&self.directory);
        Command::new("pgrep").args(["--full", &pattern]).stdout(Stdio::null()).status().unwrap().success()
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) -> Result<(), String> {
        Command::new("pkill").args(["-TERM", "--full", &broker::pattern(&self.directory)]).status().unwrap();
        wait(&format!("broker {} ends", self.id), Duration::from_secs(60), || !self.is_running())?;
        self.crash();
        Ok(())
    }
}
