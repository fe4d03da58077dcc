// SPDX-License-Identifier: MIT
//! Brokers that go away in the ways that containers make honest, while events are generated at a steady rate. What is lost
//! is nothing, and the account says so.

use std::time::Duration;

use crate::account;
use crate::engine::{ask, docker, inspect, logs};
use crate::ground::{Broker, GENERATED, Ground, ground_alone};
use crate::node::Node;
use crate::support::skips;
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(90);
/// Six seconds of events; a fault begins after the first of them have arrived.
const LOAD: Load = Load {
    count: 6000,
    headers: 20,
    threads: 1,
    rate: 1000,
    keys: 50,
    kind: "custom",
    ahead: false,
    queued: false,
    check: false,
};

/// Generates events while `fault` happens to the broker and is undone, then requires all of them at the broker.
fn survives(test: &str, broker: Broker, fault: impl FnOnce(&Ground, &mut Node<'_>)) {
    let test = format!("{test}_{}", broker.alias());
    let Some(ground) = ground_alone(&test, &[broker]) else { return };
    if broker == Broker::RabbitMq {
        drop(ground.consume(broker, &test));
    }
    let mut node = Node::start(&ground, "fs1", &[broker.sink(&test, GENERATED, &[])]);
    let running = node.generate_later(&LOAD.line());
    wait_until(LIMIT, "the first events to arrive", || {
        account::number(&account::status(&mut node, broker.alias()), "delivered") > 200
    });
    fault(&ground, &mut node);
    let generated = Delivered::parse(&running.finish());
    ground.wait_up(broker);
    let status = account::settle(&mut node, broker.alias(), generated.count, LIMIT);
    println!(
        "{test}: reconnects {}, resent {}, last error {}",
        status["reconnects"], status["resent"], status["last_error"]
    );
    assert_eq!(account::dropped(&status), 0, "{status}");
    let received = ground.read(broker, &test, LOAD.count.try_into().unwrap(), LIMIT);
    account::complete(&test, &[generated], &received);
}

/// Until the fault is felt: the connection is given up, where that is ours to decide, and events pile up.
fn felt(node: &mut Node<'_>, broker: Broker) {
    if broker == Broker::RabbitMq {
        wait_until(LIMIT, "the connection to be given up", || {
            account::status(node, broker.alias())["state"] != "connected"
        });
    }
    account::wait_waiting(node, broker.alias(), 2000, LIMIT);
}

fn killed(ground: &Ground, node: &mut Node<'_>, broker: Broker) {
    docker(&["kill", &ground.broker(broker)]);
    felt(node, broker);
    docker(&["start", &ground.broker(broker)]);
}

fn paused(ground: &Ground, node: &mut Node<'_>, broker: Broker) {
    docker(&["pause", &ground.broker(broker)]);
    felt(node, broker);
    docker(&["unpause", &ground.broker(broker)]);
}

fn cut_off(ground: &Ground, node: &mut Node<'_>, broker: Broker) {
    ground.disconnect(broker);
    felt(node, broker);
    ground.connect(broker);
}

#[test]
fn nothing_is_lost_when_rabbitmq_is_killed() {
    survives("killed", Broker::RabbitMq, |g, n| killed(g, n, Broker::RabbitMq));
}

#[test]
fn nothing_is_lost_when_kafka_is_killed() {
    survives("killed", Broker::Kafka, |g, n| killed(g, n, Broker::Kafka));
}

#[test]
fn nothing_is_lost_when_rabbitmq_is_paused() {
    survives("paused", Broker::RabbitMq, |g, n| paused(g, n, Broker::RabbitMq));
}

#[test]
fn nothing_is_lost_when_kafka_is_paused() {
    survives("paused", Broker::Kafka, |g, n| paused(g, n, Broker::Kafka));
}

#[test]
fn nothing_is_lost_when_rabbitmq_leaves_the_network_and_returns() {
    survives("cut_off", Broker::RabbitMq, |g, n| cut_off(g, n, Broker::RabbitMq));
}

#[test]
fn nothing_is_lost_when_kafka_leaves_the_network_and_returns() {
    survives("cut_off", Broker::Kafka, |g, n| cut_off(g, n, Broker::Kafka));
}

/// A command as root in the network of another container, with the right to change it.
fn in_network_of(ground: &Ground, container: &str, words: &[&str]) -> Result<String, String> {
    let (label, network) = (ground.run.label(), format!("container:{container}"));
    let run = [
        "run",
        "--rm",
        "--label",
        &label,
        "--network",
        &network,
        "--cap-add",
        "NET_ADMIN",
        "-u",
        "0",
    ];
    ask(&[&run[..], &[&ground.run.client], words].concat())
}

/// Until at least half of the events have gone through the bad network.
fn half_through(node: &mut Node<'_>, sink: &str) {
    wait_until(LIMIT, "half of the events to be delivered", || {
        account::number(&account::status(node, sink), "delivered") > LOAD.count / 2
    });
}

/// What `tc` does to a container's interface, whose name says how often it has been to the network.
fn tc<'w>(word: &'w str, rule: &'w str) -> [&'w str; 6] {
    let script = "device=$(ip -o -4 addr show scope global | awk 'NR == 1 { print $2 }'); \
                  exec tc qdisc \"$1\" dev \"$device\" $2";
    ["sh", "-c", script, "tc", word, rule]
}

