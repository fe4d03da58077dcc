// SPDX-License-Identifier: MIT
//! Calls, commands and a reload, seen from other containers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::account::{self, number};
use crate::engine::docker;
use crate::ground::{Broker, GENERATED, Ground, ground};
use crate::node::Node;
use crate::support::clients::Message;
use crate::support::oracle::holes;
use crate::support::switch::{Load, Switch};
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(60);
/// What every leg of an answered call says; its end comes last.
const LIFE: [&str; 4] =
    ["CHANNEL_CREATE", "CHANNEL_ANSWER", "CHANNEL_HANGUP_COMPLETE", "CHANNEL_DESTROY"];

fn field(message: &Message, name: &str) -> String {
    message.json().get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
}

/// For each leg, the names of its events and their places in the sink's stream, as they arrived.
fn legs(messages: &[Message]) -> BTreeMap<String, Vec<(String, u64)>> {
    let mut legs: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
    for message in messages {
        let leg = field(message, "Unique-ID");
        if !leg.is_empty() {
            let seq = message.number("seq").expect("every message has a seq");
            legs.entry(leg).or_default().push((field(message, "Event-Name"), seq));
        }
    }
    legs
}

/// Waits until so many legs have ended at a broker, and requires of each that it told its whole life, in the order in which
/// the switch did.
fn whole_lives(ground: &Ground, broker: Broker, place: &str, count: usize) {
    let reader = ground.consume(broker, place);
    let legs = wait_for(LIMIT, &format!("{count} legs in {}", broker.alias()), || {
        let legs = legs(&reader.consumer.messages());
        let ended = legs.values().filter(|events| events.iter().any(|(name, _)| name == LIFE[3]));
        (ended.count() >= count).then_some(legs)
    });
    for (leg, events) in &legs {
        let told = |name: &str| events.iter().position(|(told, _)| told == name);
        let place = LIFE
            .map(|name| told(name).unwrap_or_else(|| panic!("{leg} has no {name}: {events:?}")));
        assert!(place.iter().all(|at| *at <= place[3]), "{leg} goes on after its end: {events:?}");
        assert!(
            events.is_sorted_by(|(_, one), (_, next)| one < next),
            "{leg} is out of order: {events:?}"
        );
    }
    println!("{}: {} legs, each from create to destroy, in order", broker.alias(), legs.len());
}

/// A sink for each broker, and a queue that keeps what comes to RabbitMQ.
fn sinks(ground: &Ground, place: &str, events: &str) -> Vec<String> {
    drop(ground.consume(Broker::RabbitMq, place));
    Broker::ALL.map(|broker| broker.sink(place, events, &[])).into()
}

#[test]
fn loopback_calls_and_commands_work_in_every_freeswitch_image() {
    let Some(ground) = ground("loopback_calls_and_commands_work_in_every_freeswitch_image") else {
        return;
    };
    for (number, image) in ground.run.test.iter().enumerate() {
        let place = format!("calls{number}");
        let sinks = sinks(&ground, &place, "CHANNEL_*");
        let mut node = Node::with(&ground, "fs1", &sinks, image, &[]);
        println!("{}", node.api("rustbridge version").trim());
        assert_eq!(node.api("module_exists mod_rustbridge").trim(), "true");
        for line in ["rustbridge status", "rustbridge sinks", "rustbridge help"] {
            let answer = node.api(line);
            assert!(!answer.contains("-ERR") && answer.lines().count() > 2, "{line}: {answer}");
        }
        for _ in 0..5 {
            let answer = node.api("originate loopback/tone/test &park()");
            assert!(answer.starts_with("+OK"), "{answer}");
        }
        node.api("hupall");
        for broker in Broker::ALL {
            whole_lives(&ground, broker, &place, 10);
        }
    }
}

