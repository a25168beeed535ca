//! Real Apache Kafka brokers (KRaft) from the published jars, on free loopback ports: one process each.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{root, script, wait_for};

/// User and password of a broker started with [`Broker::start_with_sasl`].
pub const SASL_USER: (&str, &str) = ("worker", "right-password");

/// A broker; stopped when dropped, or when the test process ends however it does.
pub struct Broker {
    directory: tempfile::TempDir,
    port: u16,
    controller_port: u16,
    /// 1 is the controller, too.
    node: u8,
    sasl: bool,
    /// Lines of its properties, in place of what they would be.
    properties: String,
    running: Option<Running>,
}

/// A broker's process, behind a shell that kills it when its standard input closes: even a test process that is killed leaves
/// no broker behind.
pub struct Running {
    guard: Child,
}

impl Running {
    /// Starts the broker of a folder with its `server.properties`; its log lies beside them.
    pub fn start(directory: &Path) -> Running {
        let log = fs::File::create(directory.join("log")).unwrap();
        let mut java = java();
        java.arg("kafka.Kafka").arg(directory.join("server.properties"));
        let mut guard = Command::new("bash");
        guard.arg("-c").arg(r#""$@" </dev/null & java=$!; cat >/dev/null; kill -9 $java; wait $java"#).arg("guard");
        guard.arg(java.get_program()).args(java.get_args());
        guard.stdin(Stdio::piped()).stdout(log.try_clone().unwrap()).stderr(log);
        Running { guard: guard.spawn().unwrap() }
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().unwrap();
    }
}

/// Prepares a broker's folder.
pub fn format(properties: &Path, cluster: &str) {
    let mut format = java();
    format.args(["kafka.tools.StorageTool", "format", "-t", cluster, "-c"]).arg(properties);
    let output = format.output().unwrap();
    assert!(output.status.success(), "formatting: {}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the broker of a folder answers.
pub fn wait_until_up(client: &ClientConfig, directory: &Path) {
    let consumer: BaseConsumer = client.create().unwrap();
    let limit = Duration::from_secs(90);
    let began = std::time::Instant::now();
    while consumer.fetch_metadata(None, Duration::from_secs(1)).is_err() {
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(began.elapsed() < limit, "the broker does not answer:\n{}", log());
    }
}

/// What a broker's process is called, for pkill and pgrep.
pub fn pattern(directory: &Path) -> String {
    format!("^java .*kafka.Kafka {}", directory.join("server.properties").display())
}

/// The broker most tests share.
pub fn shared() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(Broker::start)
}

impl Broker {
    /// A broker of its own.
    pub fn start() -> Broker {
        Broker::new(false, "")
    }

    /// One more broker of this one's cluster.
    pub fn join(&self, node: u8) -> Broker {
        Broker::open(false, "", node, self.controller_port)
    }

    /// A broker with lines of properties of its own.
    pub fn start_with(properties: &str) -> Broker {
        Broker::new(false, properties)
    }

    /// A broker whose clients must log in by SASL/PLAIN.
    pub fn start_with_sasl() -> Broker {
        Broker::new(true, "")
    }

    /// A broker whose clients log in by SASL/PLAIN, and whose access lists count.
    pub fn start_with_access_lists() -> Broker {
        let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        Broker::new(
            true,
            &format!(
                "authorizer.class.name={authorizer}\nallow.everyone.if.no.acl.found=true\nsuper.users=User:ANONYMOUS\n"
            ),
        )
    }

    /// Forbids [`SASL_USER`] to write to a topic.
    pub fn forbid_writing(&self, topic: &str) {
        let properties = self.directory.path().join("admin.properties");
        let (user, password) = SASL_USER;
        fs::write(
            &properties,
            format!(
                "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n\
                 sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
                 username=\"{user}\" password=\"{password}\";\n"
            ),
        )
        .unwrap();
        let mut command = java();
        command.args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.address(), "--command-config"]);
        command.arg(&properties).args(["--add", "--deny-principal", &format!("User:{user}"), "--operation", "Write"]);
        let output = command.args(["--topic", topic]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn new(sasl: bool, properties: &str) -> Broker {
        Broker::open(sasl, properties, 1, free_port())
    }

    fn open(sasl: bool, properties: &str, node: u8, controller_port: u16) -> Broker {
        let mut broker = Broker {
            directory: tempfile::tempdir().unwrap(),
            port: free_port(),
            controller_port,
            node,
            sasl,
            properties: properties.to_owned(),
            running: None,
        };
        let properties = broker.write_properties();
        format(&properties, "ZnJhdWQtc2NvcmVyLXRlc3Q");
        broker.up();
        broker
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A client's configuration.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        if self.sasl {
            config.set("security.protocol", "SASL_PLAINTEXT").set("sasl.mechanism", "PLAIN");
            config.set("sasl.username", SASL_USER.0).set("sasl.password", SASL_USER.1);
        }
        config
    }

    /// Starts it (again), on the same port and data; returns when it answers.
    pub fn up(&mut self) {
        self.running = Some(Running::start(self.directory.path()));
        wait_until_up(&self.client(), self.directory.path());
    }

    /// The file that holds the first records of a partition.
    pub fn segment(&self, topic: &str, partition: i32) -> PathBuf {
        self.directory.path().join(format!("data/{topic}-{partition}/00000000000000000000.log"))
    }

    /// Ends it without a farewell, as a crash would.
    pub fn crash(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
            let address = self.address();
            wait_for("the broker's port is closed", Duration::from_secs(10), || {
                std::net::TcpStream::connect(&address).is_err().then_some(())
            });
        }
    }