/// What arrives at a broker is late, and some of it is lost, until this goes.
struct BadNetwork<'g> {
    ground: &'g Ground,
    broker: String,
    /// The container of the program that delays, where the kernel has no netem.
    delay: Option<String>,
}

impl<'g> BadNetwork<'g> {
    /// By netem where the kernel has it. Else the packet filter loses packets and hands the others to a program that delays them
    /// (`client/delay.py`).
    fn new(test: &str, ground: &'g Ground, broker: Broker) -> Self {
        let name = ground.broker(broker);
        let added = in_network_of(ground, &name, &tc("add", "root netem delay 60ms 20ms loss 3%"));
        let Err(error) = added else {
            println!("{test} {}: by netem", broker.alias());
            return Self { ground, broker: name, delay: None };
        };
        assert!(error.contains("Specified qdisc kind is unknown"), "{error}");
        let lose = ["-m", "statistic", "--mode", "random", "--probability", "0.05", "-j", "DROP"];
        let rule = [&["iptables", "-A", "INPUT", "!", "-i", "lo"][..], &lose].concat();
        in_network_of(ground, &name, &rule).expect("the packet filter takes a rule");
        let delay = ground.run.name("delay");
        let bad = Self { ground, broker: name, delay: Some(delay.clone()) };
        let network = format!("container:{}", bad.broker);
        let label = ground.run.label();
        let run = ["run", "-d", "--name", &delay, "--label", &label, "--network", &network];
        let program = ["--cap-add", "NET_ADMIN", "-u", "0", &ground.run.client];
        docker(&[&run[..], &program, &["python3", "/delay.py", "60", "20"]].concat());
        wait_until(LIMIT, "packets to be delayed", || {
            let running = inspect(&delay, "{{.State.Running}}") == "true";
            if !running {
                skips::note(
                    &format!("docker::{test} {}", broker.alias()),
                    "this kernel has neither netem nor nfqueue, so packets were lost but not delayed",
                    "a kernel with CONFIG_NET_SCH_NETEM: modprobe sch_netem",
                );
            }
            !running || logs(&delay).contains("READY")
        });
        println!("{test} {}: by the packet filter", broker.alias());
        bad
    }

    /// How long a connection takes to be made, in milliseconds, where packets are delayed at all.
    fn handshake(&self, broker: Broker) -> Option<u64> {
        if self.delay.as_ref().is_some_and(|name| inspect(name, "{{.State.Running}}") != "true") {
            return None;
        }
        let address = if broker == Broker::RabbitMq { "'rabbitmq', 5672" } else { "'kafka', 9092" };
        let program = format!(
            "import socket, time; t = time.monotonic(); socket.create_connection(({address})); \
             print(int(1000 * (time.monotonic() - t)))"
        );
        let answer =
            self.ground.client(&["python3", "-c", &program]).expect("a connection is made");
        Some(answer.trim().parse().expect("a number"))
    }
}

impl Drop for BadNetwork<'_> {
    fn drop(&mut self) {
        let undone = match &self.delay {
            None => in_network_of(self.ground, &self.broker, &tc("del", "root")),
            Some(_) => in_network_of(self.ground, &self.broker, &["iptables", "-F", "INPUT"]),
        };
        if let Some(name) = &self.delay {
            drop(ask(&["rm", "-f", name]));
        }
        if let Err(error) = undone {
            println!("the network of {} stays bad: {error}", self.broker);
        }
    }
}

fn slow_and_lossy(test: &str, broker: Broker) {
    survives(test, broker, |ground, node| {
        let bad = BadNetwork::new(test, ground, broker);
        if let Some(took) = bad.handshake(broker) {
            println!("{test} {}: a connection is made in {took} ms", broker.alias());
            assert!(took >= 40, "packets are not delayed");
        }
        half_through(node, broker.alias());
    });
}

#[test]
fn nothing_is_lost_on_a_slow_and_lossy_network_to_rabbitmq() {
    slow_and_lossy("lossy", Broker::RabbitMq);
}

#[test]
fn nothing_is_lost_on_a_slow_and_lossy_network_to_kafka() {
    slow_and_lossy("lossy", Broker::Kafka);
}
