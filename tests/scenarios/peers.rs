// SPDX-License-Identifier: MIT
//! Brokers that refuse, are none, or never answer; files and disks that take nothing.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::stage::{
    LIMIT, Stage, dropped, is_balanced, make_topic, number, on_each_switch, rabbit, sink, statuses,
    wait_balanced,
};
use crate::support::clients::{self, Consumer, Message};
use crate::support::kafka::{Kafka, KafkaOptions};
use crate::support::oracle;
use crate::support::skips;
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::wait_until;

/// A peer that is no broker: what it says to whoever connects, then silence or the end.
struct Peer {
    port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn saying(words: &'static [u8], ends: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port can be bound");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            let mut open = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                if let Ok((mut client, _)) = listener.accept() {
                    drop(client.set_nonblocking(false));
                    drop(client.set_read_timeout(Some(Duration::from_secs(1))));
                    let mut header = [0; 8];
                    drop(client.read(&mut header));
                    drop(client.write_all(words));
                    if !ends {
                        open.push(client);
                    }
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
        };
        let thread =
            Builder::new().name("peer".into()).spawn(run).expect("a thread can be started");
        Self { port, stop, thread: Some(thread) }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A file system of a quarter of a megabyte, where this process may make one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn at(folder: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&folder).ok()?;
        let made = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "none"])
            .arg(&folder)
            .output()
            .ok()?;
        made.status.success().then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

