// SPDX-License-Identifier: MIT
//! Networks with RabbitMQ, Kafka and a container for clients, which tests share.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Run, ask, command, docker, logs};
use crate::gate::{Gate, Turn, Use, Uses, breaks};
use crate::shell::Shell;
use crate::support::clients::{Consumer, Message};
use crate::support::{Folder, root, wait_until};

/// How long a broker may take to be up.
pub const UP: Duration = Duration::from_secs(90);

/// `amqp://…` as every container of the network may use it.
pub const RABBITMQ_URL: &str = "amqp://guest:guest@rabbitmq:5672/%2f";
pub const KAFKA: &str = "kafka:9092";

const RABBITMQ_CONF: &str = "loopback_users.guest = false\nlog.console = true\n";
/// Of its defaults, one would make a broker that was killed wait nine seconds until it is forgotten and may come back.
const KAFKA_PROPERTIES: &str = "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://localhost:9093
advertised.listeners=PLAINTEXT://kafka:9092
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=/var/lib/kafka/data
num.partitions=3
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
";

/// A broker container, by the name that others know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broker {
    RabbitMq,
    Kafka,
}

impl Broker {
    pub const ALL: [Self; 2] = [Self::RabbitMq, Self::Kafka];

    pub fn alias(self) -> &'static str {
        match self {
            Self::RabbitMq => "rabbitmq",
            Self::Kafka => "kafka",
        }
    }

    /// One `<sink>` of this broker, named like it, that publishes to `place`.
    pub fn sink(self, place: &str, events: &str, more: &[(&str, &str)]) -> String {
        let (kind, mut params) = match self {
            Self::RabbitMq => (
                "amqp",
                vec![
                    ("url", RABBITMQ_URL),
                    ("exchange", place),
                    ("heartbeat-ms", "2000"),
                    ("confirm-timeout-ms", "5000"),
                    ("connect-timeout-ms", "2000"),
                ],
            ),
            Self::Kafka => ("kafka", vec![("bootstrap-servers", KAFKA), ("topic", place)]),
        };
        params.extend_from_slice(more);
        sink(self.alias(), kind, events, &params)
    }
}

/// One `<sink>`.
pub fn sink(name: &str, kind: &str, events: &str, params: &[(&str, &str)]) -> String {
    let params =
        params.iter().map(|(name, value)| format!("<param name=\"{name}\" value=\"{value}\"/>"));
    format!(
        "<sink name=\"{name}\" type=\"{kind}\" events=\"{events}\">{}</sink>\n",
        params.collect::<String>()
    )
}

/// What the generator fires and nothing else, so that counters can be compared with it.
pub const GENERATED: &str = "CUSTOM gen::test";

/// A network and what is on it.
#[derive(Debug)]
pub struct Ground {
    pub run: Run,
    /// The beginning of the names of its containers.
    prefix: String,
    pub network: String,
    client: String,
    cli: String,
    /// Shells in the container of clients that nobody uses at the moment.
    shells: Mutex<Vec<Shell>>,
    /// Whether each broker came up.
    up: [Mutex<Option<bool>>; 2],
}

/// Each made by the first test that needs it, and there until the run ends: the one whose brokers are up all the time, and the
/// one where they are broken.
static WHOLE: Mutex<Option<&Ground>> = Mutex::new(None);
static BROKEN: Mutex<Option<&Ground>> = Mutex::new(None);
static BEGUN: Mutex<Option<Instant>> = Mutex::new(None);
static GATE: Gate = Gate::new();

/// Whatever became of who had it before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The ground, for as long as a test has its turn. Where it was alone with a broker, the end sees to it that the broker is up.
pub struct Held {
    ground: &'static Ground,
    uses: Uses,
    _turn: Turn<'static>,
}

impl std::ops::Deref for Held {
    type Target = Ground;

    fn deref(&self) -> &Ground {
        self.ground
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (broker, used) in Broker::ALL.into_iter().zip(self.uses) {
            if used == Use::Alone {
                self.ground.heal(broker);
            }
        }
    }
}

/// The ground, for a test that leaves the brokers alone. None, and a note of it, where there is no run.
pub fn ground(test: &str) -> Option<Held> {
    ground_with(test, [Use::Shared; 2])
}

/// The same for a test that stops these brokers, or keeps others from them, and has nothing to do with any other.
pub fn ground_alone(test: &str, brokers: &[Broker]) -> Option<Held> {
    let uses = |broker| if brokers.contains(&broker) { Use::Alone } else { Use::No };
    ground_with(test, Broker::ALL.map(uses))
}

/// The same for a test without brokers.
pub fn ground_apart(test: &str) -> Option<Held> {
    ground_with(test, [Use::No; 2])
}