    /// Stops or continues it as it stands: connections stay open, nothing answers.
    pub fn signal(&self, signal: &str) {
        let pattern = pattern(self.directory.path());
        let status = Command::new("pkill").args([signal, "--full", &pattern]).status().unwrap();
        assert!(status.success(), "{signal} to {pattern}");
    }

    fn write_properties(&self) -> PathBuf {
        let (port, controller) = (self.port, self.controller_port);
        let protocol = if self.sasl { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
        let mut listeners = format!("CLIENTS://127.0.0.1:{port}");
        let mut roles = "broker";
        if self.node == 1 {
            listeners += &format!(",CONTROLLER://127.0.0.1:{controller}");
            roles = "broker,controller";
        }
        let mut text = format!(
            "process.roles={roles}\nnode.id={}\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listeners}\nbroker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\n\
             advertised.listeners=CLIENTS://127.0.0.1:{port}\n\
             listener.security.protocol.map=CLIENTS:{protocol},CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=CLIENTS\nlog.dirs={}\n\
             auto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=4\nnum.network.threads=2\nnum.io.threads=4\n",
            self.node,
            self.directory.path().join("data").display()
        );
        if self.sasl {
            let (user, password) = SASL_USER;
            text += &format!(
                "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
                 listener.name.clients.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
                 required username=\"{user}\" password=\"{password}\" user_{user}=\"{password}\";\n"
            );
        }
        text += &self
            .properties
            .replace("LISTENERS", &listeners)
            .replace("ADVERTISED", &format!("CLIENTS://127.0.0.1:{port}"));
        let path = self.directory.path().join("server.properties");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Changes what the brokers grant a client: `--add-config consumer_byte_rate=…`, `--delete-config …`.
pub fn quota(brokers: &str, client: &str, change: &[&str]) -> Result<(), String> {
    let mut command = java();
    command.args(["kafka.admin.ConfigCommand", "--bootstrap-server", brokers]);
    command.args(["--alter", "--entity-type", "clients", "--entity-name", client]).args(change);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() && !text.contains("Error") { Ok(()) } else { Err(format!("a quota: {text}")) }
}

/// Java with the broker's classes; the jars are downloaded on first use.
pub fn java() -> Command {
    static CLASSPATH: OnceLock<String> = OnceLock::new();
    let classpath = CLASSPATH.get_or_init(|| {
        script("kafka.sh", &["get"]);
        script("kafka.sh", &["classpath"]).trim().to_owned()
    });
    let mut java = Command::new("java");
    let log4j = root().join("scripts/kafka/log4j2.properties");
    java.args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", classpath]);
    java.arg(format!("-Dlog4j2.configurationFile={}", log4j.display()));
    java
}

/// A port nobody listens on. Below those that the system gives to connections: one of those may be another connection's by the time
/// a broker asks for it.
pub fn free_port() -> u16 {
    const RANGE: std::ops::Range<u32> = 15_000..32_000;
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    // Other test processes look for ports, too.
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(7_919)));
    loop {
        let port = RANGE.start + next.fetch_add(1, Ordering::Relaxed) % (RANGE.end - RANGE.start);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port as u16)) {
            return listener.local_addr().unwrap().port();
        }
    }
}