#[test]
fn sip_calls_with_media_from_another_container_arrive() {
    let Some(ground) = ground("sip_calls_with_media_from_another_container_arrive") else { return };
    let sinks = sinks(&ground, "sip", "CHANNEL_* !CHANNEL_CALLSTATE");
    let mut node = Node::start(&ground, "fs1", &sinks);
    // Its packets are recorded ones, sent from a raw socket.
    let name = ground.run.name("sipp");
    let label = ground.run.label();
    docker(&[
        "run",
        "--rm",
        "--name",
        &name,
        "--label",
        &label,
        "--network",
        &ground.network,
        "-u",
        "0",
        "--cap-add",
        "NET_RAW",
        "-w",
        "/usr/share/sip-tester",
        &ground.run.client,
        "sh",
        "-c",
        // The scenario names its recording by a folder that Debian's package does not have.
        "mkdir -p /tmp/s/pcap && cp *.pcap /tmp/s/pcap && cd /tmp/s && \
         sipp -sn uac_pcap -s echo -m 4 -r 2 -d 500 -timeout 60s $0:5060 >/tmp/s/out 2>&1 || { tail -40 /tmp/s/out; exit 1; }",
        &node.alias,
    ]);
    whole_lives(&ground, Broker::RabbitMq, "sip", 4);
    whole_lives(&ground, Broker::Kafka, "sip", 4);
    let reader = ground.consume(Broker::Kafka, "sip");
    let heard: Vec<u64> = wait_for(LIMIT, "the ends of four calls", || {
        let messages = reader.consumer.messages();
        let ends = messages.iter().filter(|message| field(message, "Event-Name") == LIFE[2]);
        let heard = ends.map(|end| field(end, "variable_rtp_audio_in_media_packet_count"));
        let heard: Vec<u64> = heard.map(|count| count.parse().unwrap_or(0)).collect();
        (heard.len() >= 4).then_some(heard)
    });
    println!("RTP packets heard by each call: {heard:?}");
    assert!(heard.len() == 4 && heard.iter().all(|packets| *packets > 0), "{heard:?}");
    assert_eq!(number(&account::status(&mut node, "kafka"), "waiting"), 0);
}

#[test]
fn unload_and_reload_between_events_lose_nothing() {
    let Some(ground) = ground("unload_and_reload_between_events_lose_nothing") else { return };
    let sinks = sinks(&ground, "reload", GENERATED);
    let mut node = Node::start(&ground, "fs1", &sinks);
    let load = Load { count: 500, kind: "custom", ..Load::default() };
    let mut generated = vec![node.deliver(&load)];
    // Unloading delivers what waits.
    node.unload().expect("it unloads");
    assert_eq!(node.api("module_exists mod_rustbridge").trim(), "false");
    node.load().expect("it loads again");
    generated.push(node.deliver(&load));
    node.reload().expect("it reloads");
    generated.push(node.deliver(&load));
    for broker in Broker::ALL {
        account::settle(&mut node, broker.alias(), 500, LIMIT);
        let received = ground.read(broker, "reload", 1500, LIMIT);
        account::complete(
            &format!("{}, unloaded and reloaded", broker.alias()),
            &generated,
            &received,
        );
    }
}

#[test]
fn two_nodes_on_one_broker_stay_apart() {
    let Some(ground) = ground("two_nodes_on_one_broker_stay_apart") else { return };
    let sinks = sinks(&ground, "nodes", GENERATED);
    // A 1.10 beside a 1.11 where both are at hand.
    let image = ground.run.test.last().unwrap().clone();
    let mut first = Node::start(&ground, "fs1", &sinks);
    let mut second = Node::with(&ground, "fs2", &sinks, &image, &[]);
    let load = Load { count: 1000, rate: 1000, kind: "custom", ..Load::default() };
    let running = (first.generate_later(&load.line()), second.generate_later(&load.line()));
    for answer in [running.0.finish(), running.1.finish()] {
        assert!(answer.contains("+OK n=1000"), "{answer}");
    }
    let connections = ground.rabbitmqctl(&["list_connections", "client_properties"]);
    let names = [first.alias.clone(), second.alias.clone()];
    for node in &names {
        assert!(
            connections.contains(&format!("{node} rabbitmq")),
            "connection names: {connections}"
        );
    }
    for broker in Broker::ALL {
        for node in [&mut first, &mut second] {
            account::settle(node, broker.alias(), 1000, LIMIT);
        }
        let received = ground.read(broker, "nodes", 2000, LIMIT);
        let mut streams: BTreeMap<(String, String), Vec<u64>> = BTreeMap::new();
        for message in &received {
            let header = |name: &str| message.headers.get(name).cloned().unwrap_or_default();
            // What the event says of itself is the node that the header names.
            assert_eq!(field(message, "FreeSWITCH-Hostname"), header("node"), "{broker:?}");
            let seq = message.number("seq").expect("every message has a seq");
            streams.entry((header("node"), header("boot"))).or_default().push(seq);
        }
        let nodes: Vec<String> = streams.keys().map(|(node, _)| node.clone()).collect();
        let boots: BTreeSet<&String> = streams.keys().map(|(_, boot)| boot).collect();
        assert_eq!((nodes.as_slice(), boots.len()), (names.as_slice(), 2), "{broker:?}");
        for ((node, _), seqs) in &streams {
            assert_eq!(holes(1, seqs.iter().copied()), [0_u64; 0], "{broker:?} {node}");
        }
        println!(
            "account of {}, two nodes: generated 2000 = received unique {} + dropped 0",
            broker.alias(),
            received.len()
        );
        assert_eq!(received.len(), 2000);
    }
}