/// The same for a test that uses the brokers so.
pub fn ground_with(test: &str, uses: Uses) -> Option<Held> {
    let run = Run::find()?;
    let turn = GATE.enter(test, uses);
    let begun = *lock(&BEGUN).get_or_insert_with(Instant::now);
    let (slot, name) = if breaks(uses) { (&BROKEN, "broken") } else { (&WHOLE, "whole") };
    let prefix = format!("{}-{name}", run.id);
    let ground = *lock(slot).get_or_insert_with(|| Box::leak(Box::new(Ground::make(run, prefix))));
    let held = Held { ground, uses, _turn: turn };
    for (broker, used) in Broker::ALL.into_iter().zip(uses) {
        if used != Use::No {
            held.be_up(broker);
        }
    }
    println!("\n=== {test}, at {} s", begun.elapsed().as_secs());
    Some(held)
}

impl Ground {
    fn make(run: Run, prefix: String) -> Self {
        let ground = Self::with_network(run, prefix);
        for broker in Broker::ALL {
            ground.make_broker(broker, broker.alias());
        }
        ground.make_clients();
        ground
    }

    /// A ground of a test's own, where there are no brokers yet.
    pub fn apart(&self, what: &str) -> Self {
        let ground = Self::with_network(self.run.clone(), format!("{}-{what}", self.run.id));
        ground.make_clients();
        ground
    }

    /// Its containers would be there until the run ends.
    pub fn remove(&self) {
        let brokers = Broker::ALL.map(|broker| self.broker(broker));
        docker(&["rm", "-f", "-v", &brokers[0], &brokers[1], &self.client, &self.cli]);
        docker(&["network", "rm", &self.network]);
    }

    fn with_network(run: Run, prefix: String) -> Self {
        let network = format!("{prefix}-net");
        docker(&["network", "create", "--label", &run.label(), &network]);
        Self {
            client: format!("{prefix}-client"),
            cli: format!("{prefix}-cli"),
            run,
            prefix,
            network,
            shells: Mutex::default(),
            up: Default::default(),
        }
    }

    fn make_clients(&self) {
        let image = &self.run.client;
        self.start(&self.client, image, "client", &[], &[], &["sleep", "infinity"]);
        let script = root().join("tests/support/amqp.py");
        docker(&["cp", script.to_str().unwrap(), &format!("{}:/amqp.py", self.client)]);
        // Where commands come from: a FreeSWITCH image that runs no FreeSWITCH.
        let options = ["--no-healthcheck"];
        self.start(&self.cli, &self.run.test[0], "cli", &options, &[], &["sleep", "infinity"]);
    }

    /// A container on the network, running; `files` are copied into it first.
    pub fn start(
        &self,
        name: &str,
        image: &str,
        alias: &str,
        options: &[&str],
        files: &[(&str, &str)],
        arguments: &[&str],
    ) {
        let label = self.run.label();
        let mut create = vec!["create", "--name", name, "--hostname", alias, "--label", &label];
        create.extend(["--network", &self.network, "--network-alias", alias]);
        create.extend_from_slice(options);
        create.push(image);
        create.extend_from_slice(arguments);
        docker(&create);
        let folder = Folder::new("docker");
        for (path, text) in files {
            let from = folder.write("file", text);
            docker(&["cp", from.to_str().unwrap(), &format!("{name}:{path}")]);
        }
        docker(&["start", name]);
    }

    pub fn broker(&self, broker: Broker) -> String {
        format!("{}-{}", self.prefix, broker.alias())
    }

    /// Starts a broker that the network knows by this name, and by its container's.
    pub fn make_broker(&self, broker: Broker, alias: &str) {
        let name = self.broker(broker);
        let (image, file) = match broker {
            Broker::RabbitMq => {
                (&self.run.rabbitmq, ("/etc/rabbitmq/conf.d/10-test.conf", RABBITMQ_CONF))
            }
            Broker::Kafka => {
                (&self.run.kafka, ("/mnt/shared/config/server.properties", KAFKA_PROPERTIES))
            }
        };
        // docker cp makes no folders: a volume at the place of the file's folder does.
        let place = "/mnt/shared/config";
        let options: &[&str] = if broker == Broker::Kafka { &["-v", place] } else { &[] };
        self.start(&name, image, alias, options, &[file], &[]);
    }

    /// Whether a client gets an answer. Whether the port is open is known for less, and asked first.
    pub fn answers(&self, broker: Broker) -> bool {
        let (port, words): (_, &[&str]) = match broker {
            Broker::RabbitMq => (
                "exec 3<>/dev/tcp/rabbitmq/5672",
                &["python3", "/amqp.py", "declare", RABBITMQ_URL, "probe", "topic"],
            ),
            Broker::Kafka => {
                ("exec 3<>/dev/tcp/kafka/9092", &["kcat", "-L", "-m", "3", "-b", KAFKA])
            }
        };
        self.client(&["timeout", "1", "bash", "-c", port]).is_ok() && self.client(words).is_ok()
    }

    pub fn wait_up(&self, broker: Broker) {
        wait_until(UP, broker.alias(), || self.answers(broker));
    }

    /// The first time that a broker is needed it may still be starting.
    fn be_up(&self, broker: Broker) {
        let number = usize::from(broker == Broker::Kafka);
        let up = *lock(&self.up[number]).get_or_insert_with(|| self.comes_up(broker));
        assert!(up, "{} has not come up: {}", broker.alias(), logs(&self.broker(broker)));
    }

