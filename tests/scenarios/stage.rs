// SPDX-License-Identifier: MIT
//! Where scenarios play: three sinks behind a switch, the brokers that they write to, and the clients that read there.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::clients::{self, Consumer, Message};
use crate::support::freeswitch::{FreeSwitch, Installation};
use crate::support::host::{Host, HostOptions};
use crate::support::kafka::Kafka;
use crate::support::oracle;
use crate::support::rabbitmq::RabbitMq;
use crate::support::skips::{self, Missing};
use crate::support::switch::{Delivered, Switch};
use crate::support::{Folder, wait_for, wait_until};

/// Nothing takes that long unless it hangs; the machine may have much else to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// The names of the sinks, and their types.
pub(crate) const SINKS: [(&str, &str); 3] =
    [("journal", "file"), ("rabbit", "amqp"), ("stream", "kafka")];

/// Runs a scenario in the host and in every FreeSWITCH that is installed, each with exchange, topic and files of its own.
/// The module is configured and not loaded.
pub(crate) fn on_each_switch(test: &str, scenario: impl Fn(&mut dyn Switch, &mut Stage)) {
    on_the_host(test, HostOptions::default(), |host, stage| scenario(host, stage));
    on_each_freeswitch(test, |switch, stage| scenario(switch, stage));
}

/// Runs a scenario in the host.
pub(crate) fn on_the_host(
    test: &str,
    options: HostOptions,
    scenario: impl FnOnce(&mut Host, &mut Stage),
) {
    let mut stage = Stage::new(test);
    let mut host = Host::with(&stage.configuration(), options);
    eprintln!("{test}: on a {}", host.name());
    scenario(&mut host, &mut stage);
    host.stop();
}

/// Runs a scenario in every FreeSWITCH that is installed.
pub(crate) fn on_each_freeswitch(test: &str, scenario: impl Fn(&mut FreeSwitch, &mut Stage)) {
    for installation in skips::unless(test, Installation::all()).unwrap_or_default() {
        let mut stage = Stage::new(test);
        let mut switch = FreeSwitch::with(installation, &stage.configuration(), &[]);
        eprintln!("{test}: on {}", switch.name());
        scenario(&mut switch, &mut stage);
        switch.stop();
    }
}

/// A server that tests share which leave it as it was. It ends with the last of them.
fn shared<T>(place: &Mutex<Weak<T>>, start: fn() -> Result<T, Missing>) -> Result<Arc<T>, Missing> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(running) = place.upgrade() {
        return Ok(running);
    }
    let started = Arc::new(start()?);
    *place = Arc::downgrade(&started);
    Ok(started)
}

/// The RabbitMQ of all tests that do it no harm.
pub(crate) fn rabbit(test: &str) -> Option<Arc<RabbitMq>> {
    static NODE: Mutex<Weak<RabbitMq>> = Mutex::new(Weak::new());
    skips::unless(test, clients::pika())?;
    skips::unless(test, shared(&NODE, RabbitMq::start))
}

/// The Kafka of all tests that do it no harm.
pub(crate) fn kafka(test: &str) -> Option<Arc<Kafka>> {
    static NODE: Mutex<Weak<Kafka>> = Mutex::new(Weak::new());
    skips::unless(test, shared(&NODE, Kafka::start))
}

/// A sink as its configuration names it.
pub(crate) fn sink(
    name: &str,
    kind: &str,
    events: &str,
    parameters: &[(&str, &str)],
    more: &str,
) -> String {
    let parameters: String = parameters
        .iter()
        .map(|(name, value)| format!("<param name=\"{name}\" value=\"{value}\"/>\n"))
        .collect();
    format!(
        "<sink name=\"{name}\" type=\"{kind}\" events=\"{events}\">\n{parameters}{more}</sink>\n"
    )
}

/// A topic, made by asking for it.
pub(crate) fn make_topic(kafka: &Kafka, topic: &str) {
    wait_until(LIMIT, "the topic to be made", || {
        let asked = Command::new("kcat")
            .args(["-L", "-m", "5", "-b", &kafka.bootstrap(), "-t", topic])
            .stderr(Stdio::null())
            .output()
            .expect("kcat can be started");
        let said = String::from_utf8_lossy(&asked.stdout).into_owned();
        said.contains("partition 0, leader 1") && !said.contains("Broker:")
    });
}

/// Three sinks, as far as the machine has the brokers, and what reads behind them.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) folder: Folder,
    pub(crate) exchange: String,
    pub(crate) topic: String,
    pub(crate) rabbit: Option<(Arc<RabbitMq>, Consumer)>,
    pub(crate) kafka: Option<(Arc<Kafka>, Consumer)>,
    /// What each sink asks for.
    pub(crate) events: String,
    /// More parameters of every sink.
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// More parameters of the settings.
    pub(crate) settings: Vec<(&'static str, String)>,
}

