// SPDX-License-Identifier: MIT
//! Containers of FreeSWITCH that start before the brokers, are stopped, or are killed.

use std::time::{Duration, Instant};

use crate::account::{self, number};
use crate::engine::{docker, inspect};
use crate::gate::Use;
use crate::ground::{Broker, GENERATED, ground_alone, ground_apart, ground_with};
use crate::node::{GRACE_SECONDS, Node};
use crate::support::switch::{Load, Switch};
use crate::support::wait_until;

const LIMIT: Duration = Duration::from_secs(90);

/// A minute of events while the brokers are not even names: on a network of its own, where they are made afterwards.
#[test]
fn events_from_before_the_brokers_are_there_arrive_once_they_are() {
    let test = "events_from_before_the_brokers_are_there_arrive_once_they_are";
    let Some(ground) = ground_apart(test) else { return };
    let late = ground.apart("late");
    let sinks = Broker::ALL.map(|broker| broker.sink("boot", GENERATED, &[]));
    let mut node = Node::start(&late, "fs1", &sinks);
    let begun = Instant::now();
    let load = Load { count: 3000, rate: 50, kind: "custom", ..Load::default() };
    let generated = [node.deliver(&load)];
    assert!(begun.elapsed() > Duration::from_secs(55), "{:?}", begun.elapsed());
    for broker in Broker::ALL {
        let status = account::status(&mut node, broker.alias());
        assert_eq!(
            (number(&status, "delivered"), number(&status, "waiting")),
            (0, 3000),
            "{status}"
        );
    }
    late.make_broker(Broker::Kafka, Broker::Kafka.alias());
    // Under another name until there is a queue for what the switch will send at once.
    late.make_broker(Broker::RabbitMq, "nameless");
    let url = format!("amqp://guest:guest@{}:5672/%2f", late.broker(Broker::RabbitMq));
    wait_until(LIMIT, "RabbitMQ to have a queue", || {
        late.client(&["python3", "/amqp.py", "bind", &url, "boot", "#", "boot"]).is_ok()
    });
    late.disconnect(Broker::RabbitMq);
    late.connect(Broker::RabbitMq);
    for broker in Broker::ALL {
        late.wait_up(broker);
        account::settle(&mut node, broker.alias(), 3000, LIMIT);
        let received = late.read(broker, "boot", 3000, LIMIT);
        account::complete(
            &format!("{}, a minute after the switch", broker.alias()),
            &generated,
            &received,
        );
    }
    drop(node);
    late.remove();
}

#[test]
fn docker_stop_delivers_everything_within_its_grace_period() {
    let test = "docker_stop_delivers_everything_within_its_grace_period";
    let Some(ground) = ground_with(test, [Use::Shared, Use::Alone]) else { return };
    drop(ground.consume(Broker::RabbitMq, "stop"));
    let sinks = Broker::ALL.map(|broker| broker.sink("stop", GENERATED, &[]));
    let mut node = Node::start(&ground, "fs1", &sinks);
    // Kafka answers again only once the switch is on its way out, so that there is something left to drain.
    docker(&["pause", &ground.broker(Broker::Kafka)]);
    let generated = [node.deliver(&Load { count: 3000, kind: "custom", ..Load::default() })];
    assert!(number(&account::status(&mut node, "kafka"), "waiting") > 0);
    let started = Instant::now();
    let resume = std::thread::Builder::new().name("resume".into());
    let name = ground.broker(Broker::Kafka);
    let resume =
        resume.spawn(move || docker(&["unpause", &name])).expect("a thread can be started");
    let code = node.stop_gracefully();
    let took = started.elapsed();
    resume.join().expect("Kafka goes on");
    println!("docker stop took {took:?} of {GRACE_SECONDS} s and ended with {code}");
    // 137 is SIGKILL: the grace period was not enough.
    assert_ne!(code, 137, "it had to be killed");
    for line in node.log().lines().filter(|line| line.contains("Final account")) {
        println!("{line}");
    }
    for broker in Broker::ALL {
        let received = ground.read(broker, "stop", 3000, LIMIT);
        account::complete(&format!("{}, docker stop", broker.alias()), &generated, &received);
    }
}

#[test]
fn what_a_killed_container_had_spooled_is_sent_by_the_next_one() {
    let test = "what_a_killed_container_had_spooled_is_sent_by_the_next_one";
    let Some(ground) = ground_alone(test, &Broker::ALL) else { return };
    drop(ground.consume(Broker::RabbitMq, "spool"));
    let more = [("spool-mode", "always"), ("spool-fsync", "always")];
    let sinks = Broker::ALL.map(|broker| broker.sink("spool", GENERATED, &more));
    let volume = ground.run.name("spool");
    docker(&["volume", "create", "--label", &ground.run.label(), &volume]);
    let mount = format!("{volume}:/var/lib/rustbridge");
    let image = ground.run.test[0].clone();
    for broker in Broker::ALL {
        docker(&["stop", "-t", "10", &ground.broker(broker)]);
    }
    let mut node = Node::with(&ground, "fs1", &sinks, &image, &["-v", &mount]);
    let generated = [node.deliver(&Load { count: 2000, kind: "custom", ..Load::default() })];
    // What is durable is what is promised.
    for broker in Broker::ALL {
        wait_until(LIMIT, "everything to be durable in the spool", || {
            let spool = &account::status(&mut node, broker.alias())["spool"];
            number(spool, "records") >= 2000 && number(spool, "loss_window_records") == 0
        });
    }
    node.kill();
    assert_eq!(inspect(&node.name, "{{.State.ExitCode}}"), "137");
    drop(node);
    for broker in Broker::ALL {
        docker(&["start", &ground.broker(broker)]);
    }
    let mut node = Node::with(&ground, "fs1", &sinks, &image, &["-v", &mount]);
    for broker in Broker::ALL {
        ground.wait_up(broker);
        account::settle(&mut node, broker.alias(), 0, LIMIT);
        let received = ground.read(broker, "spool", 2000, LIMIT);
        account::complete(
            &format!("{}, killed with a spool", broker.alias()),
            &generated,
            &received,
        );
    }
    drop(node);
    docker(&["volume", "rm", "-f", &volume]);
}