/// A sink that cannot deliver.
struct Broken {
    name: &'static str,
    kind: &'static str,
    parameters: Vec<(&'static str, String)>,
    /// What its error must name.
    words: Vec<&'static str>,
}

impl Broken {
    fn amqp(
        name: &'static str,
        url: String,
        more: &[(&'static str, &str)],
        words: &[&'static str],
    ) -> Self {
        let mut parameters = vec![("url", url), ("reconnect-refused-ms", "200".into())];
        parameters.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
        Self { name, kind: "amqp", parameters, words: words.into() }
    }

    fn file(name: &'static str, path: String, words: &[&'static str]) -> Self {
        Self { name, kind: "file", parameters: vec![("path", path)], words: words.into() }
    }

    fn configuration(&self) -> String {
        let parameters: Vec<(&str, &str)> =
            self.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        sink(self.name, self.kind, "ALL", &parameters, "")
    }
}

fn url(login: &str, port: u16, vhost: &str) -> String {
    format!("amqp://{login}@127.0.0.1:{port}/{vhost}")
}

/// A broker that never answers, one that hangs up, one that is a web server.
fn no_brokers() -> [Peer; 3] {
    [
        Peer::saying(b"", false),
        Peer::saying(b"", true),
        Peer::saying(b"HTTP/1.1 400 Bad Request\r\n\r\n", true),
    ]
}

fn broken_sinks(stage: &Stage, peers: &[Peer; 3], disk: bool) -> Vec<Broken> {
    let at = |port: u16| url("guest:guest", port, "%2f");
    let [silent, closing, garbage] = peers;
    let mut all = vec![
        Broken::amqp("silent", at(silent.port), &[("connect-timeout-ms", "500")], &["in time"]),
        Broken::amqp("closing", at(closing.port), &[], &["127.0.0.1"]),
        Broken::amqp("garbage", at(garbage.port), &[], &["127.0.0.1"]),
        Broken::file("unwritable", "/proc/rustbridge/x.ndjson".into(), &["/proc/rustbridge"]),
    ];
    if let Some((rabbit, _)) = &stage.rabbit {
        let port = rabbit.port();
        let absent = [("exchange", "absent"), ("declare", "passive")];
        all.push(Broken::amqp("password", url("guest:wrong", port, "%2f"), &[], &["guest"]));
        all.push(Broken::amqp("vhost", url("guest:guest", port, "nowhere"), &[], &["nowhere"]));
        all.push(Broken::amqp("passive", at(port), &absent, &["absent"]));
    }
    if disk {
        let path = stage.folder.join("small/events.ndjson").display().to_string();
        all.push(Broken::file("full", path, &["small/events.ndjson", "space"]));
    }
    all
}

/// Waits until each says in one line, in its status and in the log, what is wrong, and still has all.
fn wait_named(switch: &mut dyn Switch, sinks: &[Broken]) {
    for Broken { name, words, .. } in sinks {
        wait_until(LIMIT, &format!("sink {name} to name {words:?}"), || {
            let all = statuses(switch);
            let status = all.iter().find(|sink| sink["name"] == *name).expect("the sink").clone();
            let error = status["last_error"].as_str().unwrap_or_default().to_owned();
            assert!(!error.contains("wrong"), "a secret: {error}");
            is_balanced(&status)
                && dropped(&status) == 0
                && number(&status, "waiting") > 0
                && words.iter().all(|word| error.contains(word))
                && error.lines().count() == 1
                && switch.log().contains(&format!("[{name}] {error}"))
        });
    }
}

/// Where a sink that is made right writes to: what reads there, when it is a broker.
fn consumer(stage: &Stage, broken: &Broken) -> Option<(String, Consumer)> {
    let (rabbit, _) = stage.rabbit.as_ref().filter(|_| broken.kind == "amqp")?;
    let exchange = format!("{}-{}", stage.exchange, broken.name);
    let consumer = Consumer::amqp(&rabbit.url(), &exchange, "#", None);
    let right = [("url", rabbit.url()), ("exchange", exchange)];
    let right: Vec<(&str, &str)> = right.iter().map(|(n, value)| (*n, value.as_str())).collect();
    Some((sink(broken.name, "amqp", "ALL", &right, ""), consumer))
}

/// Lines of a sink's files; a disk that was full may hold the beginning of one.
fn lines(stage: &Stage, name: &str) -> Vec<Message> {
    let mut all = clients::read_ndjson(&stage.folder.join(format!("right-{name}")));
    if name == "full" {
        all.extend(clients::read_ndjson(&stage.folder.join("small")));
    }
    all.retain(|message| serde_json::from_slice::<Value>(&message.body).is_ok());
    all
}

fn make_right(switch: &mut dyn Switch, stage: &Stage, sinks: &[Broken], sent: &Delivered) {
    let mut consumers = BTreeMap::new();
    let mut right = String::new();
    for broken in sinks {
        if let Some((configuration, consumer)) = consumer(stage, broken) {
            right += &configuration;
            consumers.insert(broken.name, consumer);
        } else {
            let path = stage.folder.join(format!("right-{}/events.ndjson", broken.name));
            let path = path.display().to_string();
            right += &sink(broken.name, "file", "ALL", &[("path", &path)], "");
        }
    }
    switch.configure(&stage.document(&right));
    let answer = switch.api("rustbridge reload");
    assert!(answer.starts_with("+OK "), "{answer}");
    wait_balanced(switch);
    for Broken { name, .. } in sinks {
        wait_until(LIMIT, &format!("all of {name}"), || {
            let arrived =
                consumers.get(name).map_or_else(|| lines(stage, name), Consumer::messages);
            oracle::judge(std::slice::from_ref(sent), &arrived).lost.is_empty()
        });
    }
}

#[test]
fn a_place_that_takes_nothing_is_named_and_nothing_accepted_is_lost() {
    let test = "a_place_that_takes_nothing_is_named_and_nothing_accepted_is_lost";
    on_each_switch(test, |switch, stage| {
        let disk = SmallDisk::at(stage.folder.join("small"));
        if disk.is_none() {
            skips::note(test, "no small file system can be mounted", "run the tests as root");
        }
        let peers = no_brokers();
        let sinks = broken_sinks(stage, &peers, disk.is_some());
        let configuration: String = sinks.iter().map(Broken::configuration).collect();
        switch.configure(&stage.document(&configuration));
        switch.load().expect("the module loads whatever is broken");
        let sent = switch.deliver(&Load { count: 400, headers: 10, ..Load::default() });
        wait_named(switch, &sinks);
        make_right(switch, stage, &sinks, &sent);
    });
}

#[test]
fn a_topic_that_is_not_there_is_named_and_what_waits_arrives_when_it_is() {
    let test = "a_topic_that_is_not_there_is_named_and_what_waits_arrives_when_it_is";
    let options = KafkaOptions { no_auto_create: true, ..KafkaOptions::default() };
    let Some(kafka) = skips::unless(test, Kafka::with(&options)) else { return };
    drop(rabbit(test));
    on_each_switch(test, |switch, stage| {
        let topic = format!("absent-{}", stage.topic);
        let servers = kafka.bootstrap();
        let stream = sink(
            "stream",
            "kafka",
            "ALL",
            &[("bootstrap-servers", &servers), ("topic", &topic)],
            "",
        );
        switch.configure(&stage.document(&stream));
        switch.load().expect("the module loads");
        let sent = switch.deliver(&Load { count: 200, headers: 5, ..Load::default() });
        wait_until(LIMIT, "the topic to be named", || {
            let status = statuses(switch).remove(0);
            let error = status["last_error"].as_str().unwrap_or_default().to_owned();
            error.contains(&topic) && number(&status, "waiting") >= 200 && dropped(&status) == 0
        });
        kafka.create_topic(&topic, 2, &[]);
        make_topic(&kafka, &topic);
        let consumer = Consumer::kafka(&servers, &topic, &[]);
        wait_until(LIMIT * 2, "all that waited", || {
            oracle::judge(std::slice::from_ref(&sent), &consumer.messages()).lost.is_empty()
        });
        wait_balanced(switch);
    });
}