impl Stage {
    pub(crate) fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (exchange, topic) = (format!("exchange{number}"), format!("topic{number}"));
        let kafka = kafka(test).map(|kafka| {
            make_topic(&kafka, &topic);
            let consumer = Consumer::kafka(&kafka.bootstrap(), &topic, &[]);
            (kafka, consumer)
        });
        let rabbit = rabbit(test).map(|rabbit| {
            let consumer = Consumer::amqp(&rabbit.url(), &exchange, "#", None);
            (rabbit, consumer)
        });
        Self {
            folder: Folder::new("stage"),
            exchange,
            topic,
            rabbit,
            kafka,
            events: "ALL".into(),
            parameters: Vec::new(),
            settings: vec![("node-name", "fs1".into())],
        }
    }

    /// The sinks that there are: name, type.
    pub(crate) fn sinks(&self) -> Vec<(&'static str, &'static str)> {
        let there = |kind: &str| match kind {
            "amqp" => self.rabbit.is_some(),
            "kafka" => self.kafka.is_some(),
            _ => true,
        };
        SINKS.into_iter().filter(|(_, kind)| there(kind)).collect()
    }

    /// The configuration of all sinks that there are.
    pub(crate) fn configuration(&self) -> String {
        let (amqp, kafka) = self.ports();
        self.configuration_at(amqp, kafka)
    }

    /// The brokers' ports; where one is missing, a port that nobody listens on.
    pub(crate) fn ports(&self) -> (u16, u16) {
        (
            self.rabbit.as_ref().map_or(1, |(rabbit, _)| rabbit.port()),
            self.kafka.as_ref().map_or(1, |(kafka, _)| kafka.port()),
        )
    }

    /// The same with the brokers behind these ports: a proxy's.
    pub(crate) fn configuration_at(&self, amqp: u16, kafka: u16) -> String {
        let sinks: String =
            self.sinks().iter().map(|(_, kind)| self.sink_at(kind, amqp, kafka)).collect();
        self.document(&sinks)
    }

    /// One sink.
    pub(crate) fn sink_at(&self, kind: &str, amqp: u16, kafka: u16) -> String {
        let path = format!("{}/journal/events.ndjson", self.folder.path().display());
        let url = format!("amqp://guest:guest@127.0.0.1:{amqp}/%2f");
        let servers = format!("127.0.0.1:{kafka}");
        let mut parameters: Vec<(&str, &str)> = match kind {
            "file" => vec![("path", &path)],
            "amqp" => vec![("url", &url), ("exchange", &self.exchange)],
            _ => vec![("bootstrap-servers", &servers), ("topic", &self.topic)],
        };
        parameters.extend(self.parameters.iter().map(|(name, value)| (*name, value.as_str())));
        let (name, _) = SINKS.into_iter().find(|(_, k)| *k == kind).expect("a type of sink");
        sink(name, kind, &self.events, &parameters, "")
    }

    /// A whole configuration around these sinks.
    pub(crate) fn document(&self, sinks: &str) -> String {
        let storage = format!("{}/storage", self.folder.path().display());
        let settings: String = self
            .settings
            .iter()
            .map(|(name, value)| format!("<param name=\"{name}\" value=\"{value}\"/>\n"))
            .collect();
        format!(
            "<configuration name=\"rustbridge.conf\">\n<settings>\n<param name=\"storage-dir\" value=\"{storage}\"/>\n\
             {settings}</settings>\n<sinks>\n{sinks}</sinks>\n</configuration>\n"
        )
    }

    /// Everything that has arrived in a sink's place.
    pub(crate) fn arrived(&self, kind: &str) -> Vec<Message> {
        match kind {
            "file" => clients::read_ndjson(&self.folder.join("journal")),
            "amqp" => self.rabbit.as_ref().expect("there is a RabbitMQ").1.messages(),
            _ => self.kafka.as_ref().expect("there is a Kafka").1.messages(),
        }
    }

    /// Waits until everything generated has arrived in every sink, for scenarios in which counters begin anew. Gives for
    /// each sink its type and its messages; when something never comes, what did.
    pub(crate) fn settle_by_oracle(&self, sent: &[Delivered]) -> Vec<(&'static str, Vec<Message>)> {
        let each = self.sinks().into_iter().map(|(_, kind)| {
            let end = Instant::now() + LIMIT;
            let mut messages = self.arrived(kind);
            while !oracle::judge(sent, &messages).lost.is_empty() && Instant::now() < end {
                std::thread::park_timeout(Duration::from_millis(100));
                messages = self.arrived(kind);
            }
            (kind, messages)
        });
        each.collect()
    }

    /// Waits until nothing waits in any sink and each account is balanced; then until the clients have got what the sinks
    /// say that they delivered. Gives for each sink its type, its status and its messages.
    pub(crate) fn settle(
        &self,
        switch: &mut dyn Switch,
    ) -> Vec<(&'static str, Value, Vec<Message>)> {
        let accounts = wait_balanced(switch);
        let sinks = self.sinks().into_iter();
        sinks
            .map(|(name, kind)| {
                let account = accounts.iter().find(|sink| sink["name"] == name);
                let account = account.unwrap_or_else(|| panic!("no sink {name}")).clone();
                let count = number(&account, "delivered") + number(&account, "gaps");
                let count = usize::try_from(count).expect("a count fits");
                let what = format!("{count} messages in {name} without a hole in their numbers");
                // Asking is an event too in a real switch, so that there may be more, and not yet all of those.
                let messages = wait_for(LIMIT, &what, || {
                    let messages = self.arrived(kind);
                    let is_whole = messages.len() >= count && holes(kind, &messages).is_empty();
                    is_whole.then_some(messages)
                });
                (kind, account, messages)
            })
            .collect()
    }
}

