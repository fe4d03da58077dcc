// SPDX-License-Identifier: MIT
//! A real Apache Kafka of the test's own: one node that is broker and controller (`KRaft`), from the Maven artifacts that
//! `make setup` put into the user's cache.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::certificates::Authority;
use super::process::Leashed;
use super::proxy::Proxy;
use super::rough_line::free_network;
use super::skips::Missing;
use super::{Folder, free_port, in_path, wait_until};

/// The version that `tests/setup.sh` brings.
const VERSION: &str = "4.1.0";

/// What a node does other than by default.
#[derive(Debug, Default)]
pub struct KafkaOptions<'a> {
    /// A second listener with TLS and SASL PLAIN: user `fs1`, password `secret`.
    pub secure: Option<&'a Authority>,
    /// Have clients come to that listener by [`Kafka::secure_proxy`] alone.
    pub secure_by_proxy: bool,
    /// The node that leads the cluster which this one joins, as a broker alone, and its number there.
    pub joins: Option<(&'a Kafka, u16)>,
    /// Refuse to make topics on first use.
    pub no_auto_create: bool,
    /// More lines for `server.properties`.
    pub properties: String,
}

/// A running node.
#[derive(Debug)]
pub struct Kafka {
    folder: Folder,
    jars: PathBuf,
    port: u16,
    controller: u16,
    secure_port: u16,
    secure_listens: u16,
    /// Where it listens for what comes by a proxy, and where it says that clients should go for that.
    proxied: (u16, u16),
    /// The same for what comes by a line of packets, and the address at its near end.
    lined: (Ipv4Addr, u16, u16),
    server: Option<Leashed>,
}

fn find() -> Result<PathBuf, Missing> {
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let jars = cache.or_else(home).unwrap_or_default().join("rustbridge-kafka").join(VERSION);
    if in_path("java").is_none() {
        return Err(Missing::new(
            "java is not installed",
            "apt-get install default-jre-headless, or make setup",
        ));
    }
    if in_path("kcat").is_none() {
        return Err(Missing::new("kcat is not installed", "apt-get install kcat, or make setup"));
    }
    if !jars.join(".complete").is_file() {
        return Err(Missing::new(
            "Apache Kafka is not in the cache",
            "make setup, with maven and a network",
        ));
    }
    Ok(jars)
}

impl Kafka {
    /// Starts a node, or says what is missing.
    pub fn start() -> Result<Self, Missing> {
        Self::with(&KafkaOptions::default())
    }

    pub fn with(options: &KafkaOptions<'_>) -> Result<Self, Missing> {
        let jars = find()?;
        let folder = Folder::new("kafka");
        let (port, secure_port) = (free_port(), free_port());
        let controller = options.joins.map_or_else(free_port, |(first, _)| first.controller);
        let (roles, number) = match options.joins {
            None => ("broker,controller", 1),
            Some((_, number)) => ("broker", number),
        };
        let proxied = (free_port(), free_port());
        let lined = (free_network(), free_port(), free_port());
        let secure_listens = if options.secure_by_proxy { free_port() } else { secure_port };
        let mut listeners = format!(
            "PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{},LINED://127.0.0.1:{}",
            proxied.0, lined.1
        );
        if options.joins.is_none() {
            write!(listeners, ",CONTROLLER://127.0.0.1:{controller}").unwrap();
        }
        let mut advertised = format!(
            "PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{},LINED://{}:{}",
            proxied.1, lined.0, lined.2
        );
        let mut more = String::new();
        if let Some(authority) = options.secure {
            let own = authority.sign("kafka", &["DNS:localhost", "IP:127.0.0.1"], 2);
            write!(listeners, ",SASL_SSL://127.0.0.1:{secure_listens}").unwrap();
            write!(advertised, ",SASL_SSL://127.0.0.1:{secure_port}").unwrap();
            write!(
                more,
                "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
                 sasl.enabled.mechanisms=PLAIN\nlistener.name.sasl_ssl.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required user_fs1=\"secret\";\n",
                own.both.display(),
                authority.certificate().display()
            )
            .unwrap();
        }
        folder.write(
            "server.properties",
            format!(
                "process.roles={roles}\nnode.id={number}\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\nlisteners={listeners}\n\
                 advertised.listeners={advertised}\n\
                 controller.listener.names=CONTROLLER\nlistener.security.protocol.map=\
                 CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,LINED:PLAINTEXT,SASL_SSL:SASL_SSL\n\
                 log.dirs={}\nnum.partitions=3\nauto.create.topics.enable={}\n\
                 offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
                 transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
                 share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n{more}{}\n",
                folder.join("data").display(),
                !options.no_auto_create,
                options.properties
            ),
        );
        let mut node = Self {
            folder,
            jars,
            port,
            controller,
            secure_port,
            secure_listens,
            proxied,
            lined,
            server: None,
        };
        let mut format = vec!["format", "-t", "cnVzdGJyaWRnZS10ZXN0cw"];
        if options.joins.is_none() {
            format.push("--standalone");
        }
        format.push("-c");
        let properties = node.folder.join("server.properties");
        let made = node.java("kafka.tools.StorageTool").args(format).arg(&properties).output();
        let made = made.expect("java can be started");
        assert!(made.status.success(), "format: {}", String::from_utf8_lossy(&made.stderr));
        node.start_again();
        Ok(node)
    }

    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        // Little memory and a quick compiler: it is one of several servers on a small machine.
        command
            .args(["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}/*", self.jars.display()));
        command.arg(class).current_dir(self.folder.path());
        command
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its name and version.
    pub fn version() -> String {
        format!("Apache Kafka {VERSION}")
    }

