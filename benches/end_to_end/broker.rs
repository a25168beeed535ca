//! A real Apache Kafka broker for the measurements: KRaft, one process, loopback only, on its defaults but for what
//! one node needs and what keeps the disk from filling.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::reaper::{Group, remove_at_end};
use crate::root;

/// A running broker; its data goes with it.
pub struct Broker {
    process: Group,
    port: u16,
    directory: tempfile::TempDir,
}

impl Broker {
    /// Starts one with its data below `place` and waits until it answers.
    pub fn start(place: &Path) -> Broker {
        let directory = tempfile::Builder::new().prefix("broker-").tempdir_in(place);
        let directory = directory.unwrap_or_else(|error| panic!("--broker-directory {}: {error}", place.display()));
        remove_at_end(directory.path());
        let (port, properties) = (free_port(), directory.path().join("server.properties"));
        std::fs::write(&properties, server_properties(directory.path(), port, free_port())).unwrap();
        let classpath = classpath();
        let mut format = java(&classpath);
        format.args(["kafka.tools.StorageTool", "format", "-t", "ZnJhdWQtc2NvcmVyLWJlbmM", "-c"]).arg(&properties);
        let formatted = format.output().unwrap();
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));
        let log = File::create(directory.path().join("log")).unwrap();
        let mut command = java(&classpath);
        command.arg("kafka.Kafka").arg(&properties).stdout(log.try_clone().unwrap()).stderr(log);
        let broker = Broker { process: Group::spawn(&mut command).unwrap(), port, directory };
        broker.wait_until_up();
        broker
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn wait_until_up(&self) {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.address()).set("log_level", "0").create().unwrap();
        let deadline = Instant::now() + Duration::from_secs(90);
        while consumer.fetch_metadata(None, Duration::from_secs(1)).is_err() {
            let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the broker does not answer:\n{}", log());
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.process.stop(Duration::from_secs(10));
    }
}

fn server_properties(directory: &Path, port: u16, controller: u16) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\nlog.dirs={}\n\
         auto.create.topics.enable=false\ngroup.initial.rebalance.delay.ms=0\n\
         offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nlog.retention.check.interval.ms=5000\nlog.initial.task.delay.ms=5000\n\
         log.segment.delete.delay.ms=1000\n",
        directory.join("data").display()
    )
}

/// The jars of the version that the project pins; `scripts/bench.sh` gets them.
fn classpath() -> String {
    let output = Command::new("bash").arg(root().join("scripts/kafka.sh")).arg("classpath").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Java with the heap that Kafka's own start script asks for: one that grows while it is measured collects more often.
fn java(classpath: &str) -> Command {
    let program = std::env::var_os("JAVA_HOME").map_or("java".into(), |home| PathBuf::from(home).join("bin/java"));
    let mut java = Command::new(program);
    java.args([
        "-Xms1g",
        "-Xmx1g",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-Djava.awt.headless=true",
        "-cp",
        classpath,
    ]);
    java.arg(format!("-Dlog4j2.configurationFile={}", root().join("scripts/kafka/log4j2.properties").display()));
    java
}

/// A port nobody listens on.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