    fn comes_up(&self, broker: Broker) -> bool {
        let end = Instant::now() + UP;
        while !self.answers(broker) {
            if Instant::now() >= end {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        true
    }

    /// Undoes whatever a test left behind, whichever way it ended: so nothing in it may panic.
    fn heal(&self, broker: Broker) {
        let name = self.broker(broker);
        drop(ask(&["unpause", &name]));
        drop(ask(&["start", &name]));
        // Where it is connected already this is refused.
        drop(self.try_connect(broker));
        self.comes_up(broker);
    }

    pub fn disconnect(&self, broker: Broker) {
        docker(&["network", "disconnect", "-f", &self.network, &self.broker(broker)]);
    }

    pub fn connect(&self, broker: Broker) {
        self.try_connect(broker).unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_connect(&self, broker: Broker) -> Result<String, String> {
        let name = self.broker(broker);
        ask(&["network", "connect", "--alias", broker.alias(), &self.network, &name])
    }

    /// A command in the container of clients.
    pub fn client(&self, words: &[&str]) -> Result<String, String> {
        let free = lock(&self.shells).pop();
        let mut shell = free.unwrap_or_else(|| Shell::new(&self.client));
        let answer = shell.run(words, UP);
        lock(&self.shells).push(shell);
        answer
    }

    /// A shell where `fs_cli` is.
    pub fn cli(&self) -> Shell {
        Shell::new(&self.cli)
    }

    /// `fs_cli` in a container of its own.
    pub fn fs_cli(&self, node: &str, line: &str) -> Command {
        let run = ["exec", &self.cli, "rustbridge-start", "fs_cli", "-H", node, "-p", "ClueCon"];
        command(&[&run[..], &["-t", "300000", "-x", line]].concat())
    }

    /// Reads what is published to an exchange or a topic, in the container of clients. For RabbitMQ a queue of that name keeps
    /// what comes, from when this is first called; it has one reader at a time.
    pub fn consume(&self, broker: Broker, place: &str) -> Reader {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let pid = format!("/tmp/reader-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        // The client goes with the reader, not with `docker exec`, whose end it would not notice.
        let shell = format!("echo $$ >{pid}; exec \"$@\"");
        let program: &[&str] = match broker {
            Broker::RabbitMq => &["python3", "/amqp.py"],
            Broker::Kafka => &["kcat"],
        };
        let start = ["exec", "-i", &self.client, "sh", "-c", &shell, "reader"];
        let command = command(&[&start[..], program].concat());
        let consumer = match broker {
            Broker::RabbitMq => Consumer::amqp_by(command, RABBITMQ_URL, place, "#", Some(place)),
            Broker::Kafka => Consumer::kafka_by(command, KAFKA, place, &[]),
        };
        Reader { consumer, client: self.client.clone(), pid }
    }

    /// What an exchange's queue or a topic has, once `count` different generated events are among it or `limit` has passed;
    /// a broker may have some of them twice.
    pub fn read(&self, broker: Broker, place: &str, count: usize, limit: Duration) -> Vec<Message> {
        let reader = self.consume(broker, place);
        let end = Instant::now() + limit;
        let mut messages = Vec::new();
        let mut different = BTreeSet::new();
        loop {
            let new = reader.consumer.messages_from(messages.len());
            for message in &new {
                if let Some(number) = generated_number(message) {
                    different.insert((message.headers.get("boot").cloned(), number));
                }
            }
            messages.extend(new);
            if different.len() >= count || Instant::now() >= end {
                return messages;
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// A file out of an image.
    pub fn file_of(&self, image: &str, path: &str) -> Vec<u8> {
        let name = self.run.name("look");
        docker(&["create", "--name", &name, "--label", &self.run.label(), image, "true"]);
        let folder = Folder::new("look");
        let file = folder.join("file");
        docker(&["cp", "-L", &format!("{name}:{path}"), file.to_str().unwrap()]);
        docker(&["rm", "-f", "-v", &name]);
        std::fs::read(file).expect("docker cp wrote it")
    }

    /// What an image of the module found in its FreeSWITCH image: FREESWITCH, `FS_CLI` or CONF.
    pub fn path_of(&self, image: &str, name: &str) -> String {
        let paths = self.file_of(image, "/usr/local/lib/rustbridge/paths");
        let paths = String::from_utf8(paths).expect("paths are text");
        let found = paths.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {paths}")).to_owned()
    }

    /// `rabbitmqctl` with headings off.
    pub fn rabbitmqctl(&self, words: &[&str]) -> String {
        let name = self.broker(Broker::RabbitMq);
        docker(&[&["exec", &name, "rabbitmqctl", "-q"], words].concat())
    }
}

fn generated_number(message: &Message) -> Option<String> {
    message.json().get("Gen-Seq")?.as_str().map(Into::into)
}

/// A consumer in the container of clients; both end together.
#[derive(Debug)]
pub struct Reader {
    pub consumer: Consumer,
    client: String,
    pid: String,
}

impl Drop for Reader {
    fn drop(&mut self) {
        let kill = format!("kill -9 $(cat {})", self.pid);
        drop(ask(&["exec", &self.client, "sh", "-c", &kill]));
    }
}