/// A number of a status.
pub(crate) fn number(status: &Value, name: &str) -> u64 {
    status[name].as_u64().unwrap_or_else(|| panic!("no number {name} in {status}"))
}

/// All drops of a sink, whatever the reason.
pub(crate) fn dropped(status: &Value) -> u64 {
    let reasons = status["dropped"].as_object().expect("reasons and counts");
    reasons.values().map(|count| count.as_u64().expect("a count")).sum()
}

/// The statuses of the sinks.
pub(crate) fn statuses(switch: &mut dyn Switch) -> Vec<Value> {
    let status = switch.json("rustbridge status json");
    status["sinks"].as_array().expect("an array of sinks").clone()
}

/// The status of one.
pub(crate) fn status_of(switch: &mut dyn Switch, name: &str) -> Value {
    let all = statuses(switch);
    let found = all.into_iter().find(|sink| sink["name"] == name);
    found.unwrap_or_else(|| panic!("no sink {name}"))
}

/// Whether what was offered is what became of it.
pub(crate) fn is_balanced(sink: &Value) -> bool {
    let n = |name: &str| number(sink, name);
    n("offered") + n("recovered")
        == n("filtered") + n("delivered") + dropped(sink) + n("dead") + n("waiting")
}

/// Waits until the switch is quiet: nothing waits in any sink, and each account is balanced. Each look is an event that waits
/// for its confirm too, so that a slow disk below a broker needs longer and longer pauses between looks.
pub(crate) fn wait_balanced(switch: &mut dyn Switch) -> Vec<Value> {
    let mut last = Vec::new();
    let mut pause = Duration::from_millis(50);
    let end = Instant::now() + LIMIT * 2;
    loop {
        let all = statuses(switch);
        if all.iter().all(|sink| number(sink, "waiting") == 0 && is_balanced(sink)) {
            return all;
        }
        assert!(Instant::now() < end, "not quiet: {all:#?}, before: {last:#?}");
        last = all;
        std::thread::park_timeout(pause);
        pause = (pause * 3 / 2).min(Duration::from_secs(3));
    }
}

/// Waits until every sink has its connection.
pub(crate) fn wait_connected(switch: &mut dyn Switch) {
    wait_until(LIMIT, "all sinks to be connected", || {
        statuses(switch).iter().all(|sink| sink["state"] == "connected")
    });
}

/// The number of a message in its sink's stream.
pub(crate) fn seq(kind: &str, message: &Message) -> u64 {
    let found = match kind {
        "file" => message.json().get("rb-seq").and_then(Value::as_str).and_then(|n| n.parse().ok()),
        _ => message.number("seq"),
    };
    found.unwrap_or_else(|| panic!("no seq: {message:?}"))
}

/// The boot whose stream a message is of.
pub(crate) fn boot(kind: &str, message: &Message) -> String {
    let found = match kind {
        "file" => message.json().get("rb-boot").and_then(Value::as_str).map(Into::into),
        _ => message.headers.get("boot").cloned(),
    };
    found.unwrap_or_else(|| panic!("no boot: {message:?}"))
}

/// The numbers that a stream should have and has not, from one to its last: those of no message and of no gap record.
pub(crate) fn holes(kind: &str, messages: &[Message]) -> Vec<(String, u64)> {
    let mut streams: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for message in messages {
        let numbers = streams.entry(boot(kind, message)).or_default();
        let last = seq(kind, message);
        numbers.extend(gap(message).map_or(last, |(first, _)| first)..=last);
    }
    let of_stream = |(boot, numbers): (String, BTreeSet<u64>)| {
        oracle::holes(1, numbers).into_iter().map(move |number| (boot.clone(), number))
    };
    streams.into_iter().flat_map(of_stream).collect()
}

/// The first and the last number that a gap record tells as missing.
pub(crate) fn gap(message: &Message) -> Option<(u64, u64)> {
    let event = message.json();
    if event.get("Event-Subclass").and_then(Value::as_str) != Some("rustbridge::gap") {
        return None;
    }
    let number = |name: &str| event[name].as_str().and_then(|n| n.parse().ok());
    Some((number("Rustbridge-First-Seq")?, number("Rustbridge-Last-Seq")?))
}

/// The event of a message, without what a file adds to it.
pub(crate) fn event_of(message: &Message) -> serde_json::Map<String, Value> {
    message.event()
}
