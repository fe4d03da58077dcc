// SPDX-License-Identifier: MIT
//! Bounded memory and bounded disk: what does not fit is counted, and the switch goes on.

use std::time::Duration;

use crate::account;
use crate::engine::{command, docker, inspect};
use crate::ground::{Broker, GENERATED, ground_alone, ground_apart, sink};
use crate::node::Node;
use crate::support::clients::Message;
use crate::support::switch::{Load, Switch};
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(90);

#[test]
fn a_memory_limit_is_kept_and_what_does_not_fit_is_counted() {
    let test = "a_memory_limit_is_kept_and_what_does_not_fit_is_counted";
    let Some(ground) = ground_alone(test, &[Broker::RabbitMq]) else { return };
    drop(ground.consume(Broker::RabbitMq, "memory"));
    docker(&["stop", "-t", "10", &ground.broker(Broker::RabbitMq)]);
    let more =
        [("queue-max-bytes", "8388608"), ("spool-mode", "off"), ("queue-when-full", "drop-newest")];
    let sinks = [Broker::RabbitMq.sink("memory", GENERATED, &more)];
    let image = ground.run.test[0].clone();
    let mut node =
        Node::with(&ground, "fs1", &sinks, &image, &["--memory", "256m", "--memory-swap", "256m"]);
    // Six times what the queue may hold.
    let generated = [node.deliver(&Load { count: 20_000, kind: "custom", ..Load::default() })];
    assert_eq!(inspect(&node.name, "{{.State.OOMKilled}} {{.State.Running}}"), "false true");
    let status = account::status(&mut node, "rabbitmq");
    let dropped = account::dropped(&status);
    println!("dropped: {}", status["dropped"]);
    assert!(dropped > 0, "{status}");
    docker(&["start", &ground.broker(Broker::RabbitMq)]);
    ground.wait_up(Broker::RabbitMq);
    let status = account::settle(&mut node, "rabbitmq", 20_000, LIMIT);
    assert_eq!(
        account::dropped(&status),
        dropped,
        "what was dropped, was dropped while the broker was away"
    );
    let arrived = usize::try_from(20_000 - dropped).unwrap();
    let received = ground.read(Broker::RabbitMq, "memory", arrived, LIMIT);
    account::balance("rabbitmq, memory limit", &generated, &received, dropped);
    assert!(received.iter().any(is_gap), "what is missing is reported as a gap record");
}

fn is_gap(message: &Message) -> bool {
    message.key.as_deref().is_some_and(|key| key.contains("gap"))
        || String::from_utf8_lossy(&message.body).contains("gap")
}

#[test]
fn a_full_disk_stops_the_journal_and_not_the_switch() {
    let Some(ground) = ground_apart("a_full_disk_stops_the_journal_and_not_the_switch") else {
        return;
    };
    let path = "/journal/events.ndjson";
    let sinks = [sink("journal", "file", GENERATED, &[("path", path), ("spool-mode", "off")])];
    let image = ground.run.test[0].clone();
    let disk = ["--tmpfs", "/journal:size=2m,mode=1777"];
    let mut node = Node::with(&ground, "fs1", &sinks, &image, &disk);
    let inside = |name: &str, words: &[&str]| docker(&[&["exec", name][..], words].concat());
    inside(
        &node.name,
        &["dd", "if=/dev/zero", "of=/journal/others", "bs=1024", "count=1900", "status=none"],
    );
    // Two megabytes, where there is room for a tenth of one.
    let generated =
        [node.deliver(&Load { count: 1000, headers: 10, kind: "custom", ..Load::default() })];
    let status = wait_for(LIMIT, "the journal to tell of the full disk", || {
        let status = account::status(&mut node, "journal");
        let error = status["last_error"].as_str().unwrap_or_default();
        error.contains("No space left").then_some(status)
    });
    println!("last error: {}", status["last_error"]);
    assert!(node.api("originate loopback/tone/test &park()").starts_with("+OK"), "calls go on");
    node.api("hupall");
    docker(&["exec", &node.name, "rm", "/journal/others"]);
    let status = account::settle(&mut node, "journal", 1000, LIMIT);
    let done = command(&["exec", &node.name, "cat", path]).output().expect("docker can be started");
    let lines = done.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let received: Vec<Message> =
        lines.map(|line| Message { body: line.into(), ..Message::default() }).collect();
    assert_eq!(account::wanted(&status), 1000, "{status}");
    account::balance("journal, full disk", &generated, &received, account::dropped(&status));
}
