// SPDX-License-Identifier: MIT
//! Containers whose clocks differ, by a preloaded library (`clock.c`): a kernel's time namespaces leave the time of day alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::account;
use crate::engine::ask;
use crate::ground::{Broker, GENERATED, Ground, ground};
use crate::node::Node;
use crate::support::clients::Message;
use crate::support::switch::{Delivered, Load, Switch};
use crate::support::{Folder, wait_until};

const LIMIT: Duration = Duration::from_secs(90);
/// Where a container has the file that says how far its clock is off.
const CLOCK: &str = "/clock";
const HOUR: i64 = 3600;

fn seconds_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    i64::try_from(since.as_secs()).unwrap()
}

/// A node whose time of day is `skew` away from everybody else's; intervals are as long as ever.
fn node<'a>(ground: &'a Ground, folder: &Folder, skew: i64, sinks: &[String]) -> Node<'a> {
    set(folder, skew);
    let mount = format!("{}:{CLOCK}:ro", folder.path().display());
    let mut options = vec!["-v".to_owned(), mount];
    for variable in
        ["LD_PRELOAD=/test/clock.so".to_owned(), format!("CLOCK_SKEW_FILE={CLOCK}/skew")]
    {
        options.extend(["-e".to_owned(), variable]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Node::with(ground, "fs1", sinks, &ground.run.test[0], &options)
}

/// Puts the clock of the containers that have this folder as far wrong.
fn set(folder: &Folder, skew: i64) {
    folder.write("skew", format!("{skew}\n"));
}

/// How far the clock of a container is off.
fn off(node: &Node<'_>) -> i64 {
    let told = ask(&["exec", &node.name, "date", "+%s"]).expect("the container tells its time");
    told.trim().parse::<i64>().expect("seconds") - seconds_now()
}

/// Events of a switch whose clock is `skew` off arrive, all of them, dated by the switch.
fn arrives_with_its_own_dates(test: &str, skew: i64) {
    let Some(ground) = ground(test) else { return };
    let folder = Folder::new("clock");
    drop(ground.consume(Broker::RabbitMq, test));
    let sinks = Broker::ALL.map(|broker| broker.sink(test, GENERATED, &[]));
    let mut node = node(&ground, &folder, skew, &sinks);
    let off = off(&node);
    assert!((off - skew).abs() < 120, "the container's clock is {off} s off, not {skew}");
    let load = Load { count: 2000, rate: 1000, kind: "custom", ..Load::default() };
    let generated: [Delivered; 1] = [node.deliver(&load)];
    for broker in Broker::ALL {
        let status = account::settle(&mut node, broker.alias(), 2000, LIMIT);
        let received = ground.read(broker, test, 2000, LIMIT);
        let what = format!("{}, clock {skew} s off", broker.alias());
        account::complete(&what, &generated, &received);
        assert_eq!(account::number(&status, "dead"), 0, "{status}");
        for message in &received {
            let away = dated(message) - seconds_now();
            assert!((away - skew).abs() < 300, "{what}: dated {away} s from now: {message:?}");
        }
    }
}

/// Seconds since 1970, as the message's own header has it.
fn dated(message: &Message) -> i64 {
    let name =
        if message.headers.contains_key("timestamp-us") { "timestamp-us" } else { "timestamp_us" };
    let us: i64 = message.headers[name].parse().expect("microseconds");
    us / 1_000_000
}

#[test]
fn a_switch_whose_clock_is_two_days_behind_loses_nothing() {
    arrives_with_its_own_dates("clock_behind", -48 * HOUR);
}

#[test]
fn a_switch_whose_clock_is_fifty_minutes_ahead_loses_nothing() {
    arrives_with_its_own_dates("clock_ahead", 50 * 60);
}

/// Kafka takes no record that is dated more than an hour ahead of its own clock. What it does not take is kept as dead
/// letters, and arrives when they are sent again once the clock has been set back under the running switch.
#[test]
fn what_kafka_refuses_from_a_switch_two_hours_ahead_is_kept_until_the_clock_is_right() {
    let test = "what_kafka_refuses_from_a_switch_two_hours_ahead_is_kept_until_the_clock_is_right";
    let Some(ground) = ground(test) else { return };
    let folder = Folder::new("clock");
    let place = "clock_wrong";
    drop(ground.consume(Broker::RabbitMq, place));
    let sinks = Broker::ALL.map(|broker| broker.sink(place, GENERATED, &[]));
    let mut node = node(&ground, &folder, 2 * HOUR, &sinks);
    let load = Load { count: 1000, rate: 1000, kind: "custom", ..Load::default() };
    let mut generated = vec![node.deliver(&load)];
    for broker in Broker::ALL {
        let status = account::settle(&mut node, broker.alias(), 1000, LIMIT);
        let dead = if broker == Broker::Kafka { 1000 } else { 0 };
        let ended = (account::number(&status, "delivered"), account::number(&status, "dead"));
        assert_eq!((ended, account::dropped(&status)), ((1000 - dead, dead), 0), "{status}");
        println!("{}: dead {dead}, last error {}", broker.alias(), status["last_error"]);
    }
    set(&folder, 0);
    wait_until(LIMIT, "the clock to be right", || off(&node).abs() < 60);
    let answer = node.api("rustbridge dlq retry kafka all");
    assert!(answer.starts_with("+OK"), "{answer}");
    wait_until(LIMIT, "the dead letters to be sent again", || {
        account::number(&account::status(&mut node, "kafka"), "delivered") >= 1000
    });
    generated.push(node.deliver(&load));
    for broker in Broker::ALL {
        account::settle(&mut node, broker.alias(), 2000, LIMIT);
        let received = ground.read(broker, place, 2000, LIMIT);
        let what = format!("{}, clock two hours ahead and set right", broker.alias());
        account::complete(&what, &generated, &received);
    }
}