    /// `127.0.0.1:PORT`, for `bootstrap-servers`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The listener with TLS and SASL.
    pub fn secure_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.secure_port)
    }

    /// A network of its own between clients and the node: a client that bootstraps by the proxy's port stays behind it.
    pub fn proxy(&self) -> Proxy {
        let (listens, tells) = self.proxied;
        Proxy::at(tells, listens)
    }

    /// The same for the listener with TLS and SASL, when it is only reached so.
    pub fn secure_proxy(&self) -> Proxy {
        Proxy::at(self.secure_port, self.secure_listens)
    }

    /// The address at the near end of a line of packets by which clients may come.
    pub fn near(&self) -> Ipv4Addr {
        self.lined.0
    }

    /// What clients beyond such a line connect to, once it is laid.
    pub fn near_proxy(&self) -> Proxy {
        let (near, listens, tells) = self.lined;
        Proxy::on(near, tells, listens)
    }

    /// Starts the node after `kill` or `stop`: same ports, same data.
    pub fn start_again(&mut self) {
        self.begin();
        self.wait_ready();
    }

    /// Starts without waiting until it answers.
    pub fn begin(&mut self) {
        let mut command = self.java("kafka.Kafka");
        command.arg(self.folder.join("server.properties"));
        self.server = Some(Leashed::start(&command, &self.folder.join("out")));
    }

    pub fn wait_ready(&mut self) {
        let (out, port) = (self.folder.join("out"), self.port);
        let bootstrap = self.bootstrap();
        let server = self.server.as_mut().expect("the node has been started");
        wait_until(Duration::from_secs(90), "Kafka to be up", || {
            let said = || fs::read_to_string(&out).unwrap_or_default();
            assert!(server.is_running(), "Kafka ended at its start:\n{}", said());
            TcpStream::connect(("127.0.0.1", port)).is_ok()
                && Command::new("kcat")
                    .args(["-L", "-m", "3", "-b", &bootstrap])
                    .output()
                    .is_ok_and(|o| o.status.success())
        });
    }

    fn server(&mut self) -> &mut Leashed {
        self.server.as_mut().expect("the node has been started")
    }

    /// Orderly.
    pub fn stop(&mut self) {
        self.server().terminate(Duration::from_secs(60));
        self.server = None;
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.server().kill();
        self.server = None;
    }

    pub fn pause(&mut self) {
        self.server().pause();
    }

    pub fn resume(&mut self) {
        self.server().resume();
    }

    /// Whether each partition of a topic has copies on all of these brokers that are up to date: `2,3`.
    pub fn in_sync(&self, topic: &str, brokers: &str) -> bool {
        let mut command = Command::new("kcat");
        command.args(["-L", "-J", "-m", "5", "-b", &self.bootstrap(), "-t", topic]);
        let said = command.output().expect("kcat can be started").stdout;
        let known: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
        let partitions = known["topics"][0]["partitions"].as_array().cloned().unwrap_or_default();
        !partitions.is_empty()
            && partitions.iter().all(|partition| {
                let copies = partition["isrs"].as_array().cloned().unwrap_or_default();
                let mut copies: Vec<String> =
                    copies.iter().map(|copy| copy["id"].to_string()).collect();
                copies.sort();
                copies.join(",") == brokers
            })
    }

    /// Makes a topic of as many partitions as there are lists of brokers, the first of which leads.
    pub fn create_topic_on(&self, name: &str, brokers: &[&str]) {
        let mut command = self.java("org.apache.kafka.tools.TopicCommand");
        command.args(["--bootstrap-server", &self.bootstrap(), "--create", "--topic", name]);
        command.args(["--replica-assignment", &brokers.join(",")]);
        let made = command.output().expect("java can be started");
        assert!(made.status.success(), "topic {name}: {}", String::from_utf8_lossy(&made.stdout));
    }

    /// Makes a topic; a topic's own settings as `("max.message.bytes", "2000")`.
    pub fn create_topic(&self, name: &str, partitions: u32, settings: &[(&str, &str)]) {
        let partitions = partitions.to_string();
        let bootstrap = self.bootstrap();
        let mut command = self.java("org.apache.kafka.tools.TopicCommand");
        command.args([
            "--bootstrap-server",
            &bootstrap,
            "--create",
            "--topic",
            name,
            "--partitions",
            &partitions,
        ]);
        for (key, value) in settings {
            command.args(["--config", &format!("{key}={value}")]);
        }
        let made = command.output().expect("java can be started");
        assert!(made.status.success(), "topic {name}: {}", String::from_utf8_lossy(&made.stdout));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("out")).unwrap_or_default()
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.server = None;
    }
}
